"""Pauses of a thread that reads one setting all the time: the seconds from each read to the next, as percentiles."""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999, "maximum": 1.0}


class Reader(threading.Thread):
    """A thread that reads a setting until `ended` is true, at least once."""

    def __init__(self, setting: Any) -> None:
        super().__init__(daemon=True)
        self.ended = False
        self.counts: Counter[int] = Counter()
        """The number of times from one read to the next, by nanoseconds. A list of millions of times would itself
        cause pauses when it grows."""
        self._setting = setting

    def run(self) -> None:
        setting, counts = self._setting, self.counts
        before = time.perf_counter_ns()
        while not (self.ended and counts):
            setting.get(user="user_3")
            now = time.perf_counter_ns()
            counts[now - before] += 1
            before = now


def pauses_during(work: Callable[[], object], setting: Any) -> dict[str, float]:
    """Read a setting in a thread while this one works, and return the percentiles."""
    reader = Reader(setting)
    reader.start()
    work()
    assert reader.is_alive()
    reader.ended = True
    reader.join()
    times = sorted(reader.counts)
    ranks = list(accumulate(reader.counts[nanoseconds] for nanoseconds in times))
    return {name: times[bisect_left(ranks, share * ranks[-1])] / 1e9 for name, share in PERCENTILES.items()}


def run_plain_python(seconds: float) -> None:
    """Fill dicts for some time. As no statement takes long, all pauses of a reader are due to the switch of threads."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        values: dict[str, int] = {}
        for number in range(1000):
            values[f"user_{number}"] = number
