"""The event stream: server-sent events about the changes of a database."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import httpx
import pytest
from sqlalchemy import Connection, delete, update
from sqlalchemy.exc import OperationalError

from heksher_client.service import LocalService, create_app, event_stream, store
from heksher_client.service.event_stream import EventStream
from heksher_client.service.metrics import Metrics
from heksher_client.service.schema import CHANGES, STATE
from heksher_client.service.tokens import Role, add_token, find_token, revoke_token
from tests.support.clients import TIMEOUT_SECONDS, eventually
from tests.support.http import http_client, http_request
from tests.support.marks import sqlite_only
from tests.support.service import WatchedService

PATH = "/api/v1/changes"


@pytest.fixture
def service(service: WatchedService) -> WatchedService:
    service.offers_changes = True
    return service


class Stream:
    """A subscription that a thread reads."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._response = response
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the connection, as a program does when it ends."""
        with suppress(OSError):  # The service has closed it.
            self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def next(self) -> dict[str, Any]:
        """Return the next event."""
        event = self._events.get(timeout=TIMEOUT_SECONDS)
        assert event is not None, "the stream has ended"
        return event

    def has_ended(self) -> bool:
        """Return True if the service has ended the stream."""
        return self._events.get(timeout=TIMEOUT_SECONDS) is None

    def _read(self) -> None:
        event: dict[str, Any] = {}
        try:
            for line in self._response.iter_lines():
                name, _, value = line.partition(":")
                if not line and event:
                    self._events.put(event)
                    event = {}
                elif name:
                    event[name] = json.loads(value) if name in ("data", "id") else value.strip()
        except httpx.HTTPError:
            pass
        finally:
            self._events.put(None)


@contextmanager
def stream(url: str, after: int | None = None, token: str | None = None, label: str | None = None) -> Iterator[Stream]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if label is not None:
        headers["Heksher-Database"] = label
    if after is not None:
        headers["Last-Event-ID"] = str(after)
    with http_client() as http, http.stream("GET", url + PATH, headers=headers) as response:
        response.raise_for_status()
        with closing(Stream(response)) as opened:
            yield opened


def declare(service: WatchedService, name: str) -> None:
    service.declare(name, "int", 7, ["user"])


@contextmanager
def unnoticed_transaction(service: WatchedService) -> Iterator[Connection]:
    """Change the database as another program does."""
    assert service.database is not None
    with (
        service.database._connections.get().lock,
        service.database._connect(writes=True) as connection,
        connection.begin(),
    ):
        yield connection
    service.database.on_commit()  # In memory, an instance does not poll.


def label_and_revision(service: WatchedService) -> tuple[str, int]:
    headers = service.call("GET", "/api/v1/query").headers
    return headers["heksher-database"], int(headers["heksher-revision"])


def revision(service: WatchedService) -> int:
    return label_and_revision(service)[1]


def test_an_event_contains_the_revision_and_the_affected_settings(service: WatchedService) -> None:
    """Requests without effect result in no event."""
    declare(service, "s")
    label, before = label_and_revision(service)
    with stream(service.url) as changes:
        assert changes.headers["content-type"].startswith("text/event-stream")
        assert changes.next() == {"event": "hello", "data": {"database": label}, "id": before}
        service.add_rule("s", 8, user="jim")
        data = {"settings": ["s"], "all": False, "within": 0.0, "database": label}
        assert changes.next() == {"event": "change", "data": data, "id": before + 1}
        declare(service, "s")
        service.call("PUT", "/api/v1/settings/s/name", {"name": "t", "version": "1.1"})
        assert changes.next()["data"]["settings"] == ["s", "t"]
        service.call("PATCH", "/api/v1/context_features/user/index", {"to_before": "environment"})
        data = {"settings": [], "all": True, "within": 0.0, "database": label}
        assert changes.next() == {"event": "change", "data": data, "id": before + 3}
        service.add_rule("t", 9, user="ann")
        assert changes.next()["id"] == before + 4


def test_a_query_response_contains_the_revision_to_follow(service: WatchedService) -> None:
    """With the status 200 as well as 304."""
    declare(service, "s")
    first = http_request("GET", f"{service.url}/api/v1/query")
    again = http_request("GET", f"{service.url}/api/v1/query", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    assert first.headers["heksher-revision"] == again.headers["heksher-revision"]
    with stream(service.url, int(first.headers["heksher-revision"])) as changes:
        service.add_rule("s", 8, user="jim")
        assert changes.next()["id"] == int(first.headers["heksher-revision"]) + 1


def test_a_stream_resumes_after_the_last_received_revision(service: WatchedService) -> None:
    """From memory or from the change log."""
    declare(service, "s")
    before = revision(service)
    for value in range(3):
        service.add_rule("s", value, user=f"u{value}")
    with stream(service.url, before) as changes:  # from the change log
        assert [changes.next()["id"] for _ in range(3)] == [before + 1, before + 2, before + 3]
        for value in range(3, 6):
            service.add_rule("s", value, user=f"u{value}")
        assert [changes.next()["id"] for _ in range(3)] == [before + 4, before + 5, before + 6]
    with stream(service.url, before + 4) as changes:  # from memory
        assert [changes.next()["id"] for _ in range(2)] == [before + 5, before + 6]
        service.add_rule("s", 6, user="u6")
        assert changes.next()["id"] == before + 7


def test_a_revision_of_another_database_results_in_a_reset(service: WatchedService) -> None:
    """For example of a database that was restored from a backup."""
    declare(service, "s")
    label, revision = label_and_revision(service)
    with stream(service.url, revision + 10) as changes:
        assert changes.next() == {"event": "reset", "data": {"database": label}, "id": revision}


def test_a_database_that_is_restored_from_a_backup_results_in_a_reset(service: WatchedService) -> None:
    """Open streams continue with the changes after the restored revision."""
    declare(service, "s")
    with stream(service.url) as changes:
        hello = changes.next()
        revision = hello["id"]
        with unnoticed_transaction(service) as connection:
            connection.execute(delete(CHANGES).where(CHANGES.c.revision == revision))
            connection.execute(update(STATE).values(revision=revision - 1))
        reset = changes.next()
        assert (reset["event"], reset["id"]) == ("reset", revision - 1)
        assert reset["data"]["database"] > hello["data"]["database"]
        service.add_rule("s", 8, user="jim")
        event = changes.next()
        assert (event["id"], event["data"]["database"]) == (revision, reset["data"]["database"])


@sqlite_only
def test_an_invalid_revision_is_refused(service: WatchedService) -> None:
    for header in ("x", "-1", str(2**40)):
        assert http_request("GET", service.url + PATH, headers={"Last-Event-ID": header}).status_code == 422


def test_simultaneous_changes_all_arrive(service: WatchedService) -> None:
    """In their order."""
    declare(service, "s")
    before = revision(service)
    with stream(service.url) as changes:
        changes.next()
        threads = [
            threading.Thread(target=service.add_rule, args=["s", i], kwargs={"user": f"u{i}"}) for i in range(30)
        ]
        for thread in threads:
            thread.start()
        assert [changes.next()["id"] for _ in threads] == [before + 1 + i for i in range(30)]
        for thread in threads:
            thread.join()


@sqlite_only
def test_an_idle_stream_sends_comments(monkeypatch: pytest.MonkeyPatch, service: WatchedService) -> None:
    """Proxies keep it open, and readers notice if it is lost."""
    monkeypatch.setattr(event_stream, "_HEARTBEAT", 0.01)
    with (
        http_client() as http,
        http.stream("GET", service.url + PATH) as response,
    ):
        lines = response.iter_lines()
        assert [line for _, line in zip(range(20), lines, strict=False)].count(": ping") >= 5


def test_changes_by_other_instances_arrive(instances: list[httpx.Client]) -> None:
    """Through either database."""
    url = str(instances[1].base_url).removesuffix("/api/v1/")
    with stream(url) as changes:
        first = changes.next()["id"]
        instances[0].put("/rules/1/value", json={"value": 9}).raise_for_status()
        assert changes.next()["id"] == first + 1


@sqlite_only
def test_events_contain_the_time_over_which_to_spread_queries(
    monkeypatch: pytest.MonkeyPatch, service: WatchedService
) -> None:
    """So that a fleet does not query the service at the same time."""
    monkeypatch.setattr(event_stream, "_MAX_SIMULTANEOUS_QUERIES", 1)
    declare(service, "s")
    with stream(service.url) as one, stream(service.url) as other:
        one.next(), other.next()
        service.add_rule("s", 8, user="jim")
        assert one.next()["data"]["within"] == other.next()["data"]["within"] == 2 / 500


@pytest.fixture
def protected(service: WatchedService, new_database: Callable[[], str]) -> WatchedService:
    service.reset(new_database(), access_control=True)
    return service


def test_a_stream_ends_when_its_token_is_revoked(protected: WatchedService) -> None:
    """Streams with other tokens continue."""
    assert protected.database is not None
    with protected.database.begin() as connection:
        texts = [add_token(connection, name, Role.READ) for name in ("a", "b")]
    with stream(protected.url, token=texts[0]) as a, stream(protected.url, token=texts[1]) as b:
        a.next(), b.next()
        with protected.database.begin() as connection:
            revoke_token(connection, "a")
        assert a.has_ended()
        first = b.next()["id"]
        with protected.database.begin() as connection:
            add_token(connection, "c", Role.READ)
        assert b.next()["id"] == first + 1


def test_a_stream_that_begins_after_the_revocation_of_its_token_ends(
    protected: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The access control reuses the result of a lookup for a second. Other streams begin and go on."""
    monkeypatch.setattr("heksher_client.service.access._CACHE_SECONDS", 3600)
    assert protected.database is not None
    with protected.database.begin() as connection:
        texts = [add_token(connection, name, Role.READ) for name in ("a", "b")]
    with stream(protected.url, token=texts[0]) as first, stream(protected.url, token=texts[1]) as other:
        before = first.next()["id"]
        other.next()
        with protected.database.begin() as connection:
            revoke_token(connection, "a")
        assert first.has_ended()
        assert other.next()["id"] == before + 1
        with stream(protected.url, token=texts[0]) as late:
            assert late.next()["event"] == "hello"
            assert late.has_ended()
        with stream(protected.url, before + 1, token=texts[0]) as late:
            assert late.has_ended()


