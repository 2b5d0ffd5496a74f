"""Access to the database, which is SQLite or PostgreSQL: its schema and its transactions.

Transactions that write are serialized across all instances of the service, so a check in one stays valid until its
commit. Transactions that only read see a consistent snapshot and do not wait, except with SQLite in memory, which has a
single connection.
"""

import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from os import W_OK, PathLike, access, fspath, getpid
from os.path import abspath
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from heksher_client.service.database_file import DatabaseFile, DatabaseFileError, check_content, release
from heksher_client.service.history import State, begin_epoch, first_state, read_state
from heksher_client.service.processes import PerProcess
from heksher_client.service.schema import FIRST_VERSION, METADATA, SETTINGS, STATE, VERSION, VERSIONS

logger: Final = logging.getLogger(__name__)
_POSTGRESQL: Final = "postgresql"
_SCHEMA_LOCK: Final = 0x4E4B5348
"""The key of PostgreSQL's advisory lock for the creation of the schema: an arbitrary number."""
CHANNEL: Final = "heksher"
"""The channel of PostgreSQL's notifications, by which the instances learn of changes."""
_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that `close` waits for open transactions."""
_POOL: Final = {"pool_size": 20, "max_overflow": 40}
"""At least one connection for each thread: FastAPI has 40 for requests, and the service a few more."""
_POLL_INTERVAL_POSTGRESQL: Final = 5.0
"""Seconds. A fallback: PostgreSQL sends notifications, except while the listening connection is lost."""
_POLL_INTERVAL_FILE: Final = 0.2
"""Seconds."""
_LISTEN_INTERVAL: Final = 1.0
"""Seconds between two checks whether to stop listening, and before a lost connection is opened again."""


_IN_MEMORY: Final = (None, "", ":memory:")
"""The names of SQLite's databases in memory."""
_URI: Final = "file:"
"""The beginning of a URI of SQLite, which may contain options."""
_READ_ONLY_STATES: Final = ("25006", "0A000")
"""PostgreSQL's codes for a write in a read-only transaction, and for a transaction that may write on a standby."""


class DatabaseClosedError(SQLAlchemyError):
    """A transaction was begun after the database was closed."""


class SchemaError(RuntimeError):
    """The database does not have the schema of this version of the service."""


class MissingDatabaseError(SchemaError):
    """The database does not exist, or has no tables of the service."""


