"""The priority of rules: specified cases as data, and a comparison with a brute-force implementation."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Reason, Rule
from heksher_client._core.settings import rule_set as rule_set_module
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet

FEATURES = ("environment", "user", "theme")
CONTEXT = {"environment": "prod", "user": "jim", "theme": "dark"}


def build(rules: list[Rule[int]], default: int = -1) -> RuleSet[int]:
    rule_set, _ = RuleSet.build(group_by_features(rules), FEATURES, default, Reason.DECLARED_DEFAULT)
    return rule_set


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (("user", "theme"), ("environment", "theme")),
        (("theme",), ("environment", "user")),
        (("environment", "user"), ("user",)),
        (("user",), ("environment",)),
        (("environment", "theme"), ("theme",)),
        (("environment", "user", "theme"), ("user", "theme")),
        (("environment",), ()),
    ],
)
def test_the_rule_with_a_condition_on_the_last_differing_feature_wins(
    stronger: tuple[str, ...], weaker: tuple[str, ...]
) -> None:
    """As documented, and in any order of the rules in a response."""
    rules = [Rule({f: CONTEXT[f] for f in features}, len(features) * 10, i) for i, features in
             enumerate([stronger, weaker])]  # fmt: skip

    for given_rules in (rules, rules[::-1]):
        resolution = build(given_rules).explain(CONTEXT)
        assert (resolution.rule, resolution.outranked) == (rules[0], (rules[1],))


def test_a_rule_matches_only_if_all_its_conditions_do() -> None:
    """One condition on another value excludes a rule."""
    rules = build([Rule({"user": "jim", "theme": "light"}, 1, 1), Rule({"user": "john"}, 2, 2)], default=0)
    assert rules.resolve(CONTEXT) == 0
    resolution = rules.explain(CONTEXT)
    assert (resolution.value, resolution.reason, resolution.rule) == (0, Reason.DECLARED_DEFAULT, None)
    assert resolution.context == CONTEXT


def test_of_two_rules_with_the_same_conditions_the_higher_id_is_kept() -> None:
    """In any order. The other rule is returned, so that it can be logged; rules with other conditions stay."""
    low, high = Rule({"user": "jim", "theme": "dark"}, 1, 1), Rule({"theme": "dark", "user": "jim"}, 2, 2)
    other = Rule({"user": "ann", "theme": "dark"}, 3, 3)
    for rules in ([low, high, other], [high, other, low]):
        rule_set, duplicates = RuleSet.build(group_by_features(rules), FEATURES, 0, Reason.SERVER_DEFAULT)
        assert (rule_set.resolve(CONTEXT), duplicates) == (2, [low])
        assert sorted(rule.rule_id or 0 for rule in rule_set.rules()) == [2, 3]


@pytest.mark.parametrize(("ids", "kept"), [((None, None), 1), ((0, None), 1), ((1, None), 0), ((None, 1), 1)])
def test_of_two_rules_without_ids_the_later_one_is_kept(ids: tuple[int | None, int | None], kept: int) -> None:
    """A rule without an id has the lowest one. Rules in stubs have none."""
    rules = [Rule({"user": "jim"}, value, rule_id) for value, rule_id in enumerate(ids)]
    assert build(rules).resolve(CONTEXT) == kept


def test_the_duplicates_of_all_groups_are_returned() -> None:
    """In descending priority of their features."""
    rules = [Rule({feature: "x"}, rule_id, rule_id) for feature in ("user", "theme") for rule_id in (1, 2)]
    _, duplicates = RuleSet.build(group_by_features(rules), FEATURES, 0, Reason.SERVER_DEFAULT)
    assert duplicates == [Rule({"theme": "x"}, 1, 1), Rule({"user": "x"}, 1, 1)]


def test_the_feature_with_the_fewest_values_comes_first() -> None:
    """Of features with as many values, the one that the service has first. The values of the last one are left out."""
    rules = [Rule({"environment": f"e{i}", "user": f"u{i % 2}", "theme": f"t{i % 2}"}, i) for i in range(3)]
    rule_set = build(rules)
    values = [(feature, sorted(values)) for feature, values in rule_set.condition_values.items()]
    assert values == [("user", ["u0", "u1"]), ("theme", ["t0", "t1"]), ("environment", [])]
    assert (rule_set.last_feature, build([]).last_feature) == ("environment", None)


@pytest.mark.parametrize(("limit", "steps"), [(11, [2, 2]), (10, [2, 2, 2, 2, 0])])
def test_values_of_the_last_feature_are_collected_in_steps_beyond_a_number_of_rules(
    limit: int, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to it, they are collected when a read needs them. A step is reported as half as many rules."""
    monkeypatch.setattr(rule_set_module, "STEP_SIZE", 4)
    monkeypatch.setattr(rule_set_module, "_MAX_RULES_FOR_LAZY_VALUES", limit)
    rules = [Rule({"user": f"u{i}"}, i) for i in range(9)]
    rules += [Rule({"environment": "e", "theme": "t", "user": f"u{i}"}, -i) for i in range(2)]
    work = RuleSet.build_in_steps(group_by_features(rules), FEATURES, 0, Reason.SERVER_DEFAULT)
    done: list[int] = []
    while True:
        try:
            done.append(next(work))
        except StopIteration as end:
            rule_set, _ = end.value
            break
    assert (done, {type(step) for step in done}) == (steps, {int})
    assert rule_set.last_feature == "user"
    assert len(rule_set.last_feature_values) == (0 if limit == 11 else 9)
    rule_set.fill_last_feature_values()
    assert set(rule_set.last_feature_values) == {f"u{i}" for i in range(9)}


