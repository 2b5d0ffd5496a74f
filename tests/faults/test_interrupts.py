"""Starting and closing that are interrupted, at each step, by the ids of the table in the documentation.

Signal handlers are functions that a trace function calls, at each line or bytecode in turn: see `interrupt_each_step`.
"""

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from heksher_client import (
    AsyncHeksherClient,
    ClientNotRunningError,
    Setting,
    State,
    connect,
    connect_async,
    pinned,
)
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.snapshot import update_lock
from heksher_client._http.endpoint import Endpoint
from heksher_client.credentials import TokenFrom
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    AsyncClient,
    Gate,
    Kind,
    ThreadClient,
    ThreadKind,
    call_without_waiting,
    eventually,
    running,
)
from tests.support.fake_service import FakeService
from tests.support.in_memory import URL, LoopbackService, in_memory, running_in_memory
from tests.support.interrupts import interrupt_each_step
from tests.support.service import QUERY, RecordedRequest


@pytest.fixture
def service() -> FakeService:
    """A service in memory."""
    return FakeService()


@pytest.fixture
def loopback() -> Iterator[LoopbackService]:
    """A service in memory, which has a URL."""
    with LoopbackService() as service:
        yield service


def raise_interrupt() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


class Interrupted:
    """A thread client that is made for each step."""

    def __init__(self, service: FakeService) -> None:
        self._options = in_memory(service)
        self.client = self.make()

    def make(self) -> ThreadClient:
        return ThreadClient(URL, follow_changes=False, **self._options)

    def start(self) -> None:
        self.client.set_as_main()

    def enter(self) -> None:
        with self.client:
            raise LookupError  # The block was entered: from here on, it is not the start that is interrupted.

    def check_closed(self) -> None:
        """Check that the client has ended, and make the next one."""
        assert (self.client.closed, registry.main) == (True, None)
        if self.client._thread is not None:
            self.client._thread.join(TIMEOUT_SECONDS)
            assert not self.client._thread.is_alive()
        assert eventually(lambda: self.client._endpoint.client.is_closed)
        self.client = self.make()


# -- closing in a signal handler ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("by_opcode", [False, True])
def test_c13_closing_in_a_signal_handler_during_the_start(
    service: FakeService, setting: Setting[int], by_opcode: bool
) -> None:
    """At each step. The start raises, unless it was over, and nothing is left."""
    subject = Interrupted(service)

    def interrupt() -> None:
        for raised in interrupt_each_step(subject.start, lambda: subject.client.close(), by_opcode=by_opcode):
            assert raised is None or isinstance(raised, ClientNotRunningError)
            subject.check_closed()

    call_without_waiting(interrupt)
    subject.client.close()
    assert setting.get(user="jim") == 7


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "call", ["close", "reload", "ping", "get_settings", "status", "set_defaults", "track_contexts"]
)
def test_c13_closing_in_a_signal_handler_during_another_call(
    service: FakeService, setting: Setting[int], call: str
) -> None:
    """At each step, closing itself included."""
    subject = Interrupted(service)

    def interrupted_call() -> None:
        arguments = {"user": "jim"} if call in ("set_defaults", "track_contexts") else {}
        getattr(subject.client, call)(**arguments)

    def interrupt() -> None:
        subject.start()
        for raised in interrupt_each_step(interrupted_call, lambda: subject.client.close()):
            assert raised is None or isinstance(raised, ClientNotRunningError)
            subject.check_closed()
            subject.start()

    call_without_waiting(interrupt)
    subject.client.close()
    assert setting.get(user="jim") == 7


