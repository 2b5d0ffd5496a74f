"""Editing rules in the console, in a browser without scripts: with previews, and with conflicts."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from heksher_client.service import store
from heksher_client.service.console.protection import is_protected
from heksher_client.service.declarations import Declaration
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule, StoredSetting
from heksher_client.service.tokens import Role, add_token
from tests.support.console_editor import SETTING, Editor, log, rules, selection, set_metadata, stored_rule
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

# -- one rule ----------------------------------------------------------------------------------------------------------


def test_all_of_a_rule_is_changed_in_one_step(editor: Editor, service: WatchedService) -> None:
    """Conditions, value, period, comment and link, with one entry in the change log. Other metadata stay."""
    set_metadata(service, "rules/2", ticket="OPS-1")
    before = len(log(service))
    editor.go("/console/rules/2?back=/console/settings/s%3Ffind=jim")
    assert "ticket: OPS-1" in editor.text
    response = editor.press(
        "Save", if__user=" ann ", if__environment="dev", value="20", starts_at="2020-01-01T00:00",
        ends_at="2999-12-31T23:59:59", comment="load test", link="https://tickets/1",
    )  # fmt: skip
    assert str(response.url).endswith(f"/console/settings/s?find=jim&done={before + 1}#done")
    assert rules(service)["environment=dev,user=ann"] == 20
    rule = stored_rule(service, 2)
    assert rule.metadata == {"ticket": "OPS-1", "comment": "load test", "link": "https://tickets/1"}
    assert rule.period.as_json() == {"starts_at": "2020-01-01T00:00:00+00:00", "ends_at": "2999-12-31T23:59:59+00:00"}
    assert len(log(service)) == before + 1
    editor.submit(f"/console/changes/{before + 1}/undo")
    assert (rules(service)["user=jim"], stored_rule(service, 2).period.as_json()) == (2, {})
    editor.submit(f"/console/changes/{before + 2}/undo")
    editor.go("/console/rules/2")
    assert editor.field("starts_at") == ["2020-01-01T00:00"]
    assert editor.field("ends_at") == ["2999-12-31T23:59:59"]
    editor.press("Save", starts_at="", ends_at="", comment="", link="")
    rule = stored_rule(service, 2)
    assert (rule.metadata, rule.period.as_json()) == ({"ticket": "OPS-1"}, {})


def test_a_change_that_changes_nothing_is_not_logged(editor: Editor, service: WatchedService) -> None:
    """Not even if the time of the rule is more exact than the input, or a comment is not a text."""
    set_metadata(service, "rules/2", comment={"by": "a script"})
    assert service.database is not None
    with service.database.begin() as connection:
        rule = store.rule(connection, 2)
        setting = store.setting(connection, "s")
        assert rule is not None
        assert setting is not None
        ends_at = datetime(2999, 1, 1, 12, 30, 15, 123456, UTC)
        store.change_rule(connection, setting, rule, period=rule.period._replace(ends_at=ends_at))
    before = log(service)
    editor.go("/console/rules/2")
    assert editor.field("ends_at") == ["2999-01-01T12:30:15"]
    assert 'comment: {"by":"a script"}' in editor.text
    assert editor.press("Save").status_code == 200
    assert log(service) == before


@sqlite_only
@pytest.mark.parametrize(
    ("entered", "field", "message"),
    [
        ({"value": "x"}, "value", "not a whole number"),
        ({"if__user": "a\tb"}, "if-user", "without control characters"),
        ({"if__user": ""}, "", "at least one condition is required"),
        ({"starts_at": "tomorrow"}, "starts_at", "not a date and a time"),
        ({"ends_at": "0001-01-01T00:00+14:00"}, "ends_at", "not a date and a time"),
        ({"starts_at": "2026-12-01", "ends_at": "2026-12-01T00:00Z"}, "ends_at", "the end must be after the start"),
        ({"link": "javascript:alert(1)"}, "link", "a link must begin with http:// or https://"),
        ({"comment": "x" * 2001}, "comment", "may have at most 2,000 characters"),
    ],
)
@pytest.mark.parametrize("path", ["/console/rules/2", "/console/settings/s/rules?copy=2"])
def test_an_error_is_shown_at_its_field(
    editor: Editor, service: WatchedService, path: str, entered: dict[str, str], field: str, message: str
) -> None:
    """Of the page of a rule, and of the form for a new one. The form keeps its content, and nothing changes."""
    before = log(service)
    editor.go(path)
    is_new = "copy" in path
    response = editor.press("Add rule" if is_new else "Save", **({"if__user": "ann"} | entered))
    assert (response.status_code, message in editor.text) == (422, True)
    assert (f'id="{field}-error"' if field else 'role="alert"') in editor.page
    for name, value in entered.items():
        assert editor.field(name.replace("__", ".")) == [value.strip()]
    assert log(service) == before


@pytest.mark.parametrize(("name", "content"), [("link", "ftp://x"), ("ends_at", "tomorrow")])
def test_an_error_in_the_period_or_the_reason_of_a_new_rule_is_visible(editor: Editor, name: str, content: str) -> None:
    """Its input has the focus. On the page of a setting, these inputs can be hidden."""
    editor.go("/console/settings/s")
    assert "<summary>Period and reason</summary>" in editor.page
    assert editor.press("Add rule", if__user="ann", **{name: content}).status_code == 422
    assert "<details>" not in editor.page
    assert re.findall('id="([^"]+)"[^>]* autofocus', editor.page) == [name]


def test_a_duplicate_shows_the_period_and_the_reason(editor: Editor, service: WatchedService) -> None:
    set_metadata(service, "rules/3", comment="why")
    editor.go("/console/settings/s/rules?copy=3")
    assert (editor.field("comment"), "<details>" in editor.page) == (["why"], False)


def test_another_rule_with_the_same_conditions_is_linked(editor: Editor) -> None:
    editor.go("/console/rules/2")
    assert editor.press("Save", if__environment="prod", if__user="").status_code == 422
    assert "A rule with these conditions already exists: rule 1" in editor.text.replace(" :", ":")
    editor.follow("rule 1")
    assert editor.field("value") == ["1"]
    editor.go("/console/settings/s/rules")
    assert editor.press("Add rule", if__user="jim").status_code == 422
    assert "/console/rules/2?back=" in editor.page


def test_a_new_value_does_not_keep_the_comment_and_the_link_of_another(editor: Editor, service: WatchedService) -> None:
    """As on the command line. With the same value, they stay until others replace them."""
    editor.go("/console/settings/s/rules")
    editor.press("Add rule", if__user="ann", value="4", comment="first", link="http://x")
    assert stored_rule(service, 4).metadata == {"comment": "first", "link": "http://x"}
    editor.go("/console/settings/s/rules")  # for its CSRF token
    form = {"csrf": editor.csrf, "value": "4"}
    before = log(service)
    editor.http.post("/console/rules/4/value", data=form)
    assert log(service) == before
    editor.http.post("/console/rules/4/value", data=form | {"comment": "second"})
    assert log(service)[0]["new"]["metadata"] == {"comment": "second", "link": "http://x"}
    editor.http.post("/console/rules/4/value", data=form | {"value": "5", "comment": "third"})
    assert log(service)[0]["new"]["metadata"] == {"comment": "third"}
    editor.http.post("/console/rules/4/value", data=form | {"value": "6"})
    assert log(service)[0]["new"]["metadata"] == {}
    response = editor.http.post("/console/rules/4/value", data=form | {"link": "ftp://x", "comment": "fourth"})
    assert (response.status_code, 'id="link-error"' in response.text) == (422, True)
    assert 'value="fourth"' in response.text
    assert stored_rule(service, 4).value == 6


def test_the_comment_of_a_deletion_is_in_its_log_entry_alone(editor: Editor, service: WatchedService) -> None:
    """No rule is left to have it, and an undo restores the former comment."""
    editor.go("/console/rules/2")
    editor.press("Save", comment="added for a test")
    editor.go("/console/rules/2")
    editor.press("Delete rule", comment="the test is over", link="https://tickets/2")
    entry = log(service)[0]
    assert entry["former"] == {
        "rule_id": 2, "feature_values": {"user": "jim"}, "value": 2, "metadata": {"comment": "added for a test"},
        "comment": "the test is over", "link": "https://tickets/2",
    }  # fmt: skip
    assert entry["new"] is None
    assert editor.http.post(f"/console/changes/{entry['revision']}/undo", data={"csrf": editor.csrf}).status_code == 200
    assert log(service)[0]["new"]["metadata"] == {"comment": "added for a test"}


def test_a_rule_is_not_deleted_with_an_invalid_link(editor: Editor, service: WatchedService) -> None:
    editor.go("/console/rules/2")
    response = editor.press("Delete rule", link="OPS-1")
    assert (response.status_code, "a link must begin with http" in response.text) == (422, True)
    assert rules(service)["user=jim"] == 2


def test_a_duplicate_begins_with_the_content_of_the_rule(editor: Editor, service: WatchedService) -> None:
    """Its other metadata are copied as well."""
    set_metadata(service, "rules/3", comment="why", protected=True)
    editor.go("/console/rules/3?back=/console/settings/s%3Ffind=jim")
    editor.follow("Duplicate")
    assert [editor.field(name) for name in ("if.environment", "if.user", "value", "comment")] == [
        ["prod"], ["jim"], ["3"], ["why"],
    ]  # fmt: skip
    assert "protected: true" in editor.text
    editor.press("Add rule", if__user="ann", comment="like that of jim")
    response = editor.press("Confirm")
    assert "find=jim" in str(response.url)
    assert stored_rule(service, 4).metadata == {"protected": True, "comment": "like that of jim"}
    assert rules(service)["environment=prod,user=ann"] == 3


@sqlite_only
@pytest.mark.parametrize("text", ["one\r\ntwo", "one\rtwo\n", "one\ntwo"])
def test_a_text_keeps_its_line_breaks(editor: Editor, service: WatchedService, text: str) -> None:
    """Browsers send all of them as CRLF. A change of something else leaves the text as it is, and so does a copy."""
    service.declare("t", "str", text, ["user"])
    service.add_rule("t", text, user="jim")
    sent = re.sub("\r\n?|\n", "\r\n", text)
    editor.go("/console/rules/4")
    editor.press("Save", value=sent, comment="edited")
    assert (stored_rule(service, 4).value, stored_rule(service, 4).metadata) == (text, {"comment": "edited"})
    editor.http.post("/console/rules/4/value", data={"csrf": editor.csrf, "value": sent, "comment": "changed"})
    assert (stored_rule(service, 4).value, stored_rule(service, 4).metadata) == (text, {"comment": "changed"})
    editor.go(selection(service, 4).replace("/s/", "/t/"))
    editor.press("Set value", value=sent, comment="selected")
    assert (stored_rule(service, 4).value, stored_rule(service, 4).metadata) == (text, {"comment": "selected"})
    editor.go("/console/settings/t/rules?copy=4")
    editor.press("Add rule", if__user="ann", value=sent)
    assert stored_rule(service, 5).value == text
    editor.go("/console/settings/t/edit")
    assert editor.press("Save default value", value=sent).status_code == 422
    assert "the setting has this already" in editor.text
    editor.go("/console/rules/4")
    editor.press("Save", value="three\r\nfour")
    assert stored_rule(service, 4).value == "three\nfour"


@sqlite_only
@pytest.mark.parametrize("copy", ["99", "x", "9" * 50])
def test_a_rule_that_does_not_exist_cannot_be_duplicated(editor: Editor, service: WatchedService, copy: str) -> None:
    """Nor can one of another setting. The form for a new rule does without it."""
    assert editor.go(f"/console/settings/s/rules?copy={copy}").status_code == 404
    service.declare("t", "str", "x", ["user"])
    assert editor.go("/console/settings/t/rules?copy=1").status_code == 404
    editor.go("/console/settings/s/rules")
    editor.press("Add rule", if__user="ann", copy=copy)
    assert rules(service)["user=ann"] == 7


def test_the_page_of_a_rule_shows_its_history(editor: Editor, service: WatchedService) -> None:
    """Of this rule alone: its id is compared as a whole."""
    for number in range(9):
        service.add_rule("s", 100 + number, user=f"u{number}")
    service.call("PUT", "/api/v1/rules/1/value", {"value": 50})
    editor.go("/console/rules/1")
    history = editor.text.partition("History")[2]
    assert (history.count("Rule added"), history.count("Rule changed")) == (1, 1)
    assert "108" not in history
    assert editor.go("/console/rules/99").status_code == 404
    assert "rule 99 does not exist" in editor.text


@sqlite_only
@pytest.mark.parametrize(
    ("back", "page"),
    [
        ("/console/settings/s?page=2&done=1#x", "/console/settings/s?page=2&done="),
        ("/console/search?q=a%26b", "/console/search?q=a%26b&done="),
        ("https://evil.example/console", "/console/settings/s?done="),
        ("//evil.example/console", "/console/settings/s?done="),
        ("", "/console/settings/s?done="),
    ],
)
def test_a_form_leads_back_to_the_page_that_it_came_from(editor: Editor, back: str, page: str) -> None:
    """With its query, and to pages of the console only."""
    editor.go("/console/rules/1?" + urlencode({"back": back}))
    editor.http.follow_redirects = False
    response = editor.press("Save", value="9")
    assert response.status_code == 303
    address = response.url.join(response.headers["location"])
    assert (address.host, address.raw_path.decode().startswith(page)) == (response.url.host, True)


@sqlite_only
def test_the_address_of_a_form_leads_to_its_rule(editor: Editor) -> None:
    """As a browser loads it again, for instance if a tab with an error or a preview is restored."""
    for address, page in (
        ("/console/rules/1/value", "/console/rules/1"),
        ("/console/rules/1/delete", "/console/rules/1"),
    ):
        response = editor.go(address)
        assert (response.status_code, response.url.path) == (200, page)


# -- previews ----------------------------------------------------------------------------------------------------------


def test_a_preview_shows_what_wins_before_and_after(editor: Editor, service: WatchedService) -> None:
    """For the context of each affected rule, by all rules. It is confirmed or cancelled."""
    set_metadata(service, "settings/s", protected=True)
    editor.go("/console/rules/2")
    editor.press("Save", if__user="", if__environment="dev", value="20")
    assert "will change 1 rule. It affects protected values." in editor.text
    assert "2 of 2 affected contexts change their value" in editor.text
    assert "user jim protected 2 7" in editor.text
    assert "environment dev protected 7 20" in editor.text
    assert rules(service)["user=jim"] == 2
    assert editor.go("/console/rules/1").status_code == 200
    editor.press("Delete rule")
    assert "environment prod protected 1 7" in editor.text
    editor.follow("Cancel")
    assert editor.response.url.path == SETTING
    assert rules(service)["environment=prod"] == 1


def test_a_preview_knows_contexts_in_which_nothing_changes(editor: Editor, service: WatchedService) -> None:
    """As another rule has the same value there, or the period of the rule is over."""
    service.add_rule("s", 1, environment="prod", user="ann")
    set_metadata(service, "settings/s", protected=True)
    editor.go("/console/rules/4")
    editor.press("Delete rule")
    assert "0 of 1 affected context changes its value" in editor.text
    assert "environment prod , user ann protected 1 no change" in editor.text
    editor.go("/console/settings/s/rules")
    editor.press("Add rule", if__user="x", value="5", starts_at="2019-01-01T00:00", ends_at="2020-01-01T00:00")
    assert "until 2020-01-01 00:00:00 UTC protected 7 no change" in editor.text
    editor.go("/console/settings/s/rules")
    editor.press("Add rule", if__user="x", value="5", starts_at="2999-01-01T00:00")
    assert "from 2999-01-01 00:00:00 UTC protected 7 5" in editor.text


@pytest.mark.parametrize(
    ("metadata", "is_previewed"),
    [
        ({"protected": False}, False),
        ({"protected_contexts": {"environment": ["prod", "live"]}}, True),
        ({"protected_contexts": {"environment": ["live"]}}, False),
    ],
)
def test_a_single_change_of_a_protected_value_is_previewed(
    editor: Editor, service: WatchedService, metadata: dict[str, Any], is_previewed: bool
) -> None:
    """Also a quick change. Values in other contexts are not protected."""
    set_metadata(service, "settings/s", **metadata)
    editor.go("/console/rules/3")
    response = editor.http.post("/console/rules/3/value", data={"csrf": editor.csrf, "value": "30"})
    assert ("Confirm" in response.text) == is_previewed
    assert (rules(service)["environment=prod,user=jim"] == 30) == (not is_previewed)


@pytest.mark.parametrize(
    ("setting", "rule", "conditions", "expected"),
    [
        ({}, {}, {"environment": "prod"}, False),
        ({"protected": True}, {}, {"environment": "dev"}, True),
        ({"protected": "yes"}, {}, {"environment": "dev"}, True),
        ({}, {"protected": True}, {"environment": "dev"}, True),
        ({}, {"protected": False}, {"environment": "dev"}, False),
        ({"protected_contexts": {"environment": ["prod"]}}, {}, {"environment": "prod"}, True),
        ({"protected_contexts": {"environment": ["prod"]}}, {}, {"environment": "dev"}, False),
        ({"protected_contexts": {"environment": ["prod"]}}, {}, {"user": "jim"}, True),
        ({"protected_contexts": {"environment": "prod"}}, {}, {"environment": "production"}, False),
        ({"protected_contexts": {"environment": "prod"}}, {}, {"environment": "prod"}, True),
        ({"protected_contexts": {"environment": 1}}, {}, {"environment": "dev"}, True),
        ({"protected_contexts": ["prod"]}, {}, {"environment": "dev"}, True),
    ],
)
def test_a_rule_without_a_condition_on_a_feature_affects_its_protected_values(
    setting: dict[str, Any], rule: dict[str, Any], conditions: dict[str, str], expected: bool
) -> None:
    """Metadata that cannot be understood protect all rules."""
    declaration = Declaration("s", ("environment", "user"), parse_setting_type("int"), 1, setting, "1.0")
    stored = StoredRule(1, 1, sorted(conditions.items()), 1, rule)
    assert is_protected(StoredSetting(1, declaration, ()), stored) == expected


def test_a_preview_is_shown_again_if_a_rule_has_changed_meanwhile(editor: Editor, service: WatchedService) -> None:
    """Any rule of the setting: it may decide the value as well. So does the order of the context features."""
    set_metadata(service, "settings/s", protected=True)
    editor.go("/console/rules/1")
    editor.press("Save", value="10")
    service.add_rule("s", 11, environment="prod", user="ann")
    editor.press("Confirm")
    assert "The rules have been changed since this preview was shown" in editor.text
    assert rules(service)["environment=prod"] == 1
    service.call("PATCH", "/api/v1/context_features/user/index", {"to_before": "environment"})
    editor.press("Confirm")
    assert "The rules have been changed since this preview was shown" in editor.text
    editor.press("Confirm")
    assert rules(service)["environment=prod"] == 10


# -- conflicts ---------------------------------------------------------------------------------------------------------


def test_l15_a_conflict_shows_both_and_asks(editor: Editor, other: Editor, service: WatchedService) -> None:
    """Theirs with author and time, and yours. Yours replaces theirs only if the author says so."""
    editor.go("/console/rules/2?back=/console/settings/s%3Ffind=jim")
    other.go("/console/rules/2")
    other.press("Save", value="200", comment="theirs")
    assert editor.press("Save", value="300", if__environment="dev", comment="mine").status_code == 409
    seen = r"Theirs Yours 2 200 for user jim theirs changed 2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC 300 for"
    assert re.search(seen, editor.text)
    assert "300 for environment dev , user jim mine" in editor.text
    assert rules(service)["user=jim"] == 200
    other.go("/console/rules/2")
    other.press("Save", value="201")
    assert editor.press("Replace with yours").status_code == 409
    assert "201 for user jim" in editor.text
    assert "find=jim" in str(editor.press("Replace with yours").url)
    assert rules(service)["environment=dev,user=jim"] == 300
    other.go("/console/rules/2")
    editor.go("/console/rules/2")
    editor.press("Save", value="301")
    other.press("Delete rule")
    assert "301 for environment dev , user jim" in other.text
    assert "Keep theirs Replace with yours" in other.text
    other.follow("Keep theirs")
    assert rules(service)["environment=dev,user=jim"] == 301


def test_l15_an_error_does_not_hide_a_conflict(editor: Editor, service: WatchedService) -> None:
    """The form with the error is still that of the former state."""
    editor.go("/console/rules/2")
    service.call("PUT", "/api/v1/rules/2/value", {"value": 22})
    assert editor.press("Save", value="x").status_code == 422
    assert editor.press("Save", value="5").status_code == 409


def test_l15_a_change_of_a_deleted_rule_becomes_a_new_one(
    editor: Editor, other: Editor, service: WatchedService
) -> None:
    """The form for it says who deleted the rule."""
    editor.go("/console/rules/2")
    other.go("/console/rules/2")
    other.press("Delete rule")
    assert editor.press("Save", value="22", if__user="ann", comment="why").status_code == 409
    assert "Rule 2 was deleted by somebody at 20" in editor.text
    editor.press("Add rule")
    assert rules(service)["user=ann"] == 22
    assert stored_rule(service, 4).metadata == {"comment": "why"}


def test_l15_a_deletion_without_a_log_entry_is_a_conflict_as_well(editor: Editor, service: WatchedService) -> None:
    """As after a restore of the database: the log does not say who deleted the rule."""
    editor.go("/console/rules/2")
    chosen = selection(service, 1, 2)
    assert service.database is not None
    with service.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM rules WHERE id = 2")
    assert editor.press("Save", value="22").status_code == 409
    assert "Rule 2 was deleted while you edited it" in editor.text
    editor.go(chosen)
    editor.press("Delete rules")
    assert re.search(r"2 deleted \S Keep", editor.text)


# -- access ------------------------------------------------------------------------------------------------------------


def test_readers_see_rules_without_forms(service: WatchedService, new_database: Callable[[], str]) -> None:
    """Their requests to change something are refused."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        text = add_token(connection, "reader", Role.READ)
        declaration = Declaration("s", ("user",), parse_setting_type("int"), 7, {}, "1.0")
        store.add_setting(connection, declaration)
        setting = store.setting(connection, "s")
        assert setting is not None
        store.add_rule(connection, setting, {"user": "jim"}, 5, {})
    reader = Editor(service.url)
    reader.go("/console")
    reader.submit("/console/login", token=text, next="/console/rules/1")
    assert "5 for user jim" in reader.text
    for path in ("/console/rules/1", f"{SETTING}/rules", f"{SETTING}/rules/list", selection(service, 1)):
        assert reader.go(path).status_code == 200
        assert 'method="post"' not in reader.page.partition("<main")[2]
    for action in ("rules/1", "rules/1/delete", "settings/s/rules/selected/delete", "settings/s/rules/list"):
        assert reader.http.post(f"/console/{action}", data={"csrf": reader.csrf}).status_code == 403
    reader.http.close()
