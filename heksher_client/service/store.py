"""The database: its tables, and the reading and writing of them.

All functions that take a connection run in the transaction of their caller, which `Store.begin` opens.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    StaticPool,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from heksher_client.service.declarations import Declaration
from heksher_client.service.setting_types import parse_setting_type

Conditions = Sequence[tuple[str, str]]


class ExactJSON(TypeDecorator[Any]):
    """JSON as the text that it was given as.

    To a column of the type `JSON` SQLite gives a numeric affinity, and makes 1 of 1.0 and a float of a large integer.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:  # noqa: ARG002
        return json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:  # noqa: ARG002
        return json.loads(value or "null")


_METADATA: Final = MetaData()

_CONTEXT_FEATURES: Final = Table(
    "context_features",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("position", Integer, nullable=False, unique=True),
)

_SETTINGS: Final = Table(
    "settings",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("type", String, nullable=False),
    Column("default_value", ExactJSON, nullable=False),
    Column("metadata", ExactJSON, nullable=False),
    Column("version", String, nullable=False),
)

_CONFIGURABLE: Final = Table(
    "configurable_features",
    _METADATA,
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), primary_key=True),
    Column("feature", ForeignKey("context_features.name"), primary_key=True),
)

_ALIASES: Final = Table(
    "aliases",
    _METADATA,
    Column("alias", String, primary_key=True),
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), nullable=False, index=True),
)

_RULES: Final = Table(
    "rules",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), nullable=False),
    # The conditions as one text, sorted by feature: what makes two rules of a setting the same to the database too.
    Column("conditions", String, nullable=False),
    Column("value", ExactJSON, nullable=False),
    Column("metadata", ExactJSON, nullable=False),
    UniqueConstraint("setting_id", "conditions"),
    sqlite_autoincrement=True,  # the id of a deleted rule is never given to another one
)


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


class StoreClosedError(SQLAlchemyError):
    """A request came when the service had been stopped already."""


class Store:
    """A database: its tables are made where it has none, and its transactions take turns."""

    def __init__(self, database_url: str | URL) -> None:
        """Open the database, with tables if it has none.

        Args:
            database_url: As SQLAlchemy writes it; `sqlite://` is one in memory.
        """
        is_memory = make_url(database_url).database in (None, "", ":memory:")
        options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "isolation_level": None}}
        if is_memory:
            options["poolclass"] = StaticPool  # the database is gone with its one connection
        self._engine = create_engine(database_url, **options)
        self._is_closed = False
        self._lock = threading.Lock()
        """SQLite has one writer at a time, and in memory one connection: waiting here beats failing there."""
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)
        with self.begin() as connection:
            _METADATA.create_all(connection)

    @contextmanager
    def begin(self, *, writes: bool = True) -> Iterator[Connection]:
        """A transaction: committed at the end, undone by an exception.

        Args:
            writes: Whether it may write. One that does not is not held up by another process that does.

        Raises:
            StoreClosedError: The store is closed.
        """
        with self._lock:
            if self._is_closed:
                raise StoreClosedError("the database is closed")
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection

    def close(self) -> None:
        """Close all connections, when the transaction that may be under way has ended."""
        with self._lock:
            self._is_closed = True
            self._engine.dispose()


