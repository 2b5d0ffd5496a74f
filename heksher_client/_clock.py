"""The monotonic clock, which is the real one even in a test that freezes or replaces `time.monotonic`.

Waits end by the clock of the system, whatever a test has done to Python's functions. The times that the package shows,
compares with those of other machines or stores are those of `time.time()`, and so those of the test.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

# Not `time.monotonic` itself: freezegun replaces that in all modules. On systems without `clock_gettime`, the `partial`
# hides it.
monotonic: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else partial(time.monotonic)
)
"""The seconds since some moment."""
