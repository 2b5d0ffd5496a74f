"""The file of an SQLite database: SQLite continues to use one that was deleted, moved or replaced, and loses writes.

The same holds for its log (`-wal`), which contains the last changes, and for the file with its locks (`-shm`).
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final, NoReturn

from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.exc import SQLAlchemyError

from heksher_client.service.processes import PerProcess

logger: Final = logging.getLogger(__name__)
_Identity = tuple[int, int] | None
"""The device and the inode of a file; None if it does not exist."""


_ERRORS_OF_FILES: Final = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DatabaseFileError(SQLAlchemyError):
    """The file was deleted, moved, replaced, truncated or damaged."""


class DatabaseFile:
    """The file that the connections of a database are to, with its log."""

    def __init__(self, path: Path | None) -> None:
        """Watch a file.

        Args:
            path: Its absolute path, which may be a symbolic link. None for a database that is not in a file, which is
                never missing.
        """
        self._path = path
        self._opened: _Identity = None
        self._size = 0
        """The largest size that was found. A file becomes smaller only if it is truncated or compacted."""
        self._logs: PerProcess[_Log] | None = None
        self._problem: str | None = None
        self._error: str | None = None
        """The error of SQLite, if it could not read or write the files."""
        self._pending: str | None = None
        """The change after which the files could not be opened again."""
        self._locks = PerProcess(threading.Lock)

    def set_opened(self, connection: Connection) -> None:
        """Remember the files of a connection, which is in a transaction."""
        if self._path is None:
            return
        self.close_log()
        self._opened, self._size = _find(self._path)
        # The first database is the main one. SQLite resolves links, and creates the log in the folder of the file.
        target = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]
        self._logs = PerProcess(lambda: _Log(target))
        self.set_log()

    def set_log(self) -> None:
        """Remember the log of a connection, which is in a transaction, if it is the first one of its process."""
        if self._logs is not None:
            self._logs.get()

    def close_log(self) -> None:
        """Forget the log, as the connections of this process are closed."""
        log = self._log()
        if log is not None and self._logs is not None:
            log.close()
            self._logs.forget()

    @contextmanager
    def watch_errors(self) -> Iterator[None]:
        """Record errors of SQLite about the files, so that the next transaction checks their content."""
        try:
            yield
        except SQLAlchemyError as error:
            if getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF in _ERRORS_OF_FILES:
                self._error = _first_line(error)
            raise

    def check(self) -> None:
        """Raise an error if the files are not the opened ones any more.

        Raises:
            DatabaseFileError: One of them was deleted, moved or replaced.
        """
        if not self._is_opened():
            raise DatabaseFileError(f"the database file {self._path} was deleted, moved or replaced")

    def check_or_reopen(self, reopen: Callable[[bool], None]) -> None:
        """Raise an error if the file is missing. Open another file with its path.

        Problems are logged when they begin.

        Args:
            reopen: Opens the file again, and calls `set_opened`. Other threads wait in the meantime. Its argument is
                True if the log must be readable.

        Raises:
            DatabaseFileError: The file is missing, or the other one cannot be used.
        """
        if self._is_opened() and self._problem is None:
            return
        with self._locks.get():
            change = self._change()
            if change is not None:
                try:
                    reopen(self._error is None)
                except Exception as error:
                    self._pending = change
                    self._fail(f"{change}, and cannot be used: {_first_line(error)}")
                logger.warning("the database file %s %s; it was opened again", self._path, change)
                self._error = self._pending = None
            elif self._problem is not None:  # pragma: no branch - another thread may have found the same
                logger.info("the database file %s is there again", self._path)
            self._problem = None

    def _change(self) -> str | None:
        """Return how the files differ from the opened ones; None if they do not.

        Raises:
            DatabaseFileError: The file is missing, or another log has changes.
        """
        assert self._path is not None  # noqa: S101 - checked by the caller
        found, size = _find(self._path)
        if found is None:
            self._fail("is missing: it was deleted or moved")
        if found != self._opened:
            return "was replaced"
        if size < self._size:
            return "became smaller"
        log = self._log()
        if log is not None and log.has_conflict():
            self._fail(
                f"has another log: {log.path} was deleted, and another process has changed the database without the "
                f"last changes of this service. When the service stops, SQLite keeps the changes of the service; copy "
                f"{self._path.name}* first if you need those of the other process"
            )
        change = None if log is None else log.change()
        if change is None and self._error is not None:
            change = f"could not be read or written: {self._error}"
        return change or self._pending

    def _fail(self, problem: str) -> NoReturn:
        if problem != self._problem:
            logger.error("the database file %s %s", self._path, problem)
        self._problem = problem
        raise DatabaseFileError(f"the database file {self._path} {problem}")

    def _is_opened(self) -> bool:
        if self._path is None:
            return True
        found, size = _find(self._path)
        if found is None or found != self._opened or size < self._size or self._error is not None:
            return False
        self._size = size
        log = self._log()
        return log is None or log.change() is None

    def _log(self) -> "_Log | None":
        return None if self._logs is None else self._logs.find()


class _Log:
    """The log of a database, and the file with its locks, as the connections of a process have them open."""

    def __init__(self, database: str) -> None:
        self.path: Final = Path(f"{database}-wal")
        self._paths = (self.path, Path(f"{database}-shm"))
        self._opened = [_find(path)[0] for path in self._paths]
        self._size = 0
        # A descriptor shows the size of the log after it was deleted. SQLite locks the other files, not this one, so
        # closing the descriptor does not end the locks of the process.
        self._descriptor = None if self._opened[0] is None else os.open(self.path, os.O_RDONLY)

    def change(self) -> str | None:
        """Return how the files differ from the opened ones; None if they do not.

        A database without a log may get one later. SQLite writes over the log, and makes it smaller on request only.
        """
        for path, opened in zip(self._paths, self._opened, strict=True):
            found, size = _find(path)
            if opened not in (None, found):
                return f"lost {path}, which was deleted"
            if path is self.path:
                if size < self._size:
                    return f"has less in its log, {path}"
                self._size = size
        return None

    def has_conflict(self) -> bool:
        """Return True if another process has a log with changes, and the deleted one has changes as well.

        A log is empty after all of its changes were written to the database.
        """
        found, size = _find(self.path)
        is_other = found not in (None, self._opened[0]) and size > 0
        return is_other and self._descriptor is not None and os.fstat(self._descriptor).st_size > 0

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def release(engine: Engine, *, is_log_required: bool) -> None:
    """Close the connections of an engine, after the changes in their log were written to their file.

    The log may have been deleted, or belong to a file that was replaced: SQLite would apply it to the new one.

    Args:
        engine: The engine.
        is_log_required: Whether to keep the connections if their log cannot be read.

    Raises:
        DatabaseFileError: Another process uses the log.
        sqlite3.Error: The changes cannot be written.
    """
    pool = engine.pool
    if isinstance(pool, QueuePool) and pool.checkedin():
        with nullcontext() if is_log_required else suppress(sqlite3.Error), closing(engine.raw_connection()) as former:
            (is_busy, *_) = former.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_busy:
                raise DatabaseFileError("another process uses the former log")
    engine.dispose()


def check_content(connection: Connection) -> None:
    """Check that SQLite can read all of a database.

    Raises:
        DatabaseFileError: It is damaged.
    """
    result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if result != "ok":
        raise DatabaseFileError(f"it is damaged: {result}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _find(path: Path) -> tuple[_Identity, int]:
    """Return the identity and the size of a file."""
    try:
        status = path.stat()
    except OSError:
        return None, 0
    return (status.st_dev, status.st_ino), status.st_size
