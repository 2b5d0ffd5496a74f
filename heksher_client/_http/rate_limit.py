"""The rate limit of one client: the time at which each of its requests may be sent."""

import math
import threading
from bisect import bisect_left, insort
from collections.abc import Callable


class RateLimit:
    """Allows a number of requests in each interval, in the order in which they ask. Safe to call from any thread."""

    def __init__(self, limit: float, interval: float, clock: Callable[[], float]) -> None:
        """Create a rate limit.

        Args:
            limit: The largest number of requests in any interval. 2.5 in one second are 2 in any 0.8 seconds, and 0.5
                are one in any 2 seconds.
            interval: Seconds.
            clock: Monotonic, in seconds.
        """
        self._limit = max(1, math.floor(limit))
        self._interval, self._clock = interval * (self._limit / limit), clock
        self._places: list[float] = []
        """The times of the last requests and of those that wait, ascending."""
        self._free: list[float] = []
        """The places of them that were given back, ascending."""
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take the next place and return its time. A place that is not used must be given back."""
        with self._lock:
            now, places = self._clock(), self._places
            del self._free[: bisect_left(self._free, now)]
            if self._free:
                return self._free.pop(0)
            place = now if len(places) < self._limit else max(now, places[-self._limit] + self._interval)
            places.append(place)
            del places[: max(0, min(bisect_left(places, now - self._interval), len(places) - self._limit))]
        return place

    def wait(self, place: float) -> float:
        """Return the seconds until the time of a place."""
        return max(0.0, place - self._clock())

    def give_back(self, place: float) -> None:
        """Leave a place to a later request."""
        with self._lock:
            insort(self._free, place)
