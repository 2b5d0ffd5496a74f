"""Comparison of two contexts of one service, and the plan of a copy of rules from one to the other.

Values are resolved by `RuleSet`, as in clients. Rules with further conditions count as well: if `environment=staging`
has a rule for `user=jim` that `environment=prod` lacks, the contexts differ for that user.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any, Final

from heksher_client._core.settings.context import order_with
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._json_values import is_equal

_NO_VALUE: Final = ""
"""The value of features that a context does not contain. No condition can require it."""
_NOTES: Final = ("comment", "link")
"""Metadata of a rule that explain its last change."""


@dataclass(frozen=True, slots=True)
class ComparedRule:
    """A rule as far as a comparison needs it."""

    rule_id: int
    conditions: Mapping[str, str]
    value: Any
    """A JSON value."""
    period: object = None
    """The period of a temporary rule. It is only compared."""
    is_in_effect: bool = True
    """False for a temporary rule outside its period. Such a rule has no effect, and is not copied."""


@dataclass(frozen=True, slots=True)
class ComparedSetting:
    """A setting with all of its rules."""

    name: str
    default: Any
    features: Collection[str]
    """The configurable features."""
    rules: Sequence[ComparedRule]


@dataclass(frozen=True, slots=True)
class ContextValue:
    """The value of a setting in a context."""

    value: Any
    rule: ComparedRule | None
    """The rule that decides it; None if it is the default value."""


@dataclass(frozen=True, slots=True)
class ValuePair:
    """The values of a setting in both contexts."""

    setting: str
    further: Mapping[str, str]
    """Values of other features that both contexts have in addition, because a rule requires them."""
    first: ContextValue
    second: ContextValue

    @property
    def is_different(self) -> bool:
        """True if the values differ."""
        return not is_equal(self.first.value, self.second.value)


def compare_contexts(
    settings: Iterable[ComparedSetting], order: Sequence[str], first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[ValuePair]:
    """Yield the values of each setting in both contexts, equal ones as well.

    For each setting, the first pair is that of the contexts as they are. The others are those of the contexts with the
    further conditions of a rule that has all its other conditions met by one of them.

    Args:
        settings: The settings.
        order: The context features in the order of the service.
        first: A context. Features that it does not contain meet no condition.
        second: Another context.
    """
    for setting in settings:
        rules = [rule for rule in setting.rules if rule.is_in_effect]
        features = order_with(order, chain(setting.features, *(rule.conditions for rule in rules)))
        rule_set = _rule_set(rules, features)
        for further in further_contexts(rules, features, first, second):
            values = [
                _resolve(setting, rule_set, {**dict.fromkeys(features, _NO_VALUE), **context, **further})
                for context in (first, second)
            ]
            yield ValuePair(setting.name, further, *values)


def _rule_set(rules: Iterable[ComparedRule], order: Sequence[str]) -> RuleSet[ComparedRule | None]:
    """Return a rule set that resolves contexts to rules instead of values."""
    indexed: list[Rule[ComparedRule | None]] = [Rule(rule.conditions, rule, rule.rule_id) for rule in rules]
    return RuleSet.build(group_by_features(indexed), order, None, Reason.SERVER_DEFAULT)[0]


def _resolve(
    setting: ComparedSetting, rule_set: RuleSet[ComparedRule | None], context: Mapping[str, str]
) -> ContextValue:
    rule = rule_set.resolve(context)
    return ContextValue(setting.default if rule is None else rule.value, rule)


def further_contexts(
    rules: Iterable[ComparedRule], order: Sequence[str], first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[Mapping[str, str]]:
    """Yield the empty context, and then each that completes one of both to match a rule.

    A rule without a condition on their features matches in both contexts or in neither, so it adds none.

    Args:
        rules: The rules of a setting that are in effect.
        order: The context features in the order of the service.
        first: A context.
        second: Another context.
    """
    found: dict[tuple[tuple[str, str], ...], None] = {(): None}
    given = {*first, *second}
    for rule in rules:
        own = {feature: value for feature, value in rule.conditions.items() if feature in given}
        if own and (own.items() <= first.items() or own.items() <= second.items()):
            others = [feature for feature in order if feature in rule.conditions and feature not in given]
            found[tuple((feature, rule.conditions[feature]) for feature in others)] = None
    yield from map(dict, found)


# -- copy --------------------------------------------------------------------------------------------------------------


class CopyKind(StrEnum):
    """The result of the copy of a rule."""

    ADDED = "added"
    CHANGED = "changed"
    """A rule with the conditions of the copy exists, with another value or period."""
    UNCHANGED = "unchanged"
    """A rule like the copy exists."""
    SKIPPED = "skipped"
    """The rule cannot be copied."""


@dataclass(frozen=True, slots=True)
class PlannedCopy:
    """The copy of one rule."""

    setting: str
    rule: ComparedRule
    """The rule to copy."""
    conditions: Mapping[str, str]
    """The conditions of the copy, in the order of the context features."""
    existing: ComparedRule | None
    """The rule that already has these conditions."""
    kind: CopyKind
    reason: str = ""
    """The reason to skip the rule."""

    @property
    def is_change(self) -> bool:
        """True if the copy changes anything."""
        return self.kind in (CopyKind.ADDED, CopyKind.CHANGED)


def plan_copy(
    settings: Iterable[ComparedSetting], order: Sequence[str], source: Mapping[str, str], target: Mapping[str, str]
) -> Iterator[PlannedCopy]:
    """Yield the copy of each rule that has all conditions of a context, with those of another context instead.

    No two copies have the same conditions, and no copy replaces a rule that is copied.

    Args:
        settings: The settings.
        order: The context features in the order of the service.
        source: The conditions that the rules have, perhaps with others. It must not be empty.
        target: The conditions that the copies have instead. It must not be empty, or equal to `source`.
    """
    for setting in settings:
        existing = {frozenset(rule.conditions.items()): rule for rule in setting.rules}
        for rule in setting.rules:
            if rule.is_in_effect and source.items() <= rule.conditions.items():
                others = {feature: value for feature, value in rule.conditions.items() if feature not in source}
                conditions = _in_order({**others, **target}, order)
                reason = _reason_to_skip(setting, others, target)
                known = existing.get(frozenset(conditions.items()))
                kind = CopyKind.SKIPPED if reason else _copy_kind(rule, known)
                yield PlannedCopy(setting.name, rule, conditions, known, kind, reason)


def _in_order(conditions: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    return {feature: conditions[feature] for feature in order_with(order, conditions) if feature in conditions}


def _reason_to_skip(setting: ComparedSetting, others: Mapping[str, str], target: Mapping[str, str]) -> str:
    if missing := [feature for feature in target if feature not in setting.features]:
        return f"the setting is not configurable by {', '.join(missing)}"
    # Its copy might have the conditions of another rule's copy.
    if repeated := [feature for feature in target if feature in others]:
        return f"the rule has another condition on {', '.join(repeated)}"
    return ""


def _copy_kind(rule: ComparedRule, existing: ComparedRule | None) -> CopyKind:
    if existing is None:
        return CopyKind.ADDED
    is_same = is_equal(rule.value, existing.value) and rule.period == existing.period
    return CopyKind.UNCHANGED if is_same else CopyKind.CHANGED


def copied_metadata(source: Mapping[str, Any], existing: Mapping[str, Any], notes: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a copied rule.

    Args:
        source: The metadata of the rule to copy.
        existing: The metadata of the rule that the copy replaces. Its comment and link explained its former value, so
            they are not kept.
        notes: A comment and a link for the copy. Those that are empty are taken from the rule to copy.
    """
    kept = {key: value for key, value in existing.items() if key not in _NOTES}
    return {**kept, **source, **{key: note for key, note in notes.items() if note}}
