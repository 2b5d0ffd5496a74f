"""The console in a browser without scripts."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy.exc import OperationalError

from tests.support.console import Browser, absolute, rule_values
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService


def test_settings_are_listed_and_searched(browser: Browser, service: WatchedService) -> None:
    """By names, aliases and metadata."""
    service.declare("other", "str", "x", ["user"], metadata={"team": "search"})
    service.call("PUT", "/api/v1/settings/other/name", {"name": "renamed", "version": "1.1"})
    assert browser.go("/console").status_code == 200
    assert "2 settings" in browser.text
    for q, shown in [("renamed", "renamed"), ("OTHER", "renamed"), ("search", "renamed"), ("shop", "s")]:
        browser.go(f"/console?q={q}")
        assert "1 setting matching" in browser.text
        assert f'/console/settings/{shown}"' in browser.page
    browser.go("/console?q=nothing")
    assert "0 settings" in browser.text


def test_the_page_of_a_setting_lists_its_rules_by_priority(browser: Browser) -> None:
    """And its declaration and last changes."""
    browser.go("/console/settings/s")
    assert re.findall(r'<tr id="rule-(\d+)">', browser.page) == ["3", "2", "1"]
    assert "Default value 7" in browser.text
    assert "owner shop" in browser.text
    assert browser.text.count("Rule added") == 3


def test_adding_changing_and_deleting_a_rule_can_be_undone(browser: Browser, service: WatchedService) -> None:
    """The last change is shown with an undo button. An undo can be undone as well."""
    browser.go("/console/settings/s")
    browser.submit("/console/settings/s/rules", **{"if.user": "ann", "if.environment": "", "value": "40"})
    assert "Rule added: 40 for user ann" in browser.text
    browser.submit("/console/rules/4/value", value="50")
    assert "Rule changed: 40 → changed to 50 for user ann" in browser.text
    assert rule_values(service) == {1, 2, 3, 50}
    browser.submit(undo(browser))
    assert rule_values(service) == {1, 2, 3, 40}
    browser.submit("/console/rules/4/delete")
    assert "Rule deleted: 40 for user ann" in browser.text
    assert rule_values(service) == {1, 2, 3}
    browser.submit(undo(browser))
    assert rule_values(service) == {1, 2, 3, 40}
    browser.submit(undo(browser))
    assert rule_values(service) == {1, 2, 3}
    browser.go("/console/changes?setting=s")
    assert browser.text.count("Rule deleted") == 2


def test_an_undo_restores_conditions_and_periods(browser: Browser, service: WatchedService) -> None:
    """Also those of a deleted rule, and not if another rule has the conditions by then."""
    browser.go("/console/settings/s")
    browser.submit("/console/settings/s/rules", **{"if.user": "ann", "value": "40"})
    period = {"starts_at": "2030-01-01T12:00:00+00:00", "ends_at": "2031-01-01T12:00:00+00:00"}
    service.call("PUT", "/api/v1/rules/4/period", period)
    service.call("PUT", "/api/v1/rules/4/conditions", {"feature_values": {"user": "eve"}})
    service.call("PUT", "/api/v1/rules/4/period", {"starts_at": None, "ends_at": None})
    revision = service.call("GET", "/api/v1/change_log?after=0&limit=1000").json()["changes"][-1]["revision"]

    def undo_revision(number: int) -> int:
        return browser.http.post(f"/console/changes/{number}/undo", data={"csrf": browser.csrf}).status_code

    assert [undo_revision(number) for number in (revision, revision - 1)] == [200, 200]
    rule = service.call("GET", "/api/v1/rules/4").json()
    assert (rule["feature_values"], rule["starts_at"], rule["in_effect"]) == (
        [["user", "ann"]], period["starts_at"], False
    )  # fmt: skip
    service.call("DELETE", "/api/v1/rules/4")
    assert undo_revision(revision + 3) == 200
    rule = service.call("GET", "/api/v1/rules/4").json()
    assert {name: rule[name] for name in period} == period
    service.call("PUT", "/api/v1/rules/4/conditions", {"feature_values": {"user": "eve"}})
    service.add_rule("s", 1, user="ann")
    assert undo_revision(revision + 5) == 409


def test_a_restored_rule_has_its_former_id_and_history(browser: Browser, service: WatchedService) -> None:
    """So the changes before its deletion can be undone as well. The next new rule has another id."""
    browser.go("/console/settings/s")
    browser.submit("/console/rules/3/value", value="30")
    changed = undo(browser)
    browser.submit("/console/rules/3/delete")
    browser.submit(undo(browser))
    assert service.call("GET", "/api/v1/rules/3").json()["value"] == 30
    browser.go("/console/rules/3")
    for action in ("Rule added", "Rule changed", "Rule deleted"):
        assert action in browser.text
    assert browser.submit(changed).status_code == 200
    assert service.call("GET", "/api/v1/rules/3").json()["value"] == 3
    assert service.add_rule("s", 1, user="ann") > 3


def undo(browser: Browser) -> str:
    """Return the action of the undo button for the last change."""
    found = re.search(r'id="done".*?action="(/console/changes/\d+/undo)"', browser.page, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (("PUT", "/api/v1/rules/1/value", {"value": 9}), "has been changed since"),
        (("DELETE", "/api/v1/rules/1", None), "has been changed since"),
        (("DELETE", "/api/v1/settings/s", None), "no longer exists"),
    ],
)
def test_a_change_is_not_undone_if_the_rule_has_changed_since(
    browser: Browser, service: WatchedService, operation: tuple[str, str, Any], message: str
) -> None:
    browser.go("/console/settings/s")
    browser.submit("/console/rules/1/value", value="5")
    service.call(*operation)
    assert browser.submit(undo(browser)).status_code == 409
    assert message in browser.text


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            ("POST", "/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}),
            "the same conditions",
        ),
        (("PUT", "/api/v1/settings/s/type", {"type": 'Enum[1,3,7]', "version": "2.0"}), "another type"),
        (
            ("PUT", "/api/v1/settings/s/configurable_features",
             {"configurable_features": ["environment"], "version": "2.0"}), "other configurable features",
        ),
    ],
)  # fmt: skip
def test_a_deleted_rule_is_not_restored_if_it_no_longer_fits(
    browser: Browser, service: WatchedService, operation: tuple[str, str, Any], message: str
) -> None:
    """The page says why."""
    service.call("DELETE", "/api/v1/rules/3")
    browser.go("/console/settings/s")
    browser.submit("/console/rules/2/delete")
    service.call(*operation)
    assert browser.submit(undo(browser)).status_code == 409
    assert message in browser.text


def test_only_changes_of_rules_can_be_undone(browser: Browser, service: WatchedService) -> None:
    browser.go("/console/settings/s")
    for revision, status in [(1, 409), (999, 404)]:
        response = browser.http.post(f"/console/changes/{revision}/undo", data={"csrf": browser.csrf})
        assert response.status_code == status


@sqlite_only
@pytest.mark.parametrize(
    ("fields", "message", "where"),
    [
        ({"if.user": "ann", "value": "x"}, "not a whole number", 'id="value-error"'),
        ({"if.user": "ann", "value": ""}, "a value is required", 'id="value-error"'),
        ({"if.user": "a\tb", "value": "5"}, "without control characters", 'id="if-user-error"'),
        ({"if.user": "x" * 256, "value": "5"}, "must have 1 to 255 characters", 'id="if-user-error"'),
        ({"if.user": "", "value": "5"}, "at least one condition is required", 'role="alert"'),
        ({"if.user": "jim", "value": "5"}, "A rule with these conditions already exists", 'role="alert"'),
    ],
)
def test_an_error_is_shown_next_to_its_input(browser: Browser, fields: Any, message: str, where: str) -> None:
    """The form keeps its content."""
    browser.go("/console/settings/s")
    assert browser.submit("/console/settings/s/rules", **fields).status_code == 422
    assert message in browser.text
    assert where in browser.page
    assert f'name="if.user" list="suggestions-user" value="{fields["if.user"]}"' in browser.page
    assert f'name="value" inputmode="decimal" autocomplete="off" value="{fields["value"]}"' in browser.page


@sqlite_only
def test_an_invalid_new_value_is_reported_at_its_rule(browser: Browser) -> None:
    """On the page of the rule."""
    browser.go("/console/settings/s")
    assert browser.submit("/console/rules/2/value", value="x").status_code == 422
    assert "Rule 2" in browser.text
    assert 'id="value-error">not a whole number' in browser.page


def test_an_action_of_a_rule_that_no_longer_exists_results_in_an_error_page(browser: Browser) -> None:
    browser.go("/console/settings/s")
    response = browser.http.post("/console/rules/99/delete", data={"csrf": browser.csrf})
    assert (response.status_code, "this rule no longer exists" in response.text) == (404, True)


def test_the_explanation_shows_the_outcome_of_each_rule(browser: Browser) -> None:
    """The winner, the features by which other rules lose, and the rules that do not match."""
    browser.go("/console/settings/s?on.environment=prod&on.user=jim")
    assert "The value is 3 : rule 3 wins." in browser.text
    assert "loses : rule 3 has a condition on environment, and this rule does not" in browser.text
    assert "loses : rule 3 has a condition on user, and this rule does not" in browser.text
    browser.go("/console/settings/s?on.user=ann")
    assert "The value is 7 : no rule matches, so it is the default value." in browser.text
    assert "3 rules do not match." in browser.text
    browser.go("/console/settings/s?on.user=ann&others=1")
    assert "does not match : environment is not given and user is ann" in browser.text
    assert "rules do not match." not in browser.text


@sqlite_only
@pytest.mark.parametrize(
    "path",
    [
        "/console/changes?before=99999999999999999999",
        "/console/changes?before=abc",
        "/console/settings/s?done=99999999999999999999",
    ],
)
def test_an_invalid_address_results_in_an_error_page(browser: Browser, path: str) -> None:
    response = browser.go(path)
    assert (response.status_code, "The request failed" in response.text) == (422, True)


@pytest.mark.parametrize("name", ["nosuch", "not-valid", "with%20space", "%00", "x" * 300, "%ED%A0%80"])
def test_l4_the_page_of_a_setting_with_an_invalid_name_does_not_exist(browser: Browser, name: str) -> None:
    """As the page of each other setting that does not exist."""
    browser.go("/console/settings/s")
    form = {"csrf": browser.csrf, "if.user": "ann", "value": "5"}
    added = browser.http.post(f"/console/settings/{name}/rules", data=form)
    assert (added.status_code, "does not exist any more. You entered 5." in added.text) == (404, True)
    response = browser.go(f"/console/settings/{name}")
    assert (response.status_code, "does not exist" in response.text) == (404, True)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_texts_that_databases_refuse_are_compared_as_all_others(browser: Browser) -> None:
    """Texts of addresses and forms: NUL, and patterns that are too long."""
    browser.go("/console/settings/s")
    csrf = browser.csrf
    for text in ("\0", "s\0", '"', 's", "s', "\\", "%", "_" * 20_000, "a" * 60_000):
        given = quote(text)
        assert browser.go(f"/console/changes?setting={given}").status_code == 200
        assert "No changes." in browser.text
        for path in ("/console?q=", "/console/settings/s?find=", "/console/settings/s?on.user="):
            assert browser.go(f"{path}{given}").status_code == 200
        for action, fields, status in (
            ("/console/rules/99/value", {"setting": text, "value": "5"}, 404),
            ("/console/rules/1/value", {"etag": text, "value": "5"}, 409),
            ("/console/rules/1/value", {"value": text}, 422),
            ("/console/settings/s/rules", {"if.user": f"\x01{text}", "value": "5"}, 422),
            ("/console/login", {"token": text}, 422),
            ("/console/rules/1/delete", {"csrf": text}, 403),
        ):
            form = {"csrf": csrf} | fields
            assert browser.http.post(action, data=form).status_code == status, (action, fields)


def test_the_changes_of_a_setting_are_not_those_of_similar_names(browser: Browser, service: WatchedService) -> None:
    """Other case, and characters that have a meaning in patterns. A change of the other setting hides no undo."""
    for name in ("my_cache", "My_Cache", "my.cache", "myXcache", "my_cache.x"):
        service.declare(name, "int", 7, ["user"])
    log = service.call("GET", "/api/v1/change_log?setting=my_cache").json()["changes"]
    assert [change["settings"] for change in log] == [["my_cache"]]
    browser.go("/console/changes?setting=my_cache")
    assert browser.text.count("setting declared") == 1
    browser.go("/console/settings/my_cache")
    added = browser.submit("/console/settings/my_cache/rules", **{"if.user": "jim", "value": "1"})
    service.add_rule("My_Cache", 2, user="jim")
    browser.go(added.url.raw_path.decode())
    assert "Rule added: 1 for user jim" in browser.text


@sqlite_only
@pytest.mark.parametrize("action", ["/console/changes/99999999999999999999/undo", "/console/rules/1.0/delete"])
def test_a_form_with_an_invalid_address_is_refused(browser: Browser, action: str) -> None:
    browser.go("/console/settings/s")
    assert browser.http.post(action, data={"csrf": browser.csrf}).status_code == 422


@sqlite_only
def test_a_form_may_have_many_fields(browser: Browser, service: WatchedService) -> None:
    """As many as a type has flags."""
    flags = [f"f{i}" for i in range(1200)]
    service.declare("many", f"Flags{json.dumps(flags)}", [], ["user"])
    browser.go("/console/settings/many")
    response = browser.submit(
        "/console/settings/many/rules", **{"if.user": "jim", "value": [json.dumps(flag) for flag in flags]}
    )
    assert (response.status_code, "Rule added" in browser.text) == (200, True)


@sqlite_only
def test_an_unavailable_database_results_in_an_error_page(
    browser: Browser, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.go("/console/settings/s")

    def connect(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(type(service.database), "_connect", connect)
    response = browser.submit("/console/rules/1/delete")
    assert (response.status_code, "the database is not available" in browser.text) == (500, True)


def test_an_undo_distinguishes_1_from_true(browser: Browser, service: WatchedService) -> None:
    """They are equal in Python."""
    service.declare("e", "Enum[1,true,2]", 2, ["user"])
    browser.go("/console/settings/e")
    browser.submit("/console/settings/e/rules", **{"if.user": "jim", "value": "1"})
    former = undo(browser)
    service.call("PUT", "/api/v1/rules/4/value", {"value": True})
    assert browser.submit(former).status_code == 409


@sqlite_only
def test_a_long_value_can_be_displayed_completely(browser: Browser, service: WatchedService) -> None:
    service.declare("long", "str", "x" * 500 + "end", ["user"])
    browser.go("/console/settings/long")
    assert "xend" in browser.page


@sqlite_only
def test_the_api_page_loads_nothing_from_other_hosts(browser: Browser) -> None:
    """Their scripts could use the console."""
    page = browser.http.get("/docs")
    assert (page.status_code, "//" in page.text.replace("<!doctype", "")) == (200, False)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assets = re.findall(r'"(/console/assets/[^"]*)"', absolute(page))
    assert len(assets) == 4
    for asset in assets:
        assert browser.http.get(asset).status_code == 200
    assert browser.http.get("/").url.path == "/console"
    assert browser.http.get("/redoc").status_code == 404


@sqlite_only
def test_emoji_are_shown_as_they_are(browser: Browser, service: WatchedService) -> None:
    """In descriptions and values. Characters that change the direction of text stay escapes."""
    family = "\U0001f469\u200d\U0001f4bb"
    service.declare("t", "str", f"{family} \u26a0\ufe0f", ["user"], metadata={"description": f"{family}\u202e"})
    browser.go("/console/settings/t")
    assert f'"{family} \u26a0\ufe0f"' in browser.text
    assert f"{family}\\u202e" in browser.text


def test_texts_are_escaped(browser: Browser, service: WatchedService) -> None:
    """In declarations, rules, and addresses."""
    evil = "<script>alert(1)</script>"
    service.declare("t", "str", evil, ["user"], metadata={"note": evil})
    service.add_rule("t", evil, user="jim")
    for path in ("/console", "/console/settings/t?on.user=<script>", "/console/changes", f"/console?q={evil}"):
        assert "<script>" not in browser.http.get(path).text.replace("<script src=", "")


@sqlite_only
def test_the_description_of_a_setting_is_below_its_name(browser: Browser, service: WatchedService) -> None:
    """Other metadata that are texts are shown without quotes, and invisible characters as escapes."""
    override = "\u202e"
    metadata = {
        "description": f"First line\nsecond {override} line",
        "owner": "shop",
        "limits": [1, "a"],
        "note": "x" * 400,
    }
    service.declare("d", "int", 1, ["user"], metadata=metadata)
    browser.go("/console/settings/d")
    assert "d Edit setting First line second \\u202e line Type" in browser.text
    assert 'owner shop limits [1,"a"]' in browser.text
    assert f"{'x' * 300}… {'x' * 400}" in browser.text
    for character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        service.add_rule("d", 2, user=f"a{character}b")
        page = browser.go(f"/console/settings/d?find={character}").text
        assert f"<b>a\\u{ord(character):04x}b</b>" in page
        assert f'value="{character}"' in page  # an input, which must not change it


@sqlite_only
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/console/settings/nosuch", "the setting nosuch does not exist"),
        ("/console/nosuch", "It may have been deleted or renamed, or the address is wrong."),
    ],
)
def test_a_page_that_does_not_exist_says_so(browser: Browser, path: str, message: str) -> None:
    """With a link to the settings."""
    response = browser.go(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "This page does not exist" in browser.text
    assert message in browser.text
    assert 'href="/console">Go to the settings' in browser.page
    assert browser.http.post(path, data={"csrf": browser.csrf}).status_code in (404, 405)


@sqlite_only
@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("changes/5/undo", "changes"),
        ("changes/5/undo/all", "changes"),
        ("logout", ""),
        ("features/user/move", "features"),
        ("tokens/ci/revoke", "tokens"),
        ("rules/1/value", "rules/1"),
        ("rules/1/delete", "rules/1"),
        ("settings/s/edit/type", "settings/s/edit"),
        ("settings/s/edit/aliases/delete", "settings/s/edit"),
    ],
)
def test_the_address_of_a_form_leads_to_its_page(browser: Browser, address: str, page: str) -> None:
    """As a browser loads it again, or after a login."""
    response = browser.go(f"/console/{address}")
    assert (response.status_code, response.url.path) == (200, f"/console/{page}".rstrip("/"))
    assert browser.http.put(f"/console/{address}", headers={"Content-Type": "text/plain"}).status_code == 405
