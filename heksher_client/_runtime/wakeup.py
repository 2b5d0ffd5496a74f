"""Waiting in a thread or in a task until another thread sets an event."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Wakeup:
    """An event that any thread can set, and that threads and tasks can wait for. Waiting clears it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiters: dict[asyncio.Future[None], None] = {}
        """The futures of waiting tasks. A dictionary keeps their order, so that the first one is woken up first."""

    def set(self) -> None:
        """Wake up one waiter, or let the next one not wait at all."""
        self._event.set()
        for waiter in self._waiters.copy():
            resolve_threadsafe(waiter, None)

    def wait(self) -> None:
        """Block the thread until the event is set."""
        self._event.wait()
        self._event.clear()

    async def wait_async(self) -> None:
        """Wait for the event without blocking the event loop."""
        import asyncio  # A caller that can await has imported it; a program without tasks saves the import.

        loop = asyncio.get_running_loop()
        while not self._event.is_set():
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters[waiter] = None
            try:
                if not self._event.is_set():  # pragma: no branch - it may have been set between the two
                    await waiter
            finally:
                del self._waiters[waiter]
        self._event.clear()


def resolve_threadsafe(future: "asyncio.Future[T]", result: T) -> None:
    """Set the result of a future from any thread, unless it is done or cancelled, or its event loop is closed."""

    def resolve() -> None:
        if not future.done():
            future.set_result(result)

    with suppress(RuntimeError):  # The loop is closed, so no task waits.
        future.get_loop().call_soon_threadsafe(resolve)