def _prepare_connection(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.execute("PRAGMA foreign_keys = ON")
    dbapi_connection.execute("PRAGMA busy_timeout = 5000")
    dbapi_connection.execute("PRAGMA journal_mode = WAL")


def _begin(connection: Connection) -> None:
    # What is written depends on what was read, so another process must not write between the two.
    writes = connection.get_execution_options()["writes"]
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# -- context features --------------------------------------------------------------------------------------------------


def context_features(connection: Connection) -> list[str]:
    """All context features, in their order."""
    return list(connection.scalars(select(_CONTEXT_FEATURES.c.name).order_by(_CONTEXT_FEATURES.c.position)))


def add_context_feature(connection: Connection, name: str) -> None:
    """Add a context feature, after all others."""
    last = connection.scalar(select(func.max(_CONTEXT_FEATURES.c.position)))
    connection.execute(insert(_CONTEXT_FEATURES).values(name=name, position=0 if last is None else last + 1))


def order_context_features(connection: Connection, names: Sequence[str]) -> None:
    """Put all context features in another order."""
    # By way of negative numbers, as no two may have the same place at any moment.
    for position, name in enumerate(names):
        connection.execute(
            update(_CONTEXT_FEATURES).where(_CONTEXT_FEATURES.c.name == name).values(position=-1 - position)
        )
    connection.execute(update(_CONTEXT_FEATURES).values(position=-1 - _CONTEXT_FEATURES.c.position))


def delete_context_feature(connection: Connection, name: str) -> None:
    """Delete a context feature that no setting is configurable by."""
    connection.execute(delete(_CONTEXT_FEATURES).where(_CONTEXT_FEATURES.c.name == name))


def is_configured_by(connection: Connection, feature: str) -> bool:
    """Whether any setting is configurable by a context feature."""
    query = select(_CONFIGURABLE.c.setting_id).where(_CONFIGURABLE.c.feature == feature).limit(1)
    return connection.scalar(query) is not None


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(connection: Connection, ids: Iterable[int] | None = None) -> list[StoredSetting]:
    """All settings, or some of them, by name."""
    query = select(_SETTINGS).order_by(_SETTINGS.c.name)
    if ids is not None:
        query = query.where(_SETTINGS.c.id.in_(list(ids)))
    order = context_features(connection)
    features: dict[int, set[str]] = {}
    for setting_id, feature in connection.execute(select(_CONFIGURABLE)):
        features.setdefault(setting_id, set()).add(feature)
    aliases: dict[int, list[str]] = {}
    for alias, setting_id in connection.execute(select(_ALIASES).order_by(_ALIASES.c.alias)):
        aliases.setdefault(setting_id, []).append(alias)
    return [
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


def setting_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The keys of settings by their names and aliases; without those that do not exist."""
    wanted = list(names)
    by_name = select(_SETTINGS.c.name, _SETTINGS.c.id).where(_SETTINGS.c.name.in_(wanted))
    by_alias = select(_ALIASES.c.alias, _ALIASES.c.setting_id).where(_ALIASES.c.alias.in_(wanted))
    return {name: key for query in (by_name, by_alias) for name, key in connection.execute(query)}


def setting(connection: Connection, name: str) -> StoredSetting | None:
    """A setting by its name or an alias."""
    found = settings(connection, setting_ids(connection, [name]).values())
    return found[0] if found else None


def add_setting(connection: Connection, declaration: Declaration) -> None:
    """Add a new setting."""
    key = connection.execute(insert(_SETTINGS).values(**_columns(declaration)).returning(_SETTINGS.c.id)).scalar_one()
    _set_features(connection, key, declaration.configurable_features)


def update_setting(connection: Connection, held: StoredSetting, declaration: Declaration) -> None:
    """Replace a setting. Where its name changes, the former one becomes an alias."""
    connection.execute(update(_SETTINGS).where(_SETTINGS.c.id == held.id).values(**_columns(declaration)))
    _set_features(connection, held.id, declaration.configurable_features)
    if declaration.name != held.declaration.name:
        connection.execute(delete(_ALIASES).where(_ALIASES.c.alias == declaration.name))
        connection.execute(insert(_ALIASES).values(alias=held.declaration.name, setting_id=held.id))


def delete_setting(connection: Connection, held: StoredSetting) -> None:
    """Delete a setting with its rules and aliases."""
    connection.execute(delete(_SETTINGS).where(_SETTINGS.c.id == held.id))


def _columns(declaration: Declaration) -> dict[str, Any]:
    return {
        "name": declaration.name,
        "type": str(declaration.type),
        "default_value": declaration.default_value,
        "metadata": dict(declaration.metadata),
        "version": declaration.version,
    }


def _set_features(connection: Connection, key: int, features: Iterable[str]) -> None:
    connection.execute(delete(_CONFIGURABLE).where(_CONFIGURABLE.c.setting_id == key))
    connection.execute(insert(_CONFIGURABLE), [{"setting_id": key, "feature": feature} for feature in features])


# -- rules -------------------------------------------------------------------------------------------------------------


def rules(connection: Connection, setting_keys: Iterable[int] | None = None) -> list[StoredRule]:
    """All rules, or those of some settings, by id."""
    query = select(_RULES).order_by(_RULES.c.id)
    if setting_keys is not None:
        query = query.where(_RULES.c.setting_id.in_(list(setting_keys)))
    return [_rule(row) for row in connection.execute(query)]


def rule(connection: Connection, rule_id: int) -> StoredRule | None:
    """A rule by its id."""
    row = connection.execute(select(_RULES).where(_RULES.c.id == rule_id)).one_or_none()
    return None if row is None else _rule(row)


def find_rule(connection: Connection, setting_key: int, conditions: Mapping[str, str]) -> int | None:
    """The id of the rule of a setting that has just these conditions."""
    query = select(_RULES.c.id).where(
        _RULES.c.setting_id == setting_key, _RULES.c.conditions == _conditions_text(conditions)
    )
    return connection.scalar(query)


def add_rule(
    connection: Connection, setting_key: int, conditions: Mapping[str, str], value: Any, metadata: Mapping[str, Any]
) -> int:
    """Add a rule.

    Returns:
        Its id.
    """
    values = {
        "setting_id": setting_key,
        "conditions": _conditions_text(conditions),
        "value": value,
        "metadata": dict(metadata),
    }
    return int(connection.execute(insert(_RULES).values(**values).returning(_RULES.c.id)).scalar_one())


def set_rule_value(connection: Connection, rule_id: int, value: Any) -> None:
    """Give a rule another value."""
    connection.execute(update(_RULES).where(_RULES.c.id == rule_id).values(value=value))


def set_rule_metadata(connection: Connection, rule_id: int, metadata: Mapping[str, Any]) -> None:
    """Replace what is noted of a rule."""
    connection.execute(update(_RULES).where(_RULES.c.id == rule_id).values(metadata=dict(metadata)))


def delete_rule(connection: Connection, rule_id: int) -> None:
    """Delete a rule."""
    connection.execute(delete(_RULES).where(_RULES.c.id == rule_id))


def _conditions_text(conditions: Mapping[str, str]) -> str:
    return json.dumps(sorted(conditions.items()))


def _rule(row: Any) -> StoredRule:
    conditions = tuple((feature, value) for feature, value in json.loads(row.conditions))
    return StoredRule(row.id, row.setting_id, conditions, row.value, row._mapping["metadata"])
