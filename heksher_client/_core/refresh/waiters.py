"""Callers that wait for a refresh which began after their call."""

from collections.abc import Callable
from typing import TypeAlias

Waiter: TypeAlias = Callable[[Exception | None], None]
"""Called with the error of the refresh, or None if it succeeded."""


class Waiters:
    """The callers that wait for the next refresh, and those that wait for the running one."""

    def __init__(self) -> None:
        self._next: list[Waiter] = []
        self._running: list[Waiter] = []

    def add(self, waiter: Waiter) -> None:
        """Add a caller that waits for the next refresh."""
        self._next.append(waiter)

    def begin(self) -> bool:
        """Serve the callers that wait for the next refresh by the one that begins now. Return True if there are any."""
        self._running, self._next = self._next, []
        return bool(self._running)

    def resolve(self, error: Exception | None) -> None:
        """Call the waiters for the running refresh."""
        running, self._running = self._running, []
        for waiter in running:
            waiter(error)

    def resolve_all(self, error: Exception) -> None:
        """Call all waiters."""
        self._running, self._next = self._running + self._next, []
        self.resolve(error)

    def after_fork(self) -> None:  # in the child of a fork
        """Forget all waiters: they are threads of the parent."""
        self._next, self._running = [], []
