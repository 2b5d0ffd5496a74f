"""The file of an SQLite database is deleted, moved or replaced while the service runs."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from heksher_client import Setting, State
from heksher_client.service import LocalService, create_app
from heksher_client.service import database as database_module
from heksher_client.service.database import Database, database_url
from heksher_client.service.database_file import DatabaseFileError
from heksher_client.service.history import read_state
from tests.service.test_event_stream import stream
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, eventually, running
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.http import http_client

QUERY = "/api/v1/query?settings=s"
CONTEXT_FEATURES = "/api/v1/context_features"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "settings.db"


@pytest.fixture
def service(file: Path) -> Iterator[LocalService]:
    with LocalService(FEATURES, database=file) as service:
        yield service


@pytest.fixture
def http(service: LocalService) -> Iterator[httpx.Client]:
    """A client of the service, which has the setting `s`."""
    with http_client(service.url) as http:
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
        http.post("/api/v1/settings/declare", json=declaration).raise_for_status()
        yield http


def add_rule(http: httpx.Client, user: str) -> int:
    rule = {"setting": "s", "feature_values": {"user": user}, "value": 8}
    return http.post("/api/v1/rules", json=rule).status_code


def statuses(http: httpx.Client) -> list[int]:
    return [http.get(path).status_code for path in ("/api/health", "/api/ready", QUERY, "/metrics", "/console")]


def number_of_rules(http: httpx.Client) -> int:
    return len(http.get(QUERY).json()["settings"]["s"]["rules"])


def label(http: httpx.Client, path: str = QUERY) -> tuple[str, int]:
    database, _, epoch = http.get(path).headers["heksher-database"].partition(".")
    return database, int(epoch)


def back_up(file: Path) -> Path:
    backup = file.with_name("backup.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


def logs(file: Path) -> list[Path]:
    return [file.with_name(f"{file.name}-{suffix}") for suffix in ("wal", "shm")]


def delete_file(file: Path) -> None:
    file.unlink()


def delete_all_files(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


def move_file(file: Path) -> None:
    file.rename(file.with_name("moved.db"))


def move_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


def replace_by_an_empty_file(file: Path) -> None:
    delete_file(file)
    file.touch()


def replace_by_a_database_without_tables(file: Path) -> None:
    """Like a copy of the file without its log."""
    delete_file(file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def replace_by_a_damaged_copy(file: Path) -> None:
    back_up(file)
    copy = file.with_name("backup.db")
    content = copy.read_bytes()
    copy.write_bytes(content[:8192] + bytes(len(content) - 8192))
    copy.replace(file)


def replace_by_a_folder(file: Path) -> None:
    delete_file(file)
    file.mkdir()


def truncate(file: Path) -> None:
    """All changes are in the file already, and nothing is in the log."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(file, 0)


def truncate_to_two_pages(file: Path) -> None:
    truncate(file)
    os.truncate(file, 8192)


def truncate_the_log(file: Path) -> None:
    """Without it, the file has no tables."""
    os.truncate(file.with_name(f"{file.name}-wal"), 0)


def overwrite_with_garbage(file: Path) -> None:
    truncate(file)
    file.write_bytes(b"garbage" * 30_000)


def replace_by_garbage(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"garbage" * 1000)
    other.replace(file)


def replace_by_an_older_version(file: Path) -> None:
    other = file.with_name("other")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE settings (id INTEGER)")
    other.replace(file)


LOSSES = [
    delete_file,
    delete_all_files,
    delete_folder,
    move_file,
    move_folder,
    replace_by_garbage,
    replace_by_an_older_version,
    replace_by_an_empty_file,
    replace_by_a_database_without_tables,
    replace_by_a_folder,
    truncate,
    truncate_to_two_pages,
    truncate_the_log,
    overwrite_with_garbage,
]


@pytest.mark.parametrize(
    "lose", [replace_by_a_damaged_copy, *(pytest.param(lose, marks=pytest.mark.slow) for lose in LOSSES)]
)
def test_l13_without_its_file_a_service_is_unhealthy(
    http: httpx.Client, file: Path, caplog: pytest.LogCaptureFixture, lose: Callable[[Path], None]
) -> None:
    """Writes are refused, and the log has one error."""
    assert add_rule(http, "jim") == 201
    lose(file)
    for _ in range(3):
        assert add_rule(http, "ann") == 500
        assert set(statuses(http)) == {500}
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().startswith(f"the database file {file} ")


