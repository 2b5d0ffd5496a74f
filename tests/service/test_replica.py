"""An instance with a read-only replica of the database: a hot standby of PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from heksher_client import Setting, State
from heksher_client.service import LocalService, database
from heksher_client.service.import_export import export
from tests.service.conftest import Clock
from tests.service.test_event_stream import stream
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.http import http_client, http_request
from tests.support.nginx import NGINX, Nginx
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.unmeasured
RULE = {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}


@pytest.fixture(scope="module")
def replica(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    folder: Path = tmp_path_factory.mktemp("replica")
    with PostgreSQL(folder, replica_of=postgresql) as server:
        yield server


@pytest.fixture
def pair(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """An instance with the primary database, which contains the setting `s`, and one with the replica."""
    with LocalService(FEATURES, database=postgresql.new_database()) as primary:
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": FEATURES}
        http_request("POST", f"{primary.url}/api/v1/settings/declare", json=declaration).raise_for_status()
        server: PostgreSQL = request.getfixturevalue("replica")
        server.catch_up()
        with (
            LocalService(FEATURES, database=server.url) as reading,
            http_client(primary.url) as first,
            http_client(reading.url) as second,
        ):
            yield first, second


def test_a_replica_answers_queries_with_its_revision(pair: tuple[httpx.Client, httpx.Client]) -> None:
    """And with the ETags of the primary, once it is up to date."""
    primary, replica = pair
    primary.post("/api/v1/rules", json=RULE).raise_for_status()
    known = primary.get("/api/v1/query")
    assert eventually(
        lambda: replica.get("/api/v1/query").headers["heksher-revision"] == known.headers["heksher-revision"]
    )
    response = replica.get("/api/v1/query")
    assert (response.json(), response.headers["etag"]) == (known.json(), known.headers["etag"])
    assert replica.get("/api/ready").status_code == 200


def test_l8_a_replica_can_be_exported(pair: tuple[httpx.Client, httpx.Client], replica: PostgreSQL) -> None:
    with database.connect_to_read(replica.url) as connection:
        assert [setting["name"] for setting in export(connection)["settings"]] == ["s"]


def test_a_replica_refuses_changes_with_a_message(pair: tuple[httpx.Client, httpx.Client]) -> None:
    response = pair[1].post("/api/v1/rules", json=RULE)
    assert (response.status_code, "a read-only replica" in response.text) == (503, True), response.text
    assert pair[0].get("/api/v1/query").json()["settings"]["s"]["rules"] == []


def test_a_replica_gets_transitions_of_temporary_rules_from_its_primary(
    pair: tuple[httpx.Client, httpx.Client], clock: Clock
) -> None:
    """Until then it answers with what it has, without an error."""
    primary, replica = pair
    primary.post("/api/v1/rules", json={**RULE, "starts_at": clock.at(10)}).raise_for_status()
    revision = primary.get("/api/v1/query").headers["heksher-revision"]
    assert eventually(lambda: replica.get("/api/v1/query").headers["heksher-revision"] == revision)
    clock.move_to(10)
    assert [replica.get("/api/v1/query").json()["settings"]["s"]["rules"] for _ in range(2)] == [[], []]
    rules = primary.get("/api/v1/query").json()["settings"]["s"]["rules"]
    assert len(rules) == 1
    assert eventually(lambda: replica.get("/api/v1/query").json()["settings"]["s"]["rules"] == rules)


def test_a_replica_has_event_streams(pair: tuple[httpx.Client, httpx.Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL does not send notifications there, so the instance polls."""
    monkeypatch.setattr(database, "_POLL_INTERVAL_POSTGRESQL", 0.05)
    with stream(str(pair[1].base_url).rstrip("/")) as changes:
        first = changes.next()["id"]
        pair[0].post("/api/v1/rules", json=RULE).raise_for_status()
        assert changes.next()["id"] == first + 1


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_d9_a_replica_of_postgresql_lags(
    kind: Kind, postgresql: PostgreSQL, replica: PostgreSQL, tmp_path: Path
) -> None:
    """No value goes back, the state stays fresh, and the instance with the replica does not write."""
    setting = Setting("s", int, ["user"], 7)
    with ExitStack() as stack:
        primary = stack.enter_context(LocalService(FEATURES, database=postgresql.new_database(), access_control=False))
        http = stack.enter_context(http_client(primary.url))
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
        http.post("/api/v1/settings/declare", json=declaration).raise_for_status()
        replica.catch_up()
        reading = stack.enter_context(LocalService(FEATURES, database=replica.url, access_control=False))
        states = [http_request("GET", f"{one.url}/api/v1/query").headers for one in (primary, reading)]
        assert states[0]["heksher-database"] == states[1]["heksher-database"]
        nginx = stack.enter_context(Nginx(tmp_path, primary.url, reading.url))
        client = stack.enter_context(running(kind, nginx.url, 0.02, max_backoff=0.1))
        assert eventually(lambda: client.client.status().state is State.FRESH)
        replica.pause()
        stack.callback(replica.resume)
        for value in range(10):
            http.post("/api/v1/rules", json={**RULE, "feature_values": {"user": f"u{value}"}, "value": value})
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == value)  # type: ignore[misc]
            client.clear_outcomes()
            assert client.next_outcome() is None
            assert [setting.get(user=f"u{number}") for number in range(value)] == list(range(value))
        lagging = http_request("GET", f"{reading.url}/api/v1/query").headers
        assert lagging["heksher-revision"] == states[1]["heksher-revision"]
