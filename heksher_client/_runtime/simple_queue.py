"""A queue on which threads wait, also in a program that gevent patches after it has imported this package.

From then on, threads that were started before are still threads, but what waits in the main thread is one of its
greenlets, and all others stop if it blocks the thread. Locks and queues of gevent do not work across threads reliably.
So a greenlet that waits looks at a queue of the interpreter now and then, and sleeps in between.
"""

import math
import sys
import threading
import time
from _queue import SimpleQueue as QueueOfInterpreter
from queue import Empty
from typing import Final, TypeVar

from heksher_client._clock import monotonic

T = TypeVar("T")

_SHORTEST_SLEEP: Final = 0.001
_LONGEST_SLEEP: Final = 0.1
_LONGEST_WAIT: Final = 1.0
"""Seconds after which a thread that waits with a timeout, or the main thread, looks around: the program may have been
patched, and a signal that arrives just before the main thread begins to wait does not wake it up."""
_PATCHES: Final = (
    ("gevent.monkey", "is_module_patched", "_thread"),
    ("eventlet.patcher", "is_monkey_patched", "thread"),
)
"""The modules that replace threads by greenlets; the function of each that says whether it has, and its argument."""


def is_patched() -> bool:
    """Return True if gevent or eventlet has replaced threads by greenlets.

    They are asked themselves, as debuggers and profilers replace the same functions.
    """
    return any(getattr(sys.modules.get(name), asked, _never)(module) for name, asked, module in _PATCHES)


def _never(module: str) -> bool:  # noqa: ARG001
    """Replace the function of a package that is not imported, or is being imported by another thread."""
    return False


def current_identity() -> tuple[int, int]:
    """Return what identifies the calling thread or greenlet, before and after the program is patched."""
    greenlet = sys.modules.get("greenlet") if is_patched() else None
    current = greenlet and greenlet.getcurrent()
    # The first greenlet of a thread is the thread itself, which was there before the program was patched.
    return threading.get_native_id(), id(current) if current and current.parent else 0


class SimpleQueue(QueueOfInterpreter[T]):
    """A `queue.SimpleQueue` whose `get` lets other greenlets run."""

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Return the next item, as the method of the base class does."""
        until = math.inf if timeout is None else monotonic() + timeout
        is_bounded = timeout is not None or threading.get_ident() == threading.main_thread().ident
        sleep = _SHORTEST_SLEEP
        while block and (remaining := until - monotonic()) > 0:
            try:
                if not is_patched():
                    return super().get(timeout=min(remaining, _LONGEST_WAIT) if is_bounded else None)
                return super().get(block=False)
            except Empty:
                if is_patched():
                    time.sleep(min(sleep, remaining))  # patched as well
                    sleep = min(2 * sleep, _LONGEST_SLEEP)
        return super().get(block=False)