@pytest.mark.parametrize(
    ("lose", "give_back"),
    [
        (move_file, lambda file: file.with_name("moved.db").rename(file)),
        (move_folder, lambda file: file.parent.with_name("moved").rename(file.parent)),
    ],
)
def test_l13_a_service_continues_when_its_file_is_back(
    http: httpx.Client,
    file: Path,
    caplog: pytest.LogCaptureFixture,
    lose: Callable[[Path], None],
    give_back: Callable[[Path], object],
) -> None:
    """It is the same database."""
    caplog.set_level("INFO")
    former = label(http)
    lose(file)
    assert add_rule(http, "jim") == 500
    give_back(file)
    assert add_rule(http, "jim") == 201
    assert set(statuses(http)) == {200}
    assert (label(http), number_of_rules(http)) == (former, 1)
    assert "is there again" in caplog.text


@pytest.mark.parametrize("is_gone_for_a_while", [False, True])
def test_l13_a_file_that_replaces_it_is_opened(
    http: httpx.Client, file: Path, caplog: pytest.LogCaptureFixture, is_gone_for_a_while: bool
) -> None:
    """With a new epoch. Changes that the former one has in its log do not get into it."""
    backup = back_up(file)
    for number in range(20):
        assert add_rule(http, f"u{number}") == 201
    former = label(http)
    if is_gone_for_a_while:
        file.unlink()
        assert add_rule(http, "ann") == 500
    backup.replace(file)
    assert number_of_rules(http) == 0
    database, epoch = label(http)
    assert database == former[0]
    assert epoch > former[1]
    assert add_rule(http, "jim") == 201
    assert set(statuses(http)) == {200}
    assert "was replaced" in caplog.text
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM rules").fetchall() == [(1,)]


def test_l13_a_file_of_another_database_has_its_identity(http: httpx.Client, file: Path) -> None:
    former = label(http)
    other = file.with_name("other.db")
    create_app(f"sqlite:///{other}", FEATURES).state.database.close()
    other.replace(file)
    assert http.get(QUERY).status_code == 404
    assert http.get("/api/v1/context_features").headers["heksher-database"].partition(".")[0] != former[0]


def test_l13_a_file_that_cannot_be_used_is_replaced_again(http: httpx.Client, file: Path) -> None:
    backup = back_up(file)
    replace_by_garbage(file)
    assert set(statuses(http)) == {500}
    backup.replace(file)
    assert set(statuses(http)) == {200}


def test_l13_a_change_during_which_the_file_is_deleted_is_refused(file: Path) -> None:
    database = Database(f"sqlite:///{file}")

    def change() -> None:
        with database.begin() as connection:
            connection.execute(text("UPDATE state SET revision = 5"))
            file.unlink()

    with pytest.raises(DatabaseFileError, match="deleted, moved or replaced"):
        change()
    database.close()


def test_l13_a_file_is_not_opened_while_transactions_with_the_former_one_are_open(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_CLOSE_TIMEOUT", 0.0)
    database = Database(f"sqlite:///{file}")
    backup = back_up(file)
    with database.begin(writes=False) as connection:
        read_state(connection)
        backup.replace(file)
        errors: list[BaseException] = []

        def begin() -> None:
            try:
                with database.begin(writes=False):
                    pass
            except DatabaseFileError as error:
                errors.append(error)

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        assert "transactions with the former file are open" in str(errors[0])
    with database.begin(writes=False) as connection:
        assert read_state(connection).revision == 0
    database.close()


def test_l13_event_streams_continue_with_the_file_that_replaces_it(
    service: LocalService, http: httpx.Client, file: Path
) -> None:
    add_rule(http, "jim")
    backup = back_up(file)
    add_rule(http, "ann")
    response = http.get(QUERY)
    revision = int(response.headers["heksher-revision"])
    with stream(service.url, revision, label=response.headers["heksher-database"]) as changes:
        backup.replace(file)
        reset = changes.next()
        assert (reset["event"], reset["id"]) == ("reset", revision - 1)
        add_rule(http, "eve")
        assert changes.next()["id"] == revision


def test_l13_clients_keep_their_values_and_use_those_of_the_new_file(
    kind: Kind, service: LocalService, http: httpx.Client, file: Path
) -> None:
    """For them it is a restored database."""
    setting = Setting("s", int, ["user"], 7)
    backup = back_up(file)
    with running(kind, service.url, 0.05, max_backoff=0.05, follow_changes=False) as client:
        add_rule(http, "jim")
        client.reload()
        assert setting.get(user="jim") == 8
        file.unlink()
        assert eventually(lambda: client.client.status().state is not State.FRESH)
        assert setting.get(user="jim") == 8
        backup.replace(file)
        assert eventually(lambda: setting.get(user="jim") == 7)
        assert eventually(lambda: client.client.status().state is State.FRESH)


@pytest.mark.parametrize("deleted", [["wal"], ["shm"], ["wal", "shm"]])
def test_l13_nothing_is_lost_with_the_log(
    http: httpx.Client, file: Path, caplog: pytest.LogCaptureFixture, deleted: list[str]
) -> None:
    """The changes in the deleted log are written to the file, so other processes find them."""
    assert add_rule(http, "jim") == 201
    for suffix in deleted:
        file.with_name(f"{file.name}-{suffix}").unlink()
    assert add_rule(http, "ann") == 201
    assert set(statuses(http)) == {200}
    assert number_of_rules(http) == 2
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "which was deleted; it was opened again" in record.getMessage()
    assert rules_for_another_process(file) == "2"
    assert add_rule(http, "eve") == 201
    assert rules_for_another_process(file) == "3"


def run_in_another_process(file: Path, code: str) -> str:
    """Run code that has a connection, in a process that ends without closing it."""
    program = f"import os, sqlite3, sys\nconnection = sqlite3.connect({str(file)!r}, isolation_level=None)\n{code}"
    program += "\nsys.stdout.flush()\nos._exit(0)"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    ).stdout.strip()


