"""Temporary rules: they begin and end at their times, exactly once, with any number of instances."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from heksher_client import Setting
from heksher_client.service import LocalService, database, store
from heksher_client.service.changes import changes, record_together
from heksher_client.service.database import Database
from heksher_client.service.history import read_state
from heksher_client.service.rule_period import Period
from heksher_client.service.schema import CHANGES, RULES, STATE
from tests.service.conftest import Clock
from tests.service.test_event_stream import stream, unnoticed_transaction
from tests.support.clients import Kind, eventually, running
from tests.support.http import http_client, http_request
from tests.support.marks import sqlite_only
from tests.support.postgresql import PostgreSQL
from tests.support.service import WatchedService
from tests.support.statements import statements_of

QUERY = "/api/v1/query?settings=s"


@pytest.fixture
def service(service: WatchedService, clock: Clock) -> WatchedService:
    service.offers_changes = True
    service.declare("s", "int", 7, ["environment", "user"])
    return service


def add(http: httpx.Client, value: int, user: str = "jim", **period: str) -> int:
    body = {"setting": "s", "feature_values": {"user": user}, "value": value, **period}
    response = http.post("/api/v1/rules", json=body)
    assert response.status_code == 201, response.text
    return int(response.json()["rule_id"])


def values(http: httpx.Client) -> list[int]:
    """Return the values of the rules that query results contain."""
    return [rule["value"] for rule in http.get(QUERY).json()["settings"]["s"]["rules"]]


def log(http: httpx.Client, after: int = 0) -> list[Any]:
    changes = http.get("/api/v1/change_log", params={"after": after, "limit": 1000}).json()["changes"]
    return list(changes)


def transitions(http: httpx.Client) -> list[tuple[str, int]]:
    """Return the transitions in the change log, each with the id of its rule."""
    found = [change for change in log(http) if change["action"] in ("rule started", "rule ended")]
    return [(change["action"], change["new"]["rule_id"]) for change in found]


# -- transitions -------------------------------------------------------------------------------------------------------


def test_a_rule_begins_and_ends_at_its_times(http: httpx.Client, clock: Clock) -> None:
    """The start is included, and the end is not."""
    add(http, 8, starts_at=clock.at(10), ends_at=clock.at(20))
    seen = []
    for minute in (0, 9.99, 10, 19.99, 20, 30):
        clock.move_to(minute)
        seen.append(values(http))
    assert seen == [[], [], [8], [8], [], []]


def test_a_transition_is_a_change_with_a_revision_and_new_tags(http: httpx.Client, clock: Clock) -> None:
    """An ETag from before does not match. The change log shows the rule, and nobody as the actor."""
    rule_id = add(http, 8, starts_at=clock.at(10))
    former = http.get(QUERY)
    known = {"If-None-Match": former.headers["etag"]}
    assert http.get(QUERY, headers=known).status_code == 304
    clock.move_to(10)
    started = http.get(QUERY, headers=known)
    assert started.status_code == 200
    assert int(started.headers["heksher-revision"]) == int(former.headers["heksher-revision"]) + 1
    assert http.get(QUERY, headers={"If-None-Match": started.headers["etag"]}).status_code == 304
    (change,) = log(http, int(former.headers["heksher-revision"]))
    content = {
        "rule_id": rule_id,
        "feature_values": {"user": "jim"},
        "value": 8,
        "metadata": {},
        "starts_at": clock.at(10),
    }
    assert change == {
        "revision": int(started.headers["heksher-revision"]),
        "at": clock.at(10).replace("+00:00", "Z"),
        "actor": None,
        "action": "rule started",
        "settings": ["s"],
        "former": content,
        "new": content,
        "group": None,
    }


@pytest.mark.parametrize(
    "path",
    [
        "/api/health",
        "/api/ready",
        "/api/v1/context_features",
        "/api/v1/settings/s/rules",
        "/api/v1/rules/1",
        "/console",
    ],
)
def test_any_request_that_reads_applies_what_is_due(http: httpx.Client, clock: Clock, path: str) -> None:
    """Also one whose response does not depend on it."""
    add(http, 8, starts_at=clock.at(10))
    clock.move_to(10)
    assert http.get(path).status_code == 200
    assert transitions(http) == [("rule started", 1)]


def test_a_change_comes_after_the_transitions_that_are_due(http: httpx.Client, clock: Clock) -> None:
    """And only the change has the author."""
    rule_id = add(http, 8, ends_at=clock.at(10))
    clock.move_to(10)
    http.put(f"/api/v1/rules/{rule_id}/value", json={"value": 9}).raise_for_status()
    assert [change["action"] for change in log(http)[-2:]] == ["rule ended", "rule changed"]
    assert values(http) == []


def test_transitions_that_were_missed_are_applied_in_the_order_of_their_times(http: httpx.Client, clock: Clock) -> None:
    """A rule whose whole period has passed changes nothing."""
    first = add(http, 1, "a", starts_at=clock.at(30))
    second = add(http, 2, "b", ends_at=clock.at(20))
    add(http, 3, "c", starts_at=clock.at(10), ends_at=clock.at(40))
    clock.move_to(60)
    assert values(http) == [1]
    assert transitions(http) == [("rule ended", second), ("rule started", first)]
    revisions = [change["revision"] for change in log(http)]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))


def test_a_rule_is_added_within_before_or_after_its_period(http: httpx.Client, clock: Clock) -> None:
    add(http, 1, "a", starts_at=clock.at(-10), ends_at=clock.at(10))
    add(http, 2, "b", starts_at=clock.at(10))
    add(http, 3, "c", ends_at=clock.at(0))
    add(http, 4, "d", starts_at=clock.at(0))
    assert values(http) == [1, 4]
    clock.move_to(10)
    assert values(http) == [2, 4]
    assert len(transitions(http)) == 2


def test_the_time_of_a_deleted_rule_changes_nothing(http: httpx.Client, clock: Clock) -> None:
    """The next transition is that of another rule."""
    deleted = add(http, 1, "a", starts_at=clock.at(10))
    add(http, 2, "b", starts_at=clock.at(20))
    http.delete(f"/api/v1/rules/{deleted}").raise_for_status()
    before = len(log(http))
    clock.move_to(10)
    assert (values(http), len(log(http))) == ([], before)
    clock.move_to(20)
    assert values(http) == [2]


def test_a_clock_that_is_behind_reverses_no_transition(http: httpx.Client, clock: Clock) -> None:
    """As the clocks of instances differ, and clocks are set."""
    ended = add(http, 1, "a", ends_at=clock.at(20))
    started = add(http, 2, "b", starts_at=clock.at(20))
    clock.move_to(20)
    assert values(http) == [2]
    clock.move_to(10)
    assert values(http) == [2]
    other = add(http, 3, "c", starts_at=clock.at(15))
    clock.move_to(16)
    assert values(http) == [2, 3]
    clock.move_to(21)
    assert values(http) == [2, 3]
    assert transitions(http) == [("rule ended", ended), ("rule started", started), ("rule started", other)]


def test_programs_read_a_rule_while_it_is_in_effect(
    kind: Kind, service: WatchedService, http: httpx.Client, clock: Clock
) -> None:
    """Their clients poll, and know nothing about periods."""
    setting = Setting("s", int, ["user"], 7)
    add(http, 8, starts_at=clock.at(10), ends_at=clock.at(20))
    with running(kind, service.url, 0.02, max_backoff=0.1, follow_changes=False):
        seen = []
        for minute, expected in ((0, 7), (10, 8), (20, 7)):
            clock.move_to(minute)
            assert eventually(lambda value=expected: setting.get(user="jim") == value)  # type: ignore[misc]
            seen.append(setting.get(user="jim"))
    assert seen == [7, 8, 7]


def test_the_next_transition_costs_no_other_read(service: WatchedService, http: httpx.Client, clock: Clock) -> None:
    """It is read with the revision, also in time zones of the connection other than UTC."""
    add(http, 1, starts_at="2030-01-01T13:10:00+01:00")
    assert service.database is not None
    with service.database.begin(writes=False) as connection:
        assert read_state(connection).next_transition == datetime.fromisoformat(clock.at(10))


# -- several instances -------------------------------------------------------------------------------------------------


def test_instances_that_notice_a_transition_at_once_apply_it_once(instances: list[httpx.Client], clock: Clock) -> None:
    rule = {"setting": "s", "feature_values": {"user": "ann"}, "value": 9, "starts_at": clock.at(10)}
    instances[0].post("/rules", json=rule).raise_for_status()
    clock.move_to(10)
    barrier = threading.Barrier(8)
    found: list[int] = []

    def query(http: httpx.Client) -> None:
        barrier.wait()
        found.append(len(http.get("/query").json()["settings"]["s"]["rules"]))

    threads = [threading.Thread(target=query, args=[http]) for http in instances * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 8
    changes = instances[0].get("/change_log").json()["changes"]
    assert [change["action"] for change in changes][-2:] == ["rule added", "rule started"]


def test_thousands_of_rules_that_begin_or_end_together_take_few_statements(
    service: WatchedService, http: httpx.Client, clock: Clock
) -> None:
    """All requests wait for them. Each rule has a revision of its own: in the order of times, then of ids."""
    database, count = service.database, 1_200
    assert database is not None
    start, end = (datetime.fromisoformat(clock.at(minute)) for minute in (10, 11))
    with database.begin() as connection, record_together(connection):
        setting = store.settings(connection)[0]
        for number in range(count):
            period = Period(None, end) if number % 2 else Period(start, None)
            store.add_rule(connection, setting, {"user": f"u{number}"}, number, {}, period=period)
        revision = read_state(connection).revision + count
    clock.move_to(12)
    with statements_of(database) as statements:
        assert len(values(http)) == count / 2
    assert len(statements) < 40
    with database.begin(writes=False) as connection:
        found = changes(connection, after=revision, limit=count)
    assert [each.revision for each in found] == list(range(revision + 1, revision + count + 1))
    started = [("rule started", 2 * at) for at in range(count // 2)]
    ended = [("rule ended", 2 * at + 1) for at in range(count // 2)]
    assert [(each.action, each.new["value"]) for each in found] == started + ended


def test_another_instance_knows_the_period_of_a_rule(instances: list[httpx.Client], clock: Clock) -> None:
    """Though it has cached the results from before."""
    etags = [http.get("/query").headers["etag"] for http in instances]
    rule = {"setting": "s", "feature_values": {"user": "ann"}, "value": 9, "ends_at": clock.at(10)}
    instances[0].post("/rules", json=rule).raise_for_status()
    seen = []
    for minute in (0, 10):
        clock.move_to(minute)
        seen.append([len(http.get("/query").json()["settings"]["s"]["rules"]) for http in reversed(instances)])
    assert seen == [[2, 2], [1, 1]]
    assert {http.get("/query").headers["etag"] for http in instances}.isdisjoint(etags)


def test_a_restart_applies_what_became_due_during_a_downtime(
    new_database: Callable[[], str], tmp_path: Path, clock: Clock
) -> None:
    url = new_database()
    url = f"sqlite:///{tmp_path}/service.db" if url == "sqlite://" else url
    for minute, expected in ((0, [7]), (10, [7, 8])):
        clock.move_to(minute)
        with LocalService(["user"], database=url) as service, http_client(service.url) as http:
            if minute == 0:
                declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
                http.post("/api/v1/settings/declare", json=declaration).raise_for_status()
                add(http, 7, "a")
                add(http, 8, "b", starts_at=clock.at(5))
            assert values(http) == expected


def test_a_database_that_is_restored_makes_its_transitions_again(
    service: WatchedService, http: httpx.Client, clock: Clock
) -> None:
    """In the epoch that begins then."""
    add(http, 8, starts_at=clock.at(10))
    before = http.get(QUERY).headers
    clock.move_to(10)
    assert values(http) == [8]
    add(http, 9, "ann")
    with unnoticed_transaction(service) as connection:
        connection.execute(delete(RULES).where(RULES.c.id == 2))
        connection.execute(update(RULES).values(in_effect=False))
        connection.execute(delete(CHANGES).where(CHANGES.c.revision > int(before["heksher-revision"])))
        former = {"revision": int(before["heksher-revision"]), "next_transition": datetime.fromisoformat(clock.at(10))}
        connection.execute(update(STATE).values(**former))
    after = http.get(QUERY)
    assert [rule["value"] for rule in after.json()["settings"]["s"]["rules"]] == [8]
    assert int(after.headers["heksher-revision"]) == int(before["heksher-revision"]) + 1
    assert after.headers["heksher-database"] > before["heksher-database"]


# -- the event stream --------------------------------------------------------------------------------------------------


def test_a_stream_announces_a_transition_without_requests(
    service: WatchedService, http: httpx.Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader wakes at that time by itself."""
    monkeypatch.setattr("heksher_client.service.event_stream._MAX_WAIT", 3600.0)
    monkeypatch.setattr(Database, "poll_interval", None)
    with stream(service.url) as changes:
        changes.next()
        add(http, 8, starts_at=clock.at(0.001))  # in 0.06 seconds
        added = changes.next()
        clock.move_to(0.001)
        started = changes.next()
        assert (started["id"], started["data"]["settings"]) == (added["id"] + 1, ["s"])
        assert values(http) == [8]


