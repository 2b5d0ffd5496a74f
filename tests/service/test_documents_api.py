"""Export and import over HTTP."""

from typing import Any

import httpx
import pytest

from heksher_client.service import LocalService, store
from heksher_client.service.routes import documents
from heksher_client.service.routing import RequestError
from tests.support.http import http_request
from tests.support.service import WatchedService

SETTING: dict[str, Any] = {
    "name": "s",
    "type": "int",
    "default_value": 1,
    "configurable_features": ["environment", "user"],
    "metadata": {"owner": "shop"},
    "version": "1.0",
    "aliases": ["former"],
    "rules": [
        {"rule_id": 3, "feature_values": {"environment": "prod", "user": "jim"}, "value": 5, "metadata": {"a": [1]},
         "starts_at": None, "ends_at": None},
        {"rule_id": 7, "feature_values": {"user": "ann"}, "value": 6, "metadata": {}, "starts_at": None,
         "ends_at": None},
    ],
}  # fmt: skip
DOCUMENT: dict[str, Any] = {"heksher": 1, "context_features": ["environment", "user", "theme"], "settings": [SETTING]}


def post(service: LocalService, document: Any, **options: Any) -> httpx.Response:
    return http_request("POST", f"{service.url}/api/v1/import", json=document, params=options)


def revision(service: WatchedService) -> int:
    return int(http_request("GET", f"{service.url}/api/ready").json()["revision"])


def test_an_import_makes_a_service_that_exports_the_same(service: WatchedService) -> None:
    """A second import changes nothing. The response has each change, and the revision after them."""
    first = revision(service)
    response = post(service, DOCUMENT)
    assert [change["action"] for change in response.json()["changes"]] == [
        "setting declared",
        "aliases changed",
        "rule added",
        "rule added",
    ]
    assert response.json()["revision"] == first + 4 == revision(service)
    assert http_request("GET", f"{service.url}/api/v1/export").json() == DOCUMENT
    assert post(service, DOCUMENT).json() == {"revision": first + 4, "changes": []}


def test_a_dry_run_changes_nothing(service: WatchedService) -> None:
    """It returns the changes, and the revision that they are for."""
    first = revision(service)
    response = post(service, DOCUMENT, dry_run=True)
    assert (response.json()["revision"], len(response.json()["changes"]), revision(service)) == (first, 4, first)
    response = post(service, DOCUMENT, revision=first)
    assert (response.status_code, revision(service)) == (200, first + 4)


def test_an_import_for_another_revision_is_refused(service: WatchedService) -> None:
    first = revision(service)
    response = post(service, DOCUMENT, revision=first - 1)
    assert (response.status_code, "changed since" in response.text, revision(service)) == (412, True, first)


def test_an_exact_import_deletes_the_rest(service: WatchedService) -> None:
    """Rules, settings, aliases and context features."""
    service.declare("other", "int", 1, ["theme"])
    post(service, DOCUMENT)
    smaller = DOCUMENT | {
        "context_features": ["user", "environment"],
        "settings": [
            SETTING | {"aliases": [], "default_value": 2, "rules": SETTING["rules"][1:]},
            SETTING | {"name": "z", "aliases": [], "rules": []},
        ],
    }
    actions = [change["action"] for change in post(service, smaller, exact=True).json()["changes"]]
    assert sorted(actions) == [
        "aliases changed",
        "context feature deleted",
        "context feature moved",
        "rule deleted",
        "setting changed",
        "setting declared",
        "setting deleted",
    ]
    exported = http_request("GET", f"{service.url}/api/v1/export").json()
    assert exported["context_features"] == ["user", "environment"]
    assert [rule["rule_id"] for rule in exported["settings"][0]["rules"]] == [7]