def test_conditions_are_in_the_order_of_the_context_features() -> None:
    """The order in which they are received does not matter, nor the one in which the features are nested."""
    rules = [Rule({"theme": "dark", "user": "jim"}, 1), Rule({"user": "ann"}, 2)]
    rule_set = build(rules)
    assert list(rule_set.condition_values) == ["theme", "user"]
    assert [list(rule.match_conditions) for rule in rule_set.rules()] == [["user", "theme"], ["user"]]


def test_a_rule_is_immutable() -> None:
    """It has its own copy of the conditions."""
    conditions = {"user": "jim"}
    rule = Rule(conditions, 1)
    conditions["user"] = "john"
    assert rule.match_conditions == {"user": "jim"}
    with pytest.raises(TypeError):
        rule.match_conditions["user"] = "john"  # type: ignore[index]


# -- comparison with a brute-force implementation ----------------------------------------------------------------------


def brute_force(rules: list[Rule[int]], context: Mapping[str, str]) -> list[Rule[int]]:
    """Return the matching rules, strongest first, by the definition in the documentation."""
    matching = [r for r in rules if all(context[f] == v for f, v in r.match_conditions.items())]

    def beats(a: Rule[int], b: Rule[int]) -> bool:
        for feature in reversed(FEATURES):
            if (feature in a.match_conditions) != (feature in b.match_conditions):
                return feature in a.match_conditions
        return False

    return sorted(matching, key=lambda rule: sum(beats(other, rule) for other in matching))


VALUES = st.sampled_from(["a", "b"])
CONDITIONS = st.dictionaries(st.sampled_from(FEATURES), VALUES)
CONTEXTS = st.fixed_dictionaries(dict.fromkeys(FEATURES, VALUES))


@given(st.lists(CONDITIONS, max_size=30, unique_by=lambda c: tuple(sorted(c.items()))), CONTEXTS)
def test_resolution_agrees_with_the_definition(conditions: list[dict[str, str]], context: dict[str, str]) -> None:
    """For any rules and any context, the winning and outranked rules are those of the brute-force function."""
    rules = [Rule(c, i, i) for i, c in enumerate(conditions)]
    expected = brute_force(rules, context)
    rule_set = build(rules)

    assert rule_set.matching(context) == expected
    assert rule_set.resolve(context) == (expected[0].value if expected else -1)
    resolution = rule_set.explain(context)
    assert (resolution.value, resolution.context) == (rule_set.resolve(context), context)
    assert resolution.reason is (Reason.RULE if expected else Reason.DECLARED_DEFAULT)
    assert ([resolution.rule] if resolution.rule else []) + list(resolution.outranked) == expected
    assert len(rule_set) == len(rules)
    assert sorted(rule.value for rule in rule_set.rules()) == sorted(rule.value for rule in rules)
