"""The drivers: how both clients wait, lock and end; tasks, cancellation and event loops; threads and hooks."""

import asyncio
import contextlib
import threading
from typing import Any

import anyio
import pytest

from heksher_client import (
    AsyncHeksherClient,
    ClientNotRunningError,
    ServiceUnavailableError,
    Setting,
    ThreadHeksherClient,
)
from heksher_client._core.refresh.effects import Pause
from heksher_client._core.settings.registry import registry
from heksher_client._runtime.simple_queue import SimpleQueue
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    AsyncClient,
    Gate,
    Kind,
    Subject,
    ThreadClient,
    call_without_waiting,
    in_thread,
    running,
)
from tests.support.service import QUERY, CannedResponse, RecordedRequest, WatchedService
from tests.support.threads import refuse_threads


@pytest.fixture
def stalled(service: WatchedService, gate: Gate) -> Gate:
    """A gate that holds the service when it receives a query."""

    def hold(request: RecordedRequest) -> None:
        if str(request) == QUERY:
            gate.hold()

    service.intercept = hold
    return gate


def other_tasks() -> list[str]:
    return [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task() and "client" in t.get_name()]


def has_ended(subject: Subject) -> bool:
    """Return True if the thread or task of a client has ended."""
    if subject.kind.raises_at_start:
        return bool(subject.client._task.done())
    return not subject.client._thread.is_alive()


# -- both --------------------------------------------------------------------------------------------------------------


def test_a_new_setting_wakes_the_client(kind: Kind, service: WatchedService) -> None:
    """Its thread or task, from any other thread. The rules are loaded without waiting for the interval."""
    service.declare("late", "int", 1, ["user"])
    service.add_rule("late", 2, user="jim")
    with running(kind, service.url, interval=3600) as client:
        client.clear_outcomes()
        late = Setting("late", int, ["user"], 1)
        assert client.next_outcome() is None
        assert late.get(user="jim") == 2


def test_values_do_not_change_while_the_modification_lock_is_held(kind: Kind, service: WatchedService) -> None:
    """A received update is applied as a whole once the lock is released."""
    first, second = Setting("a", int, ["user"], 1), Setting("b", int, ["user"], 1)
    arrived = threading.Event()
    with running(kind, service.url) as client:
        service.add_rule("a", 2, user="jim")
        service.add_rule("b", 2, user="jim")
        lock = client.client.modification_lock
        acquired = lock.acquire()
        if kind.raises_at_start:
            kind.call(acquired)
        client.clear_outcomes()

        class SignalingLock:
            """A lock that signals when the client waits for it."""

            def __enter__(self) -> None:
                arrived.set()
                lock.acquire()

            def __exit__(self, *_: object) -> None:
                lock.release()

            async def __aenter__(self) -> None:
                arrived.set()
                await lock.acquire()

            async def __aexit__(self, *_: object) -> None:
                lock.release()

        client.client.modification_lock = SignalingLock()
        client.client._session.refresh_soon()
        assert arrived.wait(TIMEOUT_SECONDS)
        assert (first.get(user="jim"), second.get(user="jim")) == (1, 1)
        if kind.raises_at_start:
            client.kind.loop.call_soon_threadsafe(lock.release)  # type: ignore[attr-defined]
        else:
            lock.release()
        client.next_outcome()
        assert (first.get(user="jim"), second.get(user="jim")) == (2, 2)


def test_reload_needs_a_running_client(kind: Kind, service: WatchedService) -> None:
    """It raises before the start and after the client is closed, which can be closed again."""
    subject = Subject(kind, service.url, 3600, FEATURES)
    with pytest.raises(ClientNotRunningError):
        subject.reload()
    subject.start()
    with pytest.raises(RuntimeError, match="before"):
        subject.start()
    subject.close()
    subject.close()
    with pytest.raises(ClientNotRunningError):
        subject.reload()
    with pytest.raises(ClientNotRunningError):
        subject.start()


