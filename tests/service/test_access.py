"""Who is let in, and what they may do."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from heksher_client.service import LocalService, access, create_app
from heksher_client.service.access import is_loopback
from heksher_client.service.database import Database
from heksher_client.service.tokens import Role, TokenError, add_token, revoke_token
from tests.support.clients import eventually
from tests.support.http import http_client, http_request
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService

STREAM = "GET /api/v1/changes"
OPEN = {"GET /api/health", "GET /api/ready"}


class Guarded:
    """A service that needs tokens, and one token of each role."""

    def __init__(self, service: LocalService, database: Database) -> None:
        self.database = database
        self.http = http_client(service.url)
        self.tokens = {role: self.add(role, Role(role)) for role in ("read", "admin")}

    def add(self, name: str, role: Role, **lifetime: timedelta) -> str:
        with self.database.begin() as connection:
            return add_token(connection, name, role, **lifetime)

    def revoke(self, name: str) -> None:
        with self.database.begin() as connection:
            revoke_token(connection, name)

    def ask(self, operation: str, token: str | None) -> httpx.Response:
        held = OPERATIONS[operation]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.http.request(held.method, held.path, params=held.query, json=held.body, headers=headers)

    def status(self, operation: str, token: str | None) -> int:
        return self.ask(operation, token).status_code


@pytest.fixture
def guarded(new_database: Callable[[], str], _one_service: WatchedService) -> Iterator[Guarded]:
    _one_service.renew(new_database(), access_control=True)
    assert _one_service.database is not None
    held = Guarded(_one_service, _one_service.database)
    yield held
    held.http.close()


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {STREAM}))
def test_every_operation_needs_a_token_with_its_role(guarded: Guarded, operation: str) -> None:
    """Reading, and declaring, needs the one for reading; all else the other one."""
    is_for_readers = operation.startswith("GET") or operation.endswith("/declare")
    assert (guarded.status(operation, None) == 401) is (operation not in OPEN)
    assert (guarded.status(operation, "heksher_nonsense") == 401) is (operation not in OPEN)
    assert guarded.status(operation, guarded.tokens["read"]) not in (401, 403) or not is_for_readers
    assert (guarded.status(operation, guarded.tokens["read"]) == 403) is not is_for_readers
    assert guarded.status(operation, guarded.tokens["admin"]) not in (401, 403)
    documented = OPERATIONS[operation].responses
    assert ("401" in documented, "403" in documented) == (operation not in OPEN, not is_for_readers)


def test_a_refusal_says_what_to_do(guarded: Guarded) -> None:
    """And a browser or a client which scheme is meant."""
    answer = guarded.ask("GET /api/v1/query", None)
    assert (answer.headers["www-authenticate"], "Authorization: Bearer TOKEN" in answer.text) == ("Bearer", True)
    assert "needs one with the role admin" in guarded.ask("POST /api/v1/rules", guarded.tokens["read"]).text


@pytest.mark.parametrize("header", ["", "Bearer", "Basic {0}", "{0}", "Bearer {0}x"])
def test_credentials_of_another_form_are_none(guarded: Guarded, header: str) -> None:
    """They are refused as unknown."""
    headers = {"Authorization": header.format(guarded.tokens["admin"])}
    assert guarded.http.get("/api/v1/settings", headers=headers).status_code == 401


def test_without_its_database_a_service_lets_nobody_in(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says why."""

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(Database, "_connect", connect)
    answer = guarded.ask("GET /api/v1/settings", guarded.tokens["admin"])
    assert (answer.status_code, answer.text) == (500, "the database does not answer")


