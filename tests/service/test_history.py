"""The identity of a database, and its epochs."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, event, update

from heksher_client.service import LocalService, create_app
from heksher_client.service import history as history_module
from heksher_client.service.database import Database, DatabaseClosedError, connect
from heksher_client.service.history import State, begin_epoch, is_continued, read_epochs, read_state
from heksher_client.service.migrations import upgrade
from heksher_client.service.schema import CHANGES, SETTINGS, STATE
from tests.service.test_database import FIRST
from tests.service.test_event_stream import label_and_revision, stream, unnoticed_transaction
from tests.support.clients import FEATURES
from tests.support.http import http_client
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

DECLARATION = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
QUERY = "/api/v1/query?settings=s"


@pytest.fixture
def service(service: WatchedService) -> WatchedService:
    service.offers_changes = True
    service.declare("s", "int", 7, ["user"])
    return service


def state_of(url: str) -> State:
    database = Database(url)
    with database.begin(writes=False) as connection:
        state = read_state(connection)
    database.close()
    return state


def headers(response: httpx.Response) -> tuple[str, str]:
    return response.headers["heksher-database"], response.headers["heksher-revision"]


def test_each_start_of_a_service_begins_an_epoch(new_database: Callable[[], str], tmp_path: Path) -> None:
    """The identity, the revision and the ETags stay. Commands that open the database begin none."""
    url = new_database()
    if url == "sqlite://":
        url = f"sqlite:///{tmp_path}/s.db"
    states, etags = [], []
    for _ in range(3):
        with LocalService(FEATURES, database=url) as service, http_client(service.url) as http:
            http.post("/api/v1/settings/declare", json=DECLARATION).raise_for_status()
            etags.append(http.get(QUERY).headers["etag"])
        states += [state_of(url), state_of(url)]
    assert states[::2] == states[1::2]
    assert len({state.epoch for state in states}) == 3
    assert sorted(states, key=lambda state: state.epoch) == states
    assert len({(state.database, state.revision) for state in states}) == 1
    assert len(set(etags)) == 1


def test_databases_have_different_identities(tmp_path: Path) -> None:
    assert len({state_of(f"sqlite:///{tmp_path}/{name}.db").database for name in "abc"}) == 3


def test_a_copy_of_a_database_has_its_identity(tmp_path: Path) -> None:
    original = state_of(f"sqlite:///{tmp_path}/a.db")
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    create_app(f"sqlite:///{tmp_path}/b.db").state.database.close()
    copied = state_of(f"sqlite:///{tmp_path}/b.db")
    assert copied.database == original.database
    assert copied.epoch > original.epoch


def test_an_epoch_begins_after_the_former_one_whatever_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    former = state_of(url).epoch
    monkeypatch.setattr(history_module, "time", lambda: 0.0)
    create_app(url).state.database.close()
    assert state_of(url).epoch == former + 1


def test_a_database_of_an_older_version_gets_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST.read_text())
    upgrade(f"sqlite:///{path}")
    state = state_of(f"sqlite:///{path}")
    assert (len(state.database), state.epoch > 0, state.revision) == (16, True, 0)
    with connect(f"sqlite:///{path}") as opened:
        assert read_epochs(opened) == [[state.epoch, 0]]


def test_the_last_hundred_epochs_are_stored(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with database.begin() as connection:
        for _ in range(150):
            begin_epoch(connection)
        epochs = read_epochs(connection)
        assert (len(epochs), epochs[-1][0]) == (100, read_state(connection).epoch)
    database.close()


@pytest.mark.parametrize(
    ("epoch", "revision", "expected"),
    [(1, 10, True), (1, 11, False), (2, 12, True), (2, 13, False), (3, 99, True), (4, 1, False), (0, 0, False)],
)
def test_an_epoch_continues_the_former_one_up_to_a_revision(epoch: int, revision: int, expected: bool) -> None:
    """A response is of the same history if the next epoch began at its revision or later."""
    assert is_continued([[1, 0], [2, 10], [3, 12]], epoch, revision) is expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [(State(5, "", "d", 2), True), (State(6, "", "d", 2), False), (State(9, "", "d", 1), True)],
)
def test_a_state_includes_former_ones_of_the_same_database(other: State, expected: bool) -> None:
    assert State(5, "", "d", 2).includes(other) is expected
    assert not State(5, "", "e", 2).includes(other)


def test_all_that_programs_request_says_the_state(service: WatchedService) -> None:
    """Errors as well."""
    with http_client(service.url) as http:
        responses = [
            http.get("/api/v1/context_features"),
            http.get(QUERY),
            http.get(QUERY, headers={"If-None-Match": http.get(QUERY).headers["etag"]}),
            http.get("/api/v1/query?settings=none"),
            http.get("/api/v1/settings"),
            http.get("/api/v1/settings/s"),
            http.get("/api/v1/settings/none"),
            http.post("/api/v1/settings/declare", json=DECLARATION),
            http.post("/api/v1/settings/declare", json={**DECLARATION, "name": "t", "version": "2.0"}),
        ]
        assert [response.status_code for response in responses] == [200, 200, 304, 404, 200, 200, 404, 200, 400]
        assert len({headers(response) for response in responses}) == 1
        created = http.post("/api/v1/settings/declare", json={**DECLARATION, "name": "u"})
        assert headers(created) == headers(http.get(QUERY))
        assert int(headers(created)[1]) == int(headers(responses[0])[1]) + 1


@sqlite_only
def test_an_unmodified_response_costs_one_read(service: WatchedService) -> None:
    with http_client(service.url) as http:
        etag = http.get(QUERY).headers["etag"]
        statements: list[str] = []

        def record(_: Any, __: Any, statement: str, *___: Any) -> None:
            statements.append(statement)

        assert service.database is not None
        engine = service.database._engine
        event.listen(engine, "before_cursor_execute", record)
        assert http.get(QUERY, headers={"If-None-Match": etag}).status_code == 304
        event.remove(engine, "before_cursor_execute", record)
        assert [statement.split()[0] for statement in statements] == ["BEGIN", "SELECT"]


def restore(service: WatchedService, revision: int) -> None:
    """Restore a former revision of the database, while the service runs."""
    with unnoticed_transaction(service) as connection:
        connection.execute(delete(CHANGES).where(CHANGES.c.revision > revision))
        connection.execute(update(STATE).values(revision=revision))


def test_a_database_that_is_restored_while_the_service_runs_gets_an_epoch(
    service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    with http_client(service.url) as http:
        service.add_rule("s", 8, user="jim")
        former, revision = headers(http.get(QUERY))
        restore(service, int(revision) - 1)
        http.get(QUERY)  # This one finds it.
        label, lower = headers(http.get(QUERY))
        assert (label.split(".")[0], int(lower)) == (former.split(".")[0], int(revision) - 1)
        assert int(label.split(".")[1]) > int(former.split(".")[1])
        assert headers(http.get(QUERY)) == (label, lower)
    assert [record.getMessage() for record in caplog.records if "restored" in record.getMessage()] == [
        f"the database was restored or replaced: its revision is {lower}, and was {revision}"
    ]


def test_as_many_changes_as_a_restored_database_has_lost_do_not_hide_that(service: WatchedService) -> None:
    """A change notices it as well as a read."""
    service.add_rule("s", 8, user="jim")
    label, revision = label_and_revision(service)
    restore(service, revision - 1)
    service.add_rule("s", 9, user="ann")
    later, same = label_and_revision(service)
    assert same == revision
    assert int(later.split(".")[1]) > int(label.split(".")[1])
    restore(service, revision - 1)  # Nothing was read since the last change of this one.
    service.add_rule("s", 9, user="eve")
    assert label_and_revision(service)[0] > later


def test_an_older_state_that_is_not_the_current_one_begins_no_epoch(service: WatchedService) -> None:
    """A transaction that began before another one may end after it."""
    database = service.database
    assert database is not None
    with database.begin(writes=False) as connection:
        state = read_state(connection)
    database.observe(state)
    database.observe(state._replace(revision=state.revision - 1))
    with database.begin(writes=False) as connection:
        assert read_state(connection) == state


def test_a_read_only_database_begins_no_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Any other error is raised. That it was restored is logged once."""
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with database.begin() as connection:
        state = read_state(connection)
        connection.exec_driver_sql("PRAGMA query_only = ON")
    database.begin_epoch()
    database.observe(state._replace(revision=5))
    for _ in range(2):
        database.observe(state)
    with database.begin(writes=False) as connection:
        assert read_state(connection) == state
    assert caplog.messages == ["the database was restored or replaced: its revision is 0, and was 5"]
    database.close()
    with pytest.raises(DatabaseClosedError):
        database.begin_epoch()


