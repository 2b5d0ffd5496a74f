"""The service as a process, and the commands that manage it."""

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import httpx
import pytest
from click import ClickException
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from heksher_client import __version__
from heksher_client.cli import main
from heksher_client.cli.database import report_database_errors
from heksher_client.service import LocalService, create_app
from heksher_client.service.console.pages.confirmation import DEFAULT_PREVIEW_ABOVE
from heksher_client.service.server import Server
from tests.support.clients import TIMEOUT_SECONDS, eventually
from tests.support.commands import interruptible
from tests.support.http import http_client, http_request
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

TLS = Path(__file__).parents[1] / "data" / "tls"


class Process:
    """A process that runs `heksher-client serve`."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "heksher_client.cli", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            interruptible(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout.readline()
        found = re.search(r"(https?)://\S+:(\d+)", self.output)
        assert found is not None, self.process.stderr and self.process.stderr.read()
        self.http = http_client(f"{found[1]}://127.0.0.1:{found[2]}", verify=_tls_context())
        assert eventually(self._is_ready)

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return the exit code and the log."""
        self.http.close()
        self.process.send_signal(how)
        _, log = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, log

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/api/ready").status_code == 200
        except httpx.HTTPError:
            return False


def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=TLS / "certificate.pem")


@contextmanager
def served(*options: str) -> Iterator[Process]:
    service = Process(*options)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


EVERYWHERE = "--host=0.0.0.0"
DECLARATION = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}


@pytest.mark.slow
def test_a_command_serves_a_database(tmp_path: Path) -> None:
    """The data survive a restart. The command prints the URL, logs requests, and stops gracefully after `--drain`."""
    database = str(tmp_path / "heksher.db")
    options = ["--feature", "environment", "--feature", "user", "--drain", "0.1"]
    with served("--database", database, *options) as service:
        assert f"Heksher service {__version__} on {database}: http://127.0.0.1:" in service.output
        assert service.http.get("/api/v1/context_features").json() == {"context_features": ["environment", "user"]}
        service.http.post("/api/v1/settings/declare", json=DECLARATION).raise_for_status()
        code, log = service.end()
        assert (code, "Traceback" in log) == (0, False)
        assert re.search(
            r"INFO heksher_client.service.access: 127.0.0.1 - POST /api/v1/settings/declare 200 [\d.]+ ms", log
        )
    with served("--database", database, "--no-access-log", "--feature", "theme") as service:
        assert service.http.get("/api/v1/settings/s").json()["default_value"] == 7
        assert service.http.get("/api/v1/context_features").json()["context_features"][-1] == "theme"
        assert "service.access" not in service.end(signal.SIGINT)[1]


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ([], {}, DEFAULT_PREVIEW_ABOVE),
        ([], {"HEKSHER_PREVIEW_ABOVE": "0"}, 0),
        (["--preview-above", "25"], {"HEKSHER_PREVIEW_ABOVE": "0"}, 25),
    ],
)
def test_the_number_of_rules_without_a_preview_is_an_option(
    monkeypatch: pytest.MonkeyPatch, options: list[str], variables: dict[str, str], expected: int
) -> None:
    """And a variable."""
    given: list[int] = []

    def create(*_: Any, preview_above: int, **__: Any) -> Any:
        given.append(preview_above)
        raise ValueError("not created")

    monkeypatch.setattr("heksher_client.service.create_app", create)
    assert CliRunner().invoke(main, ["serve", *options], env=variables).exit_code == 1
    assert given == [expected]


@pytest.mark.slow
def test_l6_a_service_is_served_below_a_path_prefix(tmp_path: Path) -> None:
    """The printed addresses have it. An invalid one is an error in one line."""
    database = ["--database", str(tmp_path / "s.db")]
    with served(*database, "--root-path", "/heksher/") as service:
        assert re.search(r": (http://127.0.0.1:\d+/heksher) \(console: \1/console, API: \1/docs\)", service.output)
        for path in ("/heksher/api/health", "/api/health", "/heksher/console"):
            assert service.http.get(path).status_code == 200
    code, output = run("serve", *database, "--root-path", "/api")
    assert (code, output) == (1, "Error: '/api' is not a valid root path: /api is a path of the service\n")


def test_a_stopping_service_drains_requests(tmp_path: Path) -> None:
    """It is not ready, but answers requests for a while. Streams end at once. A second Ctrl-C ends it."""
    with served("--database", str(tmp_path / "s.db"), "--drain", "600") as service:
        ended = threading.Event()

        def follow() -> None:
            with service.http.stream("GET", "/api/v1/changes") as response:
                for _ in response.iter_lines():
                    pass
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert eventually(lambda: "heksher_streams 1.0" in service.http.get("/metrics").text)
        service.process.send_signal(signal.SIGINT)
        assert eventually(lambda: service.http.get("/api/ready").status_code == 503)
        assert service.http.get("/api/v1/settings").status_code == 200
        assert ended.wait(TIMEOUT_SECONDS)
        thread.join()
        assert service.end(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ([EVERYWHERE], ["none exists: create one with", "tokens are sent unencrypted"]),
        ([EVERYWHERE, "--no-access-control"], ["anyone who can reach this address can change all settings"]),
        (["--access-control"], ["none exists: create one with"]),
        (["--no-access-control"], []),
    ],
)  # fmt: skip
def test_a_service_warns_about_what_is_not_protected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str], warnings: list[str]
) -> None:
    """When it starts; as long as there is no token, about that as well."""
    monkeypatch.setattr(Server, "serve_on", lambda _server, listener: listener.close())
    database = ["--database", str(tmp_path / "s.db")]
    code, output = run("serve", *database, "--port", "0", *options)
    assert (code, output.count("Warning:")) == (0, len(warnings))
    assert all(warning in output for warning in warnings)
    run("service", "token", "add", "ops", *database)
    assert "none exists" not in run("serve", *database, "--port", "0", *options)[1]


