"""Changes of many rules at once in the console, in a browser without scripts."""

import re
from dataclasses import replace

import pytest

from heksher_client.service import store
from heksher_client.service.changes import record_together
from heksher_client.service.console import pages
from heksher_client.service.console.pages import confirmation, rule_selections
from heksher_client.service.history import State
from heksher_client.service.operations import require_setting
from heksher_client.service.store import StoredRule
from tests.support.console_editor import SETTING, Editor, log, rules, selection, set_metadata, stored_rule
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService
from tests.support.statements import statements_of

# -- many rules --------------------------------------------------------------------------------------------------------


def test_selected_rules_get_a_value_or_are_deleted(editor: Editor, service: WatchedService) -> None:
    """In one transaction, each with its own entry in the log. A rule that has the value already has none.

    The link of the former value does not stay.
    """
    set_metadata(service, "rules/1", link="http://former")
    before = len(log(service))
    editor.go(selection(service, 1, 2))
    assert "2 selected rules" in editor.text
    response = editor.press("Set value", value="2", comment="equal for all")
    assert "find=jim" in str(response.url)
    assert "2 rules. Each can be undone alone in the change log . The last one: Rule changed: 2" in editor.text
    assert rules(service) == {"environment=prod": 2, "user=jim": 2, "environment=prod,user=jim": 3}
    entries = log(service)[: len(log(service)) - before]
    assert [entry["new"]["metadata"] for entry in entries] == [{"comment": "equal for all"}] * 2
    editor.go(selection(service, 1, 3))
    editor.press("Set value", value="2")
    assert len(log(service)) == before + 3
    editor.go(selection(service, 1, 3))
    editor.press("Delete rules", comment="not needed")
    assert rules(service) == {"user=jim": 2}
    deleted = log(service)[:2]
    assert [entry["former"]["comment"] for entry in deleted] == ["not needed"] * 2
    for entry in deleted:
        address = f"/console/changes/{entry['revision']}/undo"
        assert editor.http.post(address, data={"csrf": editor.csrf}).status_code == 200
    assert len(rules(service)) == 3


# -- undo --------------------------------------------------------------------------------------------------------------


def test_changes_of_many_rules_are_undone_together(editor: Editor, service: WatchedService) -> None:
    """After a preview. So is the undo itself, at the page of the setting and in the change log."""
    service.add_rule("s", 4, user="ann")
    former = rules(service)
    editor.go(selection(service, 1, 2, 3))
    editor.press("Delete rules")
    editor.press("Undo all 3")
    assert "This change of s will add 3 rules. 3 of 3 affected contexts change their value" in editor.text
    assert rules(service) == {"user=ann": 4}
    assert "find=jim" in str(editor.press("Confirm").url)
    assert (rules(service), stored_rule(service, 1).value) == (former, 1)
    editor.go("/console/changes")
    editor.press("Undo all", action=f"/{log(service)[0]['revision']}/undo/all")
    assert "will delete 3 rules" in editor.text
    editor.press("Confirm")
    assert rules(service) == {"user=ann": 4}
    assert "3 rules. Each can be undone alone" in editor.text


def test_changes_of_rules_of_several_settings_are_undone_together(editor: Editor, service: WatchedService) -> None:
    """As those of an import, which may change a rule and add another one with its former conditions."""
    assert service.database is not None
    service.declare("t", "int", 1, ["user"])
    former, rule = rules(service), stored_rule(service, 2)
    with service.database.begin() as connection, record_together(connection):
        s, t = (require_setting(connection, name) for name in ("s", "t"))
        store.change_rule(connection, s, rule, value=20)
        store.change_rule(connection, s, replace(rule, value=20), conditions=(("user", "eve"),))
        store.add_rule(connection, s, {"user": "jim"}, 21, {})
        store.add_rule(connection, t, {"user": "jim"}, 22, {})
        short_lived = store.add_rule(connection, t, {"user": "ann"}, 23, {})
        store.delete_rule(connection, t, StoredRule(short_lived, t.id, (("user", "ann"),), 23, {}))
    editor.go("/console/changes")
    editor.press("Undo all")
    assert "This change of 2 settings will change 1 rule, delete 2 rules." in editor.text
    editor.press("Confirm")
    assert (rules(service), rules(service, "t")) == (former, {})


