"""The conditions of a rule that a program creates."""

from typing import Any

import pytest

from heksher_client import Rule, Setting
from heksher_client.testing import SyncStubHeksherClient


@pytest.mark.parametrize(
    "conditions",
    [
        {"user": 5},
        {"user": True},
        {"user": b"a"},
        {"user": ["a"]},
        {5: "a"},
        {None: "a"},
        {("user",): None},
        {"user": 1.0, "theme": None},
    ],
)
def test_t1_a_condition_of_another_type_is_an_error(conditions: Any) -> None:
    """It would never match."""
    with pytest.raises(TypeError, match="a condition of a rule must be a str, or None for a wildcard"):
        Rule(conditions, 2)


@pytest.mark.parametrize(
    ("conditions", "name"), [(None, "NoneType"), ("user", "str"), (5, "int"), ([("user", "jim")], "list")]
)
def test_t1_conditions_are_a_dict(conditions: Any, name: str) -> None:
    """A list of pairs is the format of the service, and not of a `Rule`. The error names the type."""
    with pytest.raises(TypeError, match=f"^match_conditions must be a dict of values by feature, not {name}$"):
        Rule(conditions, 2)


def test_t1_none_is_a_wildcard() -> None:
    """As in the older client, so the rule equals one without that condition."""
    setting = Setting("s", int, ["user", "theme"], 1)
    rule = Rule({"user": "a", "theme": None}, 2)  # type: ignore[dict-item]
    assert (rule, rule.match_conditions) == (Rule({"user": "a"}, 2), {"user": "a"})
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [rule]
        assert [setting.get(user="a", theme="dark"), setting.get(user="b", theme="dark")] == [2, 1]
        with pytest.raises(ValueError, match="two rules have the same conditions"):
            stub[setting].rules = [rule, Rule({"user": "a"}, 3)]
