"""The command `heksher-client`, as a user runs it."""

import multiprocessing
import subprocess
import sys
import threading
import time

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from heksher_client import __version__
from heksher_client._core.registry import registry
from heksher_client.cli import main
from heksher_client.demo import shop
from heksher_client.demo.workers import run_thread_worker
from tests.support.service import Answer, Asked, WatchedService


@pytest.fixture
def _the_shops_settings() -> None:
    for setting in shop.SETTINGS:
        registry.add(setting)


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


@pytest.mark.usefixtures("_the_shops_settings")
def test_the_demo_can_be_run_on_what_a_former_run_left(service: WatchedService) -> None:
    """Rules that are there already are set to the demo's values, and settings that were there stay."""
    service.declare("shop.cache_size", "int", 100, ["environment", "user"])
    service.add_rule("shop.cache_size", 1, user="jim")
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 0, result.output
    assert [s["name"] for s in service.call("GET", "/api/v1/settings").json()["settings"]] == ["shop.cache_size"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense"])
def test_a_service_that_cannot_be_used_is_an_error_in_one_line(url: str) -> None:
    """With status 1, and no traceback."""
    result = CliRunner().invoke(main, ["demo", "--url", url])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the service at ")
    assert result.output.count("\n") == 1


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


@pytest.mark.usefixtures("_the_shops_settings")
def test_a_worker_that_ends_early_is_an_error(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two it is."""
    monkeypatch.setattr("heksher_client.demo.run_thread_worker", _ends_at_once)
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "the thread worker ended early" in result.output


def _ends_at_once(url: str, connection: object) -> None:
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
        registry.add(setting)
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=run_thread_worker, args=(service.url, theirs))
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
