"""Protected settings and rules in the console: changes of them other than by the forms of rules."""

import pytest

from tests.support.console_editor import Editor, log, rules, set_metadata
from tests.support.service import WatchedService

# -- undo --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", ["settings/s", "rules/1"])
def test_an_undo_of_a_protected_rule_is_previewed(editor: Editor, service: WatchedService, protected: str) -> None:
    """It is bound to the state that was shown."""
    set_metadata(service, protected, protected=True)
    service.call("PUT", "/api/v1/rules/1/value", {"value": 10})
    changed = log(service)[0]["revision"]
    editor.go("/console/changes")
    editor.submit(f"/console/undo/{changed}", back="/console/changes?setting=s")
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
    editor.submit(f"/console/undo/{log(service)[0]['revision']}")
    assert "will add 1 rule. It affects protected values." in editor.text
    assert "environment prod protected 7 1" in editor.text
    editor.press("Confirm")
    assert service.call("GET", "/api/v1/rules/1").json()["value"] == 1
