"""The database of the commands `serve` and `service`: the option that selects it, access to it, and its errors."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from getpass import getuser
from socket import gethostname
from typing import TYPE_CHECKING, Final

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import Command, require_text

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_DEFAULT_DATABASE: Final = "heksher.db"


def database_option(command: Command) -> Command:
    """Add the option `--database` to a command."""
    return click.option(
        "--database",
        metavar="URL",
        default=_DEFAULT_DATABASE,
        envvar="HEKSHER_DATABASE",
        show_default=True,
        show_envvar=True,
        callback=require_text,
        help="Database file, or a URL such as postgresql://user@host/name.",
    )(command)


def require_database(database: str) -> "URL":
    """Return the URL of a database that exists: without this check, SQLite would create a file for a mistyped name.

    Raises:
        ValueError: The database is in memory, or its URL is invalid.
        SchemaError: The file does not exist.
        PermissionError: This user may not write the file.
    """
    from heksher_client.service.database import check_exists
    from heksher_client.service.engines import check_writable

    url = check_exists(_database_url(database))
    check_writable(url)
    return url


def _database_url(database: str) -> "str | URL":
    """Return the URL of a database.

    Raises:
        ValueError: It is in memory, or invalid.
    """
    from heksher_client.service.database import database_url
    from heksher_client.service.engines import is_in_memory

    url = database_url(database)
    if is_in_memory(url):
        raise ValueError(f"--database: {database} is a database in memory, which ends with this command; use a file")
    return url


@contextmanager
def open_database(database: str) -> Iterator["Connection"]:
    """Open a database for one transaction. The change log records the user of the operating system as the actor.

    Nothing is changed, and no file is created, if the database cannot be written, or has another schema.

    Raises:
        ValueError, SchemaError, ImportError, PermissionError, SQLAlchemyError: The database cannot be opened.
    """
    from heksher_client.service.database import Database, connect_to_read
    from heksher_client.service.engines import check_writable
    from heksher_client.service.schema_version import MissingDatabaseError

    url = _database_url(database)
    check_writable(url)
    with suppress(MissingDatabaseError), connect_to_read(url):
        pass
    opened = Database(url)
    try:
        with opened.begin(actor=_system_user()) as connection:
            yield connection
    finally:
        opened.close()


@contextmanager
def read_database(database: str, *, is_optional: bool = False) -> Iterator["Connection"]:
    """Open a database for one transaction that only reads, and neither creates nor changes anything.

    Args:
        database: The database.
        is_optional: Read an empty database instead of one that does not exist, or has no tables yet.

    Raises:
        ValueError, SchemaError, ImportError, SQLAlchemyError: The database cannot be opened.
    """
    from heksher_client.service.database import Database, connect_to_read
    from heksher_client.service.schema_version import MissingDatabaseError

    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connect_to_read(_database_url(database)))
        except MissingDatabaseError:
            if not is_optional:
                raise
            empty = Database("sqlite://")
            stack.callback(empty.close)
            connection = stack.enter_context(empty.begin(writes=False))
        yield connection


def _system_user() -> str:
    try:
        return f"{getuser()}@{gethostname()}"
    except (KeyError, OSError):  # In a container, the user id may have no name.
        return gethostname()


@contextmanager
def report_database_errors() -> Iterator[None]:
    """Convert any exception to an error message in one line: each database driver raises its own."""
    try:
        yield
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    except (click.ClickException, click.Abort):  # Abort: the user did not confirm.
        raise
    except Exception as error:
        raise click.ClickException(escaped((str(error) or repr(error)).splitlines()[0])) from error
