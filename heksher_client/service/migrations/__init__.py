"""The upgrade of a database to the schema of this version of the service."""

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, insert

from heksher_client.service.database import connect
from heksher_client.service.schema import FIRST_VERSION, VERSION, VERSIONS
from heksher_client.service.schema_version import check_version, create_schema, schema_version


def upgrade(url: str | URL) -> str | None:
    """Upgrade a database to the current schema, in one transaction.

    Args:
        url: A URL of SQLAlchemy.

    Returns:
        The former schema version; None if the database had no tables.

    Raises:
        ValueError, SchemaError, SQLAlchemyError: As by `Database`.
    """
    with connect(url) as connection:
        former = schema_version(connection)
        if former is None:
            create_schema(connection)
        elif former < VERSION:
            run(connection, former)
        else:
            check_version(former)
        return former


def run(connection: Connection, former: str | None) -> None:
    """Run the migrations after a schema version; all of them for None."""
    if former == FIRST_VERSION:  # Its databases have no version table.
        VERSIONS.create(connection, checkfirst=True)
        connection.execute(insert(VERSIONS).values(version_num=FIRST_VERSION))
    config = Config()
    config.set_main_option("script_location", "heksher_client.service:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
