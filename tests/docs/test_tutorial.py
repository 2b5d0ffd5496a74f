"""The tutorial and the first page, followed literally: each command prints the output that the page shows."""

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.clients import TIMEOUT_SECONDS, eventually
from tests.support.commands import COMMAND, environment, interruptible, run_in_process, run_script_in_process
from tests.support.ports import reserved_port

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

DOCS = Path(__file__).parents[2] / "docs"
DEFAULT_PORT = "9999"
SERVE = "heksher-client serve --feature environment --feature user"
SETUP = {
    "python3 -m venv .venv", ". .venv/bin/activate", 'pip install -e ".[cli,service]"', "mkdir tutorial", "cd tutorial",
    ". ../.venv/bin/activate", f"export HEKSHER_URL=http://127.0.0.1:{DEFAULT_PORT}",
}  # fmt: skip
"""The commands for which the environment of the tests stands in."""


class Block(NamedTuple):
    """A fenced block: commands, their output, or new output of the program in the third terminal."""

    kind: str
    lines: list[str]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order, except the programs."""
    text = (DOCS / page).read_text()
    pattern = r"^```(sh|text|\{code-block\} text\n:caption: Third terminal)\n(.*?)^```$"
    kinds = {"sh": "commands", "text": "output"}
    return [
        Block(kinds.get(kind, "program"), body.splitlines())
        for kind, body in re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def matches(shown: str, printed: str) -> bool:
    """True if a printed line is the shown one. `...` stands for any text, and numbers in log records vary."""
    pattern = ".*".join(map(re.escape, shown.split("...")))
    if shown.startswith(("INFO ", "ERROR ")):
        pattern = re.sub(r"\d+", r"\\d+", pattern)
    return re.fullmatch(pattern, printed.rstrip()) is not None


def all_match(shown: list[str], printed: list[str]) -> bool:
    return len(shown) == len(printed) and all(map(matches, shown, printed))


class Terminals:
    """The three terminals of the tutorial: the service, commands, and the program."""

    def __init__(self, folder: Path, port: int, suffix: str) -> None:
        self._folder = folder
        self._port = str(port)
        self.url = f"http://127.0.0.1:{port}"
        self._env = environment(HEKSHER_URL=self.url, HOME=str(folder), PYTHONUNBUFFERED="1")
        for name, example in (("read.py", f"first_{suffix}.py"), ("watch.py", f"tutorial_{suffix}.py")):
            shutil.copy(DOCS / "examples" / example, folder / name)
        self._screens = {name: folder / f"{name}.txt" for name in ("service", "program")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: list[str] = []

    def type(self, command: str) -> list[str]:
        """Run a command, and return the lines that it printed. The service and `watch.py` continue to run."""
        if command in SETUP:
            return []
        if command == SERVE:
            self._start("service", [*COMMAND, *command.split()[1:], "--port", self._port])
            assert eventually(lambda: "startup complete" in _errors(self._screens["service"]).read_text())
            return self._screens["service"].read_text().replace(self._port, DEFAULT_PORT).splitlines()[:1]
        if command == "python watch.py":
            self._start("program", [sys.executable, "watch.py"])
            return []
        program, *arguments = command.split()
        if program == "python":
            outcome = run_script_in_process(self._folder / arguments[0], self._env, self._folder)
        else:
            assert program == "heksher-client", command
            outcome = run_in_process(arguments, self._env, self._folder)
        assert (outcome.status, outcome.err) == (0, ""), command
        return outcome.out.replace(self._port, DEFAULT_PORT).splitlines()

    def check_program(self, shown: list[str]) -> None:
        """Wait until the program has printed the shown lines. The page leaves out some of the records of an outage."""

        def is_complete() -> bool:
            printed = Counter(self._program_lines()) - Counter(self._seen)
            return all(any(matches(line, other) for other in printed) for line in shown)

        assert eventually(is_complete), (shown, self._program_lines())
        self._seen = self._program_lines()

    def values(self) -> list[str]:
        """Return the values that the program has printed."""
        return [line for line in self._program_lines() if line.isdecimal()]

    def interrupt(self, name: str) -> int:
        """Press Ctrl-C in a terminal, and return the exit status."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGINT)
        return process.wait(TIMEOUT_SECONDS)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _program_lines(self) -> list[str]:
        screen = self._screens["program"]
        return [line for file in (screen, _errors(screen)) for line in file.read_text().splitlines()]

    def _start(self, name: str, command: list[str]) -> None:
        screen = self._screens[name]
        # In one file, a record might be between a value and the end of its line, which Python writes separately.
        with screen.open("w") as out, _errors(screen).open("w") as err:
            self._processes[name] = subprocess.Popen(
                interruptible(command), stdout=out, stderr=err, env=self._env, cwd=self._folder
            )


def _errors(screen: Path) -> Path:
    return screen.with_suffix(".err")


@contextmanager
def terminals(folder: Path, suffix: str) -> Iterator[Terminals]:
    with reserved_port() as port:
        opened = Terminals(folder, port, suffix)
        try:
            yield opened
        finally:
            opened.close()


def follow(page: str, opened: Terminals) -> None:
    """Run all commands of a page, and compare their output, and that of the program in the third terminal."""
    printed: list[str] = []
    shown = blocks(page)
    for block, following in zip(shown, [*shown[1:], None], strict=True):
        if block.kind == "commands":
            if "heksher-client rules remove cache_size environment=prod" in block.lines:
                assert opened.interrupt("program") != 0  # of a `KeyboardInterrupt`
            printed = [line for command in block.lines for line in opened.type(command)]
            has_output = following is not None and following.kind == "output"
            assert has_output or not printed or block.lines == [SERVE], block
        elif block.kind == "output":
            assert all_match(block.lines, printed), (block, printed)
        else:
            if block.lines[0].startswith("INFO the stream of changes has ended"):
                opened.interrupt("service")
            opened.check_program(block.lines)


def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    """All commands and both programs print what the page shows, also while the service is stopped and restarted.

    A test of the guides does the same with threads.
    """
    with terminals(tmp_path, "async") as opened:
        follow("tutorial.md", opened)
        assert opened.values() == ["200", "50", "200"]
        assert opened.type("heksher-client rules cache_size")[1:] == ["default  *            *     10   "]
        assert opened.interrupt("service") == 0


def test_the_first_page_works_as_written(tmp_path: Path) -> None:
    """The program of the first page prints the value of the rule once that is added."""
    with terminals(tmp_path, "thread") as opened:
        follow("index.md", opened)
