"""Commands that only read a database: they need no right to write, create nothing, and do not wait for writers."""

import ctypes
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from heksher_client.cli import main
from heksher_client.service import LocalService, create_app, engines
from heksher_client.service.database import Database, connect_to_read
from tests.service.test_import_export import document, import_into
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.http import http_client
from tests.support.postgresql import PostgreSQL

READING = (("export", "-"), ("changes", "-"), ("token", "list"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a database that contains two settings."""
    with TemporaryDirectory() as name:
        fill(f"sqlite:///{name}/s.db")
        yield Path(name)
        Path(name).chmod(0o755)


def fill(url: str) -> None:
    database = Database(url)
    import_into(database, document())
    database.close()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*arguments: str, database: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["service", *arguments, "--database", str(database)])
    return result.exit_code, result.output


def drop_rights_of_root() -> None:
    """Make this process respect the permissions of files, even if root runs it."""
    if os.geteuid() != 0:
        return
    version_3, of_this_process, overriding, reading = 0x20080522, 0, 1, 2
    header = (ctypes.c_uint32 * 2)(version_3, of_this_process)
    sets = (ctypes.c_uint32 * 6)()  # the effective, permitted and inheritable capabilities, the lower halves first
    libc = ctypes.CDLL(None)
    assert libc.capget(header, sets) == 0
    for i in (0, 1):
        sets[i] &= ~(1 << overriding | 1 << reading)
    assert libc.capset(header, sets) == 0


def run_without_rights(*arguments: str, database: object, command: tuple[str, ...] = ("service",)) -> tuple[int, str]:
    """Run a command that may not write files without the permission, in a forked process."""
    with TemporaryFile("w+") as file:

        def run_in_child() -> bool:
            drop_rights_of_root()
            result = CliRunner().invoke(main, [*command, *arguments, "--database", str(database)])
            json.dump([result.exit_code, result.output], file)
            file.flush()
            return True

        assert exited_successfully(fork_and_check(run_in_child))
        file.seek(0)
        code, output = json.load(file)
        return code, output


@contextmanager
def open_elsewhere(path: Path, statement: str) -> Iterator[None]:
    """Execute a statement in another process, which has the database open until the end of the block.

    In this process, SQLite would consider it open in the child of a fork as well.
    """
    is_open, is_over = Pipe(), Pipe()

    def hold() -> bool:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
            is_open[1].send(True)
            return is_over[0].poll(TIMEOUT_SECONDS)

    pid = fork_and_check(hold)
    assert is_open[0].poll(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        is_over[1].send(True)
        assert exited_successfully(pid)


@pytest.mark.parametrize(("mode", "is_served"), [("wal", False), ("wal", True), ("delete", False)])
def test_l8_a_database_in_a_read_only_folder_can_be_read(folder: Path, mode: str, *, is_served: bool) -> None:
    """While a service has it open as well: the last changes are then in another file."""
    with closing(sqlite3.connect(folder / "s.db")) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    change = "UPDATE settings SET default_value = '42.5' WHERE name = 's'"
    with open_elsewhere(folder / "s.db", change) if is_served else nullcontext():
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        before = content(folder)
        commands = READING if is_served else READING[:1]
        outputs = [run_without_rights(*arguments, database=folder / "s.db") for arguments in commands]
        assert [code for code, _ in outputs] == [0] * len(commands), outputs
        exported = json.loads(outputs[0][1])
        assert exported["settings"][0]["default_value"] == (42.5 if is_served else 1.0)
        assert content(folder) == before


def test_l8_an_open_database_without_recent_changes_can_be_read(folder: Path) -> None:
    """The file for recent changes is empty, but another process may write to it at any time."""
    with open_elsewhere(folder / "s.db", "SELECT * FROM state"):
        assert content(folder)["s.db-wal"] == b""
        folder.chmod(0o555)
        code, output = run_without_rights("export", "-", database=folder / "s.db")
        assert (code, len(json.loads(output)["settings"])) == (0, 2)


def test_l8_changes_that_cannot_be_read_are_an_error(folder: Path, tmp_path: Path) -> None:
    """A copy of a database that was open, in a read-only folder. The message says what to do."""
    with closing(sqlite3.connect(folder / "s.db")) as other:
        other.execute("DELETE FROM rules")
        other.commit()
        shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("s.db*"):
        shutil.copy(path, folder)
    (folder / "s.db-shm").unlink()
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    code, output = run_without_rights("export", "-", database=folder / "s.db")
    assert (code, "copy s.db* to one" in output) == (1, True), output


def test_l8_reading_leaves_the_folder_as_it_was(folder: Path) -> None:
    """Also if the database has the journal of another program: its mode is not changed."""
    with closing(sqlite3.connect(folder / "s.db")) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    before = content(folder)
    for arguments in READING:
        for database in (folder / "s.db", f"sqlite:///{folder}/s.db", f"sqlite+pysqlite:///{folder}/s.db"):
            assert run(*arguments, database=database)[0] == 0
    assert content(folder) == before


def test_l8_reading_does_not_wait_for_a_writer(folder: Path) -> None:
    """The result is the state before the transaction that is open. The same holds for the plan of an import."""
    file = folder / "new.json"
    file.write_text(json.dumps(document(settings=[])))
    with closing(sqlite3.connect(folder / "s.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM settings")
        for arguments in (*READING, ("import", str(file), "--dry-run")):
            code, output = run(*arguments, database=folder / "s.db")
            assert code == 0, output
        assert len(json.loads(run("export", "-", database=folder / "s.db")[1])["settings"]) == 2
        other.execute("ROLLBACK")


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+pysqlite:///"])
def test_l8_a_database_that_does_not_exist_is_not_created(tmp_path: Path, prefix: str) -> None:
    """Also not by planning an import, which shows the changes to an empty database."""
    missing = f"{prefix}{tmp_path}/none.db"
    for arguments in (*READING, ("upgrade",), ("token", "revoke", "ci")):
        assert run(*arguments, database=missing) == (1, f"Error: database file {tmp_path}/none.db does not exist\n")
    file = tmp_path / "new.json"
    file.write_text(json.dumps(document()))
    assert "add setting s\n" in run("import", str(file), "--dry-run", database=missing)[1]
    assert "Make these 7 changes?" in run("import", str(file), database=missing)[1]
    assert list(content(tmp_path)) == ["new.json"]


def test_l8_a_database_without_tables_is_not_changed(tmp_path: Path) -> None:
    """Such as an empty file, or a database of another program."""
    path = tmp_path / "other.db"
    path.touch()
    for arguments in READING:
        code, output = run(*arguments, database=path)
        assert (code, "has no tables of the service that this user can see" in output) == (1, True)
    assert path.read_bytes() == b""


def test_l8_an_older_schema_is_not_upgraded_by_reading(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript((Path(__file__).parents[1] / "data" / "service_0001.sql").read_text())
    before = content(tmp_path)
    code, output = run("export", "-", database=tmp_path / "old.db")
    assert (code, "run `heksher-client service upgrade`" in output) == (1, True)
    assert content(tmp_path) == before


def test_l8_a_uri_of_sqlite_may_have_options(folder: Path) -> None:
    before = content(folder)
    for uri in (f"sqlite:///file:{folder}/s.db?mode=ro&immutable=1&uri=true", f"file://{folder}/s.db?mode=ro"):
        assert run("export", "-", database=uri)[0] == 0
    assert content(folder) == before


@pytest.mark.parametrize("is_writing", [False, True])
def test_l8_a_uri_of_a_file_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_writing: bool) -> None:
    """With any way to write it. A command that reads creates nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.json").write_text(json.dumps(document()))
    name = "n%41 e.db"
    uris = (
        f"file:{name}",
        f"file:{name}?mode=rwc",
        f"file:{tmp_path}/{name}",
        f"file://{tmp_path}/{name}",
        f"file:///{tmp_path}/{name}",
        f"file://localhost{tmp_path}/{name}",
        f"sqlite:///file:{name}",
        f"sqlite:///file:{name}?uri=true",
        f"sqlite+pysqlite:///file:{name}?mode=rwc&uri=true",
    )
    for uri in uris:
        if is_writing:
            assert run("import", "d.json", "--yes", database=uri)[0] == 0
            assert run("token", "add", "ci", database=uri)[0] == 0
            assert run("token", "revoke", "ci", database=uri)[0] == 0
        else:
            for arguments in (*READING, ("upgrade",), ("token", "revoke", "ci")):
                result = run(*arguments, database=uri)
                assert result == (1, f"Error: database file {tmp_path}/nA e.db does not exist\n")
            assert "Make these 7 changes?" in run("import", "d.json", database=uri)[1]
    assert sorted(content(tmp_path)) == (["d.json", "nA e.db"] if is_writing else ["d.json"])


def test_l8_a_uri_with_a_host_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a relative path with two slashes too many."""
    monkeypatch.chdir(tmp_path)
    for arguments in (*READING, ("token", "add", "ci")):
        code, output = run(*arguments, database="file://data/s.db")
        assert (code, "use file:PATH, or file:///PATH for an absolute path" in output) == (1, True)
    assert content(tmp_path) == {}


def test_l8_a_command_refuses_a_database_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its changes would be lost with the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.json").write_text(json.dumps(document()))
    commands = (
        *READING,
        ("upgrade",),
        ("token", "add", "ci"),
        ("token", "revoke", "ci"),
        ("import", "d.json", "--yes"),
        ("import", "d.json", "--dry-run"),
    )
    names = (
        ":memory:",
        "sqlite://",
        "sqlite:///:memory:",
        "file::memory:",
        "file:",
        "file:s.db?mode=memory",
        "sqlite:///file:s.db?mode=memory&cache=shared&uri=true",
        "file:/s.db?vfs=memdb",
    )
    for arguments in commands:
        for name in names:
            code, output = run(*arguments, database=name)
            assert (code, f"{name} is a database in memory" in output) == (1, True), output
        code, output = run(*arguments, database="")
        assert (code, "it is empty" in output) == (2, True), output
    assert list(content(tmp_path)) == ["d.json"]


def test_l8_a_service_in_memory_may_be_a_uri() -> None:
    """An empty name is an error for a service as well: a variable may not be set."""
    with (
        LocalService(["user"], database="file:s?mode=memory&cache=shared") as service,
        http_client(service.url) as http,
    ):
        assert http.get("/api/v1/context_features").json() == {"context_features": ["user"]}
    with pytest.raises(ValueError, match="the name of the database is empty"):
        LocalService(["user"], database="").start()


def test_l8_a_command_that_may_not_write_leaves_no_files(folder: Path, tmp_path: Path) -> None:
    """They would belong to its user, and the service of the owner could not write any more."""
    file = tmp_path / "d.json"
    file.write_text(json.dumps(document(settings=[])))
    (folder / "s.db").chmod(0o444)
    before = content(folder)
    for arguments in (("token", "add", "ci"), ("import", str(file), "--exact", "--yes")):
        code, output = run_without_rights(*arguments, database=folder / "s.db")
        assert (code, "this user may not write the database file" in output) == (1, True), output
        assert content(folder) == before


def test_l8_a_service_that_may_not_write_leaves_no_files(folder: Path) -> None:
    (folder / "s.db").chmod(0o444)
    before = content(folder)
    code, output = run_without_rights(command=("serve", "--port", "0"), database=folder / "s.db")
    assert (code, "this user may not write the database file" in output) == (1, True), output
    assert content(folder) == before


def test_l8_what_may_be_written_is_checked_before_a_file_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as above, in this process."""
    monkeypatch.setattr(engines, "access", lambda *_: False)
    code, output = run("token", "add", "ci", database=folder / "s.db")
    assert (code, "this user may not write the database file" in output) == (1, True)
    assert run("export", "-", database=folder / "s.db")[0] == 0
    for name, code in (("s.db-wal", 1), ("s.db-journal", 1), ("s.db-shm", 0)):
        (folder / name).write_bytes(b"x")
        assert run("export", "-", database=folder / "s.db")[0] == code
        (folder / name).unlink()


def test_l8_a_service_may_read_a_database_whose_folder_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite creates no files there."""
    monkeypatch.setattr(engines, "access", lambda *_: False)
    database = Database(f"sqlite:///{folder}/s.db")
    with database.begin(writes=False) as connection:
        assert connection.execute(text("SELECT count(*) FROM settings")).scalar() == 2
    database.close()


@pytest.mark.parametrize("version", ["0000", "9999"])
def test_l8_a_command_that_needs_another_schema_changes_nothing(folder: Path, version: str) -> None:
    """Not even the journal mode of the file."""
    with closing(sqlite3.connect(folder / "s.db")) as connection:
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])
        connection.commit()
    before = content(folder)
    for arguments in (("token", "add", "ci"), ("token", "revoke", "ci")):
        code, output = run(*arguments, database=folder / "s.db")
        assert (code, "the database has schema version" in output) == (1, True), output
        assert content(folder) == before


def test_l8_a_newer_schema_is_not_upgraded(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "s.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    code, output = run("upgrade", database=folder / "s.db")
    assert (code, "use a newer version of the service" in output) == (1, True), output


def test_l8_a_user_of_postgresql_who_may_only_read(postgresql: PostgreSQL) -> None:
    """And any user while another one writes."""
    url = postgresql.new_database()
    create_app(url, ["user"]).state.database.close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE reader LOGIN"))
        connection.execute(text("GRANT USAGE ON SCHEMA public TO reader"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    reading = url.replace("postgres@", "reader@")
    assert reading != url
    with engine.connect() as writer, writer.begin():
        writer.execute(text("SELECT id FROM state FOR UPDATE"))
        for arguments in READING:
            code, output = run(*arguments, database=reading)
            assert code == 0, output
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY reader"))
        connection.execute(text("DROP ROLE reader"))
    engine.dispose()


def test_l8_an_empty_database_of_postgresql_is_not_changed(postgresql: PostgreSQL) -> None:
    url = postgresql.empty()
    code, output = run("export", "-", database=url)
    assert (code, "has no tables of the service that this user can see" in output) == (1, True)
    with pytest.raises(RuntimeError), connect_to_read(url):
        pass
