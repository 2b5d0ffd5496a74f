"""The schema version of a database: the creation of its tables, and the check that they are those of this service."""

from typing import Final

from sqlalchemy import Connection, func, insert, inspect, select

from heksher_client.service.engines import POSTGRESQL
from heksher_client.service.history import first_state
from heksher_client.service.schema import FIRST_VERSION, METADATA, SETTINGS, STATE, VERSION, VERSIONS

_SCHEMA_LOCK: Final = 0x4E4B5348
"""The key of PostgreSQL's advisory lock for the creation of the schema: an arbitrary number."""


class SchemaError(RuntimeError):
    """The database does not have the schema of this version of the service."""


class MissingDatabaseError(SchemaError):
    """The database does not exist, or has no tables of the service."""


def prepare_schema(connection: Connection) -> None:
    """Create the schema in an empty database, or check its version.

    Raises:
        SchemaError: The schema belongs to another version of the service.
    """
    lock_schema(connection)
    version = schema_version(connection)
    if version is None:
        create_schema(connection)
    else:
        check_version(version)


def require_version(connection: Connection) -> str:
    """Return the schema version of a database.

    Raises:
        MissingDatabaseError: It has no tables of the service.
    """
    version = schema_version(connection)
    if version is None:
        raise MissingDatabaseError("the database has no tables of the service that this user can see")
    return version


def check_version(version: str) -> None:
    """Check that the schema version of a database is the current one.

    Raises:
        SchemaError: It is another one.
    """
    if version < VERSION:
        raise SchemaError(
            f"the database has schema version {version}, and this service needs version {VERSION}: "
            "run `heksher-client service upgrade`"
        )
    if version > VERSION:
        raise SchemaError(
            f"the database has schema version {version}, and this service supports versions up to {VERSION}: "
            "use a newer version of the service"
        )


def lock_schema(connection: Connection) -> None:
    """Wait for other instances that create or upgrade the schema. SQLite has locked the file already."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def schema_version(connection: Connection) -> str | None:
    """Return the last migration of the database; None if it has no tables of the service."""
    tables = set(inspect(connection).get_table_names())
    if VERSIONS.name in tables:
        return connection.scalar(select(VERSIONS.c.version_num))
    return FIRST_VERSION if SETTINGS.name in tables else None


def create_schema(connection: Connection) -> None:
    """Create all tables as they are after the last migration."""
    METADATA.create_all(connection)
    connection.execute(insert(VERSIONS).values(version_num=VERSION))
    connection.execute(insert(STATE).values(first_state()))
