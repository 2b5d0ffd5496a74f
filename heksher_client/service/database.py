"""The database as a whole: SQLite or PostgreSQL, its schema, and its transactions.

Transactions that change something take turns, all instances of the service together, so that what is written may depend
on what was read. Those that only read see one moment, and wait for nobody.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from secrets import token_hex
from typing import Any, Final

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from heksher_client.service.schema import FIRST_VERSION, METADATA, SETTINGS, STATE, VERSION, VERSIONS

_POSTGRESQL: Final = "postgresql"
_PREPARING: Final = 0x4E4B5348
"""What PostgreSQL calls the lock for it: any number that nobody else uses."""


class DatabaseClosedError(SQLAlchemyError):
    """A request came when the service had been stopped already."""


class SchemaError(RuntimeError):
    """The database has not the tables that this version of the service works with."""


class Database:
    """A database that the service may work with: one without tables gets them when it is opened."""

    def __init__(self, url: str | URL) -> None:
        """Open a database.

        Args:
            url: As SQLAlchemy writes it; `sqlite://` is one in memory, `postgresql://...` is one of a server.

        Raises:
            ValueError: The URL is none, or of another kind of database.
            SchemaError: Its tables are of another version of the service.
            ImportError: The driver for PostgreSQL is not installed.
            SQLAlchemyError: It cannot be reached.
        """
        self._engine = _engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._is_closed = False
        self._turn = threading.Lock() if self._is_sqlite else None
        """SQLite has one writer at a time, and in memory one connection: waiting here beats failing there."""
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def begin(self, *, writes: bool = True, actor: str | None = None) -> Iterator[Connection]:
        """A transaction: committed at the end, undone by an exception.

        Args:
            writes: Whether it may write.
            actor: Who makes the changes in it.

        Raises:
            DatabaseClosedError: The database was closed.
        """
        with self._turn or nullcontext():
            if self._is_closed:
                raise DatabaseClosedError("the database is closed")
            with self._connect(writes=writes, actor=actor) as connection, connection.begin():
                if writes and not self._is_sqlite:
                    # Whoever comes next sees what this one will have written.
                    connection.execute(select(STATE.c.id).with_for_update())
                yield connection

    def close(self) -> None:
        """Close all connections, when the transaction that may be under way has ended."""
        with self._turn or nullcontext():
            self._is_closed = True
            self._engine.dispose()

    def _connect(self, **options: Any) -> Connection:
        connection = self._engine.connect().execution_options(**options)
        if not self._is_sqlite and not options["writes"]:
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return connection

    def _prepare(self) -> None:
        """Make the tables, unless they are there."""
        with self._connect(writes=True) as connection, connection.begin():
            _lock(connection)
            version = schema_version(connection)
            if version is None:
                create_schema(connection)
            elif version != VERSION:
                raise SchemaError(f"the database has the tables of version {version}, and {_what_to_do(version)}")


def _what_to_do(version: str) -> str:
    if version < VERSION:
        return f"this service needs those of {VERSION}: run `heksher-client service upgrade`"
    return f"this service knows none after {VERSION}: use a newer one"


@contextmanager
def connect(url: str | URL) -> Iterator[Connection]:
    """A transaction in a database of whatever version, which nobody else changes meanwhile.

    Raises:
        ValueError, SQLAlchemyError: As by `Database`.
    """
    engine = _engine(url)
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            _lock(connection)
            yield connection
    finally:
        engine.dispose()


def _lock(connection: Connection) -> None:
    """Wait for other instances that prepare the database at the same moment, so that one makes the tables."""
    if connection.dialect.name == _POSTGRESQL:
        connection.execute(select(func.pg_advisory_xact_lock(_PREPARING)))


def schema_version(connection: Connection) -> str | None:
    """The last migration that the database has seen; None if it has no tables of ours."""
    tables = set(inspect(connection).get_table_names())
    if VERSIONS.name in tables:
        return connection.scalar(select(VERSIONS.c.version_num))
    return FIRST_VERSION if SETTINGS.name in tables else None


def create_schema(connection: Connection) -> None:
    """Make all tables as they are after the last migration."""
    METADATA.create_all(connection)
    connection.execute(insert(VERSIONS).values(version_num=VERSION))
    connection.execute(insert(STATE).values(id=1, revision=0, context_features_tag=token_hex(8)))


def _engine(url: str | URL) -> Engine:
    try:
        url = make_url(url)
    except ArgumentError:
        raise ValueError("the database's URL is none; it is like sqlite:///settings.db or postgresql://...") from None
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    if url.get_backend_name() != _POSTGRESQL:
        raise ValueError(f"the service works with sqlite and postgresql, and not with {url.get_backend_name()}")
    if "+" not in url.drivername:
        url = url.set(drivername=f"{_POSTGRESQL}+psycopg")
    return create_engine(url, pool_size=20, pool_pre_ping=True)


def _sqlite_engine(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "isolation_level": None}}
    if url.database in (None, "", ":memory:"):
        options["poolclass"] = StaticPool  # the database is gone with its one connection
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.execute("PRAGMA foreign_keys = ON")
    dbapi_connection.execute("PRAGMA busy_timeout = 5000")
    # A property of the file. SQLite does not wait here, where another connection is just about to set it.
    with suppress(sqlite3.OperationalError):
        dbapi_connection.execute("PRAGMA journal_mode = WAL")


def _begin(connection: Connection) -> None:
    # What is written depends on what was read, so another process must not write between the two.
    writes = connection.get_execution_options()["writes"]
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