def test_c13_closing_a_client_that_only_sent_requests_in_a_signal_handler_during_closing(service: FakeService) -> None:
    """The HTTP client holds a lock while it is closed: the handler leaves that to the call that it interrupts."""
    client = ThreadClient(URL, **in_memory(service))
    client.ping()
    close, lock = client._endpoint.client.close, threading.Lock()

    def close_with_lock() -> None:
        with lock:
            client.close()
        close()

    client._endpoint.client.close = close_with_lock
    call_without_waiting(client.close)
    assert client._endpoint.client.is_closed


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only there are signals handled")
@pytest.mark.parametrize("raises", [False, True])
def test_c13_c15_real_signal_while_the_start_waits(service: FakeService, setting: Setting[int], raises: bool) -> None:
    """The handler closes the client, or raises."""
    client = ThreadClient(URL, follow_changes=False, **in_memory(service))
    main, is_sent = threading.get_ident(), threading.Event()

    def send_signal(_: RecordedRequest) -> None:
        if not is_sent.is_set():
            is_sent.set()
            signal.pthread_kill(main, signal.SIGUSR1)
            assert eventually(lambda: client.closed)  # Otherwise the start could succeed before the handler is called.

    def handle(*_: object) -> None:
        if raises:
            raise KeyboardInterrupt
        client.close()

    service.respond_with(QUERY, send_signal)
    former = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(KeyboardInterrupt if raises else ClientNotRunningError):
            client.set_as_main()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert (client.closed, registry.main, setting.get(user="jim")) == (True, None, 7)


# -- other calls in a signal handler -----------------------------------------------------------------------------------


def pin() -> None:
    with pinned():
        pass


CALLS: dict[str, Callable[[Any], object]] = {
    "status": lambda client: client.status(),
    "set_defaults": lambda client: client.set_defaults(theme="dark"),
    "track_contexts": lambda client: client.track_contexts(theme=["dark"]),
    "reload": lambda client: client.reload(),
    "read": lambda client: Setting("s", int, ["user"], 7).get(user="jim"),
    "pin": lambda client: pin(),
    "new setting": lambda client: Setting("new", int, ["user"], 7),
}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("call", CALLS)
def test_c14_calls_in_a_signal_handler_that_interrupts_a_call(
    kind: Kind, service: FakeService, setting: Setting[int], call: str
) -> None:
    """No call waits for another one, and what each of them sets is kept."""
    if call == "reload" and kind.raises_at_start:
        pytest.skip("a signal handler cannot await it")
    with running_in_memory(kind, service, follow_changes=False) as subject:
        client = subject.client
        added = 0

        def handle() -> None:
            nonlocal added
            added += 1
            client.set_defaults(user=f"u{added}")
            client.track_contexts(user=f"u{added}")
            client.status()
            if not kind.raises_at_start:
                client.reload()

        def interrupt() -> None:
            by_opcode = call in ("set_defaults", "track_contexts")  # whose results could be lost in between
            for raised in interrupt_each_step(lambda: CALLS[call](client), handle, by_opcode=by_opcode):
                assert raised is None
                assert client._session.defaults["user"] == f"u{added}"
                assert client._session._refresher.tracking.options["user"] == {f"u{n}" for n in range(1, added + 1)}

        call_without_waiting(interrupt)
        assert added > 0
        if call == "set_defaults":
            assert client._session.defaults["theme"] == "dark"
        if call == "track_contexts":
            assert client._session._refresher.tracking.options["theme"] == {"dark"}
        assert setting.get(user="jim") == 7


@pytest.mark.slow
@pytest.mark.unmeasured
def test_c14_reload_in_a_signal_handler_during_the_start(service: FakeService, setting: Setting[int]) -> None:
    """Before the thread runs, it only requests a refresh, which the start is waiting for."""
    subject = Interrupted(service)

    def reload() -> None:
        with suppress(ClientNotRunningError):
            subject.client.reload()

    def interrupt() -> None:
        for raised in interrupt_each_step(subject.start, reload):
            assert raised is None
            assert subject.client.status().state is State.FRESH
            subject.client.close()
            subject.check_closed()

    call_without_waiting(interrupt)
    subject.client.close()
    assert setting.get(user="jim") == 7


