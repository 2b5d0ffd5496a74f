"""Daemon threads: the only module that starts one. Nothing waits for such a thread for longer than it wants to.

A thread that looks up a host name, waits for a disk, or runs user code cannot be interrupted, and a daemon thread does
not delay the end of the program. So blocking calls are made in daemon threads, and are abandoned if they take too long.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def start_daemon_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        RuntimeError: The machine has no thread left, or the program is ending.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def run_in_daemon_threads(name: str, target: Callable[[], object], count: int = 1) -> int:
    """Run a function in several daemon threads at once, or in the calling thread if not even one can be started.

    Returns:
        The number of threads: at least 1.
    """
    started = 0
    with suppress(RuntimeError):
        for _ in range(count):
            start_daemon_thread(name, target)
            started += 1
    if not started:
        target()
    return max(started, 1)


def resolve_threadsafe(future: "asyncio.Future[T]", result: T) -> None:
    """Set the result of a future from any thread, unless it is done or cancelled, or its event loop is closed."""

    def resolve() -> None:
        if not future.done():
            future.set_result(result)

    with suppress(RuntimeError):  # The loop is closed, so no task waits.
        future.get_loop().call_soon_threadsafe(resolve)


class DetachedCall:
    """Calls of one kind, each in a daemon thread: one at a time, and none while the previous one has not returned."""

    def __init__(self) -> None:
        self._is_running = False
        self._thread: threading.Thread | None = None
        """The thread of the call that is running."""

    @property
    def is_current_thread(self) -> bool:
        """Whether the calling thread is running such a call."""
        return self._thread is threading.current_thread()

    def start(self, call: Callable[[], Any], on_result: Callable[[Any], None]) -> bool:
        """Start a call.

        Args:
            call: The function to call.
            on_result: Called in the same thread with its result, or with None if it raised.

        Returns:
            False if the previous call has not returned, so that this one was not started.
        """
        if self._is_running:
            return False
        self._is_running = True

        def work() -> None:
            self._thread = threading.current_thread()
            result = None
            try:
                with suppress(SystemExit):  # It would end this thread only.
                    result = call()
            finally:
                self._thread, self._is_running = None, False
                on_result(result)

        run_in_daemon_threads("heksher-client-call", work)
        return True

    def call(self, call: Callable[[], Any], seconds: float) -> Any:
        """Start a call and wait for its result.

        Returns:
            The result, or None if it takes longer than so many seconds, or if the previous call has not returned.
        """
        results: SimpleQueue[Any] = SimpleQueue()
        if not self.start(call, results.put):
            return None
        try:
            return results.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except Empty:
            return None
