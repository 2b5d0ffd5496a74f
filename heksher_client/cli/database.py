"""The database that the commands work with, and the words of what goes wrong with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from sqlalchemy import Connection

DATABASE: Final = "heksher.db"
Command = Callable[..., Any]


def with_database(command: Command) -> Command:
    """Give a command the option that says which database."""
    return click.option(
        "--database",
        metavar="URL",
        default=DATABASE,
        envvar="HEKSHER_DATABASE",
        show_default=True,
        show_envvar=True,
        help="A file, or a URL like postgresql://user@host/name.",
    )(command)


def existing(database: str) -> str:
    """A database that is not to be made by a mistyped name.

    Raises:
        click.ClickException: There is no such file.
    """
    file = database.partition("sqlite:///")[2] if database.startswith("sqlite:///") else database
    if "://" not in file and not Path(file).exists():
        raise click.ClickException(f"there is no file {file}")
    return database


@contextmanager
def opened(database: str) -> Iterator["Connection"]:
    """A transaction in a database that is opened for it alone. The log of changes has who makes them from the system.

    Raises:
        ValueError, SchemaError, ImportError, SQLAlchemyError: It cannot be opened.
    """
    from heksher_client.service.database import Database, database_url

    held = Database(database_url(database))
    try:
        with held.begin(actor=_whoever()) as connection:
            yield connection
    finally:
        held.close()


def _whoever() -> str:
    try:
        return f"{getuser()}@{gethostname()}"
    except (KeyError, OSError):  # a container's user without a name
        return gethostname()


@contextmanager
def in_words() -> Iterator[None]:
    """Say in one line what is wrong, whatever a database's driver may raise."""
    try:
        yield
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException((str(error) or repr(error)).splitlines()[0]) from error
