"""`watch`, and the commands on a terminal: a process whose screen the tests read."""

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pexpect
import pyte
import pytest
from rich.console import Console

from heksher_client import ThreadHeksherClient
from heksher_client._drivers.admin import AdminClient
from heksher_client.cli.watch import _Watching
from tests.support.clients import PATIENCE, eventually
from tests.support.commands import COMMAND, FEATURES, Run
from tests.support.service import Answer, WatchedService


class Watcher:
    """A process whose lines come as they are printed."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "watch", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, "PYTHONUNBUFFERED": "1"}, cwd=cwd,
        )  # fmt: skip
        self.out = self._read(self.process.stdout)
        self.err = self._read(self.process.stderr)

    def _read(self, stream: Any) -> "SimpleQueue[str]":
        lines: SimpleQueue[str] = SimpleQueue()

        def read() -> None:
            for line in stream:
                lines.put(line.rstrip())

        Thread(target=read, daemon=True).start()
        return lines

    def line(self) -> str:
        return self.out.get(timeout=PATIENCE)

    def note(self) -> str:
        return self.err.get(timeout=PATIENCE)


@contextmanager
def watching(*arguments: str, env: dict[str, str], cwd: Path) -> Iterator[Watcher]:
    watcher = Watcher(*arguments, env=env, cwd=cwd)
    try:
        assert watcher.note().startswith("Watching 2 settings of ")
        yield watcher
    finally:
        watcher.process.kill()
        watcher.process.wait()
        for stream in (watcher.process.stdout, watcher.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.usefixtures("run")
def test_changes_are_shown_as_they_are_made(shop: WatchedService, surroundings: dict[str, str], tmp_path: Path) -> None:
    """Long before the interval is over, where the service tells of them; only those that were asked for."""
    with watching("shop*", "--interval", "3600", env=surroundings, cwd=tmp_path) as watcher:
        assert eventually(lambda: bool(shop.questions("GET /api/v1/changes")))
        shop.add_rule("cache_size", 7, user="ann")
        shop.add_rule("shop.color", "blue", user="ann")
        assert watcher.line()[9:] == "+ shop.color rule user=ann: blue"
        shop.call("PUT", "/api/v1/settings/shop.color/name", {"name": "color", "version": "1.1"})
        assert watcher.line()[9:] == "~ color name shop.color -> color"
        watcher.process.send_signal(signal.SIGINT)
        assert watcher.process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("run")
def test_changes_are_found_at_intervals_and_go_on_after_an_outage(
    shop: WatchedService, surroundings: dict[str, str], tmp_path: Path
) -> None:
    """Where the service does not tell of them: in lines of JSON, and so many that the last one is its end."""
    shop.offers_changes = False
    with watching("--json", "--interval", "0.1", "--count", "2", env=surroundings, cwd=tmp_path) as watcher:
        shop.call("PUT", "/api/v1/rules/2/value", {"value": 101})
        told = json.loads(watcher.line())
        assert (told["setting"], told["kind"], told["before"], told["after"]) == ("cache_size", "changed", 100, 101)
        shop.answering("GET /api/v1/context_features", Answer(503), times=2)
        assert "asking again every 0.1 seconds" in watcher.note()
        assert watcher.note() == "The service answers again."
        shop.add_rule("shop.color", "blue", user="ann")
        assert json.loads(watcher.line())["setting"] is not None
        assert watcher.process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("run")
def test_a_watch_that_is_not_allowed_any_more_ends(
    shop: WatchedService, surroundings: dict[str, str], tmp_path: Path
) -> None:
    """With the status for that: no waiting mends it."""
    shop.offers_changes = False
    with watching("--interval", "0.1", env=surroundings, cwd=tmp_path) as watcher:
        shop.answering("GET /api/v1/context_features", Answer(401, b"who are you?"))
        assert watcher.process.wait(PATIENCE) == 4
        assert "who are you?" in watcher.note()


def test_an_interrupt_that_is_lost_ends_a_watch_all_the_same(shop: WatchedService) -> None:
    """As an exception is lost that is raised in what the interpreter does by itself."""
    client = ThreadHeksherClient(shop.url, 60, FEATURES)
    watching = _Watching(AdminClient(client), 3600)
    changes = iter(watching)
    former = signal.getsignal(signal.SIGINT)
    try:
        with suppress(KeyboardInterrupt):
            watching._interrupt(signal.SIGINT, None)
        assert list(changes) == []
    finally:
        signal.signal(signal.SIGINT, former)
        client.close()


class Terminal:
    """A terminal emulator in which a command runs."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path) -> None:
        self.screen = pyte.Screen(100, 30)
        self._stream = pyte.ByteStream(self.screen)
        self.command: pexpect.spawn[bytes] = pexpect.spawn(
            COMMAND[0], [*COMMAND[1:], *arguments], dimensions=(30, 100), cwd=str(cwd), timeout=PATIENCE,
            env={**env, "TERM": "xterm-256color"},
        )  # fmt: skip

    def ended(self) -> int:
        self._stream.feed(self.command.read())
        self.command.close()
        return -1 if self.command.exitstatus is None else self.command.exitstatus

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def is_styled(self, line: int) -> bool:
        cells = self.screen.buffer[line]
        return any(cells[column].bold or cells[column].fg != "default" for column in range(20))


