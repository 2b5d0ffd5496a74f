"""What a program may choose of a client's behaviour, checked."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of one client. All times are in seconds."""

    update_interval: float
    start_timeout: float
    request_timeout: float
    max_response_bytes: int
    jitter: float
    max_backoff: float
    stale_after: float
    max_age: float
    follow_changes: bool

    @classmethod
    def checked(
        cls,
        update_interval: float,
        *,
        start_timeout: float,
        request_timeout: float,
        max_response_bytes: int,
        jitter: float,
        max_backoff: float,
        stale_after: float | None,
        max_age: float,
        follow_changes: bool,
    ) -> "Options":
        """Check what a program has given.

        Raises:
            TypeError, ValueError: Something is not a number, or an impossible one.
        """
        interval = _seconds("update_interval", update_interval)
        if isinstance(max_response_bytes, bool) or not isinstance(max_response_bytes, int):
            raise TypeError(f"max_response_bytes must be a whole number, not {max_response_bytes!r}")
        if max_response_bytes < 1:
            raise ValueError(f"max_response_bytes must be positive, not {max_response_bytes!r}")
        if isinstance(jitter, bool) or not isinstance(jitter, int | float):
            raise TypeError(f"jitter must be a number, not {jitter!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {jitter!r}")
        return cls(
            interval,
            _seconds("start_timeout", start_timeout),
            _seconds("request_timeout", request_timeout),
            min(max_response_bytes, 1 << 60),
            float(jitter),
            _seconds("max_backoff", max_backoff),
            3 * interval if stale_after is None else _seconds("stale_after", stale_after),
            _seconds("max_age", max_age),
            bool(follow_changes),
        )


def _seconds(name: str, value: float) -> float:
    """A number of seconds that a program has given.

    Raises:
        TypeError, ValueError: It is not a positive, finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value <= _LONGEST:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return float(value)


_LONGEST: Final = 1e9
"""Seconds, some thirty years: beyond that clocks and locks have limits of their own."""
