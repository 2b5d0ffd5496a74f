"""The command `heksher-client`, as a user runs it."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from heksher_client import __version__
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from heksher_client.cli import main
from heksher_client.demo import shop
from heksher_client.demo.workers import run_thread_worker, run_thread_worker_process
from tests.support.service import Answer, Asked, WatchedService


@pytest.fixture
def _the_shops_settings() -> None:
    for setting in shop.SETTINGS:
        registry.add(entry_of(setting))


def test_the_demo_shows_values_reasons_and_changes_in_plain_text() -> None:
    """As a process whose output is no terminal: status 0 in under 20 seconds, and no escape codes."""
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", "from heksher_client.cli import main; main()", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert time.monotonic() - started < 20
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert "53 rules on 10 settings" in result.stdout
    assert "rule 6: environment prod" in result.stdout
    assert result.stdout.count("asyncio worker after") == result.stdout.count("thread worker after") == 4


@pytest.mark.usefixtures("_the_shops_settings")
def test_the_demo_leaves_a_service_as_it_was() -> None:
    """On a service that is there already, only the context features that it lacked are left."""
    with WatchedService(("theme", "user")) as service:
        service.declare("theirs", "int", 1, ["user"])
        result = CliRunner().invoke(main, ["demo", "--url", service.url])
        assert result.exit_code == 0, result.output
        assert [s["name"] for s in service.call("GET", "/api/v1/settings").json()["settings"]] == ["theirs"]
        features = service.call("GET", "/api/v1/context_features").json()["context_features"]
        assert features == ["theme", "user", "environment"]


def test_the_demo_changes_no_settings_of_others(service: WatchedService) -> None:
    """Where the service has settings of the shop's names, the demo refuses to run."""
    service.declare("shop.cache_size", "int", 100, ["environment", "user"])
    service.add_rule("shop.cache_size", 1, user="jim")
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, "shop.cache_size" in result.output) == (1, True)
    assert service.call("GET", "/api/v1/rules/1").json()["value"] == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "nonsense", "http://127.0.0.1:99999", "http://jim:secret@127.0.0.1:9"]
)
def test_a_service_that_cannot_be_used_is_an_error_in_one_line(url: str) -> None:
    """With status 1, no traceback, and no password."""
    result = CliRunner().invoke(main, ["demo", "--url", url])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the service cannot be used: ")
    assert result.output.count("\n") == 1
    assert "secret" not in result.output


@pytest.mark.parametrize("answer", [Answer(200, b"<html>please sign in"), Answer.of({}), Answer.of([]), Answer(404)])
def test_what_is_no_heksher_service_is_an_error_in_one_line(service: WatchedService, answer: Answer) -> None:
    """A login page, or anything else that answers."""
    service.intercept = lambda asked: answer
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: ")


def test_a_service_that_refuses_is_an_error_in_one_line(service: WatchedService) -> None:
    """With the service's words."""
    service.answering("POST /api/v1/settings/declare", Answer(422, b"not today"))
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, "not today" in result.output) == (1, True)


@pytest.mark.usefixtures("_the_shops_settings")
def test_a_change_that_does_not_arrive_is_an_error(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo never waits for ever, and leaves no process behind."""
    monkeypatch.setattr("heksher_client.demo._PATIENCE", 0.5)
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "did not get" in result.output
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("_the_shops_settings")
def test_a_worker_that_ends_early_is_an_error(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two it is."""
    monkeypatch.setattr("heksher_client.demo.run_thread_worker_process", _ends_at_once)
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "the thread worker ended early" in result.output


def _ends_at_once(url: str, features: object, connection: object) -> None:
    """A worker that a new process can import."""


@pytest.mark.usefixtures("_the_shops_settings")
def test_a_service_that_fails_under_the_workers_is_an_error(service: WatchedService) -> None:
    """The error of a client is told as such."""

    def fail(asked: Asked) -> Answer | None:
        return Answer(503, b"overloaded") if str(asked) == "GET /api/v1/query" else None

    service.intercept = fail
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "overloaded" in result.output


def test_the_command_says_its_version_and_what_it_can_do() -> None:
    """As commands do."""
    assert CliRunner().invoke(main, ["--version"]).output == f"heksher-client, version {__version__}\n"
    assert "demo" in CliRunner().invoke(main, ["-h"]).output


def test_the_thread_worker_reports_what_it_sees_and_stops_when_told(service: WatchedService) -> None:
    """The part of the demo that runs in a process of its own, here in a thread."""
    for setting in shop.SETTINGS:
        registry.add(entry_of(setting))
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=run_thread_worker, args=(service.url, shop.CONTEXT_FEATURES, theirs))
    thread.start()
    seen = {ours.recv() for _ in range(len(shop.SETTINGS) * len(shop.VISITORS))}
    ours.send("stop")
    reads = ours.recv()
    thread.join()
    ours.close()
    assert ("guest, light", "shop.cache_size", "100") in seen
    assert reads >= len(seen) == 30


def test_a_terminal_is_not_told_how_wide_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo fits the width that there is."""
    consoles: list[Console] = []
    monkeypatch.setattr("heksher_client.demo.run", lambda url, console: consoles.append(console))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "77")
    assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    assert consoles[0].width == 77


def test_the_demo_starts_a_service_of_its_own_unless_it_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers while the demo runs, and with what the shop needs."""
    seen: list[list[str]] = []

    async def show(url: str, _: Console) -> None:
        async with httpx.AsyncClient(base_url=url) as http:
            seen.append((await http.get("/api/v1/context_features")).json()["context_features"])

    monkeypatch.setattr("heksher_client.demo._show", show)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 0
    assert result.output.startswith("A local Heksher service answers at http://127.0.0.1:")
    assert seen == [["environment", "user", "theme"]]


@pytest.mark.usefixtures("_the_shops_settings")
def test_a_thread_worker_whose_listener_is_gone_ends_by_itself(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo that was killed leaves no process behind; and one that is interrupted tells its worker to stop."""
    ignored: list[object] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: ignored.append((number, handler)))
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    run_thread_worker_process(service.url, shop.CONTEXT_FEATURES, theirs)
    assert registry.main is None
    assert ignored == [(signal.SIGINT, signal.SIG_IGN)]


@pytest.mark.parametrize(
    ("module", "missing"),
    [("heksher_client.cli", "click"), ("heksher_client.service", "fastapi"), ("heksher_client.demo", "rich")],
)
def test_without_the_extra_an_import_says_which_one_is_needed(module: str, missing: str) -> None:
    """Not only what is missing."""
    code = f"import sys; sys.modules[{missing!r}] = None; import {module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'heksher_client[" in result.stderr


def test_without_a_service_to_start_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.delattr("heksher_client.demo")
    monkeypatch.setitem(sys.modules, "heksher_client.demo", None)
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)
