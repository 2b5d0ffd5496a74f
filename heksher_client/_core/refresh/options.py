"""The options of a client, checked."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from heksher_client.exceptions import UnexpectedResponseError


class Environment(msgspec.Struct, frozen=True):
    """The clocks and the random source, which the core does not have itself."""

    clock: Callable[[], float]
    """Monotonic, in seconds; continues while the machine sleeps."""
    wall_clock: Callable[[], float]
    """The seconds since 1970."""
    random: Callable[[], float]
    """Returns numbers from 0 to 1."""


class Options(msgspec.Struct, frozen=True):
    """The options of one client. All times are in seconds."""

    update_interval: float
    start_timeout: float
    request_timeout: float
    max_response_bytes: int
    jitter: float
    max_backoff: float
    stale_after: float
    max_age: float
    follow_changes: bool
    rate_limit: float | None
    rate_limit_interval: float
    error_classes: Mapping[int, type[UnexpectedResponseError]]

    @classmethod
    def checked(cls, chosen: Mapping[str, Any], *, can_follow: bool) -> "Options":
        """Check the options of a program, and complete them with the defaults.

        Args:
            chosen: The options by name.
            can_follow: Whether the HTTP client can follow a stream of changes.

        Raises:
            TypeError, ValueError: An option is not a number, or out of range.
        """

        def seconds(name: str, otherwise: float) -> float:
            return checked_seconds(name, chosen.get(name, otherwise))

        interval = seconds("update_interval", 0)
        jitter = chosen.get("jitter", 0.1)
        if isinstance(jitter, bool) or not isinstance(jitter, int | float):
            raise TypeError(f"jitter must be a number, not {jitter!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {_shown(jitter)}")
        follow_changes = chosen.get("follow_changes", True)
        if not isinstance(follow_changes, bool):
            raise TypeError(f"follow_changes must be True or False, not {follow_changes!r}")
        return cls(
            interval,
            seconds("start_timeout", 60),
            seconds("request_timeout", 30),
            min(_count("max_response_bytes", chosen.get("max_response_bytes", 1 << 28)), 1 << 60),
            float(jitter),
            seconds("max_backoff", 60),
            seconds("stale_after", min(3 * interval, MAX_SECONDS)),
            seconds("max_age", 7 * 24 * 3600),
            follow_changes and can_follow,
            _rate(chosen["rate_limit"], seconds("rate_limit_interval", 1)) if "rate_limit" in chosen else None,
            seconds("rate_limit_interval", 1),
            _error_classes(chosen.get("error_classes", {})),
        )


def _error_classes(classes: Mapping[int, Any]) -> Mapping[int, type[UnexpectedResponseError]]:
    for status, kind in classes.items():
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise ValueError(f"error_classes: {_shown(status)} is not an HTTP status")
        if not isinstance(kind, type) or not issubclass(kind, UnexpectedResponseError):
            raise TypeError(f"error_classes: {kind!r} is not a subclass of UnexpectedResponseError")
    return dict(classes)


def _count(name: str, value: int) -> int:
    """Check a count.

    Raises:
        TypeError, ValueError: It is not a whole number, or not positive.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be positive, not {_shown(value)}")
    return value


def _rate(limit: Any, interval: float) -> float:
    """Check a number of requests in an interval.

    Raises:
        TypeError, ValueError: It is not a positive number, or so small that a request would wait for decades.
    """
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"rate_limit must be a number of requests, not {limit!r}")
    if not 0 < limit < math.inf:
        raise ValueError(f"rate_limit must be positive and finite, not {_shown(limit)}")
    if interval / min(limit, 1) > MAX_SECONDS:
        raise ValueError(f"rate_limit must allow a request in each {MAX_SECONDS:,.0f} seconds, not {limit!r}")
    return limit


def checked_seconds(name: str, value: float) -> float:
    """Check a number of seconds.

    Raises:
        TypeError, ValueError: It is not a positive number, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value <= MAX_SECONDS:
        raise ValueError(
            f"{name} must be a positive number of seconds, at most {MAX_SECONDS:,.0f}, not {_shown(value)}"
        )
    return float(value)


def checked_timeout(timeout: float | None, default: float = math.inf) -> float:
    """Check the argument `timeout` of a call, and return the seconds.

    Args:
        timeout: The argument.
        default: The seconds to return for None.

    Raises:
        TypeError, ValueError: It is not a positive number of seconds.
    """
    return default if timeout is None else checked_seconds("timeout", timeout)


def _shown(number: Any) -> str:
    """Return a number for a message. Python does not write integers with thousands of digits."""
    is_huge = isinstance(number, int) and number.bit_length() > _MAX_BITS
    return f"an integer of {number.bit_length()} bits" if is_huge else repr(number)


MAX_SECONDS: Final = 1e9
"""Some thirty years. Clocks and locks have limits not far above."""
_MAX_BITS: Final = 128
