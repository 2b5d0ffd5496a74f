"""Rules that the database filters and sorts, so that a page of a setting with many rules reads only what it shows."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations, islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Numeric, Select, cast, false, func, not_, or_, select, tuple_

from heksher_client.service import store
from heksher_client.service.schema import RULES
from heksher_client.service.store import StoredRule, encode_conditions
from heksher_client.service.text_criteria import conditions_contain, contains, json_contains

SORTS: Final = ("priority", "rule", "value", "changed")
"""What rules can be sorted by: `priority` begins with the strongest rule, `changed` with the last change."""
_MAX_LOOKED_UP: Final = 8
"""Values in a context of which all combinations are looked up, with an index. With more, all rules are read."""
_MAX_KEYS: Final = 500
"""Rules that one query looks up by their conditions."""
_UNKNOWN_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)
"""The time of changes that are not known. Databases differ in where they sort nulls."""


@dataclass(frozen=True, slots=True)
class RuleFilter:
    """A selection of rules. All of its criteria must be met; those that are empty select all rules."""

    conditions: Mapping[str, str] = field(default_factory=dict)
    """Conditions that the rules have, perhaps with others."""
    text: str = ""
    """A part of a condition, such as `jim` or `user=jim`, in any case."""
    value: str = ""
    """A part of the value as JSON, in any case."""
    author: str = ""
    """The author of the last change."""


ALL_RULES: Final = RuleFilter()


def count_rules(connection: Connection, setting_id: int, selected: RuleFilter) -> int:
    """Return the number of rules of a setting that a filter selects."""
    query = select(func.count()).select_from(RULES).where(RULES.c.setting_id == setting_id, *_criteria(selected))
    return connection.execute(query).scalar_one()


def settings_with_rules(connection: Connection, selected: RuleFilter) -> set[int]:
    """Return the ids of the settings with a rule that a filter selects."""
    return set(connection.scalars(select(RULES.c.setting_id).where(*_criteria(selected)).distinct()))


def search_rules(
    connection: Connection,
    setting_id: int,
    selected: RuleFilter,
    order: Sequence[str],
    *,
    sort: str = "priority",
    descending: bool = False,
    has_numbers: bool = False,
    limit: int,
    offset: int = 0,
) -> list[StoredRule]:
    """Return a page of the rules of a setting.

    Args:
        connection: The connection of the transaction.
        setting_id: The id of the setting.
        selected: The filter.
        order: The context features in the order of the service.
        sort: One of `SORTS`.
        descending: Whether to reverse the order.
        has_numbers: Whether all values are numbers, and sorted as such.
        limit: The maximum number of rules.
        offset: The number of rules before the page.
    """
    keys = _sort_keys("number" if sort == "value" and has_numbers else sort, order)
    if descending != (sort == "changed"):
        keys = [key.desc() for key in keys]
    query = select(RULES).where(RULES.c.setting_id == setting_id, *_criteria(selected)).order_by(*keys, RULES.c.id)
    return _read(connection, query.limit(limit).offset(offset))


def list_rules(
    connection: Connection, *, only_temporary: bool = False, limit: int, offset: int = 0
) -> tuple[list[StoredRule], int]:
    """Return a page of the rules of all settings, sorted by id, and the number of rules on all pages."""
    criteria = [or_(RULES.c.starts_at.is_not(None), RULES.c.ends_at.is_not(None))] if only_temporary else []
    total = connection.execute(select(func.count()).select_from(RULES).where(*criteria)).scalar_one()
    return _read(connection, select(RULES).where(*criteria).order_by(RULES.c.id).limit(limit).offset(offset)), total


def matching_rules(
    connection: Connection, setting_id: int, context: Mapping[str, str], features: Sequence[str]
) -> list[StoredRule]:
    """Return the rules in effect whose conditions are all met by a context.

    Args:
        connection: The connection of the transaction.
        setting_id: The id of the setting.
        context: The values of context features. Those without a value meet no condition.
        features: The configurable features of the setting.
    """
    given = [(feature, context[feature]) for feature in features if feature in context]
    if len(given) <= _MAX_LOOKED_UP:
        conditions = [dict(met) for size in range(1, len(given) + 1) for met in combinations(given, size)]
        is_met: list[ColumnElement[bool]] = [RULES.c.conditions.in_(map(encode_conditions, conditions))]
    else:
        is_met = [
            or_(not_(has_feature(feature)), _has_condition(feature, context[feature]))
            if feature in context
            else not_(has_feature(feature))
            for feature in features
        ]
    query = select(RULES).where(RULES.c.setting_id == setting_id, RULES.c.in_effect, *is_met)
    return _read(connection, query)


def condition_values(connection: Connection, setting_id: int, limit: int) -> dict[str, list[str]]:
    """Return values that the newest rules of a setting require, by context feature.

    Args:
        connection: The connection of the transaction.
        setting_id: The id of the setting.
        limit: The number of rules to read.
    """
    query = select(RULES.c.conditions).where(RULES.c.setting_id == setting_id).order_by(RULES.c.id.desc()).limit(limit)
    found: dict[str, set[str]] = {}
    for conditions in connection.scalars(query):
        for feature, value in json.loads(conditions):
            found.setdefault(feature, set()).add(value)
    return {feature: sorted(values) for feature, values in found.items()}


def rules_with_values(
    connection: Connection,
    values: Mapping[str, Collection[str]],
    features: Iterable[str],
    setting_ids: Collection[int] | None = None,
) -> list[StoredRule]:
    """Return the rules that require no other value of some context features than the given ones, sorted by id.

    Args:
        connection: The connection of the transaction.
        values: The values of the context features. Rules may have any conditions on other features.
        features: Context features. The rules have a condition on one of them at least.
        setting_ids: The ids of the settings; None for all settings.
    """
    query = select(RULES).where(or_(false(), *map(has_feature, features))).order_by(RULES.c.id)
    if setting_ids is not None:
        query = query.where(RULES.c.setting_id.in_(setting_ids))
    for feature, admitted in values.items():
        query = query.where(
            or_(not_(has_feature(feature)), *(_has_condition(feature, value) for value in sorted(admitted)))
        )
    return _read(connection, query)


def rules_without_features(
    connection: Connection, features: Iterable[str], setting_ids: Collection[int]
) -> list[StoredRule]:
    """Return the rules of settings that have no condition on some context features."""
    is_wanted = [RULES.c.setting_id.in_(setting_ids), *(not_(has_feature(feature)) for feature in features)]
    return _read(connection, select(RULES).where(*is_wanted))


def rules_with_conditions(connection: Connection, wanted: Iterable[tuple[int, str]]) -> list[StoredRule]:
    """Return the rules of settings with exactly these conditions.

    Args:
        connection: The connection of the transaction.
        wanted: The ids of the settings, each with conditions as `encode_conditions` returns them.
    """
    key = tuple_(RULES.c.setting_id, RULES.c.conditions)
    remaining = iter(wanted)
    found: list[StoredRule] = []
    while keys := list(islice(remaining, _MAX_KEYS)):
        found += _read(connection, select(RULES).where(key.in_(keys)))
    return found


def _read(connection: Connection, query: Select[Any]) -> list[StoredRule]:
    return [store.rule_from_row(row) for row in connection.execute(query)]


def _criteria(selected: RuleFilter) -> list[ColumnElement[bool]]:
    criteria = [_has_condition(feature, value) for feature, value in selected.conditions.items()]
    if selected.text:
        criteria.append(conditions_contain(selected.text))
    if selected.value:
        criteria.append(json_contains(RULES.c.value, selected.value))
    if selected.author:
        # PostgreSQL would raise an error for NUL, which no name contains.
        criteria.append(false() if "\0" in selected.author else RULES.c.changed_by == selected.author)
    return criteria


def _sort_keys(sort: str, order: Sequence[str]) -> list[ColumnElement[Any]]:
    match sort:
        case "priority":
            # Of two rules, the one with a condition on the last feature at which they differ is stronger.
            features = [not_(has_feature(feature)) for feature in reversed(order)]
            return [*features, RULES.c.conditions]
        case "value":
            return [RULES.c.value]
        case "number":
            return [cast(RULES.c.value, Numeric)]
        case "changed":
            return [func.coalesce(RULES.c.changed_at, _UNKNOWN_TIME)]
    return [RULES.c.id]


# The conditions are stored as JSON: `[["environment", "prod"], ["user", "jim"]]`. Values cannot contain the texts that
# are searched here, as quotation marks within a value are escaped.


def has_feature(feature: str) -> ColumnElement[bool]:
    """Return the criterion that a rule has a condition on a context feature."""
    return contains(RULES.c.conditions, f'["{feature}", ')


def _has_condition(feature: str, value: str) -> ColumnElement[bool]:
    return contains(RULES.c.conditions, json.dumps([feature, value], ensure_ascii=False))
