"""The file of an SQLite database: SQLite continues to use one that was deleted, moved or replaced, and loses writes."""

import logging
import threading
from collections.abc import Callable
from os import stat_result
from pathlib import Path
from typing import Final, NoReturn

from sqlalchemy import Connection, StaticPool
from sqlalchemy.exc import SQLAlchemyError

from heksher_client.service.processes import PerProcess

logger: Final = logging.getLogger(__name__)


class DatabaseFileError(SQLAlchemyError):
    """The file was deleted, moved or replaced."""


class DatabaseFile:
    """The file that the connections of a database are to."""

    def __init__(self, connection: Connection) -> None:
        """Remember the file of a connection. A database that is not in a file is never missing."""
        path = ""
        if connection.dialect.name == "sqlite" and not isinstance(connection.engine.pool, StaticPool):
            path = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]  # the first one is the main database
        self._path = Path(path) if path else None
        self._opened = None if self._path is None else _identity(self._path.stat())
        self._problem: str | None = None
        self._locks = PerProcess(threading.RLock)

    def check(self) -> None:
        """Raise an error if the file is not the opened one any more.

        Raises:
            DatabaseFileError: It was deleted, moved or replaced.
        """
        if not self._is_opened():
            raise DatabaseFileError(f"the database file {self._path} was deleted, moved or replaced")

    def check_or_reopen(self, reopen: Callable[[], None]) -> None:
        """Raise an error if the file is missing. Open another file with its path.

        Problems are logged when they begin.

        Args:
            reopen: Opens the file again. Other threads wait in the meantime.

        Raises:
            DatabaseFileError: The file is missing, or the other one cannot be used.
        """
        if self._is_opened() and self._problem is None:
            return
        with self._locks.get():
            found = self._find()
            if found is None:
                self._fail("is missing: it was deleted or moved")
            if found != self._opened:
                former = self._opened, self._problem
                self._opened, self._problem = found, None  # so that the transactions of this call are accepted
                try:
                    reopen()
                except Exception as error:
                    self._opened, self._problem = former
                    self._fail(f"was replaced, and the new one cannot be used: {str(error).partition(chr(10))[0]}")
                logger.warning("the database file %s was replaced", self._path)
            elif self._problem is not None:  # pragma: no branch - another thread may have found the same
                logger.info("the database file %s is there again", self._path)
            self._problem = None

    def _fail(self, problem: str) -> NoReturn:
        if problem != self._problem:
            logger.error("the database file %s %s", self._path, problem)
        self._problem = problem
        raise DatabaseFileError(f"the database file {self._path} {problem}")

    def _is_opened(self) -> bool:
        return self._path is None or self._find() == self._opened

    def _find(self) -> tuple[int, int] | None:
        assert self._path is not None  # noqa: S101 - checked by the caller
        try:
            return _identity(self._path.stat())
        except OSError:
            return None


def _identity(status: stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
