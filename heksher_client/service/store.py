"""Reading and writing what the service holds, in the transaction of the caller. All that changes is noted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from heksher_client.service.changes import new_tag, note
from heksher_client.service.declarations import Declaration
from heksher_client.service.schema import ALIASES, CONFIGURABLE, CONTEXT_FEATURES, LARGEST_KEY, RULES, SETTINGS
from heksher_client.service.setting_types import parse_setting_type

Conditions = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StoredSetting:
    """A setting with the key of its row."""

    id: int
    declaration: Declaration
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule with its conditions sorted by feature."""

    id: int
    setting_id: int
    conditions: Conditions
    value: Any
    metadata: Mapping[str, Any]

    def conditions_in(self, order: Sequence[str]) -> list[list[str]]:
        """The conditions in the order of the context features."""
        conditions = dict(self.conditions)
        return [[feature, conditions[feature]] for feature in order if feature in conditions]


# -- context features --------------------------------------------------------------------------------------------------


def context_features(connection: Connection) -> list[str]:
    """All context features, in their order."""
    return list(connection.scalars(select(CONTEXT_FEATURES.c.name).order_by(CONTEXT_FEATURES.c.position)))


def add_context_feature(connection: Connection, name: str) -> None:
    """Add a context feature, after all others."""
    last = connection.scalar(select(func.max(CONTEXT_FEATURES.c.position)))
    former = context_features(connection)
    connection.execute(insert(CONTEXT_FEATURES).values(name=name, position=0 if last is None else last + 1))
    note(connection, "context feature added", former=former, new=[*former, name], is_of_features=True)


def order_context_features(connection: Connection, names: Sequence[str]) -> None:
    """Put all context features in another order."""
    former = context_features(connection)
    # By way of negative numbers, as no two may have the same place at any moment.
    for position, name in enumerate(names):
        connection.execute(
            update(CONTEXT_FEATURES).where(CONTEXT_FEATURES.c.name == name).values(position=-1 - position)
        )
    connection.execute(update(CONTEXT_FEATURES).values(position=-1 - CONTEXT_FEATURES.c.position))
    note(connection, "context feature moved", former=former, new=list(names), is_of_features=True)


def delete_context_feature(connection: Connection, name: str) -> None:
    """Delete a context feature that no setting is configurable by."""
    former = context_features(connection)
    connection.execute(delete(CONTEXT_FEATURES).where(CONTEXT_FEATURES.c.name == name))
    note(connection, "context feature deleted", former=former, new=context_features(connection), is_of_features=True)


def is_configured_by(connection: Connection, feature: str) -> bool:
    """Whether any setting is configurable by a context feature."""
    query = select(CONFIGURABLE.c.setting_id).where(CONFIGURABLE.c.feature == feature).limit(1)
    return connection.scalar(query) is not None


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(connection: Connection, ids: Iterable[int] | None = None) -> list[StoredSetting]:
    """All settings, or some of them, by name."""
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
                row._mapping["metadata"],
                row.version,
            ),
            tuple(aliases.get(row.id, ())),
        )
        for row in connection.execute(query)
    ]
    return sorted(found, key=lambda held: held.declaration.name)  # Each database would sort them in its own way.


def number_of_settings(connection: Connection) -> int:
    """How many settings there are."""
    return connection.execute(select(func.count()).select_from(SETTINGS)).scalar_one()


