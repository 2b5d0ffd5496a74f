"""Behavior of one driver only: tasks, cancellation and event loops; threads, hooks and signals."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
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
from heksher_client._core.settings.registry import registry
from tests.support.clients import FEATURES, TIMEOUT_SECONDS
from tests.support.service import QUERY, CannedResponse, RecordedRequest, WatchedService


@pytest.fixture
def stalled(service: WatchedService) -> Iterator[threading.Event]:
    """A service that does not respond to queries until the end of the test. The event is set by the first query."""
    received, release = threading.Event(), threading.Event()

    def stall(request: RecordedRequest) -> CannedResponse | None:
        if str(request) == QUERY:
            received.set()
            release.wait(TIMEOUT_SECONDS)
        return None

    service.intercept = stall
    yield received
    release.set()


def other_tasks() -> list[str]:
    return [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task() and "client" in t.get_name()]


# -- asyncio -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_async_client_is_a_context_manager(service: WatchedService) -> None:
    """It is the main client inside the block, and none of its tasks is left after it."""
    setting = Setting("s", int, ["user"], 1)
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(user="jim")
        service.add_rule("s", 2, user="jim")
        await client.reload()
        assert setting.get() == 2
        assert len(other_tasks()) == 1
    assert other_tasks() == []
    assert setting.get() == 2


@pytest.mark.anyio
async def test_an_error_in_the_block_is_raised_unchanged(service: WatchedService) -> None:
    """It is not wrapped in an exception group."""
    with pytest.raises(LookupError, match="mine"):
        async with AsyncHeksherClient(service.url, 3600, FEATURES):
            raise LookupError("mine")
    assert other_tasks() == []


def test_a_client_can_be_created_without_a_running_loop(service: WatchedService) -> None:
    """At module level, for example. The loop that it is used in may end without closing it."""
    setting = Setting("s", int, ["user"], 1)
    client = AsyncHeksherClient(service.url, 3600, FEATURES)
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
    client = AsyncHeksherClient(service.url, 3600, FEATURES)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.set_as_main())
    with pytest.raises(ClientNotRunningError, match="another event loop"):
        asyncio.run(client.reload())
    asyncio.run(client.aclose())
    assert registry.main is None
    loop.run_until_complete(asyncio.sleep(0.01))
    assert client._endpoint.client.is_closed
    loop.close()
    asyncio.run(client.aclose())


def test_a_client_whose_loop_has_ended_can_be_closed(service: WatchedService) -> None:
    """Although nothing is left to close."""
    client = AsyncHeksherClient(service.url, 3600, FEATURES)
    asyncio.run(client.set_as_main())
    asyncio.run(client.aclose())
    assert client._endpoint.client.is_closed


@pytest.mark.anyio
@pytest.mark.usefixtures("stalled")
async def test_a_cancelled_start_leaves_nothing_behind(service: WatchedService) -> None:
    """No task and no main client: the settings wait for the next client."""
    setting = Setting("s", int, ["user"], 1)
    client = AsyncHeksherClient(service.url, 3600, FEATURES)
    with anyio.move_on_after(0.1) as scope:
        await client.set_as_main()
    assert scope.cancelled_caught
    assert (other_tasks(), registry.main, setting.get(user="jim")) == ([], None, 1)
    with pytest.raises(ClientNotRunningError):
        await client.ping()


@pytest.mark.anyio
async def test_a_cancelled_reload_does_not_affect_other_callers(service: WatchedService) -> None:
    """The refresh continues, and other callers get its outcome."""
    setting = Setting("s", int, ["user"], 1)
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
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
        async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
            scope.cancel()
    assert client._endpoint.client.is_closed
    assert other_tasks() == []


@pytest.mark.anyio
async def test_close_is_a_deprecated_alias_of_aclose(service: WatchedService) -> None:
    """It works, and its warning names `aclose`."""
    client = AsyncHeksherClient(service.url, 3600, FEATURES)
    await client.set_as_main()
    with pytest.warns(DeprecationWarning, match="aclose"):
        await client.close()
    assert other_tasks() == []


@pytest.mark.anyio
async def test_a_hook_can_close_the_async_client(service: WatchedService) -> None:
    """In a task of its own, as a hook cannot await."""
    closing: list[asyncio.Task[None]] = []

    class ClosesItself(AsyncHeksherClient):
        def on_update_ok(self) -> None:
            if not closing:
                closing.append(asyncio.ensure_future(self.aclose()))

    client = ClosesItself(service.url, 3600, FEATURES)
    await client.set_as_main()
    await closing[0]
    assert other_tasks() == []


# -- threads -----------------------------------------------------------------------------------------------------------


def test_the_thread_client_is_a_context_manager(service: WatchedService) -> None:
    """It is the main client inside the block, with one daemon thread, which has ended after it."""
    setting = Setting("s", int, ["user"], 1)
    with ThreadHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(user="jim")
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get() == 2
        (thread,) = [t for t in threading.enumerate() if t.name == "heksher-client"]
        assert thread.daemon
    assert not thread.is_alive()


@pytest.mark.parametrize("method", ["reload", "close"])
def test_a_hook_can_call_the_client(service: WatchedService, method: str) -> None:
    """In a hook, `reload` requests another refresh without waiting for it, and `close` ends the thread."""
    called = threading.Event()

    class CallsBack(ThreadHeksherClient):
        refreshes = 0

        def on_update_ok(self) -> None:
            self.refreshes += 1
            if self.refreshes == 1:
                getattr(self, method)()
            if self.refreshes == 2 or method == "close":
                called.set()

    client = CallsBack(service.url, 3600, FEATURES)
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

        def get(self) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr("heksher_client._drivers.thread_client.SimpleQueue", Interrupted)
    client = ThreadHeksherClient(service.url, 3600, FEATURES)
    with pytest.raises(KeyboardInterrupt):
        client.set_as_main()
    assert registry.main is None


def test_a_start_that_cannot_start_a_thread_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the interpreter, and no client is the main one."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = ThreadHeksherClient("http://127.0.0.1:9", 3600, FEATURES)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            client.set_as_main()
    assert registry.main is None
    client.close()
    assert client._endpoint.client.is_closed


def test_a_hook_can_reload_before_the_start_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the first refresh fails at once, the thread does not wait for itself."""
    client: ThreadHeksherClient
    called = threading.Event()

    class Reloads(ThreadHeksherClient):
        def on_update_error(self, exc: Exception, /) -> None:
            if not called.is_set():
                self.reload()
                called.set()

    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "heksher-client":
            assert called.wait(TIMEOUT_SECONDS)

    monkeypatch.setattr(threading.Thread, "start", start_and_wait)
    client = Reloads("http://127.0.0.1:9", 3600, FEATURES)
    client.set_as_main()
    client.close()
    assert called.is_set()