@pytest.mark.slow
@pytest.mark.unmeasured
def test_c14_another_client_is_started_and_closed_in_a_signal_handler(
    service: FakeService, setting: Setting[int]
) -> None:
    """The settings use the defaults of the client that is the main one at the end."""
    subject = Interrupted(service)

    def use_another() -> None:
        with subject.make() as other:
            other.set_defaults(user="ann")

    def interrupt() -> None:
        for _ in interrupt_each_step(subject.start, use_another):  # It raises if the other one was the main one.
            if not subject.client.closed:
                subject.client.set_defaults(user="jim")
                assert registry.main is subject.client._session
                assert setting.get() == 7
                subject.client.close()
            subject.check_closed()

    call_without_waiting(interrupt)
    subject.client.close()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="only there are signals handled")
def test_c14_real_signal_while_a_refresh_waits(kind: Kind, loopback: LoopbackService, setting: Setting[int]) -> None:
    """The handler calls what it can call: in the main thread, which waits for the refresh or runs the event loop."""
    client = (AsyncClient if kind.raises_at_start else ThreadClient)(loopback.url, follow_changes=False)
    main, is_handled = threading.get_ident(), threading.Event()

    def send_signal(_: RecordedRequest) -> None:
        if not is_handled.is_set():
            loopback.add_rule("s", 8, user="jim")
            signal.pthread_kill(main, signal.SIGUSR1)
            assert is_handled.wait(TIMEOUT_SECONDS)

    def handle(*_: object) -> None:
        client.set_defaults(user="jim")
        client.track_contexts(user="jim")
        assert (client.status().state, setting.get()) == (State.FRESH, 7)
        is_handled.set()
        if isinstance(client, ThreadClient):
            client.reload()
            assert setting.get() == 8

    async def reload_twice(client: AsyncClient) -> None:
        async with client:
            loopback.respond_with(QUERY, send_signal)
            await client.reload()
            await client.reload()
            assert setting.get() == 8

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        if isinstance(client, AsyncClient):
            asyncio.run(reload_twice(client))
        else:
            with client:
                loopback.respond_with(QUERY, send_signal)
                client.reload()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert is_handled.is_set()


