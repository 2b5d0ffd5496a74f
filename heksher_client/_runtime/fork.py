"""The fork hooks of the package: what is repaired in the child of a fork, and in which order.

Threads and event loops of the parent do not exist in the child, and locks may be held for ever there. This is the only
module that registers hooks with the interpreter, so the order does not depend on the order of imports.

Locks of this package are replaced by the stages. Two locks of Python, which an event loop takes all the time, are
replaced as well. The parent is not touched: a hook before the fork could wait until other threads have released them,
but what such a thread does may take long, or wait for the thread that forks.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Final


class Stage(Enum):
    """The order in which parts are repaired: each one may use those before it."""

    SNAPSHOTS = auto()
    CREDENTIALS = auto()
    CLIENTS = auto()


_callbacks: Final[dict[Stage, Callable[[], None]]] = {}


def call_in_child(stage: Stage, callback: Callable[[], None]) -> None:
    """Call a function in the child of each fork from now on.

    Args:
        stage: When to call it. A stage has one callback.
        callback: If it raises, the interpreter reports the error, and the later stages are reached.
    """
    _callbacks[stage] = callback


def _repair(stage: Stage) -> None:  # in the child of a fork
    if stage in _callbacks:
        _callbacks[stage]()


def _replace_locks_of_python() -> None:  # in the child of a fork
    """Replace the locks that a thread of the parent held, which would never be released.

    asyncio takes its lock when an event or a lock is first waited for. An import takes that of its module, even if the
    module is missing: httpcore looks for an optional one at each request. A module of which only a part was executed is
    imported again. Both locks are private to Python: where it has no such names, nothing is replaced.
    """
    if (mixins := sys.modules.get("asyncio.mixins")) is not None:
        vars(mixins)["_global_lock"] = threading.Lock()
    locks: dict[str, Any] = vars(importlib._bootstrap).get("_module_locks", {})  # noqa: SLF001 - see above
    for name, reference in list(locks.items()):
        if getattr(reference(), "owner", None) not in (None, threading.get_ident()):
            del locks[name]
            if getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False):
                del sys.modules[name]


if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    os.register_at_fork(after_in_child=_replace_locks_of_python)
    for _stage in Stage:  # A hook for each one: the interpreter calls them in this order, whichever of them raises.
        os.register_at_fork(after_in_child=partial(_repair, _stage))
