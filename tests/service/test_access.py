"""Access control: tokens and their roles."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any, Self
from urllib.parse import unquote

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from heksher_client import DeclarationError, Setting
from heksher_client.credentials import StaticToken
from heksher_client.service import LocalService, access, create_app, operations, store
from heksher_client.service.access import is_loopback
from heksher_client.service.database import Database
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.tokens import Role, TokenError, add_token, revoke_token
from tests.support.clients import Kind, eventually, running
from tests.support.http import http_client, http_request
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService

STREAM = "GET /api/v1/changes"
OPEN = {"GET /api/health", "GET /api/ready"}


class ProtectedService:
    """A service that requires tokens, with one token of each role."""

    def __init__(self, service: LocalService, database: Database) -> None:
        self.database = database
        self.http = http_client(service.url)
        self.tokens = {role.value: self.add(role.value, role) for role in Role}

    def add(self, name: str, role: Role, **lifetime: timedelta) -> str:
        with self.database.begin() as connection:
            return add_token(connection, name, role, **lifetime)

    def revoke(self, name: str) -> None:
        with self.database.begin() as connection:
            revoke_token(connection, name)

    def send(self, operation: str, token: str | None) -> httpx.Response:
        example = OPERATIONS[operation]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.http.request(example.method, example.path, params=example.query, json=example.body, headers=headers)

    def status(self, operation: str, token: str | None) -> int:
        return self.send(operation, token).status_code


@pytest.fixture
def protected(new_database: Callable[[], str], _session_service: WatchedService) -> Iterator[ProtectedService]:
    yield from _protect(_session_service, new_database())


@pytest.fixture
def protected_in_memory(_session_service: WatchedService) -> Iterator[ProtectedService]:
    yield from _protect(_session_service, "sqlite://")


def _protect(service: WatchedService, database_url: str) -> Iterator[ProtectedService]:
    service.reset(database_url, access_control=True)
    assert service.database is not None
    protected = ProtectedService(service, service.database)
    yield protected
    protected.http.close()


def required_role(operation: str) -> Role:
    if operation.startswith("GET"):
        return Role.ADMIN if "/tokens" in operation else Role.READ
    return Role.DECLARE if operation.endswith("/declare") else Role.ADMIN


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {STREAM}))
def test_l14_each_operation_requires_a_token_with_its_role(
    protected_in_memory: ProtectedService, operation: str
) -> None:
    """A read, a declaration, or another change; tokens are read by administrators. The OpenAPI document agrees."""
    protected, required = protected_in_memory, required_role(operation)
    assert (protected.status(operation, None) == 401) is (operation not in OPEN)
    assert (protected.status(operation, "heksher_nonsense") == 401) is (operation not in OPEN)
    for role in Role:
        status = protected.status(operation, protected.tokens[role])
        assert status != 401
        assert (status == 403) is not role.includes(required)
    documented = OPERATIONS[operation].responses
    assert ("401" in documented, "403" in documented) == (operation not in OPEN, required is not Role.READ)


@pytest.mark.parametrize("role", [None, *Role])
def test_l14_each_role_has_access_to_its_operations_with_each_database(
    protected: ProtectedService, role: Role | None
) -> None:
    """A token is looked up in the database for each role, not for each operation."""
    token = None if role is None else protected.tokens[role]
    for operation in sorted(OPERATIONS.keys() - {STREAM}):
        refused = operation not in OPEN if role is None else not role.includes(required_role(operation))
        status = protected.status(operation, token)
        assert (status in (401, 403)) is refused, operation
        assert status < 500, operation


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("prefix", ["/api/v1/tokens", "/console/tokens"])
@pytest.mark.parametrize("rest", ["", "/", "/shop", "/a%0Ab", "/shop/revoke"])
def test_all_paths_below_tokens_require_the_role_admin(method: str, prefix: str, rest: str) -> None:
    """Also those that do not exist, and names with line breaks."""
    assert access.required_role(method, unquote(prefix + rest)) is Role.ADMIN
    assert access.required_role("GET", f"{prefix}x{rest}") is Role.READ


def test_a_refusal_names_the_scheme_and_the_required_role(protected: ProtectedService) -> None:
    response = protected.send("GET /api/v1/query", None)
    assert (response.headers["www-authenticate"], "Authorization: Bearer TOKEN" in response.text) == ("Bearer", True)
    assert "needs the role admin" in protected.send("POST /api/v1/rules", protected.tokens["read"]).text


@pytest.mark.parametrize("header", ["", "Bearer", "Basic {0}", "{0}", "Bearer {0}x"])
def test_malformed_credentials_are_refused(protected_in_memory: ProtectedService, header: str) -> None:
    headers = {"Authorization": header.format(protected_in_memory.tokens["admin"])}
    assert protected_in_memory.http.get("/api/v1/settings", headers=headers).status_code == 401


def test_all_requests_are_refused_while_the_database_is_not_available(
    protected: ProtectedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(Database, "_connect", connect)
    response = protected.send("GET /api/v1/settings", protected.tokens["admin"])
    assert (response.status_code, response.text) == (500, "the database is not available")


def test_the_cache_of_tokens_is_limited(protected: ProtectedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown tokens are cached as well, so guesses must not fill the memory."""
    monkeypatch.setattr(access, "_MAX_CACHED_TOKENS", 3)
    for number in range(10):
        assert protected.status("GET /api/v1/settings", f"guess{number}") == 401
        assert protected.status("GET /api/v1/settings", protected.tokens["admin"]) == 200