def setting_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The keys of settings by their names and aliases; without those that do not exist."""
    wanted = list(names)
    by_name = select(SETTINGS.c.name, SETTINGS.c.id).where(SETTINGS.c.name.in_(wanted))
    by_alias = select(ALIASES.c.alias, ALIASES.c.setting_id).where(ALIASES.c.alias.in_(wanted))
    return {name: key for query in (by_name, by_alias) for name, key in connection.execute(query)}


def setting(connection: Connection, name: str) -> StoredSetting | None:
    """A setting by its name or an alias."""
    found = settings(connection, setting_ids(connection, [name]).values())
    return found[0] if found else None


def setting_of(connection: Connection, rule: StoredRule) -> StoredSetting:
    """The setting of a rule."""
    (found,) = settings(connection, [rule.setting_id])
    return found


def add_setting(connection: Connection, declaration: Declaration) -> None:
    """Add a new setting."""
    columns = _columns(declaration) | {"tag": new_tag()}
    key = connection.execute(insert(SETTINGS).values(**columns).returning(SETTINGS.c.id)).scalar_one()
    _set_features(connection, key, declaration.configurable_features)
    note(connection, "setting declared", new=described(declaration), settings=[declaration.name])


def update_setting(connection: Connection, held: StoredSetting, declaration: Declaration) -> None:
    """Replace a setting. Where its name changes, the former one becomes an alias."""
    former = held.declaration
    connection.execute(update(SETTINGS).where(SETTINGS.c.id == held.id).values(**_columns(declaration)))
    _set_features(connection, held.id, declaration.configurable_features)
    if declaration.name != former.name:
        connection.execute(delete(ALIASES).where(ALIASES.c.alias == declaration.name))
        connection.execute(insert(ALIASES).values(alias=former.name, setting_id=held.id))
    note(
        connection,
        "setting changed",
        former=described(former),
        new=described(declaration),
        setting_id=held.id,
        settings=list(dict.fromkeys([former.name, declaration.name])),
    )


def delete_setting(connection: Connection, held: StoredSetting) -> None:
    """Delete a setting with its rules and aliases."""
    former = described(held.declaration) | {"rules": [noted(rule) for rule in rules(connection, [held.id])]}
    connection.execute(delete(SETTINGS).where(SETTINGS.c.id == held.id))
    note(connection, "setting deleted", former=former, settings=[held.declaration.name])


def add_alias(connection: Connection, held: StoredSetting, alias: str) -> None:
    """Have a setting known by one more name."""
    connection.execute(insert(ALIASES).values(alias=alias, setting_id=held.id))
    _note_aliases(connection, held, [*held.aliases, alias])


def delete_alias(connection: Connection, held: StoredSetting, alias: str) -> None:
    """Have a setting not be known by a former name any more."""
    connection.execute(delete(ALIASES).where(ALIASES.c.alias == alias))
    _note_aliases(connection, held, [name for name in held.aliases if name != alias])


def _note_aliases(connection: Connection, held: StoredSetting, aliases: Sequence[str]) -> None:
    former, new = {"aliases": list(held.aliases)}, {"aliases": list(aliases)}
    names = [held.declaration.name, *{*held.aliases} ^ {*aliases}]
    note(connection, "aliases changed", former=former, new=new, setting_id=held.id, settings=names)


def _columns(declaration: Declaration) -> dict[str, Any]:
    return {
        "name": declaration.name,
        "type": str(declaration.type),
        "default_value": declaration.default_value,
        "metadata": dict(declaration.metadata),
        "version": declaration.version,
    }


def described(declaration: Declaration) -> dict[str, Any]:
    """A setting as the log of changes has it."""
    return _columns(declaration) | {"configurable_features": list(declaration.configurable_features)}


def _set_features(connection: Connection, key: int, features: Iterable[str]) -> None:
    connection.execute(delete(CONFIGURABLE).where(CONFIGURABLE.c.setting_id == key))
    connection.execute(insert(CONFIGURABLE), [{"setting_id": key, "feature": feature} for feature in features])


# -- rules -------------------------------------------------------------------------------------------------------------


def rules(connection: Connection, setting_keys: Iterable[int] | None = None) -> list[StoredRule]:
    """All rules, or those of some settings, by id."""
    query = select(RULES).order_by(RULES.c.id)
    if setting_keys is not None:
        query = query.where(RULES.c.setting_id.in_(list(setting_keys)))
    return [_rule(row) for row in connection.execute(query)]


def number_of_rules(connection: Connection) -> int:
    """How many rules there are."""
    return connection.execute(select(func.count()).select_from(RULES)).scalar_one()


def numbers_of_rules(connection: Connection) -> dict[int, int]:
    """How many rules settings have, by their keys; without those that have none."""
    query = select(RULES.c.setting_id, func.count()).group_by(RULES.c.setting_id)
    return dict(map(tuple, connection.execute(query)))


def rule(connection: Connection, rule_id: int) -> StoredRule | None:
    """A rule by its id."""
    if rule_id > LARGEST_KEY:
        return None  # PostgreSQL would take offence
    row = connection.execute(select(RULES).where(RULES.c.id == rule_id)).one_or_none()
    return None if row is None else _rule(row)


def find_rule(connection: Connection, setting_key: int, conditions: Mapping[str, str]) -> int | None:
    """The id of the rule of a setting that has just these conditions."""
    query = select(RULES.c.id).where(
        RULES.c.setting_id == setting_key, RULES.c.conditions == _conditions_text(conditions)
    )
    return connection.scalar(query)


def add_rule(
    connection: Connection,
    held: StoredSetting,
    conditions: Mapping[str, str],
    value: Any,
    metadata: Mapping[str, Any],
    *,
    rule_id: int | None = None,
) -> int:
    """Add a rule.

    Args:
        connection: Of the transaction.
        held: The setting.
        conditions: The value that each feature must have.
        value: The rule's.
        metadata: What is noted of it.
        rule_id: Its id, where it had one before; the next one otherwise.

    Returns:
        Its id.
    """
    values = {
        "setting_id": held.id,
        "conditions": _conditions_text(conditions),
        "value": value,
        "metadata": dict(metadata),
    }
    if rule_id is None:
        rule_id = int(connection.execute(insert(RULES).values(**values).returning(RULES.c.id)).scalar_one())
    else:
        connection.execute(insert(RULES).values(**values, id=rule_id))
        if connection.dialect.name == "postgresql":  # SQLite goes on after the largest id by itself.
            sequence = func.pg_get_serial_sequence(RULES.name, RULES.c.id.name)
            largest = select(func.max(RULES.c.id)).scalar_subquery()
            connection.execute(select(func.setval(sequence, func.greatest(largest, func.nextval(sequence)))))
    added = StoredRule(rule_id, held.id, sorted(conditions.items()), value, metadata)
    _note_rule(connection, "rule added", held, None, added)
    return rule_id


def change_rule(connection: Connection, held: StoredSetting, former: StoredRule, **attributes: Any) -> None:
    """Give a rule another value or other metadata."""
    connection.execute(update(RULES).where(RULES.c.id == former.id).values(**attributes))
    _note_rule(connection, "rule changed", held, former, replace(former, **attributes))


def delete_rule(connection: Connection, held: StoredSetting, former: StoredRule) -> None:
    """Delete a rule."""
    connection.execute(delete(RULES).where(RULES.c.id == former.id))
    _note_rule(connection, "rule deleted", held, former, None)


def _note_rule(
    connection: Connection, action: str, held: StoredSetting, former: StoredRule | None, new: StoredRule | None
) -> None:
    note(
        connection,
        action,
        former=former and noted(former),
        new=new and noted(new),
        setting_id=held.id,
        settings=[held.declaration.name],
    )


def noted(rule: StoredRule) -> dict[str, Any]:
    """A rule as the log of changes has it."""
    return {
        "rule_id": rule.id,
        "feature_values": dict(rule.conditions),
        "value": rule.value,
        "metadata": dict(rule.metadata),
    }


def _conditions_text(conditions: Mapping[str, str]) -> str:
    return json.dumps(sorted(conditions.items()))


def _rule(row: Any) -> StoredRule:
    conditions = tuple((feature, value) for feature, value in json.loads(row.conditions))
    return StoredRule(row.id, row.setting_id, conditions, row.value, row._mapping["metadata"])
