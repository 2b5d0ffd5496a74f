"""httpx2, the maintained fork of httpx, as a shared HTTP client. Only `tox run -e httpx2` installs it."""

from collections.abc import Iterator
from typing import Any

import pytest

from heksher_client import AsyncHeksherClient, ServiceUnavailableError, Setting, UnexpectedResponseError
from heksher_client.credentials import TokenFrom
from heksher_client.service import create_app
from tests.support.clients import FEATURES, Kind, running
from tests.support.faults import Connection, FaultServer
from tests.support.oauth import OAuthServer, put_behind_gateway
from tests.support.service import Answer, WatchedService

httpx2: Any = pytest.importorskip("httpx2")


@pytest.fixture
def http(kind: Kind) -> Iterator[Any]:
    client = httpx2.AsyncClient(params={"p": "1"}) if kind.raises_at_start else httpx2.Client(params={"p": "1"})
    yield client
    kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_a_client_can_use_it(kind: Kind, service: WatchedService, http: Any) -> None:
    """Declarations, queries with the program's headers and parameters, and changes; it is not closed."""
    service.renew(offers_changes=True)
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, http_client=http, headers={"X-Own": "1"}, timeout=3) as subject:
        subject.forget_outcomes()
        service.add_rule("s", 2, user="jim")
        assert subject.next_outcome() is None
        assert setting.get(user="jim") == 2
        assert service.asked[-1].headers["x-own"] == "1"
        assert service.asked[-1].query["p"] == "1"
        assert service.asked[-1].headers["user-agent"].startswith("heksher-client/")
    assert not http.is_closed


def test_its_errors_are_classified(kind: Kind, service: WatchedService, http: Any) -> None:
    """A service that cannot be reached, and an unexpected response."""
    away = kind.make("http://127.0.0.1:1", 60, FEATURES, http_client=http)
    with pytest.raises(ServiceUnavailableError, match=r"no answer \(ConnectError: "):
        kind.call(away.ping())
    with running(kind, service.url, http_client=http, params={"key": "secret-key"}) as subject:
        service.intercept = lambda asked: Answer(418, b"you said secret-key")
        with pytest.raises(UnexpectedResponseError, match=r"418: 'you said \*\*\*'"):
            subject.ping()


def test_a_credential_works_with_it(kind: Kind, service: WatchedService, http: Any) -> None:
    """Its token is refreshed after status 401."""
    with OAuthServer() as oauth:
        put_behind_gateway(service, oauth)
        with running(kind, service.url, http_client=http, auth=TokenFrom(oauth.issue)) as subject:
            oauth.expire_all()
            subject.ping()


def test_a_connection_that_was_closed_while_idle_is_replaced(kind: Kind, service: WatchedService, http: Any) -> None:
    """Even if a request was being sent."""
    with FaultServer(service.url) as server, running(kind, server.url, http_client=http) as subject:

        def end_once(connection: Connection) -> None:
            server.break_(None)
            connection.raw.shutdown(2)

        server.cut()
        subject.ping()
        server.break_(end_once)
        subject.ping()


@pytest.mark.anyio
async def test_it_can_use_an_application_in_the_same_process() -> None:
    """Without a socket and without a stream."""
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
