"""A timeout in an event loop that ends by the real clock, even if a test freezes the time of the loop.

Timers of a frozen loop never end, or all of them end at once. So when a timer ends, the timeout looks at the clock
again, and while the loop is frozen, a thread replaces the timer.
"""

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import anyio

from heksher_client._clock import monotonic
from heksher_client._runtime.worker_threads import start_daemon_thread

_MAX_DIFFERENCE: Final = 1.0
"""Seconds by which the clock of a loop may differ from the real one."""


class Timeout:
    """Cancels the `with` block that it is entered for after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._scope = seconds, anyio.CancelScope()
        self._loop = asyncio.get_running_loop()
        self._until = math.inf
        self._cancel_timer: Callable[[], None] = _do_nothing

    @property
    def is_exceeded(self) -> bool:
        """True if the block was cancelled, after it has ended."""
        return self._scope.cancelled_caught

    def restart(self) -> None:
        """Count from now on."""
        self.stop()
        self._until = monotonic() + self._seconds
        self._check()

    def stop(self) -> None:
        """Do not cancel the block until `restart` is called."""
        self._cancel_timer()
        self._until = math.inf

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self.restart()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.stop()
        return self._scope.__exit__(exc_type, exc, traceback)

    def _check(self) -> None:
        """Cancel the block if its time is over, or wait for the rest of it."""
        remaining = self._until - monotonic()
        if remaining <= 0:
            self._scope.cancel()
        elif remaining < math.inf and not (self._is_frozen() and self._start_thread(remaining)):
            self._cancel_timer = self._loop.call_later(remaining, self._check).cancel

    def _is_frozen(self) -> bool:
        return abs(self._loop.time() - monotonic()) > _MAX_DIFFERENCE

    def _start_thread(self, seconds: float) -> bool:
        is_cancelled = threading.Event()

        def wait() -> None:
            if not is_cancelled.wait(min(seconds, threading.TIMEOUT_MAX)):
                with suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._check)

        try:
            start_daemon_thread("heksher-client-timer", wait)
        except RuntimeError:  # the machine has no thread left
            return False
        self._cancel_timer = is_cancelled.set
        return True


def _do_nothing() -> None:
    pass
