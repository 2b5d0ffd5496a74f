"""Access to the database, which is SQLite or PostgreSQL: its connections and its transactions.

Transactions that write are serialized across all instances of the service, so a check in one stays valid until its
commit. Transactions that only read see a consistent snapshot and do not wait, except with SQLite in memory, which has a
single connection.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from os import PathLike, fspath, getpid
from time import sleep
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, StaticPool, select
from sqlalchemy.exc import SQLAlchemyError

from heksher_client._clock import monotonic
from heksher_client.service import clock
from heksher_client.service.changes import CHANNEL
from heksher_client.service.database_file import DatabaseFile, DatabaseFileError, check_content, release
from heksher_client.service.engines import (
    URI,
    check_log,
    connect_engine,
    engine_to_read,
    file_of,
    new_engine,
    parse_url,
)
from heksher_client.service.history import State, begin_epoch, read_state
from heksher_client.service.processes import PerProcess
from heksher_client.service.schema import STATE
from heksher_client.service.schema_version import (
    MissingDatabaseError,
    check_version,
    lock_schema,
    prepare_schema,
    require_version,
)
from heksher_client.service.transitions import apply_transitions

logger: Final = logging.getLogger(__name__)
_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that `close` waits for open transactions."""
_POLL_INTERVAL_POSTGRESQL: Final = 5.0
"""Seconds. A fallback: PostgreSQL sends notifications, except while the listening connection is lost."""
_POLL_INTERVAL_FILE: Final = 0.2
"""Seconds."""
_MAX_WAIT: Final = 2.0
"""Seconds that a read waits for other transactions, to apply transitions."""
_TRANSITION_RETRY: Final = 5.0
"""Seconds before the next attempt to apply transitions, if the database is read-only or locked."""
_LISTEN_INTERVAL: Final = 1.0
"""Seconds between two checks whether to stop listening, and before a lost connection is opened again."""


_READ_ONLY_STATES: Final = ("25006", "0A000")
"""PostgreSQL's codes for a write in a read-only transaction, and for a transaction that may write on a standby."""


