"""When the requests of one client may be sent, however many callers want some."""

import threading
from bisect import bisect_left, insort
from collections.abc import Callable


class RateLimit:
    """Lets so many requests pass in each interval, in the order in which they come. Safe to call from any thread."""

    def __init__(self, limit: int | None, interval: float, clock: Callable[[], float]) -> None:
        """Make one.

        Args:
            limit: The most requests in any interval; None for as many as there are.
            interval: In seconds.
            clock: Monotonic, in seconds.
        """
        self._limit, self._interval, self._clock = limit, interval, clock
        self._places: list[float] = []
        """When the last requests were sent, and those who wait will be; ascending."""
        self._free: list[float] = []
        """Those of them that were given back; ascending."""
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take the next place; gives its time. Whoever does not use it gives it back."""
        if self._limit is None:
            return 0.0
        with self._lock:
            now, places = self._clock(), self._places
            del self._free[: bisect_left(self._free, now)]  # whose time is over
            if self._free:
                return self._free.pop(0)
            place = now if len(places) < self._limit else max(now, places[-self._limit] + self._interval)
            places.append(place)
            del places[: max(0, min(bisect_left(places, now - self._interval), len(places) - self._limit))]
        return place

    def wait(self, place: float) -> float:
        """Seconds until the time of a place."""
        return 0.0 if self._limit is None else max(0.0, place - self._clock())

    def give_back(self, place: float) -> None:
        """Leave a place to those who come later."""
        if self._limit is not None:
            with self._lock:
                insort(self._free, place)
