"""Faults of the process and of the program, by the ids of the table in the documentation."""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from heksher_client import ClientNotRunningError, HeksherError, Setting, State
from heksher_client._clock import monotonic
from heksher_client._drivers import client as client_module
from heksher_client._drivers.clock import monotonic_clock
from tests.faults.test_network import open_file_count, start_failing
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    AsyncClient,
    ClientClock,
    Gate,
    Kind,
    Subject,
    ThreadKind,
    call_without_waiting,
    eventually,
    running,
)
from tests.support.faults import FaultServer, stall
from tests.support.forks import exited_successfully, fork_and_check, fork_warning_ignored
from tests.support.http import http_client
from tests.support.in_memory import LoopbackService
from tests.support.service import DECLARE, QUERY, CannedResponse
from tests.support.threads import refuse_threads


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    """An empty service in memory, which has a URL."""
    with LoopbackService() as service:
        yield service


# -- forks -------------------------------------------------------------------------------------------------------------


def test_c1_child_of_a_fork_refreshes_by_itself(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """It starts with the values of the parent. The parent is not affected."""
    with running(kind, service.url, 0.05, stale_after=3600) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        service.add_rule("s", 9, user="ann")

        def child() -> bool:
            has_values = setting.get(user="jim") == 8
            return has_values and eventually(lambda: setting.get(user="ann") == 9 and setting.get(user="eve") == 10)

        pid = fork_and_check(child)
        service.add_rule("s", 10, user="eve")
        assert exited_successfully(pid)
        client.reload()
        assert client.client.status().state is State.FRESH
        assert setting.get(user="eve") == 10


def test_c1_child_has_its_own_connections(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """Two processes that share a connection would receive each other's responses."""
    with FaultServer(service) as proxy, running(kind, proxy.url, 3600) as client:
        client.reload()
        before = proxy.connections

        def child() -> bool:
            reload = client.client.reload()
            if kind.raises_at_start:
                asyncio.run(reload)
            client.client.status()
            return setting.get(user="jim") == 7

        assert exited_successfully(fork_and_check(child))
        assert proxy.connections > before
        before = proxy.connections
        client.reload()
        assert proxy.connections == before


def test_c1_child_can_close_its_client(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """The client of the parent continues."""
    with running(kind, service.url, 3600) as client:

        def child() -> bool:
            asyncio.run(client.client.aclose()) if kind.raises_at_start else client.client.close()
            return client.client.status().state is State.CLOSED and setting.get(user="jim") == 7

        assert exited_successfully(fork_and_check(child))
        assert client.client.status().state is State.FRESH
        client.reload()


def test_c1_fork_while_the_client_is_busy(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """Locks and requests of the parent do not affect the child."""
    with FaultServer(service) as proxy, running(kind, proxy.url, 0.05) as client:
        for _ in range(3):
            proxy.inject(stall)
            assert eventually(lambda: proxy.requests)
            proxy.requests.clear()
            assert setting.get(user="jim") == 7

            def child() -> bool:
                proxy.fault = None  # without effect: the server is a thread of the parent
                return setting.get(user="jim") == 7 and client.client.status().is_main

            assert exited_successfully(fork_and_check(child))
            proxy.inject(None)
            proxy.disconnect_all()
            client.reload()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the platform cannot fork")
def test_c1_multiprocessing(service: LoopbackService, setting: Setting[int]) -> None:
    """Workers of a pool that forks receive later rules."""
    with running(ThreadKind(), service.url, 0.05):
        with fork_warning_ignored():
            pool = multiprocessing.get_context("fork").Pool(2)
        with pool:
            service.add_rule("s", 8, user="jim")
            assert eventually(lambda: pool.map(_read, [("s", "jim")] * 4) == [8] * 4)


def _read(arguments: tuple[str, str]) -> int:  # pragma: no cover - in another process
    from heksher_client._core.settings.registry import registry

    name, user = arguments
    (setting,) = [entry.setting for entry in registry.entries() if entry.name == name]
    value: int = setting.get(user=user)
    return value


GUNICORN = """
import json
from heksher_client import Setting, ThreadHeksherClient

setting = Setting("s", int, ["user"], 7)
client = ThreadHeksherClient({url!r}, 0.05, ["environment", "user", "theme"], stale_after=3600, timeout=60)
client.set_as_main()

def application(environ, start_response):
    import os
    start_response("200 OK", [("Content-Type", "application/json")])
    status = client.status()
    return [json.dumps([os.getpid(), setting.get(user="jim"), status.state]).encode()]
"""


def test_c1_gunicorn_with_a_preloaded_application(service: LoopbackService, tmp_path: Path) -> None:
    """The client is started before the workers are forked, and each of them receives rules."""
    (tmp_path / "shop.py").write_text(GUNICORN.format(url=service.url))
    address = tmp_path / "address"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--bind=127.0.0.1:0", "shop:application"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    with (
        address.open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stderr=log, env=environment) as gunicorn,
    ):
        try:
            assert eventually(lambda: "Listening at: http://" in address.read_text()), address.read_text()
            url = address.read_text().split("Listening at: ")[1].split(" ")[0]
            with http_client(limits=httpx.Limits(max_keepalive_connections=0)) as http:

                def responses() -> dict[int, list[Any]]:
                    return {pid: values for pid, *values in (http.get(url).json() for _ in range(20))}

                assert eventually(lambda: len(responses()) == 2)
                service.add_rule("s", 8, user="jim")
                assert eventually(lambda: list(responses().values()) == [[8, "fresh"]] * 2), responses()
        finally:
            gunicorn.send_signal(signal.SIGTERM)


def test_c1_child_that_forks_at_once(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """The grandchild refreshes. Daemons fork twice."""
    with running(kind, service.url, 0.05, stale_after=3600) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        for value in range(3):
            service.add_rule("s", value, user=f"u{value}")

            def grandchild(value: int = value) -> bool:
                return eventually(lambda: setting.get(user=f"u{value}") == value)

            def child(grandchild: Callable[[], bool] = grandchild) -> bool:
                return exited_successfully(fork_and_check(grandchild))

            assert exited_successfully(fork_and_check(child))


# -- event loops, tasks, exit ------------------------------------------------------------------------------------------


def test_c3_second_event_loop(service: LoopbackService, setting: Setting[int]) -> None:
    """Each can have a client; the second client becomes the main one."""

    async def use() -> int:
        async with AsyncClient(service.url, 3600, FEATURES):
            return setting.get(user="jim")

    assert [asyncio.run(use()) for _ in range(2)] == [7, 7]


def test_c4_cancellation_at_any_point(service: LoopbackService, setting: Setting[int]) -> None:
    """After any number of steps of the loop, no task or socket is left, and the next client works."""

    async def begin(steps: int) -> None:
        client = AsyncClient(service.url, 0.001)
        starting = asyncio.create_task(client.set_as_main())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        await client.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(begin(60))
    gc.collect()
    before = open_file_count()
    for steps in range(0, 60, 3):
        asyncio.run(begin(steps))
    gc.collect()
    assert eventually(lambda: open_file_count() <= before)
    assert setting.get(user="jim") == 7


@pytest.mark.unmeasured
@pytest.mark.parametrize("kind_of_client", ["ThreadHeksherClient", "AsyncHeksherClient"])
def test_c5_program_that_ends_without_closing(service: LoopbackService, kind_of_client: str) -> None:
    """It exits without waiting for the client, and without a traceback."""
    program = textwrap.dedent(f"""
        import asyncio
        from heksher_client import {kind_of_client}, Setting
        setting = Setting("s", int, ["user"], 7)
        client = {kind_of_client}({service.url!r}, 3600, ["environment", "user", "theme"])
        async def main():
            started = client.set_as_main()
            if started is not None:
                await started
            print(setting.get(user="jim"))
        asyncio.run(main())
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environment,
    )
    assert (result.stdout, result.returncode) == ("7\n", 0)
    assert "Traceback" not in result.stderr


def test_c6_closing_while_a_request_is_in_progress(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """It ends, although the server never responds."""
    with FaultServer(service) as proxy:
        subject = Subject(kind, proxy.url, 0.01, FEATURES)
        subject.client.set_defaults(user="jim")
        subject.start()
        proxy.inject(stall)
        proxy.requests.clear()
        assert eventually(lambda: proxy.requests)
        call_without_waiting(subject.close)
        assert setting.get() == 7


def test_c6_waiting_call_raises_when_the_client_is_closed(
    kind: Kind, service: LoopbackService, setting: Setting[int]
) -> None:
    """The error is not one of the service."""
    with FaultServer(service) as proxy, running(kind, proxy.url) as client:
        errors: SimpleQueue[BaseException | None] = SimpleQueue()

        def ping() -> None:
            try:
                client.ping()
            except BaseException as error:
                errors.put(error)

        proxy.inject(stall)
        proxy.requests.clear()
        thread = threading.Thread(target=ping)
        thread.start()
        assert eventually(lambda: proxy.requests)
        client.close()
        assert isinstance(errors.get(timeout=TIMEOUT_SECONDS), ClientNotRunningError)
        thread.join()
        assert setting.get(user="jim") == 7


def test_c6_status_while_a_request_is_in_progress(
    kind: Kind, service: LoopbackService, setting: Setting[int], client_clock: ClientClock
) -> None:
    """The next attempt is the current one."""
    with FaultServer(service) as proxy, running(kind, proxy.url) as client:
        assert client.client.status().next_attempt == 3600
        proxy.inject(stall)
        proxy.requests.clear()
        client.client._session.refresh_soon()
        assert eventually(lambda: proxy.requests)
        assert client.client.status().next_attempt == 0
        assert setting.get(user="jim") == 7


def test_c7_closing_twice_and_before_the_start(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """Both do nothing."""
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.close()
    subject.close()
    assert subject.client.status().state is State.CLOSED
    assert setting.get(user="jim") == 7


def test_c8_clock_that_jumps_and_machine_that_is_suspended(
    kind: Kind, service: LoopbackService, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock has no effect. After a suspension the next refresh is soon, although no timer has expired."""
    for module in ("thread_client", "async_client"):
        monkeypatch.setattr(f"heksher_client._drivers.{module}.MAX_SLEEP", 0.01)
    now, looks = 1000.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now

    monkeypatch.setattr(client_module, "_clock", clock)
    with running(kind, service.url) as client:
        client.clear_outcomes()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        before = looks
        assert eventually(lambda: looks > before + 5)
        assert client.client.outcomes.empty()
        now += 7200.0
        assert client.next_outcome() is None
        assert setting.get(user="jim") == 7


def test_c8_clock_includes_suspended_time() -> None:
    """If the platform has such a clock."""
    clock = monotonic_clock()
    assert clock() <= clock()
    if hasattr(time, "CLOCK_BOOTTIME"):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert before <= clock() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_c8_platform_without_such_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock is used."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert monotonic_clock() is monotonic


def test_c9_fifty_reloads_at_once(kind: Kind, service: LoopbackService, setting: Setting[int], gate: Gate) -> None:
    """Fifty calls during a refresh share the next one."""
    with running(kind, service.url) as client:
        service.respond_with(QUERY, lambda request: gate.hold())
        service.requests.clear()
        threads = [threading.Thread(target=client.reload) for _ in range(51)]
        threads[0].start()
        gate.wait_until_reached()
        for thread in threads[1:]:
            thread.start()
        assert eventually(lambda: len(client.client._session._waiters._next) == 50)
        gate.open()
        for thread in threads:
            thread.join()
        assert len(service.requests_to(QUERY)) == 2
        assert setting.get(user="jim") == 7


@pytest.mark.unmeasured
def test_c10_settings_created_and_deleted_in_other_threads(
    kind: Kind, service: LoopbackService, setting: Setting[int]
) -> None:
    """They are read while the client refreshes."""

    def create_and_delete(number: int) -> None:
        for i in range(100):
            assert Setting(f"t{number}_{i % 5}", int, ["user"], i).get(user="x") == i

    with running(kind, service.url, 0.001) as client:
        threads = [threading.Thread(target=create_and_delete, args=[i]) for i in range(3)]
        for thread in threads:
            thread.start()
        client.reload()
        for thread in threads:
            thread.join()
        # A refresh in progress refers to the settings that it started with.
        assert eventually(lambda: gc.collect() is not None and client.client.status().settings.keys() == {"s"})
        client.reload()
    assert setting.get(user="jim") == 7


def test_c11_hook_that_blocks(
    service: LoopbackService,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Refreshes and closing do not wait for it. It is logged once that no hook is called.

    A hook that blocks the event loop blocks the async client as well.
    """
    gate, last_gate = Gate(), Gate()
    calls = 0
    with running(ThreadKind(), service.url) as client:

        def block() -> None:
            nonlocal calls
            calls += 1
            gate.hold()

        monkeypatch.setattr("heksher_client._core.refresh.hooks._HOOK_TIMEOUT", 0.05)
        client.client.on_update_ok = block
        for value in (8, 9):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert setting.get(user=f"u{value}") == value
        gate.wait_until_reached()
        assert calls == 1
        assert [r.getMessage() for r in caplog.records if "return" in r.getMessage()] == [
            "block does not return; no hook is called until it does"
        ]
        gate.open()
        assert eventually(lambda: client.state_after_reload() is State.FRESH and calls > 1)

        client.client.on_update_ok = last_gate.hold
        monkeypatch.setattr("heksher_client._core.refresh.hooks._HOOK_TIMEOUT", 3600.0)
        monkeypatch.setattr(client.client, "_close_timeout", 0.05)
        client.client._session.refresh_soon()
        last_gate.wait_until_reached()
        client.close()
        last_gate.open()


def test_c11_validator_that_raises_or_reads(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """The values that it rejects are not used. A read in it returns the current value."""
    read: list[int] = []

    def validate(value: int, rule: Any, _: Any) -> int:
        read.append(setting.get(user="jim"))
        if value == 9:
            raise SystemError("invalid")
        return value

    setting.add_validator(validate)
    with running(kind, service.url) as client:
        service.add_rule("s", 9, user="ann")
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
        assert client.client.status().rejected == 1
        assert set(read) == {7}


@pytest.mark.parametrize("problem", ["descriptors", "threads"])
def test_c12_machine_without_descriptors_or_threads(
    kind: Kind, service: LoopbackService, setting: Setting[int], monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    """Values stay, and the error names the resource."""
    with running(kind, service.url, http_client_args={"headers": {"Connection": "close"}}) as client:
        with monkeypatch.context() as patched:
            if problem == "descriptors":
                import socket

                def refuse(*args: Any, **kwargs: Any) -> Any:
                    raise OSError(24, "Too many open files")

                patched.setattr(socket, "socket", refuse)
                error = client.reload_expecting(HeksherError)
                assert "no response" in str(error)
            else:
                refuse_threads(patched, "heksher")
                client.reload()
        assert setting.get(user="jim") == 7
        client.reload()
        assert client.client.status().state is State.FRESH


@pytest.mark.anyio
async def test_c12_no_thread_for_disk_access(
    service: LoopbackService, setting: Setting[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The async client then accesses the disk in the event loop."""
    refused = refuse_threads(monkeypatch, "heksher-client-call")
    path = tmp_path / "settings.json"
    async with AsyncClient(service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    assert refused
    assert path.exists()


# -- changes in the service --------------------------------------------------------------------------------------------


def test_d1_many_processes_declare_one_new_setting_at_once(
    kind: Kind, service: LoopbackService, setting: Setting[int]
) -> None:
    """Some of them receive a 500, and retry successfully."""
    failures = iter([True, False, True, True, False])
    service.respond_with(DECLARE, lambda request: CannedResponse(500) if next(failures, False) else None)

    def child() -> bool:
        with running(type(kind)(), service.url) as client:
            return client.client.status().settings["s"].declaration in ("created", "uptodate")

    assert all(map(exited_successfully, [fork_and_check(child) for _ in range(4)]))
    assert len(service.requests_to(DECLARE)) == 4 + 3
    assert setting.get() == 7


def test_d4_new_order_of_context_features(kind: Kind, service: LoopbackService) -> None:
    """Rules are ranked again in the same refresh."""
    setting = Setting("s", int, ["environment", "user"], 0)
    with running(kind, service.url) as client:
        service.add_rule("s", 1, environment="prod")
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(environment="prod", user="jim") == 2
        service.respond_with(
            "GET /api/v1/context_features", CannedResponse.of({"context_features": ["user", "theme", "environment"]})
        )
        client.reload()
        assert setting.get(environment="prod", user="jim") == 1


def test_d5_service_with_an_emptied_database(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """All settings are declared again, and new rules are used."""
    with running(kind, service.url) as client:
        service.empty()
        client.reload()
        assert len(service.requests_to(DECLARE)) == 2
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert setting.get(user="jim") == 8


def test_d6_unknown_fields_in_responses(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """They are ignored everywhere."""
    new = {"new": {"field": [1, 2]}}
    body = {
        "settings": {
            "s": {
                "default_value": 7,
                "rules": [{"value": 8, "rule_id": 1, "context_features": [["user", "jim"]], **new}],
                **new,
            }
        },
        **new,
    }
    service.respond_with(QUERY, CannedResponse.of(body))
    with running(kind, service.url):
        assert setting.get(user="jim") == 8


def test_a_failed_start_does_not_affect_reads(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """The error is reported, and reads return the default."""
    with FaultServer(service) as proxy:
        proxy.inject(stall)
        subject = Subject(kind, proxy.url, 3600, FEATURES, start_timeout=0.05)
        start_failing(subject)
        subject.close()
    assert setting.get(user="jim") == 7