def test_tokens_are_listed_with_their_role_and_their_end(tmp_path: Path) -> None:
    database = ["--database", str(tmp_path / "s.db")]
    run("service", "token", "add", "ops", "--role", "admin", *database)
    run("service", "token", "add", "shop", "--days", "30", *database)
    code, output = run("service", "token", "list", *database)
    lines = output.splitlines()
    assert (code, [line.split()[:2] for line in lines]) == (0, [["ops", "admin"], ["shop", "declare"]])
    assert ["expires" in line for line in lines] == [False, True]


@pytest.mark.slow
def test_a_service_beyond_loopback_requires_tokens_and_says_so(tmp_path: Path) -> None:
    """Commands create and revoke them while it runs. The access log names the token of each request."""
    database = ["--database", str(tmp_path / "heksher.db")]
    with served(*database, "--host", "0.0.0.0") as service:  # noqa: S104
        assert service.http.get("/api/v1/settings").status_code == 401
        code, text = run("service", "token", "add", "ops", "--role", "admin", *database)
        assert (code, text.startswith("heksher_")) == (0, True)
        headers = {"Authorization": f"Bearer {text.strip()}"}
        assert service.http.post(
            "/api/v1/context_features", json={"context_feature": "user"}, headers=headers
        ).is_success
        assert run("service", "token", "add", "shop", "--days", "30", *database)[0] == 0
        listed = run("service", "token", "list", *database)[1].splitlines()
        assert [line.split()[:2] for line in listed] == [["ops", "admin"], ["shop", "declare"]]
        assert ("expires" in listed[0], "expires" in listed[1]) == (False, True)
        assert text.strip() not in "".join(listed)
        changes = service.http.get("/api/v1/change_log", headers=headers).json()["changes"]
        assert [(change["action"], change["actor"]) for change in changes][1] == ("context feature added", "ops")
        assert changes[0]["actor"] is not None
        assert run("service", "token", "revoke", "ops", *database) == (0, "Revoked token ops.\n")
        assert eventually(lambda: service.http.get("/api/v1/settings", headers=headers).status_code == 401)
        log = service.end()[1]
        assert re.search(r"127.0.0.1 ops POST /api/v1/context_features 204", log)
        assert "none exists: create one with `heksher-client service token add" in log
        assert "tokens are sent unencrypted" in log
        assert text.strip() not in log


@pytest.mark.slow
def test_access_control_can_be_disabled_and_enabled(tmp_path: Path) -> None:
    """To disable it beyond loopback results in a warning."""
    database = ["--database", str(tmp_path / "heksher.db")]
    with served(*database, "--host", "0.0.0.0", "--no-access-control") as service:  # noqa: S104
        assert service.http.get("/api/v1/settings").status_code == 200
        assert "anyone who can reach this address can change all settings" in service.end()[1]
    run("service", "token", "add", "ops", *database)
    with served(*database, "--access-control") as service:
        assert service.http.get("/api/v1/settings").status_code == 401
        assert "Warning:" not in service.end()[1]


def test_the_service_supports_tls(tmp_path: Path) -> None:
    """Without a proxy."""
    options = ["--certificate", str(TLS / "certificate.pem"), "--key", str(TLS / "key.pem")]
    with served("--database", str(tmp_path / "s.db"), *options) as service:
        assert service.output.count("https://") == 3
        assert service.http.get("/api/v1/settings").status_code == 200
    assert "must be used together" in run("serve", "--certificate", str(TLS / "certificate.pem"))[1]


def test_an_error_is_reported_in_one_line(tmp_path: Path) -> None:
    """Without a traceback."""
    database = str(tmp_path / "heksher.db")
    with LocalService(["user"]) as other:
        port = other.url.rpartition(":")[2]
        assert "in use" in run("serve", "--database", database, "--port", port)[1]
    for arguments, message in (
        (["serve", "--database", "mysql://host/db"], "use sqlite or postgresql"),
        (["serve", "--database", database, "--feature", "not a name"], "not a valid name of a context feature"),
        (["serve", "--database", f"{tmp_path}/no/folder.db"], "unable to open database"),
        (["serve", "--database", database, "--host", "no.such.host.invalid"], ""),
        (["service", "token", "add", "a b", "--database", database], "not a valid token name"),
        (["service", "token", "revoke", "nobody", "--database", database], "no token nobody"),
        (["service", "token", "list", "--database", f"{tmp_path}/none.db"], "does not exist"),
        (["service", "token", "list", "--database", f"sqlite:///{tmp_path}/none.db"], "does not exist"),
        (["serve", "--database", database, "--certificate", __file__, "--key", __file__], ""),
    ):
        code, output = run(*arguments)
        assert (code, output.count("\n"), message in output) == (1, 1, True), output


