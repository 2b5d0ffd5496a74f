"""The health of one client: failures in a row, their log records, and the state that `status()` reports."""

from collections.abc import Callable, Sequence
from typing import Final

from heksher_client._core.refresh.responses import identity
from heksher_client._core.refresh.status import State
from heksher_client._logging import escaped, logger, text_of

REMIND_AFTER: Final = 300.0
"""Seconds after which a failure that persists is logged again."""
_FLAPPING: Final = 60.0
"""Seconds within which a failure that ended and comes back is the same one."""
_MAX_REMEMBERED: Final = 1000


class ErrorLog:
    """Logs failures: once when they begin, change and end, and now and then in between."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        """When each failure was last logged."""
        self._has_logged = False
        """True if a failure was logged since the last success."""
        self._ended: float | None = None
        """When the last failure ended, unless another one has begun."""
        self._began: float | None = None
        self._attempts = 0

    def record(self, failures: Sequence[Exception], now: float) -> None:
        """Log what is new, persists, or has ended.

        Args:
            failures: All failures of a refresh; empty if it succeeded.
            now: The time by the client's clock, in seconds.
        """
        if not failures:
            self._end(now)
            return
        if self._ended is not None and now - self._ended >= _FLAPPING:
            self._logged_at = {}
        self._ended = None
        self._began = now if self._began is None else self._began
        self._attempts += 1
        # A failure that is absent for a while is still known: behind a load balancer two may alternate.
        self._logged_at = {what: at for what, at in self._logged_at.items() if now - at < REMIND_AFTER}
        for failure in failures[:_MAX_REMEMBERED]:
            what = identity(failure)
            if what not in self._logged_at:
                logger.error("refresh failed: %s", failure, extra={"error": failure, "attempts": self._attempts})
                self._logged_at[what] = now
                self._has_logged = True

    def _end(self, now: float) -> None:
        if self._began is None:
            return
        if self._has_logged:
            seconds = now - self._began
            logger.info(
                "the refresh succeeds again, after %d failures in %.0f seconds",
                self._attempts,
                seconds,
                extra={"attempts": self._attempts, "seconds": seconds},
            )
        self._ended, self._began, self._attempts, self._has_logged = now, None, 0, False


class Health:
    """The one record of how the refreshes of a client end."""

    def __init__(self, stale_after: float, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """Create the record of a client that has not refreshed yet.

        Args:
            stale_after: The age from which settings are stale, in seconds.
            clock: Monotonic, in seconds.
            wall_clock: The seconds since 1970.
        """
        self._stale_after, self._clock, self._wall_clock = stale_after, clock, wall_clock
        self._log = ErrorLog()
        self.failures = 0
        """Failed refreshes in a row."""
        self.last_success: float | None = None
        """In seconds since 1970."""
        self.last_error: tuple[str, float] | None = None
        """The text of the last error, and its time in seconds since 1970."""
        self._received_at: float | None = None
        """When the service last confirmed the published rules."""

    @property
    def age(self) -> float | None:
        """Seconds since the service last confirmed the published rules; None if it never did."""
        return None if self._received_at is None else max(0.0, self._clock() - self._received_at)

    def state(self, *, is_closed: bool) -> State:
        """Return the state of the client."""
        age = self.age
        if is_closed:
            return State.CLOSED
        if age is None:
            return State.STALE if self.failures else State.STARTING
        if age >= self._stale_after:
            return State.STALE
        return State.FAILING if self.failures else State.FRESH

    def record_received(self, received_at: float) -> None:
        """Record that the service has confirmed all published rules."""
        self._received_at = received_at

    def record_restored(self, age: float, *, is_new: bool) -> None:
        """Record the age of rules from the last known good.

        Args:
            age: Seconds since the service confirmed the oldest of them.
            is_new: Whether some were published just now. Otherwise the age counts only if none is known.
        """
        if self._received_at is None or is_new:
            confirmed_at = self._clock() - age
            self._received_at = confirmed_at if self._received_at is None else min(confirmed_at, self._received_at)

    def record_outcome(self, problems: Sequence[Exception]) -> None:
        """Record how a refresh ended."""
        if problems:
            self.failures += 1
            self.last_error = escaped(text_of(problems[0])), self._wall_clock()
        else:
            self.failures = 0
            self.last_success = self._wall_clock()

    def log(self, problems: Sequence[Exception]) -> None:
        """Log how a refresh ended."""
        self._log.record(problems, self._clock())
