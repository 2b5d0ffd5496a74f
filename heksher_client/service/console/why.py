"""Why a setting has the value that it has in a context: what became of each rule, and where that was decided.

Which rule wins is the client's own decision: the same code resolves here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client.service.store import StoredRule

NO_VALUE = ""
"""What a feature has in a context that says nothing of it. No condition is on it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a rule demands of a context feature, and what came of that."""

    demanded: str | None
    """None for a wildcard."""
    is_met: bool
    decides: bool
    """Whether it is for this feature that the rule does not win."""


@dataclass(frozen=True, slots=True)
class Line:
    """A rule, and what became of it."""

    rule: StoredRule
    cells: Sequence[Cell]
    """In the order of the context features."""
    outcome: str
    """`wins`, `loses` or `does not match`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Why:
    """The value in a context, and what became of all rules."""

    value: Any
    winner: int | None
    """The id of the rule; None for the default value."""
    lines: Sequence[Line]
    """In the order of priority: those that match first, and only some of those that do not."""
    left_out: int
    """How many of those that do not."""


def in_priority_order(rules: Sequence[StoredRule], order: Sequence[str]) -> list[StoredRule]:
    """Rules, the strongest first."""
    return _in_order(_rule_set(rules, order, None), {rule.id: rule for rule in rules})


def explain(
    rules: Sequence[StoredRule], order: Sequence[str], default: Any, context: Mapping[str, str], *, most: int
) -> Why:
    """Explain a value.

    Args:
        rules: All of the setting.
        order: The context features in the service's order.
        default: The setting's default value.
        context: What the features have; all others have nothing.
        most: How many rules to list that do not match.
    """
    whole = {feature: context.get(feature) or NO_VALUE for feature in order}
    by_id = {rule.id: rule for rule in rules}
    rule_set = _rule_set(rules, order, default)
    matching = [by_id[rule.rule_id or 0] for rule in rule_set.matching(whole)]
    winner = matching[0] if matching else None
    lines = [_matching_line(rule, winner, order) for rule in matching if winner is not None]
    matched = {rule.id for rule in matching}
    others = [rule for rule in _in_order(rule_set, by_id) if rule.id not in matched]
    lines += [_other_line(rule, whole) for rule in others[:most]]
    return Why(rule_set.resolve(whole), None if winner is None else winner.id, lines, max(0, len(others) - most))


def _rule_set(rules: Sequence[StoredRule], order: Sequence[str], default: Any) -> RuleSet[Any]:
    known = [Rule(dict(rule.conditions), rule.value, rule.id) for rule in rules]
    return RuleSet.build(group_by_features(known), order, default, Reason.SERVER_DEFAULT)[0]


def _in_order(rule_set: RuleSet[Any], by_id: Mapping[int, StoredRule]) -> list[StoredRule]:
    return [by_id[rule.rule_id or 0] for rule in rule_set.rules()]


def _matching_line(rule: StoredRule, winner: StoredRule, order: Sequence[str]) -> Line:
    conditions = dict(rule.conditions)
    differing = [feature for feature in order if (feature in dict(winner.conditions)) != (feature in conditions)]
    decisive = differing[-1] if differing else None
    cells = [Cell(conditions.get(feature), is_met=True, decides=feature == decisive) for feature in order]
    if decisive is None:
        return Line(rule, cells, "wins", "its conditions are all met, and no stronger rule's are")
    return Line(rule, cells, "loses", f"rule {winner.id} has a condition on {decisive}, and this rule has none")


def _other_line(rule: StoredRule, context: Mapping[str, str]) -> Line:
    conditions = dict(rule.conditions)
    unmet = [feature for feature in context if feature in conditions and conditions[feature] != context[feature]]
    cells = [
        Cell(conditions.get(feature), is_met=feature not in unmet, decides=feature in unmet) for feature in context
    ]
    words = [f"{feature} is {context[feature] or 'not given'}" for feature in unmet]
    return Line(rule, cells, "does not match", " and ".join(words))