def test_a_request_without_a_known_server_address_requires_a_token() -> None:
    """For example through a Unix domain socket."""

    async def ask(server: Any) -> int:
        app = create_app(context_features=["user"])
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/settings", "raw_path": b"/api/v1/settings",
            "query_string": b"", "headers": [(b"host", b"localhost")], "server": server, "client": None,
            "scheme": "http", "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        await app(scope, receive, send)
        app.state.database.close()
        return int(sent[0]["status"])

    statuses = [asyncio.run(ask(server)) for server in (None, ("/run/heksher.sock", None), ("127.0.0.1", 80))]
    assert statuses == [401, 401, 200]


def test_a_token_in_a_cookie_is_not_accepted(protected: ProtectedService) -> None:
    """A page of another site could make the browser send it."""
    for name in ("heksher_session", "token"):
        headers = {"Cookie": f"{name}={protected.tokens['admin']}"}
        assert protected.http.get("/api/v1/settings", headers=headers).status_code == 401


def test_a_revoked_token_is_refused(protected: ProtectedService) -> None:
    """Other tokens remain valid."""
    assert protected.status("GET /api/v1/settings", protected.tokens["read"]) == 200
    protected.revoke("read")
    assert eventually(lambda: protected.status("GET /api/v1/settings", protected.tokens["read"]) == 401)
    assert protected.status("GET /api/v1/settings", protected.tokens["admin"]) == 200


class InAnHour(datetime):
    """A clock that is an hour fast."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(hours=1)


def test_a_token_expires_at_the_end_of_its_lifetime(
    protected: ProtectedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is cached as valid."""
    monkeypatch.setattr(access, "_CACHE_SECONDS", 3600)
    tokens = [protected.add(f"t{hours}", Role.ADMIN, lifetime=timedelta(hours=hours)) for hours in (-0.5, 0.5, 1.5)]
    assert [protected.status("GET /api/v1/settings", token) for token in tokens] == [401, 200, 200]
    monkeypatch.setattr("heksher_client.service.tokens.datetime", InAnHour)
    assert [protected.status("GET /api/v1/settings", token) for token in tokens] == [401, 401, 200]


