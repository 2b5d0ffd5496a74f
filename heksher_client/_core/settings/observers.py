"""Observers of reads, for telemetry. While there are none, reads do not check for them."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class ReadObserver:
    """A callback for a sample of all reads."""

    callback: Callable[[Any, Mapping[str, str]], object]
    """Called with a `Setting` and the context that the caller passed, before the read, in the caller's thread. Its
    errors are raised by the read."""
    sample_rate: float
    """The share of reads that it is called for, from 0 to 1."""
    random: Callable[[], float]
    """Returns numbers from 0 to 1, to draw the sample with."""


_observers: list[ReadObserver] = []


def add(observer: ReadObserver) -> None:
    _observers.append(observer)


def remove(observer: ReadObserver) -> None:
    """Remove an observer. An unknown one is ignored."""
    with suppress(ValueError):
        _observers.remove(observer)


def most_frequent() -> ReadObserver | None:
    """Return the observer with the highest sample rate. Reads draw for it, and then notify all observers."""
    return max(tuple(_observers), key=lambda observer: observer.sample_rate, default=None)


def notify(setting: Any, given: Mapping[str, str], sampled: float = 1.0) -> None:
    """Call the observers of a read.

    Args:
        setting: The `Setting` that is read.
        given: The context that the caller passed.
        sampled: The share of all reads that this is called for.
    """
    for observer in tuple(_observers):
        if observer.sample_rate >= sampled or observer.random() * sampled < observer.sample_rate:
            observer.callback(setting, given)