def rules_for_another_process(file: Path) -> str:
    return run_in_another_process(file, "print(connection.execute('SELECT count(*) FROM rules').fetchone()[0])")


def test_l13_a_change_that_is_open_while_the_log_is_deleted_is_refused(file: Path) -> None:
    """The next one succeeds."""
    database = Database(f"sqlite:///{file}")

    def change(*lost: Path) -> None:
        with database.begin() as connection:
            connection.execute(text("UPDATE state SET revision = revision + 1"))
            for each in lost:
                each.unlink()

    change()
    with pytest.raises(DatabaseFileError, match="deleted, moved or replaced"):
        change(*logs(file))
    change()
    with database.begin(writes=False) as connection:
        assert read_state(connection).revision == 2
    database.close()


INSTANCE = """
import sys
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from heksher_client.service.database import Database
from heksher_client.service.history import read_state
database = Database(sys.argv[1])
for line in sys.stdin:
    with database.begin() as connection:
        connection.execute(text("UPDATE state SET revision = revision + 1"))
        revision = read_state(connection).revision
    print(revision, flush=True)
"""
"""Another instance, which makes a change for each line of its input."""


def increase(database: Database) -> int:
    with database.begin() as connection:
        connection.execute(text("UPDATE state SET revision = revision + 1"))
        return read_state(connection).revision


