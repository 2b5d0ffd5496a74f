"""Tests of programs that freeze the time, or replace functions of the module `time`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import pytest

from heksher_client import Refresh, ServiceTimeoutError, Setting, State
from heksher_client._drivers.timeout import Timeout
from heksher_client.service import LocalService
from tests.support.clients import Kind, call_without_waiting, eventually, limited, running
from tests.support.fake_service import FakeService
from tests.support.faults import FaultServer, stall
from tests.support.http import http_request
from tests.support.in_memory import LoopbackService
from tests.support.service import DECLARE, CannedResponse
from tests.support.threads import refuse_threads, threads_of_clients

freezegun: Any = pytest.importorskip("freezegun", reason="pip install --group test")

Freeze = Callable[[], AbstractContextManager[Any]]
DATE = "2034-05-01"


def _travel() -> AbstractContextManager[Any]:
    time_machine = pytest.importorskip("time_machine", reason="pip install --group test")
    travel: AbstractContextManager[Any] = time_machine.travel(DATE, tick=False)
    return travel


@contextmanager
def _replaced_functions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("monotonic", "perf_counter", "time"):
            patch.setattr(time, name, lambda: 5.0)
        yield


FREEZES: dict[str, Freeze] = {
    "frozen": lambda: freezegun.freeze_time(DATE),
    "before-the-real-clock": lambda: freezegun.freeze_time("1970-01-01"),
    "ticking": lambda: freezegun.freeze_time(DATE, tick=True),
    "frozen-except-asyncio": lambda: freezegun.freeze_time(DATE, real_asyncio=True),
    "auto-ticking-except-asyncio": lambda: freezegun.freeze_time(DATE, auto_tick_seconds=15, real_asyncio=True),
    "time-machine": _travel,
    "replaced-functions": _replaced_functions,
}


@pytest.fixture(autouse=True)
def _real_time_while_freezegun_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the real time to threads that ask for it while freezegun stops: its lists are empty then already."""
    for name in ("monotonic", "perf_counter", "time"):
        fake, real = (getattr(freezegun.api, f"{prefix}_{name}") for prefix in ("fake", "real"))
        monkeypatch.setattr(freezegun.api, f"fake_{name}", _fake_or_real(fake, real))


def _fake_or_real(fake: Callable[[], float], real: Callable[[], float]) -> Callable[[], float]:
    @wraps(fake)  # freezegun wants its name
    def read() -> float:
        try:
            return fake()
        except IndexError:
            return real()

    return read


@pytest.fixture(params=FREEZES)
def freeze(request: pytest.FixtureRequest) -> Freeze:
    """Each way to freeze the time in turn."""
    return FREEZES[request.param]


def test_c19_client_that_lives_in_frozen_time(kind: Kind, freeze: Freeze, setting: Setting[int]) -> None:
    """It starts, refreshes when its interval is over and when it is told to, and is closed."""
    with LoopbackService() as service, freeze(), running(kind, service.url, 0.05, stale_after=3600) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert setting.get(user="jim") == 8
        service.add_rule("s", 9, user="ann")
        assert eventually(lambda: setting.get(user="ann") == 9)
        assert client.client.status().state is State.FRESH
        assert client.client.status().last_error is None


def test_c19_the_timeout_of_a_call_ends_in_frozen_time(kind: Kind, freeze: Freeze, setting: Setting[int]) -> None:
    """Of one that sends a request, and of one that waits for a refresh."""
    with FaultServer(FakeService()) as server, running(kind, server.url) as client:
        server.inject(stall)
        with freeze():
            for call in (client.client.ping, client.client.reload):
                with pytest.raises(ServiceTimeoutError):
                    call_without_waiting(lambda call=call: kind.call(call(timeout=0.05)))  # type: ignore[misc]
    assert setting.get(user="jim") == 7


def test_c19_time_is_frozen_and_thawed_while_a_client_runs(kind: Kind, freeze: Freeze, setting: Setting[int]) -> None:
    """Its refreshes go on, before, during and after that."""
    with LoopbackService() as service, running(kind, service.url, 0.05, stale_after=3600) as client:
        with freeze():
            service.add_rule("s", 8, user="jim")
            client.reload()
            assert setting.get(user="jim") == 8
        service.add_rule("s", 9, user="ann")
        assert eventually(lambda: setting.get(user="ann") == 9)