def test_a_stream_reads_the_clock_again_now_and_then(
    service: WatchedService, http: httpx.Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be set forward while the reader waits."""
    monkeypatch.setattr("heksher_client.service.event_stream._MAX_WAIT", 0.01)
    monkeypatch.setattr(Database, "poll_interval", None)
    with stream(service.url) as changes:
        changes.next()
        add(http, 8, starts_at=clock.at(1000))
        added = changes.next()["id"]
        clock.move_to(1000)
        assert changes.next()["id"] == added + 1


# -- databases that cannot be written ----------------------------------------------------------------------------------


@contextmanager
def refused_writes(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[bool]]:
    """Let transactions that write fail, as with a read-only database. Yields the attempts."""
    attempts: list[bool] = []
    begin = Database.begin

    @contextmanager
    def begin_to_read(self: Database, *, writes: bool = True, **options: Any) -> Iterator[Any]:
        if writes:
            attempts.append(True)
            raise error
        with begin(self, writes=writes, **options) as connection:
            yield connection

    with monkeypatch.context() as patch:
        patch.setattr(Database, "begin", begin_to_read)
        yield attempts


def read_only_error() -> OperationalError:
    reason = sqlite3.OperationalError("attempt to write a readonly database")
    reason.sqlite_errorcode = sqlite3.SQLITE_READONLY
    return OperationalError("UPDATE", {}, reason)


LOCKED = OperationalError("UPDATE", {}, Exception("database is locked"))


@pytest.mark.parametrize(
    ("error", "messages"),
    [(read_only_error(), []), (LOCKED, ["rules begin or end late: (builtins.Exception) database is locked"])],
)
def test_a_database_that_cannot_be_written_answers_with_what_it_has(
    http: httpx.Client,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    messages: list[str],
) -> None:
    """Such as a read-only replica, which gets the transition from its primary. It tries again after some seconds."""
    now = 100.0
    monkeypatch.setattr(database, "monotonic", lambda: now)
    add(http, 8, starts_at=clock.at(10))
    clock.move_to(10)
    with refused_writes(monkeypatch, error) as attempts:
        assert [values(http) for _ in range(3)] == [[]] * 3
        assert len(attempts) == 1
    assert [record.getMessage() for record in caplog.records if record.name == database.__name__] == messages
    assert values(http) == []
    now = 105.0
    assert values(http) == [8]


def test_the_reader_of_streams_does_not_spin_while_transitions_are_refused(
    service: WatchedService, http: httpx.Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "monotonic", lambda: 100.0)
    add(http, 8, starts_at=clock.at(10))
    opened = service.database
    assert opened is not None
    clock.move_to(9)
    with opened.read() as (_, state):
        assert opened.seconds_to_transition(state) == 60.0
    clock.move_to(10)
    with refused_writes(monkeypatch, read_only_error()), opened.read() as (_, state):
        assert opened.seconds_to_transition(state) == 5.0
    assert opened.seconds_to_transition(state._replace(next_transition=None)) is None


def test_a_read_does_not_wait_long_for_another_transaction(
    postgresql: PostgreSQL, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a long import, which delays a transition."""
    monkeypatch.setattr(database, "_MAX_WAIT", 0.01)
    monkeypatch.setattr(database, "_TRANSITION_RETRY", 0.0)
    url = postgresql.new_database()
    with LocalService(["user"], database=url) as service, http_client(service.url) as http:
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
        http.post("/api/v1/settings/declare", json=declaration).raise_for_status()
        add(http, 8, starts_at=clock.at(10))
        importing = Database(url)
        clock.move_to(9)
        with importing.begin():
            clock.move_to(10)
            assert values(http) == []
        importing.close()
        assert values(http) == [8]


# -- the API -----------------------------------------------------------------------------------------------------------


def test_a_rule_shows_its_period_if_it_has_one(http: httpx.Client, clock: Clock) -> None:
    """In UTC, whatever the offset in the request."""
    permanent, temporary = add(http, 1, "a"), add(http, 2, "b", starts_at="2030-01-01T14:30:00+02:00")
    assert set(http.get(f"/api/v1/rules/{permanent}").json()) == {"setting", "value", "feature_values", "metadata"}
    rule = http.get(f"/api/v1/rules/{temporary}").json()
    assert (rule["starts_at"], rule["in_effect"], "ends_at" in rule) == (clock.at(30), False, False)
    http.put(f"/api/v1/rules/{temporary}/period", json={"starts_at": None, "ends_at": clock.at(5)}).raise_for_status()
    rule = http.get(f"/api/v1/rules/{temporary}").json()
    assert (rule["ends_at"], rule["in_effect"], "starts_at" in rule) == (clock.at(5), True, False)
    http.put(f"/api/v1/rules/{temporary}/period", json={"starts_at": None, "ends_at": None}).raise_for_status()
    assert set(http.get(f"/api/v1/rules/{temporary}").json()) == {"setting", "value", "feature_values", "metadata"}


@sqlite_only
@pytest.mark.parametrize(
    "period",
    [
        {"starts_at": "2030-01-01T12:00:00"},
        {"starts_at": "2030-01-01"},
        {"ends_at": "soon"},
        {"ends_at": 1_900_000_000},
        {"starts_at": "0001-01-01T00:00:00+10:00"},
        {"starts_at": "2030-01-01T12:00:00Z", "ends_at": "2030-01-01T12:00:00Z"},
        {"starts_at": "2030-01-01T12:00:00Z", "ends_at": "2030-01-01T13:00:00+02:00"},
    ],
)
def test_an_invalid_period_is_refused(http: httpx.Client, period: dict[str, Any]) -> None:
    """Without an offset, not a time, or with an end that is not after the start."""
    rule_id = add(http, 1)
    body = {"setting": "s", "feature_values": {"user": "ann"}, "value": 8}
    responses = [
        http.post("/api/v1/rules", json={**body, **period}),
        http.put(f"/api/v1/rules/{rule_id}/period", json={"starts_at": None, "ends_at": None, **period}),
    ]
    assert [response.status_code for response in responses] == [422, 422]
    assert http.put(f"/api/v1/rules/{rule_id}/period", json={"starts_at": None}).status_code == 422


def test_the_conditions_of_a_rule_are_replaced(http: httpx.Client) -> None:
    """A conflict with another rule is refused, and the present conditions do not result in a change."""
    rule_id, other = add(http, 1, "jim"), add(http, 2, "ann")
    path = f"/api/v1/rules/{rule_id}/conditions"
    etag = http.get(f"/api/v1/rules/{rule_id}").headers["etag"]
    before = len(log(http))
    assert http.put(path, json={"feature_values": {"user": "jim"}}).status_code == 204
    assert len(log(http)) == before
    conflict = http.put(path, json={"feature_values": {"user": "ann"}})
    assert (conflict.status_code, conflict.text) == (409, f"rule {other} has these conditions already")
    assert http.put(path, json={"feature_values": {"theme": "dark"}}).status_code == 400
    assert http.put(path, json={"feature_values": {}}).status_code == 422
    assert http.put("/api/v1/rules/99/conditions", json={"feature_values": {"user": "eve"}}).status_code == 404
    new = {"feature_values": {"user": "jim", "environment": "prod"}}
    assert http.put(path, json=new, headers={"If-Match": etag}).status_code == 204
    assert http.put(path, json=new, headers={"If-Match": etag}).status_code == 412
    found = http.get(f"/api/v1/rules/{rule_id}").json()["feature_values"]
    assert found == [["environment", "prod"], ["user", "jim"]]
    assert log(http)[-1]["former"]["feature_values"] == {"user": "jim"}


def test_rules_are_listed_with_their_periods_and_authors(http: httpx.Client, clock: Clock) -> None:
    """Rules that are not in effect are included."""
    add(http, 1, "jim")
    clock.move_to(1)
    body = {
        "setting": "s",
        "feature_values": {"user": "jim", "environment": "prod"},
        "value": 2,
        "metadata": {"comment": "a test"},
        "ends_at": clock.at(0),
    }
    http.post("/api/v1/rules", json=body).raise_for_status()
    response = http.get("/api/v1/settings/s/rules")
    weaker = {
        "rule_id": 1,
        "feature_values": [["user", "jim"]],
        "value": 1,
        "metadata": {},
        "in_effect": True,
        "changed_at": clock.at(0),
        "changed_by": None,
    }
    stronger = {
        "rule_id": 2,
        "feature_values": [["environment", "prod"], ["user", "jim"]],
        "value": 2,
        "metadata": {"comment": "a test"},
        "ends_at": clock.at(0),
        "in_effect": False,
        "changed_at": clock.at(1),
        "changed_by": None,
    }
    assert response.json() == {"rules": [stronger, weaker], "total": 2}
    assert "heksher-revision" in response.headers
    assert http.get("/api/v1/settings/none/rules").status_code == 404
    everything = http.get("/api/v1/rules").json()
    assert everything == {"rules": [{"setting": "s", **weaker}, {"setting": "s", **stronger}], "total": 2}
    temporary = http.get("/api/v1/rules", params={"only_temporary": True}).json()
    assert temporary == {"rules": [{"setting": "s", **stronger}], "total": 1}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [4, 3, 1, 2]),
        ({"sort": "-priority"}, [2, 1, 3, 4]),
        ({"sort": "rule"}, [1, 2, 3, 4]),
        ({"sort": "-rule"}, [4, 3, 2, 1]),
        ({"sort": "value"}, [4, 3, 1, 2]),
        ({"sort": "-value"}, [2, 1, 3, 4]),
        ({"sort": "changed"}, [1, 4, 3, 2]),
        ({"sort": "-changed"}, [2, 3, 4, 1]),
        ({"conditions": "user:jim"}, [4, 1]),
        ({"conditions": "environment:prod,user:jim"}, [4]),
        ({"conditions": "user:J~2CD"}, [3]),
        ({"text": "JI"}, [4, 1]),
        ({"text": "user=jim"}, [4, 1]),
        ({"text": "environment=jim"}, []),
        ({"value": "30"}, [1, 2]),
        ({"author": "ops"}, []),
        ({"limit": 2, "offset": 1}, [3, 1]),
        ({"text": "\0"}, []),
    ],
)
def test_rules_are_filtered_sorted_and_paged(
    http: httpx.Client, clock: Clock, parameters: dict[str, Any], expected: list[int]
) -> None:
    rules = [(300, {"user": "jim"}), (301, {"environment": "prod"}), (2, {"user": "J,D"}),
             (1, {"user": "jim", "environment": "prod"})]  # fmt: skip
    for minute, (value, conditions) in enumerate(rules):
        clock.move_to(minute)
        body = {"setting": "s", "feature_values": conditions, "value": value}
        http.post("/api/v1/rules", json=body).raise_for_status()
    clock.move_to(10)
    http.put("/api/v1/rules/1/value", json={"value": 300}).raise_for_status()
    response = http.get("/api/v1/settings/s/rules", params=parameters).json()
    assert [rule["rule_id"] for rule in response["rules"]] == expected
    assert response["total"] == (4 if "limit" in parameters else len(expected))


