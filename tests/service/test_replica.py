"""An instance on a copy of the database that PostgreSQL keeps up to date, and that cannot be written to."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heksher_client.service import LocalService, database
from tests.service.test_feed import stream
from tests.support.clients import FEATURES, eventually
from tests.support.http import http_client, http_request
from tests.support.postgresql import PostgreSQL

RULE = {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}


@pytest.fixture
def copy(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    folder: Path = tmp_path_factory.mktemp("copy")
    with PostgreSQL(folder, replica_of=postgresql) as server:
        yield server


@pytest.fixture
def pair(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """An instance on the original, with the setting `s`, and one on the copy."""
    with LocalService(FEATURES, database=postgresql.empty()) as original:
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": FEATURES}
        http_request("POST", f"{original.url}/api/v1/settings/declare", json=declaration).raise_for_status()
        server: PostgreSQL = request.getfixturevalue("copy")
        with (
            LocalService(FEATURES, database=server.url) as reading,
            http_client(original.url) as first,
            http_client(reading.url) as second,
        ):
            yield first, second


def test_it_answers_queries_and_says_how_late_it_is(pair: tuple[httpx.Client, httpx.Client]) -> None:
    """With the same ETags as the original, once it has caught up."""
    original, copy = pair
    original.post("/api/v1/rules", json=RULE).raise_for_status()
    known = original.get("/api/v1/query")
    assert eventually(
        lambda: copy.get("/api/v1/query").headers["heksher-revision"] == known.headers["heksher-revision"]
    )
    answer = copy.get("/api/v1/query")
    assert (answer.json(), answer.headers["etag"]) == (known.json(), known.headers["etag"])
    assert copy.get("/api/ready").status_code == 200


def test_it_refuses_changes_in_words(pair: tuple[httpx.Client, httpx.Client]) -> None:
    """They have to be sent to an instance on the original."""
    answer = pair[1].post("/api/v1/rules", json=RULE)
    assert (answer.status_code, "a copy of the database" in answer.text) == (503, True), answer.text
    assert pair[0].get("/api/v1/query").json()["settings"]["s"]["rules"] == []


def test_its_streams_have_the_changes_too(
    pair: tuple[httpx.Client, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is told nothing, so it looks now and then."""
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    with stream(str(pair[1].base_url).rstrip("/")) as changes:
        first = changes.next()["id"]
        pair[0].post("/api/v1/rules", json=RULE).raise_for_status()
        assert changes.next()["id"] == first + 1
