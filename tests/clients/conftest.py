"""A service in memory, for tests that need HTTP but no sockets."""

import pytest

from tests.support.fake_service import FakeService


@pytest.fixture
def fake_service() -> FakeService:
    """An empty service with the features environment, user and theme."""
    return FakeService()
