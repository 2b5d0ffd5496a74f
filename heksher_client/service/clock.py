"""The clock of the service: periods of rules begin and end by it, and changes get their times from it."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time. Tests replace this function, so modules call it as `clock.now()`."""
    return datetime.now(UTC)
