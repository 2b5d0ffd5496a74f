"""Name look-ups of both clients."""

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from heksher_client import Setting
from heksher_client._http import resolved_hosts
from heksher_client._http.resolved_hosts import ResolvedHosts
from tests.support.clients import FEATURES, Kind, Subject, running
from tests.support.fake_service import FakeService
from tests.support.faults import FaultServer, canned_response

NAME = "settings.example"


class Names:
    """Names that a test defines, and a record of those that were looked up."""

    def __init__(self, look_up: Callable[..., Any]) -> None:
        self._look_up = look_up
        self.addresses = {NAME: "127.0.0.1"}
        self.looked_up: list[str] = []

    def look_up(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in self.addresses:
            self.looked_up.append(name)
            host = self.addresses[name]
        return self._look_up(host, *args, **kwargs)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    return names


@pytest.fixture
def server(fake_service: FakeService) -> Iterator[FaultServer]:
    with FaultServer(fake_service) as server:
        yield server


def url_of(server: FaultServer) -> str:
    return server.url.replace("127.0.0.1", NAME)


def test_a_start_looks_the_host_up_once(kind: Kind, server: FaultServer, names: Names) -> None:
    """Although it sends up to ten requests at once, each on a connection of its own."""
    settings = [Setting(f"s{number}", int, ["user"], 1) for number in range(60)]
    with running(kind, url_of(server), follow_changes=False) as subject:
        assert server.connections > 1
        assert names.looked_up == [NAME]
        subject.reload()
    assert names.looked_up == [NAME]
    assert settings[0].get(user="jim") == 1


def test_a_service_that_closes_connections_costs_a_look_up_in_half_a_minute(
    kind: Kind, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a service which moves is found."""
    times = [0.0]
    monkeypatch.setattr(resolved_hosts, "monotonic", lambda: times[-1])

    with FaultServer(FakeService()) as server:
        server.inject(canned_response(b'{"version": "1"}', headers="Connection: close\r\n"))
        subject = Subject(kind, url_of(server), 3600, FEATURES)
        for time, look_ups in ((0.0, 1), (29.9, 1), (30.0, 2), (59.0, 2), (90.0, 3)):
            times.append(time)
            subject.ping()
            assert len(names.looked_up) == look_ups
        subject.close()


class Backend:
    """A network backend that can connect to some addresses only."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.tried: list[str] = []
        self.peer: object = ("10.0.0.1", 80)

    def connect_tcp(self, host: str, port: int, **arguments: Any) -> Any:
        assert (port, arguments) == (80, {"timeout": 5})
        self.tried.append(host)
        if host not in self.addresses:
            raise ConnectionError
        return self

    def get_extra_info(self, name: str) -> object:
        assert name == "server_addr"
        return self.peer

    def sleep(self) -> str:
        return "slept"


class AsyncBackend(Backend):
    async def connect_tcp(self, host: str, port: int, **arguments: Any) -> Any:
        return super().connect_tcp(host, port, **arguments)


class FakeClient:
    """An HTTP client whose pool has a network backend."""

    def __init__(self, backend: Backend, hosts: ResolvedHosts) -> None:
        self.is_async = isinstance(backend, AsyncBackend)
        self._pool = SimpleNamespace(_network_backend=backend)
        self._transport = self
        self._mounts = {"all://": None, "https://": object()}
        hosts.use_for(self, is_async=self.is_async)

    def connect(self) -> Any:
        connected = self._pool._network_backend.connect_tcp(host=NAME, port=80, timeout=5)
        return asyncio.run(connected) if self.is_async else connected


@pytest.mark.parametrize("backend_class", [Backend, AsyncBackend])
def test_an_address_that_refuses_connections_is_forgotten(backend_class: type[Backend]) -> None:
    """The host is looked up again at once."""
    hosts, backend = ResolvedHosts(), backend_class(NAME, "10.0.0.1")
    client = FakeClient(backend, hosts)
    for tried in ([NAME], ["10.0.0.1"]):
        backend.tried.clear()
        assert client.connect() is backend
        assert backend.tried == tried
    backend.tried.clear()
    backend.addresses, backend.peer = (NAME,), ("10.0.0.2", 80)
    assert client.connect() is backend
    assert backend.tried == ["10.0.0.1", NAME]
    assert (hosts.address(NAME, 80), hosts.address(NAME, 81)) == ("10.0.0.2", NAME)
    backend.tried.clear()
    backend.addresses = ()
    with pytest.raises(ConnectionError):
        client.connect()
    assert backend.tried == ["10.0.0.2", NAME]
    assert client._pool._network_backend.sleep() == "slept"


def test_the_address_of_a_connection_may_be_unknown() -> None:
    """That of a mock transport, for example. Then the name is used."""
    for peer in (None, "/run/socket"):
        hosts, backend = ResolvedHosts(), Backend(NAME)
        backend.peer = peer
        client = FakeClient(backend, hosts)
        for _ in range(2):
            client.connect()
        assert backend.tried == [NAME, NAME]
    ResolvedHosts().use_for(object(), is_async=False)


def test_each_http_client_of_an_endpoint_looks_names_up_itself(kind: Kind) -> None:
    """A transport of the program is left as it is."""
    client = kind.make("http://host", 60, FEATURES, http_client_args={"proxy": "http://proxy"})
    endpoint = client._endpoint
    pools = [one._pool for one in (endpoint.client._transport, *endpoint.client._mounts.values())]
    assert {type(pool._network_backend).__module__ for pool in pools} == {resolved_hosts.__name__}
    assert len(pools) > 1
    endpoint.hosts._known["host", 80] = "10.0.0.1", math.inf
    endpoint.replace_client()
    assert endpoint.hosts.address("host", 80) == "host"
    transport = (httpx.AsyncHTTPTransport if kind.raises_at_start else httpx.HTTPTransport)()
    kind.make("http://host", 60, FEATURES, http_client_args={"transport": transport})
    assert type(transport._pool._network_backend).__module__.startswith("httpcore")
