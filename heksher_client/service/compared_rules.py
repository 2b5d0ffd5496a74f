"""The rules that a comparison of two contexts needs, which the database selects: they may be few of many."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from sqlalchemy import Connection

from heksher_client._core.settings.context_comparison import ComparedRule, ComparedSetting, further_contexts
from heksher_client.service import rule_search
from heksher_client.service.store import StoredRule, StoredSetting, encode_conditions

_MAX_LOOKED_UP: Final = 5_000
"""Rules without a condition on the compared context features that are looked up by their conditions. If they may be
more, all such rules are read."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Settings with the rules that a comparison of two contexts, or a copy from one to the other, needs."""

    settings: Sequence[ComparedSetting]
    rules: Mapping[int, StoredRule]
    """All rules of the settings that concern it, by id."""


def read_comparison(
    connection: Connection,
    settings: Collection[StoredSetting],
    order: Sequence[str],
    first: Mapping[str, str],
    second: Mapping[str, str],
    *,
    is_selection: bool,
) -> Comparison:
    """Read the rules that concern the comparison of two contexts.

    A rule without a condition on a feature of the contexts matches in both or in neither. It decides a value only with
    the further conditions of another rule, which must contain its own.

    Args:
        connection: The connection of the transaction.
        settings: The settings to compare.
        order: The context features in the order of the service.
        first: A context.
        second: Another context.
        is_selection: Whether the service has other settings as well.
    """
    ids = [setting.id for setting in settings] if is_selection else None
    features = {**first, **second}
    # Rules with other values match neither context, are not copied, and are not like a copy.
    values = {feature: {value, second.get(feature, value)} for feature, value in first.items()}
    found = rule_search.rules_with_values(connection, values, features, ids)
    by_setting = _group(found, order)
    further = {
        setting_id: contexts
        for setting_id, rules in by_setting.items()
        if (contexts := [c for c in further_contexts(_in_effect(rules), order, first, second) if c])
    }
    number = sum(2 ** len(context) - 1 for contexts in further.values() for context in contexts)
    if number > _MAX_LOOKED_UP:
        others = rule_search.rules_without_features(connection, features, further)
    else:
        others = rule_search.rules_with_conditions(connection, _keys(further))
    for setting_id, rules in _group(others, order).items():
        by_setting[setting_id] += rules
    compared = [
        ComparedSetting(
            setting.declaration.name,
            setting.declaration.default_value,
            setting.declaration.configurable_features,
            by_setting.get(setting.id, []),
        )
        for setting in settings
    ]
    return Comparison(compared, {rule.id: rule for rule in (*found, *others)})


def _group(rules: Iterable[StoredRule], order: Sequence[str]) -> dict[int, list[ComparedRule]]:
    """Return rules in the form that can be compared, by setting."""
    by_setting: dict[int, list[ComparedRule]] = {}
    for rule in rules:
        conditions = dict(rule.conditions_in(order))
        compared = ComparedRule(rule.id, conditions, rule.value, rule.period, rule.in_effect)
        by_setting.setdefault(rule.setting_id, []).append(compared)
    return by_setting


def _in_effect(rules: Iterable[ComparedRule]) -> Iterator[ComparedRule]:
    return (rule for rule in rules if rule.is_in_effect)


def _keys(further: Mapping[int, Iterable[Mapping[str, str]]]) -> set[tuple[int, str]]:
    """Return the settings and the conditions of all rules that match in one of the further contexts of a setting."""
    return {
        (setting_id, encode_conditions(dict(conditions)))
        for setting_id, contexts in further.items()
        for context in contexts
        for size in range(1, len(context) + 1)
        for conditions in combinations(context.items(), size)
    }