def test_the_change_log_names_the_actor(protected: ProtectedService) -> None:
    """Declarations included. The creation and revocation of tokens are logged without their texts."""
    admin = protected.tokens["admin"]
    protected.send("POST /api/v1/context_features", admin)
    for feature in ("environment", "user"):
        protected.http.post(
            "/api/v1/context_features", json={"context_feature": feature}, headers={"Authorization": f"Bearer {admin}"}
        )
    created = protected.send("POST /api/v1/settings/declare", protected.tokens["declare"])
    assert created.json() == {"outcome": "created"}
    protected.revoke("declare")
    response = protected.http.get("/api/v1/change_log", headers={"Authorization": f"Bearer {admin}"})
    actions = [(change["action"], change["actor"]) for change in response.json()["changes"]][-4:]
    assert ("token added", None) in [(change["action"], change["actor"]) for change in response.json()["changes"]]
    assert actions[-2:] == [("setting declared", "declare"), ("token revoked", None)]
    assert protected.tokens["declare"] not in response.text


@pytest.mark.parametrize("role", list(Role))
def test_the_change_log_shows_tokens_to_administrators_only(protected: ProtectedService, role: Role) -> None:
    """As `/api/v1/tokens` does. The entries are there for all, so that revisions are complete."""
    protected.add("secret.project", Role.READ)
    protected.revoke("secret.project")
    for query in ("latest=true&limit=2", "action=token+added&latest=true", "after=0"):
        headers = {"Authorization": f"Bearer {protected.tokens[role]}"}
        response = protected.http.get(f"/api/v1/change_log?{query}", headers=headers)
        found = [each for each in response.json()["changes"] if each["action"].startswith("token")]
        assert len(found) >= 2
        assert ("secret.project" in response.text) == (role is Role.ADMIN)
        is_known = [bool(each["former"] or each["new"]) for each in found]
        assert is_known == [role is Role.ADMIN] * len(found)
    revisions = [each["revision"] for each in response.json()["changes"]]
    assert revisions == list(range(1, len(revisions) + 1))


def test_the_database_contains_only_hashes_of_tokens(protected: ProtectedService) -> None:
    with protected.database.begin(writes=False) as connection:
        rows = connection.exec_driver_sql("SELECT * FROM tokens").all()
    assert len(rows) == 3
    assert not any(
        token in str(rows) or token.removeprefix("heksher_") in str(rows) for token in protected.tokens.values()
    )


@pytest.mark.parametrize("name", ["", "with space", "line\nbreak", "n" * 256, "a/b", ".", ".."])
def test_an_invalid_name_of_a_token_is_refused(protected_in_memory: ProtectedService, name: str) -> None:
    """Names appear in logs and on pages."""
    with pytest.raises(TokenError, match="not a valid token name"):
        protected_in_memory.add(name, Role.READ)


def test_a_name_belongs_to_one_token(protected: ProtectedService) -> None:
    """So that a revocation ends all access under that name."""
    with pytest.raises(TokenError, match="already"):
        protected.add("read", Role.ADMIN)
    with pytest.raises(TokenError, match="no token nosuch"):
        protected.revoke("nosuch")


@pytest.mark.parametrize(
    ("host", "access_control", "status"),
    [("127.0.0.1", None, 200), ("127.0.0.1", True, 401), ("0.0.0.0", None, 401), ("0.0.0.0", False, 200)],  # noqa: S104
)
def test_access_is_open_on_loopback_only_by_default(host: str, access_control: bool | None, status: int) -> None:
    with LocalService(["user"], host=host, access_control=access_control) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        assert http_request("GET", f"{url}/api/v1/settings").status_code == status


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),  # noqa: S104
     ("10.0.0.1", False), ("settings.example", False), ("", False)],
)  # fmt: skip
def test_loopback_addresses_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# -- declarations ------------------------------------------------------------------------------------------------------

SETTING: dict[str, Any] = {
    "name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"], "version": "1.1",
}  # fmt: skip


@pytest.fixture
def declared(protected_in_memory: ProtectedService) -> ProtectedService:
    """A service with the setting `s`, version 1.1, and a rule."""
    with protected_in_memory.database.begin() as connection:
        for body in (SETTING | {"version": "1.0", "default_value": 1}, SETTING):
            setting = DeclaredSetting(**body).declaration()
            stored = store.setting(connection, "s")
            store.update_setting(connection, stored, setting) if stored else store.add_setting(connection, setting)
        operations.add_rule(connection, "s", {"user": "jim"}, 8, {})
    return protected_in_memory


