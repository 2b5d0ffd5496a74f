"""Checks in a forked child process."""

import os
import signal
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


def fork_and_check(condition: Callable[[], bool]) -> int:
    """Fork, check a condition in the child, and return the process ID of the child."""
    with fork_warning_ignored():
        pid = os.fork()
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
