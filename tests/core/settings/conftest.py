"""Fixtures for the tests of settings."""

import pytest

from heksher_client._core.settings import entry


@pytest.fixture(autouse=True)
def _compiled_by_the_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the getter of a setting as soon as possible, so that all tests are tests of compiled getters."""
    monkeypatch.setattr(entry, "READS_BEFORE_COMPILATION", 0)
