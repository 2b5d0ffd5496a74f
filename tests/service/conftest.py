"""The service on each database that it works with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from heksher_client.service import LocalService
from tests.support.http import http_client
from tests.support.postgresql import PostgreSQL
from tests.support.service import WatchedService


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    tmp_path_factory.getbasetemp().chmod(0o711)  # Where the tests are root's, PostgreSQL is somebody else's.
    with PostgreSQL(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of a database with nothing in it; the former one is gone."""
    if request.param == "sqlite":
        return lambda: "sqlite://"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.empty


@pytest.fixture
def service(_one_service: WatchedService, new_database: Callable[[], str]) -> WatchedService:
    """As for all tests, on each database."""
    _one_service.renew(new_database())
    return _one_service


@pytest.fixture(params=["sqlite", "postgresql"])
def instances(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Two instances on one database, with the setting `s` and the rule 1 on it."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/service.db"
    else:
        url = request.getfixturevalue("postgresql").empty()
    features = ["environment", "user"]
    with LocalService(features, database=url) as one, LocalService(database=url) as other:
        clients = [http_client(f"{service.url}/api/v1") for service in (one, other)]
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": features}
        clients[0].post("/settings/declare", json=declaration).raise_for_status()
        conditions = {"environment": "prod", "user": "jim"}
        rule = {"setting": "s", "feature_values": conditions, "value": 8}
        clients[0].post("/rules", json=rule).raise_for_status()
        yield clients
        for client in clients:
            client.close()
