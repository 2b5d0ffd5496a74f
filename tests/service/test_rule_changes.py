"""Changes of several attributes of a rule with one request, and the reasons for deletions."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.http import http_client
from tests.support.service import WatchedService

RULE = "/api/v1/rules/1"
STARTS_AT, ENDS_AT = "2120-01-01T00:00:00+00:00", "2120-02-01T00:00:00+00:00"


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    """A client of a service with the setting `cache_size`, and two rules."""
    service.declare("cache_size", "int", 10, ["environment", "user"])
    service.add_rule("cache_size", 100, user="jim")
    service.add_rule("cache_size", 50, user="ann")
    with http_client(service.url) as client:
        yield client


def last_changes(http: httpx.Client, after: int) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = http.get("/api/v1/change_log", params={"after": after}).json()["changes"]
    return changes


def revision(http: httpx.Client) -> int:
    (last,) = http.get("/api/v1/change_log", params={"latest": True, "limit": 1}).json()["changes"]
    return int(last["revision"])


def test_one_request_changes_several_attributes_with_one_entry_in_the_log(http: httpx.Client) -> None:
    """Attributes that are not given stay as they are, and so does a limit of the period."""
    before = revision(http)
    body = {
        "feature_values": {"user": "jim", "environment": "prod"},
        "value": 7,
        "metadata": {"comment": "slow"},
        "starts_at": STARTS_AT,
        "ends_at": ENDS_AT,
    }
    assert http.patch(RULE, json=body).status_code == 204
    (change,) = last_changes(http, before)
    assert (change["action"], change["former"]["value"]) == ("rule changed", 100)
    assert change["new"] == {"rule_id": 1} | body
    assert http.patch(RULE, json={"starts_at": None}).status_code == 204
    changed = http.get(RULE).json()
    assert (changed["value"], changed["metadata"], changed["in_effect"]) == (7, {"comment": "slow"}, True)
    assert ("starts_at" in changed, changed["ends_at"]) == (False, ENDS_AT)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "one of feature_values, value, metadata, starts_at, ends_at is required"),
        ({"other": 1}, 422, "one of feature_values, value, metadata, starts_at, ends_at is required"),
        ({"value": 7, "feature_values": {}}, 422, "feature_values"),
        ({"value": "x", "metadata": {"a": 1}}, 400, "rule value is incompatible with setting type int"),
        ({"value": 7, "feature_values": {"theme": "x"}}, 400, "setting is not configurable"),
        ({"value": 7, "feature_values": {"user": "ann"}}, 409, "rule 2 has these conditions already"),
        ({"value": 7, "starts_at": ENDS_AT, "ends_at": STARTS_AT}, 422, "ends_at must be later than starts_at"),
        ({"value": 7, "starts_at": ENDS_AT}, 400, "ends_at must be later than starts_at"),
    ],
)
def test_of_a_refused_change_nothing_is_made(http: httpx.Client, body: Any, status: int, message: str) -> None:
    """Also if the rest of it is valid."""
    http.put(f"{RULE}/period", json={"starts_at": None, "ends_at": ENDS_AT})
    before = http.get(RULE).text
    response = http.patch(RULE, json=body)
    assert (response.status_code, message in response.text) == (status, True), response.text
    assert http.get(RULE).text == before


def test_the_same_conditions_are_no_change(http: httpx.Client) -> None:
    before = revision(http)
    assert http.patch(RULE, json={"feature_values": {"user": "jim"}}).status_code == 204
    assert last_changes(http, before) == []


def test_the_reason_for_a_deletion_is_in_the_log(http: httpx.Client) -> None:
    """Next to the former state of the rule. A link must be one that the console can show."""
    before = revision(http)
    refused = http.delete(RULE, params={"link": "javascript:alert(1)"})
    assert (refused.status_code, last_changes(http, before)) == (422, [])
    assert http.delete(RULE, params={"comment": "x" * 2001}).status_code == 422
    reason = {"comment": "the test is over", "link": "https://example.com/OPS-17"}
    assert http.delete(RULE, params=reason).status_code == 204
    assert http.delete("/api/v1/rules/2", params={"comment": ""}).status_code == 204
    first, second = last_changes(http, before)
    assert first["former"] == reason | {"rule_id": 1, "feature_values": {"user": "jim"}, "value": 100, "metadata": {}}
    assert "comment" not in second["former"]
