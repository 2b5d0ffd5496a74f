"""How a database of an older version of the service becomes one of this version."""

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, insert

from heksher_client.service.database import connect, create_schema, schema_version
from heksher_client.service.schema import FIRST_VERSION, VERSION, VERSIONS


def upgrade(url: str | URL) -> str | None:
    """Bring a database up to this version, in one transaction.

    Args:
        url: As for the service.

    Returns:
        The version that it had, None if it had no tables.

    Raises:
        ValueError, SchemaError, SQLAlchemyError: As when the service opens it.
    """
    with connect(url) as connection:
        former = schema_version(connection)
        if former is None:
            create_schema(connection)
        elif former != VERSION:
            run(connection, former)
        return former


def run(connection: Connection, former: str | None) -> None:
    """Run the migrations from a version on, or all of them."""
    if former == FIRST_VERSION:  # which did not say what it was
        VERSIONS.create(connection, checkfirst=True)
        connection.execute(insert(VERSIONS).values(version_num=FIRST_VERSION))
    config = Config()
    config.set_main_option("script_location", "heksher_client.service:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
