"""Fixtures for all tests."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

from heksher_client import Setting
from heksher_client._core.refresh.positions import newest_by_service
from heksher_client._core.settings.registry import registry
from tests.support.clients import AsyncKind, ClientClock, Gate, Kind, ThreadKind
from tests.support.service import WatchedService

# Without cached bytecode, each of the hundreds of processes of the tests would compile all modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

with suppress(ImportError):  # It is not installed where only the documentation or the distribution is tested.
    import hypothesis

    # By default a test fails if an example takes more than 0.2 seconds, or if examples are drawn slowly.
    hypothesis.settings.register_profile(
        "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("any-machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of packages that are not installed."""
    for mark in item.iter_markers("frameworks"):
        if not all(find_spec(package) for package in mark.args):
            pytest.skip("pip install --group frameworks")


@pytest.fixture(scope="session", autouse=True)
def _release_coverage_lock_in_forks() -> None:
    """Hold the lock of coverage during a fork: if another thread held it, the child would wait for it forever."""
    coverage = sys.modules.get("coverage")  # not installed if nothing is measured
    current = coverage and coverage.Coverage.current()
    if not current:
        return
    lock = threading.RLock()  # reentrant: code that runs during a fork may be measured
    current._collector.data_lock = lock
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@pytest.fixture(autouse=True)
def _unmeasured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure no coverage in the thread and the processes of a test with the mark `unmeasured`.

    Its new threads are measured: those of a service, say, may be used by other tests as well.
    """
    trace = sys.gettrace()
    if not trace or not request.node.get_closest_marker("unmeasured"):
        yield
        return
    sys.settrace(None)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield
    sys.settrace(trace)


@pytest.fixture(scope="session", autouse=True)
def _shared_tls_context() -> Iterator[None]:
    """Load the root certificates once instead of for each HTTP client, which takes longer than most tests."""
    transports: Any = vars(httpx)["_transports"].default
    create = transports.create_ssl_context

    @cache
    def shared(*_files: str | None) -> Any:
        return create()

    def create_unless_default(**arguments: Any) -> Any:
        is_default = {**arguments, "trust_env": True} == {"verify": True, "cert": None, "trust_env": True}
        if not is_default:
            return create(**arguments)
        variables = ("SSL_CERT_FILE", "SSL_CERT_DIR") if arguments["trust_env"] else ()
        return shared(*map(os.environ.get, variables))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transports, "create_ssl_context", create_unless_default)
        yield


@pytest.fixture(autouse=True)
def _isolated_registry() -> Iterator[None]:
    """Hide the settings of other tests from each test, and check that the test closes its clients."""
    newest_by_service.clear()
    others = registry._entries.copy()
    registry._entries.clear()
    yield
    running = registry._clients.copy()
    registry._clients.clear()
    registry._entries.clear()
    registry._entries.update(others)
    assert not running


@pytest.fixture(scope="session")
def _session_service() -> Iterator[WatchedService]:
    with WatchedService() as service:
        yield service


@pytest.fixture
def service(_session_service: WatchedService) -> WatchedService:
    """An empty service with the features environment, user and theme. Tests must not stop it."""
    _session_service.reset()
    return _session_service


@pytest.fixture
def setting() -> Setting[int]:
    """A setting with the default 7, and rules on the user."""
    return Setting("s", int, ["user"], 7)


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
def client_clock(monkeypatch: pytest.MonkeyPatch) -> ClientClock:
    """The clock of clients that are made later, so that their plans do not depend on the speed of the machine."""
    clock = ClientClock()
    monkeypatch.setattr("heksher_client._drivers.client._clock", clock)
    return clock


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Holds what the code under test must not wait for. It is open at the end of the test."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, like the async client."""
    return "asyncio"
