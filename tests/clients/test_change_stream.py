"""The change stream of real clients: over connections that are lost, silent, closed, and behind nginx."""

import asyncio
from collections.abc import AsyncIterator, Iterator
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
from tests.support.service import CHANGES, CannedResponse, WatchedService
from tests.support.threads import threads_of_clients


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
        rule = streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        streaming_service.call("DELETE", f"/api/v1/rules/{rule}")
        assert eventually(lambda: setting.get(user="jim") == 7)


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


def test_the_stream_is_not_requested_if_the_http_client_cannot_keep_a_response_open(kind: Kind) -> None:
    """It would take the only connection, or a hook that reads the response, or a transport to an application, would
    wait for its end."""

    def follows_changes(**arguments: Any) -> bool:
        client = kind.make("http://127.0.0.1:9", 60, FEATURES, http_client_args=arguments)
        follows: bool = client._options.follow_changes
        return follows

    async def read_async(response: httpx.Response) -> None:
        await response.aread()

    application: Any = object()
    is_async = kind.raises_at_start
    hook, transport = (
        (read_async, httpx.ASGITransport(application))
        if is_async
        else (httpx.Response.read, httpx.WSGITransport(application))
    )
    assert follows_changes()
    assert follows_changes(limits=httpx.Limits(max_connections=2), event_hooks={"request": [print]})
    assert not follows_changes(limits=httpx.Limits(max_connections=1))
    assert not follows_changes(event_hooks={"response": [hook]})
    assert not follows_changes(transport=transport)


@pytest.mark.parametrize("response", [CannedResponse(200, b"<html>"), CannedResponse(302)], ids=["page", "redirect"])
def test_a_proxy_that_responds_in_place_of_the_stream(
    kind: Kind, streaming_service: WatchedService, response: CannedResponse
) -> None:
    """The client does not follow changes, and refreshes at intervals."""
    setting = Setting("s", int, ["user"], 7)
    streaming_service.respond_with(CHANGES, response)
    with running(kind, streaming_service.url, 0.05) as client:
        assert eventually(lambda: streaming_service.requests_to(CHANGES))
        streaming_service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
        assert (client.client.status().state, client.client.status().is_following) == (State.FRESH, False)


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
    assert eventually(lambda: not threads_of_clients("heksher-client-changes"))


def test_a_client_can_be_closed_at_any_moment(kind: Kind, streaming_service: WatchedService) -> None:
    """No thread is left, even if the client closes before or while it opens the stream."""
    _setting = Setting("s", int, ["user"], 7)
    for i in range(20):
        with running(kind, streaming_service.url):
            eventually(lambda i=i: len(streaming_service.requests_to(CHANGES)) > i, i / 2000)  # type: ignore[misc]
    assert eventually(lambda: not threads_of_clients("heksher-client-changes"))


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