def draw(env: dict[str, str], cwd: Path) -> None:
    """The documentation's picture: `SCREENSHOTS=docs/images pytest tests/cli/test_watching.py -k wraps`."""
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    commands = ["rules cache_size", "get cache_size user=jim --why", "settings", "diff empty.json shop"]
    (cwd / "empty.json").write_text('{"heksher": 1, "context_features": ["environment", "user"], "settings": []}')
    for command in commands:
        terminal = Terminal(*command.split(), env=env, cwd=cwd)
        terminal.ended()
        console.print(f"[bold]$ heksher-client {command}[/]", highlight=False)
        for number, line in enumerate(terminal.screen.display[: len(terminal.lines)]):
            cell = terminal.screen.buffer[number][0]
            style = " ".join(filter(None, ["bold" if cell.bold else "", "" if cell.fg == "default" else cell.fg]))
            console.print(line.rstrip(), style=style or None, highlight=False, markup=False)
        console.print()
    console.save_svg(str(Path(os.environ["SCREENSHOTS"]).resolve() / "commands.svg"), title="heksher-client")


@pytest.mark.usefixtures("run")
def test_a_terminal_shows_tables_with_styles_and_wraps_in_its_width(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    """The progress that it showed meanwhile is gone at the end."""
    env = {name: value for name, value in surroundings.items() if name not in ("NO_COLOR", "COLUMNS")}
    terminal = Terminal("rules", "cache_size", env=env, cwd=tmp_path)
    assert terminal.ended() == 0
    assert terminal.lines[:2] == ["rule     environment  user  value", "1        prod         jim   200"]
    assert terminal.is_styled(0)
    if "SCREENSHOTS" in os.environ:
        draw(env, tmp_path)
    status = Terminal("status", env=env, cwd=tmp_path)
    assert status.ended() == 0
    assert status.lines[0].startswith("service ")
    assert not any("Asking" in line for line in status.lines)


@pytest.mark.usefixtures("run")
def test_colours_are_left_out_where_no_color_is_set(surroundings: dict[str, str], tmp_path: Path) -> None:
    """On a terminal that has them."""
    document = {"heksher": 1, "context_features": [], "settings": []}
    (tmp_path / "empty.json").write_text(json.dumps(document))
    env = {name: value for name, value in surroundings.items() if name not in ("NO_COLOR", "COLUMNS")}
    colourful = Terminal("diff", "empty.json", "shop", env=env, cwd=tmp_path)
    assert colourful.ended() == 5
    assert colourful.is_styled(1)
    plain = Terminal("diff", "empty.json", "shop", env={**env, "NO_COLOR": "1"}, cwd=tmp_path)
    assert plain.ended() == 5
    assert plain.lines == colourful.lines
    assert not any(plain.screen.buffer[1][column].fg != "default" for column in range(20))


def test_ctrl_c_on_a_terminal_ends_a_watch_in_order(run: Run, surroundings: dict[str, str], tmp_path: Path) -> None:
    """With status 0, and without a traceback."""
    terminal = Terminal("watch", env=surroundings, cwd=tmp_path)
    terminal.command.expect("Watching 2 settings")
    terminal.command.sendintr()
    assert terminal.ended() == 0
    assert not any("Traceback" in line or "Abort" in line for line in terminal.lines)
