"""Checks in a forked child process."""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.clients import TIMEOUT_SECONDS, eventually


@contextmanager
def fork_warning_ignored() -> Iterator[None]:
    """Ignore the warning of Python 3.12 and later that a process with threads forks. As an error, 3.15 raises it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def _fork_without_hooks() -> int:
    """Fork while no other thread waits for the interpreter's lock: without the hooks, the child would hang.

    The child would have the parent's request to hand over the lock, and wait for a thread that it does not have.
    """
    fork = ctypes.PyDLL(None).fork
    interval = sys.getswitchinterval()
    sys.setswitchinterval(TIMEOUT_SECONDS)  # before which a thread does not request the lock
    time.sleep(0.01)  # Those that have requested it get it now.
    pid: int = fork()
    sys.setswitchinterval(interval)
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
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def exited_successfully(pid: int) -> bool:
    """Wait for a child, and return True if its condition was true. A child that hangs is killed."""
    return exit_code(pid) == 0


def succeeds_without_hooks(condition: Callable[[], bool]) -> bool:
    """Fork as a server that is written in C does, and return True if a condition is true in the child.

    A child that hangs nevertheless, as another thread was just taking the interpreter's lock, is replaced, up to twice.
    """
    for _ in range(3):
        code = exit_code(fork_and_check(condition, _fork_without_hooks), seconds=TIMEOUT_SECONDS / 3)
        sys.stderr.write(f"the child ended with {code}\n")
        if code is not None:
            return code == 0
    return False


def exit_code(pid: int, seconds: float = TIMEOUT_SECONDS) -> int | None:
    """Wait for a child, and return its exit code. One that hangs is killed; then the result is None."""
    status: list[int] = []

    def has_exited() -> bool:
        exited, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return exited == pid

    if not eventually(has_exited, seconds):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None
    return os.waitstatus_to_exitcode(status[-1])
