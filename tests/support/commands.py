"""Commands in separate processes."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEATURES = ("environment", "user")
COMMAND = [str(Path(sys.executable).with_name("heksher-client"))]
_RUN_WITH_DEFAULT_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Outcome:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


def interruptible(command: Sequence[str]) -> list[str]:
    """Return a command that starts the given one with the default action for SIGINT.

    A process inherits the signals that its parent ignores, and shells start background jobs with SIGINT ignored. Python
    does not raise `KeyboardInterrupt` then, so tests in a background job could not interrupt a program. `preexec_fn` is
    not an alternative: it is not safe in a process with threads, such as that of the tests.

    Args:
        command: The path of a program, and its arguments. It replaces the process that is started, so that the process
            ID is that of the program.
    """
    return [sys.executable, "-I", "-S", "-c", _RUN_WITH_DEFAULT_SIGINT, *command]


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables without those of this package, and with some more."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEKSHER_")} | more
