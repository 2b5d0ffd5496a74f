"""The command `watch`, and commands on a terminal."""

import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pexpect
import pyte
import pytest
from rich.console import Console

from heksher_client._core.refresh.administration import Administration
from heksher_client._core.refresh.change_stream import ChangeStream
from heksher_client._core.refresh.effects import Flow, NoResponse, OpenStream, Pause
from heksher_client._core.refresh.positions import Position
from heksher_client.cli.command_client import CommandClient
from heksher_client.cli.watch import _Watcher
from heksher_client.exceptions import ServiceUnavailableError
from tests.support.clients import TIMEOUT_SECONDS, ThreadClient, eventually
from tests.support.commands import COMMAND, FEATURES, interruptible
from tests.support.forks import fork_warning_ignored
from tests.support.service import CannedResponse, WatchedService

IMAGES = Path(__file__).parents[2] / "docs" / "images"


class WatchProcess:
    """A process that runs `watch`. Its lines can be read as they are printed."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            interruptible([*COMMAND, "watch", *arguments]),
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
        return self.out.get(timeout=TIMEOUT_SECONDS)

    def error_line(self) -> str:
        return self.err.get(timeout=TIMEOUT_SECONDS)


@contextmanager
def watching(*arguments: str, env: dict[str, str], cwd: Path) -> Iterator[WatchProcess]:
    watcher = WatchProcess(*arguments, env=env, cwd=cwd)
    try:
        assert watcher.error_line().startswith("Watching 2 settings of ")
        yield watcher
    finally:
        watcher.process.kill()
        watcher.process.wait()
        for stream in (watcher.process.stdout, watcher.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.usefixtures("profile")
def test_pushed_changes_are_shown_immediately(
    shop: WatchedService, command_environment: dict[str, str], tmp_path: Path
) -> None:
    """If the service offers a change stream, `watch` does not wait for its interval. The pattern limits the output."""
    with watching("shop*", "--interval", "3600", env=command_environment, cwd=tmp_path) as watcher:
        assert eventually(lambda: bool(shop.requests_to("GET /api/v1/changes")))
        shop.add_rule("cache_size", 7, user="ann")
        shop.add_rule("shop.color", "blue", user="ann")
        assert watcher.line()[9:] == "+ shop.color rule user=ann: blue"
        shop.call("PUT", "/api/v1/settings/shop.color/name", {"name": "color", "version": "1.1"})
        assert watcher.line()[9:] == "~ color name shop.color -> color"
        watcher.process.send_signal(signal.SIGINT)
        assert watcher.process.wait(TIMEOUT_SECONDS) == 0


@pytest.mark.usefixtures("profile")
def test_without_a_change_stream_watch_polls_and_survives_an_outage(
    shop: WatchedService, command_environment: dict[str, str], tmp_path: Path
) -> None:
    """With `--json`, each change is one line. With `--count`, the command exits after the last one."""
    shop.offers_changes = False
    with watching("--json", "--interval", "0.1", "--count", "2", env=command_environment, cwd=tmp_path) as watcher:
        shop.call("PUT", "/api/v1/rules/2/value", {"value": 101})
        change = json.loads(watcher.line())
        assert (change["setting"], change["kind"], change["before"], change["after"]) == (
            "cache_size",
            "changed",
            100,
            101,
        )
        shop.respond_with("GET /api/v1/context_features", CannedResponse(503), times=2)
        assert "retrying every 0.1 seconds" in watcher.error_line()
        assert watcher.error_line() == "The service is available again."
        shop.add_rule("shop.color", "blue", user="ann")
        assert json.loads(watcher.line())["setting"] is not None
        assert watcher.process.wait(TIMEOUT_SECONDS) == 0


@pytest.mark.usefixtures("profile")
def test_watch_exits_if_its_credentials_are_refused(
    shop: WatchedService, command_environment: dict[str, str], tmp_path: Path
) -> None:
    """With status 4: another attempt would fail as well."""
    shop.offers_changes = False
    with watching("--interval", "0.1", env=command_environment, cwd=tmp_path) as watcher:
        shop.respond_with("GET /api/v1/context_features", CannedResponse(401, b"who are you?"))
        assert watcher.process.wait(TIMEOUT_SECONDS) == 4
        assert "requires a token (401)" in watcher.error_line()


@pytest.mark.parametrize(("renames", "listings"), [(1, 2), (4, 5), (10, 5)])
def test_l18_a_setting_that_is_renamed_while_the_state_is_read(
    shop: WatchedService, monkeypatch: pytest.MonkeyPatch, renames: int, listings: int
) -> None:
    """The settings are listed again, up to five times. A setting never seems to be removed."""
    names = ["shop.color", *(f"color{i}" for i in range(renames))]
    query = Administration._query

    def rename_and_query(administration: Administration, requested: Sequence[str]) -> Flow[Any]:
        if len(names) > 1:
            version = f"1.{renames + 2 - len(names)}"
            shop.call("PUT", f"/api/v1/settings/{names.pop(0)}/name", {"name": names[0], "version": version})
        return query(administration, requested)

    monkeypatch.setattr(Administration, "_query", rename_and_query)
    with ThreadClient(shop.url, 60, FEATURES) as client:
        if renames < listings:
            assert set(CommandClient(client).service_state().settings) == {"cache_size", f"color{renames - 1}"}
        else:
            with pytest.raises(ServiceUnavailableError, match="5 times in a row; try again later"):
                CommandClient(client).service_state()
    assert len(shop.requests_to("GET /api/v1/settings")) == listings


def test_watch_ends_if_the_exception_of_an_interrupt_is_lost(shop: WatchedService) -> None:
    """The interpreter discards exceptions that are raised inside finalizers, for example."""
    client = ThreadClient(shop.url, 60, FEATURES)
    watcher = _Watcher(CommandClient(client), 3600)
    changes = iter(watcher)
    former = signal.getsignal(signal.SIGINT)
    try:
        with suppress(KeyboardInterrupt):
            watcher._interrupt(signal.SIGINT, None)
        assert list(changes) == []
    finally:
        signal.signal(signal.SIGINT, former)
        client.close()


def test_a_poll_that_failed_is_repeated_after_the_interval(
    shop: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the change stream is open, which otherwise saves polls."""
    with ThreadClient(shop.url, 60, FEATURES) as client:
        watcher = _Watcher(CommandClient(client), 2)
        monkeypatch.setattr(ChangeStream, "is_connected", True)
        assert watcher._seconds_to_wait == 60
        watcher._is_unavailable = True
        assert watcher._seconds_to_wait == 2


