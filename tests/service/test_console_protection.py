"""Protected settings and rules in the console: changes of them other than by the forms of rules."""

import re
from typing import Any

import pytest

from heksher_client.service import LocalService, create_app
from heksher_client.service.console.pages import setting_confirmation
from tests.support.console_editor import Editor, log, rules, set_metadata
from tests.support.http import http_client
from tests.support.service import WatchedService

# -- undo --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", ["settings/s", "rules/1"])
def test_an_undo_of_a_protected_rule_is_previewed(editor: Editor, service: WatchedService, protected: str) -> None:
    """It is bound to the state that was shown."""
    set_metadata(service, protected, protected=True)
    service.call("PUT", "/api/v1/rules/1/value", {"value": 10})
    changed = log(service)[0]["revision"]
    editor.go("/console/changes")
    editor.submit(f"/console/changes/{changed}/undo", back="/console/changes?setting=s")
    assert "will change 1 rule. It affects protected values." in editor.text
    assert "environment prod protected 10 1" in editor.text
    assert rules(service)["environment=prod"] == 10
    service.add_rule("s", 20, user="ann")
    assert editor.press("Confirm").status_code == 409
    assert "The rules have been changed since this preview was shown" in editor.text
    assert rules(service)["environment=prod"] == 10
    response = editor.press("Confirm")
    assert "/console/changes?setting=s&done=" in str(response.url)
    assert rules(service)["environment=prod"] == 1


def test_an_undo_of_the_deletion_of_a_protected_rule_is_previewed(editor: Editor, service: WatchedService) -> None:
    """It restores the rule with its id."""
    set_metadata(service, "rules/1", protected=True)
    service.call("DELETE", "/api/v1/rules/1")
    editor.go("/console/changes")
    editor.submit(f"/console/changes/{log(service)[0]['revision']}/undo")
    assert "will add 1 rule. It affects protected values." in editor.text
    assert "environment prod protected 7 1" in editor.text
    editor.press("Confirm")
    assert service.call("GET", "/api/v1/rules/1").json()["value"] == 1


# -- the number of rules -----------------------------------------------------------------------------------------------


def test_changes_of_more_than_a_chosen_number_of_rules_are_previewed() -> None:
    """Of a service without previews of single changes, or with."""
    with LocalService(["user"], preview_above=0) as service, http_client(service.url) as http:
        body = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
        http.post("/api/v1/settings/declare", json=body).raise_for_status()
        editor = Editor(service.url)
        editor.go("/console/settings/s/rules")
        editor.press("Add rule", if__user="jim", value="1")
        assert "This change of s will add 1 rule. 1 of 1 affected context" in editor.text
        editor.press("Confirm")
        assert "Rule added" in editor.text
        editor.http.close()
    with pytest.raises(ValueError, match="preview_above must be a number of rules, not -1"):
        create_app(preview_above=-1)


# -- settings ----------------------------------------------------------------------------------------------------------

EDIT = "/console/settings/s/edit"


def declaration(service: WatchedService) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", "/api/v1/settings/s").json()
    return found


@pytest.mark.parametrize("metadata", [{"protected": True}, {"protected_contexts": {"environment": ["prod"]}}])
def test_a_default_value_of_a_protected_setting_changes_after_a_confirmation(
    editor: Editor, service: WatchedService, metadata: dict[str, Any]
) -> None:
    """The preview is that of the entry of the change log. It is bound to the setting and its rules."""
    set_metadata(service, "settings/s", **metadata)
    before = log(service)
    editor.go(EDIT)
    assert editor.press("Save default value", value="8").status_code == 200
    assert "This will change s . It affects protected values." in editor.text
    assert "default value 7 → changed to 8" in editor.text
    assert "The value changes in the contexts that no rule matches." in editor.text
    assert "contexts that no rule matches protected 7 8" in editor.text
    assert log(service) == before
    service.add_rule("s", 20, user="ann")
    assert editor.press("Confirm").status_code == 409
    assert "The setting or its rules have been changed since this preview was shown" in editor.text
    assert declaration(service)["default_value"] == 7
    response = editor.press("Confirm")
    assert (response.url.path, declaration(service)["default_value"]) == (EDIT, 8)
    assert len(log(service)) == len(before) + 2


