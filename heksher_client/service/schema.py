"""The tables of the database, as they are after all migrations."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

VERSION: Final = "0003"
"""The last migration."""
FIRST_VERSION: Final = "0001"
"""Of databases that do not say what version they are."""
LARGEST_KEY: Final = 2**31 - 1
"""The largest number of a rule or a revision: that of PostgreSQL's `integer`."""


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


class Moment(TypeDecorator[datetime]):
    """A time with its zone, which SQLite would not keep."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return value and (value if value.tzinfo else value.replace(tzinfo=UTC))


METADATA: Final = MetaData()

VERSIONS: Final = Table("alembic_version", METADATA, Column("version_num", String(32), primary_key=True))

STATE: Final = Table(
    "state",
    METADATA,
    Column("id", Integer, primary_key=True),  # There is one row.
    # Whoever changes anything has this row to itself until the end of the transaction, so changes take turns.
    Column("revision", Integer, nullable=False),
    Column("context_features_tag", String, nullable=False),
)

CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("actor", String),
    Column("action", String, nullable=False),
    # The settings whose answers changed, by the names that they had then and have now.
    Column("settings", ExactJSON, nullable=False),
    Column("former", ExactJSON, nullable=False),
    Column("new", ExactJSON, nullable=False),
)

CONTEXT_FEATURES: Final = Table(
    "context_features",
    METADATA,
    Column("name", String, primary_key=True),
    Column("position", Integer, nullable=False, unique=True),
)

SETTINGS: Final = Table(
    "settings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("type", String, nullable=False),
    Column("default_value", ExactJSON, nullable=False),
    Column("metadata", ExactJSON, nullable=False),
    Column("version", String, nullable=False),
    # Another one after each change of the setting or its rules. At random, so that a database that was restored, or
    # took another's place, has none that the other one had for something else.
    Column("tag", String, nullable=False),
)

CONFIGURABLE: Final = Table(
    "configurable_features",
    METADATA,
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), primary_key=True),
    Column("feature", ForeignKey("context_features.name"), primary_key=True),
)

ALIASES: Final = Table(
    "aliases",
    METADATA,
    Column("alias", String, primary_key=True),
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), nullable=False, index=True),
)

RULES: Final = Table(
    "rules",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("setting_id", ForeignKey("settings.id", ondelete="CASCADE"), nullable=False),
    # The conditions as one text, sorted by feature: what makes two rules of a setting the same to the database too.
    Column("conditions", String, nullable=False),
    Column("value", ExactJSON, nullable=False),
    Column("metadata", ExactJSON, nullable=False),
    UniqueConstraint("setting_id", "conditions"),
    sqlite_autoincrement=True,  # the id of a deleted rule is never given to another one
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
)

SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("token", ForeignKey("tokens.name", ondelete="CASCADE"), nullable=False),
    Column("expires_at", Moment, nullable=False),
)
