"""The limit of a client's computations between two pauses, in which an event loop or other threads run."""

from typing import Final, TypeVar

from heksher_client._core.refresh.effects import Flow, Pause
from heksher_client._core.settings.cooperative import Work

T = TypeVar("T")

_RULES_BETWEEN_PAUSES: Final = 5000
"""A few milliseconds."""
BYTES_PER_RULE: Final = 500
"""Parsing or hashing this many bytes counts as processing a rule."""


class WorkBudget:
    """Counts the rules that a client has processed since the last pause."""

    def __init__(self) -> None:
        self._spent = 0

    def spend(self, rules: int) -> Flow[None]:
        """Count processed rules, and pause if they are many."""
        self._spent += rules
        if self._spent >= _RULES_BETWEEN_PAUSES:
            self._spent = 0
            yield Pause()

    def cooperatively(self, work: Work[T], spent: int = 0) -> Flow[T]:
        """Do some work, with pauses.

        Args:
            work: The work.
            spent: The number of rules that were processed before it, without pauses.
        """
        self._spent += spent
        while True:
            try:
                done = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            self._spent += done
            if self._spent >= _RULES_BETWEEN_PAUSES:
                self._spent = 0
                yield Pause()