def test_contexts_can_be_tracked_before_the_start(kind: Kind, service: WatchedService) -> None:
    """The first query has them as its context filter."""
    setting = Setting("s", int, ["user"], 1)
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.client.track_contexts(user=["jim", "john"])
    subject.start()
    subject.close()
    assert [request.query["context_filters"] for request in service.requests_to(QUERY)] == ["user:(jim,john)"]
    assert setting.get(user="jim") == 1


def test_closing_wakes_an_idle_client(kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread or task has ended when the call returns."""
    for driver in ("async_client", "thread_client"):  # It would sleep for the whole interval.
        monkeypatch.setattr(f"heksher_client._drivers.{driver}.MAX_SLEEP", 3600.0)
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.start()
    subject.close()
    assert has_ended(subject)
    assert subject.client._endpoint.client.is_closed


def test_closing_does_not_wait_for_a_response(kind: Kind, service: WatchedService, stalled: Gate) -> None:
    """A response that arrives later is dropped, and pending calls of `reload` raise."""
    service.declare("s", "int", 1, ["user"])
    subject = Subject(kind, service.url, 3600, FEATURES)
    subject.start()
    service.add_rule("s", 2, user="jim")
    setting = Setting("s", int, ["user"], 1)  # from now on, a query may hold the service
    call = in_thread(subject.reload)
    stalled.wait_until_reached()
    subject.close()
    assert has_ended(subject)
    stalled.open()
    with pytest.raises(ClientNotRunningError):
        call.result(TIMEOUT_SECONDS)
    assert setting.get(user="jim") == 1


def test_closing_takes_less_than_a_second() -> None:
    """Both clients wait for the refresh in progress for a part of that at most."""
    assert 0 < ThreadHeksherClient._close_timeout < 1
    assert 0 < AsyncHeksherClient._close_timeout < 1


def test_closing_does_not_wait_for_the_modification_lock(
    service: WatchedService, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread client waits until its limit, as its thread cannot end while the program holds the lock."""

    class HeldLock:
        def __enter__(self) -> None:
            gate.hold()

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(ThreadHeksherClient, "_close_timeout", 0.05)
    setting = Setting("s", int, ["user"], 1)
    client = ThreadHeksherClient(service.url, 3600, FEATURES, timeout=TIMEOUT_SECONDS)
    client.set_as_main()
    client.modification_lock = HeldLock()  # type: ignore[assignment]
    service.add_rule("s", 2, user="jim")
    client._session.refresh_soon()
    gate.wait_until_reached()
    call_without_waiting(client.close)
    assert client._thread is not None
    assert client._thread.is_alive()
    assert setting.get(user="jim") == 1
    gate.open()
    client._thread.join(TIMEOUT_SECONDS)
    assert not client._thread.is_alive()
    assert setting.get(user="jim") == 1


@pytest.mark.anyio
async def test_closing_does_not_wait_for_connections_that_do_not_close(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The async client waits until its limit. Its task ends later."""
    closing, is_closed = asyncio.Event(), asyncio.Event()

    async def close_slowly() -> None:
        closing.set()
        await is_closed.wait()

    monkeypatch.setattr(AsyncHeksherClient, "_close_timeout", 0.05)
    client = AsyncHeksherClient(service.url, 3600, FEATURES, timeout=TIMEOUT_SECONDS)
    await client.set_as_main()
    close = client._endpoint.aclose
    monkeypatch.setattr(client._endpoint, "aclose", close_slowly)
    await asyncio.wait_for(client.aclose(), TIMEOUT_SECONDS)
    await asyncio.wait_for(closing.wait(), TIMEOUT_SECONDS)
    assert client._task is not None
    assert not client._task.done()
    is_closed.set()
    await asyncio.wait([client._task])
    await close()


# -- asyncio -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_async_client_is_a_context_manager(service: WatchedService) -> None:
    """It is the main client inside the block, and none of its tasks is left after it."""
    setting = Setting("s", int, ["user"], 1)
    async with AsyncClient(service.url) as client:
        client.set_defaults(user="jim")
        service.add_rule("s", 2, user="jim")
        await client.reload()
        assert setting.get() == 2
        assert await asyncio.to_thread(setting.get) == 2  # Reads do not depend on an event loop or a thread.
        assert len(other_tasks()) == 1
    assert other_tasks() == []
    assert setting.get() == 2


@pytest.mark.anyio
async def test_an_error_in_the_block_is_raised_unchanged(service: WatchedService) -> None:
    """It is not wrapped in an exception group."""
    with pytest.raises(LookupError, match="mine"):
        async with AsyncClient(service.url):
            raise LookupError("mine")
    assert other_tasks() == []


def test_a_client_can_be_created_without_a_running_loop(service: WatchedService) -> None:
    """At module level, for example. The loop that it is used in may end without closing it."""
    setting = Setting("s", int, ["user"], 1)
    client = AsyncClient(service.url)
    client._wake_up()  # no task sleeps yet
    client.set_defaults(user="jim")
    service.declare("s", "int", 1, ["user"])
    service.add_rule("s", 2, user="jim")

    asyncio.run(client.set_as_main())

    assert setting.get() == 2
    assert registry.main is None
    another = Setting("another", int, ["user"], 1)  # no task is woken up, and nothing fails
    assert another.get() == 1
    client._wake_up()


def test_reload_in_another_event_loop_is_an_error(service: WatchedService) -> None:
    """A client belongs to the loop that it was started in. It can be closed in any loop."""
    client = AsyncClient(service.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.set_as_main())
    with pytest.raises(ClientNotRunningError, match="another event loop"):
        asyncio.run(asyncio.wait_for(client.reload(), TIMEOUT_SECONDS))
    asyncio.run(client.aclose())
    assert registry.main is None
    assert client._task is not None
    loop.run_until_complete(asyncio.wait([client._task]))
    assert client._endpoint.client.is_closed
    loop.close()
    asyncio.run(client.aclose())


def test_a_client_whose_loop_has_ended_can_be_closed(service: WatchedService) -> None:
    """Although nothing is left to close."""
    client = AsyncClient(service.url)
    asyncio.run(client.set_as_main())
    asyncio.run(client.aclose())
    assert client._endpoint.client.is_closed


@pytest.mark.anyio
async def test_a_cancelled_start_leaves_nothing_behind(service: WatchedService, stalled: Gate) -> None:
    """No task and no main client: the settings wait for the next client."""
    setting = Setting("s", int, ["user"], 1)
    client = AsyncClient(service.url)
    start = asyncio.create_task(client.set_as_main())
    await asyncio.to_thread(stalled.wait_until_reached)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert (other_tasks(), registry.main, setting.get(user="jim")) == ([], None, 1)
    with pytest.raises(ClientNotRunningError):
        await client.ping()


@pytest.mark.anyio
async def test_a_cancelled_reload_does_not_affect_other_callers(service: WatchedService) -> None:
    """The refresh continues, and other callers get its outcome."""
    setting = Setting("s", int, ["user"], 1)
    async with AsyncClient(service.url) as client:
        client.set_defaults(user="jim")
        service.add_rule("s", 2, user="jim")
        first, second = asyncio.ensure_future(client.reload()), asyncio.ensure_future(client.reload())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert setting.get() == 2
        assert first.cancelled()


@pytest.mark.anyio
async def test_closing_completes_even_if_the_caller_is_cancelled(service: WatchedService) -> None:
    """Leaving the block in a cancelled scope closes the client."""
    with anyio.CancelScope() as scope:
        async with AsyncClient(service.url) as client:
            scope.cancel()
    assert client._endpoint.client.is_closed
    assert other_tasks() == []


@pytest.mark.anyio
async def test_close_is_a_deprecated_alias_of_aclose(service: WatchedService) -> None:
    """It works, and its warning names `aclose`."""
    client = AsyncClient(service.url)
    await client.set_as_main()
    with pytest.warns(DeprecationWarning, match="aclose"):
        await client.close()
    assert other_tasks() == []


@pytest.mark.anyio
async def test_a_hook_can_close_the_async_client(service: WatchedService) -> None:
    """In a task of its own, as a hook cannot await."""
    closing: list[asyncio.Task[None]] = []

    class ClosesItself(AsyncClient):
        def on_update_ok(self) -> None:
            if not closing:
                closing.append(asyncio.ensure_future(self.aclose()))

    client = ClosesItself(service.url)
    await client.set_as_main()
    await closing[0]
    assert other_tasks() == []


# -- threads -----------------------------------------------------------------------------------------------------------


def test_the_thread_client_is_a_context_manager(service: WatchedService) -> None:
    """It is the main client inside the block, with one daemon thread, which has ended after it."""
    setting = Setting("s", int, ["user"], 1)
    with ThreadClient(service.url) as client:
        client.set_defaults(user="jim")
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get() == 2
        thread = client._thread
        assert thread is not None
        assert (thread.name, thread.daemon, thread.is_alive()) == ("heksher-client", True, True)
    assert not thread.is_alive()


@pytest.mark.parametrize("method", ["reload", "close"])
def test_a_hook_can_call_the_client(service: WatchedService, method: str) -> None:
    """In a hook, `reload` requests another refresh without waiting for it, and `close` ends the thread."""
    called = threading.Event()

    class CallsBack(ThreadClient):
        refreshes = 0

        def on_update_ok(self) -> None:
            self.refreshes += 1
            if self.refreshes == 1:
                getattr(self, method)()
            if self.refreshes == 2 or method == "close":
                called.set()

    client = CallsBack(service.url)
    if method == "close":
        with pytest.raises(ClientNotRunningError):
            client.set_as_main()
    else:
        client.set_as_main()
    assert called.wait(TIMEOUT_SECONDS)
    client.close()
    assert client.refreshes == (2 if method == "reload" else 1)


def test_an_interrupted_start_closes_the_client(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in `set_as_main`, no client is the main one."""

    class Interrupted:
        def put(self, _: object) -> None: ...

        def get(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr("heksher_client._drivers.thread_client.SimpleQueue", Interrupted)
    client = ThreadClient(service.url)
    with pytest.raises(KeyboardInterrupt):
        client.set_as_main()
    assert registry.main is None


@pytest.mark.parametrize("step", ["_session.close", "set_as_main"])
def test_c15_interrupts_of_closing_and_of_entering_a_block(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The steps of closing are repeated. A block that is not entered closes the client."""
    client = ThreadClient("http://127.0.0.1:9")
    owner: Any = client._session if step == "_session.close" else client
    name = step.rpartition(".")[2]
    original = getattr(owner, name)

    def interrupt_once() -> None:
        setattr(owner, name, original)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        client.close() if owner is client._session else client.__enter__()
    assert (client.closed, registry.main) == (True, None)


def test_c13_thread_that_begins_after_the_client_is_closed() -> None:
    """It does nothing: the connections are closed already."""
    client = ThreadClient("http://127.0.0.1:9")
    client.close()
    client._keep_refreshing()
    assert client._endpoint.client.is_closed


@pytest.mark.anyio
async def test_c15_task_that_begins_after_the_client_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a start which is interrupted at once. A block that is not entered closes the client."""
    client = AsyncClient("http://127.0.0.1:9")

    async def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "set_as_main", interrupt)
    with pytest.raises(KeyboardInterrupt):
        await client.__aenter__()
    await asyncio.create_task(client._keep_refreshing())
    assert client._endpoint.client.is_closed


def test_a_start_that_cannot_start_a_thread_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the interpreter, and no client is the main one."""
    client = ThreadClient("http://127.0.0.1:9")
    with monkeypatch.context() as patched:
        refuse_threads(patched)
        with pytest.raises(RuntimeError, match="new thread"):
            client.set_as_main()
    assert registry.main is None
    client.close()
    assert client._endpoint.client.is_closed


def test_a_hook_can_reload_before_the_start_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the first refresh fails at once, the thread does not wait for itself."""
    client: ThreadHeksherClient
    called = threading.Event()

    class Reloads(ThreadClient):
        def on_update_error(self, exc: Exception) -> None:
            if not called.is_set():
                self.reload()
                called.set()

    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "heksher-client":
            assert called.wait(TIMEOUT_SECONDS)

    monkeypatch.setattr(threading.Thread, "start", start_and_wait)
    client = Reloads("http://127.0.0.1:9")
    client.set_as_main()
    client.close()
    assert called.is_set()


def test_closing_ends_a_refresh_between_two_requests(service: WatchedService) -> None:
    """A closed thread client sends no more requests, however many are waiting."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(30)]
    client = ThreadClient(service.url)
    received = threading.Event()

    def close_at_the_second(request: RecordedRequest) -> CannedResponse | None:
        if len(service.requests) == 2:
            threading.Thread(target=client.close).start()
            client._closed.wait(TIMEOUT_SECONDS)
            received.set()
        return None

    service.intercept = close_at_the_second
    with pytest.raises(ClientNotRunningError):
        client.set_as_main()
    assert received.wait(TIMEOUT_SECONDS)
    assert client._thread is not None
    client._thread.join(TIMEOUT_SECONDS)
    assert not client._thread.is_alive()
    assert len(service.requests) == 2
    assert len(settings) == 30


def test_closing_ends_a_pause_of_the_thread() -> None:
    """Before a declaration is sent again, say. The task of an async client is canceled."""
    client = ThreadClient("http://127.0.0.1:9")
    is_waiting = threading.Event()

    class Tokens(SimpleQueue[None]):
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            is_waiting.set()
            return super().get(block, timeout)

    client._closed._tokens = Tokens()
    pause = in_thread(lambda: client._pause(Pause(3600)))
    assert is_waiting.wait(TIMEOUT_SECONDS)
    client.close()
    pause.result(TIMEOUT_SECONDS)


def test_a_client_can_send_requests_before_it_is_started(service: WatchedService) -> None:
    """`ping` at the start of a program, followed by the start."""
    client = ThreadClient(service.url)
    client.ping()
    client.set_as_main()
    client.reload()
    client.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callers_of_reload_get_an_error_if_the_thread_ends(service: WatchedService) -> None:
    """A validator can end it, by an exception that is not logged as an error."""
    setting = Setting("s", int, ["user"], 1)

    @setting.add_validator
    def end(value: int, rule: Any, _: Any) -> int:
        raise SystemExit

    client = ThreadClient(service.url)
    with pytest.raises(ClientNotRunningError):
        client.set_as_main()
    assert registry.main is None


def test_a_hook_that_ends_its_thread_does_not_end_the_client(service: WatchedService) -> None:
    """Hooks are called in a thread of their own."""

    class Ending(ThreadClient):
        def on_update_ok(self) -> None:
            raise SystemExit

    setting = Setting("s", int, ["user"], 1)
    with Ending(service.url) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_many_threads_can_close_a_client(service: WatchedService) -> None:
    """Even while it starts."""
    for _ in range(20):
        client = ThreadClient(service.url)
        errors: list[BaseException] = []

        def close(client: ThreadHeksherClient = client, errors: list[BaseException] = errors) -> None:
            try:
                client.close()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        with contextlib.suppress(ClientNotRunningError):
            client.set_as_main()
        for thread in threads:
            thread.join()
        assert (errors, registry.main) == ([], None)


def test_a_service_that_does_not_respond_is_unavailable() -> None:
    """Even for a client that was never started."""
    client = ThreadClient("http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailableError):
        client.get_settings()
    client.close()


def test_a_hook_that_is_a_coroutine_function_is_an_error() -> None:
    """It would never run."""

    class Awaiting(AsyncHeksherClient):
        async def on_update_ok(self) -> None:  # type: ignore[override]
            pass

    with pytest.raises(TypeError, match="on_update_ok must be a plain function"):
        Awaiting("http://127.0.0.1:9", 60, FEATURES)
