"""Both clients on a service that tells of changes as they are made."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import AsyncHeksherClient, Setting, State
from heksher_client.service import LocalService
from tests.support.clients import FEATURES, PATIENCE, Kind, Subject, eventually, running
from tests.support.http import http_client, http_request
from tests.support.nginx import NGINX, Nginx
from tests.support.service import Answer, WatchedService

CHANGES = "GET /api/v1/changes"
QUERY = "GET /api/v1/query"


@pytest.fixture
def telling(service: WatchedService) -> WatchedService:
    service.offers_changes = True
    return service


@contextmanager
def following_client(kind: Kind, url: str, **options: Any) -> Iterator[Subject]:
    """One that asks hourly, so that whatever arrives was heard of."""
    with running(kind, url, max_backoff=0.05, **options) as client:
        assert eventually(lambda: client.client.status().is_following)
        yield client


def test_a_change_reaches_a_reader_at_once(kind: Kind, telling: WatchedService) -> None:
    """Not only after the interval, which is an hour here."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, telling.url):
        for value in range(2):
            began = time.monotonic()
            rule = telling.add_rule("s", value, user=f"u{value}")
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == value)  # type: ignore[misc]
            assert time.monotonic() - began < 5
            telling.call("DELETE", f"/api/v1/rules/{rule}")
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == 7)  # type: ignore[misc]


def test_a_new_order_of_context_features_is_heard_of_too(kind: Kind, telling: WatchedService) -> None:
    """It changes which rules win."""
    setting = Setting("s", int, ["user", "theme"], 7)
    with following_client(kind, telling.url):
        telling.add_rule("s", 1, user="jim")
        telling.add_rule("s", 2, theme="dark")
        assert eventually(lambda: setting.get(user="jim", theme="dark") == 2)
        telling.call("PATCH", "/api/v1/context_features/user/index", {"to_after": "theme"})
        assert eventually(lambda: setting.get(user="jim", theme="dark") == 1)


