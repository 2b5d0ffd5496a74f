"""The database as a whole: SQLite or PostgreSQL, its schema, and its transactions.

Transactions that change something take turns, all instances of the service together, so that what is written may depend
on what was read. Those that only read see one moment, and wait for nobody.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from os import PathLike, fspath
from secrets import token_hex
from time import sleep
from typing import Any, Final

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from heksher_client.service.schema import FIRST_VERSION, METADATA, SETTINGS, STATE, VERSION, VERSIONS

_POSTGRESQL: Final = "postgresql"
_PREPARING: Final = 0x4E4B5348
"""What PostgreSQL calls the lock for it: any number that nobody else uses."""
CHANNEL: Final = "heksher"
"""Where PostgreSQL tells all instances of what was written."""
_LONGEST: Final = 5.0
"""Seconds that a transaction may still take when the database is to be closed."""
_POOL: Final = {"pool_size": 20, "max_overflow": 40}
"""No fewer connections than there are threads that may want one: there are 40 for requests, and a few others."""
_PATIENCE: Final = 5.0
"""Seconds. PostgreSQL tells, but for while the connection that listens is lost."""
_PATIENCE_WITH_FILES: Final = 0.2
_PAUSE: Final = 1.0
"""Seconds until a lost connection is tried again, and between two looks whether to go on."""


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
        self._errors: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        self._is_closed = False
        self._transactions = 0
        self._change = threading.Condition()
        """Of the two."""
        self._turn = threading.Lock()
        """SQLite has one writer at a time, and in memory one connection: waiting here beats failing there."""
        self.on_commit: Callable[[], None] = lambda: None
        """Called when something may have been written, from the thread that has written it."""
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
        with (
            self._turn if self._takes_turns(writes=writes) else nullcontext(),
            self._under_way(),
            self._connect(writes=writes, actor=actor) as connection,
            connection.begin(),
        ):
            if writes and not self._is_sqlite:
                # Whoever comes next sees what this one will have written.
                connection.execute(select(STATE.c.id).with_for_update())
            yield connection
        if writes:
            self.on_commit()

    @property
    def patience(self) -> float | None:
        """Seconds after which to look for what others may have written; None if there are no others."""
        if not self._is_sqlite:
            return _PATIENCE
        return None if isinstance(self._engine.pool, StaticPool) else _PATIENCE_WITH_FILES

    def listen(self, wake: Callable[[], None], is_over: Callable[[], bool]) -> None:
        """Where the database tells of what is written, by whatever instance, pass that on until it is over."""
        while not self._is_sqlite and not (self._is_closed or is_over()):
            with suppress(SQLAlchemyError, self._errors):
                self._pass_on(wake, is_over)
            sleep(_PAUSE)

    def _pass_on(self, wake: Callable[[], None], is_over: Callable[[], bool]) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            plain: Any = connection.connection.dbapi_connection
            connection.detach()  # It is closed at the end, and not used again by somebody else.
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            wake()  # what was written before
            while not (self._is_closed or is_over()):
                for _ in plain.notifies(timeout=_PAUSE, stop_after=1):
                    wake()

    def close(self) -> None:
        """Close all connections, when the transactions that are under way have ended, or have taken too long."""
        with self._change:
            self._is_closed = True
            self._change.wait_for(lambda: self._transactions == 0, _LONGEST)
        self._engine.dispose()

    def _takes_turns(self, *, writes: bool) -> bool:
        return self._is_sqlite and (writes or isinstance(self._engine.pool, StaticPool))

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        with self._change:
            if self._is_closed:
                raise DatabaseClosedError("the database is closed")
            self._transactions += 1
        try:
            yield
        finally:
            with self._change:
                self._transactions -= 1
                self._change.notify_all()

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


def database_url(database: str | PathLike[str]) -> str | URL:
    """The URL of a database that may be given as a file."""
    if isinstance(database, str) and "://" in database:
        return database
    return URL.create("sqlite", database=fspath(database))


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
    try:
        return create_engine(url, pool_pre_ping=True, **_POOL)
    except ModuleNotFoundError:
        raise ImportError("PostgreSQL needs an extra: pip install 'heksher_client[postgresql]'") from None


def _sqlite_engine(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "isolation_level": None}}
    if url.database in (None, "", ":memory:"):
        options["poolclass"] = StaticPool  # the database is gone with its one connection
    else:
        options |= _POOL
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