@pytest.mark.parametrize("lock", ["of the package", "of the log", "of threads"])
@pytest.mark.parametrize("call", ["reload", "start"])
def test_c14_handler_that_interrupts_code_with_a_lock(
    service: FakeService, setting: Setting[int], lock: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not wait for a thread that needs the lock. That thread refreshes once the lock is free."""
    client = ThreadClient(URL, **in_memory(service))
    locks: dict[str, Any] = {
        "of the package": update_lock(),
        "of the log": caplog.handler.lock,
        "of threads": vars(threading)["_active_limbo_lock"],
    }
    if call == "reload":
        client.set_as_main()
        service.add_rule("s", 8, user="jim")

    def interrupted_code() -> None:
        with locks[lock]:
            client.reload() if call == "reload" else client.set_as_main()

    call_without_waiting(interrupted_code)
    client.reload()
    assert setting.get(user="jim") == (8 if call == "reload" else 7)
    client.close()


# -- Ctrl-C during the start -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("way", ["start", "enter"])
def test_c15_ctrl_c_at_any_point_of_the_start_of_a_thread_client(
    service: FakeService, setting: Setting[int], way: str
) -> None:
    """No client is the main one, and it can be closed; the settings go to the next client."""
    subject = Interrupted(service)

    def interrupt() -> None:
        for raised in interrupt_each_step(getattr(subject, way), raise_interrupt):
            if isinstance(raised, KeyboardInterrupt) and not isinstance(raised.__context__, LookupError):
                assert registry.main is None
            subject.client.close()
            subject.check_closed()

    call_without_waiting(interrupt)
    with subject.make() as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert setting.get(user="jim") == 8
    subject.client.close()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_c15_ctrl_c_at_any_point_of_closing(service: FakeService, setting: Setting[int]) -> None:
    """It is raised at the end. Before the first step, nothing has happened."""
    subject = Interrupted(service)
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        subject.start()
        for raised in interrupt_each_step(lambda: subject.client.close(), raise_interrupt):
            assert isinstance(raised, KeyboardInterrupt)
            steps += 1
            if steps <= 2:  # the lines before anything is done
                subject.client.close()
            subject.check_closed()
            subject.start()

    call_without_waiting(interrupt)
    assert steps > 20
    subject.client.close()
    assert setting.get(user="jim") == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_c15_ctrl_c_at_any_point_of_connect(kind: Kind, loopback: LoopbackService, setting: Setting[int]) -> None:
    """Nobody has the client then, so it is closed."""
    arguments: dict[str, Any] = {"url": loopback.url, "context_features": FEATURES, "follow_changes": False}
    clients: list[Any] = []

    async def connect_and_close() -> None:
        async with connect_async(**arguments):
            pass

    def call() -> None:
        if kind.raises_at_start:
            asyncio.run(connect_and_close())
        else:
            clients.append(connect(**arguments))

    def interrupt() -> None:
        for raised in interrupt_each_step(call, raise_interrupt, files=["profiles/_connect.py"]):
            assert isinstance(raised, KeyboardInterrupt)
            assert (registry.main, clients) == (None, [])

    call_without_waiting(interrupt)
    gc.collect()
    for client in clients:  # that of the last call, which was not interrupted
        client.close()
    assert setting.get(user="jim") == 7


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # for coroutines that were just created
def test_c15_ctrl_c_at_any_point_of_the_start_of_an_async_client(service: FakeService, setting: Setting[int]) -> None:
    """Also in its task, and in the event loop."""
    client: AsyncClient

    async def enter() -> None:
        nonlocal client
        async with client:
            pass

    def interrupt() -> None:
        nonlocal client
        files = ["_drivers/async_client.py", "_core/refresh/lifecycle.py"]  # All steps would take a minute.
        client = AsyncClient(URL, follow_changes=False, **in_memory(service))
        for _ in interrupt_each_step(lambda: asyncio.run(enter()), raise_interrupt, files=files):
            assert registry.main is None
            asyncio.run(client.aclose())
            assert client.closed
            client = AsyncClient(URL, follow_changes=False, **in_memory(service))

    call_without_waiting(interrupt)
    gc.collect()  # here, where the warnings of interrupted coroutines are ignored
    with running(ThreadKind(), URL, **in_memory(service)) as other:
        service.add_rule("s", 8, user="jim")
        other.reload()
        assert setting.get(user="jim") == 8


@pytest.mark.parametrize("is_entered", [False, True])
@pytest.mark.parametrize("has_run", [False, True])
def test_c15_start_whose_coroutine_is_closed(
    service: FakeService, setting: Setting[int], is_entered: bool, has_run: bool
) -> None:
    """As at the end of an event loop. Nothing can be awaited then."""
    client = AsyncClient(URL, **in_memory(service))

    async def begin() -> None:
        start = client.__aenter__() if is_entered else client.set_as_main()
        start.send(None)
        if has_run:
            await asyncio.sleep(0)
        start.close()
        assert (client.closed, registry.main) == (True, None)
        assert client._task is not None
        await asyncio.wait([client._task])

    asyncio.run(begin())
    assert setting.get(user="jim") == 7


# -- overlapping calls of aclose ---------------------------------------------------------------------------------------


async def cancelled(client: AsyncHeksherClient, steps: int) -> None:
    """Cancel `aclose` after some steps of the loop, once it has begun."""
    closing = asyncio.create_task(client.aclose())
    for _ in range(steps + 1):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)


async def twice(client: AsyncClient, steps: int) -> None:
    first = asyncio.create_task(client.aclose())
    for _ in range(steps):
        await asyncio.sleep(0)
    await asyncio.gather(first, client.aclose())


async def cancelled_and_again(client: AsyncClient, steps: int) -> None:
    first = asyncio.create_task(client.aclose())
    for _ in range(steps):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, client.aclose(), return_exceptions=True)


async def out_of_time(client: AsyncClient, steps: int) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(client.aclose(), steps / 10_000)
    await client.aclose()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("close", [cancelled, twice, cancelled_and_again, out_of_time])
@pytest.mark.parametrize("is_started", [False, True])
def test_c16_overlapping_and_cancelled_calls_of_aclose(
    loopback: LoopbackService,
    setting: Setting[int],
    close: Callable[[AsyncClient, int], Coroutine[Any, Any, None]],
    is_started: bool,
) -> None:
    """After any number of steps of the loop, no task and no socket is left, without the garbage collector."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(12)]

    async def check(steps: int) -> None:
        client = AsyncClient(loopback.url)
        if is_started:
            await client.set_as_main()
        await asyncio.gather(*(client.ping() for _ in range(5)))
        await close(client, steps)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert client._endpoint.client.is_closed
        assert client._endpoint.client._transport._pool.connections == []
        assert await asyncio.to_thread(eventually, lambda: not loopback._server._open)

    for steps in range(8):
        asyncio.run(check(steps))
    assert (len(settings), setting.get(user="jim")) == (12, 7)


def test_c16_connections_that_do_not_close_do_not_delay_the_end_of_the_loop(
    loopback: LoopbackService, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither `aclose` nor the task of the client waits for them for long, however often they are cancelled."""
    monkeypatch.setattr(AsyncHeksherClient, "_close_timeout", 0.05)

    async def never(endpoint: Endpoint) -> None:
        await close(endpoint)
        await asyncio.Event().wait()

    async def start_and_close() -> None:
        client = AsyncHeksherClient(loopback.url, 3600, FEATURES, timeout=TIMEOUT_SECONDS)
        await client.set_as_main()
        await asyncio.gather(cancelled(client, 3), client.aclose())

    close = Endpoint.aclose
    monkeypatch.setattr(Endpoint, "aclose", never)
    call_without_waiting(lambda: asyncio.run(start_and_close()))
    assert setting.get(user="jim") == 7


# -- outside asyncio ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["set_as_main", "reload", "ping", "get_settings", "__aenter__"])
def test_c17_async_client_without_an_event_loop(setting: Setting[int], method: str) -> None:
    """The error says what is missing. The client is not the main one, and can be closed anywhere."""
    client = AsyncClient(URL)
    with pytest.raises(RuntimeError, match=r"needs asyncio.*ThreadHeksherClient"):
        getattr(client, method)().send(None)
    assert (client.status().is_main, registry.main, setting.get(user="jim")) == (False, None, 7)
    assert client.closed == (method in ("set_as_main", "__aenter__"))
    with pytest.raises(StopIteration):
        client.aclose().send(None)
    assert client.closed


def test_c17_streams_and_credentials_without_an_event_loop(setting: Setting[int], gate: Gate) -> None:
    """The error is the same. The first value of a watch needs no wait, and a later request can await the token."""

    async def token() -> str:
        return "t"

    def slow_token() -> str:
        gate.hold()
        return "t"

    client, values = AsyncClient(URL), setting.watch(user="jim")
    with pytest.raises(StopIteration, match="7"):
        values.__anext__().send(None)
    for name, call in (("async for", values.__anext__), ("async for", client.changes().__anext__)):
        with pytest.raises(RuntimeError, match=rf"{name}.* needs asyncio.*`for` in a thread"):
            call().send(None)
    for credential in (TokenFrom(slow_token), TokenFrom(token)):
        with pytest.raises(RuntimeError, match=r"needs asyncio.*or a "):
            credential.aforce_refresh().send(None)
        gate.open()
        asyncio.run(credential.aforce_refresh())


@pytest.mark.frameworks("trio")
def test_c17_async_client_in_trio(service: FakeService, setting: Setting[int]) -> None:
    """The same, in the event loop of another library."""
    import trio

    async def main() -> None:
        client = AsyncClient(URL)
        with pytest.raises(RuntimeError, match="needs asyncio"):
            async with client:
                pass
        await client.aclose()
        assert (client.closed, registry.main) == (True, None)
        assert client._endpoint.client.is_closed

    trio.run(main)
    with running(ThreadKind(), URL, **in_memory(service)):
        assert setting.get(user="jim") == 7