def test_changes_of_others_settings_cost_no_refresh(kind: Kind, telling: WatchedService) -> None:
    """A renamed setting is known by its new name as well."""
    setting = Setting("s", int, ["user"], 7)
    telling.declare("other", "int", 1, ["user"])
    with following_client(kind, telling.url):
        telling.call("PUT", "/api/v1/settings/s/name", {"name": "t", "version": "1.1"})
        telling.add_rule("t", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        before = len(telling.questions(QUERY))
        telling.add_rule("other", 2, user="jim")
        telling.add_rule("t", 9, user="ann")
        assert eventually(lambda: setting.get(user="ann") == 9)
        assert len(telling.questions(QUERY)) - before <= 2


def test_a_lost_stream_leaves_no_gap(kind: Kind, telling: WatchedService) -> None:
    """What was changed meanwhile is heard of when it is back, or found at the next refresh."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, telling.url) as client:
        telling.stop()
        assert eventually(lambda: not client.client.status().is_following)
        telling.start()
        telling.renew(offers_changes=True)
        telling.declare("s", "int", 7, ["user"])
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert eventually(lambda: client.client.status().is_following)


def test_an_order_that_cannot_be_had_once_ends_no_stream(kind: Kind, telling: WatchedService) -> None:
    """The one that is known goes on, and so does the stream from where it is."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, telling.url) as client:
        telling.answering("GET /api/v1/context_features", Answer(500), times=1)
        client.state_after_reload()
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert client.client.status().is_following


def test_a_service_that_tells_nothing_is_asked_at_intervals(kind: Kind, service: WatchedService) -> None:
    """As ever."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url, 0.05) as client:
        service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert not client.client.status().is_following
    assert service.questions(CHANGES) == []


@pytest.mark.parametrize(
    "options",
    [
        {"follow_changes": False},
        {"http_client_args": {"limits": httpx.Limits(max_connections=1)}},
    ],
)
def test_nothing_is_followed_where_a_program_does_not_want_it(
    kind: Kind, telling: WatchedService, options: dict[str, Any]
) -> None:
    """Or has room for one connection only, which the stream would take from the refreshes; or hooks for responses."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, telling.url, 0.05, **options):
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
    assert telling.questions(CHANGES) == []


def test_hooks_for_responses_get_no_stream(kind: Kind, telling: WatchedService) -> None:
    """One that reads the response would never come back."""
    setting = Setting("s", int, ["user"], 7)

    def read(response: httpx.Response) -> None:
        response.read()

    async def read_async(response: httpx.Response) -> None:
        await response.aread()

    hooks = {"response": [read_async if kind.raises_at_start else read]}
    with running(kind, telling.url, 0.05, http_client_args={"event_hooks": hooks}):
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
    assert telling.questions(CHANGES) == []


@pytest.mark.parametrize(
    "answer",
    [Answer(404), Answer(401), Answer.of({"detail": "no"}, 403), Answer(200, b"<html>"), Answer(302), Answer(503)],
    ids=lambda answer: str(answer.status),
)
def test_a_stream_that_is_refused_costs_nothing_but_the_stream(
    kind: Kind, telling: WatchedService, answer: Answer
) -> None:
    """A proxy may not let it through. Refreshes go on, and the client is well."""
    setting = Setting("s", int, ["user"], 7)
    telling.answering(CHANGES, answer)
    with running(kind, telling.url, 0.05) as client:
        assert eventually(lambda: telling.questions(CHANGES))
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert (client.client.status().state, client.client.status().is_following) == (State.FRESH, False)
        if 300 <= answer.status < 500:
            assert len(telling.questions(CHANGES)) == 1


def test_answers_that_are_older_than_a_change_are_asked_for_again(
    kind: Kind, telling: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache in front of the service, or a copy of its database, may be behind for a moment."""
    setting = Setting("s", int, ["user"], 7)
    monkeypatch.setattr("heksher_client._core.refresh.schedule._CATCH_UP", 0.02)
    with following_client(kind, telling.url):
        cached = http_request("GET", f"{telling.url}/api/v1/query?settings=s")
        headers = {name: cached.headers[name] for name in ("content-type", "etag", "heksher-revision")}
        telling.answering(QUERY, Answer(200, cached.content, headers), times=3)
        telling.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)


def test_a_client_that_is_closed_hangs_up(kind: Kind, telling: WatchedService) -> None:
    """At once, and without a thread, a task or a connection left over."""
    _setting = Setting("s", int, ["user"], 7)
    metrics = f"{telling.url}/metrics"

    def streams() -> str:
        lines = http_request("GET", metrics).text.splitlines()
        return next(line for line in lines if line.startswith("heksher_streams"))

    with following_client(kind, telling.url):
        assert streams() == "heksher_streams 1.0"
    assert eventually(lambda: streams() == "heksher_streams 0.0")
    assert eventually(lambda: not followers())


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heksher-client-changes"]


def test_a_client_may_be_closed_at_any_moment(kind: Kind, telling: WatchedService) -> None:
    """Before its stream is there, and while it comes: nothing is left that waits for it."""
    _setting = Setting("s", int, ["user"], 7)
    for moment in range(20):
        with running(kind, telling.url):
            eventually(lambda moment=moment: len(telling.questions(CHANGES)) > moment, moment / 2000)  # type: ignore[misc]
    assert eventually(lambda: not followers())


@pytest.mark.anyio
async def test_what_arrives_as_a_client_closes_leaves_no_stream_half_read(telling: WatchedService) -> None:
    """It ends where it waits, and is not left to the event loop, which may be closed before it comes to that."""
    arrived, begun, ended = asyncio.Event(), asyncio.Event(), list[type[BaseException]]()

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b": hello\n\n"
                begun.set()
                await arrived.wait()
                yield b": late\n\n"
            except BaseException as error:
                ended.append(type(error))
                raise

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/changes"):
                return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Stream())
            return await super().handle_async_request(request)

    _setting = Setting("s", int, ["user"], 7)
    async with AsyncHeksherClient(telling.url, 3600, FEATURES, http_client_args={"transport": Transport()}):
        await asyncio.wait_for(begun.wait(), PATIENCE)
        arrived.set()
    assert ended == [asyncio.CancelledError]


def test_a_quiet_stream_is_taken_for_lost(kind: Kind, telling: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service would have said that it is there."""
    _setting = Setting("s", int, ["user"], 7)
    monkeypatch.setattr("heksher_client._core.refresh.session.STREAM_TIMEOUT", 0.1)
    with running(kind, telling.url, max_backoff=0.05) as client:
        assert eventually(lambda: len(telling.questions(CHANGES)) > 2)
        assert client.client.status().state is State.FRESH


def test_the_log_says_when_changes_are_followed_and_when_not(
    kind: Kind, telling: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """At the level INFO: that a stream is lost is no fault, as the intervals go on."""
    _setting = Setting("s", int, ["user"], 7)
    caplog.set_level("INFO", "heksher_client")
    with following_client(kind, telling.url) as client:
        telling.stop()
        assert eventually(lambda: not client.client.status().is_following)
        telling.start()
    records = [record for record in caplog.records if record.name == "heksher_client" and record.levelname == "INFO"]
    told = [record.getMessage() for record in records if "changes" in record.getMessage()]
    assert told[0] == "following changes as they are made"
    assert told[1].startswith("the stream of changes has ended")


@pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")
def test_changes_come_through_nginx(kind: Kind, tmp_path: Path) -> None:
    """As it is, without an option of its own: the service asks it not to keep them."""
    setting = Setting("s", int, ["user"], 7)
    with (
        LocalService(FEATURES, access_control=False) as service,
        Nginx(tmp_path, service.url) as nginx,
        following_client(kind, nginx.url),
        http_client(service.url) as http,
    ):
        rule = {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}
        http.post("/api/v1/rules", json=rule).raise_for_status()
        assert eventually(lambda: setting.get(user="jim") == 8)
