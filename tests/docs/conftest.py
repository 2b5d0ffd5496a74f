"""The service that examples and guides assume."""

from collections.abc import Iterator

import pytest

from tests.support.service import WatchedService


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service with rules that give jim a cache of 200 in production, and all others one of 50."""
    with WatchedService(("environment", "user")) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["environment", "user"])
        service.add_rule("cache_size", 200, user="jim", environment="prod")
        service.add_rule("cache_size", 50, environment="prod")
        yield service
