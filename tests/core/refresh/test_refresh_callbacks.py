"""Callbacks that receive the result of each refresh."""

import logging

import pytest

from heksher_client import Refresh, Setting, UnexpectedResponseError
from tests.support.driven import START, driven
from tests.support.fake_service import FakeService
from tests.support.service import DECLARE, QUERY, CannedResponse


def test_a_refresh_has_its_time_duration_and_changed_settings(service: FakeService) -> None:
    """Settings whose rules are unchanged are not included. The duration includes pauses."""
    _setting, _other = Setting("s", int, ["user"], 7), Setting("other", int, ["user"], 7)
    refreshes: list[Refresh] = []
    with driven(service, update_interval=60) as client:
        client.on_refresh(refreshes.append)
        client.reload()
        assert refreshes == [Refresh(START, 0.0, errors=(), changed=())]

        service.add_rule("s", 8, user="jim")
        client.refresh()
        assert refreshes[1:] == [Refresh(START + 60, 0.0, errors=(), changed=("s",))]

        _late = Setting("late", int, ["user"], 7)
        service.respond_with(DECLARE, CannedResponse(500), times=1)
        client.refresh()
        assert refreshes[2].seconds == pytest.approx(0.1)
        assert refreshes[2].changed == ("late",)


def test_a_failed_refresh_has_its_errors(service: FakeService) -> None:
    """The error has the status of the response."""
    _setting = Setting("s", int, ["user"], 7)
    refreshes: list[Refresh] = []
    with driven(service) as client:
        client.on_refresh(refreshes.append)
        service.respond_with(QUERY, CannedResponse(503))
        failure = client.reload_expecting(UnexpectedResponseError)
    (refresh,) = refreshes
    assert refresh.errors == (failure,)
    assert failure.status == 503


def test_the_error_of_a_refresh_callback_is_logged(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """The next callback is still called."""
    _setting = Setting("s", int, ["user"], 7)
    refreshes: list[Refresh] = []

    def fail(refresh: Refresh) -> None:
        raise ValueError("failed")

    with driven(service) as client:
        client.on_refresh(fail)
        client.on_refresh(refreshes.append)
        client.reload()
    assert len(refreshes) == 1
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == ["fail raised"]


def test_a_removed_refresh_callback_is_not_called_again(service: FakeService) -> None:
    """Others are."""
    removed: list[Refresh] = []
    kept: list[Refresh] = []
    with driven(service) as client:
        client.on_refresh(removed.append)
        client.on_refresh(kept.append)
        client.reload()
        client.off_refresh(removed.append)
        client.reload()
    assert (len(removed), len(kept)) == (1, 2)


def test_a_coroutine_function_is_not_accepted_as_a_callback(service: FakeService) -> None:
    """Refresh callbacks are plain functions, like all callbacks."""

    async def callback(refresh: Refresh) -> None: ...

    with driven(service) as client, pytest.raises(TypeError, match="must not be a coroutine function"):
        client.on_refresh(callback)
