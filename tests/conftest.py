"""What all tests share."""

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from heksher_client._core.settings.registry import registry
from tests.support.clients import AsyncKind, Kind, ThreadKind
from tests.support.service import WatchedService


@pytest.fixture(scope="session", autouse=True)
def _forks_without_the_lock_of_coverage() -> None:
    """Where another thread held it at the fork, the child would wait for ever for its first line in another file."""
    coverage = sys.modules.get("coverage")  # where nothing is measured, it need not be installed
    measuring = coverage and coverage.Coverage.current()
    if not measuring:
        return
    lock = threading.RLock()  # so that what is called in a fork may be measured too
    measuring._collector.data_lock = lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@pytest.fixture(autouse=True)
def _a_registry_of_its_own() -> Iterator[None]:
    """Each test sees its own settings only, and leaves no main client behind."""
    others = registry._entries.copy()
    registry._entries.clear()
    yield
    left = registry._clients.copy()
    registry._clients.clear()
    registry._entries.clear()
    registry._entries.update(others)
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
