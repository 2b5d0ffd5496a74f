"""The tables of the database, as they are after the last migration."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
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

VERSION: Final = "0007"
"""The schema version that this version of the service needs: its last migration."""
FIRST_VERSION: Final = "0001"
"""The schema version of a database without the table `alembic_version`."""
MAX_ID: Final = 2**31 - 1
"""The largest id of a rule, and the largest revision: the maximum of PostgreSQL's `integer`."""


class ExactJSON(TypeDecorator[Any]):
    """JSON, stored as text.

    In SQLite, columns of the type `JSON` have numeric affinity, which would turn 1.0 into 1 and large integers into
    floats.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:  # noqa: ARG002
        return json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:  # noqa: ARG002
        return json.loads(value or "null")


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite does not store the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        # PostgreSQL returns it in the time zone of the connection.
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


METADATA: Final = MetaData()

VERSIONS: Final = Table("alembic_version", METADATA, Column("version_num", String(32), primary_key=True))

STATE: Final = Table(
    "state",
    METADATA,
    Column("id", Integer, primary_key=True),  # There is one row.
    # Each change updates this row, whose lock serializes the transactions that write.
    Column("revision", Integer, nullable=False),
    Column("context_features_tag", String, nullable=False),
    Column("database", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    # The last epochs, each with the revision at which it began.
    Column("epochs", ExactJSON, nullable=False),
    # No period of a rule begins or ends before this time; null if none will.
    Column("next_transition", UTCDateTime),
)

CHANGES: Final = Table(
    "changes",
    METADATA,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", UTCDateTime, nullable=False),
    Column("actor", String),
    Column("action", String, nullable=False),
    # The affected settings, with the names that they had before and after the change.
    Column("settings", ExactJSON, nullable=False),
    Column("former", ExactJSON, nullable=False),
    Column("new", ExactJSON, nullable=False),
    # The first revision of the changes that were made together with this one; null if it was made alone.
    Column("group_id", Integer, index=True),
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
    # Replaced with each change of the setting or its rules. Random, so that a restored or exchanged database does not
    # reuse a tag for different content.
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
    # The conditions as JSON, sorted by feature: the unique constraint allows one rule for the same conditions.
    Column("conditions", String, nullable=False),
    Column("value", ExactJSON, nullable=False),
    Column("metadata", ExactJSON, nullable=False),
    # The period in which the rule applies; without limits where they are null.
    Column("starts_at", UTCDateTime),
    Column("ends_at", UTCDateTime),
    # Whether query results contain the rule. It changes when the period begins or ends, with a revision of its own.
    Column("in_effect", Boolean, nullable=False),
    # The last change of the rule. Both are null if the change log does not contain it.
    Column("changed_at", UTCDateTime),
    Column("changed_by", String),
    UniqueConstraint("setting_id", "conditions"),
    sqlite_autoincrement=True,  # ids of deleted rules are not reused
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime),
)

SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("token", ForeignKey("tokens.name", ondelete="CASCADE"), nullable=False),
    Column("expires_at", UTCDateTime, nullable=False),
)
