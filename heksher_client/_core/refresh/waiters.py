"""Callers that wait for a refresh which began after their call."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from heksher_client._logging import shown_seconds
from heksher_client.exceptions import ServiceTimeoutError

Waiter: TypeAlias = Callable[[Exception | None], None]
"""Called with the error of the refresh, or None if it succeeded."""


class Waiters:
    """The callers that wait for the next refresh, and those that wait for the running one. Safe to use from any thread,
    and from a signal handler that interrupts it: each change is one operation on a deque."""

    def __init__(self) -> None:
        self._next: deque[Waiter] = deque()
        self._running: deque[Waiter] = deque()

    def add(self, waiter: Waiter) -> None:
        """Add a caller that waits for the next refresh."""
        self._next.append(waiter)

    def begin(self) -> bool:
        """Serve the callers that wait for the next refresh by the one that begins now. Return True if there are any."""
        with suppress(IndexError):
            while True:
                self._running.append(self._next.popleft())
        return bool(self._running)

    def resolve(self, error: Exception | None) -> None:
        """Call the waiters for the running refresh."""
        with suppress(IndexError):
            while True:
                self._running.popleft()(error)

    def resolve_all(self, error: Exception) -> None:
        """Call all waiters. One that `begin` is just moving is missed, so this is called again after the refresh."""
        self.begin()
        self.resolve(error)

    def after_fork(self) -> None:  # in the child of a fork
        """Forget all waiters: they are threads of the parent."""
        self._next, self._running = deque(), deque()


def start_timed_out(seconds: float) -> ServiceTimeoutError:
    """Return the error for a start that takes longer than the caller waits for it."""
    return ServiceTimeoutError(
        f"the client has not started within {shown_seconds(seconds)} (the argument timeout); it is closed"
    )


def reload_timed_out(seconds: float) -> ServiceTimeoutError:
    """Return the error for a refresh that takes longer than a caller of `reload` waits for it."""
    return ServiceTimeoutError(
        f"no refresh has ended within {shown_seconds(seconds)} (the argument timeout); it goes on"
    )
