"""Waiting in a thread or in a task until another thread, or a signal handler, sets an event.

Nothing here uses `threading.Event`: its lock is not reentrant, so a signal handler that sets an event waits for ever if
it interrupts the same thread while that sets or waits for the event. Putting into a `SimpleQueue` is reentrant.
"""

from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, TypeVar

from heksher_client._runtime.simple_queue import SimpleQueue

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Flag:
    """An event that is set once and for all."""

    def __init__(self) -> None:
        self._is_set = False
        self._tokens: SimpleQueue[None] = SimpleQueue()
        """Wakes up one waiting thread, which wakes up the next one."""

    def is_set(self) -> bool:
        """Return True if the event was set."""
        return self._is_set

    def set(self) -> None:
        """Wake up all threads that wait."""
        self._is_set = True
        self._tokens.put(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the event is set, or so many seconds. Return True if it is set."""
        if not self._is_set:
            with suppress(Empty):
                self._tokens.get(timeout=seconds)
                self._tokens.put(None)
        return self._is_set


class Wakeup:
    """An event that any thread can set, and that threads and tasks can wait for. Waiting clears it."""

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()
        """Not empty if the event is set."""
        self._waiters: dict[asyncio.Future[None], None] = {}
        """The futures of waiting tasks. A dictionary keeps their order, so that the first one is woken up first."""

    def set(self) -> None:
        """Wake up one waiter, or let the next one not wait at all."""
        if self._tokens.empty():
            self._tokens.put(None)
        for waiter in self._waiters.copy():
            resolve_threadsafe(waiter, None)

    def wait(self, seconds: float | None = None) -> None:
        """Block the thread until the event is set, or for so many seconds."""
        with suppress(Empty):
            self._tokens.get(timeout=seconds)

    async def wait_async(self) -> None:
        """Wait for the event without blocking the event loop."""
        loop = running_loop("`async for`", "`for` in a thread")
        while self._tokens.empty():
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters[waiter] = None
            try:
                if self._tokens.empty():  # pragma: no branch - it may have been set between the two
                    await waiter
            finally:
                del self._waiters[waiter]
        self.wait(0)


def running_loop(what: str, otherwise: str) -> "asyncio.AbstractEventLoop":
    """Return the running event loop of asyncio.

    Args:
        what: What needs it.
        otherwise: What does not, for the message.

    Raises:
        RuntimeError: There is none.
    """
    import asyncio  # A caller that can await has imported it; a program without tasks saves the import.

    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    raise RuntimeError(
        f"{what} needs asyncio, and no event loop of asyncio is running here: use asyncio.run, or anyio.run with the "
        f"backend 'asyncio', or {otherwise}"
    )


def resolve_threadsafe(future: "asyncio.Future[T]", result: T) -> None:
    """Set the result of a future from any thread, unless it is done or cancelled, or its event loop is closed."""

    def resolve() -> None:
        if not future.done():
            future.set_result(result)

    with suppress(RuntimeError):  # The loop is closed, so no task waits.
        future.get_loop().call_soon_threadsafe(resolve)
