"""The argument `timeout` of calls, with both clients."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heksher_client import (
    AsyncHeksherClient,
    ClientNotRunningError,
    ServiceTimeoutError,
    Setting,
    ThreadHeksherClient,
)
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Gate, Kind, Subject, call_without_waiting, running
from tests.support.fake_service import FakeService
from tests.support.faults import Connection, FaultServer, stall
from tests.support.in_memory import LoopbackService, in_memory

CALLS = ("ping", "get_settings", "reload", "set_as_main")


@pytest.fixture
def server(fake_service: FakeService) -> Iterator[FaultServer]:
    with FaultServer(fake_service) as server:
        yield server


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_takes_longer_than_its_timeout_raises_a_timeout_error(
    kind: Kind, server: FaultServer, call: str
) -> None:
    """The options would allow a minute. The error names the argument."""
    subject = Subject(kind, server.url, 3600, FEATURES)
    if call == "reload":
        subject.start()
    server.inject(stall)
    with pytest.raises(TimeoutError, match=r"argument timeout\)") as raised:
        call_without_waiting(lambda: kind.call(getattr(subject.client, call)(timeout=0.05)))
    assert isinstance(raised.value, ServiceTimeoutError)
    assert isinstance(raised.value, httpx.HTTPError) == (call == "ping")
    assert subject.client.closed == (call == "set_as_main")
    subject.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_ends_in_time_is_not_affected_by_its_timeout(
    kind: Kind, fake_service: FakeService, call: str
) -> None:
    """Its result, and its other errors, are the same. The timeout must be a positive number."""
    _setting = Setting("s", int, ["user"], 1)
    subject = Subject(kind, "http://service", 3600, FEATURES, **in_memory(fake_service))
    method = getattr(subject.client, call)
    invalid: list[tuple[Any, type[Exception]]] = [(0, ValueError), (float("nan"), ValueError), ("5", TypeError)]
    for timeout, error in invalid:
        with pytest.raises(error, match=r"^timeout must be a"):
            kind.call(method(timeout=timeout))
    if call == "reload":
        with pytest.raises(ClientNotRunningError):
            kind.call(method(timeout=TIMEOUT_SECONDS))
    if call != "set_as_main":
        subject.start()
    result = kind.call(method(timeout=TIMEOUT_SECONDS))
    assert list(result or ()) == (["s"] if call == "get_settings" else [])
    subject.close()
    with pytest.raises(ClientNotRunningError):
        kind.call(method(timeout=TIMEOUT_SECONDS))


def test_a_refresh_goes_on_after_a_reload_that_timed_out(
    kind: Kind, server: FaultServer, fake_service: FakeService, gate: Gate
) -> None:
    """It ends when the service responds. A later call waits for a refresh of its own."""
    setting = Setting("s", int, ["user"], 1)

    def respond_late(connection: Connection) -> None:
        gate.hold()
        connection.relay()

    with running(kind, server.url) as subject:
        server.inject(respond_late)
        subject.clear_outcomes()
        with pytest.raises(ServiceTimeoutError, match=r"^no refresh has ended within 0.05 seconds .+; it goes on$"):
            kind.call(subject.client.reload(timeout=0.05))
        fake_service.add_rule("s", 2, user="jim")
        gate.open()
        assert subject.next_outcome() is None
        assert setting.get(user="jim") == 2
        fake_service.add_rule("s", 3, user="ann")
        kind.call(subject.client.reload(timeout=TIMEOUT_SECONDS))
        assert setting.get(user="ann") == 3


def test_a_start_that_no_request_delays_has_its_timeout_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it, so that the settings wait for the next client."""
    _setting = Setting("s", int, ["user"], 1)
    for client_class in (ThreadHeksherClient, AsyncHeksherClient):
        monkeypatch.setattr(client_class, "_close_timeout", 0.05)

    async def start_locked(client: AsyncHeksherClient) -> None:
        async with client.modification_lock:
            await client.set_as_main(timeout=0.05)

    with LoopbackService() as service:
        client = ThreadHeksherClient(service.url, 3600, FEATURES)
        with client.modification_lock, pytest.raises(ServiceTimeoutError, match=r"^the client has not started within"):
            client.set_as_main(timeout=0.05)
        assert client.closed
        assert client._thread is not None
        client._thread.join(TIMEOUT_SECONDS)
        with pytest.raises(ServiceTimeoutError, match=r"0.05 seconds \(the argument timeout\); it is closed$"):
            asyncio.run(start_locked(AsyncHeksherClient(service.url, 3600, FEATURES)))