def declare(service: ProtectedService, role: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {service.tokens[role]}"}
    return service.http.post("/api/v1/settings/declare", json=SETTING | more, headers=headers)


def everything(service: ProtectedService) -> list[Any]:
    headers = {"Authorization": f"Bearer {service.tokens['admin']}"}
    paths = ("settings?include_additional_data=true", "query", "change_log")
    return [service.http.get(f"/api/v1/{path}", headers=headers).json() for path in paths]


@pytest.mark.parametrize(
    "more",
    [
        {"version": "1.2", "default_value": 666},
        {"version": "1.2"},
        {"version": "2.0", "type": "float"},
        {"version": "2.0", "configurable_features": ["user", "theme"]},
        {"version": "1.2", "name": "t", "alias": "s"},
        {"version": "1.2", "metadata": {"a": 1}},
        {"name": "new", "version": "1.0"},
        {"name": "new", "version": "1.1"},
        {"name": "new", "version": "1.0", "configurable_features": ["nosuch"]},
        {"alias": "nosuch"},
    ],
)
def test_l14_a_token_for_reading_cannot_change_anything_by_declarations(
    declared: ProtectedService, more: dict[str, Any]
) -> None:
    """The message names the role that it has, and the one that it needs. With that role, the service decides."""
    before = everything(declared)
    response = declare(declared, "read", **more)
    text = "the token read has the role read; this request needs the role declare"
    assert (response.status_code, response.text) == (403, text)
    assert everything(declared) == before
    assert declare(declared, "declare", **more).status_code in (200, 400, 404)


def test_l14_a_declaration_changes_no_rules(declared: ProtectedService) -> None:
    """Only the declaration itself, as its version allows it."""
    before = everything(declared)[1]["settings"]["s"]["rules"]
    assert declare(declared, "declare", version="2.0", type="float", default_value=0.5).json()["outcome"] == "upgraded"
    assert everything(declared)[1]["settings"] == {"s": {"default_value": 0.5, "rules": before}}


@pytest.mark.parametrize(
    ("more", "status", "outcome"),
    [
        ({}, 200, "uptodate"),
        ({"version": "1.0", "default_value": 1}, 200, "outdated"),
        ({"default_value": 5}, 409, "mismatch"),
        ({"version": "1.2", "type": "str", "default_value": "x"}, 409, "rejected"),
    ],
)
def test_l14_a_token_for_reading_compares_declarations(
    declared: ProtectedService, more: dict[str, Any], status: int, outcome: str
) -> None:
    """So a program with such a token reads the settings that others have declared."""
    responses = [declare(declared, role, **more) for role in ("read", "declare", "admin")]
    assert {response.status_code for response in responses} == {status}
    assert {response.json()["outcome"] for response in responses} == {outcome}


def test_l14_a_client_with_a_token_for_reading_reads_what_is_declared(kind: Kind, declared: ProtectedService) -> None:
    """The declaration of another setting is refused. Its error names the role, and concerns this setting only."""
    known = Setting("s", int, ["user"], 7, version="1.1")
    url, token = str(declared.http.base_url), StaticToken(declared.tokens["read"])
    with running(kind, url, auth=token) as client:
        assert known.get(user="jim") == 8
        new = Setting("new", int, ["user"], 3)
        error = client.reload_expecting(DeclarationError)
        assert isinstance(error, DeclarationError)
        assert (error.setting, error.status) == ("new", 403)
        assert "the token read has the role read; this request needs the role declare" in str(error)
        with declared.database.begin() as connection:
            operations.add_rule(connection, "s", {"user": "ann"}, 9, {})
        client.reload_expecting(DeclarationError)
        assert (known.get(user="ann"), new.get(user="ann")) == (9, 3)


def test_l14_roles_are_ordered() -> None:
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
