"""httpx2, the maintained fork of httpx, as the HTTP client of both clients. Only `tox run -e httpx2` installs it."""

from collections.abc import Iterator
from typing import Any

import pytest

from heksher_client import AsyncHeksherClient, ServiceUnavailableError, Setting, UnexpectedResponseError
from heksher_client.credentials import TokenFrom
from heksher_client.service import create_app
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, running
from tests.support.faults import Connection, FaultServer
from tests.support.oauth import OAuthServer, put_behind_gateway
from tests.support.service import CannedResponse, WatchedService

httpx2: Any = pytest.importorskip("httpx2")


@pytest.fixture
def http(kind: Kind) -> Iterator[Any]:
    make = httpx2.AsyncClient if kind.raises_at_start else httpx2.Client
    client = make(params={"p": "1"}, timeout=TIMEOUT_SECONDS)
    yield client
    kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_a_client_can_use_an_httpx2_client(kind: Kind, service: WatchedService, http: Any) -> None:
    """It sends declarations and queries with the program's headers and parameters, and follows changes.

    Closing the client does not close the HTTP client.
    """
    service.reset(offers_changes=True)
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, http_client=http, headers={"X-Own": "1"}) as subject:
        subject.clear_outcomes()
        service.add_rule("s", 2, user="jim")
        assert subject.next_outcome() is None
        assert setting.get(user="jim") == 2
        assert service.requests[-1].headers["x-own"] == "1"
        assert service.requests[-1].query["p"] == "1"
        assert service.requests[-1].headers["user-agent"].startswith("heksher-client/")
    assert not http.is_closed


def test_errors_of_httpx2_are_converted(kind: Kind, service: WatchedService, http: Any) -> None:
    """An unreachable service and an unexpected response raise the client's own errors."""
    unreachable = kind.make("http://127.0.0.1:1", 60, FEATURES, http_client=http)
    with pytest.raises(ServiceUnavailableError, match=r"no response \(ConnectError: "):
        kind.call(unreachable.ping())
    with running(kind, service.url, http_client=http, params={"key": "secret-key"}) as subject:
        service.intercept = lambda request: CannedResponse(418, b"you sent secret-key")
        with pytest.raises(UnexpectedResponseError, match=r"418: 'you sent \*\*\*'"):
            subject.ping()


def test_credentials_work_with_httpx2(kind: Kind, service: WatchedService, http: Any) -> None:
    """A token is refreshed after a response with status 401."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        with running(kind, service.url, http_client=http, auth=TokenFrom(oauth.issue)) as subject:
            oauth.expire_all()
            subject.ping()


def test_a_connection_that_was_closed_while_idle_is_replaced(kind: Kind, service: WatchedService, http: Any) -> None:
    """The request is sent again even if it was on its way when the connection was closed."""
    with FaultServer(service.url) as server, running(kind, server.url, http_client=http) as subject:

        def disconnect_once(connection: Connection) -> None:
            server.inject(None)
            connection.raw.shutdown(2)

        server.disconnect_all()
        subject.ping()
        server.inject(disconnect_once)
        subject.ping()


@pytest.mark.anyio
async def test_httpx2_can_call_an_asgi_application_in_the_same_process() -> None:
    """The client uses no socket, and does not follow changes."""
    app = create_app("sqlite://", ["user"], access_control=False)
    setting = Setting("s", int, ["user"], 1)
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http,
        AsyncHeksherClient("http://127.0.0.1", 3600, ["user"], http_client=http) as client,
    ):
        assert setting.get(user="jim") == 1
        assert not client._session.wants_to_follow
    app.state.event_stream.close()
    app.state.database.close()
