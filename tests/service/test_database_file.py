"""The file of an SQLite database is deleted, moved or replaced while the service runs."""

import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from heksher_client import Setting, State
from heksher_client.service import LocalService, create_app
from heksher_client.service import database as database_module
from heksher_client.service.database import Database
from heksher_client.service.database_file import DatabaseFileError
from heksher_client.service.history import read_state
from tests.service.test_event_stream import stream
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.http import http_client

QUERY = "/api/v1/query?settings=s"


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


def label(http: httpx.Client) -> tuple[str, int]:
    database, _, epoch = http.get(QUERY).headers["heksher-database"].partition(".")
    return database, int(epoch)


def back_up(file: Path) -> Path:
    backup = file.with_name("backup.db")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


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
]


@pytest.mark.parametrize("lose", LOSSES)
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
        assert "transactions are open" in str(errors[0])
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
        assert changes.next() == {"event": "reset", "data": {}, "id": revision - 1}
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


def test_l13_a_database_in_memory_has_no_file() -> None:
    with LocalService(FEATURES) as service, http_client(service.url) as http:
        assert http.get("/api/health").status_code == 200
