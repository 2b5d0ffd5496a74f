"""What is said of faults: once when they begin, change and end."""

import logging
from collections.abc import Iterator

import pytest

from heksher_client import DeclarationError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client._core.refresh.health import REMINDED_AFTER, ErrorLog
from heksher_client._logging import escaped, logger


class Noting(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """What is logged from now on."""
    caplog.set_level(logging.INFO)
    handler = Noting()
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


def test_a_fault_that_lasts_is_said_once_and_now_and_then(said: list[logging.LogRecord]) -> None:
    """Every five minutes, however often it is met; and its end is said."""
    faults = ErrorLog()
    for second in range(0, 700, 10):
        faults.note([ServiceUnavailableError("down")], float(second))
    faults.note([], 700.0)
    faults.note([], 760.0)
    assert REMINDED_AFTER == 300
    assert [(record.levelname, record.getMessage()) for record in said] == [
        *[("ERROR", "refresh failed: down")] * 3,
        ("INFO", "the refresh succeeds again, after 70 failures in 700 seconds"),
    ]


def test_a_fault_that_changes_is_said_again(said: list[logging.LogRecord]) -> None:
    """Not if it is only a port, a time or an id that changes, nor when two faults take turns, as behind a balancer."""
    faults = ErrorLog()
    for second, text in enumerate(["port 80", "port 8080", "refused", "refused", "port 90"]):
        faults.note([ServiceUnavailableError(text)], float(second))
    assert [record.getMessage() for record in said] == [
        "refresh failed: port 80",
        "refresh failed: refused",
    ]


def test_faults_that_differ_in_a_status_or_in_a_name_with_digits_are_two(said: list[logging.LogRecord]) -> None:
    """Only numbers by themselves, addresses and ids are left out of the comparison."""
    faults = ErrorLog()
    for second, status in enumerate([500, 502, 500, 410]):
        faults.note([UnexpectedResponseError(f"answered {status}", status=status)], float(second))
    faults.note([ServiceUnavailableError(f"setting {name} was left out") for name in ("a1", "b2", "a1")], 5.0)
    for second, text in enumerate(["at 0x7fea8c450dd0", "at 0x8fea8c450dd0", "id 1f0e2d3c-aa-bb", "id 2f0e2d3c-cc-dd"]):
        faults.note([ServiceUnavailableError(text)], 10.0 + second)
    assert [record.getMessage().removeprefix("refresh failed: ") for record in said] == [
        "answered 500",
        "answered 502",
        "answered 410",
        "setting a1 was left out",
        "setting b2 was left out",
        "at 0x7fea8c450dd0",
        "id 1f0e2d3c-aa-bb",
    ]


def test_a_fault_that_comes_back_within_a_minute_is_the_same_one(said: list[logging.LogRecord]) -> None:
    """Where every second refresh fails, that is said once in a while; an outage after a quiet time at once."""
    faults = ErrorLog()
    for second in range(0, 600, 10):
        faults.note([ServiceUnavailableError("down")] if second % 20 == 0 else [], float(second))
    assert [record.levelname for record in said] == ["ERROR", "INFO"] * 2
    said.clear()
    faults.note([ServiceUnavailableError("down")], 660.0)
    faults.note([], 670.0)
    assert [record.levelname for record in said] == ["ERROR", "INFO"]


def test_what_an_answer_says_does_not_make_it_another_fault(said: list[logging.LogRecord]) -> None:
    """There may be an id of the request in it, of whatever form."""
    faults = ErrorLog()
    for reference in ("XDDHFjYhAMad", "QmFzZTY0IQ=="):
        text = f"GET /api/v1/query: the service answered 503: 'reference {reference}'"
        faults.note([UnexpectedResponseError(text, status=503)], 0.0)
    assert len(said) == 1


def test_each_of_several_faults_is_said(said: list[logging.LogRecord]) -> None:
    """A new one beside an old one, and one that several settings have in common once."""
    faults = ErrorLog()
    first, second = DeclarationError("s1 is refused", setting="s1"), DeclarationError("s2 is refused", setting="s2")
    faults.note([first], 0.0)
    faults.note([first, second, second], 1.0)
    assert [record.getMessage() for record in said] == [
        "refresh failed: s1 is refused",
        "refresh failed: s2 is refused",
    ]


def test_what_never_failed_does_not_succeed_again(said: list[logging.LogRecord]) -> None:
    """Success is silent."""
    ErrorLog().note([], 0.0)
    assert said == []


def test_a_record_is_one_line_whoever_wrote_what_is_in_it(said: list[logging.LogRecord]) -> None:
    """Numbers stay numbers for formats; all else is text without control and format codes."""
    logger.info("%d of %s: %s", 3, ["a\nb"], "red\x1b[31m\u202e\ud800")
    logger.info("plain")
    assert [record.getMessage() for record in said] == [
        "3 of ['a\\nb']: red\\x1b[31m\\u202e\\ud800",
        "plain",
    ]
    assert escaped("plain, with ümlauts") == "plain, with ümlauts"