@dataclass(slots=True, eq=False)
class _ProcessConnections:
    """The connections of one process to a database, and its locks. A forked process cannot use those of its parent."""

    engine: Engine
    lock: threading.Lock = field(default_factory=threading.Lock)
    """SQLite has one writer at a time, and one connection in memory: others wait here, where they cannot fail."""
    open_transactions: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Guards `open_transactions`, and whether the database is closed."""


class Database:
    """A database with the schema of the service, which is created if the database is empty."""

    def __init__(self, url: str | URL) -> None:
        """Open a database.

        Args:
            url: A URL of SQLAlchemy. `sqlite://` is a database in memory.

        Raises:
            ValueError: The URL is invalid, or the kind of database is not supported.
            SchemaError: The schema belongs to another version of the service.
            PermissionError: This user may not write the file, and SQLite would create its log.
            ImportError: The driver for PostgreSQL is not installed.
            SQLAlchemyError: The database is not available.
        """
        url = _parse_url(url)
        _check_log(url)
        engine = _engine(url)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._is_closed = False
        creator = getpid()

        def connect_process() -> _ProcessConnections:
            # In memory, a forked process has a copy of the data, in the connection that it inherits.
            is_own = getpid() == creator or isinstance(engine.pool, StaticPool)
            return _ProcessConnections(engine if is_own else _engine(url))

        self._connections = PerProcess(connect_process)
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each transaction that may have written, in its thread."""
        self._newest: State | None = None
        """The last state that was observed."""
        self._file = DatabaseFile(_file(url))
        try:
            with self._connect(writes=True) as connection, connection.begin():
                _prepare_schema(connection)
                self._file.set_opened(connection)
        except BaseException:
            engine.dispose()
            raise

    @contextmanager
    def begin(self, *, writes: bool = True, actor: str | None = None) -> Iterator[Connection]:
        """Open a transaction. It is committed at the end of the block, or rolled back if the block raises.

        Args:
            writes: Whether the transaction may write.
            actor: The author of the changes, for the change log.

        Raises:
            DatabaseClosedError: The database is closed.
            DatabaseFileError: Its file was deleted or moved, or one that cannot be used is in its place.
        """
        if not self._is_closed:
            self._file.check_or_reopen(self._reopen)
        with (
            self._file.watch_errors(),
            self._connections.get().lock if self._needs_lock(writes=writes) else nullcontext(),
            self._count_transaction(),
            self._connect(writes=writes, actor=actor) as connection,
            connection.begin(),
        ):
            if writes and not self._is_sqlite:
                # The row lock serializes the writers of all instances.
                connection.execute(select(STATE.c.id).with_for_update())
            self._file.set_log()
            yield connection
            if writes:
                self._file.check()
        if writes:
            self.on_commit()

    def begin_epoch(self) -> None:
        """Begin a new epoch, as the database may have been restored from a backup. Not in a read-only database."""
        with _skip_if_read_only(), self.begin() as connection:
            begin_epoch(connection)

    def observe(self, state: State) -> None:
        """Begin a new epoch if a state is older than the former one: the database was restored while it was open.

        Not to be called within a transaction that writes.
        """
        newest = self._newest
        if newest is None or state.includes(newest):
            self._newest = state
            return
        # Threads may observe the states of their transactions in another order.
        with self.begin(writes=False) as connection:
            current = read_state(connection)
        if not current.includes(newest):
            logger.warning(
                "the database was restored or replaced: its revision is %d, and was %d",
                current.revision,
                newest.revision,
                extra={"revision": current.revision, "former_revision": newest.revision},
            )
            self.begin_epoch()
        self._newest = current

    @property
    def poll_interval(self) -> float | None:
        """Seconds between two checks for changes by other instances; None if there cannot be other instances."""
        if not self._is_sqlite:
            return _POLL_INTERVAL_POSTGRESQL
        return None if isinstance(self._engine.pool, StaticPool) else _POLL_INTERVAL_FILE

    def listen(self, on_change: Callable[[], None], is_stopped: Callable[[], bool]) -> None:
        """Call a function for each change that PostgreSQL reports, by any instance. Return once stopped."""
        while not self._is_sqlite and not (self._is_closed or is_stopped()):
            with suppress(SQLAlchemyError, self._driver_error):
                self._listen_on_connection(on_change, is_stopped)
            sleep(_LISTEN_INTERVAL)

    def _listen_on_connection(self, on_change: Callable[[], None], is_stopped: Callable[[], bool]) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            driver_connection: Any = connection.connection.dbapi_connection
            connection.detach()  # So that it is closed at the end, and does not go back to the pool.
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            on_change()  # for changes before LISTEN
            while not (self._is_closed or is_stopped()):
                for _ in driver_connection.notifies(timeout=_LISTEN_INTERVAL, stop_after=1):
                    on_change()

    def close(self) -> None:
        """Close all connections, after the open transactions have ended or a timeout."""
        own = self._connections.get()
        with own.changed:
            self._is_closed = True
            own.changed.wait_for(lambda: own.open_transactions == 0, _CLOSE_TIMEOUT)
        own.engine.dispose()
        self._file.close_log()

    @property
    def _engine(self) -> Engine:
        return self._connections.get().engine

    def _reopen(self, is_log_required: bool) -> None:
        """Open the file that is in the place of the opened one, and begin a new epoch.

        Raises:
            SchemaError, SQLAlchemyError: It cannot be used, or transactions with the former one are open.
        """
        own = self._connections.get()
        with own.changed:  # No transaction begins in the meantime.
            if not own.changed.wait_for(lambda: own.open_transactions == 0, _CLOSE_TIMEOUT):
                raise DatabaseFileError("transactions with the former file are open")
            release(own.engine, is_log_required=is_log_required)
            self._file.close_log()
            try:
                with self._connect(writes=True) as connection, connection.begin():
                    check_content(connection)
                    check_version(_require_version(connection))
                    with _skip_if_read_only():
                        begin_epoch(connection)
                    self._file.set_opened(connection)
            except BaseException:
                own.engine.dispose()
                raise
        self._newest = None

    def _needs_lock(self, *, writes: bool) -> bool:
        return self._is_sqlite and (writes or isinstance(self._engine.pool, StaticPool))

    @contextmanager
    def _count_transaction(self) -> Iterator[None]:
        own = self._connections.get()
        with own.changed:
            if self._is_closed:
                raise DatabaseClosedError("the database is closed")
            own.open_transactions += 1
        try:
            yield
        finally:
            with own.changed:
                own.open_transactions -= 1
                own.changed.notify_all()

    def _connect(self, **options: Any) -> Connection:
        return _connect(self._engine, **options)


