"""Checks in a forked child process."""

import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.clients import eventually


@contextmanager
def fork_warning_ignored() -> Iterator[None]:
    """Ignore the warning of Python 3.12 and later that a process with threads forks. As an error, 3.15 raises it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def fork_without_hooks() -> int:
    """Fork as a server that is written in C does: Python's fork hooks are not called."""
    pid: int = ctypes.PyDLL(None).fork()
    if pid == 0:  # pragma: no cover - another process
        # A lock of coverage may be held by a thread of the parent, as its hook was not called either.
        sys.settrace(None)
        threading.settrace(None)
    return pid


def fork_and_check(condition: Callable[[], bool], fork: Callable[[], int] = os.fork) -> int:
    """Fork, check a condition in the child, and return the process ID of the child."""
    with fork_warning_ignored():
        pid = fork()
    if pid == 0:  # pragma: no cover - another process
        code = 1
        try:
            code = 0 if condition() else 2
        finally:
            os._exit(code)
    return pid


def exited_successfully(pid: int) -> bool:
    """Wait for a child, and return True if its condition was true. A child that hangs is killed."""
    status: list[int] = []

    def has_exited() -> bool:
        exited, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return exited == pid

    if not eventually(has_exited):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False
    return os.waitstatus_to_exitcode(status[-1]) == 0
