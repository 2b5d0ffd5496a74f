"""The service with each supported database."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from heksher_client.service import LocalService
from heksher_client.service import clock as service_clock
from heksher_client.service.tokens import Role, add_token
from tests.support.console import Browser
from tests.support.console_editor import Editor
from tests.support.http import http_client
from tests.support.postgresql import PostgreSQL
from tests.support.service import WatchedService

_ALWAYS_WITH_POSTGRESQL = {
    "test_database", "test_event_stream", "test_history", "test_import_export", "test_instances", "test_recorded",
}  # fmt: skip


class Clock:
    """The clock of the service, which a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def at(self, minutes: float) -> str:
        """Return the time that is some minutes after the beginning of the test."""
        return (datetime(2030, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes)).isoformat()

    def move_to(self, minutes: float) -> None:
        """Set the clock to some minutes after the beginning of the test."""
        self.now = datetime.fromisoformat(self.at(minutes))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with PostgreSQL as slow, except those of what databases do differently."""
    for item in items:
        is_here = item.path.parent == Path(__file__).parent and item.get_closest_marker("generated") is None
        if is_here and "postgresql" in item.name and item.path.stem not in _ALWAYS_WITH_POSTGRESQL:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all services of the test, which stands at noon until the test moves it."""
    moved = Clock()
    monkeypatch.setattr(service_clock, "now", lambda: moved.now)
    return moved


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    tmp_path_factory.getbasetemp().chmod(0o711)  # If root runs the tests, PostgreSQL runs as another user.
    with PostgreSQL(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a function that returns the URL of a database without data, and deletes the former one."""
    if request.param == "sqlite":
        return lambda: "sqlite://"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database


@pytest.fixture
def service(_session_service: WatchedService, new_database: Callable[[], str]) -> WatchedService:
    """The shared service, with each database."""
    _session_service.reset(new_database())
    return _session_service


@pytest.fixture
def http(service: WatchedService) -> Iterator[httpx.Client]:
    """A client of the service."""
    with http_client(service.url) as client:
        yield client


@pytest.fixture(params=["sqlite", "postgresql"])
def instances(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Clients of two instances with one database, which contains the setting `s` and its rule 1."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/service.db"
    else:
        url = request.getfixturevalue("postgresql").new_database()
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


@pytest.fixture
def browser(service: WatchedService) -> Iterator[Browser]:
    """A browser, and the setting `s` with three rules."""
    service.declare("s", "int", 7, ["environment", "user"], metadata={"owner": "shop"})
    service.add_rule("s", 1, environment="prod")
    service.add_rule("s", 2, user="jim")
    service.add_rule("s", 3, environment="prod", user="jim")
    client = Browser(service.url)
    yield client
    client.http.close()


@pytest.fixture
def protected(service: WatchedService, new_database: Callable[[], str]) -> Iterator[tuple[Browser, dict[str, str]]]:
    """A service that requires tokens, with the setting `s` and a rule, and one token of each role."""
    service.reset(new_database(), access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        texts = {role.value: add_token(connection, role.value, role) for role in Role}
    client = Browser(service.url)
    http = {"Authorization": f"Bearer {texts['admin']}"}
    for path, body in (
        (
            "/api/v1/settings/declare",
            {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]},
        ),
        ("/api/v1/rules", {"setting": "s", "feature_values": {"user": "jim"}, "value": 8}),
    ):
        client.http.post(path, json=body, headers=http).raise_for_status()
    yield client, texts
    client.http.close()


@pytest.fixture
def editor(browser: Browser) -> Iterator[Editor]:
    """An operator, and the setting `s` with three rules."""
    client = Editor(str(browser.http.base_url))
    yield client
    client.http.close()


@pytest.fixture
def other(editor: Editor) -> Iterator[Editor]:
    """Another operator."""
    client = Editor(str(editor.http.base_url))
    yield client
    client.http.close()