def is_read_only(error: BaseException) -> bool:
    """Return True if a write failed because the database is read-only."""
    driver_error = getattr(error, "orig", None)
    return (
        getattr(driver_error, "sqlstate", "") in _READ_ONLY_STATES
        or getattr(driver_error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY
    )


@contextmanager
def _skip_if_read_only() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        if not is_read_only(error):
            raise


def database_url(database: str | PathLike[str]) -> str | URL:
    """Return the URL of a database that is given as a URL, or as the path or the URI (`file:`) of an SQLite file.

    Raises:
        ValueError: It is empty. SQLite would use a database in memory.
    """
    if not fspath(database):
        raise ValueError("the name of the database is empty: use a file, or a URL like postgresql://user@host/name")
    if isinstance(database, str) and "://" in database and not database.startswith(_URI):
        return database
    return URL.create("sqlite", database=fspath(database))


def is_in_memory(url: str | URL) -> bool:
    """Return True for a database that ends with its connection.

    Raises:
        ValueError: The URL is invalid.
    """
    url = _parse_url(url)
    return url.get_backend_name() == "sqlite" and url.database in _IN_MEMORY


def check_writable(url: str | URL) -> None:
    """Check that this user may write a database, if it is a file that exists.

    Raises:
        ValueError: The URL is invalid.
        PermissionError: The user may not write the file.
    """
    path = _file(_parse_url(url))
    if path is not None and path.exists() and not access(path, W_OK):
        raise PermissionError(f"this user may not write the database file {path}")


@contextmanager
def connect_to_read(url: str | URL) -> Iterator[Connection]:
    """Open a transaction that only reads, in an existing database with the current schema.

    Nothing is created, upgraded or locked, so a file, a folder, a user and a replica that can only be read suffice.

    Raises:
        MissingDatabaseError: The database does not exist, or has no tables of the service.
        ValueError, SchemaError, ImportError, SQLAlchemyError: As by `Database`.
    """
    url = check_exists(url)
    path = _file(url)
    engine = _engine(url) if path is None else _sqlite_engine(_existing_file(url, path), writes=False)
    try:
        with _connect(engine, writes=False) as connection, connection.begin():
            check_version(_require_version(connection))
            yield connection
    finally:
        engine.dispose()


def check_exists(url: str | URL) -> URL:
    """Return the URL of a database, if that is not a file that does not exist.

    Raises:
        ValueError: The URL is invalid.
        MissingDatabaseError: The file does not exist.
    """
    url = _parse_url(url)
    path = _file(url)
    if path is not None and not path.exists():
        raise MissingDatabaseError(f"database file {path} does not exist")
    return url


def _file(url: URL) -> Path | None:
    """Return the path of the file of a parsed URL; None if the database is not a file."""
    if url.get_backend_name() != "sqlite" or url.database is None or url.database in _IN_MEMORY:
        return None
    return Path(unquote(urlsplit(url.database).path) if url.database.startswith(_URI) else url.database)


def _check_log(url: URL) -> None:
    """Check that SQLite would not create a log of a file that this user may only read.

    It would stay, as it belongs to this user, and with it the owner of the file could not write any more.

    Raises:
        PermissionError: It would be created.
    """
    path = _file(url)
    if path is None or "immutable" in url.query or all(each.exists() for each in _log(path)):
        return
    if access(path.parent, W_OK):
        check_writable(url)


def _log(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-shm")


def _existing_file(url: URL, path: Path) -> URL:
    """Return the URL of an SQLite file that is to be read, and not created.

    Raises:
        ValueError: The last changes are in a log that cannot be read.
    """
    # Not `mode=ro`, which leaves the files that SQLite creates while it reads.
    query = {**url.query, "uri": "true", "mode": "rw"}
    is_writable = access(path, W_OK) and access(path.parent, W_OK)
    (wal, shared_memory), journal = _log(path), Path(f"{path}-journal")
    if not is_writable and not (wal.exists() and shared_memory.exists()):
        # SQLite cannot create these files, and no other process has them open, so the database does not change.
        if _has_content(wal) or _has_content(journal):
            raise ValueError(
                f"the last changes of {path} are in another file, which SQLite reads only in a folder that can be "
                f"written: copy {path.name}* to one"
            )
        query["immutable"] = "1"
    return url.set(database=path.as_uri(), query=query)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@contextmanager
def connect(url: str | URL) -> Iterator[Connection]:
    """Open a transaction in a database with any schema version, and lock its schema.

    Raises:
        ValueError, SQLAlchemyError: As by `Database`.
    """
    engine = _engine(url)
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            _lock_schema(connection)
            yield connection
    finally:
        engine.dispose()


def _connect(engine: Engine, **options: Any) -> Connection:
    connection = engine.connect().execution_options(**options)
    if engine.dialect.name == _POSTGRESQL and not options["writes"]:
        connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return connection


def _prepare_schema(connection: Connection) -> None:
    """Create the schema in an empty database, or check its version.

    Raises:
        SchemaError: The schema belongs to another version of the service.
    """
    _lock_schema(connection)
    version = schema_version(connection)
    if version is None:
        create_schema(connection)
    else:
        check_version(version)


def _require_version(connection: Connection) -> str:
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


def _lock_schema(connection: Connection) -> None:
    """Wait for other instances that create or upgrade the schema. SQLite has locked the file already."""
    if connection.dialect.name == _POSTGRESQL:
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


def _parse_url(url: str | URL) -> URL:
    """Return a URL of SQLAlchemy. The path of an SQLite file is absolute, and a URI of SQLite contains no options.

    Raises:
        ValueError: The URL is invalid.
    """
    try:
        url = make_url(url)
    except ArgumentError:
        # Without the text, which may contain a password.
        raise ValueError(
            "invalid database URL: use one like sqlite:///settings.db or postgresql://user@host/name"
        ) from None
    if url.get_backend_name() != "sqlite" or url.database is None or url.database in _IN_MEMORY:
        return url
    if not url.database.startswith(_URI):
        return url.set(database=abspath(url.database))  # noqa: PTH100 - as `resolve` would follow links
    uri = urlsplit(url.database)
    if uri.netloc not in ("", "localhost"):
        raise ValueError(f"invalid database URI {url.database}: use file:PATH, or file:///PATH for an absolute path")
    query = dict(parse_qsl(uri.query)) | dict(url.query) | {"uri": "true"}
    if uri.path in ("", *_IN_MEMORY) or query.get("mode") == "memory" or query.get("vfs") == "memdb":
        return url.set(database=":memory:", query={})
    path = re.sub("^/+", "/", unquote(uri.path))
    return url.set(database=Path(abspath(path)).as_uri(), query=query)  # noqa: PTH100 - as above


def _engine(url: str | URL) -> Engine:
    url = _parse_url(url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    if url.get_backend_name() != _POSTGRESQL:
        raise ValueError(f"unsupported database {url.get_backend_name()}: use sqlite or postgresql")
    if "+" not in url.drivername:
        url = url.set(drivername=f"{_POSTGRESQL}+psycopg")
    try:
        return create_engine(url, pool_pre_ping=True, **_POOL)
    except ModuleNotFoundError:
        raise ImportError("PostgreSQL needs an extra: pip install 'heksher_client[postgresql]'") from None


def _sqlite_engine(url: URL, *, writes: bool = True) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "isolation_level": None}}
    if url.database in _IN_MEMORY:
        options["poolclass"] = StaticPool  # A database in memory ends with its connection.
    else:
        options |= _POOL
    engine = create_engine(url, **options)
    if writes:
        event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_pragmas(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.execute("PRAGMA foreign_keys = ON")
    dbapi_connection.execute("PRAGMA busy_timeout = 5000")
    # The mode is stored in the file. SQLite fails at once if another connection is setting it at the same time.
    with suppress(sqlite3.OperationalError):
        dbapi_connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    # BEGIN IMMEDIATE locks the file before the first read, so no other process can write between a check and a write.
    writes = connection.get_execution_options()["writes"]
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
