"""The command `demo`, and the installation of the command line."""

import multiprocessing
import signal
import subprocess
import sys
import threading

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from heksher_client import __version__, demo
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of
from heksher_client.cli import main
from heksher_client.demo import shop
from heksher_client.demo.workers import run_thread_worker, run_thread_worker_process
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.commands import COMMAND, environment
from tests.support.service import CannedResponse, RecordedRequest, WatchedService


@pytest.fixture
def _shop_settings() -> None:
    for setting in shop.SETTINGS:
        registry.add(entry_of(setting))


def test_the_demo_prints_values_reasons_and_changes_as_plain_text_and_deletes_its_settings() -> None:
    """Outside a terminal, it exits with status 0 and prints no escape codes. Proxies in the environment do not matter.

    Only the context features that the service lacked remain.
    """
    with WatchedService(("environment", "user")) as service:
        service.declare("theirs", "int", 1, ["user"])
        variables = environment(HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9", NO_PROXY="")
        result = subprocess.run(
            [*COMMAND, "demo", "--url", service.url], capture_output=True, text=True, check=False, env=variables
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [s["name"] for s in service.call("GET", "/api/v1/settings").json()["settings"]] == ["theirs"]
        features = service.call("GET", "/api/v1/context_features").json()["context_features"]
        assert features == ["environment", "user", "theme"]
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert "53 rules on 10 settings" in result.stdout
    assert "rule 6: environment prod" in result.stdout
    assert result.stdout.count("asyncio worker after") == result.stdout.count("thread worker after") == 4


def test_the_demo_does_not_change_existing_settings(service: WatchedService) -> None:
    """If the service has settings with the same names, the demo exits with an error."""
    service.declare("shop.cache_size", "int", 100, ["environment", "user"])
    service.add_rule("shop.cache_size", 1, user="jim")
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, "shop.cache_size" in result.output) == (1, True)
    assert service.call("GET", "/api/v1/rules/1").json()["value"] == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://jim:secret@127.0.0.1:9"])
def test_an_unusable_service_is_reported_in_one_line(url: str) -> None:
    """The command exits with status 1, and shows neither a traceback nor a password."""
    result = CliRunner().invoke(main, ["demo", "--url", url])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the service cannot be used: ")
    assert result.output.count("\n") == 1
    assert "secret" not in result.output


@pytest.mark.parametrize(
    "response",
    [CannedResponse(200, b"<html>please sign in"), CannedResponse.of({}), CannedResponse.of([]), CannedResponse(404)],
)
def test_a_server_that_is_not_a_heksher_service_is_reported_in_one_line(
    service: WatchedService, response: CannedResponse
) -> None:
    """For example a sign-in page."""
    service.intercept = lambda request: response
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("Error: ")


def test_a_refused_request_is_reported_in_one_line(service: WatchedService) -> None:
    """The message contains the response of the service."""
    service.respond_with("POST /api/v1/settings/declare", CannedResponse(422, b"not today"))
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert (result.exit_code, "not today" in result.output) == (1, True)


@pytest.mark.usefixtures("_shop_settings")
def test_a_change_that_is_not_read_in_time_is_an_error(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo does not wait forever, and ends its process. In this test it does not wait at all."""
    monkeypatch.setattr("heksher_client.demo._TIMEOUT", 0.0)
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "did not read" in result.output
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("_shop_settings")
def test_a_worker_that_ends_early_is_an_error(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the thread worker may be killed, for example."""
    # A function of three arguments that ends immediately, and is not in a module that the process would have to import.
    monkeypatch.setattr("heksher_client.demo.run_thread_worker_process", slice)
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "the thread worker ended early" in result.output


@pytest.mark.slow
@pytest.mark.usefixtures("_shop_settings")
def test_a_service_that_fails_while_the_workers_run_is_an_error(service: WatchedService) -> None:
    """The message contains the error of the client."""

    def fail(request: RecordedRequest) -> CannedResponse | None:
        return CannedResponse(503, b"overloaded") if str(request) == "GET /api/v1/query" else None

    service.intercept = fail
    result = CliRunner().invoke(main, ["demo", "--url", service.url])
    assert result.exit_code == 1
    assert "overloaded" in result.output


def test_the_command_has_the_options_version_and_help() -> None:
    """The help lists the commands."""
    assert CliRunner().invoke(main, ["--version"]).output == f"heksher-client, version {__version__}\n"
    assert "demo" in CliRunner().invoke(main, ["-h"]).output


def test_the_thread_worker_sends_new_values_and_ends_on_a_message(service: WatchedService) -> None:
    """The demo runs it in a process; this test runs it in a thread."""
    for setting in shop.SETTINGS:
        registry.add(entry_of(setting))
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=run_thread_worker, args=(service.url, shop.CONTEXT_FEATURES, theirs))
    thread.start()
    received = {ours.recv() for _ in range(len(shop.SETTINGS) * len(shop.VISITORS))}
    ours.send("stop")
    reads = ours.recv()
    thread.join()
    ours.close()
    assert ("guest, light", "shop.cache_size", "100") in received
    assert reads >= len(received) == 30


def test_an_error_of_the_demo_is_one_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits with status 1 and the message."""

    def fail(url: str | None, console: object) -> None:
        raise demo.DemoError(f"{url} cannot be used")

    monkeypatch.setattr(demo, "run", fail)
    result = CliRunner().invoke(main, ["demo", "--url", "http://127.0.0.1:9"])
    assert (result.exit_code, result.output) == (1, "Error: http://127.0.0.1:9 cannot be used\n")


def test_the_demo_uses_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width for output outside a terminal does not apply."""
    consoles: list[Console] = []
    monkeypatch.setattr("heksher_client.demo.run", lambda url, console: consoles.append(console))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "77")
    assert CliRunner().invoke(main, ["demo"]).exit_code == 0
    assert consoles[0].width == 77


def test_the_demo_starts_a_service_if_no_url_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service runs during the demo, and has the context features of the shop."""
    features: list[list[str]] = []

    async def run_on(url: str, _: Console) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as http:
            features.append((await http.get("/api/v1/context_features")).json()["context_features"])

    monkeypatch.setattr("heksher_client.demo._run_on", run_on)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 0
    assert result.output.startswith("Started a local Heksher service at http://127.0.0.1:")
    assert features == [["environment", "user", "theme"]]


@pytest.mark.usefixtures("_shop_settings")
def test_the_thread_worker_ends_if_the_connection_is_closed(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a killed demo leaves no process behind. The process ignores Ctrl-C, because the demo sends it a message."""
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
def test_an_import_without_its_extra_names_the_extra(module: str, missing: str) -> None:
    """The message contains the command that installs it."""
    code = f"import sys; sys.modules[{missing!r}] = None; import {module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'heksher_client[" in result.stderr


def test_the_demo_reports_missing_packages_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `service` may not be installed."""
    monkeypatch.delattr("heksher_client.demo")
    monkeypatch.setitem(sys.modules, "heksher_client.demo", None)
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.output.startswith("Error: ")) == (1, True)
