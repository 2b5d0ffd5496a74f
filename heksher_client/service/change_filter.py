"""Filters of the change log: selections of its entries, by which the database finds them."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, Text, and_, case, cast, exists, false, func, or_, select, union

from heksher_client._core.settings.names import SETTING_NAME
from heksher_client.service.schema import ALIASES, CHANGES, SETTINGS
from heksher_client.service.text_criteria import Position, contains, json_contains, name_contains

SCHEDULE: Final = "schedule"
"""The name for the author of changes that the service makes when the period of a rule begins or ends."""
SCHEDULED_ACTIONS: Final = ("rule started", "rule ended")


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """A selection of changes. All of its criteria must be met; those that are empty select all changes."""

    setting: str | None = None
    """A name of a setting, present or former."""
    actor: str = ""
    """The name of a token, or `SCHEDULE`."""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None
    setting_part: str = ""
    """A part of a name of a setting, present or former, in any case."""
    actor_part: str = ""
    """A part of the name of a token, or of `SCHEDULE`, in any case."""
    feature: str = ""
    """A context feature. Only changes of rules with a condition on it are selected."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Conditions that the rule had before the change, or has after it, perhaps with others."""
    value: str = ""
    """A part of the value of a rule, or of the default value of a setting, before or after the change. As JSON, in any
    case."""
    group: int | None = None
    """The group of changes that were made together."""


ALL_CHANGES: Final = ChangeFilter()


def change_criteria(connection: Connection, selected: ChangeFilter) -> list[ColumnElement[bool]]:
    """Return the criteria of the changes that a filter selects."""
    if "\0" in selected.actor + selected.action:
        return [false()]  # PostgreSQL would raise an error.
    criteria = [*_setting_criteria(connection, selected), *_actor_criteria(selected), *_change_criteria(selected)]
    if selected.feature:
        criteria.append(_any_rule(f'{json.dumps(selected.feature)}: "'))
    if selected.conditions:
        criteria.append(_any_rule(*(json.dumps({name: value})[1:-1] for name, value in selected.conditions.items())))
    if selected.value:
        criteria.append(_any_value(selected.value))
    return criteria


def _change_criteria(selected: ChangeFilter) -> list[ColumnElement[bool]]:
    """Return the criteria of attributes of the change itself."""
    criteria: list[ColumnElement[bool]] = []
    if selected.action:
        criteria.append(CHANGES.c.action == selected.action)
    if selected.since is not None:
        criteria.append(CHANGES.c.at >= selected.since)
    if selected.until is not None:
        criteria.append(CHANGES.c.at <= selected.until)
    if selected.group is not None:
        criteria.append(CHANGES.c.group_id == selected.group)
    return criteria


def _actor_criteria(selected: ChangeFilter) -> list[ColumnElement[bool]]:
    criteria: list[ColumnElement[bool]] = []
    by_schedule = and_(CHANGES.c.actor.is_(None), CHANGES.c.action.in_(SCHEDULED_ACTIONS))
    if selected.actor:
        criteria.append(by_schedule if selected.actor == SCHEDULE else CHANGES.c.actor == selected.actor)
    if part := selected.actor_part:
        has_part = and_(CHANGES.c.actor.is_not(None), name_contains(CHANGES.c.actor, part))
        criteria.append(or_(has_part, by_schedule) if part.lower() in SCHEDULE else has_part)
    return criteria


# -- settings ----------------------------------------------------------------------------------------------------------

# The column contains a JSON list of names, which cannot contain quotation marks.
_AFFECTED: Final = cast(CHANGES.c.settings, Text)


def _setting_criteria(connection: Connection, selected: ChangeFilter) -> list[ColumnElement[bool]]:
    given = [name for name in (selected.setting, selected.setting_part) if name]
    if not all(re.fullmatch(SETTING_NAME, name) for name in given):
        return [false()]  # PostgreSQL would raise an error for NUL.
    criteria = []
    if name := selected.setting:
        others = _names_with(connection, lambda column: column == name) - {name}
        criteria.append(or_(contains(_AFFECTED, f'"{name}"'), *_affects_any(others)))
    if part := selected.setting_part:
        names = _names_with(connection, lambda column: name_contains(column, part))
        others = {name for name in names if part.lower() not in name.lower()}
        criteria.append(or_(name_contains(_AFFECTED, part), *_affects_any(others)))
    return criteria


