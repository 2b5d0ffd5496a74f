"""Checks in the child of a fork."""

import os
from collections.abc import Callable

from tests.support.clients import eventually


def begun_in_child(condition: Callable[[], bool]) -> int:
    """Fork, and check something in the child; gives the child's process id."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - it is another process
        code = 1
        try:
            code = 0 if condition() else 2
        finally:
            os._exit(code)
    return pid


def ended_well(pid: int) -> bool:
    """Whether what was checked in a child is true."""
    status: list[int] = []

    def has_ended() -> bool:
        ended, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return ended == pid

    return eventually(has_ended) and os.waitstatus_to_exitcode(status[-1]) == 0
