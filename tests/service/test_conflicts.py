"""Two operators change the same rule or setting: the second one sees the conflict."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.support.console import Browser
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    """A client of a service with the setting `cache_size`, its rule 1, an alias, and metadata of both."""
    service.declare("cache_size", "int", 10, ["environment", "user"], metadata={"owner": "shop"})
    service.call("PUT", "/api/v1/settings/cache_size/aliases/cache_limit")
    service.add_rule("cache_size", 100, user="jim")
    service.call("PUT", "/api/v1/rules/1/metadata", {"metadata": {"ticket": "OPS-17"}})
    with http_client(service.url) as client:
        yield client


def changes_of(what: str) -> list[str]:
    return sorted(name for name in OPERATIONS if what in name and not name.startswith("GET"))


def send(http: httpx.Client, operation: str, if_match: str | None) -> httpx.Response:
    example = OPERATIONS[operation]
    headers = {} if if_match is None else {"If-Match": if_match}
    return http.request(example.method, example.path, json=example.body, headers=headers)


RULE, SETTING = "/api/v1/rules/1", "/api/v1/settings/cache_size"
CHANGES = [(name, RULE) for name in changes_of("/rules/{rule_id}")] + [
    (name, SETTING) for name in changes_of("/settings/{name}")
]


@pytest.mark.parametrize("if_match", ["*", '"x"', 'W/"x"', ""])
def test_l15_no_change_ignores_a_precondition(http: httpx.Client, if_match: str) -> None:
    """Without an ETag, `If-Match` is refused before anything else is checked."""
    before = http.get("/api/v1/change_log").json()
    without_etag = [name for name in changes_of("") if name not in dict(CHANGES)]
    assert len(without_etag) == 8
    for operation in without_etag:
        response = send(http, operation, if_match)
        assert (response.status_code, "`If-Match`" in response.text) == (412, True), operation
    assert http.get("/api/v1/change_log").json() == before


@sqlite_only
@pytest.mark.unmeasured
@pytest.mark.parametrize(("operation", "path"), CHANGES)
def test_l15_a_change_of_what_must_not_exist_is_refused(http: httpx.Client, operation: str, path: str) -> None:
    """With `If-None-Match`. Another ETag does not matter."""
    etag = http.get(path).headers["etag"]
    example = OPERATIONS[operation]
    for excluded in ("*", f'"x", {etag}', f"W/{etag}"):
        response = http.request(example.method, example.path, json=example.body, headers={"If-None-Match": excluded})
        assert response.status_code == 412
    response = http.request(example.method, example.path, json=example.body, headers={"If-None-Match": '"x"'})
    assert response.status_code != 412


WITH_METADATA = {"rules/{rule_id}": RULE, "settings/{name}": SETTING}


@sqlite_only
@pytest.mark.unmeasured
@pytest.mark.parametrize(("operation", "path"), CHANGES)
def test_l15_a_change_with_the_etag_of_a_former_state_is_refused(http: httpx.Client, operation: str, path: str) -> None:
    """Of a rule or of a setting. Nothing is changed."""
    former = http.get(path).headers["etag"]
    if path == RULE:
        http.put(f"{RULE}/value", json={"value": 101}).raise_for_status()
    else:
        http.put(f"{SETTING}/metadata", json={"metadata": {"owner": "x"}, "version": "1.01"})
        http.put(f"{SETTING}/name", json={"name": "other", "version": "1.02"}).raise_for_status()
        http.put(f"{SETTING}/name", json={"name": "cache_size", "version": "1.03"}).raise_for_status()
    before = http.get("/api/v1/change_log").json()
    response = send(http, operation, former)
    assert (response.status_code, "changed since it was read" in response.text) == (412, True)
    assert http.get("/api/v1/change_log").json() == before


FORMS = ("W/{etag}", '"other", {etag}', "*", None)
CURRENT: list[tuple[str, str, str | None]] = [(*change, "{etag}") for change in CHANGES]
CURRENT += [(f"PUT /api/v1/{what}/metadata", path, form) for what, path in WITH_METADATA.items() for form in FORMS]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("operation", "path", "form"), CURRENT)
def test_l15_a_change_with_the_current_etag_or_without_one_is_made(
    http: httpx.Client, operation: str, path: str, form: str | None
) -> None:
    """Other rules of the setting, and the order of the context features, may have changed."""
    etag = http.get(path).headers["etag"]
    http.post("/api/v1/rules", json={"setting": "cache_size", "feature_values": {"user": "ann"}, "value": 1})
    http.patch("/api/v1/context_features/user/index", json={"to_before": "environment"}).raise_for_status()
    if "/type" in operation or "configurable" in operation or "/name" in operation or "{name}/metadata" in operation:
        assert http.get(SETTING).headers["etag"] == etag
    assert send(http, operation, form and form.format(etag=etag)).status_code == 204


def test_l15_an_etag_distinguishes_all_that_operators_see(http: httpx.Client) -> None:
    """Also 1 from 1.0, which are equal as values."""
    seen = set()
    for method, path, body in (
        ("PUT", f"{RULE}/value", {"value": 1}),
        ("PUT", f"{RULE}/value", {"value": 1.0}),
        ("PUT", f"{RULE}/metadata/ticket", {"value": "OPS-18"}),
        ("DELETE", f"{RULE}/metadata", None),
    ):
        http.request(method, path, json=body).raise_for_status()
        seen.add(http.get(RULE).headers["etag"])
    assert len(seen) == 4
    assert send(http, "DELETE /api/v1/rules/{rule_id}", '"nonsense"').status_code == 412
    assert http.delete("/api/v1/rules/99", headers={"If-Match": '"nonsense"'}).status_code == 404


# -- the console -------------------------------------------------------------------------------------------------------


class Operator(Browser):
    """An operator whose page stays as it was loaded."""

    def submit_shown(self, action: str, **fields: str) -> httpx.Response:
        """Submit a form with all its inputs as they are."""
        form = self.page.partition(f'action="{action}"')[2].partition("</form>")[0]
        inputs = [dict(re.findall(r'([a-z]+)="([^>]*?)"(?=[ >])', each)) for each in re.findall("<input [^>]*>", form)]
        shown = {each["name"]: each.get("value", "") for each in inputs}
        return self.submit(action, **{**shown, **fields})


@pytest.fixture
def operators(http: httpx.Client, service: WatchedService) -> Iterator[tuple[Operator, Operator]]:
    """Two operators who have loaded the page of the setting."""
    pair = Operator(service.url), Operator(service.url)
    for operator in pair:
        operator.go("/console/settings/cache_size")
    yield pair
    for operator in pair:
        operator.http.close()


SAVE, DELETE = "/console/rules/1/value", "/console/rules/1/delete"


def test_l15_the_second_operator_sees_both_values_and_decides(operators: tuple[Operator, Operator]) -> None:
    """Nothing is overwritten silently. Replacing the value replaces the one that was shown then."""
    first, second = operators
    assert first.submit_shown(SAVE, value="200").status_code == 200
    response = second.submit_shown(SAVE, value="300")
    assert (response.status_code, "previously" in second.text) == (409, False)
    assert "This rule has been changed since the page was loaded" in second.text
    assert re.search("200 for user jim .* 300 for user jim", second.text)
    assert first.submit_shown(SAVE, value="201").status_code == 200
    assert second.submit_shown(SAVE).status_code == 409
    assert re.search("201 for user jim .* 300 for user jim", second.text)
    assert second.submit_shown(SAVE).status_code == 200
    assert "Rule changed: 201 → changed to 300 for user jim" in second.text


def test_l15_a_rule_that_has_changed_is_not_deleted(
    operators: tuple[Operator, Operator], service: WatchedService
) -> None:
    """Unless the operator decides so."""
    first, second = operators
    first.submit_shown(SAVE, value="200")
    assert second.submit_shown(DELETE).status_code == 409
    assert "200 for user jim" in second.text
    assert service.call("GET", "/api/v1/query").json()["settings"]["cache_size"]["rules"] != []
    assert second.submit_shown(DELETE).status_code == 200
    assert first.submit_shown(DELETE).status_code == 404
    assert "this rule no longer exists" in first.text


def test_l15_a_value_for_a_deleted_rule_is_not_lost(
    operators: tuple[Operator, Operator], service: WatchedService
) -> None:
    """The form for a new rule contains it, with the conditions of the deleted rule."""
    first, second = operators
    second.submit_shown(DELETE)
    assert first.submit_shown(SAVE, value="512").status_code == 409
    assert "while you edited it, so it was not changed. You entered 512." in first.text
    assert first.submit_shown("/console/settings/cache_size/rules").status_code == 200
    (rule,) = service.call("GET", "/api/v1/query").json()["settings"]["cache_size"]["rules"]
    assert (rule["value"], rule["context_features"]) == (512, [["user", "jim"]])


def test_l15_a_value_for_a_deleted_setting_is_not_lost(
    operators: tuple[Operator, Operator], service: WatchedService
) -> None:
    """The error contains it."""
    service.call("DELETE", "/api/v1/settings/cache_size")
    first, second = operators
    assert first.submit_shown(SAVE, value="512").status_code == 404
    assert "this rule no longer exists. You entered 512." in first.text
    assert second.submit("/console/settings/cache_size/rules", **{"if.user": "ann", "value": "513"}).status_code == 404
    assert "the setting cache_size does not exist any more. You entered 513." in second.text


def test_l15_a_change_of_the_metadata_is_a_conflict_as_well(
    operators: tuple[Operator, Operator], service: WatchedService
) -> None:
    """They are shown with the value."""
    service.call("PUT", "/api/v1/rules/1/metadata", {"metadata": {"until": "2027-01-01"}})
    assert operators[0].submit_shown(SAVE, value="200").status_code == 409
    assert "until: 2027-01-01" in operators[0].text


def test_l15_changes_of_other_rules_are_no_conflict(operators: tuple[Operator, Operator]) -> None:
    first, second = operators
    first.submit("/console/settings/cache_size/rules", **{"if.user": "ann", "value": "1"})
    assert second.submit_shown(SAVE, value="200").status_code == 200