@pytest.mark.parametrize(
    ("button", "fields", "shown"),
    [
        ("Rename", {"name": "t"}, "name s → changed to t"),
        ("Change type", {"type": "float"}, "type int → changed to float"),
        ("Change context features", {"feature": ["user", "environment", "theme"]}, "→ changed to environment, theme"),
        ("Save metadata", {"content": ["false"]}, "metadata protected true → changed to false"),
    ],
)
def test_other_changes_of_a_protected_setting_are_confirmed(
    editor: Editor, service: WatchedService, button: str, fields: dict[str, Any], shown: str
) -> None:
    """Also one that removes the protection."""
    set_metadata(service, "settings/s", protected=True)
    before = declaration(service)
    editor.go(EDIT)
    editor.press(button, **fields)
    assert shown in editor.text
    assert "No value changes." in editor.text
    assert declaration(service) == before
    editor.follow("Cancel")
    assert editor.response.url.path == EDIT
    editor.press(button, **fields)
    editor.press("Confirm")
    assert declaration(service)["version"] != before["version"]


def test_changes_that_protect_or_describe_a_setting_do_not_ask(editor: Editor, service: WatchedService) -> None:
    """Nor do changes of a setting that is not protected, and aliases."""
    editor.go(EDIT)
    editor.press("Save default value", value="8")
    editor.press("Save metadata", key=["protected"], content=["true"])
    editor.press("Save metadata", description="what it is for")
    editor.press("Add alias", alias="old")
    assert declaration(service).items() >= {"default_value": 8, "aliases": ["old"], "metadata": {
        "protected": True, "description": "what it is for"}}.items()  # fmt: skip


@pytest.mark.parametrize("protected", ["settings/s", "rules/2"])
def test_a_setting_with_protected_values_is_deleted_after_a_confirmation(
    editor: Editor, service: WatchedService, protected: str
) -> None:
    """The preview lists the values that there are no longer. A change of a rule shows the setting again."""
    set_metadata(service, protected, protected=True)
    service.call("PUT", "/api/v1/rules/1/period", {"starts_at": "2999-01-01T00:00:00Z", "ends_at": None})
    button = "Delete s and its 3 rules"
    editor.go(EDIT)
    editor.press(button)
    assert "This will delete s . It affects protected values." in editor.text
    assert "user jim protected 2 no value" in editor.text
    assert "environment prod 1" not in editor.text.replace("protected ", "")
    assert re.search("contexts that no rule matches (protected )?7 no value", editor.text)
    assert len(rules(service)) == 2
    service.call("PUT", "/api/v1/rules/2/value", {"value": 20})
    assert editor.press("Confirm").status_code == 409
    assert "The setting or its rules have been changed since the page was loaded" in editor.text
    editor.press(button)
    service.call("PATCH", "/api/v1/context_features/user/index", {"to_before": "environment"})
    assert editor.press("Confirm").status_code == 409
    editor.press("Confirm")
    assert service.call("GET", "/api/v1/settings").json() == {"settings": []}


def test_the_preview_of_a_deletion_lists_the_first_values(
    editor: Editor, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of perhaps thousands."""
    set_metadata(service, "settings/s", protected=True)
    monkeypatch.setattr(setting_confirmation, "MAX_LISTED", 2)
    editor.go(EDIT)
    editor.press("Delete s and its 3 rules")
    assert "The first 2 of 4 values are listed." in editor.text


# -- context features --------------------------------------------------------------------------------------------------


def test_a_move_of_context_features_of_a_protected_setting_is_confirmed(
    editor: Editor, service: WatchedService
) -> None:
    """Even if no value changes, as any other change of the setting. The confirmation is bound to the rules as well."""
    set_metadata(service, "settings/s", protected_contexts={"environment": ["prod"]})
    order = service.call("GET", "/api/v1/context_features").json()
    service.call("DELETE", "/api/v1/rules/1")
    editor.go("/console/features")
    editor.submit("/console/features/user/move", direction="up")
    assert "No value changes" in editor.text
    assert "One setting has protected values." in editor.text
    assert "s protected 0 0" in editor.text
    service.call("PUT", "/api/v1/rules/2/value", {"value": 20})
    assert editor.press("Move user").status_code == 409
    assert service.call("GET", "/api/v1/context_features").json() == order
    assert editor.press("Move user").status_code == 200
    assert "Context feature moved" in editor.text


@pytest.mark.parametrize(("protected", "is_marked"), [("rules/1", True), ("rules/3", False)])
def test_a_preview_of_a_move_marks_settings_with_protected_rules(
    editor: Editor, service: WatchedService, protected: str, is_marked: bool
) -> None:
    """Rules on both features, or on neither, have the same priority afterwards."""
    service.declare("free", "int", 1, ["user"])
    set_metadata(service, protected, protected=True)
    editor.go("/console/features")
    editor.submit("/console/features/user/move", direction="up")
    assert "Values of 1 setting may change" in editor.text
    assert ("protected" in editor.text) == is_marked
