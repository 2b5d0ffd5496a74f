"""The error log: one record when a failure begins, changes or ends, and reminders in between."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from heksher_client import (
    CredentialError,
    DeclarationError,
    HeksherError,
    ServiceUnavailableError,
    State,
    UnexpectedResponseError,
)
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Response
from heksher_client._core.refresh.health import REMIND_AFTER, ErrorLog, Health
from heksher_client._logging import escaped, logger
from tests.support.log_records import extras, summaries


class RecordList(logging.Handler):
    """A handler that collects records in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """The records that are logged during the test."""
    caplog.set_level(logging.INFO)
    handler = RecordList()
    logger.logger.addHandler(handler)
    yield handler.records
    logger.logger.removeHandler(handler)


def test_a_persistent_failure_is_logged_every_five_minutes(records: list[logging.LogRecord]) -> None:
    """However often it occurs. Its end is logged as well."""
    log, error = ErrorLog(), ServiceUnavailableError("down")
    for second in range(0, 700, 10):
        log.record([error], 50.0 + second)
    log.record([], 750.0)
    log.record([], 810.0)
    assert REMIND_AFTER == 300
    assert summaries(records) == [
        *[("ERROR", "refresh failed: down", {"error": error, "attempts": attempts}) for attempts in (1, 31, 61)],
        (
            "INFO",
            "the refresh succeeds again, after 70 failures in 700 seconds",
            {"attempts": 70, "seconds": 700.0},
        ),
    ]


def test_each_outage_has_its_own_attempts_and_duration(records: list[logging.LogRecord]) -> None:
    """They are counted from its first failure."""
    log = ErrorLog()
    for began in (0.0, 1000.0):
        for second in (0.0, 5.0):
            log.record([ServiceUnavailableError("down")], began + second)
        log.record([], began + 7.0)
    assert [extras(record) for record in records if record.levelname == "INFO"] == [{"attempts": 2, "seconds": 7.0}] * 2


def test_a_different_failure_is_logged_immediately(records: list[logging.LogRecord]) -> None:
    """Not if only a port, time or id differs, or if two failures alternate, for example behind a load balancer."""
    log = ErrorLog()
    log.record([TimeoutError("port 80")], 0.0)
    for second, text in enumerate(["port 80", "port 8080", "refused", "refused", "port 90"]):
        log.record([ServiceUnavailableError(text)], float(second))
    assert [record.getMessage() for record in records] == [
        "refresh failed: port 80",  # of another class
        "refresh failed: port 80",
        "refresh failed: refused",
    ]


def test_failures_with_different_statuses_or_names_are_different(records: list[logging.LogRecord]) -> None:
    """Only standalone numbers, addresses and ids are ignored in the comparison."""
    log = ErrorLog()
    for second, status in enumerate([500, 502, 500, 410]):
        log.record([UnexpectedResponseError(f"answered {status}", status=status)], float(second))
    log.record([ServiceUnavailableError(f"setting {name} was left out") for name in ("a1", "b2", "a1")], 5.0)
    for second, text in enumerate(["at 0x7fea8c450dd0", "at 0x8fea8c450dd0", "id 1f0e2d3c-aa-bb", "id 2f0e2d3c-cc-dd"]):
        log.record([ServiceUnavailableError(text)], 10.0 + second)
    assert [record.getMessage().removeprefix("refresh failed: ") for record in records] == [
        "answered 500",
        "answered 502",
        "answered 410",
        "setting a1 was left out",
        "setting b2 was left out",
        "at 0x7fea8c450dd0",
        "id 1f0e2d3c-aa-bb",
    ]


def test_a_failure_that_recurs_within_a_minute_is_not_a_new_one(records: list[logging.LogRecord]) -> None:
    """If every second refresh fails, that is logged every five minutes. An outage after a quiet minute is a new one."""
    log = ErrorLog()
    for second in range(0, 600, 10):
        log.record([ServiceUnavailableError("down")] if second % 20 == 0 else [], float(second))
    assert [record.levelname for record in records] == ["ERROR", "INFO"] * 2
    records.clear()
    for began, levels in ((660.0, ["ERROR", "INFO"]), (729.0, []), (799.0, ["ERROR", "INFO"])):
        log.record([ServiceUnavailableError("down")], began)
        log.record([], began + 10.0)
        assert [record.levelname for record in records] == levels
        records.clear()


