"""The schedule of one client: when the next refresh is due, after the interval, a failure, or a request."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from heksher_client.exceptions import DeclarationError, UnexpectedResponseError

_FIRST_RETRY: Final = 1.0
"""Seconds from a first failure to the next attempt; doubled by each further failure."""
_FIRST_SLOW_RETRY: Final = 30.0
_SLOWEST_RETRY: Final = 300.0
"""Seconds, for failures that somebody has to fix: credentials, or a service that is not there."""
_FIXED_BY_PEOPLE: Final = frozenset([401, 403, 404, 422])
"""The statuses of such failures."""
_MAX_RETRY_AFTER: Final = 300.0
"""Seconds that a service can make a client wait. A longer time is a mistake."""
_SOON: Final = 5.0
"""Seconds within which the child of a fork refreshes."""
_CATCH_UP: Final = 1.0
"""Seconds until the next refresh, if responses are older than an announced change."""


class Schedule:
    """Counts from the end of each refresh: an interval after a success, less after a failure.

    After failures it waits for one second, two, four and so on, up to a limit. All times are varied, so that the
    processes of a fleet that started together, or failed together, do not refresh together for ever. A request is due
    earlier, whatever the interval.
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
        self._interval, self._max_backoff, self._jitter = interval, max_backoff, jitter
        self._clock, self._random = clock, random
        self._has_succeeded = False
        self._failures = 0
        self._due = -math.inf
        self._requested = math.inf
        """When a requested refresh is due."""

    def request(self, within: float) -> None:
        """Request a refresh within some seconds, whatever the interval."""
        self._requested = min(self._requested, self._clock() + within)

    def begin(self) -> None:
        """Count the requests as served by the refresh that begins now. Later ones need another refresh."""
        self._requested = math.inf

    def plan(self, failures: Sequence[Exception], *, is_behind: bool) -> None:
        """Schedule the next refresh at the end of one.

        Args:
            failures: Its failures; empty after a success.
            is_behind: Whether its responses were older than an announced change.
        """
        if failures:
            self.failed(failures)
            return
        self.succeeded()
        if is_behind:
            self._requested = min(self._requested, self._clock() + _CATCH_UP)

    def succeeded(self) -> None:
        """Count from a refresh that succeeded."""
        self._failures = 0
        factor = 1 + self._jitter * (2 * self._random() - 1)
        if self._jitter and not self._has_succeeded:
            factor = self._random()
        self._has_succeeded = True
        self._due = self._clock() + self._interval * factor

    def failed(self, failures: Sequence[Exception]) -> None:
        """Count from a refresh that failed. The first failure decides whether somebody has to fix it."""
        self._failures += 1
        is_slow = _must_be_fixed(failures[0])
        first, longest = (_FIRST_SLOW_RETRY, _SLOWEST_RETRY) if is_slow else (_FIRST_RETRY, self._max_backoff)
        # The exponent is bounded: a process may fail for weeks, and floats have a maximum.
        wait = min(longest, first * 2.0 ** min(self._failures - 1, 30))
        if self._jitter:
            wait *= 1 - self._random() / 2
        responses = [failure for failure in failures if isinstance(failure, UnexpectedResponseError)]
        retry_after = max((r.retry_after for r in responses if r.retry_after is not None), default=None)
        if retry_after is not None:
            requested = min(max(retry_after, 0.0), _MAX_RETRY_AFTER)
            wait = max(wait, requested * (1 + self._jitter * self._random()))
        self._due = self._clock() + wait

    def restart(self) -> None:
        """Begin again in the child of a fork: of many processes that begin at the same moment, not all at once."""
        self._requested = math.inf
        self._due = self._clock() + (min(_SOON, self._interval) * self._random() if self._jitter else 0.0)

    def wait(self) -> float:
        """Return the seconds until a refresh is due; 0 if it is due now."""
        return max(0.0, min(self._due, self._requested) - self._clock())


def _must_be_fixed(failure: Exception) -> bool:
    if isinstance(failure, UnexpectedResponseError):
        return failure.status in _FIXED_BY_PEOPLE
    return isinstance(failure, DeclarationError)
