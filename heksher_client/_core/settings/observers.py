"""Observers of reads, for telemetry. While there are none, reads do not check for them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec


class ReadObserver(msgspec.Struct, frozen=True, eq=False):
    """A callback for a sample of all reads."""

    callback: Callable[[Any, Mapping[str, str]], object]
    """Called with a `Setting` and the context that the caller passed, before the read, in the caller's thread. Its
    errors are raised by the read."""
    sample_rate: float
    """The share of reads that it is called for, from 0 to 1."""
    random: Callable[[], float]
    """Returns numbers from 0 to 1, to draw the sample with."""


class ReadObservers:
    """The observers of all reads in the process."""

    def __init__(self) -> None:
        self._observers: tuple[ReadObserver, ...] = ()
        self.most_frequent: ReadObserver | None = None
        """The observer with the highest sample rate. Reads draw for it, and then notify all observers."""

    def add(self, observer: ReadObserver) -> None:
        self._replace((*self._observers, observer))

    def remove(self, observer: ReadObserver) -> None:
        """Remove an observer. An unknown one is ignored."""
        self._replace(tuple(other for other in self._observers if other is not observer))

    def _replace(self, observers: tuple[ReadObserver, ...]) -> None:
        self._observers = observers
        self.most_frequent = max(observers, key=lambda observer: observer.sample_rate, default=None)

    def notify(self, setting: Any, given: Mapping[str, str], sampled: float = 1.0) -> None:
        """Call the observers of a read.

        Args:
            setting: The `Setting` that is read.
            given: The context that the caller passed.
            sampled: The share of all reads that this is called for.
        """
        for observer in self._observers:
            if observer.sample_rate >= sampled or observer.random() * sampled < observer.sample_rate:
                observer.callback(setting, given)


read_observers: Final = ReadObservers()
