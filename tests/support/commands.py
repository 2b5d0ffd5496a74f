"""Commands: in this process, or in a separate one if a test is about processes, signals, pipes or terminals."""

import io
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heksher_client.cli import main
from tests.support.clients import TIMEOUT_SECONDS

FEATURES = ("environment", "user")
COMMAND = [str(Path(sys.executable).with_name("heksher-client"))]
_RUN_WITH_DEFAULT_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
_DEFAULT_ENCODING = "utf-8"


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


def run_in_process(arguments: Sequence[str], variables: Mapping[str, str], directory: Path) -> Outcome:
    """Run `heksher-client` in this process, with the environment, directory, streams and log of a separate one.

    A separate process takes half a second of CPU time to import the package.

    Args:
        arguments: The arguments of the command. Its standard input is empty.
        variables: All environment variables. `PYTHONIOENCODING` applies.
        directory: The working directory.
    """
    return _isolated(lambda: main(list(arguments), prog_name="heksher-client"), variables, directory)


def run_script_in_process(path: Path, variables: Mapping[str, str], directory: Path) -> Outcome:
    """Run a Python script in this process, as `run_in_process` runs a command."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(path)])
            runpy.run_path(str(path), run_name="__main__")

    return _isolated(run, variables, directory)


def _isolated(run: Callable[[], object], variables: Mapping[str, str], directory: Path) -> Outcome:
    encoding = variables.get("PYTHONIOENCODING", _DEFAULT_ENCODING)
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        patch.chdir(directory)
        with _environment_of(variables), _warnings_on_stderr():
            try:
                run()
                status: object = 0
            except SystemExit as exit_:
                status = exit_.code or 0
    assert isinstance(status, int), status
    return Outcome(status, *map(_content, (stdout, stderr)))


@contextmanager
def _environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    former = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(former)


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print warnings of the client as in a process that has not configured its log. The service has another process."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: not record.name.startswith("heksher_client.service"))
    logger = logging.getLogger("heksher_client")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _content(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(stream.encoding)


def run_process(arguments: Sequence[str], variables: Mapping[str, str], directory: Path) -> Outcome:
    """Run `heksher-client` in a separate process. The arguments are those of `run_in_process`."""
    return run_program([*COMMAND, *arguments], variables, directory)


def run_program(command: Sequence[str], variables: Mapping[str, str], directory: Path) -> Outcome:
    """Run any command in a separate process."""
    completed = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding=_DEFAULT_ENCODING,
        timeout=TIMEOUT_SECONDS, check=False, env=dict(variables), cwd=directory,
    )  # fmt: skip
    return Outcome(completed.returncode, completed.stdout, completed.stderr)


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
    """Return the environment variables without those of this package, and with some more.

    Commands and clients of profiles wait for responses as long as the tests do.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("HEKSHER_")}
    timeouts = dict.fromkeys(["HEKSHER_TIMEOUT", "HEKSHER_REQUEST_TIMEOUT"], str(TIMEOUT_SECONDS))
    return others | timeouts | more