def test_a_password_is_not_shown() -> None:
    """It would be in the log. Options of the URL may contain it as well, and other secrets."""
    from heksher_client.cli.serve import _redact_password

    assert _redact_password("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    assert _redact_password("postgresql://host/name?user=me&password=secret") == "postgresql://host/name?user=me"
    hosts = "host=one:1&host=two:2"
    secrets = "sslpassword=secret&oauth_client_secret=secret&conninfo=password%3Dsecret&options=-csecret"
    shown = _redact_password(f"postgresql+psycopg:///name?{secrets}&{hosts}")
    assert shown == "postgresql+psycopg:///name?host=one%3A1&host=two%3A2"
    assert _redact_password("settings.db?password=x") == "settings.db?password=x"  # the name of a file


def test_metrics_have_routes_as_labels(service: WatchedService) -> None:
    """Not paths, which are too many. And they include the size of the database."""
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 8, user="jim")
    for _ in range(3):
        http_request("GET", f"{service.url}/api/v1/settings/s")
    http_request("GET", f"{service.url}/api/v1/rules/99")
    http_request("GET", f"{service.url}/no/such/path")
    http_request("FOOBAR", f"{service.url}/api/v1/settings")
    lines = http_request("GET", f"{service.url}/metrics").text.splitlines()
    for line in (
        'heksher_requests_total{method="GET",route="/api/v1/settings/{name}",status="200"} 3.0',
        'heksher_requests_total{method="GET",route="/api/v1/rules/{rule_id}",status="404"} 1.0',
        'heksher_requests_total{method="GET",route="none",status="404"} 1.0',
        'heksher_requests_total{method="none",route="/api/v1/settings",status="405"} 1.0',
        'heksher_request_seconds_count{method="GET",route="/api/v1/settings/{name}"} 3.0',
        "heksher_settings 1.0",
        "heksher_rules 1.0",
    ):
        assert line in lines


@sqlite_only
def test_a_service_without_its_database_is_neither_healthy_nor_ready(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response has no traceback."""

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    assert service.database is not None
    monkeypatch.setattr(type(service.database), "_connect", connect)
    for path in ("health", "ready"):
        response = http_request("GET", f"{service.url}/api/{path}")
        assert (response.status_code, response.text) == (500, "the database is not available")


@sqlite_only
def test_a_record_of_the_access_log_has_the_parts_as_attributes(
    service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """For logs in JSON. A path cannot contain a line break."""
    caplog.set_level("INFO", "heksher_client.service.access")
    http_request("GET", f"{service.url}/api/v1/settings/a%0Ab?x=1")
    assert eventually(lambda: bool(caplog.records))
    (record,) = caplog.records
    attributes = record.__dict__
    assert "\n" not in record.getMessage()
    expected = {
        "client": "127.0.0.1", "token": None, "method": "GET", "route": "/api/v1/settings/{name}", "status": 404,
    }  # fmt: skip
    assert {name: attributes[name] for name in expected} == expected
    assert json.dumps(attributes["seconds"])


@pytest.mark.parametrize(
    ("optional", "path"),
    [({}, "/api/a%0Ab"), ({"raw_path": None}, "/api/a%0Ab"), ({"raw_path": b"/api/%61%0Ab"}, "/api/%61%0Ab")],
)
def test_the_access_log_needs_no_optional_part_of_a_request(
    caplog: pytest.LogCaptureFixture, optional: dict[str, Any], path: str
) -> None:
    """With other servers: ASGI leaves it to them whether to send the path as it was received."""
    caplog.set_level("INFO", "heksher_client.service.access")
    app, sent = create_app(access_control=False), list[Any]()

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/api/a\nb",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(app({**scope, **optional}, receive, send))
    app.state.database.close()
    assert sent[0]["status"] == 404
    assert f"- - GET {path} 404 " in caplog.text


def test_commands_work_for_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers. The change log then contains the host name."""

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("heksher_client.cli.database.getuser", getuser)
    database = str(tmp_path / "s.db")
    assert run("service", "token", "add", "ops", "--database", database)[0] == 0
    line = run("service", "changes", "-", "--database", database)[1]
    assert json.loads(line)["actor"] == gethostname()


def test_a_missing_package_is_reported_in_one_line() -> None:
    """For example the driver of PostgreSQL."""
    with pytest.raises(ClickException, match="pip install"), report_database_errors():
        raise ImportError("pip install it")


def test_the_database_may_be_set_by_an_environment_variable(tmp_path: Path) -> None:
    """For containers."""
    database = str(tmp_path / "heksher.db")
    result = CliRunner().invoke(
        main, ["service", "token", "add", "ops"], env={**os.environ, "HEKSHER_DATABASE": database}
    )
    assert result.exit_code == 0
    assert Path(database).exists()
