"""When the next refresh is due."""

import math
from collections.abc import Callable
from typing import Final

_FIRST_RETRY: Final = 1.0
"""Seconds from a first failure to the next attempt; doubled by each further one."""
_FIRST_SLOW_RETRY: Final = 30.0
_SLOWEST_RETRY: Final = 300.0
"""Seconds, where it takes people to mend what is wrong: credentials, or a service that is not there."""
_LONGEST_ASKED_FOR: Final = 300.0
"""Seconds that a service can have a client wait; whatever it asks for beyond that is a mistake."""
_SOON: Final = 5.0
"""Seconds within which the child of a fork refreshes."""


class Schedule:
    """Counts on from each refresh: an interval after a success, sooner after a failure.

    A failed refresh is tried again after one second, two, four and so on, up to a longest wait. All waits are varied,
    so that the processes of a fleet that started together, or failed together, do not ask together for ever.
    """

    def __init__(self, interval: float, *, jitter: float, max_backoff: float, random: Callable[[], float]) -> None:
        """Make a schedule on which a refresh is due at once.

        Args:
            interval: Seconds between refreshes.
            jitter: The share of the interval by which each is longer or shorter, from 0 to 1. Unless it is 0, the first
                interval ends at any moment of it, and waits after failures are up to a half shorter.
            max_backoff: The longest wait after failures, in seconds.
            random: Gives numbers from 0 to 1.
        """
        self._interval, self._max_backoff, self._jitter, self._random = interval, max_backoff, jitter, random
        self._has_succeeded = False
        self.failures = 0
        """In a row."""
        self._due = -math.inf

    def succeeded(self, now: float) -> None:
        """Note that a refresh has ended well."""
        self.failures = 0
        varied = 1 + self._jitter * (2 * self._random() - 1)
        if self._jitter and not self._has_succeeded:
            varied = self._random()
        self._has_succeeded = True
        self._due = now + self._interval * varied

    def failed(self, now: float, *, is_lasting: bool = False, retry_after: float | None = None) -> None:
        """Note that a refresh has failed.

        Args:
            now: The time.
            is_lasting: Whether it takes people to mend that.
            retry_after: The seconds that the service asks to wait, if it does.
        """
        self.failures += 1
        first, longest = (_FIRST_SLOW_RETRY, _SLOWEST_RETRY) if is_lasting else (_FIRST_RETRY, self._max_backoff)
        # The exponent is bounded for the sake of a process that fails for weeks, and of floats.
        wait = min(longest, first * 2.0 ** min(self.failures - 1, 30))
        if self._jitter:
            wait *= 1 - self._random() / 2
        if retry_after is not None:
            asked = min(max(retry_after, 0.0), _LONGEST_ASKED_FOR)
            wait = max(wait, asked * (1 + self._jitter * self._random()))
        self._due = now + wait

    def soon(self, now: float) -> None:
        """Have a refresh due within some seconds: of many processes that begin at the same moment, not all at once."""
        self._due = now + (min(_SOON, self._interval) * self._random() if self._jitter else 0.0)

    def wait(self, now: float) -> float:
        """Seconds until the next refresh is due; 0 when it is."""
        return max(0.0, self._due - now)
