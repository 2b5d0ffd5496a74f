"""A service for the examples of web frameworks and task queues, and the environment of their processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import environment
from tests.support.service import WatchedService


@pytest.fixture
def shop() -> Iterator[WatchedService]:
    """A service with a rule that gives jim a cache of 200."""
    with WatchedService(("user",)) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["user"])
        service.add_rule("cache_size", 200, user="jim")
        yield service


@pytest.fixture
def example_shop() -> Iterator[WatchedService]:
    """A service with the context features of the examples, and a rule that gives jim a cache of 200."""
    with WatchedService(("environment", "user")) as service:
        service.offers_changes = True
        service.declare("cache_size", "int", 10, ["environment", "user"])
        service.add_rule("cache_size", 200, user="jim")
        yield service


@pytest.fixture
def example_environment(example_shop: WatchedService, tmp_path: Path) -> dict[str, str]:
    """Environment variables with the URL of the service, which is all that the examples need."""
    return environment(HEKSHER_URL=example_shop.url, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")


@pytest.fixture
def service_environment(shop: WatchedService, tmp_path: Path) -> dict[str, str]:
    """Environment variables with the URL of the service."""
    variables = {"HEKSHER_URL": shop.url, "HEKSHER_CONTEXT_FEATURES": "user"}
    return environment(**variables, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
