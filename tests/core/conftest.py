"""Isolation of log records."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _without_records_of_services() -> Iterator[None]:
    """Hide the records of a service that still handles a request of an earlier test. Tests of the core have none."""
    logger = logging.getLogger("heksher_client.service")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logger, "propagate", False)
        yield
