"""The explanation of a setting's value in a context: the outcome of each rule, and the conditions that decide it.

The winning rule is resolved by the code of the client, so that the console and the clients always agree.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client.service.store import StoredRule

NO_VALUE = ""
"""The value of features that the context does not contain. No condition can require it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The condition of a rule on a context feature, and its result."""

    feature: str
    required: str | None
    """None if the rule has no condition on the feature."""
    is_met: bool
    is_decisive: bool
    """Whether the rule does not win because of this feature."""


@dataclass(frozen=True, slots=True)
class Line:
    """A rule and its outcome."""

    rule: StoredRule
    cells: Sequence[Cell]
    """In the order of the context features."""
    outcome: str
    """`wins`, `loses` or `does not match`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The value in a context, and the outcome of the rules."""

    value: Any
    winner: int | None
    """The id of the winning rule; None if the value is the default value."""
    lines: Sequence[Line]
    """In the order of priority: first all rules that match, then those that do not, as far as they were asked for."""
    omitted: int
    """The number of rules that do not match and are not listed."""


def explain(
    rules: Sequence[StoredRule],
    order: Sequence[str],
    default: Any,
    context: Mapping[str, str],
    *,
    others: Sequence[StoredRule] = (),
    omitted: int = 0,
) -> Explanation:
    """Explain the value of a setting in a context.

    Args:
        rules: The rules in effect whose conditions are all met, and perhaps others in effect.
        order: The context features in the order of the service.
        default: The default value of the setting.
        context: The values of context features. Features without a value match no condition.
        others: Rules that do not match, to be listed as well.
        omitted: The number of further rules that do not match.
    """
    complete = {feature: context.get(feature) or NO_VALUE for feature in order}
    by_id = {rule.id: rule for rule in rules}
    rule_set = _rule_set(rules, order, default)
    matching = [by_id[rule.rule_id or 0] for rule in rule_set.matching(complete)]
    winner = matching[0] if matching else None
    lines = [_matching_line(rule, winner, order) for rule in matching if winner is not None]
    lines += [_other_line(rule, complete) for rule in others]
    return Explanation(rule_set.resolve(complete), None if winner is None else winner.id, lines, omitted)


def values_in(
    rules: Sequence[StoredRule], order: Sequence[str], default: Any, contexts: Iterable[Mapping[str, str]]
) -> list[Any]:
    """Return the value of a setting in each of several contexts. Features without a value match no condition."""
    rule_set = _rule_set(rules, order, default)
    return [rule_set.resolve({feature: context.get(feature, NO_VALUE) for feature in order}) for context in contexts]


def _rule_set(rules: Sequence[StoredRule], order: Sequence[str], default: Any) -> RuleSet[Any]:
    converted = [Rule(dict(rule.conditions), rule.value, rule.id) for rule in rules]
    return RuleSet.build(group_by_features(converted), order, default, Reason.SERVER_DEFAULT)[0]


def _matching_line(rule: StoredRule, winner: StoredRule, order: Sequence[str]) -> Line:
    conditions = dict(rule.conditions)
    differing = [feature for feature in order if (feature in dict(winner.conditions)) != (feature in conditions)]
    decisive = differing[-1] if differing else None  # The last feature has the highest priority.
    cells = [Cell(feature, conditions.get(feature), is_met=True, is_decisive=feature == decisive) for feature in order]
    if decisive is None:
        return Line(rule, cells, "wins", "it has the highest priority of the rules whose conditions are all met")
    return Line(rule, cells, "loses", f"rule {winner.id} has a condition on {decisive}, and this rule does not")


def _other_line(rule: StoredRule, context: Mapping[str, str]) -> Line:
    conditions = dict(rule.conditions)
    unmet = [feature for feature in context if feature in conditions and conditions[feature] != context[feature]]
    cells = [
        Cell(feature, conditions.get(feature), is_met=feature not in unmet, is_decisive=feature in unmet)
        for feature in context
    ]
    reasons = [f"{feature} is {context[feature] or 'not given'}" for feature in unmet]
    if not rule.in_effect:
        reasons.append("it is not in effect now")
    return Line(rule, cells, "does not match", " and ".join(reasons))
