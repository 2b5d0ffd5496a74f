"""Engines of SQLAlchemy: the URL of a database, the file that it names, and how connections to it are opened."""

import re
import sqlite3
from contextlib import suppress
from os import W_OK, access
from os.path import abspath
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

POSTGRESQL: Final = "postgresql"
_POOL: Final = {"pool_size": 20, "max_overflow": 40}
"""At least one connection for each thread: FastAPI has 40 for requests, and the service a few more."""
_IN_MEMORY: Final = (None, "", ":memory:")
"""The names of SQLite's databases in memory."""
URI: Final = "file:"
"""The beginning of a URI of SQLite, which may contain options."""


def is_in_memory(url: str | URL) -> bool:
    """Return True for a database that ends with its connection.

    Raises:
        ValueError: The URL is invalid.
    """
    url = parse_url(url)
    return url.get_backend_name() == "sqlite" and url.database in _IN_MEMORY


def check_writable(url: str | URL) -> None:
    """Check that this user may write a database, if it is a file that exists.

    Raises:
        ValueError: The URL is invalid.
        PermissionError: The user may not write the file.
    """
    path = file_of(parse_url(url))
    if path is not None and path.exists() and not access(path, W_OK):
        raise PermissionError(f"this user may not write the database file {path}")


def parse_url(url: str | URL) -> URL:
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
    if not url.database.startswith(URI):
        return url.set(database=abspath(url.database))  # noqa: PTH100 - as `resolve` would follow links
    uri = urlsplit(url.database)
    if uri.netloc not in ("", "localhost"):
        raise ValueError(f"invalid database URI {url.database}: use file:PATH, or file:///PATH for an absolute path")
    query = dict(parse_qsl(uri.query)) | dict(url.query) | {"uri": "true"}
    if uri.path in ("", *_IN_MEMORY) or query.get("mode") == "memory" or query.get("vfs") == "memdb":
        return url.set(database=":memory:", query={})
    path = re.sub("^/+", "/", unquote(uri.path))
    return url.set(database=Path(abspath(path)).as_uri(), query=query)  # noqa: PTH100 - as above


def file_of(url: URL) -> Path | None:
    """Return the path of the file of a parsed URL; None if the database is not a file."""
    if url.get_backend_name() != "sqlite" or url.database is None or url.database in _IN_MEMORY:
        return None
    return Path(unquote(urlsplit(url.database).path) if url.database.startswith(URI) else url.database)


def check_log(url: URL) -> None:
    """Check that SQLite would not create a log of a file that this user may only read.

    It would stay, as it belongs to this user, and with it the owner of the file could not write any more.

    Raises:
        PermissionError: It would be created.
    """
    path = file_of(url)
    if path is None or "immutable" in url.query or all(each.exists() for each in _log(path)):
        return
    if access(path.parent, W_OK):
        check_writable(url)


def _log(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-shm")


def new_engine(url: str | URL) -> Engine:
    url = parse_url(url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    if url.get_backend_name() != POSTGRESQL:
        raise ValueError(f"unsupported database {url.get_backend_name()}: use sqlite or postgresql")
    if "+" not in url.drivername:
        url = url.set(drivername=f"{POSTGRESQL}+psycopg")
    try:
        return create_engine(url, pool_pre_ping=True, **_POOL)
    except ModuleNotFoundError:
        raise ImportError("PostgreSQL needs an extra: pip install 'heksher_client[postgresql]'") from None


def engine_to_read(url: URL) -> Engine:
    """Return an engine for connections that only read, and do not create the database.

    Args:
        url: A parsed URL.

    Raises:
        ValueError: The last changes are in a log that cannot be read.
        ImportError: The driver for PostgreSQL is not installed.
    """
    path = file_of(url)
    return new_engine(url) if path is None else _sqlite_engine(_existing_file(url, path), writes=False)


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


def connect_engine(engine: Engine, **options: Any) -> Connection:
    connection = engine.connect().execution_options(**options)
    if engine.dialect.name == POSTGRESQL and not options["writes"]:
        connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return connection


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
