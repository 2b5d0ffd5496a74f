"""The clocks of the clients. The monotonic one includes the time while the machine is suspended."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from heksher_client._clock import monotonic

MAX_SLEEP: Final = 30.0
"""Seconds after which a client looks at the clock again: if the machine is suspended, other waits do not end."""


def wall_clock() -> float:
    """Return the seconds since 1970, as of `time.time()`: looked up by each call, as a test may freeze it later."""
    return time.time()


def monotonic_clock() -> Callable[[], float]:
    """Return a clock that cannot be set, and that includes the time while the machine is suspended if there is one."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return monotonic
    return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
