"""Reads and writes of context features, settings and rules, in the caller's transaction.

Each function that writes also adds to the change log.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from heksher_client._core.settings.names import SETTING_NAME
from heksher_client.service import clock
from heksher_client.service.changes import actor, new_tag, record_change
from heksher_client.service.declarations import Declaration
from heksher_client.service.rule_period import ALWAYS, Period
from heksher_client.service.schema import ALIASES, CONFIGURABLE, CONTEXT_FEATURES, MAX_ID, RULES, SETTINGS, STATE
from heksher_client.service.setting_types import parse_setting_type

Conditions = Sequence[tuple[str, str]]
_BATCH_SIZE: Final = 1_000
"""Rules that one statement names. SQLite limits the variables of a statement."""


@dataclass(frozen=True, slots=True)
class StoredSetting:
    """A setting and the id of its row."""

    id: int
    declaration: Declaration
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule, with its conditions sorted by feature."""

    id: int
    setting_id: int
    conditions: Conditions
    value: Any
    metadata: Mapping[str, Any]
    period: Period = ALWAYS
    in_effect: bool = True
    """Whether query results contain the rule."""
    changed_at: datetime | None = None
    """The time of the last change; None if it is not known."""
    changed_by: str | None = None
    """The author of the last change; None without access control."""

    def conditions_in(self, order: Sequence[str]) -> list[list[str]]:
        """Return the conditions in the order of the context features."""
        conditions = dict(self.conditions)
        return [[feature, conditions[feature]] for feature in order if feature in conditions]


# -- context features --------------------------------------------------------------------------------------------------


def context_features(connection: Connection) -> list[str]:
    """Return all context features, in their order."""
    return list(connection.scalars(select(CONTEXT_FEATURES.c.name).order_by(CONTEXT_FEATURES.c.position)))


def add_context_feature(connection: Connection, name: str) -> None:
    """Add a context feature after all others."""
    last = connection.scalar(select(func.max(CONTEXT_FEATURES.c.position)))
    former = context_features(connection)
    connection.execute(insert(CONTEXT_FEATURES).values(name=name, position=0 if last is None else last + 1))
    record_change(connection, "context feature added", former=former, new=[*former, name], affects_features=True)


def order_context_features(connection: Connection, names: Sequence[str]) -> None:
    """Change the order of the context features."""
    former = context_features(connection)
    # Positions are unique at any time, so they become negative first.
    for position, name in enumerate(names):
        connection.execute(
            update(CONTEXT_FEATURES).where(CONTEXT_FEATURES.c.name == name).values(position=-1 - position)
        )
    connection.execute(update(CONTEXT_FEATURES).values(position=-1 - CONTEXT_FEATURES.c.position))
    record_change(connection, "context feature moved", former=former, new=list(names), affects_features=True)


def delete_context_feature(connection: Connection, name: str) -> None:
    """Delete a context feature that no setting is configurable by."""
    former = context_features(connection)
    connection.execute(delete(CONTEXT_FEATURES).where(CONTEXT_FEATURES.c.name == name))
    new = context_features(connection)
    record_change(connection, "context feature deleted", former=former, new=new, affects_features=True)


def is_configured_by(connection: Connection, feature: str) -> bool:
    """Return True if any setting is configurable by a context feature."""
    query = select(CONFIGURABLE.c.setting_id).where(CONFIGURABLE.c.feature == feature).limit(1)
    return connection.scalar(query) is not None


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(connection: Connection, ids: Iterable[int] | None = None) -> list[StoredSetting]:
    """Return all settings, or those with the given ids, sorted by name."""
    query = select(SETTINGS)
    if ids is not None:
        query = query.where(SETTINGS.c.id.in_(list(ids)))
    order = context_features(connection)
    features: dict[int, set[str]] = {}
    for setting_id, feature in connection.execute(select(CONFIGURABLE)):
        features.setdefault(setting_id, set()).add(feature)
    aliases: dict[int, list[str]] = {}
    for alias, setting_id in connection.execute(select(ALIASES).order_by(ALIASES.c.alias)):
        aliases.setdefault(setting_id, []).append(alias)
    found = [
        StoredSetting(
            row.id,
            Declaration(
                row.name,
                tuple(feature for feature in order if feature in features[row.id]),
                parse_setting_type(row.type),
                row.default_value,
                row._mapping["metadata"],  # noqa: SLF001 - SQLAlchemy's documented name for it
                row.version,
            ),
            tuple(aliases.get(row.id, ())),
        )
        for row in connection.execute(query)
    ]
    # Sorted here, because the collations of databases differ.
    return sorted(found, key=lambda setting: setting.declaration.name)


