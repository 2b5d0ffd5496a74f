"""Callbacks that receive the result of each refresh, for both clients."""

import logging
import time

import pytest

from heksher_client import Refresh, Setting, UnexpectedResponseError
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.service import QUERY, CannedResponse, WatchedService


def test_a_refresh_has_its_time_duration_and_changed_settings(kind: Kind, service: WatchedService) -> None:
    """Settings whose rules are unchanged are not included."""
    setting = Setting("s", int, ["user"], 7)
    other = Setting("other", int, ["user"], 7)
    with running(kind, service.url) as client:
        refreshes: list[Refresh] = []
        client.client.on_refresh(refreshes.append)
        client.reload()
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert eventually(lambda: len(refreshes) == 2)
        first, second = refreshes
        assert (first.errors, first.changed) == ((), ())
        assert second.changed == ("s",)
        assert 0 <= second.seconds < 10
        assert abs(second.started_at - time.time()) < 60
        client.client.off_refresh(refreshes.append)
    assert (setting.name, other.name) == ("s", "other")


def test_a_failed_refresh_has_its_errors(kind: Kind, service: WatchedService) -> None:
    """The error has the status of the response."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        refreshes: list[Refresh] = []
        client.client.on_refresh(refreshes.append)
        service.respond_with(QUERY, CannedResponse(503))
        client.state_after_reload()
        assert eventually(lambda: bool(refreshes))
        (error,) = refreshes[0].errors
        assert isinstance(error, UnexpectedResponseError)
        assert error.status == 503


def test_the_error_of_a_refresh_callback_is_logged(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The next callback is still called."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        refreshes: list[Refresh] = []

        @client.client.on_refresh  # type: ignore[untyped-decorator]
        def fail(refresh: Refresh) -> None:
            raise ValueError("failed")

        client.client.on_refresh(refreshes.append)
        client.reload()
        assert eventually(lambda: bool(refreshes))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == ["fail raised"]


def test_a_coroutine_function_is_not_accepted_as_a_callback(kind: Kind) -> None:
    """Refresh callbacks are plain functions, like all callbacks."""
    client = kind.make("http://host", 60, FEATURES)

    async def callback(refresh: Refresh) -> None: ...

    with pytest.raises(TypeError, match="must not be a coroutine function"):
        client.on_refresh(callback)