def test_a_stream_ends_if_its_token_cannot_be_checked() -> None:
    """The client opens it again."""

    async def follow() -> None:
        database = create_app("sqlite://").state.database
        with database.begin() as connection:
            token = find_token(connection, add_token(connection, "a", Role.READ))
        subscribers = EventStream(database, Metrics())
        events = subscribers.subscribe(None, None, None)
        while b"hello" not in await anext(events):
            pass
        database.close()
        assert [event.partition(b"\n")[0] async for event in subscribers.subscribe(None, None, token)][1:] == [
            b"event: hello"
        ]

    asyncio.run(follow())


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_stream_ends_with_its_token_that_was_added_on_a_machine_with_another_time(
    protected: WatchedService, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Clocks are not compared. The revocation of a former token with the same name does not end the stream."""

    class OtherClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=hours)

    assert protected.database is not None
    with protected.database.begin() as connection:
        add_token(connection, "a", Role.READ)
        revoke_token(connection, "a")
        with monkeypatch.context() as patch:
            patch.setattr("heksher_client.service.tokens.datetime", OtherClock)
            text = add_token(connection, "a", Role.READ)
    with stream(protected.url, 0, token=text) as changes:
        assert [changes.next()["id"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        with protected.database.begin() as connection:
            revoke_token(connection, "a")
        assert changes.has_ended()


def test_the_revocation_of_a_former_token_with_the_same_name_does_not_end_a_stream(protected: WatchedService) -> None:
    assert protected.database is not None
    with protected.database.begin() as connection:
        add_token(connection, "a", Role.READ)
        revoke_token(connection, "a")
    with protected.database.begin() as connection:
        text = add_token(connection, "a", Role.READ)
    with stream(protected.url, 0, token=text) as changes:
        assert [changes.next()["id"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        with protected.database.begin() as connection:
            add_token(connection, "b", Role.READ)
        assert changes.next()["id"] == 7


def test_a_subscriber_that_is_far_behind_receives_all_changes(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the change log is read in parts."""
    monkeypatch.setattr(event_stream, "_MAX_RECENT", 3)
    declare(service, "s")
    for value in range(10):
        service.add_rule("s", value, user=f"u{value}")
    with stream(service.url, 0) as changes:
        assert [changes.next()["id"] for _ in range(14)] == list(range(1, 15))


def test_many_changes_of_one_transaction_are_read_in_parts(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them arrive."""
    monkeypatch.setattr(event_stream, "_MAX_RECENT", 3)
    declare(service, "s")
    assert service.database is not None
    with stream(service.url) as changes:
        first = changes.next()["id"]
        with service.database.begin() as connection:
            setting = store.setting(connection, "s")
            assert setting is not None
            for value in range(10):
                store.add_rule(connection, setting, {"user": f"u{value}"}, value, {})
        assert [changes.next()["id"] for _ in range(10)] == [first + 1 + i for i in range(10)]


def test_a_subscriber_receives_past_changes_once_the_database_is_available(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(service, "s")
    monkeypatch.setattr(event_stream, "_RETRY_DELAY", 0.02)
    with stream(service.url) as first:
        first.next()
        failures: list[int] = []
        real = EventStream._read_events

        def read(self: EventStream, after: int) -> Any:
            if len(failures) < 2:
                failures.append(after)
                raise OperationalError("SELECT", {}, Exception("gone"))
            return real(self, after)

        monkeypatch.setattr(EventStream, "_read_events", read)
        with stream(service.url, 0) as changes:
            assert [changes.next()["id"] for _ in range(4)] == [1, 2, 3, 4]
        assert len(failures) == 2


@sqlite_only
def test_an_unexpected_error_only_delays_events(service: WatchedService, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example if no thread can be started."""
    declare(service, "s")
    attempts: list[str] = []
    with stream(service.url) as changes:
        first = changes.next()["id"]
        with monkeypatch.context() as broken:

            def read_new(_: Any) -> Any:
                attempts.append("read")
                raise RuntimeError("can't start new thread")

            broken.setattr(EventStream, "_read_new", read_new)
            service.add_rule("s", 8, user="jim")
            assert eventually(lambda: bool(attempts))
        assert changes.next()["id"] == first + 1


def test_a_service_that_stops_ends_its_streams(tmp_path: Path) -> None:
    """Without waiting for them."""
    service = LocalService(["user"], database=tmp_path / "s.db")
    service.start()
    with stream(service.url) as changes:
        changes.next()
        service.stop()
        assert changes.has_ended()


@sqlite_only
def test_streams_survive_an_unavailable_database(
    service: WatchedService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes arrive later. The error is logged once."""
    declare(service, "s")
    monkeypatch.setattr(event_stream, "_RETRY_DELAY", 0.02)
    assert service.database is not None
    database = service.database
    attempts: list[str] = []
    with stream(service.url) as changes:
        first = changes.next()["id"]
        with monkeypatch.context() as broken:
            real = type(database)._connect

            def connect(self: Any, **options: Any) -> Any:
                if not options["writes"]:
                    attempts.append("read")
                    raise OperationalError("SELECT", {}, Exception("gone"))
                return real(self, **options)

            broken.setattr(type(database), "_connect", connect)
            service.add_rule("s", 8, user="jim")
            assert eventually(lambda: len(attempts) > 3)
        assert changes.next()["id"] == first + 1
    assert caplog.text.count("event streams are delayed") == 1


@sqlite_only
def test_the_metrics_count_streams(service: WatchedService) -> None:
    def streams() -> str:
        lines = http_request("GET", f"{service.url}/metrics").text.splitlines()
        return next(line for line in lines if line.startswith("heksher_streams"))

    with stream(service.url) as changes:
        changes.next()
        assert streams() == "heksher_streams 1.0"
    assert eventually(lambda: streams() == "heksher_streams 0.0")


def test_past_events_are_sent_at_once(tmp_path: Path) -> None:
    """Asyncio logs a warning for each further one if the connection was just lost."""
    database = create_app(f"sqlite:///{tmp_path}/service.db", ["a"]).state.database
    for number in range(20):
        with database.begin() as connection:
            store.add_context_feature(connection, f"f{number}")

    async def read_first_events() -> bytes:
        events = aiter(EventStream(database, Metrics()).subscribe(0, None, None))
        chunk = b""
        while b"id: 20" not in chunk:
            chunk = await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return chunk

    assert asyncio.run(read_first_events()).count(b"event: change") >= 20
    database.close()
