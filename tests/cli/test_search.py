"""The command `search`."""

from tests.support.commands import Run
from tests.support.service import WatchedService


def test_a_text_is_found_in_settings_and_rules(run: Run, shop: WatchedService) -> None:
    """With the parts that contain it. Of many rules of a setting, the first ones are shown."""
    shop.declare("jimmy", "int", 1, ["user"], metadata={"owner": "jim"})
    for i in range(6):
        shop.add_rule("jimmy", i, user=f"jim{i}")
    outcome = run("search", "JIM")
    assert (outcome.status, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[:3] == [
        ["setting", "rule", "conditions", "value", "found", "in"],
        ["jimmy", "name,", "metadata"],
        ["jimmy", "4", "user=jim0", "0", "conditions"],
    ]
    assert lines[7:] == [
        ["jimmy", "1", "more"],
        ["cache_size", "1", "environment=prod", "user=jim", "200", "conditions"],
        ["cache_size", "2", "user=jim", "100", "conditions"],
    ]
    limited = run("search", "user=jim", "--limit", "1")
    assert limited.err == "Note: 1 more setting is not shown; use --limit 2.\n"
    assert limited.out.splitlines()[1].startswith("cache_size")


def test_the_result_as_json(run: Run) -> None:
    """An empty one has the status 1, like an empty list of settings."""
    assert run("search", "red", "--json").json == {
        "settings": [{"name": "shop.color", "matches": ["default_value"], "rules": [], "rule_count": 0}],
        "total": 1,
    }
    nothing = run("search", "xyzzy", "--json")
    assert (nothing.status, nothing.json["total"]) == (1, 0)
    assert nothing.err == "Error: no setting and no rule contains 'xyzzy'\n"
    assert run("search", "").status == 2