def test_the_change_stream_is_not_opened_again_after_the_client_was_closed(shop: WatchedService) -> None:
    client = ThreadClient(shop.url, 60, FEATURES)
    watcher = _Watcher(CommandClient(client), 3600)
    watcher._stream.record_position(Position("", 0, 1), ())
    flow = watcher._follow()
    assert isinstance(next(flow), OpenStream)
    assert isinstance(flow.send(NoResponse(ConnectionError())), Pause)
    assert isinstance(flow.send(None), OpenStream)
    client.close()
    with pytest.raises(StopIteration):
        flow.send(NoResponse(ConnectionError()))


class Terminal:
    """A terminal emulator that runs a command."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path) -> None:
        self.screen = pyte.Screen(100, 30)
        self._stream = pyte.ByteStream(self.screen)
        program, *args = interruptible([*COMMAND, *arguments])
        with fork_warning_ignored():
            self.command: pexpect.spawn[bytes] = pexpect.spawn(
                program, args, dimensions=(30, 100), cwd=str(cwd), timeout=TIMEOUT_SECONDS,
                env={**env, "TERM": "xterm-256color"},
            )  # fmt: skip

    def wait(self) -> int:
        self._stream.feed(self.command.read())
        self.command.close()
        return -1 if self.command.exitstatus is None else self.command.exitstatus

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def is_styled(self, line: int) -> bool:
        cells = self.screen.buffer[line]
        return any(cells[column].bold or cells[column].fg != "default" for column in range(20))


@pytest.mark.usefixtures("profile")
def test_a_terminal_shows_tables_with_styles(command_environment: dict[str, str], tmp_path: Path) -> None:
    """Lines wrap at the width of the terminal. A progress bar is erased at the end."""
    env = {name: value for name, value in command_environment.items() if name not in ("NO_COLOR", "COLUMNS")}
    terminal = Terminal("rules", "cache_size", env=env, cwd=tmp_path)
    assert terminal.wait() == 0
    assert terminal.lines[:2] == ["rule     environment  user  value", "1        prod         jim   200"]
    assert terminal.is_styled(0)
    status = Terminal("status", env=env, cwd=tmp_path)
    assert status.wait() == 0
    assert status.lines[0].startswith("service ")
    assert not any("Fetching" in line for line in status.lines)


@pytest.mark.slow
@pytest.mark.usefixtures("profile")
def test_no_color_disables_colors(command_environment: dict[str, str], tmp_path: Path) -> None:
    """On a terminal that supports them."""
    document = {"heksher": 1, "context_features": [], "settings": []}
    (tmp_path / "empty.json").write_text(json.dumps(document))
    env = {name: value for name, value in command_environment.items() if name not in ("NO_COLOR", "COLUMNS")}
    colored = Terminal("diff", "empty.json", "shop", env=env, cwd=tmp_path)
    assert colored.wait() == 5
    assert colored.is_styled(1)
    plain = Terminal("diff", "empty.json", "shop", env={**env, "NO_COLOR": "1"}, cwd=tmp_path)
    assert plain.wait() == 5
    assert plain.lines == colored.lines
    assert not any(plain.screen.buffer[1][column].fg != "default" for column in range(20))


@pytest.mark.usefixtures("profile")
def test_ctrl_c_ends_watch_gracefully(command_environment: dict[str, str], tmp_path: Path) -> None:
    """With status 0, and without a traceback."""
    terminal = Terminal("watch", env=command_environment, cwd=tmp_path)
    terminal.command.expect("Watching 2 settings")
    terminal.command.sendintr()
    assert terminal.wait() == 0
    assert not any("Traceback" in line or "Abort" in line for line in terminal.lines)


@pytest.mark.slow
@pytest.mark.usefixtures("profile")
def test_the_picture_of_the_commands_shows_their_present_output(
    command_environment: dict[str, str], tmp_path: Path
) -> None:
    """If it has changed, draw it again: `SCREENSHOTS=docs/images pytest -m slow tests/cli/test_watch.py -k picture`."""
    env = {name: value for name, value in command_environment.items() if name not in ("NO_COLOR", "COLUMNS")}
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    commands = ["rules cache_size", "get cache_size user=jim --why", "settings", "diff empty.json shop"]
    (tmp_path / "empty.json").write_text('{"heksher": 1, "context_features": ["environment", "user"], "settings": []}')
    for command in commands:
        terminal = Terminal(*command.split(), env=env, cwd=tmp_path)
        terminal.wait()
        console.print(f"[bold]$ heksher-client {command}[/]", highlight=False)
        for number, line in enumerate(terminal.screen.display[: len(terminal.lines)]):
            cell = terminal.screen.buffer[number][0]
            style = " ".join(filter(None, ["bold" if cell.bold else "", "" if cell.fg == "default" else cell.fg]))
            console.print(line.rstrip(), style=style or None, highlight=False, markup=False)
        console.print()
    drawn = console.export_svg(title="heksher-client")
    if folder := os.environ.get("SCREENSHOTS"):
        (Path(folder).resolve() / "commands.svg").write_text(drawn)
    assert texts_of(drawn) == texts_of((IMAGES / "commands.svg").read_text())


def texts_of(drawing: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