def test_c19_time_is_thawed_while_a_client_that_started_in_frozen_time_runs(
    kind: Kind, freeze: Freeze, setting: Setting[int]
) -> None:
    """Its refreshes go on."""
    with LoopbackService() as service:
        frozen = freeze()
        frozen.__enter__()
        with running(kind, service.url, 0.05, stale_after=3600):
            frozen.__exit__(None, None, None)
            service.add_rule("s", 9, user="ann")
            assert eventually(lambda: setting.get(user="ann") == 9)


def test_c19_times_are_those_of_a_test_that_freezes_a_running_client(kind: Kind, setting: Setting[int]) -> None:
    """Its status and its refreshes have them. Afterwards the times are real again."""
    refreshes: list[Refresh] = []
    with LoopbackService() as service, running(kind, service.url, stale_after=3600) as client:
        client.client.on_refresh(refreshes.append)
        for freeze in (FREEZES["frozen"], FREEZES["time-machine"], nullcontext):
            refreshes.clear()
            with freeze():
                before = time.time()
                client.reload()
                assert eventually(lambda: refreshes)
                after = time.time()
            assert before <= client.client.status().last_success <= after
            ended_at = refreshes[-1].started_at + refreshes[-1].seconds
            assert before - 0.001 <= ended_at <= after + 0.001  # as sums of floats are rounded
            assert (before == after) == (freeze is not nullcontext)


def test_c19_time_jumps_between_refreshes(kind: Kind, setting: Setting[int]) -> None:
    """By hours, forth and back."""
    with (
        LoopbackService() as service,
        freezegun.freeze_time(DATE) as clock,
        running(kind, service.url, 0.05, stale_after=3600) as client,
    ):
        for value, date in enumerate(("2034-05-02", "2034-04-01", "2054-05-01")):
            clock.move_to(date)
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert setting.get(user=f"u{value}") == value


def test_c19_requests_end_by_the_real_clock(kind: Kind, setting: Setting[int]) -> None:
    """A server that never responds does not hold a client for as long as the time is frozen."""
    with (
        LoopbackService() as service,
        FaultServer(service) as proxy,
        freezegun.freeze_time(DATE),
        running(kind, proxy.url) as client,
    ):
        proxy.inject(stall)
        with limited(client, 0.2):
            error = call_without_waiting(lambda: client.reload_expecting(Exception))
        assert "0.2 seconds" in str(error)
        proxy.inject(None)
        proxy.disconnect_all()
        client.reload()


def test_c19_request_that_waits_for_the_rate_limit(kind: Kind, setting: Setting[int]) -> None:
    """It is sent when its turn has come."""
    limits = {"rate_limit": 3, "rate_limit_interval": 0.1}
    with LoopbackService() as service, freezegun.freeze_time(DATE), running(kind, service.url, **limits) as client:
        for value in range(4):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert setting.get(user=f"u{value}") == value


def test_c19_pauses_end_by_the_real_clock(kind: Kind, setting: Setting[int]) -> None:
    """A declaration that failed is sent again within the same refresh."""
    with LoopbackService() as service, freezegun.freeze_time(DATE):
        service.respond_with(DECLARE, CannedResponse(500), times=1)
        with running(kind, service.url) as client:
            assert client.client.status().state is State.FRESH


def test_c19_timeout_without_a_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer of the loop remains."""

    async def is_exceeded() -> bool:
        with Timeout(0.01) as timeout:
            await asyncio.Event().wait()
        return timeout.is_exceeded

    refused = refuse_threads(monkeypatch, "heksher-client-timer")
    with freezegun.freeze_time(DATE, tick=True):
        assert asyncio.run(is_exceeded())
    assert refused


def test_c19_timeout_outlives_its_loop() -> None:
    """Its thread ends without an error."""

    async def restart() -> None:
        Timeout(0.01).restart()

    with freezegun.freeze_time(DATE):
        asyncio.run(restart())
    assert eventually(lambda: not threads_of_clients("heksher-client-timer"))


def test_c19_local_service(freeze: Freeze) -> None:
    """It starts, responds and stops, whether the time is frozen before or after its start."""
    with freeze(), LocalService(["user"]) as service:
        assert http_request("GET", f"{service.url}/api/health").status_code == 200
    with LocalService(["user"]) as service:
        with freeze():
            assert http_request("GET", f"{service.url}/api/health").status_code == 200
        assert http_request("GET", f"{service.url}/api/health").status_code == 200
    frozen = freeze()
    frozen.__enter__()
    service.start()
    frozen.__exit__(None, None, None)
    service.stop()
