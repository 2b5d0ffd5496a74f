"""Processes that are forked or patched behind Python's back, as servers for web applications do."""

import _thread
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest

from heksher_client import Setting, State
from heksher_client._runtime import fork, gevent_patch, simple_queue
from heksher_client._runtime.simple_queue import SimpleQueue, current_identity
from heksher_client._runtime.wakeup import Wakeup
from heksher_client.exceptions import ClientNotRunningError
from tests.support.clients import TIMEOUT_SECONDS, Gate, Kind, ThreadKind, eventually, in_thread, running
from tests.support.forks import exited_successfully, fork_and_check, succeeds_without_hooks
from tests.support.in_memory import LoopbackService
from tests.support.service import WatchedService
from tests.support.threads import threads_of_clients

FORK = "this process was forked without Python's fork hooks: its clients went on only when one was called"
NO_THREADS = "uWSGI lets threads run only while it serves a request: start it with --enable-threads"


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    """An empty service in memory, which has a URL."""
    with LoopbackService() as service:
        yield service


# -- forks without hooks -----------------------------------------------------------------------------------------------


def get_status(client: Any) -> None:
    client.status()


def reload(client: Any) -> None:
    result = client.reload()
    if result is not None:
        asyncio.run(result)


def track(client: Any) -> None:
    client.track_contexts(user=["jim", "ann", "none"])


