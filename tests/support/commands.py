"""Commands in separate processes."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEATURES = ("environment", "user")
COMMAND = [str(Path(sys.executable).with_name("heksher-client"))]


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


def environment(**more: str) -> dict[str, str]:
    """Return the environment variables without those of this package, and with some more."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEKSHER_")} | more