# -- the event stream --------------------------------------------------------------------------------------------------


def begin(service: WatchedService) -> None:
    assert service.database is not None
    service.database.begin_epoch()


def test_a_stream_continues_after_a_restart(service: WatchedService) -> None:
    """Open ones as well."""
    label, revision = label_and_revision(service)
    with stream(service.url, revision, label=label) as changes:
        begin(service)
        service.add_rule("s", 8, user="jim")
        assert changes.next()["id"] == revision + 1
    begin(service)
    with stream(service.url, revision, label=label) as changes:
        assert changes.next()["id"] == revision + 1


def test_a_stream_of_a_restored_database_begins_with_a_reset(service: WatchedService) -> None:
    """Also if its revision is higher than the known one in the meantime."""
    service.add_rule("s", 8, user="jim")
    label, revision = label_and_revision(service)
    restore(service, revision - 1)
    begin(service)
    for user in ("ann", "eve"):
        service.add_rule("s", 8, user=user)
    with stream(service.url, revision, label=label) as changes:
        now = label_and_revision(service)[0]
        assert changes.next() == {"event": "reset", "data": {"database": now}, "id": revision + 1}


@pytest.mark.parametrize("label", ["0000.1", "f" * 16 + ".9"])
def test_a_stream_of_another_database_begins_with_a_reset(service: WatchedService, label: str) -> None:
    now, revision = label_and_revision(service)
    with stream(service.url, 0, label=label) as changes:
        assert changes.next() == {"event": "reset", "data": {"database": now}, "id": revision}


def test_a_stream_of_an_instance_that_lags_waits_for_the_next_change(service: WatchedService) -> None:
    """Its database has not yet received the revision, or the epoch, that a program knows from another instance."""
    label, revision = label_and_revision(service)
    database, _, epoch = label.partition(".")
    for number, known in enumerate((label, f"{database}.{int(epoch) + 10**6}")):
        with stream(service.url, revision + 1, label=known) as changes:
            for user in ("jim", "ann"):
                service.add_rule("s", 8, user=f"{user}{number}")
            assert changes.next()["id"] == revision + 2
        revision += 2


def test_an_epoch_of_the_future_begins_no_stream_of_another_database(service: WatchedService) -> None:
    for label in ("x", "a.", ".1", "A.1", "a.1.1"):
        with http_client(service.url) as http:
            response = http.get("/api/v1/changes", headers={"Last-Event-ID": "1", "Heksher-Database": label})
            assert response.status_code == 422


def test_settings_table_is_untouched_by_epochs(service: WatchedService) -> None:
    """Tags stay, and with them ETags."""
    database = service.database
    assert database is not None
    with database.begin() as connection:
        before = connection.execute(SETTINGS.select()).all()
        begin_epoch(connection)
        assert connection.execute(SETTINGS.select()).all() == before
