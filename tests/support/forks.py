"""Checks in a forked child process."""

import os
from collections.abc import Callable

from tests.support.clients import eventually


def fork_and_check(condition: Callable[[], bool]) -> int:
    """Fork, check a condition in the child, and return the process ID of the child."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        code = 1
        try:
            code = 0 if condition() else 2
        finally:
            os._exit(code)
    return pid


def exited_successfully(pid: int) -> bool:
    """Wait for a child, and return True if its condition was true."""
    status: list[int] = []

    def has_exited() -> bool:
        exited, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return exited == pid

    return eventually(has_exited) and os.waitstatus_to_exitcode(status[-1]) == 0