def test_failures_that_differ_only_in_quoted_responses_are_equal(records: list[logging.LogRecord]) -> None:
    """A response may contain the id of the request, in any form."""
    for status, count in ((200, 1), (302, 1), (400, 1), (503, 1)):
        log = ErrorLog()
        for reference in ("XDDHFjYhAMad", "QmFzZTY0IQ=="):
            text = f"GET /api/v1/query: the service responded with {status}: '{reference}: busy'"
            log.record([UnexpectedResponseError(text, status=status)], 0.0)
        assert len(records) == count
        records.clear()


QUOTED = (
    {"timestamp": "2026-11-30T08:01:22.123456Z", "error": "Forbidden"},
    {"timestamp": "2026-11-30T08:01:23Z", "error": "Forbidden"},
    {"message": "no", "requestId": "Xk3f-9Q=="},
    {"message": "no", "requestId": "pO8a_w2=="},
    {"message": "no", "requestId": "pOxxRtyuPqwZ"},
    {"message": "no", "requestId": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    {"message": "no", "requestId": "qwertzuiopasdfghjklyx"},
    {"message": "no", "requestId": "abcdefghijklmnopqrstuvwxyz"},
    {"traceId": "1-67e5a"},
    {"traceId": "0-98b0c:f00"},
    {"it's": "https://h/errors/%7B1%7D?at=08:01"},
    {"it's": "https://h/errors/ab%2Fcd?at=9"},
)


def quote(body: object, status: int) -> HeksherError:
    """Return the error for the response to a declaration."""
    response = Response(status, json.dumps(body).encode(), {"content-type": "application/json"})
    with pytest.raises(HeksherError) as raised:
        protocol.parse_declaration(response, "s1")
    return raised.value


@pytest.mark.parametrize("status", [200, 302, 403, 422, 502])
def test_d7_ids_and_times_in_a_response_do_not_make_it_another_failure(
    status: int, records: list[logging.LogRecord]
) -> None:
    """Gateways send them in any form. Another word is another reason, except in the error of a server."""
    log = ErrorLog()
    for body in QUOTED:
        log.record([quote(body, status)], 0.0)
    assert len(records) == (1 if status == 502 else 4)
    for body in QUOTED:
        log.record([quote({"detail": json.dumps(body)}, status)], 0.0)
    count = len(records)
    for reason in ("its type must be int", "its type must be str"):
        log.record([quote({"detail": reason}, status)], 0.0)
    assert len(records) - count == (0 if status == 502 else 2)


def test_ids_and_times_of_an_authorization_server_do_not_make_it_another_failure(
    records: list[logging.LogRecord],
) -> None:
    """Its description of an error is not quoted."""
    log = ErrorLog()
    for trace, time in (("3b8c", "2026-11-30 08:01:22Z"), ("Xk3fQ", "2026-11-30 08:01:22.5Z")):
        text = f"GET /api/v1/query: shop at h: refused (invalid_grant: AADSTS70008. Trace: {trace} Timestamp: {time})"
        log.record([CredentialError(text)], 0.0)
    for seconds in ("08:01:22.25Z", "08:01:23.5Z"):
        log.record([CredentialError(f"GET /api/v1/query: no token at {seconds} within 5ms")], 0.0)
    assert len(records) == 2


def test_failures_with_different_requests_are_different(records: list[logging.LogRecord]) -> None:
    """The quoted responses may have parts in common."""
    log = ErrorLog()
    for route in ("/api/v1/query", "/api/v1/context_features"):
        log.record([UnexpectedResponseError(f"GET {route}: the service responded with 503: ''", status=503)], 0.0)
    assert len(records) == 2


def test_each_of_several_failures_is_logged_once(records: list[logging.LogRecord]) -> None:
    """A new failure in addition to an old one, and one that several settings have in common."""
    log = ErrorLog()
    first, second = DeclarationError("s1 is refused", setting="s1"), DeclarationError("s2 is refused", setting="s2")
    log.record([first], 0.0)
    log.record([first, second, second], 1.0)
    assert [record.getMessage() for record in records] == [
        "refresh failed: s1 is refused",
        "refresh failed: s2 is refused",
    ]


def test_a_success_is_not_logged(records: list[logging.LogRecord]) -> None:
    """Unless it follows a failure that was logged."""
    ErrorLog().record([], 0.0)
    assert records == []


def test_a_record_is_one_line(records: list[logging.LogRecord]) -> None:
    """Control characters in names and texts are escaped. Numbers stay numbers, as format codes require."""
    logger.info("%d of %s: %s", 3, ["a\nb"], "red\x1b[31m\u202e\ud800")
    logger.info("plain")
    assert [record.getMessage() for record in records] == [
        "3 of ['a\\nb']: red\\x1b[31m\\u202e\\ud800",
        "plain",
    ]
    assert escaped("plain, with ümlauts") == "plain, with ümlauts"


def test_the_age_of_restored_rules_counts_until_the_service_confirms_newer_ones() -> None:
    """Rules that were restored just now always count, as they may be older than the others."""
    now = 1000.0
    health = Health(60.0, clock=lambda: now, wall_clock=lambda: 0.0)
    assert (health.age, health.state(is_closed=False)) == (None, State.STARTING)
    health.record_restored(50.0, is_new=True)
    assert (health.age, health.state(is_closed=False)) == (50.0, State.FRESH)
    health.record_restored(70.0, is_new=False)
    assert health.age == 50.0
    health.record_restored(70.0, is_new=True)
    assert (health.age, health.state(is_closed=False)) == (70.0, State.STALE)
    health.record_received(now)
    assert health.age == 0.0
    now += 59.0
    assert (health.age, health.state(is_closed=False)) == (59.0, State.FRESH)
    now += 1.0
    assert (health.age, health.state(is_closed=False)) == (60.0, State.STALE)
    health.record_restored(50.0, is_new=True)
    assert health.age == 60.0
    assert health.state(is_closed=True) is State.CLOSED


def test_the_outcomes_of_refreshes_are_counted_and_have_a_time() -> None:
    """The last error stays after a success, in one line."""
    now = 1000.0
    health = Health(60.0, clock=lambda: 0.0, wall_clock=lambda: now)
    assert (health.failures, health.last_error, health.last_success) == (0, None, None)
    for failures in (1, 2):
        health.record_outcome([ServiceUnavailableError("a\nb"), ServiceUnavailableError("c")])
        assert (health.failures, health.last_error, health.last_success) == (failures, ("a\\nb", 1000.0), None)
        assert health.state(is_closed=False) is State.STALE
    health.record_received(0.0)
    assert health.state(is_closed=False) is State.FAILING
    now = 1010.0
    health.record_outcome([])
    assert (health.failures, health.last_error, health.last_success) == (0, ("a\\nb", 1000.0), 1010.0)
    assert health.state(is_closed=False) is State.FRESH


class Raising(logging.Handler):
    """A handler that raises an error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("full"), KeyError("full"), asyncio.CancelledError("full")])
@pytest.mark.parametrize("is_shown", [True, False])
def test_c11_a_log_handler_that_raises(
    records: list[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    is_shown: bool,
) -> None:
    """Its error is written to stderr, like those that handlers of Python notice, unless that is switched off."""
    monkeypatch.setattr(logging, "raiseExceptions", is_shown)
    monkeypatch.setattr(logger.logger, "handlers", [*logger.logger.handlers, Raising(error)])
    logger.error("a record", extra={"setting": "s"})
    assert records[0].getMessage() == "a record"
    assert ("full" in capsys.readouterr().err) is is_shown


def test_c11_what_ends_the_program_is_raised_by_a_log_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C during a slow one."""
    monkeypatch.setattr(logger.logger, "handlers", [Raising(KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        logger.error("a record")


def test_c11_a_record_factory_that_sets_an_extra_of_the_package(records: list[logging.LogRecord]) -> None:
    """The record has no extras then, and the rest of it."""
    former = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = former(*args, **kwargs)
        record.error = None
        return record

    logging.setLogRecordFactory(make)
    try:
        ErrorLog().record([ServiceUnavailableError("down")], 50.0)
    finally:
        logging.setLogRecordFactory(former)
    assert [record.getMessage() for record in records] == ["refresh failed: down"]


def test_a_record_has_the_place_of_the_caller(records: list[logging.LogRecord]) -> None:
    """Which logs it, and not the place of the logger."""
    ErrorLog().record([ServiceUnavailableError("down")], 50.0)
    assert records[0].filename == "health.py"
    logger.exception("oops")
    assert (records[1].funcName, records[1].exc_info is None) == ("test_a_record_has_the_place_of_the_caller", False)
