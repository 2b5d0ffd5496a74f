"""Forms of the console whose setting is no longer configurable by a feature that they have a condition on."""

import pytest

from tests.support.console_editor import SETTING, Editor, rules
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

NO_LONGER = "the setting is no longer configurable by user, so no rule can require user=jim"


def remove_user(service: WatchedService) -> None:
    """Remove `user` from the setting, as another operator. Its rules with a condition on it are deleted."""
    for rule_id in (2, 3):
        service.call("DELETE", f"/api/v1/rules/{rule_id}")
    body = {"configurable_features": ["environment"], "version": "1.1"}
    service.call("PUT", "/api/v1/settings/s/configurable_features", body)
    assert rules(service) == {"environment=prod": 1}


@sqlite_only
@pytest.mark.parametrize(
    ("path", "button", "entered"),
    [
        ("/console/settings/s", "Add rule", {"if__environment": "dev"}),
        (f"{SETTING}/rules", "Add rule", {"if__environment": "dev"}),
        ("/console/rules/1", "Save", {"if__environment": "dev"}),
        (f"{SETTING}/rules/list", "Add rules", {"feature": "environment", "list": "dev"}),
        (f"{SETTING}/rules/list", "Add rules", {"feature": "environment", "list": ""}),
        (f"{SETTING}/rules/list", "Add rules", {"feature": "theme", "list": "dark"}),
    ],
)
def test_a_condition_does_not_vanish_with_its_feature(
    editor: Editor, service: WatchedService, path: str, button: str, entered: dict[str, str]
) -> None:
    """The rule would apply to more contexts than the operator has asked for."""
    editor.go(path)
    remove_user(service)
    assert editor.press(button, if__user="jim", value="9", **entered).status_code == 422
    assert NO_LONGER in editor.text
    assert rules(service) == {"environment=prod": 1}


def test_an_empty_condition_on_a_removed_feature_is_none(editor: Editor, service: WatchedService) -> None:
    editor.go(f"{SETTING}/rules")
    remove_user(service)
    editor.press("Add rule", if__environment="dev", if__user=" ", value="9")
    assert rules(service) == {"environment=prod": 1, "environment=dev": 9}


def test_the_input_of_the_lists_feature_is_ignored_even_then(editor: Editor, service: WatchedService) -> None:
    editor.go(f"{SETTING}/rules/list")
    remove_user(service)
    response = editor.press("Add rules", feature="user", list="ann", if__user="jim", value="9")
    assert (response.status_code, "not configurable by user" in editor.text) == (422, True)
    assert NO_LONGER not in editor.text


def test_the_new_form_for_a_deleted_rule_says_which_condition_it_lacks(editor: Editor, service: WatchedService) -> None:
    editor.go("/console/rules/2")
    remove_user(service)
    assert editor.press("Save", if__environment="dev", value="9").status_code == 409
    assert f"if you still want it. But {NO_LONGER}" in editor.text


@pytest.mark.parametrize("button", ["Set value", "Delete rules"])
def test_a_filter_does_not_select_more_rules_than_it_has_shown(
    editor: Editor, service: WatchedService, button: str
) -> None:
    """A condition of it that no rule can have is an error, on the page of the selection and in its forms."""
    address = f"{SETTING}/rules/selected?all=1&if.user=jim"
    editor.go(address)
    assert "2 selected rules" in editor.text
    remove_user(service)
    for response in (editor.press(button, value="9"), editor.go(address)):
        assert (response.status_code, NO_LONGER in response.text) == (422, True)
    assert rules(service) == {"environment=prod": 1}