def test_an_import_is_undone_as_a_whole_if_it_changed_only_rules(editor: Editor, service: WatchedService) -> None:
    """Its first entry leads to all of them."""
    document = service.call("GET", "/api/v1/export").json()
    for rule in document["settings"][0]["rules"]:
        rule["value"] += 100
    changed = service.call("POST", "/api/v1/import", document).json()["revision"]
    editor.go("/console/changes")
    editor.follow("made together")
    assert editor.response.url.params["group"] == str(changed - 2)
    assert len(re.findall("Rule changed: rule", editor.page)) == 3
    editor.press("Undo all")
    assert "This change of s will change 3 rules." in editor.text
    rule = {"feature_values": {"user": "jim"}, "value": 1}
    document["settings"].append({**document["settings"][0], "name": "t", "rules": [rule]})
    service.call("POST", "/api/v1/import", document)
    editor.go("/console/settings/t")
    assert "made together" in editor.text
    assert "Undo all" not in editor.text


@pytest.mark.usefixtures("clock")
def test_changes_at_the_same_time_are_not_undone_together(editor: Editor, service: WatchedService) -> None:
    """They were made by two forms."""
    for value in (10, 20):
        service.call("PUT", "/api/v1/rules/1/value", {"value": value})
    last, former = log(service)[:2]
    assert (last["at"], last["group"]) == (former["at"], None)
    editor.go("/console/changes")
    assert "Undo all" not in editor.text
    assert "made together" not in editor.text


def test_a_change_of_one_rule_is_undone_alone(editor: Editor, service: WatchedService) -> None:
    """Others may have been made before and after it."""
    service.call("PUT", "/api/v1/rules/1/value", {"value": 10})
    service.call("PUT", "/api/v1/rules/2/value", {"value": 20})
    service.call("PUT", "/api/v1/rules/3/value", {"value": 30})
    editor.go("/console/changes")
    assert "Undo all" not in editor.text
    form = {"csrf": editor.csrf}
    address = f"/console/changes/{log(service)[1]['revision']}/undo/all"
    assert "will change 1 rule" in editor.http.post(address, data=form).text
    assert rules(service)["user=jim"] == 20


