"""Waiting until something has happened, in a thread or in a task: what the core cannot do itself."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Wakeup:
    """Rung by any thread; whoever waits for it goes on, also if that was before."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._tasks: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        """What tasks wait for, and where they run."""

    def ring(self) -> None:
        """Have one who waits go on, or the next one not wait at all."""
        self._rung.set()
        for waiting, loop in self._tasks.copy().items():
            with suppress(RuntimeError):  # the loop is closed, so nobody waits
                loop.call_soon_threadsafe(_settle, waiting)

    def wait(self) -> None:
        """Block the thread until it is rung."""
        self._rung.wait()
        self._rung.clear()

    async def wait_async(self) -> None:
        """Let the event loop go on until it is rung."""
        import asyncio  # whoever awaits this has it; a program without tasks need not wait for its import

        loop = asyncio.get_running_loop()
        while not self._rung.is_set():
            waiting: asyncio.Future[None] = loop.create_future()
            self._tasks[waiting] = loop
            try:
                if not self._rung.is_set():  # pragma: no branch - it may have been rung between the two
                    await waiting
            finally:
                del self._tasks[waiting]
        self._rung.clear()


def _settle(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
