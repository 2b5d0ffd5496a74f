"""The fork hook of the package: what is repaired in the child of a fork, and in which order.

Threads and event loops of the parent do not exist in the child, and locks may be held for ever there. This is the only
module that registers a hook with the interpreter, so the order does not depend on the order of imports.
"""

import os
from collections.abc import Callable
from enum import IntEnum
from typing import Final


class Stage(IntEnum):
    """The order in which parts are repaired: each one may use those before it."""

    SNAPSHOTS = 0
    CREDENTIALS = 1
    CLIENTS = 2


_callbacks: Final[dict[Stage, Callable[[], None]]] = {}


def call_in_child(stage: Stage, callback: Callable[[], None]) -> None:
    """Call a function in the child of each fork from now on.

    Args:
        stage: When to call it. A stage has one callback.
        callback: Must not raise, as the later stages would not be reached.
    """
    _callbacks[stage] = callback


def _repair() -> None:  # in the child of a fork
    for _, callback in sorted(_callbacks.items()):
        callback()


if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    os.register_at_fork(after_in_child=_repair)