@pytest.mark.slow
def test_l13_instances_that_share_a_file_continue_without_their_log(file: Path) -> None:
    """The first one writes the changes of all to the file. Then the second one has nothing to lose."""
    url = f"sqlite:///{file}"
    database = Database(url)
    with subprocess.Popen(
        [sys.executable, "-c", INSTANCE, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def increase_other() -> int:
            print(file=other.stdin)
            return int(other.stdout.readline())  # type: ignore[union-attr]

        assert (increase(database), increase_other()) == (1, 2)
        for each in logs(file):
            each.unlink()
        assert [increase(database), increase_other(), increase(database), increase_other()] == [3, 4, 5, 6]
        other.stdin.close()
    assert increase(database) == 7
    database.close()


def test_l13_a_service_whose_log_another_process_has_replaced_is_unhealthy(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both have changes that the other one lacks. The message says which are kept."""
    database = Database(f"sqlite:///{file}")
    run_in_another_process(file, "connection.execute('PRAGMA wal_checkpoint')")
    assert increase(database) == 1
    for each in logs(file):
        each.unlink()
    run_in_another_process(file, "connection.execute('UPDATE state SET revision = 9')")
    for _ in range(3):
        with pytest.raises(DatabaseFileError, match="without the last changes of this service"):
            increase(database)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    database.close()


def test_l13_a_forked_process_closes_its_own_files(file: Path) -> None:
    """It has no connection, and no log, before its first transaction."""
    database = Database(f"sqlite:///{file}")

    def close() -> bool:
        database.close()
        return True

    assert exited_successfully(fork_and_check(close))
    assert increase(database) == 1
    database.close()


@pytest.mark.parametrize("is_folder", [False, True])
def test_l13_a_link_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_folder: bool) -> None:
    """If it is switched to another file, that one is served; without a file, the service is unhealthy."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        create_app(f"sqlite:///{tmp_path / name / 's.db'}", FEATURES).state.database.close()
    link = tmp_path / ("current" if is_folder else "current.db")

    def switch(name: str) -> None:
        new = tmp_path / "link"
        new.symlink_to(tmp_path / name if is_folder else tmp_path / name / "s.db")
        new.replace(link)

    switch("old")
    with LocalService(database=link / "s.db" if is_folder else link) as service, http_client(service.url) as http:
        former = label(http, CONTEXT_FEATURES)
        assert http.post(CONTEXT_FEATURES, json={"context_feature": "old"}).status_code == 204
        switch("new")
        assert http.post(CONTEXT_FEATURES, json={"context_feature": "new"}).status_code == 204
        assert label(http, CONTEXT_FEATURES)[0] != former[0]
        assert http.get(CONTEXT_FEATURES).json()["context_features"] == [*FEATURES, "new"]
        switch("none")
        assert {http.get(path).status_code for path in ("/api/health", CONTEXT_FEATURES)} == {500}
        switch("old")
        assert http.get(CONTEXT_FEATURES).json()["context_features"] == [*FEATURES, "old"]
    assert "was replaced; it was opened again" in caplog.text


def test_l13_a_relative_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(database_url("s.db"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert increase(database) == 1
    database.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["s.db"]


def test_l13_a_file_may_be_compacted(http: httpx.Client, file: Path) -> None:
    """It becomes smaller, and is opened again."""
    for number in range(3):
        description = {"text": "x" * 100_000}
        rule = {"setting": "s", "feature_values": {"user": f"u{number}"}, "value": 8, "metadata": description}
        assert http.post("/api/v1/rules", json=rule).status_code == 201
        assert http.delete(f"/api/v1/rules/{number + 1}").status_code == 204
    run_in_another_process(file, "connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')")
    assert add_rule(http, "jim") == 201
    run_in_another_process(file, "connection.execute('DELETE FROM changes')\nconnection.execute('VACUUM')")
    run_in_another_process(file, "connection.execute('PRAGMA wal_checkpoint(TRUNCATE)')")
    assert set(statuses(http)) == {200}
    assert number_of_rules(http) == 1


def test_l13_a_file_that_sqlite_cannot_read_is_checked(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that was overwritten in place, with the same size. It is used again when its content is back."""
    database = Database(f"sqlite:///{file}")
    run_in_another_process(
        file, "connection.execute('UPDATE state SET revision = 5')\nconnection.execute('PRAGMA wal_checkpoint')"
    )
    content = file.read_bytes()

    def overwrite(with_content: bytes) -> None:
        descriptor = os.open(file, os.O_WRONLY)
        os.write(descriptor, with_content)
        os.close(descriptor)

    overwrite(b"x" * len(content))
    for _ in range(3):
        with pytest.raises(SQLAlchemyError):
            increase(database)
    (record,) = caplog.records
    assert "could not be read or written: " in record.getMessage()
    overwrite(content)
    assert increase(database) == 6
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]
    database.close()


def test_l13_the_log_is_kept_while_another_process_reads_it(file: Path) -> None:
    """Its changes are written to the file as soon as that process has ended its transaction."""
    database = Database(f"sqlite:///{file}")
    assert increase(database) == 1
    code = f"import sqlite3, sys; connection = sqlite3.connect({str(file)!r}, isolation_level=None)\n"
    code += "connection.execute('BEGIN').execute('SELECT * FROM state').fetchone()\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with database.begin() as connection:
            connection.execute(text("UPDATE state SET revision = revision + 1"))
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        for each in logs(file):
            each.unlink()
        with pytest.raises(DatabaseFileError, match="another process uses the former log"):
            increase(database)
        reader.communicate(b"\n")
    assert increase(database) == 3
    database.close()


def test_l13_a_database_that_never_changes_has_no_log(file: Path) -> None:
    """SQLite creates none for it, and locks nothing."""
    Database(f"sqlite:///{file}").close()
    database = Database(database_url(f"file:{file}?immutable=1"))
    with database.begin(writes=False) as connection:
        assert read_state(connection).revision == 0
    database.close()
    assert [path.name for path in file.parent.iterdir()] == ["settings.db"]


def test_l13_a_database_in_memory_has_no_file() -> None:
    with LocalService(FEATURES) as service, http_client(service.url) as http:
        assert http.get("/api/health").status_code == 200