def test_changes_made_together_are_not_undone_if_one_of_the_rules_has_changed_since(
    editor: Editor, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor if they are too many, or there are none."""
    editor.go(selection(service, 1, 2, 3))
    editor.press("Set value", value="9")
    for revision, status, message in ((999, 404, "there is no change"), (1, 409, "only changes of rules")):
        response = editor.http.post(f"/console/changes/{revision}/undo/all", data={"csrf": editor.csrf})
        assert (response.status_code, message in response.text) == (status, True)
    with monkeypatch.context() as patch:
        patch.setattr(pages.changes, "MAX_RULES", 2)
        response = editor.http.post(
            f"/console/changes/{log(service)[1]['revision']}/undo/all", data={"csrf": editor.csrf}
        )
        assert (response.status_code, "at most 2 changes can be undone at once" in response.text) == (422, True)
    service.call("PUT", "/api/v1/rules/2/value", {"value": 8})
    assert editor.press("Undo all 3").status_code == 409
    assert "cannot undo: rule 2 has been changed since" in editor.text
    assert rules(service)["environment=prod"] == 9


# -- transactions ------------------------------------------------------------------------------------------------------


def test_changes_of_many_rules_are_recorded_together(editor: Editor, service: WatchedService) -> None:
    """One statement adds all of them to the change log, which takes a fraction of the time for thousands."""
    assert service.database is not None
    for button in ("Set value", "Delete rules"):
        editor.go(selection(service, 1, 2, 3))
        with statements_of(service.database) as statements:
            editor.press(button, value="9")
        assert sum(statement.startswith("INSERT INTO changes") for statement in statements) == 1
    assert rules(service) == {}


def test_a_preview_does_not_keep_others_from_writing(editor: Editor, service: WatchedService) -> None:
    """It may take a second for thousands of rules. So do pages with errors, and those about conflicts."""
    service.set_preview_above(1)
    writes: list[None] = []
    assert service.database is not None
    service.database.on_commit = lambda: writes.append(None)
    editor.go(selection(service, 1, 2))
    assert editor.press("Set value", value="x").status_code == 422
    editor.press("Set value", value="9")
    assert "Preview" in editor.text
    assert writes == []
    editor.press("Confirm")
    assert (rules(service)["user=jim"], len(writes)) == (9, 1)


def test_a_change_by_others_just_before_the_transaction_is_a_conflict(
    editor: Editor, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form is checked again in the transaction that writes."""
    database = service.database
    assert database is not None
    editor.go(selection(service, 1, 2))
    observe = database.observe

    def observe_and_change(state: State) -> None:
        observe(state)
        monkeypatch.undo()
        service.call("PUT", "/api/v1/rules/2/value", {"value": 8})

    monkeypatch.setattr(database, "observe", observe_and_change)
    assert editor.press("Set value", value="9").status_code == 409
    assert rules(service)["user=jim"] == 8


@pytest.mark.parametrize("rule_id", [0, 4, 2**31, 10**18 - 1])
def test_a_selected_rule_that_does_not_exist_is_a_conflict(
    editor: Editor, service: WatchedService, rule_id: int
) -> None:
    """Also with an id that no rule can have."""
    editor.go(selection(service, 1))
    form = {"csrf": editor.csrf, "rule": [f"{rule_id}:", "1:"]}
    assert editor.http.post(f"{SETTING}/rules/selected/delete", data=form).status_code == 409
    assert len(rules(service)) == 3


@sqlite_only
def test_the_address_of_a_form_of_many_rules_leads_to_their_setting(editor: Editor) -> None:
    """As a browser loads it again."""
    for action in ("value", "delete"):
        assert editor.go(f"{SETTING}/rules/selected/{action}").url.path == SETTING


@sqlite_only
@pytest.mark.parametrize(
    ("button", "entered", "message"),
    [
        ("Set value", {"value": "x", "comment": "why"}, "not a whole number"),
        ("Set value", {"value": "1", "comment": "why", "link": "x"}, "a link must begin with"),
        ("Delete rules", {"comment": "why", "link": "x"}, "a link must begin with"),
    ],
)
def test_an_error_in_the_change_of_many_rules_is_shown_at_its_field(
    editor: Editor, service: WatchedService, button: str, entered: dict[str, str], message: str
) -> None:
    """The form keeps the selection."""
    editor.go(selection(service, 1, 2))
    assert editor.press(button, **entered).status_code == 422
    assert message in editor.text
    assert editor.field("comment") == ["why"]
    assert len(editor.field("rule")) == 2


@sqlite_only
@pytest.mark.parametrize("query", ["rule=x", "rule=1:W/x"])
def test_an_invalid_selection_is_an_error(editor: Editor, query: str) -> None:
    assert editor.go(f"{SETTING}/rules/selected?{query}").status_code == 422


@sqlite_only
@pytest.mark.parametrize("query", ["", "all=1&find=nothing"])
def test_the_page_of_the_setting_says_that_no_rules_are_selected(editor: Editor, query: str) -> None:
    """With the same filters. Notices about changes before are gone."""
    response = editor.go(f"{SETTING}/rules/selected?{query}&back={SETTING}?find%3Djim%26done%3D5")
    assert (response.status_code, response.url.raw_path.decode()) == (200, f"{SETTING}?find=jim&unselected=1")
    assert "No rules are selected: select those to change in the table." in editor.text
    assert "unselected" not in editor.page.partition("<main")[2]
    assert editor.go(f"{SETTING}/rules/selected?{query}").url.raw_path.decode() == f"{SETTING}?unselected=1"


@sqlite_only
@pytest.mark.parametrize(("action", "value"), [("delete", ""), ("value", "1")])
def test_a_form_without_rules_leads_back_as_well(editor: Editor, action: str, value: str) -> None:
    """Those that its filter selected may have been deleted meanwhile."""
    editor.go(SETTING)
    form = {"csrf": editor.csrf, "filter": "find=nothing", "value": value}
    response = editor.http.post(f"{SETTING}/rules/selected/{action}", data=form)
    assert (response.status_code, "No rules are selected" in response.text) == (200, True)


@pytest.mark.parametrize(
    ("query", "count", "remaining"),
    [
        ("all=1", 23, 0),
        ("all=1&if.user=u2", 1, 23),
        ("all=1&find=user%3Du1", 11, 12),
        ("all=1&value=10&page=2", 11, 12),
    ],
)
def test_all_rules_that_match_a_filter_are_changed(
    editor: Editor, service: WatchedService, query: str, count: int, remaining: int
) -> None:
    """After a preview, however few they are: the page that was filtered shows a part of them."""
    for number in range(20):
        service.add_rule("s", 100 + number, user=f"u{number}")
    editor.go(f"{SETTING}/rules/selected?{query}")
    assert f"{count} selected rule" in editor.text
    editor.press("Delete rules")
    assert f"will delete {count} rule" in editor.text
    assert len(rules(service)) == 23
    service.add_rule("s", 10, user="u1000")
    editor.press("Confirm")
    assert "shown again" in editor.text
    editor.press("Confirm")
    assert len(rules(service)) == remaining


def test_more_than_ten_rules_are_changed_after_a_preview_alone(
    editor: Editor, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists some of the contexts, those that change first."""
    for number in range(8):
        service.add_rule("s", 100, user=f"u{number}")
    editor.go(selection(service, *range(1, 11)))
    editor.press("Set value", value="8")
    assert set(rules(service).values()) == {8, 100}
    monkeypatch.setattr(confirmation, "MAX_LISTED", 4)
    editor.go(selection(service, *range(1, 12)))
    editor.press("Delete rules")
    assert "will delete 11 rules" in editor.text
    assert "11 of 11 affected contexts change their value; the first 4 are listed" in editor.text
    assert editor.page.count("<tr") == 5
    editor.press("Confirm")
    assert rules(service) == {}


def test_the_number_of_rules_that_are_changed_at_once_is_limited(
    editor: Editor, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_selections, "MAX_RULES", 2)
    for address in (selection(service, 1, 2, 3), f"{SETTING}/rules/selected?all=1"):
        assert editor.go(address).status_code == 422
        assert "3 rules are selected; at most 2 can be changed at once" in editor.text


# -- a list of values --------------------------------------------------------------------------------------------------


def test_a_rule_is_added_for_each_value_of_a_list(editor: Editor, service: WatchedService) -> None:
    """Spaces around values, empty ones and duplicates are dropped, also those with the same normal form."""
    editor.go(f"{SETTING}/rules/list")
    assert editor.field("feature") == ["user"]
    editor.press(
        "Add rules", list=" ann, bob\n\nann,\r\nJose\u0301\nJos\u00e9 ", if__environment="dev", if__user="ignored",
        value="9", comment="beta", ends_at="2999-01-01T00:00",
    )  # fmt: skip
    added = {conditions: value for conditions, value in rules(service).items() if "dev" in conditions}
    assert added == {f"environment=dev,user={name}": 9 for name in ("ann", "bob", "Jos\u00e9")}
    rule = stored_rule(service, 4)
    assert (rule.metadata, list(rule.period.as_json())) == ({"comment": "beta"}, ["ends_at"])


@pytest.mark.parametrize("choice", ["skip", "change"])
def test_existing_rules_of_a_list_are_changed_or_skipped(editor: Editor, service: WatchedService, choice: str) -> None:
    """They are listed first, unless they have the value already. Other metadata stay."""
    set_metadata(service, "rules/2", ticket="OPS-1", comment="former")
    service.add_rule("s", 9, user="same")
    editor.go(f"{SETTING}/rules/list")
    assert editor.press("Add rules", list="jim\nann\nsame", value="9").status_code == 409
    assert "1 rule exists already with another value or period" in editor.text
    assert "user jim 2 former ticket: OPS-1" in editor.text
    assert "ann" not in rules(service)
    editor.press("Add rules", existing=choice, link="http://later")
    found = rules(service)
    assert (found["user=ann"], found["user=same"]) == (9, 9)
    assert found["user=jim"] == (9 if choice == "change" else 2)
    expected = {"link": "http://later"} if choice == "change" else {"comment": "former"}
    assert stored_rule(service, 2).metadata == {"ticket": "OPS-1", **expected}


def test_an_existing_rule_is_not_changed_as_it_was_not_listed(editor: Editor, service: WatchedService) -> None:
    """Its present value is listed, and the question asked again."""
    editor.go(f"{SETTING}/rules/list")
    editor.press("Add rules", list="jim,ann", value="9")
    service.call("PUT", "/api/v1/rules/2/value", {"value": 22})
    assert editor.press("Add rules", existing="change").status_code == 409
    assert "Rules have been changed since the page was loaded" in editor.text
    assert "user jim 22" in editor.text
    editor.press("Add rules", existing="change")
    assert rules(service)["user=jim"] == 9


def test_a_long_list_is_added_after_a_preview(editor: Editor, service: WatchedService) -> None:
    editor.go(f"{SETTING}/rules/list")
    names = [f"u{number}" for number in range(11)]
    editor.press("Add rules", list="\n".join(names), value="9")
    assert "will add 11 rules" in editor.text
    editor.press("Confirm")
    assert len(rules(service)) == 14


@sqlite_only
@pytest.mark.parametrize(
    ("entered", "field", "message"),
    [
        ({"list": ""}, "list", "enter 1 to 10,000 values, not 0"),
        ({"list": "\n".join(map(str, range(10_001)))}, "list", "not 10,001"),
        ({"list": "a\tb"}, "list", "without control characters"),
        ({"list": "a\nb\tc"}, "list", "without control characters"),
        ({"list": "a", "feature": "theme"}, "feature", "not configurable by theme"),
        ({"list": "a", "feature": ""}, "feature", "not configurable by nothing"),
        ({"list": "a", "value": "x"}, "value", "not a whole number"),
        ({"list": "a", "if__environment": "\x01"}, "if-environment", "without control characters"),
    ],
)
def test_an_error_in_a_list_is_shown_at_its_field(
    editor: Editor, service: WatchedService, entered: dict[str, str], field: str, message: str
) -> None:
    editor.go(f"{SETTING}/rules/list")
    assert editor.press("Add rules", **entered).status_code == 422
    assert message in editor.text
    assert f'id="{field}-error"' in editor.page
    assert len(rules(service)) == 3


def test_l15_conflicts_of_many_rules_are_replaced_or_left_out(
    editor: Editor, other: Editor, service: WatchedService
) -> None:
    """Rules that others have deleted are left out in any case."""
    service.add_rule("s", 4, user="ann")
    for client in (editor, other):
        client.go(selection(service, 1, 2, 3, 4))
    service.call("PUT", "/api/v1/rules/2/value", {"value": 22})
    service.call("DELETE", "/api/v1/rules/4")
    assert editor.press("Set value", value="9").status_code == 409
    assert "2 rules have been changed since the page was loaded" in editor.text
    assert "2 22 for user jim" in editor.text
    assert "4 deleted" in editor.text
    editor.press("Keep theirs, and change the other 2")
    assert rules(service) == {"environment=prod": 9, "user=jim": 22, "environment=prod,user=jim": 9}
    assert other.press("Delete rules").status_code == 409
    other.press("Replace with yours")
    assert rules(service) == {}


def test_l15_a_conflict_may_leave_nothing_to_change(editor: Editor, service: WatchedService) -> None:
    editor.go(selection(service, 1))
    service.call("DELETE", "/api/v1/rules/1")
    assert editor.press("Delete rules").status_code == 409
    assert "Replace with yours" not in editor.text
    assert "Keep theirs" in editor.text


def test_rules_of_other_settings_are_left_alone(editor: Editor, service: WatchedService) -> None:
    """Also if the form of a setting names one."""
    service.declare("t", "int", 1, ["user"])
    service.add_rule("t", 5, user="jim")
    editor.go(selection(service, 1, 4))
    editor.press("Delete rules")
    assert rules(service, "t") == {"user=jim": 5}
    assert "environment=prod" not in rules(service)