def _names_with(connection: Connection, is_wanted: Callable[[ColumnElement[str]], ColumnElement[bool]]) -> set[str]:
    """Return the present names and the aliases of the settings that have a wanted one among them."""
    wanted = union(
        select(SETTINGS.c.id).where(is_wanted(SETTINGS.c.name)),
        select(ALIASES.c.setting_id).where(is_wanted(ALIASES.c.alias)),
    ).scalar_subquery()
    names = union(
        select(SETTINGS.c.name).where(SETTINGS.c.id.in_(wanted)),
        select(ALIASES.c.alias).where(ALIASES.c.setting_id.in_(wanted)),
    )
    return set(connection.scalars(names))


def _affects_any(names: set[str]) -> list[ColumnElement[bool]]:
    """Return alternative criteria, of which a change meets one if it affects a setting by one of these names."""
    # Not a criterion for each name: SQLite limits the depth of expressions.
    columns = (SETTINGS.c.name, ALIASES.c.alias)
    return [exists().where(column.in_(names), contains(_AFFECTED, '"' + column + '"')) for column in columns if names]


# -- states ------------------------------------------------------------------------------------------------------------

# The states before and after a change are stored as JSON: that of a rule as `{"rule_id": 1, "feature_values": {"user":
# "jim"}, "value": 2, "metadata": {}}`, that of a setting as `{"name": "s", "type": "int", "default_value": 1,
# "metadata": {}, ...}`. Quotation marks within a string are escaped, so keys are not found within one.

_STATES: Final = (cast(CHANGES.c.former, Text), cast(CHANGES.c.new, Text))
_RULE: Final = '{"rule_id": '
_SETTING: Final = '{"name": '
_RULE_VALUE: Final = ', "value": '
_DEFAULT_VALUE: Final = ', "default_value": '
_METADATA: Final = ', "metadata": {'


def _any_rule(*conditions: str) -> ColumnElement[bool]:
    """Return the criterion that a state is that of a rule whose conditions contain all these texts."""
    return or_(
        *(
            and_(_begins(state, _RULE), *(contains(_before(state, "}" + _RULE_VALUE), text) for text in conditions))
            for state in _STATES
        )
    )


def _any_value(text: str) -> ColumnElement[bool]:
    """Return the criterion that a state has a value that contains a text."""
    found = []
    for state in _STATES:
        for beginning, key in ((_RULE, _RULE_VALUE), (_SETTING, _DEFAULT_VALUE)):
            rest = _after(state, key)
            # A value may be a mapping with the key "metadata". Then it is not clear where it ends.
            is_unclear = contains(_after(rest, _METADATA), _METADATA)
            value = case((is_unclear, rest), else_=_before(rest, _METADATA))
            found.append(and_(_begins(state, beginning), json_contains(value, text)))
    # Most states do not contain the text anywhere, which takes a tenth of the time.
    return and_(or_(*(json_contains(state, text) for state in _STATES)), or_(*found))


def _begins(text: ColumnElement[str], beginning: str) -> ColumnElement[bool]:
    return func.substr(text, 1, len(beginning)) == beginning


def _before(text: ColumnElement[str], marker: str) -> ColumnElement[str]:
    """Return the part before the first occurrence of a marker; an empty text if there is none."""
    position = Position(text, marker)
    return case((position > 0, func.substr(text, 1, position - 1)), else_="")


def _after(text: ColumnElement[str], marker: str) -> ColumnElement[str]:
    """Return the part after the first occurrence of a marker; an empty text if there is none."""
    position = Position(text, marker)
    return case((position > 0, func.substr(text, position + len(marker))), else_="")
