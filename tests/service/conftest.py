"""The service on each database that it works with."""

from collections.abc import Callable, Iterator

import pytest

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