def count_settings(connection: Connection) -> int:
    """Return the number of settings."""
    return connection.execute(select(func.count()).select_from(SETTINGS)).scalar_one()


def setting_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the ids of settings by the given names and aliases. Unknown names are left out."""
    wanted = list(names)
    by_name = select(SETTINGS.c.name, SETTINGS.c.id).where(SETTINGS.c.name.in_(wanted))
    by_alias = select(ALIASES.c.alias, ALIASES.c.setting_id).where(ALIASES.c.alias.in_(wanted))
    return {name: setting_id for query in (by_name, by_alias) for name, setting_id in connection.execute(query)}


def setting(connection: Connection, name: str) -> StoredSetting | None:
    """Return a setting by its name or an alias; None if there is none."""
    if not re.fullmatch(SETTING_NAME, name):
        return None  # PostgreSQL would raise an error for NUL.
    found = settings(connection, setting_ids(connection, [name]).values())
    return found[0] if found else None


def setting_of(connection: Connection, rule: StoredRule) -> StoredSetting:
    """Return the setting of a rule."""
    (found,) = settings(connection, [rule.setting_id])
    return found


def add_setting(connection: Connection, declaration: Declaration) -> None:
    """Add a new setting."""
    columns = _columns(declaration) | {"tag": new_tag()}
    setting_id = connection.execute(insert(SETTINGS).values(**columns).returning(SETTINGS.c.id)).scalar_one()
    _set_features(connection, setting_id, declaration.configurable_features)
    record_change(connection, "setting declared", new=declaration_as_json(declaration), settings=[declaration.name])


def update_setting(connection: Connection, setting: StoredSetting, declaration: Declaration) -> None:
    """Replace the declaration of a setting. If its name changes, the former name becomes an alias."""
    former = setting.declaration
    connection.execute(update(SETTINGS).where(SETTINGS.c.id == setting.id).values(**_columns(declaration)))
    _set_features(connection, setting.id, declaration.configurable_features)
    if declaration.name != former.name:
        connection.execute(delete(ALIASES).where(ALIASES.c.alias == declaration.name))
        connection.execute(insert(ALIASES).values(alias=former.name, setting_id=setting.id))
    record_change(
        connection,
        "setting changed",
        former=declaration_as_json(former),
        new=declaration_as_json(declaration),
        setting_id=setting.id,
        settings=list(dict.fromkeys([former.name, declaration.name])),
    )


def delete_setting(connection: Connection, setting: StoredSetting) -> None:
    """Delete a setting with its rules and aliases."""
    deleted_rules = [rule_as_json(rule) for rule in rules(connection, [setting.id])]
    former = declaration_as_json(setting.declaration) | {"rules": deleted_rules}
    connection.execute(delete(SETTINGS).where(SETTINGS.c.id == setting.id))
    record_change(connection, "setting deleted", former=former, settings=[setting.declaration.name])


def add_alias(connection: Connection, setting: StoredSetting, alias: str) -> None:
    """Add an alias to a setting."""
    connection.execute(insert(ALIASES).values(alias=alias, setting_id=setting.id))
    _record_aliases(connection, setting, [*setting.aliases, alias])


def delete_alias(connection: Connection, setting: StoredSetting, alias: str) -> None:
    """Delete an alias of a setting."""
    connection.execute(delete(ALIASES).where(ALIASES.c.alias == alias))
    _record_aliases(connection, setting, [name for name in setting.aliases if name != alias])


def _record_aliases(connection: Connection, setting: StoredSetting, aliases: Sequence[str]) -> None:
    former, new = {"aliases": list(setting.aliases)}, {"aliases": list(aliases)}
    names = [setting.declaration.name, *{*setting.aliases} ^ {*aliases}]
    record_change(connection, "aliases changed", former=former, new=new, setting_id=setting.id, settings=names)


def _columns(declaration: Declaration) -> dict[str, Any]:
    return {
        "name": declaration.name,
        "type": str(declaration.type),
        "default_value": declaration.default_value,
        "metadata": dict(declaration.metadata),
        "version": declaration.version,
    }


def declaration_as_json(declaration: Declaration) -> dict[str, Any]:
    """Return a declaration in JSON values, for the change log and exports."""
    return _columns(declaration) | {"configurable_features": list(declaration.configurable_features)}


def _set_features(connection: Connection, setting_id: int, features: Iterable[str]) -> None:
    connection.execute(delete(CONFIGURABLE).where(CONFIGURABLE.c.setting_id == setting_id))
    rows = [{"setting_id": setting_id, "feature": feature} for feature in features]
    connection.execute(insert(CONFIGURABLE), rows)


# -- rules -------------------------------------------------------------------------------------------------------------


def rules(
    connection: Connection, setting_ids: Iterable[int] | None = None, *, only_in_effect: bool = False
) -> list[StoredRule]:
    """Return all rules, or those of the given settings, sorted by id."""
    query = select(RULES).order_by(RULES.c.id)
    if only_in_effect:
        query = query.where(RULES.c.in_effect)
    if setting_ids is not None:
        query = query.where(RULES.c.setting_id.in_(list(setting_ids)))
    return [rule_from_row(row) for row in connection.execute(query)]


def count_rules(connection: Connection) -> int:
    """Return the number of rules."""
    return connection.execute(select(func.count()).select_from(RULES)).scalar_one()


def count_rules_by_setting(connection: Connection) -> dict[int, int]:
    """Return the number of rules of each setting, by the setting's id. Settings without rules are left out."""
    query = select(RULES.c.setting_id, func.count()).group_by(RULES.c.setting_id)
    return dict(map(tuple, connection.execute(query)))