def test_changed_and_new_rules_keep_their_settings(service: WatchedService) -> None:
    """Also if the setting is renamed by the same import, and an id is taken."""
    post(service, DOCUMENT)
    rules = [{**SETTING["rules"][0], "value": 8}, {"rule_id": 7, "feature_values": {"user": "tom"}, "value": 9}]
    renamed = SETTING | {"name": "t", "aliases": ["s", "former"], "version": "1.1", "rules": rules}
    response = post(service, DOCUMENT | {"settings": [renamed]})
    assert [change["action"] for change in response.json()["changes"]] == [
        "setting changed",
        "rule changed",
        "rule added",
    ]
    (exported,) = http_request("GET", f"{service.url}/api/v1/export").json()["settings"]
    assert [(rule["feature_values"]["user"], rule["value"]) for rule in exported["rules"]] == [
        ("jim", 8),
        ("ann", 6),
        ("tom", 9),
    ]


@pytest.mark.parametrize(
    ("document", "status", "path", "detail"),
    [
        ([], 422, [], "this is not a document"),
        (DOCUMENT | {"heksher": 2}, 422, ["heksher"], "heksher: unsupported document format 2"),
        (
            DOCUMENT | {"settings": [SETTING | {"default_value": "a"}]},
            422,
            ["settings", 0, "default_value"],
            'setting s: default_value: "a" is not of the type int',
        ),
        (
            DOCUMENT | {"settings": [SETTING | {"aliases": ["taken"]}]},
            409,
            ["settings", 0],
            "setting s: taken is an alias of renamed in the database",
        ),
    ],
)
def test_a_refused_document_has_a_place(
    service: WatchedService, document: Any, status: int, path: list[Any], detail: str
) -> None:
    """Nothing is changed."""
    service.declare("taken", "int", 1, ["user"])
    service.declare("renamed", "int", 1, ["user"], alias="taken", version="1.1")
    first = revision(service)
    for options in ({}, {"dry_run": True}):
        response = post(service, document, **options)
        assert (response.status_code, response.json()["path"], revision(service)) == (status, path, first)
        assert response.json()["detail"].startswith(detail)


def test_a_document_may_be_larger_than_other_bodies() -> None:
    """Up to its own limit."""
    metadata = {"a": "x" * 2_000_000}
    large = DOCUMENT | {"settings": [SETTING | {"metadata": metadata}]}
    rule = {"setting": "s", "feature_values": {"user": "x"}, "value": 1, "metadata": metadata}
    with LocalService() as service:
        assert post(service, large, dry_run=True).status_code == 200
        assert http_request("POST", f"{service.url}/api/v1/rules", json=rule).status_code == 413
    (route,) = [route for route in documents.router.routes if getattr(route, "path", "") == "/api/v1/import"]
    assert getattr(route, "max_body_size", None) == documents.MAX_DOCUMENT_BYTES == 64 << 20


def test_a_body_that_is_not_json_is_refused(service: WatchedService) -> None:
    """Also in a type that pages of other sites can send without a preflight request."""
    url = f"{service.url}/api/v1/import"
    assert http_request("POST", url, content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
    assert http_request("POST", url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 422


def test_an_import_that_fails_changes_nothing(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a setting nor the change log. Later changes are recorded as usual."""
    first = revision(service)

    def fail(*_: object, **__: object) -> None:
        raise RequestError(409, "no more rules")

    with monkeypatch.context() as patch:
        patch.setattr(store, "add_rule", fail)
        assert post(service, DOCUMENT).status_code == 409
    assert revision(service) == first
    service.declare("s", "int", 1, ["user"])
    assert revision(service) == first + 1
    log = http_request("GET", f"{service.url}/api/v1/change_log", params={"after": first}).json()["changes"]
    assert [(change["revision"], change["action"]) for change in log] == [(first + 1, "setting declared")]


def test_the_changes_of_an_import_are_in_the_log_in_order(service: WatchedService) -> None:
    """Each with its own revision, as if they were made one after the other."""
    first = revision(service)
    post(service, DOCUMENT)
    log = http_request("GET", f"{service.url}/api/v1/change_log", params={"after": first}).json()["changes"]
    assert [(change["revision"] - first, change["action"]) for change in log] == [
        (1, "setting declared"),
        (2, "aliases changed"),
        (3, "rule added"),
        (4, "rule added"),
    ]
    assert log[3]["new"]["feature_values"] == {"user": "ann"}
