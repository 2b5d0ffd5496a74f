"""The schedule of one client: when the next refresh is due, after the interval, a failure, or a request."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from heksher_client._core.refresh.backoff import Backoff

_SOON: Final = 5.0
"""Seconds within which the child of a fork refreshes."""
_CATCH_UP: Final = 1.0
"""Seconds until the next refresh, if responses are older than an announced change, or are of different revisions;
doubled with each further refresh of different revisions."""


class Schedule:
    """Counts from the end of each refresh: an interval after a success, less after a failure.

    All times are varied, so that the processes of a fleet that started together, or failed together, do not refresh
    together for ever. A request is due earlier, whatever the interval. A single setting that failed has a time of its
    own, which does not affect that of the refreshes.
    """

    def __init__(
        self,
        interval: float,
        *,
        jitter: float,
        max_backoff: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """Create a schedule on which a refresh is due at once.

        Args:
            interval: Seconds between refreshes.
            jitter: The share of the interval by which each is longer or shorter, from 0 to 1. Unless it is 0, the first
                interval has a random length up to the full one, and waits after failures are up to a half shorter.
            max_backoff: The longest wait after failures, in seconds.
            clock: In seconds.
            random: Returns numbers from 0 to 1.
        """
        self._interval, self._jitter = interval, jitter
        self._backoff = Backoff(jitter, max_backoff)
        self._clock, self._random = clock, random
        self._has_succeeded = False
        self._failures = 0
        self._inconsistencies = 0
        """Refreshes in a row whose responses were of different revisions."""
        self._due = -math.inf
        self._requested = self._delayed = math.inf
        """When a refresh is due that was requested at once, and one that may be delayed. Two, so that a request at once
        from another thread, or a signal handler, is not lost while the other one is computed."""
        self._retry = math.inf
        """When a single setting is to be tried again."""

    def request(self, within: float) -> None:
        """Request a refresh within some seconds, whatever the interval."""
        if within > 0:
            self._delayed = min(self._delayed, self._clock() + within)
        else:
            self._requested = self._clock()

    def begin(self) -> None:
        """Count the requests as served by the refresh that begins now. Later ones need another refresh."""
        self._requested = self._delayed = math.inf

    def plan(
        self,
        failures: Sequence[Exception],
        *,
        is_behind: bool,
        is_inconsistent: bool = False,
        problem: Exception | None = None,
        retry: float = math.inf,
    ) -> None:
        """Schedule the next refresh at the end of one.

        Args:
            failures: Its failures, if it failed for all settings; empty otherwise.
            is_behind: Whether its responses were older than an announced change.
            is_inconsistent: Whether its responses were of different revisions.
            problem: A problem that concerns all settings, although they were refreshed.
            retry: When to try single settings again that failed.
        """
        if failures:
            self.failed(failures)
            return
        if problem is None:
            self.succeeded()
        else:
            self.failed([problem], longest=self._next_interval())
        self._retry = retry
        self._inconsistencies = self._inconsistencies + 1 if is_inconsistent else 0
        if is_behind:
            self.request(_CATCH_UP)
        elif is_inconsistent:
            self.request(_CATCH_UP * 2.0 ** min(self._inconsistencies - 1, 30))

    def plan_retry(self, retry: float) -> None:
        """Schedule the next retry of single settings."""
        self._retry = retry

    def succeeded(self) -> None:
        """Count from a refresh that succeeded."""
        self._failures, self._retry = 0, math.inf
        self._due = self._clock() + self._next_interval()

    def _next_interval(self) -> float:
        factor = 1 + self._jitter * (2 * self._random() - 1)
        if self._jitter and not self._has_succeeded:
            factor = self._random()
        self._has_succeeded = True
        return self._interval * factor

    def failed(self, failures: Sequence[Exception], *, longest: float = math.inf) -> None:
        """Count from a refresh that failed, for at most some seconds."""
        self._failures, self._retry = self._failures + 1, math.inf
        self._due = self._clock() + min(longest, self._backoff.wait(failures, self._failures, self._random()))

    def restart(self, age: float = 0.0) -> None:
        """Begin again in the child of a fork: of many processes that begin at the same moment, not all at once.

        Args:
            age: The age of the rules. If they are older than an interval, as the parent does not refresh, the child
                does so at once.
        """
        self._requested = self._delayed = self._retry = math.inf
        is_spread = self._jitter and age <= self._interval * (1 + self._jitter)
        self._due = self._clock() + (min(_SOON, self._interval) * self._random() if is_spread else 0.0)

    @property
    def refresh_due(self) -> float:
        """The time of the next refresh, by the clock."""
        return min(self._due, self._requested, self._delayed)

    @property
    def is_retry_next(self) -> bool:
        """True if single settings are to be tried again before the next refresh is due."""
        return max(self._retry, self._clock()) < self.refresh_due

    def wait_for_refresh(self) -> float:
        """Return the seconds until a refresh is due; 0 if it is due now."""
        return max(0.0, self.refresh_due - self._clock())

    def wait(self) -> float:
        """Return the seconds until there is something to do; 0 if there is now."""
        return max(0.0, min(self.refresh_due, self._retry) - self._clock())