def rule(connection: Connection, rule_id: int) -> StoredRule | None:
    """Return a rule by its id; None if there is none."""
    if not 0 < rule_id <= MAX_ID:
        return None  # PostgreSQL would raise an error.
    row = connection.execute(select(RULES).where(RULES.c.id == rule_id)).one_or_none()
    return None if row is None else rule_from_row(row)


def rules_with_ids(connection: Connection, ids: Sequence[int]) -> dict[int, StoredRule]:
    """Return the rules with several ids, by their ids. Unknown ids are left out."""
    possible = [rule_id for rule_id in ids if 0 < rule_id <= MAX_ID]  # As above.
    queries = (select(RULES).where(RULES.c.id.in_(batch)) for batch in _batches(possible))
    return {row.id: rule_from_row(row) for query in queries for row in connection.execute(query)}


def set_in_effect(connection: Connection, ids: Sequence[int], *, in_effect: bool) -> None:
    """Store whether query results contain several rules. The caller adds the transitions to the change log."""
    for batch in _batches(ids):
        connection.execute(update(RULES).where(RULES.c.id.in_(batch)).values(in_effect=in_effect))


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _BATCH_SIZE):
        yield ids[start : start + _BATCH_SIZE]


def find_rule(connection: Connection, setting_id: int, conditions: Mapping[str, str]) -> int | None:
    """Return the id of the rule of a setting with exactly these conditions; None if there is none."""
    query = select(RULES.c.id).where(
        RULES.c.setting_id == setting_id, RULES.c.conditions == encode_conditions(conditions)
    )
    return connection.scalar(query)


def add_rule(
    connection: Connection,
    setting: StoredSetting,
    conditions: Mapping[str, str],
    value: Any,
    metadata: Mapping[str, Any],
    *,
    period: Period = ALWAYS,
    rule_id: int | None = None,
) -> int:
    """Add a rule.

    Args:
        connection: The connection of the transaction.
        setting: The setting of the rule.
        conditions: The required value of each feature.
        value: The value of the rule.
        metadata: The metadata of the rule.
        period: The period in which the rule applies.
        rule_id: The id of the rule; the next free one if not given.

    Returns:
        The id of the rule.
    """
    values = {
        "setting_id": setting.id,
        "conditions": encode_conditions(conditions),
        "value": value,
        "metadata": dict(metadata),
        **_period_columns(connection, period),
        **_author_columns(connection),
    }
    if rule_id is None:
        rule_id = int(connection.execute(insert(RULES).values(**values).returning(RULES.c.id)).scalar_one())
    else:
        connection.execute(insert(RULES).values(**values, id=rule_id))
        if connection.dialect.name == "postgresql":  # SQLite continues after the largest id by itself.
            sequence = func.pg_get_serial_sequence(RULES.name, RULES.c.id.name)
            largest = select(func.max(RULES.c.id)).scalar_subquery()
            connection.execute(select(func.setval(sequence, func.greatest(largest, func.nextval(sequence)))))
    added = StoredRule(rule_id, setting.id, sorted(conditions.items()), value, metadata, period)
    _record_rule(connection, "rule added", setting, None, added)
    return rule_id


