"""What all tests share."""

from collections.abc import Iterator

import pytest

from heksher_client._core.registry import registry
from tests.support.clients import AsyncKind, Kind, ThreadKind
from tests.support.service import WatchedService


@pytest.fixture(autouse=True)
def _a_registry_of_its_own() -> Iterator[None]:
    """Each test sees its own settings only, and leaves no main client behind."""
    others = registry._settings.copy()
    registry._settings.clear()
    yield
    left = registry._clients.copy()
    registry._clients.clear()
    registry._settings.clear()
    registry._settings.update(others)
    assert not left


@pytest.fixture(scope="session")
def _one_service() -> Iterator[WatchedService]:
    with WatchedService() as service:
        yield service


@pytest.fixture
def service(_one_service: WatchedService) -> WatchedService:
    """A service with the features environment, user and theme, and with nothing else. Not to be stopped."""
    _one_service.renew()
    return _one_service


@pytest.fixture(params=["async", "thread"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Each kind of client in turn."""
    if request.param == "thread":
        yield ThreadKind()
        return
    kind = AsyncKind()
    yield kind
    kind.stop()


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the async client does."""
    return "asyncio"
