"""What a program may choose of a client's behaviour, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from heksher_client.exceptions import UnexpectedResponseError


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
    rate_limit: int | None
    rate_limit_interval: float
    error_classes: Mapping[int, type[UnexpectedResponseError]]

    @classmethod
    def checked(cls, chosen: Mapping[str, Any], *, can_follow: bool) -> "Options":
        """Check what a program has chosen.

        Args:
            chosen: By name; what is not there is not chosen.
            can_follow: Whether there is a way to follow changes, if the program wants to.

        Raises:
            TypeError, ValueError: Something is not a number, or an impossible one.
        """

        def seconds(name: str, otherwise: float) -> float:
            return _seconds(name, chosen.get(name, otherwise))

        interval = seconds("update_interval", 0)
        jitter = chosen.get("jitter", 0.1)
        if isinstance(jitter, bool) or not isinstance(jitter, int | float):
            raise TypeError(f"jitter must be a number, not {jitter!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {jitter!r}")
        return cls(
            interval,
            seconds("start_timeout", 60),
            seconds("request_timeout", 30),
            min(_whole("max_response_bytes", chosen.get("max_response_bytes", 1 << 28)), 1 << 60),
            float(jitter),
            seconds("max_backoff", 60),
            seconds("stale_after", 3 * interval),
            seconds("max_age", 7 * 24 * 3600),
            bool(chosen.get("follow_changes", True)) and can_follow,
            _whole("rate_limit", chosen["rate_limit"]) if "rate_limit" in chosen else None,
            seconds("rate_limit_interval", 1),
            _error_classes(chosen.get("error_classes", {})),
        )


def _error_classes(classes: Mapping[int, Any]) -> Mapping[int, type[UnexpectedResponseError]]:
    for status, kind in classes.items():
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise ValueError(f"error_classes: {status!r} is no HTTP status")
        if not isinstance(kind, type) or not issubclass(kind, UnexpectedResponseError):
            raise TypeError(f"error_classes: {kind!r} is no subclass of UnexpectedResponseError")
    return dict(classes)


def _whole(name: str, value: int) -> int:
    """A number of things that a program has given.

    Raises:
        TypeError, ValueError: It is not a whole number, or not a positive one.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be positive, not {value!r}")
    return value


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
