"""A service in memory, for clients that are driven by hand."""

import pytest

from tests.support.fake_service import FakeService


@pytest.fixture
def service() -> FakeService:
    """An empty service with the features environment, user and theme."""
    return FakeService()