def test_closing_ends_a_refresh_between_two_requests(service: WatchedService) -> None:
    """A closed thread client sends no more requests, however many are waiting."""
    settings = [Setting(f"s{i}", int, ["user"], 1) for i in range(30)]
    client = ThreadHeksherClient(service.url, 3600, FEATURES)
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
    for thread in threading.enumerate():
        if thread.name == "heksher-client":
            thread.join(TIMEOUT_SECONDS)
    assert len(service.requests) == 2
    assert len(settings) == 30


def test_closing_ends_the_pause_before_a_declaration_is_retried(service: WatchedService) -> None:
    """The thread client does not wait for it."""
    setting = Setting("s", int, ["user"], 1)
    service.respond_with("POST /api/v1/settings/declare", CannedResponse(500))
    client = ThreadHeksherClient(service.url, 3600, FEATURES)
    client.set_as_main()
    client.close()
    assert len(service.requests_to("POST /api/v1/settings/declare")) == 3
    assert setting.get(user="jim") == 1


def test_a_client_can_send_requests_before_it_is_started(service: WatchedService) -> None:
    """`ping` at the start of a program, followed by the start."""
    client = ThreadHeksherClient(service.url, 3600, FEATURES)
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

    client = ThreadHeksherClient(service.url, 3600, FEATURES)
    with pytest.raises(ClientNotRunningError):
        client.set_as_main()
    assert registry.main is None


def test_a_hook_that_ends_its_thread_does_not_end_the_client(service: WatchedService) -> None:
    """Hooks are called in a thread of their own."""

    class Ending(ThreadHeksherClient):
        def on_update_ok(self) -> None:
            raise SystemExit

    setting = Setting("s", int, ["user"], 1)
    with Ending(service.url, 3600, FEATURES) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_many_threads_can_close_a_client(service: WatchedService) -> None:
    """Even while it starts."""
    for _ in range(20):
        client = ThreadHeksherClient(service.url, 3600, FEATURES)
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
    client = ThreadHeksherClient("http://127.0.0.1:9", 3600, FEATURES)
    with pytest.raises(ServiceUnavailableError):
        client.get_settings()
    client.close()


def test_a_hook_that_is_a_coroutine_function_is_an_error() -> None:
    """It would never run."""

    class Awaiting(AsyncHeksherClient):
        async def on_update_ok(self) -> None:  # type: ignore[override]
            pass

    with pytest.raises(TypeError, match="on_update_ok must be a plain method"):
        Awaiting("http://127.0.0.1:9", 60, FEATURES)
