"""The fork hooks of the package: what is repaired in the child of a fork, and in which order.

Threads and event loops of the parent do not exist in the child, and locks may be held for ever there. This is the only
module that registers hooks with the interpreter, so the order does not depend on the order of imports.
"""

import os
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Final


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


if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    for _stage in Stage:  # A hook for each one: the interpreter calls them in this order, whichever of them raises.
        os.register_at_fork(after_in_child=partial(_repair, _stage))
