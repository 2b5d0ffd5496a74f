"""The fork hooks of the package: what is repaired in the child of a fork, and in which order.

Threads and event loops of the parent do not exist in the child, and locks may be held for ever there. This is the only
module that registers hooks with the interpreter, so the order does not depend on the order of imports.

Locks of this package are replaced by the stages. Two locks of Python, which an event loop takes all the time, are
replaced as well. The parent is not touched: a hook before the fork could wait until other threads have released them,
but what such a thread does may take long, or wait for the thread that forks.

A server that is written in C may fork without the hooks. uWSGI does, and has a hook of its own, which is used. After
other forks of this kind, the child notices it when it calls a client. Reads do not look for it.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from heksher_client._logging import logger
from heksher_client._runtime import gevent_patch


class Stage(Enum):
    """The order in which parts are repaired: each one may use those before it."""

    SNAPSHOTS = auto()
    CREDENTIALS = auto()
    CLIENTS = auto()


_callbacks: Final[dict[Stage, Callable[[], None]]] = {}
_repaired: Final = [os.getpid()]
"""The process that was repaired last, or has not been forked. Empty while another one is about to be repaired."""


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


def continue_if_forked() -> None:
    """Repair what the hooks repair, if this process was forked without them."""
    if os.getpid() not in _repaired:
        _continue_late()  # pragma: no cover - in the child of a fork


def _continue_late() -> None:  # in the child of a fork
    if _continue():
        logger.error(
            "this process was forked without Python's fork hooks: its clients went on only when one was called"
        )


def _continue() -> bool:  # in the child of a fork
    """Repair what the hooks repair. Return False if another thread, or the hooks, did it."""
    try:
        if os.getpid() in _repaired:  # uWSGI can be told to call the hooks
            return False
        _repaired.pop()
    except IndexError:  # another thread is faster
        return False
    _repaired.append(os.getpid())
    _replace_locks_of_python()
    with ExitStack() as stages:  # calls each one, whichever of them raises
        for stage in reversed(Stage):
            stages.callback(_repair, stage)
    return True


def _mark_as_repaired() -> None:  # in the child of a fork
    _repaired[:] = [os.getpid()]


def _uwsgi() -> Any:
    """Return the module of uWSGI, which exists in its processes only, or None. A program may have a module of the same
    name, its entry point for example."""
    module = sys.modules.get("uwsgi")
    is_own = isinstance(getattr(module, "opt", None), dict) and callable(getattr(module, "masterpid", None))
    return module if is_own else None


def problem_of_process() -> str | None:
    """Return why the threads of clients cannot run as they should, or None if they can."""
    if gevent_patch.has_unpatched_threads():
        return gevent_patch.PROBLEM
    uwsgi = _uwsgi()
    if uwsgi is None or getattr(uwsgi, "has_threads", uwsgi.opt.keys() & {"enable-threads", "threads"}):
        return None
    return "uWSGI lets threads run only while it serves a request: start it with --enable-threads"


def report_problem() -> None:
    """Log this reason, if there is one."""
    if problem := problem_of_process():
        logger.error("settings are not refreshed as they should be: %s", problem)


def is_uwsgi_master() -> bool:
    """Return True if threads should rest in this process, except for what a program asks for.

    The master of uWSGI forks workers while another thread may hold the interpreter's lock, and such a worker hangs for
    ever. The master reads no settings.
    """
    uwsgi = _uwsgi()
    if uwsgi is None or uwsgi.masterpid() != os.getpid():
        return False
    return "py-call-uwsgi-fork-hooks" not in uwsgi.opt  # With that option, the master waits for the lock.


def register_with_uwsgi() -> None:
    """Continue in the workers of uWSGI, which it forks without the hooks. It calls one function in each of them."""
    uwsgi = _uwsgi()
    if uwsgi is None:
        return
    try:
        importlib.import_module("uwsgidecorators").postfork(_continue)
    except Exception:  # It is not installed, or refuses to be imported, which it does without a master process.
        former: Callable[[], object] | None = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            _continue()
            if former is not None:
                former()

        uwsgi.post_fork_hook = hook


register_with_uwsgi()
if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    os.register_at_fork(after_in_child=_mark_as_repaired)  # before the others, which call clients
    os.register_at_fork(after_in_child=_replace_locks_of_python)
    for _stage in Stage:  # A hook for each one: the interpreter calls them in this order, whichever of them raises.
        os.register_at_fork(after_in_child=partial(_repair, _stage))