def test_guesses_fill_no_memory(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many tokens are remembered, known or not; the others are looked up."""
    monkeypatch.setattr(access, "_MOST_KNOWN", 3)
    for number in range(10):
        assert guarded.status("GET /api/v1/settings", f"guess{number}") == 401
        assert guarded.status("GET /api/v1/settings", guarded.tokens["admin"]) == 200


def test_where_nobody_knows_how_a_request_came_it_needs_a_token() -> None:
    """In a server of another kind, or over a socket of the file system."""

    async def ask(server: Any) -> int:
        app = create_app(context_features=["user"])
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/settings", "raw_path": b"/api/v1/settings",
            "query_string": b"", "headers": [(b"host", b"localhost")], "server": server, "client": None,
            "scheme": "http", "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)
        app.state.database.close()
        return int(said[0]["status"])

    statuses = [asyncio.run(ask(server)) for server in (None, ("/run/heksher.sock", None), ("127.0.0.1", 80))]
    assert statuses == [401, 401, 200]


def test_a_token_is_not_taken_from_a_cookie(guarded: Guarded) -> None:
    """A foreign page could have the browser send that."""
    for name in ("heksher_session", "token"):
        headers = {"Cookie": f"{name}={guarded.tokens['admin']}"}
        assert guarded.http.get("/api/v1/settings", headers=headers).status_code == 401


def test_a_revoked_token_is_refused(guarded: Guarded) -> None:
    """Within a second or so; the others stay."""
    assert guarded.status("GET /api/v1/settings", guarded.tokens["read"]) == 200
    guarded.revoke("read")
    assert eventually(lambda: guarded.status("GET /api/v1/settings", guarded.tokens["read"]) == 401)
    assert guarded.status("GET /api/v1/settings", guarded.tokens["admin"]) == 200


def test_a_token_ends_with_its_lifetime(guarded: Guarded) -> None:
    """Also when it was seen a moment before."""
    old = guarded.add("old", Role.ADMIN, lifetime=timedelta(seconds=-1))
    short = guarded.add("short", Role.ADMIN, lifetime=timedelta(seconds=0.5))
    long = guarded.add("long", Role.ADMIN, lifetime=timedelta(days=1))
    assert [guarded.status("GET /api/v1/settings", token) for token in (old, short, long)] == [401, 200, 200]
    assert eventually(lambda: guarded.status("GET /api/v1/settings", short) == 401)


def test_the_log_of_changes_says_who(guarded: Guarded) -> None:
    """Every change, declarations too; tokens are made and revoked by somebody as well, and their texts are nowhere."""
    admin = guarded.tokens["admin"]
    guarded.ask("POST /api/v1/context_features", admin)
    for feature in ("environment", "user"):
        guarded.http.post(
            "/api/v1/context_features", json={"context_feature": feature}, headers={"Authorization": f"Bearer {admin}"}
        )
    assert guarded.ask("POST /api/v1/settings/declare", guarded.tokens["read"]).json() == {"outcome": "created"}
    guarded.revoke("read")
    answer = guarded.http.get("/api/v1/change_log", headers={"Authorization": f"Bearer {admin}"})
    actions = [(change["action"], change["actor"]) for change in answer.json()["changes"]][-4:]
    assert ("token added", None) in [(change["action"], change["actor"]) for change in answer.json()["changes"]]
    assert actions[-2:] == [("setting declared", "read"), ("token revoked", None)]
    assert guarded.tokens["read"] not in answer.text


def test_the_database_has_no_tokens_in_it(guarded: Guarded) -> None:
    """Only what nobody can make a token of."""
    with guarded.database.begin(writes=False) as connection:
        rows = connection.exec_driver_sql("SELECT * FROM tokens").all()
    assert len(rows) == 2
    assert not any(
        token in str(rows) or token.removeprefix("heksher_") in str(rows) for token in guarded.tokens.values()
    )


@pytest.mark.parametrize("name", ["", "with space", "line\nbreak", "n" * 256, "a/b"])
def test_a_name_that_is_none_makes_no_token(guarded: Guarded, name: str) -> None:
    """It would be in logs and on pages."""
    with pytest.raises(TokenError, match="no name for a token"):
        guarded.add(name, Role.READ)


def test_a_name_has_one_token(guarded: Guarded) -> None:
    """So that revoking it revokes all that it could do."""
    with pytest.raises(TokenError, match="already"):
        guarded.add("read", Role.ADMIN)
    with pytest.raises(TokenError, match="no token nosuch"):
        guarded.revoke("nosuch")


@pytest.mark.parametrize(
    ("host", "access_control", "status"),
    [("127.0.0.1", None, 200), ("127.0.0.1", True, 401), ("0.0.0.0", None, 401), ("0.0.0.0", False, 200)],  # noqa: S104
)
def test_access_is_open_on_loopback_alone_unless_it_is_said_otherwise(
    host: str, access_control: bool | None, status: int
) -> None:
    with LocalService(["user"], host=host, access_control=access_control) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        assert http_request("GET", f"{url}/api/v1/settings").status_code == status


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),  # noqa: S104
     ("10.0.0.1", False), ("settings.example", False), ("", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
