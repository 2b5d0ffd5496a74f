"""The comparison of two contexts, and the plan of a copy of rules, with any rules and contexts."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Reason, Rule
from heksher_client._core.settings.context_comparison import (
    ComparedRule,
    ComparedSetting,
    CopyKind,
    PlannedCopy,
    ValuePair,
    compare_contexts,
    copied_metadata,
    plan_copy,
)
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet

FEATURES = ("environment", "user", "theme")
STAGING, PROD = {"environment": "staging"}, {"environment": "prod"}


def setting(*rules: ComparedRule, name: str = "s", default: Any = 0, features: tuple[str, ...] = FEATURES) -> Any:
    return ComparedSetting(name, default, features, rules)


def rule(rule_id: int, value: Any, **conditions: str) -> ComparedRule:
    return ComparedRule(rule_id, conditions, value)


def compared(first: Mapping[str, str], second: Mapping[str, str], *rules: ComparedRule) -> list[tuple[Any, ...]]:
    """Return the further context and both values of each pair."""
    pairs = compare_contexts([setting(*rules)], FEATURES, first, second)
    return [(pair.further, pair.first.value, pair.second.value) for pair in pairs]


def planned(source: Mapping[str, str], target: Mapping[str, str], compared: ComparedSetting) -> list[PlannedCopy]:
    return list(plan_copy([compared], FEATURES, source, target))


# -- comparison --------------------------------------------------------------------------------------------------------


def test_the_values_of_each_setting_in_both_contexts_are_compared() -> None:
    """With the rules that decide them, in the order of the settings."""
    staging, prod = rule(1, 1, environment="staging"), rule(2, 2, environment="prod")
    settings = [setting(staging, prod, name="b"), setting(name="a", default="x", features=("user",))]
    b, a = compare_contexts(settings, FEATURES, STAGING, PROD)
    assert (b.setting, b.further, b.first.value, b.first.rule, b.second.value, b.second.rule) == (
        "b", {}, 1, staging, 2, prod,
    )  # fmt: skip
    assert (a.setting, a.first.value, a.first.rule, a.second.value) == ("a", "x", None, "x")
    assert (b.is_different, a.is_different) == (True, False)


@pytest.mark.parametrize(("first", "second", "is_different"), [(1, 1.0, False), (1, True, True), ([1], [2], True)])
def test_values_are_compared_as_json_values(first: Any, second: Any, *, is_different: bool) -> None:
    """The service stores 1.0 and 1 as they were sent."""
    rules = [rule(1, first, environment="staging"), rule(2, second, environment="prod")]
    (pair,) = compare_contexts([setting(*rules)], FEATURES, STAGING, PROD)
    assert pair.is_different is is_different


def test_contexts_are_also_compared_with_the_further_conditions_of_their_rules() -> None:
    """Otherwise, a rule for a user in one of both environments would not be a difference."""
    rules = [
        rule(1, 1, environment="staging"),
        rule(2, 2, theme="dark", environment="staging", user="jim"),
        rule(3, 3, environment="prod", user="ann"),
        rule(4, 4, environment="prod", user="jim", theme="dark"),
    ]
    assert compared(STAGING, PROD, *rules) == [
        ({}, 1, 0),
        ({"user": "jim", "theme": "dark"}, 2, 4),
        ({"user": "ann"}, 1, 3),
    ]
    further = [pair.further for pair in compare_contexts([setting(*rules)], FEATURES, STAGING, PROD)]
    assert list(further[1]) == ["user", "theme"]


@pytest.mark.parametrize("conditions", [{"user": "jim"}, {"environment": "dev", "user": "jim"}])
def test_rules_that_concern_neither_context_add_no_further_contexts(conditions: dict[str, str]) -> None:
    """A setting may have thousands of them."""
    assert compared(STAGING, PROD, rule(1, 1, **conditions)) == [({}, 0, 0)]


def test_contexts_may_have_other_features() -> None:
    """Features that a context does not contain meet no condition."""
    rules = [rule(1, 1, environment="prod"), rule(2, 2, environment="prod", user="jim"), rule(3, 3, user="ann")]
    assert compared(PROD, PROD | {"user": "jim"}, *rules) == [({}, 1, 2)]
    assert compared({}, {"user": "ann"}, *rules) == [({}, 0, 3)]
    dark = rule(4, 4, user="jim", theme="dark")
    assert compared(PROD, PROD | {"user": "jim"}, *rules, dark) == [({}, 1, 2), ({"theme": "dark"}, 1, 4)]


def test_rules_that_are_not_in_effect_decide_nothing() -> None:
    """They are temporary rules outside their period."""
    ended = ComparedRule(1, {"environment": "prod", "user": "jim"}, 1, "until yesterday", is_in_effect=False)
    assert compared(STAGING, PROD, ended) == [({}, 0, 0)]


def test_a_feature_that_the_order_lacks_is_the_last_one() -> None:
    """The order and the rules are fetched by several requests, so a feature may have been added in between."""
    rules = [rule(1, 1, environment="prod", planet="mars"), rule(2, 2, environment="prod", user="jim")]
    pairs = compare_contexts([setting(*rules)], ["environment", "user"], PROD, PROD | {"user": "jim", "planet": "mars"})
    assert [(pair.first.value, pair.second.value) for pair in pairs] == [(0, 1)]


VALUES = st.sampled_from(["a", "b"])
CONDITIONS = st.dictionaries(st.sampled_from(FEATURES), VALUES, min_size=1)
CONTEXTS = st.dictionaries(st.sampled_from(FEATURES), VALUES)
RULES = st.lists(CONDITIONS, max_size=20, unique_by=lambda c: tuple(sorted(c.items()))).map(
    lambda all_conditions: [ComparedRule(i, conditions, i) for i, conditions in enumerate(all_conditions)]
)


def resolve(rules: list[ComparedRule], context: Mapping[str, str]) -> int:
    groups = group_by_features([Rule(rule.conditions, rule.value, rule.rule_id) for rule in rules])
    rule_set, _ = RuleSet.build(groups, FEATURES, -1, Reason.SERVER_DEFAULT)
    value: int = rule_set.resolve({feature: context.get(feature, "") for feature in FEATURES})
    return value


@given(RULES, CONTEXTS, CONTEXTS)
def test_values_are_those_that_a_client_reads(
    rules: list[ComparedRule], first: dict[str, str], second: dict[str, str]
) -> None:
    """In both contexts, and in each further one."""
    pairs = list(compare_contexts([setting(*rules, default=-1)], FEATURES, first, second))
    assert pairs[0].further == {}
    assert len({tuple(pair.further.items()) for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert not pair.further.keys() & {*first, *second}
        assert pair.first.value == resolve(rules, {**first, **pair.further})
        assert pair.second.value == resolve(rules, {**second, **pair.further})
        for side in (pair.first, pair.second):
            assert side.value == (-1 if side.rule is None else side.rule.value)


@given(RULES, CONTEXTS, CONTEXTS)
def test_each_rule_that_matches_only_one_context_is_compared(
    rules: list[ComparedRule], first: dict[str, str], second: dict[str, str]
) -> None:
    """There is a pair in whose further context the rule matches."""
    further = [pair.further for pair in compare_contexts([setting(*rules)], FEATURES, first, second)]
    given_features = {*first, *second}
    for each in rules:
        own = {feature: value for feature, value in each.conditions.items() if feature in given_features}
        others = {feature: value for feature, value in each.conditions.items() if feature not in given_features}
        if (own.items() <= first.items()) != (own.items() <= second.items()):
            assert others in further


# -- copy --------------------------------------------------------------------------------------------------------------


def test_rules_with_all_conditions_of_a_context_are_copied_with_those_of_the_other() -> None:
    """Rules that exist are changed if their value differs."""
    rules = [
        rule(1, 1, environment="staging"),
        rule(2, 2, user="jim", environment="staging"),
        rule(3, 3, environment="staging", user="ann"),
        rule(4, 9, environment="prod", user="jim"),
        rule(5, 3.0, environment="prod", user="ann"),
        rule(6, 6, user="jim"),
    ]
    plan = planned(STAGING, PROD, setting(*rules))
    assert [(step.rule.rule_id, step.conditions, step.existing, step.kind) for step in plan] == [
        (1, {"environment": "prod"}, None, CopyKind.ADDED),
        (2, {"environment": "prod", "user": "jim"}, rules[3], CopyKind.CHANGED),
        (3, {"environment": "prod", "user": "ann"}, rules[4], CopyKind.UNCHANGED),
    ]
    assert list(plan[1].conditions) == ["environment", "user"]
    assert [step.is_change for step in plan] == [True, True, False]
    assert {(step.setting, step.reason) for step in plan} == {("s", "")}


def test_a_context_with_several_features_selects_rules_with_all_of_them() -> None:
    """And the other one may have fewer or other features."""
    rules = [rule(1, 1, environment="staging", user="jim", theme="dark"), rule(2, 2, environment="staging")]
    (step,) = planned(STAGING | {"user": "jim"}, PROD, setting(*rules))
    assert step.conditions == {"environment": "prod", "theme": "dark"}
    (step,) = planned({"user": "jim"}, {"user": "ann"}, setting(*rules))
    assert step.conditions == {"environment": "staging", "user": "ann", "theme": "dark"}


def test_rules_are_skipped_if_their_setting_is_not_configurable_by_a_feature_of_the_copy() -> None:
    """The reason names the feature."""
    compared = setting(rule(1, 1, user="jim"), features=("user",))
    (step,) = planned({"user": "jim"}, PROD | {"theme": "dark", "user": "ann"}, compared)
    assert (step.kind, step.reason) == (
        CopyKind.SKIPPED, "the setting is not configurable by environment, theme",
    )  # fmt: skip
    assert not step.is_change


def test_rules_are_skipped_if_they_have_a_condition_on_a_feature_that_only_the_target_has() -> None:
    """The copies of two rules could have the same conditions."""
    rules = [rule(1, 1, environment="staging"), rule(2, 2, environment="staging", user="ann")]
    plan = planned(STAGING, PROD | {"user": "jim"}, setting(*rules))
    assert [(step.kind, step.reason) for step in plan] == [
        (CopyKind.ADDED, ""),
        (CopyKind.SKIPPED, "the rule has another condition on user"),
    ]


def test_temporary_rules_are_copied_with_their_period_and_only_while_they_are_in_effect() -> None:
    """A rule with the same value and another period is changed, also one that is not in effect."""
    compared = setting(
        ComparedRule(1, {"environment": "staging"}, 1, "today"),
        ComparedRule(2, {"environment": "prod"}, 1, "yesterday", is_in_effect=False),
        ComparedRule(3, {"environment": "staging", "user": "jim"}, 1, "today"),
        ComparedRule(4, {"environment": "prod", "user": "jim"}, 1, "today"),
        ComparedRule(5, {"environment": "staging", "user": "ann"}, 1, "tomorrow", is_in_effect=False),
    )
    plan = planned(STAGING, PROD, compared)
    assert [(step.rule.rule_id, step.kind) for step in plan] == [(1, CopyKind.CHANGED), (3, CopyKind.UNCHANGED)]


@pytest.mark.slow
@given(RULES, CONTEXTS.filter(bool), CONTEXTS.filter(bool))
def test_after_a_copy_nothing_is_left_to_copy(
    rules: list[ComparedRule], source: dict[str, str], target: dict[str, str]
) -> None:
    """And the rules that were copied are as before."""
    if source == target:
        return
    plan = planned(source, target, setting(*rules))
    stored = {frozenset(rule.conditions.items()): rule for rule in rules}
    changes = [step for step in plan if step.is_change]
    for number, step in enumerate(changes, 100):
        rule_id = number if step.existing is None else step.existing.rule_id
        stored[frozenset(step.conditions.items())] = ComparedRule(rule_id, step.conditions, step.rule.value)
    assert all(stored[frozenset(step.rule.conditions.items())] is step.rule for step in changes)
    assert len(stored) == len(rules) + sum(step.kind is CopyKind.ADDED for step in plan)
    again = planned(source, target, setting(*stored.values()))
    assert not [step for step in again if step.is_change]


@given(RULES)
def test_contexts_with_the_same_features_have_the_same_rules_after_a_copy(rules: list[ComparedRule]) -> None:
    """If the target had none of its own."""
    source, target = {"environment": "a"}, {"environment": "b"}
    kept = [each for each in rules if each.conditions.get("environment") != "b"]
    copies = [
        ComparedRule(100 + step.rule.rule_id, step.conditions, step.rule.value)
        for step in planned(source, target, setting(*kept))
    ]
    pairs: list[ValuePair] = list(compare_contexts([setting(*kept, *copies)], FEATURES, source, target))
    assert not [pair for pair in pairs if pair.is_different]


@pytest.mark.parametrize(
    ("source", "existing", "notes", "expected"),
    [
        ({"comment": "a", "team": 1}, {}, {}, {"comment": "a", "team": 1}),
        ({"comment": "a"}, {"comment": "b", "link": "l"}, {"comment": "", "link": ""}, {"comment": "a"}),
        ({}, {"comment": "b", "link": "l", "protected": True}, {}, {"protected": True}),
        ({"comment": "a", "link": "l"}, {}, {"comment": "c", "link": ""}, {"comment": "c", "link": "l"}),
    ],
)
def test_the_metadata_of_a_copy_are_those_of_the_copied_rule(
    source: dict[str, Any], existing: dict[str, Any], notes: dict[str, str], expected: dict[str, Any]
) -> None:
    """A replaced rule keeps its others, except for its comment and link, which explained the former value."""
    assert copied_metadata(source, existing, notes) == expected
