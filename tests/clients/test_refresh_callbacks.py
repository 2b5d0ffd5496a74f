"""What a program is told of each refresh, in both clients."""

import logging
import time

import pytest

from heksher_client import Refresh, Setting, UnexpectedResponseError
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.service import QUERY, Answer, WatchedService


def test_a_refresh_tells_when_it_was_and_what_it_changed(kind: Kind, service: WatchedService) -> None:
    """After the hooks, with the settings for which something was put in place."""
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


def test_a_refresh_that_failed_has_its_errors(kind: Kind, service: WatchedService) -> None:
    """The first of them is what the hook gets."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        refreshes: list[Refresh] = []
        client.client.on_refresh(refreshes.append)
        service.answering(QUERY, Answer(503))
        client.state_after_reload()
        assert eventually(lambda: bool(refreshes))
        (error,) = refreshes[0].errors
        assert isinstance(error, UnexpectedResponseError)
        assert error.status == 503


def test_an_error_of_a_callback_is_logged_and_stops_nothing(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The next callback is called as well."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        refreshes: list[Refresh] = []

        @client.client.on_refresh  # type: ignore[untyped-decorator]
        def fail(refresh: Refresh) -> None:
            raise ValueError("not today")

        client.client.on_refresh(refreshes.append)
        client.reload()
        assert eventually(lambda: bool(refreshes))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == ["fail raised"]


def test_what_would_have_to_be_awaited_is_refused(kind: Kind) -> None:
    """As with all callbacks."""
    client = kind.make("http://host", 60, FEATURES)

    async def later(refresh: Refresh) -> None: ...

    with pytest.raises(TypeError, match="must not be a coroutine function"):
        client.on_refresh(later)
