"""Tokens and aliases over the API."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from heksher_client.service.tokens import Role, add_token
from tests.support.clients import eventually
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    """A client of a service without access control."""
    with http_client(f"{service.url}/api/v1") as client:
        yield client


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def create(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/tokens", json=body)


def test_a_token_is_created_listed_and_revoked(http: httpx.Client) -> None:
    """Its text is in the response to its creation alone."""
    before = datetime.now(UTC)
    created = create(http, name="shop", lifetime=3600)
    body = created.json()
    assert (created.status_code, body["name"], body["role"], body["expired"]) == (201, "shop", "declare", False)
    created_at, expires_at = (datetime.fromisoformat(body[key]) for key in ("created_at", "expires_at"))
    assert (before <= created_at, expires_at - created_at) == (True, timedelta(hours=1))
    create(http, name="ops", role="admin")
    listed = http.get("/tokens").json()["tokens"]
    assert [(token["name"], token["role"], token["expires_at"] is None) for token in listed] == [
        ("ops", "admin", True),
        ("shop", "declare", False),
    ]
    assert "token" not in listed[1]
    assert http.delete("/tokens/shop").status_code == 204
    assert [token["name"] for token in http.get("/tokens").json()["tokens"]] == ["ops"]


def test_the_text_of_a_token_is_neither_cached_nor_logged(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the log of requests, and not in the log of changes, which names the token."""
    with caplog.at_level(logging.DEBUG):
        created = create(http, name="shop")
    text = created.json()["token"]
    assert created.headers["cache-control"] == "no-store"
    assert text not in caplog.text
    log = http.get("/change_log")
    assert log.json()["changes"][-1]["new"]["name"] == "shop"
    assert text not in log.text
    assert text not in http.get("/tokens").text


@sqlite_only
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "a b"}, 422, "pattern"),
        ({"name": ".."}, 422, "meaning in paths"),
        ({"name": "x" * 256}, 422, "255"),
        ({"name": "shop", "role": "root"}, 422, "role"),
        ({"name": "shop", "lifetime": 0}, 422, "lifetime"),
        ({"name": "shop", "lifetime": 10**12}, 422, "lifetime"),
        ({"name": "used"}, 409, "the token used already exists; revoke it first"),
    ],
)
def test_an_invalid_token_is_refused(http: httpx.Client, body: Any, status: int, message: str) -> None:
    """A token with the name must be revoked first."""
    create(http, name="used")
    before = http.get("/change_log").json()
    response = create(http, **body)
    assert (response.status_code, message in response.text) == (status, True), response.text
    assert http.get("/change_log").json() == before


@pytest.mark.parametrize("name", ["nosuch", "%00", "a%20b", "x" * 300, "%ED%A0%80"])
def test_a_token_that_does_not_exist_cannot_be_revoked(http: httpx.Client, name: str) -> None:
    """As for other names."""
    response = http.delete(f"/tokens/{name}")
    assert (response.status_code, "there is no token" in response.text) == (404, True)


def test_administrators_manage_tokens(service: WatchedService, new_database: Any) -> None:
    """The log has their names. A created token is accepted, and a revoked one is refused within a second."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        admin = add_token(connection, "ops", Role.ADMIN)
    with http_client(f"{service.url}/api/v1", headers=bearer(admin)) as http:
        text = create(http, name="shop", role="read").json()["token"]
        assert http.get("/settings", headers=bearer(text)).status_code == 200
        for method, path in (("GET", "/tokens"), ("POST", "/tokens"), ("DELETE", "/tokens/ops")):
            response = http.request(method, path, json={"name": "x"}, headers=bearer(text))
            assert (response.status_code, "needs the role admin" in response.text) == (403, True)
        http.delete("/tokens/shop").raise_for_status()
        assert eventually(lambda: http.get("/settings", headers=bearer(text)).status_code == 401)
        changes = http.get("/change_log").json()["changes"][-2:]
        assert [(change["action"], change["actor"]) for change in changes] == [
            ("token added", "ops"),
            ("token revoked", "ops"),
        ]


# -- aliases -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(service: WatchedService, http: httpx.Client) -> httpx.Client:
    """The settings `s` and `t`."""
    service.declare("s", "int", 7, ["user"])
    service.declare("t", "int", 8, ["user"])
    return http


def test_a_setting_is_read_by_an_alias_until_that_is_deleted(settings: httpx.Client) -> None:
    """The version stays the same. The changes are in the log of the setting."""
    before = settings.get("/settings/s")
    for _ in range(2):  # the second request changes nothing
        assert settings.put("/settings/s/aliases/old.name").status_code == 204
    found = settings.get("/settings/old.name")
    assert found.json() == before.json() | {"aliases": ["old.name"]}
    assert found.headers["etag"] != before.headers["etag"]
    assert settings.delete("/settings/old.name/aliases/old.name").status_code == 204
    assert settings.get("/settings/old.name").status_code == 404
    assert settings.get("/settings/s").json() == before.json()
    log = settings.get("/change_log", params={"setting": "s"}).json()["changes"][1:]
    assert [(change["action"], change["former"], change["new"]) for change in log] == [
        ("aliases changed", {"aliases": []}, {"aliases": ["old.name"]}),
        ("aliases changed", {"aliases": ["old.name"]}, {"aliases": []}),
    ]


def test_an_alias_belongs_to_one_setting(settings: httpx.Client) -> None:
    """It cannot be the name of a setting, nor an alias of another one."""
    settings.put("/settings/t/aliases/u").raise_for_status()
    for alias, owner in (("t", "t"), ("u", "t"), ("s", "s")):
        response = settings.put(f"/settings/s/aliases/{alias}")
        assert (response.status_code, response.text) == (409, f"{alias} is already a name of the setting {owner}")
    assert settings.put("/settings/s/aliases/a-b").status_code == 422
    for alias in ("u", "s", "nosuch", "%00"):
        response = settings.delete(f"/settings/s/aliases/{alias}")
        assert (response.status_code, "does not exist" in response.text) == (404, True)
    assert settings.get("/settings/t").json()["aliases"] == ["u"]
