"""The rules that a comparison of two contexts reads: few, and the result is that of all rules."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from heksher_client._core.settings.context_comparison import (
    ComparedRule,
    ComparedSetting,
    ValuePair,
    compare_contexts,
    plan_copy,
)
from heksher_client.service import compared_rules, rule_search, store
from heksher_client.service.compared_rules import read_comparison
from heksher_client.service.database import Database
from heksher_client.service.import_export import apply, plan
from tests.support.http import http_request
from tests.support.service import WatchedService
from tests.support.statements import statements_of

FEATURES = ["environment", "user", "theme"]
CONDITIONS = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from("abc"), min_size=1)
CONTEXT = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from("abcd"), min_size=1, max_size=2)


def content(*rules: list[dict[str, str]]) -> dict[str, Any]:
    """Return a document with a setting for each list of conditions. Each rule has a value of its own."""
    stored = [
        {"name": f"s{i}", "type": "int", "default_value": -1, "configurable_features": FEATURES,
         "rules": [{"feature_values": conditions, "value": value} for value, conditions in enumerate(given)]}
        for i, given in enumerate(rules)
    ]  # fmt: skip
    return {"heksher": 1, "context_features": FEATURES, "settings": stored}


def fill(connection: Connection, document: dict[str, Any]) -> None:
    apply(connection, plan(connection, document, exact=True))


def all_settings(connection: Connection) -> list[ComparedSetting]:
    """Return all settings with all rules."""
    rules = [
        (rule.setting_id, ComparedRule(rule.id, dict(rule.conditions_in(FEATURES)), rule.value, rule.period))
        for rule in store.rules(connection)
    ]
    return [
        ComparedSetting(setting.declaration.name, -1, FEATURES, [rule for owner, rule in rules if owner == setting.id])
        for setting in store.settings(connection)
    ]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """One database for all examples, which replace its content."""
    opened = Database("sqlite://")
    yield opened
    opened.close()


@settings(max_examples=30)
@given(
    rules=st.tuples(*[st.lists(CONDITIONS, max_size=6, unique_by=lambda c: tuple(sorted(c.items())))] * 2),
    first=CONTEXT,
    second=CONTEXT,
    max_looked_up=st.sampled_from([0, 5_000]),
    max_keys=st.sampled_from([1, 500]),
)
def test_a_comparison_and_a_copy_are_those_of_all_rules(
    database: Database,
    rules: tuple[list[dict[str, str]], ...],
    first: dict[str, str],
    second: dict[str, str],
    max_looked_up: int,
    max_keys: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch, database.begin() as connection:
        patch.setattr(compared_rules, "_MAX_LOOKED_UP", max_looked_up)
        patch.setattr(rule_search, "_MAX_KEYS", max_keys)
        fill(connection, content(*rules))
        every = all_settings(connection)
        stored, contexts = store.settings(connection), (FEATURES, first, second)
        found = read_comparison(connection, stored, *contexts, is_selection=False)
        assert list(compare_contexts(found.settings, *contexts)) == list(compare_contexts(every, *contexts))
        assert list(plan_copy(found.settings, *contexts)) == list(plan_copy(every, *contexts))
        (selected,) = read_comparison(connection, stored[:1], *contexts, is_selection=True).settings
        assert pairs(selected, first, second) == pairs(every[0], first, second)


def pairs(setting: ComparedSetting, first: dict[str, str], second: dict[str, str]) -> list[ValuePair]:
    return list(compare_contexts([setting], FEATURES, first, second))


def test_rules_that_match_in_both_contexts_are_read_only_if_they_may_decide(new_database: Callable[[], str]) -> None:
    """Of the rules for other users, none is read, however many there are."""
    opened = Database(new_database())
    others = [{"user": f"other{i}"} for i in range(20)]
    specific = [{"environment": "prod", "user": "jim"}, {"environment": "dev", "user": "ann"}]
    with opened.begin() as connection:
        fill(connection, content([*specific, {"user": "jim"}, *others], others))
        stored = store.settings(connection)
    contexts = FEATURES, {"environment": "prod"}, {"environment": "staging"}
    with statements_of(opened) as statements, opened.begin(writes=False) as connection:
        found = read_comparison(connection, stored, *contexts, is_selection=False)
    assert [dict(rule.conditions) for rule in found.rules.values()] == [specific[0], {"user": "jim"}]
    assert sum("FROM rules" in statement for statement in statements) == 2
    opened.close()


def test_the_endpoint_compares_all_settings(service: WatchedService) -> None:
    """Equal values are left out, unless they are wanted. A context may be empty."""
    service.declare("s", "int", 7, ["environment", "user"])
    service.declare("t", "str", "x", ["user"])
    rule_id = service.add_rule("s", 8, user="jim", environment="a,b")

    def compare(**parameters: Any) -> Any:
        return http_request("GET", f"{service.url}/api/v1/compare", params=parameters).json()["pairs"]

    conditions = [["environment", "a,b"], ["user", "jim"]]
    decided = {"value": 8, "rule": {"rule_id": rule_id, "feature_values": conditions}}
    pair = {"setting": "s", "feature_values": [["user", "jim"]], "first": decided, "second": {"value": 7}}
    assert compare(first="environment:a~2Cb", second="environment:c") == [{**pair, "is_different": True}]
    assert compare(first="user:jim,environment:a~2Cb") == [{**pair, "feature_values": [], "is_different": True}]
    assert [one["setting"] for one in compare(include_equal=True)] == ["s", "t"]
    response = http_request("GET", f"{service.url}/api/v1/compare", params={"first": "user"})
    assert response.status_code == 422
