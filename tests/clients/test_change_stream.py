"""The change stream, for both clients: the service reports a change, and the client refreshes at once."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import AsyncHeksherClient, Setting, State
from heksher_client.service import LocalService
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, Subject, eventually, running
from tests.support.http import http_client, http_request
from tests.support.nginx import NGINX, Nginx
from tests.support.service import CannedResponse, WatchedService

CHANGES = "GET /api/v1/changes"
QUERY = "GET /api/v1/query"


@pytest.fixture
def streaming_service(service: WatchedService) -> WatchedService:
    """A service that announces the change stream to clients."""
    service.offers_changes = True
    return service


@contextmanager
def following_client(kind: Kind, url: str, **options: Any) -> Iterator[Subject]:
    """Run a client that follows changes. Its interval is an hour, so only the stream can cause a refresh."""
    with running(kind, url, max_backoff=0.05, **options) as client:
        assert eventually(lambda: client.client.status().is_following)
        yield client


def test_a_change_is_loaded_at_once(kind: Kind, streaming_service: WatchedService) -> None:
    """A new rule is used, and a deleted rule no longer used, without waiting for the interval."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, streaming_service.url):
        for value in range(2):
            started = time.monotonic()
            rule = streaming_service.add_rule("s", value, user=f"u{value}")
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == value)  # type: ignore[misc]
            assert time.monotonic() - started < 5
            streaming_service.call("DELETE", f"/api/v1/rules/{rule}")
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == 7)  # type: ignore[misc]


def test_a_new_order_of_context_features_is_loaded_at_once(kind: Kind, streaming_service: WatchedService) -> None:
    """It changes the priority of rules."""
    setting = Setting("s", int, ["user", "theme"], 7)
    with following_client(kind, streaming_service.url):
        streaming_service.add_rule("s", 1, user="jim")
        streaming_service.add_rule("s", 2, theme="dark")
        assert eventually(lambda: setting.get(user="jim", theme="dark") == 2)
        streaming_service.call("PATCH", "/api/v1/context_features/user/index", {"to_after": "theme"})
        assert eventually(lambda: setting.get(user="jim", theme="dark") == 1)


