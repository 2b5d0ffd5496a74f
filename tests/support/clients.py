"""Both clients with one interface, so that a test covers both kinds."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from heksher_client import AsyncHeksherClient, HeksherError, SettingData, State, ThreadHeksherClient
from heksher_client._clock import monotonic
from heksher_client._core.refresh.effects import Limits
from heksher_client._drivers.client import Client

T = TypeVar("T")

TIMEOUT_SECONDS = 60.0
"""Seconds that tests wait for an event before they fail."""

FEATURES = ("environment", "user", "theme")


class _RecordingHooks:
    """Hooks that record the outcome of each refresh."""

    outcomes: SimpleQueue[Exception | None]

    def on_update_ok(self) -> None:
        self.outcomes.put(None)

    def on_update_error(self, exc: Exception) -> None:
        self.outcomes.put(exc)


class _BusyMachine(
    Client,
    update_interval=3600,
    context_features=FEATURES,
    jitter=0,
    timeout=TIMEOUT_SECONDS,
    request_timeout=TIMEOUT_SECONDS,
):
    """Options of clients whose limits a busy machine does not exceed."""

    _close_timeout = TIMEOUT_SECONDS


class ThreadClient(_BusyMachine, ThreadHeksherClient):
    """A thread client with these options."""


class AsyncClient(_BusyMachine, AsyncHeksherClient):
    """An async client with these options."""


class RecordingThreadClient(_RecordingHooks, ThreadHeksherClient):
    _close_timeout = TIMEOUT_SECONDS


class RecordingAsyncClient(_RecordingHooks, AsyncHeksherClient):
    _close_timeout = TIMEOUT_SECONDS


class Kind(Protocol):
    """One kind of client: how to create and call it."""

    raises_at_start: bool

    def make(self, *args: Any, **kwargs: Any) -> Any: ...
    def call(self, result: Any) -> Any: ...


class ThreadKind:
    """The thread client, called directly."""

    raises_at_start = False

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return RecordingThreadClient(*args, **kwargs)

    def call(self, result: Any) -> Any:
        return result


class AsyncKind:
    """The async client, called in an event loop that runs in another thread."""

    raises_at_start = True

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return RecordingAsyncClient(*args, **kwargs)

    def call(self, result: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(result, self.loop).result(TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Stop the loop like `asyncio.run`, but wait for tasks instead of canceling them: clients leave none."""
        self.call(self._finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _finish(self) -> None:
        await self.loop.shutdown_asyncgens()
        await asyncio.sleep(0)  # shutdown of generators creates tasks
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)


class Subject:
    """A client under test, of either kind. Its requests may take a minute, unless a test sets other limits."""

    def __init__(self, kind: Kind, *args: Any, **kwargs: Any) -> None:
        self.kind = kind
        if "http_client" not in kwargs:
            kwargs.setdefault("timeout", TIMEOUT_SECONDS)
        kwargs.setdefault("request_timeout", TIMEOUT_SECONDS)
        kwargs.setdefault("jitter", 0)
        self.client = kind.make(*args, **kwargs)
        self.client.outcomes = SimpleQueue()

    def start(self) -> None:
        self.kind.call(self.client.set_as_main())

    def close(self) -> None:
        self.kind.call(self.client.aclose() if self.kind.raises_at_start else self.client.close())

    def reload(self) -> None:
        self.kind.call(self.client.reload())

    def ping(self) -> None:
        self.kind.call(self.client.ping())

    def get_settings(self) -> dict[str, SettingData]:
        settings: dict[str, SettingData] = self.kind.call(self.client.get_settings())
        return settings

    def state_after_reload(self) -> State:
        with suppress(HeksherError):
            self.reload()
        state: State = self.client.status().state
        return state

    def next_outcome(self) -> Exception | None:
        """Wait for the next refresh, and return its error; None if it succeeded."""
        outcome: Exception | None = self.client.outcomes.get(timeout=TIMEOUT_SECONDS)
        return outcome

    def clear_outcomes(self) -> None:
        """Discard the outcomes so far, so that `next_outcome` waits for a later refresh."""
        while not self.client.outcomes.empty():
            self.client.outcomes.get()

    def reload_expecting(self, error: type[Exception]) -> Exception:
        """Reload, and return the expected error: the async client raises it, the thread client only reports it."""
        self.clear_outcomes()
        raised = None
        try:
            self.reload()
        except error as exc:
            raised = exc
        reported = self.next_outcome()
        assert isinstance(reported, error)
        assert isinstance(raised, error) == self.kind.raises_at_start
        return reported


@contextmanager
def running(kind: Kind, url: str, interval: float = 3600, **kwargs: Any) -> Iterator[Subject]:
    """Run a client as the main one, with a default for each feature."""
    subject = Subject(kind, url, interval, kwargs.pop("context_features", FEATURES), **kwargs)
    subject.client.set_defaults(**dict.fromkeys(subject.client._session.context_features or (), "none"))
    try:
        subject.start()
        yield subject
    finally:
        subject.close()


@contextmanager
def limited(client: Subject, seconds: float) -> Iterator[None]:
    """Set the time limit of requests and of waiting for a disk. On a busy machine a request may exceed a short one."""
    requests = client.client._session.requests
    former, requests.limits = requests.limits, Limits(seconds)
    yield
    requests.limits = former


class ClientClock:
    """The clock by which clients plan refreshes. It stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """Holds threads, until a test opens it: for what the code under test must not wait for.

    Code that waits for it nevertheless never returns, and the test fails, however fast the machine is.
    """

    def __init__(self) -> None:
        self._is_reached, self._is_open = threading.Event(), threading.Event()
        self._is_expired = False

    def hold(self) -> None:
        """Wait until the gate is open."""
        self._is_reached.set()
        if not self._is_open.wait(TIMEOUT_SECONDS):
            self._is_expired = True

    def wait_until_reached(self) -> None:
        """Wait until a thread is held."""
        assert self._is_reached.wait(TIMEOUT_SECONDS)

    def open(self) -> None:
        """Let all threads go on. It is an error if one of them was held until the timeout of tests."""
        self._is_open.set()
        assert not self._is_expired


def in_thread(call: Callable[[], T]) -> "Future[T]":
    """Start a call in a daemon thread, which does not prevent the end of the tests if the call never returns."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def call_without_waiting(call: Callable[[], T]) -> T:
    """Return the result of a call that must not wait for a server that never responds."""
    return in_thread(call).result(TIMEOUT_SECONDS)


def eventually(condition: Callable[[], Any], seconds: float = TIMEOUT_SECONDS) -> bool:
    """Poll a condition that depends on another thread or process; return False if it does not become true in time."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False
