"""A server that injects faults."""

from collections.abc import Iterator

import pytest

from tests.support.fake_service import FakeService
from tests.support.faults import FaultServer


@pytest.fixture
def proxy(service: FakeService) -> Iterator[FaultServer]:
    """A server between the clients and the service in memory of the file."""
    with FaultServer(service) as server:
        yield server