@pytest.mark.unmeasured
@pytest.mark.parametrize("call", [get_status, reload, track])
def test_c18_child_that_is_forked_without_hooks_continues_when_it_calls_a_client(
    kind: Kind, service: LoopbackService, setting: Setting[int], call: Callable[[Any], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Reads do not notice the fork. Whichever call does, it returns, and is logged once."""
    with running(kind, service.url, follow_changes=False) as client:

        def child() -> bool:
            assert setting.get(user="jim") == 7
            call(client.client)
            get_status(client.client)
            assert eventually(lambda: setting.get(user="jim") == 8)
            assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [FORK]
            return True

        service.add_rule("s", 8, user="jim")
        caplog.clear()
        assert succeeds_without_hooks(child)
        client.reload()
        assert client.client.status().state is State.FRESH
        assert not caplog.records


def test_c18_child_that_is_forked_without_hooks_can_close_its_client(
    kind: Kind, service: LoopbackService, setting: Setting[int]
) -> None:
    """The client of the parent continues."""
    with running(kind, service.url) as client:

        def child() -> bool:
            asyncio.run(client.client.aclose()) if kind.raises_at_start else client.client.close()
            return client.client.status().state is State.CLOSED

        assert succeeds_without_hooks(child)
        client.reload()


def test_c18_hooks_and_uwsgi_repair_a_child_once(kind: Kind, service: LoopbackService, setting: Setting[int]) -> None:
    """The function for uWSGI is called even if uWSGI was told to call Python's hooks."""
    with running(kind, service.url, 3600):
        assert exited_successfully(fork_and_check(lambda: not fork._continue()))
        assert succeeds_without_hooks(lambda: fork._continue() and not fork._continue())
    assert fork._repaired == [os.getpid()]


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module that exists in processes of uWSGI."""
    module = SimpleNamespace(has_threads=0, masterpid=lambda: 0, opt={})
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setitem(sys.modules, "uwsgidecorators", None)
    return module


@pytest.mark.parametrize("attributes", [{}, {"opt": "--fast"}, {"opt": {}}, {"masterpid": 1}])
def test_c18_a_module_of_the_program_with_the_name_of_that_of_uwsgi(
    kind: Kind,
    service: LoopbackService,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    attributes: dict[str, Any],
) -> None:
    """An entry point is often named so. It has no effect, and nothing is added to it."""
    module = SimpleNamespace(**attributes)
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    fork.register_with_uwsgi()
    assert vars(module) == attributes
    with running(kind, service.url) as client:
        assert setting.get(user="jim") == 7
        assert client.client.status().problem is None


def test_c18_uwsgi_calls_a_function_in_each_worker(uwsgi: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function of the program, if there is one, is called after that."""
    calls: list[str] = []
    monkeypatch.setattr(fork, "_continue", lambda: calls.append("continue"))
    fork.register_with_uwsgi()
    uwsgi.post_fork_hook()
    assert calls == ["continue"]
    calls.clear()
    uwsgi.post_fork_hook = lambda: calls.append("program")
    fork.register_with_uwsgi()
    uwsgi.post_fork_hook()
    assert calls == ["continue", "program"]


def test_c18_functions_are_registered_as_programs_do_it(
    uwsgi: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the decorators of uWSGI, which replace `post_fork_hook` when they are imported."""
    registered: list[object] = []
    monkeypatch.setitem(sys.modules, "uwsgidecorators", SimpleNamespace(postfork=registered.append))
    fork.register_with_uwsgi()
    assert registered == [fork._continue]
    assert not hasattr(uwsgi, "post_fork_hook")


def test_c18_process_in_which_threads_do_not_run(
    kind: Kind,
    service: LoopbackService,
    setting: Setting[int],
    uwsgi: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log and the status say so."""
    with running(kind, service.url) as client:
        assert client.client.status().problem == NO_THREADS
        assert f"settings are not refreshed as they should be: {NO_THREADS}" in caplog.messages
        uwsgi.has_threads = 1
        assert client.client.status().problem is None
        del uwsgi.has_threads  # as in older versions
        assert client.client.status().problem == NO_THREADS
        uwsgi.opt = {"threads": b"2"}
        assert client.client.status().problem is None


def test_c18_threads_rest_in_the_master_of_uwsgi(
    service: LoopbackService, setting: Setting[int], uwsgi: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is forked while a thread runs would hang. The master refreshes on request only.

    If uWSGI calls Python's hooks for forks, the master waits for its threads.
    """
    uwsgi.has_threads, uwsgi.masterpid = 1, os.getpid
    service.offers_changes = True
    waits: SimpleQueue[float | None] = SimpleQueue()
    wait = Wakeup.wait

    def record(wakeup: Wakeup, seconds: float | None = None) -> None:
        waits.put(seconds)
        wait(wakeup, seconds)

    monkeypatch.setattr(Wakeup, "wait", record)
    with running(ThreadKind(), service.url, 0.01, stale_after=3600) as client:
        assert waits.get(timeout=TIMEOUT_SECONDS) is None  # however short the interval is
        assert not client.client.status().is_following
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert setting.get(user="jim") == 8
        assert waits.get(timeout=TIMEOUT_SECONDS) is None
        uwsgi.opt["py-call-uwsgi-fork-hooks"] = True
        client.reload()
        service.add_rule("s", 9, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 9)


# -- programs that are patched -----------------------------------------------------------------------------------------


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes the program look as if gevent had patched it."""
    is_patched = False
    monkeypatch.setattr(gevent_patch, "_reported", set())
    for module in ("_runtime.simple_queue", "_runtime.gevent_patch", "_drivers.thread_client"):
        monkeypatch.setattr(f"heksher_client.{module}.is_patched", lambda: is_patched)

    def patch() -> None:
        nonlocal is_patched
        is_patched = True

    return patch


PATCHED_LATE = f"settings are not refreshed as they should be: {gevent_patch.PROBLEM}"


def test_c18_program_is_patched_in_a_way_that_is_noticed_late(
    service: LoopbackService, setting: Setting[int], patched: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The client keeps its thread, its connections are not used by several threads, and the log and status say so."""
    with running(ThreadKind(), service.url, 0.05, stale_after=3600) as client:
        assert client.client.status().problem is None
        patched()
        service.add_rule("s", 8, user="jim")
        client.reload()
        client.reload()
        assert setting.get(user="jim") == 8
        assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [PATCHED_LATE]
        assert client.client.status().problem == gevent_patch.PROBLEM
        assert client.client._endpoint._client_arguments["limits"].max_keepalive_connections == 0


def test_c18_debugger_is_attached(
    kind: Kind, service: LoopbackService, setting: Setting[int], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It replaces the functions that start threads as well, which is not a problem."""
    with running(kind, service.url, 0.05, stale_after=3600) as client:
        for module in (_thread, threading):
            for name in ("start_new_thread", "_start_new_thread", "start_joinable_thread", "_start_joinable_thread"):
                if (function := getattr(module, name, None)) is not None:
                    monkeypatch.setattr(module, name, partial(function))
        service.add_rule("s", 8, user="jim")
        for _ in range(2):
            client.reload()
        assert setting.get(user="jim") == 8
        assert client.client.status().problem is None
        assert client.client._endpoint._client_arguments["limits"].max_keepalive_connections != 0
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "function", "module"),
    [("gevent.monkey", "is_module_patched", "_thread"), ("eventlet.patcher", "is_monkey_patched", "thread")],
)
def test_c18_whether_the_program_is_patched_is_what_gevent_says(
    monkeypatch: pytest.MonkeyPatch, name: str, function: str, module: str
) -> None:
    """It is imported by many programs that are not patched, or in part."""
    patched: list[str] = []
    monkeypatch.setitem(sys.modules, name, SimpleNamespace())  # while it is imported
    assert not simple_queue.is_patched()
    monkeypatch.setattr(sys.modules[name], function, patched.__contains__, raising=False)
    assert not simple_queue.is_patched()
    patched.append("socket")
    assert not simple_queue.is_patched()
    patched.append(module)
    assert simple_queue.is_patched()


class GeventWillPatchAllEvent:
    """The event before gevent patches the program."""


class GeventDidPatchAllEvent:
    """The event after that."""


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """A function that sends an event of gevent."""
    subscribers: list[Callable[[object], None]] = []
    monkeypatch.setitem(sys.modules, "zope.event", SimpleNamespace(subscribers=subscribers))

    def send(event: object) -> None:
        for subscriber in subscribers:
            subscriber(event)

    return send


def test_c18_no_thread_runs_while_the_program_is_patched(
    patched: Callable[[], None], send: Callable[[object], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Afterwards the client goes on, and serves those that waited in between."""
    setting = Setting("s", int, ["user"], 7)
    others = threads_of_clients()
    with WatchedService() as shop, running(ThreadKind(), shop.url) as client:
        shop.offers_changes = True
        client.reload()
        assert eventually(lambda: client.client.status().is_following)
        send(object())
        send(GeventWillPatchAllEvent())
        assert threads_of_clients() <= others
        former_context = client.client._endpoint._client_arguments["verify"]
        assert client.client.status().state is State.FRESH
        waiting = in_thread(client.client.reload)
        shop.add_rule("s", 8, user="ann")
        patched()
        send(GeventDidPatchAllEvent())
        waiting.result(TIMEOUT_SECONDS)
        assert setting.get(user="ann") == 8
        assert client.client._endpoint._client_arguments["verify"] is not former_context
        assert eventually(lambda: client.client.status().is_following)
        shop.add_rule("s", 9, user="tom")
        assert eventually(lambda: setting.get(user="tom") == 9)
        assert client.client.status().problem is None
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_c18_thread_that_does_not_end_before_the_program_is_patched(
    service: LoopbackService, setting: Setting[int], patched: Callable[[], None], send: Callable[[object], None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The log and the status say so, and no call waits for ever. If the thread goes on, so does the client."""
    monkeypatch.setattr(gevent_patch, "SUSPEND_TIMEOUT", 0.05)
    with running(ThreadKind(), service.url, start_timeout=0.2) as client:
        with client.client.modification_lock:
            service.add_rule("s", 8, user="jim")
            client.client._session.refresh_soon()
            assert eventually(lambda: client.client._session._is_refreshing)
            send(GeventWillPatchAllEvent())
            patched()
            send(GeventDidPatchAllEvent())
            assert PATCHED_LATE in caplog.messages
            assert client.client.status().problem == gevent_patch.PROBLEM
            with pytest.raises(ClientNotRunningError, match="monkey"):
                client.client.reload()
        assert eventually(lambda: setting.get(user="jim") == 8)


def test_c18_program_is_patched_in_a_hook(
    service: LoopbackService, setting: Setting[int], patched: Callable[[], None], send: Callable[[object], None]
) -> None:
    """The thread that calls the hook waits for it, so it goes on."""
    with running(ThreadKind(), service.url) as client:

        def patch(_: object) -> None:
            send(GeventWillPatchAllEvent())
            patched()
            send(GeventDidPatchAllEvent())

        client.client.on_refresh(patch)
        client.reload()
        client.client.off_refresh(patch)
        client.reload()
        assert client.client.status().problem == gevent_patch.PROBLEM


def test_c18_closed_client_does_not_go_on_after_a_patch(
    service: LoopbackService, setting: Setting[int], send: Callable[[object], None]
) -> None:
    """It may be closed before, or in between."""
    with running(ThreadKind(), service.url) as client:
        client.close()
        send(GeventWillPatchAllEvent())
    with running(ThreadKind(), service.url) as client:
        send(GeventWillPatchAllEvent())
        client.close()
        send(GeventDidPatchAllEvent())
        assert eventually(lambda: not threads_of_clients())
        assert client.client.status().state is State.CLOSED


def test_c18_client_that_cannot_go_on_after_a_patch(
    service: LoopbackService, setting: Setting[int], send: Callable[[object], None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It is logged, and the patch is not ended by that."""
    with running(ThreadKind(), service.url) as client:
        send(GeventWillPatchAllEvent())
        with monkeypatch.context() as patch:
            patch.setattr(client.client._endpoint, "renew_client", lambda: 1 / 0)
            send(GeventDidPatchAllEvent())
        assert "a client cannot continue after the program was patched" in caplog.messages
        assert client.client.status().state is State.CLOSED


def test_c18_async_client_in_a_thread_when_the_program_is_patched(
    patched: Callable[[], None], send: Callable[[object], None], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """In the child of a fork, it has such a thread, which is kept. The log and the status say so."""
    ended = in_thread(gevent_patch.recorded(gate.hold))
    gate.wait_until_reached()
    patched()
    send(GeventDidPatchAllEvent())
    assert caplog.messages == [PATCHED_LATE]
    assert fork.problem_of_process() == gevent_patch.PROBLEM
    gate.open()
    ended.result(TIMEOUT_SECONDS)
    assert fork.problem_of_process() is None


def test_c18_thread_is_recognized_after_it_is_patched(
    patched: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own greenlet is the first one; others have a parent."""
    greenlets = SimpleNamespace(getcurrent=lambda: SimpleNamespace(parent=None))
    monkeypatch.setitem(sys.modules, "greenlet", greenlets)
    before = current_identity()
    patched()
    assert current_identity() == before
    other = SimpleNamespace(parent=greenlets)
    greenlets.getcurrent = lambda: other
    assert current_identity() == (threading.get_native_id(), id(other))
    assert in_thread(current_identity).result(TIMEOUT_SECONDS) != current_identity()


def test_c18_queue_on_which_a_greenlet_waits(patched: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps, so that others run. `time.sleep` is that of gevent then."""
    queue: SimpleQueue[int] = SimpleQueue()
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 10:
            queue.put(1)

    patched()
    monkeypatch.setattr(time, "sleep", sleep)
    assert queue.get() == 1
    assert sleeps[:2] == [0.001, 0.002]
    assert sleeps[-1] == 0.1
    with pytest.raises(Empty):
        queue.get(timeout=0)
    with pytest.raises(Empty):
        queue.get(block=False)


def test_a_signal_that_does_not_wake_the_main_thread_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that arrives just before it begins to wait. Here, another thread receives the signal."""
    monkeypatch.setattr(simple_queue, "_LONGEST_WAIT", 0.01)
    queue: SimpleQueue[int] = SimpleQueue()
    main, ended = threading.get_ident(), threading.Event()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def receive() -> None:
        eventually(lambda: sys._current_frames()[main].f_code is SimpleQueue.get.__code__)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        ended.wait(TIMEOUT_SECONDS)
        queue.put(1)

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        in_thread(receive)
        with pytest.raises(KeyboardInterrupt):
            queue.get()
    finally:
        ended.set()
        signal.signal(signal.SIGUSR1, former)
    assert queue.get(timeout=TIMEOUT_SECONDS) == 1


def test_c18_queue_on_which_a_thread_waits_when_the_program_is_patched(
    patched: Callable[[], None], monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """It notices that, and lets the greenlets run that others of its kind have become."""
    monkeypatch.setattr(simple_queue, "_LONGEST_WAIT", 0.01)
    queue: SimpleQueue[int] = SimpleQueue()
    waiting = in_thread(lambda: queue.get(timeout=TIMEOUT_SECONDS))
    with monkeypatch.context() as patch:
        slept = threading.Event()

        def sleep(seconds: float) -> None:
            slept.set()
            time.sleep(seconds)

        patch.setattr(simple_queue, "time", SimpleNamespace(sleep=sleep))
        patched()
        assert slept.wait(TIMEOUT_SECONDS)
        queue.put(5)
        assert waiting.result(TIMEOUT_SECONDS) == 5
    gate.open()


@pytest.mark.parametrize("is_patched", [False, True])
def test_c18_threads_are_recorded_in_programs_that_are_not_patched(
    monkeypatch: pytest.MonkeyPatch, is_patched: bool
) -> None:
    """Only these have to end before the patch."""
    monkeypatch.setattr(gevent_patch, "is_patched", lambda: is_patched)
    threads: set[tuple[int, int]] = set()
    monkeypatch.setattr(gevent_patch, "_threads", threads)
    recorded: list[int] = []
    gevent_patch.recorded(lambda: recorded.append(len(threads)))()
    assert recorded == [0 if is_patched else 1]
    assert not threads
