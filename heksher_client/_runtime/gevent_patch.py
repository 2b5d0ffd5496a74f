"""The ends of threads before gevent patches the program, and what continues afterwards.

Code that runs in a thread while gevent replaces the functions that it uses may stop for ever. So the threads end before
that, and go on as greenlets. If one does not end, or if other functions than `patch_all` patch the program, that is a
problem of the process.
"""

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from heksher_client._logging import logger
from heksher_client._runtime.simple_queue import current_identity, is_patched

ClientT = TypeVar("ClientT")

PROBLEM: Final = (
    "gevent has patched this process while a client was running in a thread, so refreshes may stop: call "
    "monkey.patch_all() before the client is started, or start it later (with gunicorn, in the hook post_worker_init)"
)
SUSPEND_TIMEOUT: Final = 10.0
"""Seconds for which a program that is about to be patched waits for the end of a refresh."""
_clients: Final[WeakKeyDictionary[Any, tuple[Callable[[Any], None], Callable[[Any], None]]]] = WeakKeyDictionary()
"""The functions that are called with a client before and after a patch."""
_threads: Final[set[tuple[int, int]]] = set()
"""The process and the identifier of each thread that began when the process was not patched."""
_reported: Final[set[int]] = set()
"""The processes whose problem was logged."""


def watch(client: ClientT, suspend: Callable[[ClientT], None], resume: Callable[[ClientT], None]) -> None:
    """Call two functions with a client when gevent patches the program: one before, and one after that."""
    _clients[client] = suspend, resume
    _subscribe()


def _subscribe() -> None:
    with suppress(ImportError):  # gevent, which sends its events by this package, is not installed.
        subscribers: list[Callable[[object], None]] = importlib.import_module("zope.event").subscribers
        if _receive not in subscribers:
            subscribers.append(_receive)


def _receive(event: object) -> None:
    kinds = ("GeventWillPatchAllEvent", "GeventDidPatchAllEvent")
    if (kind := type(event).__name__) not in kinds:
        return
    for client, functions in list(_clients.items()):
        try:
            functions[kinds.index(kind)](client)
        except Exception:  # It would end the patch.
            logger.exception("a client cannot continue after the program was patched")
    report_problem()


def recorded(target: Callable[[], object]) -> Callable[[], None]:
    """Return the same function for a thread of a client, which `has_unpatched_threads` finds."""
    _subscribe()

    def run() -> None:
        thread = (os.getpid(), current_identity()[0])
        if not is_patched():
            _threads.add(thread)
        try:
            target()
        finally:
            _threads.discard(thread)

    return run


def has_unpatched_threads() -> bool:
    """Return True if the process was patched while a client was running in a thread, which still runs."""
    return is_patched() and any(process == os.getpid() for process, _ in _threads.copy())


def report_problem() -> None:
    """Log once if there is such a thread."""
    if has_unpatched_threads() and os.getpid() not in _reported:
        _reported.add(os.getpid())
        logger.error("settings are not refreshed as they should be: %s", PROBLEM)