def change_rule(connection: Connection, setting: StoredSetting, rule: StoredRule, **attributes: Any) -> None:
    """Change attributes of a rule: `conditions`, `value`, `metadata` or `period`, as in `StoredRule`."""
    columns = dict(attributes)
    if "conditions" in columns:
        columns["conditions"] = encode_conditions(dict(columns["conditions"]))
    if "period" in columns:
        columns |= _period_columns(connection, columns.pop("period"))
    connection.execute(update(RULES).where(RULES.c.id == rule.id).values(**columns, **_author_columns(connection)))
    _record_rule(connection, "rule changed", setting, rule, replace(rule, **attributes))


def delete_rule(
    connection: Connection, setting: StoredSetting, rule: StoredRule, *, note: Mapping[str, str] | None = None
) -> None:
    """Delete a rule.

    Args:
        connection: The connection of the transaction.
        setting: The setting of the rule.
        rule: The rule.
        note: The `comment` and `link` of the deletion. They are not metadata of the rule, so an undo does not restore
            them, and no rule is left to have them: the entry of the change log has them next to its former state.
    """
    connection.execute(delete(RULES).where(RULES.c.id == rule.id))
    _record_rule(connection, "rule deleted", setting, rule, None, note)


def _author_columns(connection: Connection) -> dict[str, Any]:
    return {"changed_at": clock.now(), "changed_by": actor(connection)}


def _period_columns(connection: Connection, period: Period) -> dict[str, Any]:
    """Return the columns of a period, and see to it that its beginning and its end will be noticed."""
    now = clock.now()
    if (transition := period.next_transition(now)) is not None:
        is_earlier = or_(STATE.c.next_transition.is_(None), STATE.c.next_transition > transition)
        connection.execute(update(STATE).where(is_earlier).values(next_transition=transition))
    return {"starts_at": period.starts_at, "ends_at": period.ends_at, "in_effect": period.contains(now)}


def _record_rule(
    connection: Connection,
    action: str,
    setting: StoredSetting,
    former: StoredRule | None,
    new: StoredRule | None,
    note: Mapping[str, str] | None = None,
) -> None:
    record_change(
        connection,
        action,
        former=former and rule_as_json(former) | dict(note or {}),
        new=new and rule_as_json(new),
        setting_id=setting.id,
        settings=[setting.declaration.name],
    )


def rule_as_json(rule: StoredRule) -> dict[str, Any]:
    """Return a rule in JSON values, for the change log and exports."""
    return {
        "rule_id": rule.id,
        "feature_values": dict(rule.conditions),
        "value": rule.value,
        "metadata": dict(rule.metadata),
        **rule.period.as_json(),
    }


def encode_conditions(conditions: Mapping[str, str]) -> str:
    """Return conditions as they are stored: the same text for the same conditions, so that it can be a key."""
    # Without escapes, which would take twelve bytes for some characters: a key has a maximum length.
    return json.dumps(sorted(conditions.items()), ensure_ascii=False)


def rule_from_row(row: Any) -> StoredRule:
    """Return the rule in a row of the table."""
    conditions = tuple((feature, value) for feature, value in json.loads(row.conditions))
    metadata = row._mapping["metadata"]  # noqa: SLF001 - as above
    return StoredRule(
        row.id,
        row.setting_id,
        conditions,
        row.value,
        metadata,
        Period(row.starts_at, row.ends_at),
        row.in_effect,
        row.changed_at,
        row.changed_by,
    )
