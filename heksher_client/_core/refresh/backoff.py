"""The back-off of a client and of each of its settings: how long to wait after failures."""

from collections.abc import Sequence
from typing import Final

import msgspec

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


class Backoff(msgspec.Struct, frozen=True):
    """The waits after failures: one second, two, four and so on, up to a limit; longer if somebody has to fix them."""

    jitter: float
    """Unless it is 0, waits are up to a half shorter."""
    longest: float
    """The longest wait in seconds, for failures that may end by themselves."""

    def wait(
        self, failures: Sequence[Exception], attempts: int, random: float, *, may_be_of_another: bool = False
    ) -> float:
        """Return the seconds until the next attempt.

        Args:
            failures: The failures of the last attempt. The first one decides whether somebody has to fix it.
            attempts: The number of failed attempts in a row.
            random: From 0 to 1.
            may_be_of_another: Whether the failure may be due to something else that was requested together with this.
        """
        is_slow = not may_be_of_another and _must_be_fixed(failures[0])
        first, longest = (_FIRST_SLOW_RETRY, _SLOWEST_RETRY) if is_slow else (_FIRST_RETRY, self.longest)
        # The exponent is bounded: a process may fail for weeks, and floats have a maximum.
        wait = min(longest, first * 2.0 ** min(attempts - 1, 30))
        if self.jitter:
            wait *= 1 - random / 2
        responses = [f for f in failures if isinstance(f, UnexpectedResponseError | DeclarationError)]
        retry_after = max((r.retry_after for r in responses if r.retry_after is not None), default=None)
        if retry_after is not None:
            wait = max(wait, min(max(retry_after, 0.0), _MAX_RETRY_AFTER) * (1 + self.jitter * random))
        return wait


def _must_be_fixed(failure: Exception) -> bool:
    if isinstance(failure, DeclarationError):  # It may be of a class of the program, for unexpected responses.
        return True
    return isinstance(failure, UnexpectedResponseError) and failure.status in _FIXED_BY_PEOPLE
