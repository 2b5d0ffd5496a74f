"""The service as a program of its own, and the commands that look after it."""

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
from heksher_client.service import LocalService
from tests.support.clients import PATIENCE, eventually
from tests.support.commands import interruptible
from tests.support.http import http_client, http_request
from tests.support.service import WatchedService

TLS = Path(__file__).parents[1] / "data" / "tls"


class Served:
    """`heksher-client serve`, running."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "heksher_client.cli", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            interruptible(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"(https?)://\S+:(\d+)", self.said)
        assert found is not None, self.process.stderr and self.process.stderr.read()
        self.http = http_client(f"{found[1]}://127.0.0.1:{found[2]}", verify=_trusted())
        assert eventually(self._answers)

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and its log."""
        self.http.close()
        self.process.send_signal(how)
        _, log = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, log

    def _answers(self) -> bool:
        try:
            return self.http.get("/api/ready").status_code == 200
        except httpx.HTTPError:
            return False


def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=TLS / "certificate.pem")


@contextmanager
def served(*options: str) -> Iterator[Served]:
    held = Served(*options)
    try:
        yield held
    finally:
        if held.process.poll() is None:
            held.end(signal.SIGKILL)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


DECLARATION = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}


def test_one_command_serves_a_database(tmp_path: Path) -> None:
    """What it is told is there when it is started again; it says where it is, logs requests, and ends in order."""
    database = str(tmp_path / "heksher.db")
    with served("--database", database, "--feature", "environment", "--feature", "user") as service:
        assert f"Heksher service {__version__} on {database}: http://127.0.0.1:" in service.said
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


def test_a_service_that_is_told_to_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    """It says that it is not ready for a while, and answers still; streams end at once."""
    with served("--database", str(tmp_path / "s.db"), "--drain", "2") as service:
        ended = threading.Event()

        def follow() -> None:
            with service.http.stream("GET", "/api/v1/changes") as response:
                for _ in response.iter_lines():
                    pass
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert eventually(lambda: "heksher_streams 1.0" in service.http.get("/metrics").text)
        service.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: service.http.get("/api/ready").status_code == 503)
        assert service.http.get("/api/v1/settings").status_code == 200
        assert ended.wait(PATIENCE)
        thread.join()
        service.http.close()
        service.process.communicate(timeout=PATIENCE)
        assert service.process.returncode == 0


def test_a_second_ctrl_c_ends_a_service_that_waits(tmp_path: Path) -> None:
    """At once."""
    with served("--database", str(tmp_path / "s.db"), "--drain", "60") as service:
        service.process.send_signal(signal.SIGINT)
        assert eventually(lambda: service.http.get("/api/ready").status_code == 503)
        assert service.end(signal.SIGINT)[0] == 0


def test_a_service_for_others_needs_tokens_and_says_so(tmp_path: Path) -> None:
    """They are made and revoked by commands, while it runs; the log of requests says whose they are."""
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
        assert [line.split()[:2] for line in listed] == [["ops", "admin"], ["shop", "read"]]
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


def test_a_service_for_others_can_be_open(tmp_path: Path) -> None:
    """By name, and with a warning; and one on loopback can be closed."""
    database = ["--database", str(tmp_path / "heksher.db")]
    with served(*database, "--host", "0.0.0.0", "--no-access-control") as service:  # noqa: S104
        assert service.http.get("/api/v1/settings").status_code == 200
        assert "anyone who can reach this address can change all settings" in service.end()[1]
    run("service", "token", "add", "ops", *database)
    with served(*database, "--access-control") as service:
        assert service.http.get("/api/v1/settings").status_code == 401
        assert "Warning:" not in service.end()[1]


def test_a_service_can_have_tls(tmp_path: Path) -> None:
    """Of its own, without a proxy."""
    options = ["--certificate", str(TLS / "certificate.pem"), "--key", str(TLS / "key.pem")]
    with served("--database", str(tmp_path / "s.db"), *options) as service:
        assert service.said.count("https://") == 3
        assert service.http.get("/api/v1/settings").status_code == 200
    assert "must be used together" in run("serve", "--certificate", str(TLS / "certificate.pem"))[1]


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    """With what is wrong, and no traceback."""
    database = str(tmp_path / "heksher.db")
    with LocalService(["user"]) as other:
        port = other.url.rpartition(":")[2]
        assert "in use" in run("serve", "--database", database, "--port", port)[1]
    for arguments, words in (
        (["serve", "--database", "mysql://host/db"], "works with sqlite and postgresql"),
        (["serve", "--database", database, "--feature", "not a name"], "no name of a context feature"),
        (["serve", "--database", f"{tmp_path}/no/folder.db"], "unable to open database"),
        (["serve", "--database", database, "--host", "no.such.host.invalid"], ""),
        (["service", "token", "add", "a b", "--database", database], "no name for a token"),
        (["service", "token", "revoke", "nobody", "--database", database], "no token nobody"),
        (["service", "token", "list", "--database", f"{tmp_path}/none.db"], "does not exist"),
        (["service", "token", "list", "--database", f"sqlite:///{tmp_path}/none.db"], "does not exist"),
        (["serve", "--database", database, "--certificate", __file__, "--key", __file__], ""),
    ):
        code, output = run(*arguments)
        assert (code, output.count("\n"), words in output) == (1, 1, True), output


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be in the log."""
    from heksher_client.cli.serve import _redact_password

    assert _redact_password("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"


def test_the_metrics_are_those_of_routes(service: WatchedService) -> None:
    """Not of paths, of which there are too many; and what the database holds."""
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


def test_a_service_without_its_database_is_neither_well_nor_ready(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so without a traceback."""

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    assert service.database is not None
    monkeypatch.setattr(type(service.database), "_connect", connect)
    for path in ("health", "ready"):
        answer = http_request("GET", f"{service.url}/api/{path}")
        assert (answer.status_code, answer.text) == (500, "the database does not answer")


def test_a_record_of_the_access_log_has_its_parts(service: WatchedService, caplog: pytest.LogCaptureFixture) -> None:
    """For those who write logs as JSON; a path cannot break its line."""
    caplog.set_level("INFO", "heksher_client.service.access")
    http_request("GET", f"{service.url}/api/v1/settings/a%0Ab?x=1")
    assert eventually(lambda: bool(caplog.records))
    (record,) = caplog.records
    held = record.__dict__
    assert "\n" not in record.getMessage()
    assert (held["client"], held["token"], held["method"], held["route"], held["status"]) == (
        "127.0.0.1", None, "GET", "/api/v1/settings/{name}", 422,
    )  # fmt: skip
    assert json.dumps(held["seconds"])


def test_a_user_without_a_name_can_use_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers have them; the log of changes has the machine then."""

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("heksher_client.cli.database.getuser", getuser)
    database = str(tmp_path / "s.db")
    assert run("service", "token", "add", "ops", "--database", database)[0] == 0
    line = run("service", "changes", "-", "--database", database)[1]
    assert json.loads(line)["actor"] == gethostname()


def test_what_is_not_installed_is_said_in_one_line() -> None:
    """As the package for PostgreSQL may be."""
    with pytest.raises(ClickException, match="pip install"), report_database_errors():
        raise ImportError("pip install it")


def test_the_database_may_be_given_by_the_environment(tmp_path: Path) -> None:
    """For containers."""
    database = str(tmp_path / "heksher.db")
    result = CliRunner().invoke(
        main, ["service", "token", "add", "ops"], env={**os.environ, "HEKSHER_DATABASE": database}
    )
    assert result.exit_code == 0
    assert Path(database).exists()