@sqlite_only
@pytest.mark.parametrize(
    "query", ["sort=name", "conditions=user", "conditions=user:a,user:b", "limit=0", "limit=1001", "offset=-1"]
)
def test_invalid_parameters_of_lists_are_refused(http: httpx.Client, query: str) -> None:
    assert http.get(f"/api/v1/settings/s/rules?{query}").status_code == 422


def test_a_rule_without_an_author_in_the_log_is_sorted_last(service: WatchedService, http: httpx.Client) -> None:
    """As those of databases of older versions."""
    first, second = add(http, 1, "a"), add(http, 2, "b")
    assert service.database is not None
    with service.database.begin() as connection:
        connection.execute(update(RULES).where(RULES.c.id == second).values(changed_at=None))
    for sort, expected in (("changed", [first, second]), ("-changed", [second, first])):
        rules = http.get("/api/v1/settings/s/rules", params={"sort": sort}).json()["rules"]
        assert [rule["rule_id"] for rule in rules] == expected
    assert rules[0]["changed_at"] is None


def test_the_author_of_a_change_is_the_name_of_the_token(service: WatchedService, clock: Clock) -> None:
    """A transition does not change it."""
    assert service.database is not None
    with service.database.begin(actor="ops") as connection:
        setting = store.setting(connection, "s")
        assert setting is not None
        period = Period(ends_at=datetime.fromisoformat(clock.at(10)))
        store.add_rule(connection, setting, {"user": "jim"}, 8, {}, period=period)
    clock.move_to(20)
    rules = http_request("GET", f"{service.url}/api/v1/settings/s/rules?author=ops").json()["rules"]
    found = [(rule["changed_by"], rule["changed_at"], rule["in_effect"]) for rule in rules]
    assert found == [("ops", clock.at(0), False)]
    with service.database.begin(writes=False) as connection:
        query = select(CHANGES.c.actor).order_by(CHANGES.c.revision.desc()).limit(2)
        assert list(connection.scalars(query)) == [None, "ops"]
        assert connection.scalar(select(STATE.c.next_transition)) is None
