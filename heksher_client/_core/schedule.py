"""When the next refresh is due."""

import math
from typing import Final

_FIRST_RETRY: Final = 1.0
"""Seconds from a first failure to the next attempt; doubled by each further one."""


class Schedule:
    """Counts on from each refresh: a full interval after a success, sooner after a failure.

    A failed refresh is tried again after one second, two, four and so on, and never later than the interval.
    """

    def __init__(self, interval: float) -> None:
        """Take the interval in seconds.

        Raises:
            ValueError: It is not a positive, finite number.
        """
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise TypeError(f"update_interval must be a number of seconds, not {interval!r}")
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"update_interval must be a positive number of seconds, not {interval!r}")
        self._interval = float(interval)
        self._failures = 0
        self._due = -math.inf

    def completed(self, now: float, *, failed: bool) -> None:
        """Note that a refresh has ended."""
        self._failures = self._failures + 1 if failed else 0
        # The exponent is bounded for the sake of a process that fails for weeks, and of floats.
        wait = min(self._interval, _FIRST_RETRY * 2.0 ** min(self._failures - 1, 30)) if failed else self._interval
        self._due = now + wait

    def wait(self, now: float) -> float:
        """Seconds until the next refresh is due; 0 when it is."""
        return max(0.0, self._due - now)
