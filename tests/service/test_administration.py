"""Changes by operators: context features, settings, and metadata of settings and rules."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    """A client of a service with the setting `s`, version 1.0, and a rule for it: 8 for jim."""
    service.declare("s", "int", 7, ["user"], metadata={"a": 1})
    with http_client(service.url) as client:
        client.post("/api/v1/rules", json={"setting": "s", "feature_values": {"user": "jim"}, "value": 8})
        yield client


def features(http: httpx.Client) -> list[str]:
    names: list[str] = http.get("/api/v1/context_features").json()["context_features"]
    return names


@pytest.mark.parametrize(
    ("name", "place", "order"),
    [
        ("theme", {"to_before": "environment"}, ["theme", "environment", "user"]),
        ("environment", {"to_after": "theme"}, ["user", "theme", "environment"]),
        ("environment", {"to_after": "user"}, ["user", "environment", "theme"]),
        ("user", {"to_before": "theme"}, ["environment", "user", "theme"]),
        ("user", {"to_before": "user"}, ["environment", "user", "theme"]),
    ],
)
def test_a_context_feature_is_moved_next_to_another_one(
    http: httpx.Client, name: str, place: dict[str, str], order: list[str]
) -> None:
    """The others keep their order."""
    assert http.patch(f"/api/v1/context_features/{name}/index", json=place).status_code == 204
    assert features(http) == order


def test_moving_a_feature_changes_the_order_of_conditions(http: httpx.Client) -> None:
    """In rules and in query results."""
    http.post(
        "/api/v1/settings/declare",
        json={"name": "t", "type": "int", "default_value": 1, "configurable_features": ["user", "theme"]},
    )
    conditions = {"user": "jim", "theme": "dark"}
    rule = http.post("/api/v1/rules", json={"setting": "t", "feature_values": conditions, "value": 2}).json()["rule_id"]
    etag = http.get("/api/v1/query").headers["etag"]
    http.patch("/api/v1/context_features/user/index", json={"to_after": "theme"})
    assert http.get(f"/api/v1/rules/{rule}").json()["feature_values"] == [["theme", "dark"], ["user", "jim"]]
    assert http.get("/api/v1/query", headers={"If-None-Match": etag}).status_code == 200


@sqlite_only
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("PATCH", "context_features/user/index", {"to_before": "theme", "to_after": "theme"}, 422, "must be given"),
        ("PUT", "settings/s/type", {"type": "float", "version": "1.0"}, 409, "at version 1.0 already"),
        ("PUT", "settings/s/type", {"type": "nosuch", "version": "1.1"}, 422, "cannot resolve"),
        ("PUT", "settings/s/type", {"type": r'Enum["\ud800",1]', "version": "2.0"}, 422, "surrogates not allowed"),
        ("PUT", "settings/s/type", {"type": "int"}, 422, "version"),
        ("PUT", "settings/nosuch/type", {"type": "int", "version": "1.1"}, 404, "nosuch does not exist"),
        (
            "PUT", "settings/s/configurable_features", {"configurable_features": ["x"], "version": "2.0"}, 404,
            "not acceptable",
        ),
        ("PUT", "settings/s/configurable_features", {"configurable_features": [], "version": "2.0"}, 422, "at least"),
        ("PUT", "settings/s/name", {"name": "t", "version": "0.9"}, 409, "higher version"),
        ("DELETE", "settings/s/metadata/nosuch", {"version": "1.1"}, 404, "metadata key nosuch"),
        ("DELETE", "settings/s/metadata", {}, 422, "version"),
        ("PUT", "settings/s/metadata/no.key", {"value": 1, "version": "1.1"}, 422, "pattern"),
        ("POST", "settings/s/metadata", {"metadata": {"no.key": 1}, "version": "1.1"}, 422, "pattern"),
        ("DELETE", "rules/1/metadata/nosuch", None, 404, "metadata key nosuch"),
        ("PUT", "rules/1/metadata", {}, 422, "metadata"),
    ],
)  # fmt: skip
def test_an_invalid_change_is_refused_with_a_message(
    http: httpx.Client, method: str, path: str, body: Any, status: int, message: str
) -> None:
    """The setting is unchanged."""
    before = http.get("/api/v1/settings/s").json()
    response = http.request(method, f"/api/v1/{path}", json=body)
    assert (response.status_code, message in response.text) == (status, True), response.text
    assert http.get("/api/v1/settings/s").json() == before


@pytest.fixture
def renamed(http: httpx.Client) -> httpx.Client:
    """The setting has the name `t`, the alias `s` and the version 1.1."""
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"}).raise_for_status()
    return http


SAME = [
    ("name", {"name": "t"}),
    ("name", {"name": "s"}),
    ("type", {"type": "int"}),
    ("configurable_features", {"configurable_features": ["user"]}),
]
"""Changes of the renamed setting to what it has already."""


@sqlite_only
@pytest.mark.parametrize(("what", "body"), SAME)
@pytest.mark.parametrize(("version", "status"), [("1.0", 409), ("1.1", 204), ("1.01", 204)])
def test_l3_a_change_to_the_same_value_at_the_same_version_does_nothing(
    renamed: httpx.Client, what: str, body: dict[str, Any], version: str, status: int
) -> None:
    """An alias is a name of the setting as well. At a lower version, the request is refused."""
    before = renamed.get("/api/v1/change_log").json()
    response = renamed.put(f"/api/v1/settings/s/{what}", json={**body, "version": version})
    assert (response.status_code, renamed.get("/api/v1/change_log").json()) == (status, before)


@pytest.mark.parametrize(("what", "body"), SAME)
@pytest.mark.parametrize("version", ["1.2", "2.0"])
def test_l3_a_change_to_the_same_value_at_a_higher_version_raises_the_version(
    renamed: httpx.Client, what: str, body: dict[str, Any], version: str
) -> None:
    """A rename to an alias exchanges the two names."""
    before = renamed.get("/api/v1/settings/t").json()
    assert renamed.put(f"/api/v1/settings/t/{what}", json={**body, "version": version}).status_code == 204
    names = {"name": "s", "aliases": ["t"]} if body.get("name") == "s" else {}
    assert renamed.get("/api/v1/settings/t").json() == before | {"version": version} | names
    assert renamed.get("/api/v1/settings/s").status_code == 200


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("name", {"name": "u"}),
        ("type", {"type": "float"}),
        ("configurable_features", {"configurable_features": ["theme"]}),
        ("metadata", {"metadata": {"a": 1}}),
    ],
)
def test_l3_a_change_at_the_same_version_is_refused(renamed: httpx.Client, what: str, body: dict[str, Any]) -> None:
    """Metadata always need a higher version, as in the reference."""
    response = renamed.put(f"/api/v1/settings/t/{what}", json={**body, "version": "1.1"})
    assert (response.status_code, response.text) == (409, "the setting t is at version 1.1 already")


INVALID = ["not-valid", "with%20space", "%00", "x" * 300, "%C3%A9", "nosuch"]


@pytest.mark.parametrize("name", INVALID)
def test_l4_a_context_feature_with_an_invalid_name_does_not_exist(http: httpx.Client, name: str) -> None:
    """An empty 404, as for each other one that does not exist."""
    place = {"to_after": "user"}
    for response in (
        http.get(f"/api/v1/context_features/{name}"),
        http.delete(f"/api/v1/context_features/{name}"),
        http.patch(f"/api/v1/context_features/{name}/index", json=place),
    ):
        assert (response.status_code, response.text) == (404, "")


@pytest.mark.parametrize("other", ["", "nosuch", "not-valid", "with space", "\0", "x" * 300, "\u00e9"])
@pytest.mark.parametrize("place", ["to_before", "to_after"])
@pytest.mark.parametrize("name", ["user", "nosuch", "not-valid"])
def test_l4_a_context_feature_cannot_be_moved_next_to_one_that_does_not_exist(
    http: httpx.Client, name: str, place: str, other: str
) -> None:
    """Names in the body are not validated either, and the order is unchanged."""
    response = http.patch(f"/api/v1/context_features/{name}/index", json={place: other})
    assert (response.status_code, response.text) == (404, "")
    assert features(http) == ["environment", "user", "theme"]


@pytest.mark.parametrize("name", INVALID)
def test_l4_a_setting_with_an_invalid_name_does_not_exist(http: httpx.Client, name: str) -> None:
    """For each operation on a setting."""
    for example in (one for operation, one in OPERATIONS.items() if "/settings/{name}" in operation):
        path = example.path.replace("/cache_size", f"/{name}")
        response = http.request(example.method, path, json=example.body)
        assert response.status_code == 404
        assert "not found" in response.text or "does not exist" in response.text


IMPOSSIBLE = ["-1", "-0", "0", "99", *("9" * digits for digits in (10, 18, 19, 20, 30, 4301, 6000)), f"-{'9' * 19}"]


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("rule_id", "status"),
    [*((each, 404) for each in IMPOSSIBLE), ("x", 422), ("1.0", 422), ("-", 422), ("\u0663", 422)],
)
def test_l4_a_rule_with_an_impossible_id_does_not_exist(http: httpx.Client, rule_id: str, status: int) -> None:
    """An empty 404 for each operation on a rule. Text that is not a number is invalid, as in the reference."""
    for example in (one for operation, one in OPERATIONS.items() if "/rules/{rule_id}" in operation):
        path = example.path.replace("/rules/1", f"/rules/{rule_id}")
        response = http.request(example.method, path, json=example.body)
        assert (response.status_code, not response.text) == (status, status == 404)


@pytest.mark.parametrize("key", [" ", "k" * 256])
def test_an_invalid_metadata_key_in_a_path_is_refused(http: httpx.Client, key: str) -> None:
    """As in a body: a request may set it."""
    examples = [one for operation, one in OPERATIONS.items() if "/metadata/{key}" in operation]
    assert len(examples) == 4
    for example in examples:
        path = f"{example.path.rpartition('/')[0]}/{key}"
        assert http.request(example.method, path, json=example.body).status_code == 422


def test_l4_an_id_may_have_zeros_at_its_beginning(http: httpx.Client) -> None:
    rule = http.get("/api/v1/rules/1")
    assert http.get(f"/api/v1/rules/{'0' * 5000}1").json() == rule.json()


def test_each_change_of_a_setting_increases_its_version(http: httpx.Client) -> None:
    """So that older declarations are outdated."""
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", "configurable_features", {"configurable_features": ["user", "theme"], "version": "2.0"}),
        ("PUT", "metadata", {"metadata": {"b": 2}, "version": "2.1"}),
        ("PUT", "type", {"type": "float", "version": "3.0"}),
        ("PUT", "name", {"name": "t", "version": "3.1"}),
    ]
    for method, what, body in changes:
        assert http.request(method, f"/api/v1/settings/s/{what}", json=body).status_code == 204
        assert http.get("/api/v1/settings/s").json()["version"] == body["version"]
    assert http.get("/api/v1/settings/s").json() == {
        "name": "t",
        "type": "float",
        "default_value": 7,
        "version": "3.1",
        "configurable_features": ["user", "theme"],
        "metadata": {"b": 2},
        "aliases": ["s"],
    }
    declared = http.post(
        "/api/v1/settings/declare",
        json={"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"], "metadata": {"a": 1}},
    ).json()
    assert (declared["outcome"], declared["latest_version"]) == ("outdated", "3.1")


def test_a_context_feature_can_be_deleted_once_no_setting_uses_it(http: httpx.Client) -> None:
    assert http.delete("/api/v1/context_features/user").status_code == 409
    assert http.delete("/api/v1/settings/s").status_code == 204
    assert http.delete("/api/v1/context_features/user").status_code == 204
    assert features(http) == ["environment", "theme"]
    http.post("/api/v1/context_features", json={"context_feature": "user"})
    assert features(http) == ["environment", "theme", "user"]


def test_each_change_is_logged_with_the_states_before_and_after_it(http: httpx.Client) -> None:
    """The changes of a renamed setting are found by both names."""
    log = http.get("/api/v1/change_log", params={"after": 3}).json()["changes"]
    assert [(change["action"], change["settings"]) for change in log] == [
        ("setting declared", ["s"]),
        ("rule added", ["s"]),
    ]
    former = log[-1]["revision"]
    rule = {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 8, "metadata": {}}
    assert (log[-1]["former"], log[-1]["new"], log[-1]["actor"]) == (None, rule, None)

    http.put("/api/v1/rules/1/value", json={"value": 9})
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    http.patch("/api/v1/context_features/user/index", json={"to_after": "theme"})
    http.delete("/api/v1/settings/t")
    log = http.get("/api/v1/change_log", params={"after": former}).json()["changes"]
    assert [change["revision"] for change in log] == [former + i for i in range(1, 5)]
    changed, renamed, moved, deleted = log
    assert (changed["former"], changed["new"]) == (rule, rule | {"value": 9})
    assert (renamed["former"]["name"], renamed["new"]["name"], renamed["settings"]) == ("s", "t", ["s", "t"])
    assert (moved["former"], moved["new"]) == (["environment", "user", "theme"], ["environment", "theme", "user"])
    assert (deleted["former"]["rules"], deleted["new"]) == ([rule | {"value": 9}], None)
    assert datetime.fromisoformat(deleted["at"]).tzinfo is not None

    # The setting is deleted, so it is not known that it was `s` before.
    of_t = http.get("/api/v1/change_log", params={"setting": "t"}).json()["changes"]
    assert [change["revision"] for change in of_t] == [former + 2, former + 4]
    assert len(http.get("/api/v1/change_log", params={"limit": 2}).json()["changes"]) == 2
    assert http.get("/api/v1/change_log", params={"limit": 0}).status_code == 422


def test_the_changes_of_a_setting_are_found_by_each_of_its_names(http: httpx.Client) -> None:
    """Those before a rename, and those after it. The names may be parts of others."""
    http.put("/api/v1/settings/s/name", json={"name": "t", "version": "1.1"})
    http.put("/api/v1/rules/1/value", json={"value": 9})
    other = {"name": "s.t", "type": "int", "default_value": 7, "configurable_features": ["user"]}
    http.post("/api/v1/settings/declare", json=other)
    logs = [http.get("/api/v1/change_log", params={"setting": name}).json()["changes"] for name in ("s", "t")]
    assert logs[0] == logs[1]
    assert [change["settings"] for change in logs[0]] == [["s"], ["s"], ["s", "t"], ["t"]]


def test_requests_without_effect_are_not_logged(http: httpx.Client) -> None:
    """A declaration that is up to date, a refused rule, a feature that is moved to its position."""
    before = http.get("/api/v1/change_log").json()
    declared = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"], "metadata": {"a": 1}}
    assert http.post("/api/v1/settings/declare", json=declared).json() == {"outcome": "uptodate"}
    http.post("/api/v1/rules", json={"setting": "s", "feature_values": {"user": "jim"}, "value": 8})
    http.patch("/api/v1/context_features/user/index", json={"to_before": "user"})
    assert http.get("/api/v1/change_log").json() == before