class DatabaseClosedError(SQLAlchemyError):
    """A transaction was begun after the database was closed."""


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
        url = parse_url(url)
        check_log(url)
        engine = new_engine(url)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._is_closed = False
        creator = getpid()

        def connect_process() -> _ProcessConnections:
            # In memory, a forked process has a copy of the data, in the connection that it inherits.
            is_own = getpid() == creator or isinstance(engine.pool, StaticPool)
            return _ProcessConnections(engine if is_own else new_engine(url))

        self._connections = PerProcess(connect_process)
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each transaction that may have written, in its thread."""
        self._newest: State | None = None
        """The last state that was observed."""
        self._transitions_from = 0.0
        """The monotonic time before which no read applies transitions, after one that could not."""
        self._file = DatabaseFile(file_of(url))
        try:
            with self._connect(writes=True) as connection, connection.begin():
                prepare_schema(connection)
                self._file.set_opened(connection)
        except BaseException:
            engine.dispose()
            raise

    @contextmanager
    def begin(
        self, *, writes: bool = True, actor: str | None = None, max_wait: float | None = None
    ) -> Iterator[Connection]:
        """Open a transaction. It is committed at the end of the block, or rolled back if the block raises.

        Args:
            writes: Whether the transaction may write.
            actor: The author of the changes, for the change log.
            max_wait: The longest time in seconds to wait for other transactions that write; None for no limit. SQLite
                has a limit of its own.

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
            self._connect(writes=writes) as connection,
            connection.begin(),
        ):
            if writes and not self._is_sqlite:
                if max_wait is not None:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max_wait * 1000:.0f}")
                # The row lock serializes the writers of all instances.
                connection.execute(select(STATE.c.id).with_for_update())
            self._file.set_log()
            if writes:
                self._bring_up_to_date(connection)
                connection.execution_options(actor=actor)
            yield connection
            if writes:
                self._file.check()
                state = read_state(connection)
        if writes:
            self._newest = state
            self.on_commit()

    def _bring_up_to_date(self, connection: Connection) -> None:
        """Begin an epoch if the database was restored, and apply the transitions that are due."""
        state = read_state(connection)
        if self._is_older(state):
            self._log_restored(state)
            begin_epoch(connection)
        if state.is_overdue:
            apply_transitions(connection, state)

    @contextmanager
    def read(self) -> Iterator[tuple[Connection, State]]:
        """Open a transaction that only reads, with the transitions that are due, and observe the state that it sees.

        A transition that cannot be applied is no error: a read-only replica has the state of its primary.

        Raises:
            DatabaseClosedError, DatabaseFileError: As by `begin`.
        """
        with self.begin(writes=False) as connection:
            state = read_state(connection)
            is_late = state.is_overdue and monotonic() >= self._transitions_from
            if not is_late:
                yield connection, state
        if is_late:  # In memory there is one connection, so the transaction had to end first.
            self._apply_transitions()
            with self.begin(writes=False) as connection:
                state = read_state(connection)
                yield connection, state
        self.observe(state)

    def _apply_transitions(self) -> None:
        """Apply the transitions that are due, if possible."""
        try:
            with self.begin(max_wait=_MAX_WAIT):
                return  # The transaction has applied them.
        except SQLAlchemyError as error:
            self._transitions_from = monotonic() + _TRANSITION_RETRY
            if not is_read_only(error):
                logger.warning("rules begin or end late: %s", str(error).splitlines()[0])

    def seconds_to_transition(self, state: State) -> float | None:
        """Return the seconds until `read` can apply the next transition; None if there is none."""
        if state.next_transition is None:
            return None
        seconds = (state.next_transition - clock.now()).total_seconds()
        return max(seconds, self._transitions_from - monotonic(), 0.0)

    def begin_epoch(self) -> None:
        """Begin a new epoch, as the database may have been restored from a backup. Not in a read-only database."""
        with _skip_if_read_only(), self.begin() as connection:
            begin_epoch(connection)

    def observe(self, state: State) -> None:
        """Begin a new epoch if a state is older than a former one: the database was restored while it was open.

        Not to be called within a transaction that writes, which does so at its beginning.
        """
        newest = self._newest
        if newest is None or state.includes(newest):
            self._newest = state
            return
        # Threads may observe the states of their transactions in another order.
        with self.begin(writes=False) as connection:
            current = read_state(connection)
        if self._is_older(current):
            with _skip_if_read_only(), self.begin():
                return  # The transaction has begun an epoch.
            self._log_restored(current)
        self._newest = current

    def _is_older(self, state: State) -> bool:
        return self._newest is not None and not state.includes(self._newest)

    def _log_restored(self, state: State) -> None:
        former = None if self._newest is None else self._newest.revision
        logger.warning(
            "the database was restored or replaced: its revision is %d, and was %s",
            state.revision,
            former,
            extra={"revision": state.revision, "former_revision": former},
        )

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
                    check_version(require_version(connection))
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
        return connect_engine(self._engine, **options)


def database_url(database: str | PathLike[str]) -> str | URL:
    """Return the URL of a database that is given as a URL, or as the path or the URI (`file:`) of an SQLite file.

    Raises:
        ValueError: It is empty. SQLite would use a database in memory.
    """
    if not fspath(database):
        raise ValueError("the name of the database is empty: use a file, or a URL like postgresql://user@host/name")
    if isinstance(database, str) and "://" in database and not database.startswith(URI):
        return database
    return URL.create("sqlite", database=fspath(database))


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


@contextmanager
def connect_to_read(url: str | URL) -> Iterator[Connection]:
    """Open a transaction that only reads, in an existing database with the current schema.

    Nothing is created, upgraded or locked, so a file, a folder, a user and a replica that can only be read suffice.

    Raises:
        MissingDatabaseError: The database does not exist, or has no tables of the service.
        ValueError, SchemaError, ImportError, SQLAlchemyError: As by `Database`.
    """
    url = check_exists(url)
    engine = engine_to_read(url)
    try:
        with connect_engine(engine, writes=False) as connection, connection.begin():
            check_version(require_version(connection))
            yield connection
    finally:
        engine.dispose()


def check_exists(url: str | URL) -> URL:
    """Return the URL of a database, if that is not a file that does not exist.

    Raises:
        ValueError: The URL is invalid.
        MissingDatabaseError: The file does not exist.
    """
    url = parse_url(url)
    path = file_of(url)
    if path is not None and not path.exists():
        raise MissingDatabaseError(f"database file {path} does not exist")
    return url


@contextmanager
def connect(url: str | URL) -> Iterator[Connection]:
    """Open a transaction in a database with any schema version, and lock its schema.

    Raises:
        ValueError, SQLAlchemyError: As by `Database`.
    """
    engine = new_engine(url)
    try:
        with connect_engine(engine, writes=True) as connection, connection.begin():
            lock_schema(connection)
            yield connection
    finally:
        engine.dispose()
