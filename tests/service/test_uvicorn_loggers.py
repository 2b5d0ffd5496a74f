"""The loggers of uvicorn, which belong to the program in which a service runs."""

import logging
from collections.abc import Iterator

import pytest

from heksher_client.service import LocalService
from tests.support.http import http_request

NAMES = ("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")


class _Recording(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def handler() -> Iterator[_Recording]:
    """A handler that the program has added to each of uvicorn's loggers, which all have the level INFO."""
    handler, former = _Recording(), {}
    for name in NAMES:
        logger = logging.getLogger(name)
        former[logger] = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler
    for logger, level in former.items():
        logger.removeHandler(handler)
        logger.setLevel(level)


def states() -> dict[str, object]:
    loggers = map(logging.getLogger, NAMES)
    return {log.name: (list(log.handlers), log.filters, log.level, log.propagate, log.disabled) for log in loggers}


def test_l11_loggers_are_as_the_program_has_set_them_up(handler: _Recording) -> None:
    """While services run, after some of them have stopped, and after all have."""
    before = states()
    with LocalService(["user"]) as first:
        with LocalService(["user"]) as second:
            for service in (first, second):
                assert http_request("GET", f"{service.url}/api/health").status_code == 200
            assert states() == before
        assert states() == before
        second.start()
        second.stop()
    assert states() == before
    logging.getLogger("uvicorn.access").info("a request to the server of the program")
    assert "a request to the server of the program" in handler.messages


def test_l11_requests_to_the_service_are_not_in_the_access_log_of_the_program(handler: _Recording) -> None:
    """They are in the service's own, `heksher_client.service.access`."""
    with LocalService(["user"]) as service:
        http_request("GET", f"{service.url}/api/v1/context_features")
    assert not [message for message in handler.messages if "context_features" in message]
