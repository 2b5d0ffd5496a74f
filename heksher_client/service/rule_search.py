"""Rules that the database filters and sorts, so that a page of a setting with many rules reads only what it shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, func, not_, or_, select

from heksher_client.service import store
from heksher_client.service.schema import RULES
from heksher_client.service.store import StoredRule

SORTS: Final = ("priority", "rule", "value", "changed")
"""What rules can be sorted by: `priority` begins with the strongest rule, `changed` with the last change."""


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


def count_rules(connection: Connection, setting_id: int, selected: RuleFilter) -> int:
    """Return the number of rules of a setting that a filter selects."""
    query = select(func.count()).select_from(RULES).where(*_criteria(setting_id, selected))
    return connection.execute(query).scalar_one()


def search_rules(
    connection: Connection,
    setting_id: int,
    selected: RuleFilter,
    order: Sequence[str],
    *,
    sort: str = "priority",
    descending: bool = False,
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
        limit: The maximum number of rules.
        offset: The number of rules before the page.
    """
    keys = [key.desc() if descending else key.asc() for key in _sort_keys(sort, order)]
    query = select(RULES).where(*_criteria(setting_id, selected)).order_by(*keys, RULES.c.id)
    return _read(connection, query.limit(limit).offset(offset))


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
    met = [
        or_(not_(_has_feature(feature)), _has_condition(feature, context[feature]))
        if feature in context
        else not_(_has_feature(feature))
        for feature in features
    ]
    query = select(RULES).where(RULES.c.setting_id == setting_id, RULES.c.in_effect, *met)
    return _read(connection, query)


def _read(connection: Connection, query: Select[Any]) -> list[StoredRule]:
    return [store.rule_from_row(row) for row in connection.execute(query)]


def _criteria(setting_id: int, selected: RuleFilter) -> list[ColumnElement[bool]]:
    criteria = [RULES.c.setting_id == setting_id]
    criteria += [_has_condition(feature, value) for feature, value in selected.conditions.items()]
    if selected.text:
        criteria.append(_contains(func.lower(RULES.c.conditions), _condition_part(selected.text)))
    if selected.value:
        criteria.append(_contains(func.lower(RULES.c.value), selected.value.lower()))
    if selected.author:
        criteria.append(RULES.c.changed_by == selected.author)
    return criteria


def _sort_keys(sort: str, order: Sequence[str]) -> list[ColumnElement[Any]]:
    match sort:
        case "priority":
            # Of two rules, the one with a condition on the last feature at which they differ is stronger.
            features = [not_(_has_feature(feature)) for feature in reversed(order)]
            return [*features, RULES.c.conditions]
        case "value":
            return [RULES.c.value]
        case "changed":
            return [RULES.c.changed_at.desc()]
    return [RULES.c.id]


# The conditions are stored as JSON: `[["environment", "prod"], ["user", "jim"]]`. Values cannot contain the texts that
# are searched here, as quotation marks within a value are escaped.


def _has_feature(feature: str) -> ColumnElement[bool]:
    return _contains(RULES.c.conditions, f'["{feature}", ')


def _has_condition(feature: str, value: str) -> ColumnElement[bool]:
    return _contains(RULES.c.conditions, json.dumps([feature, value], ensure_ascii=False))


def _condition_part(text: str) -> str:
    """Return a text like `jim` or `user=jim` as it occurs in stored conditions, in lower case."""
    feature, separator, value = text.lower().partition("=")
    escaped = json.dumps(value if separator else text.lower(), ensure_ascii=False)[1:-1]
    return f'"{feature.strip()}", "{escaped.strip()}' if separator else escaped


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    # Not with LIKE, which ignores case in SQLite, and whose patterns SQLite limits.
    return and_(func.replace(column, text, "") != column)