def test_changes_of_undeclared_settings_do_not_cause_refreshes(kind: Kind, streaming_service: WatchedService) -> None:
    """Changes of a renamed setting, which have its new name, do."""
    setting = Setting("s", int, ["user"], 7)
    streaming_service.declare("other", "int", 1, ["user"])
    with following_client(kind, streaming_service.url):
        streaming_service.call("PUT", "/api/v1/settings/s/name", {"name": "t", "version": "1.1"})
        streaming_service.add_rule("t", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        before = len(streaming_service.requests_to(QUERY))
        streaming_service.add_rule("other", 2, user="jim")
        streaming_service.add_rule("t", 9, user="ann")
        assert eventually(lambda: setting.get(user="ann") == 9)
        assert len(streaming_service.requests_to(QUERY)) - before <= 2


def test_a_change_that_arrives_at_the_end_of_a_refresh_is_compared_with_all_names(
    kind: Kind, streaming_service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is read by another thread, and a setting may have got the name in this refresh."""
    setting = Setting("s", int, ["user"], 7)
    outcomes: list[bool] = []
    with following_client(kind, streaming_service.url) as client:
        stream = client.client._session._stream
        record = stream.record_revision

        def change_and_record(revision: int | None, names: Container[str]) -> bool:
            if not outcomes:
                stream._unknown.append((10**9, [setting.name]))
            outcomes.append(record(revision, names))
            return outcomes[-1]

        monkeypatch.setattr(stream, "record_revision", change_and_record)
        client.reload()
        assert outcomes[0]


def test_changes_made_while_the_stream_is_lost_are_loaded(kind: Kind, streaming_service: WatchedService) -> None:
    """They are loaded when the stream is open again, or at the next refresh."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, streaming_service.url) as client:
        streaming_service.stop()
        assert eventually(lambda: not client.client.status().is_following)
        streaming_service.start()
        streaming_service.reset(offers_changes=True)
        streaming_service.declare("s", "int", 7, ["user"])
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert eventually(lambda: client.client.status().is_following)


def test_a_failed_request_for_context_features_does_not_close_the_stream(
    kind: Kind, streaming_service: WatchedService
) -> None:
    """The known order is used, and later changes still arrive."""
    setting = Setting("s", int, ["user"], 7)
    with following_client(kind, streaming_service.url) as client:
        streaming_service.respond_with("GET /api/v1/context_features", CannedResponse(500), times=1)
        client.state_after_reload()
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert client.client.status().is_following


def test_a_client_of_a_service_without_a_change_stream_refreshes_at_intervals(
    kind: Kind, service: WatchedService
) -> None:
    """It does not request the stream."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url, 0.05) as client:
        service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert not client.client.status().is_following
    assert service.requests_to(CHANGES) == []


@pytest.mark.parametrize(
    "options",
    [
        {"follow_changes": False},
        {"http_client_args": {"limits": httpx.Limits(max_connections=1)}},
    ],
)
def test_the_stream_is_not_requested_if_it_is_disabled_or_would_take_the_only_connection(
    kind: Kind, streaming_service: WatchedService, options: dict[str, Any]
) -> None:
    """The client refreshes at intervals."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, streaming_service.url, 0.05, **options):
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
    assert streaming_service.requests_to(CHANGES) == []


def test_the_stream_is_not_requested_if_the_http_client_has_response_hooks(
    kind: Kind, streaming_service: WatchedService
) -> None:
    """A hook that reads the response would block forever."""
    setting = Setting("s", int, ["user"], 7)

    def read(response: httpx.Response) -> None:
        response.read()

    async def read_async(response: httpx.Response) -> None:
        await response.aread()

    hooks = {"response": [read_async if kind.raises_at_start else read]}
    with running(kind, streaming_service.url, 0.05, http_client_args={"event_hooks": hooks}):
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
    assert streaming_service.requests_to(CHANGES) == []


@pytest.mark.parametrize(
    "response",
    [
        CannedResponse(404),
        CannedResponse(401),
        CannedResponse.of({"detail": "no"}, 403),
        CannedResponse(200, b"<html>"),
        CannedResponse(302),
        CannedResponse(503),
    ],
    ids=lambda response: str(response.status),
)
def test_a_client_without_access_to_the_stream_refreshes_at_intervals(
    kind: Kind, streaming_service: WatchedService, response: CannedResponse
) -> None:
    """A proxy may reject the request. The client stays healthy, and requests the stream again only if that may help."""
    setting = Setting("s", int, ["user"], 7)
    streaming_service.respond_with(CHANGES, response)
    with running(kind, streaming_service.url, 0.05) as client:
        assert eventually(lambda: streaming_service.requests_to(CHANGES))
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert (client.client.status().state, client.client.status().is_following) == (State.FRESH, False)
        if 300 <= response.status < 500:
            assert len(streaming_service.requests_to(CHANGES)) == 1


def test_a_query_is_repeated_while_its_response_is_older_than_the_change(
    kind: Kind, streaming_service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache or a replica of the database may lag behind the stream."""
    setting = Setting("s", int, ["user"], 7)
    monkeypatch.setattr("heksher_client._core.refresh.schedule._CATCH_UP", 0.02)
    with following_client(kind, streaming_service.url):
        cached = http_request("GET", f"{streaming_service.url}/api/v1/query?settings=s")
        headers = {name: cached.headers[name] for name in ("content-type", "etag", "heksher-revision")}
        streaming_service.respond_with(QUERY, CannedResponse(200, cached.content, headers), times=3)
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)


def test_closing_a_client_closes_its_stream(kind: Kind, streaming_service: WatchedService) -> None:
    """The connection and the thread end as well."""
    _setting = Setting("s", int, ["user"], 7)
    metrics = f"{streaming_service.url}/metrics"

    def streams() -> str:
        lines = http_request("GET", metrics).text.splitlines()
        return next(line for line in lines if line.startswith("heksher_streams"))

    with following_client(kind, streaming_service.url):
        assert streams() == "heksher_streams 1.0"
    assert eventually(lambda: streams() == "heksher_streams 0.0")
    assert eventually(lambda: not stream_threads())


def stream_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heksher-client-changes"]


def test_a_client_can_be_closed_at_any_moment(kind: Kind, streaming_service: WatchedService) -> None:
    """No thread is left, even if the client closes before or while it opens the stream."""
    _setting = Setting("s", int, ["user"], 7)
    for i in range(20):
        with running(kind, streaming_service.url):
            eventually(lambda i=i: len(streaming_service.requests_to(CHANGES)) > i, i / 2000)  # type: ignore[misc]
    assert eventually(lambda: not stream_threads())


@pytest.mark.anyio
async def test_closing_a_client_closes_the_stream_even_if_data_arrives(streaming_service: WatchedService) -> None:
    """The stream is closed by `aclose`, not later by the event loop, which may be closed before that."""
    data_arrives, stream_started, raised = asyncio.Event(), asyncio.Event(), list[type[BaseException]]()

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                yield b": hello\n\n"
                stream_started.set()
                await data_arrives.wait()
                yield b": late\n\n"
            except BaseException as error:
                raised.append(type(error))
                raise

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/changes"):
                return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Stream())
            return await super().handle_async_request(request)

    _setting = Setting("s", int, ["user"], 7)
    async with AsyncHeksherClient(streaming_service.url, 3600, FEATURES, http_client_args={"transport": Transport()}):
        await asyncio.wait_for(stream_started.wait(), TIMEOUT_SECONDS)
        data_arrives.set()
    assert raised == [asyncio.CancelledError]


def test_a_stream_without_data_is_opened_again(
    kind: Kind, streaming_service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service sends a heartbeat, so a silent connection is lost. The client stays healthy."""
    _setting = Setting("s", int, ["user"], 7)
    monkeypatch.setattr("heksher_client._core.refresh.session.STREAM_TIMEOUT", 0.1)
    with running(kind, streaming_service.url, max_backoff=0.05) as client:
        assert eventually(lambda: len(streaming_service.requests_to(CHANGES)) > 2)
        assert client.client.status().state is State.FRESH


def test_the_start_and_the_end_of_the_stream_are_logged(
    kind: Kind, streaming_service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The level is INFO: a lost stream is not an error, as the client still refreshes at intervals."""
    _setting = Setting("s", int, ["user"], 7)
    caplog.set_level("INFO", "heksher_client")
    with following_client(kind, streaming_service.url) as client:
        streaming_service.stop()
        assert eventually(lambda: not client.client.status().is_following)
        streaming_service.start()
    records = [record for record in caplog.records if record.name == "heksher_client" and record.levelname == "INFO"]
    messages = [record.getMessage() for record in records if "changes" in record.getMessage()]
    assert messages[0] == "following changes as they are made"
    assert messages[1].startswith("the stream of changes has ended")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_the_stream_works_through_nginx(kind: Kind, tmp_path: Path) -> None:
    """No nginx option is needed: a header of the service disables buffering."""
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
