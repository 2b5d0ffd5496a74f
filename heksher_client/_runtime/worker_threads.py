"""Calls that may hang, on a disk or in the program's own code, in threads that nobody has to wait for."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any


class DetachedCall:
    """Where calls of one kind are made: one at a time, and none as long as the former one has not come back."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        """As long as a call is under way."""

    @property
    def is_here(self) -> bool:
        """Whether the caller is such a call itself."""
        return self._thread is threading.current_thread()

    def begin(self, call: Callable[[], Any], tell: Callable[[Any], None]) -> bool:
        """Begin a call, in a daemon thread, so that it does not delay the program's end.

        Args:
            call: What to call.
            tell: Called over there with what it returned, or with None if it raised.

        Returns:
            Whether it was begun.

        Raises:
            RuntimeError: The machine has no thread left to give.
        """
        if self._thread is not None:
            return False

        def work() -> None:
            result = None
            try:
                with suppress(SystemExit):  # which would end this thread, and nothing else
                    result = call()
            finally:
                self._thread = None
                tell(result)

        self._thread = thread = threading.Thread(target=work, name="heksher-client-aside", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            raise
        return True

    def call(self, call: Callable[[], Any], seconds: float) -> Any:
        """Wait for a call.

        Returns:
            What it returned; None if that took too long, or if a former call has not come back.
        """
        results: SimpleQueue[Any] = SimpleQueue()
        try:
            return results.get(timeout=min(seconds, threading.TIMEOUT_MAX)) if self.begin(call, results.put) else None
        except Empty:
            return None
        except RuntimeError:
            return call()
