"""Fixtures for the tests of settings."""

import pytest

from heksher_client._core.settings import entry
from heksher_client._core.settings.getter import getter_factory


@pytest.fixture(autouse=True)
def _compiled_by_the_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the getter of a setting as soon as possible, so that all tests are tests of compiled getters.

    No test uses code that was generated for another one.
    """
    getter_factory.cache_clear()
    monkeypatch.setattr(entry, "READS_BEFORE_COMPILATION", 0)
