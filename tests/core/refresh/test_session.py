"""A session from its start to its end, driven by hand."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from heksher_client import (
    Change,
    HeksherError,
    Reason,
    Refresh,
    ServiceTimeoutError,
    Setting,
    State,
    UnexpectedResponseError,
)
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Effect, Exchange, Flow, Limits, OpenStream, Response, RunBlocking
from heksher_client._core.refresh.positions import Position
from heksher_client._logging import text_of
from tests.support.driven import DrivenClient, driven
from tests.support.fake_service import FakeService
from tests.support.last_known_good import MemoryFile
from tests.support.log_records import summaries
from tests.support.service import CHANGES, DECLARE, QUERY, CannedResponse, RecordedRequest


def recorded(flow: Flow[None], seen: list[Effect]) -> Flow[None]:
    """Return the same flow, which records its effects."""
    result: Any = None
    while True:
        try:
            effect = flow.send(result)
        except StopIteration:
            return
        seen.append(effect)
        result = yield effect


def exchanges(seen: Iterable[Effect]) -> list[Exchange]:
    return [effect for effect in seen if isinstance(effect, Exchange)]


def test_a_client_recovers_from_an_outage(service: FakeService) -> None:
    """The waits double until the longest one. The values stay, and are up to date a moment after the service is."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service, update_interval=60, stale_after=180) as client:
        service.add_rule("s", 2, user="jim")
        client.advance(60)
        service.is_running = False
        client.waits.clear()
        client.refresh(9)
        assert client.waits == [60, 1, 2, 4, 8, 16, 32, 60, 60]
        assert client.status().state is State.STALE
        assert setting.get(user="jim") == 2

        service.is_running = True
        service.add_rule("s", 3, user="ann")
        client.refresh()
        assert setting.get(user="ann") == 3
        assert client.status().state is State.FRESH


def test_a_change_is_loaded_at_once_while_the_stream_is_open(service: FakeService) -> None:
    """And those that were missed, when it is opened again."""
    setting = Setting("s", int, ["user"], 1)
    service.offers_changes = True
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.advance(0)
        assert setting.get(user="jim") == 2
        client.lose_stream()
        service.add_rule("s", 3, user="ann")
        client.advance(4)
        assert setting.get(user="ann") == 3


def test_the_options_decide_about_the_waits(service: FakeService) -> None:
    """The longest wait after failures is also that before the stream is opened again."""
    _setting = Setting("s", int, ["user"], 1)
    service.offers_changes = True
    with driven(service, update_interval=60, jitter=0.5, max_backoff=3) as client:
        client.refresh()
        client.random = 1.0
        client.refresh(2)
        assert client.waits == [30, 60, 90]
        service.is_running = False
        client.refresh(4)
        assert client.waits[3:] == [90, 0.5, 1, 1.5]
        client.lose_stream()
        before = len(service.requests_to(CHANGES))
        client.advance(2.9)
        assert len(service.requests_to(CHANGES)) == before
        client.advance(0.1)
        assert len(service.requests_to(CHANGES)) == before + 1


def test_only_the_start_has_a_limit_for_all_of_its_requests(service: FakeService) -> None:
    """In addition to those of each request. The time counts from the start, not from the first request."""
    client = DrivenClient(service, start_timeout=20, request_timeout=5, max_response_bytes=1000)
    assert client.session.service_url == "http://service"
    _setting = Setting("s", int, ["user"], 1)
    client.session.start()
    client.now += 3.0
    for total in (17.0, math.inf):
        seen: list[Effect] = []
        client.run(recorded(client.session.refresh(), seen))
        assert {exchange.limits for exchange in exchanges(seen)} == {Limits(5.0, total, 1000)}
    client.close()


def test_a_start_without_any_time_left_sends_nothing(service: FakeService) -> None:
    """The next refresh does."""
    client = DrivenClient(service, start_timeout=20)
    client.session.start()
    client.now += 20.0
    client.refresh()
    assert str(client.outcomes[-1]).endswith("no time was left for a response, limited by the option start_timeout)")
    assert service.requests == []
    client.refresh()
    assert client.outcomes[-1] is None
    client.close()


def test_all_requests_of_a_call_together_have_its_timeout(service: FakeService) -> None:
    """Those that are sent again as well. The shorter limit counts, and the error names it."""
    client = DrivenClient(service, request_timeout=5, max_response_bytes=1000)
    requests, now = client.session.requests, client.now
    for timeout, total in ((2, 2.0), (20.0, 20.0), (None, math.inf)):
        flow = client.session.within(requests.get_settings(), timeout)
        effect = next(flow)
        assert isinstance(effect, Exchange)
        assert (effect.limits.seconds, effect.limits.total_seconds, effect.limits.max_bytes) == (5.0, total, 1000)
    flow = client.session.within(requests.send(protocol.SETTINGS, protocol.parse_settings), 2)
    next(flow)
    client.now = now + 1.5
    requests.positions.observe(Position("", 0, 7))
    again = flow.send((Response(200, b"{}", {"heksher-revision": "5"}),))
    assert isinstance(again, Exchange)
    assert again.limits.total_seconds == 0.5
    client.now = now + 2
    with pytest.raises(
        ServiceTimeoutError, match=r"no time was left for a response, limited by the argument timeout\)$"
    ):
        flow.send((Response(200, b"{}", {"heksher-revision": "5"}),))


def test_the_error_of_a_call_that_may_have_waited_for_its_turn_says_so(service: FakeService) -> None:
    """With the option `rate_limit`."""
    client = DrivenClient(service, rate_limit=1)
    effect = next(client.session.within(client.session.requests.get_settings(), 2))
    assert isinstance(effect, Exchange)
    assert effect.limits.shortest == (2.0, "by the argument timeout, which includes waits for rate_limit")


@pytest.mark.parametrize("is_running", [True, False])
def test_a_disk_has_the_time_of_a_request(service: FakeService, is_running: bool) -> None:
    """To load the last known good as well as to store it."""
    service.is_running = is_running
    _setting = Setting("s", int, ["user"], 1)
    client = DrivenClient(service, last_known_good=MemoryFile(), request_timeout=5)
    client.session.start()
    seen: list[Effect] = []
    client.run(recorded(client.session.refresh(), seen))
    assert {effect.seconds for effect in seen if isinstance(effect, RunBlocking)} == {5.0}
    client.close()


def test_a_stream_without_a_byte_for_45_seconds_is_lost(service: FakeService) -> None:
    """The service sends something every 15 seconds."""
    service.offers_changes = True
    _setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        effect = next(client.session.follow())
        assert isinstance(effect, OpenStream)
        assert effect.seconds == 45.0
        assert str(effect.request) == "GET /api/v1/changes"


def test_requests_for_a_refresh_wake_the_driver_of_a_running_client(service: FakeService) -> None:
    """It may be waiting for the next interval. Others have no driver that waits."""
    _setting = Setting("s", int, ["user"], 1)
    client = DrivenClient(service)
    client.track_contexts(user="jim")
    assert client.wakes == 0
    client.start()
    client.session.refresh_soon(5.0)
    assert (client.wakes, client.session.wait()) == (2, 5.0)  # The start waited for its refresh.
    client.track_contexts(user="ann")
    assert (client.wakes, client.session.wait()) == (3, 0.0)
    client.close()
    client.track_contexts(user="eve")
    client.session.refresh_soon()
    assert (client.wakes, client.session.wait()) == (3, 0.0)


def test_the_next_attempt_is_now_during_a_refresh_and_never_for_a_closed_client(service: FakeService) -> None:
    """Nor before the start."""
    _setting = Setting("s", int, ["user"], 1)
    seen: list[float | None] = []
    client = DrivenClient(service, update_interval=60)
    seen.append(client.status().next_attempt)
    client.start()
    service.respond_with(QUERY, lambda request: seen.append(client.status().next_attempt))
    client.now += 5.0
    client.reload()
    client.now += 15.0
    seen.append(client.status().next_attempt)
    client.close()
    seen.append(client.status().next_attempt)
    assert seen == [None, 0.0, 45.0, None]
    assert client.session.wait() == 0.0  # A driver that waits has to end.


def test_a_client_that_was_closed_during_a_refresh_calls_no_hook(service: FakeService) -> None:
    """Its waiters got the error of the closed client."""
    _setting = Setting("s", int, ["user"], 1)
    outcomes: list[Exception | None] = []
    refreshes: list[Refresh] = []
    with driven(service) as client:

        def close(request: RecordedRequest) -> CannedResponse | None:
            client.close()
            return CannedResponse(503)

        client.on_refresh(refreshes.append)
        service.respond_with(QUERY, close)
        client.session.add_waiter(outcomes.append)
        client.refresh()
        assert (client.outcomes, refreshes) == ([], [])
        assert [str(outcome) for outcome in outcomes] == ["the client was closed before the refresh was done"]
        assert (client.status().state, client.status().failures) == (State.CLOSED, 1)


def test_the_child_of_a_fork_continues_with_the_values_and_refreshes_within_seconds(service: FakeService) -> None:
    """Its callers do not wait for a refresh of the parent, which is not in progress in the child."""
    setting = Setting("s", int, ["user"], 1)
    service.offers_changes = True
    outcomes: list[Exception | None] = []
    with driven(service, jitter=0.1) as client:
        service.add_rule("s", 2, user="jim")
        client.advance(0)
        flow = client.session.refresh()
        client.session.add_waiter(outcomes.append)
        next(flow)
        client.session.add_waiter(outcomes.append)
        assert client.status().next_attempt == 0.0
        client.continue_in_child()
        status = client.status()
        assert (status.is_following, status.next_attempt, setting.get(user="jim")) == (False, 2.5, 2)
        client.refresh()
        assert outcomes == []
        assert client.status().is_following
        flow.close()


# -- errors that escape a refresh --------------------------------------------------------------------------------------


class TextlessError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise AttributeError("detail")


class Panic(BaseException):
    """An error as extensions of Python raise it."""


def raising(error: BaseException) -> Any:
    def call(*_: Any) -> None:
        raise error

    return call


def raising_once(error: Exception, function: Callable[..., Any]) -> Any:
    """Return a function that raises when it is first called, and then calls another one."""
    errors = [error]

    def call(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return function(*args)

    return call


ERRORS = [ZeroDivisionError("oops"), TextlessError(), Panic("oops"), asyncio.CancelledError("oops")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("raises_at_start", [False, True])
def test_c11_an_error_that_escapes_a_refresh_is_its_failure(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    raises_at_start: bool,
) -> None:
    """It may have any class: it is logged and in the status, callers that wait receive it, and refreshes go on."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service, update_interval=60, raises_at_start=raises_at_start) as client:
        refreshes: list[Refresh] = []
        client.on_refresh(refreshes.append)
        service.add_rule("s", 2, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr(client.session._refresher, "next_retry", raising(error))
            failure = client.reload_expecting(HeksherError)
            client.refresh()
        assert str(failure) == f"the refresh failed in an unforeseen way: {type(error).__name__}: {text_of(error)}"
        assert failure.__cause__ is error
        assert ("ERROR", "a refresh failed in an unforeseen way", {"error": error}) in summaries(caplog.records)
        assert client.waits == [1]
        status = client.status()
        assert (status.failures, status.last_error, status.next_attempt) == (2, str(failure), 2)
        assert [len(refresh.errors) for refresh in refreshes] == [1, 1]
        assert client.outcomes[-2] is failure
        assert f"refresh failed: {failure}" in caplog.messages
        client.refresh()
        assert (client.status().state, setting.get(user="jim")) == (State.FRESH, 2)


def test_c11_changes_that_were_published_before_an_error_are_reported_once(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To callbacks, and in the record of the refresh."""
    setting = Setting("s", int, ["user"], 1)
    with driven(service) as client:
        changes: list[Change[int]] = []
        refreshes: list[Refresh] = []
        setting.on_change(changes.append)
        client.on_refresh(refreshes.append)
        for user, owner, name in (
            ("jim", client.session._refresher, "next_retry"),
            ("ann", client.session._health, "record_outcome"),  # after the callbacks
        ):
            service.add_rule("s", 2, user=user)
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, raising_once(ZeroDivisionError(), getattr(owner, name)))
                client.reload_expecting(HeksherError)
            assert [refresh.changed for refresh in refreshes] == [("s",)]
            assert [[dict(rule.match_conditions) for rule in change.added] for change in changes] == [[{"user": user}]]
            refreshes.clear()
            changes.clear()


def test_c11_an_error_that_escapes_a_retry_of_a_setting_delays_it(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a refresh, which follows soon and is complete."""
    _good, bad = Setting("good", int, ["user"], 1), Setting("bad", int, ["user"], 1)

    def refuse(request: RecordedRequest) -> CannedResponse | None:
        return CannedResponse(422, b"no") if b"bad" in request.body else None

    service.respond_with(DECLARE, refuse)
    with driven(service) as client:
        assert client.session._schedule._retry < client.session._schedule.refresh_due
        service.intercept = lambda request: None
        with monkeypatch.context() as patched:
            patched.setattr(client.session._refresher, "next_retry", raising(Panic()))
            client.refresh()
        assert client.session.wait() == 1
        client.refresh()
        assert client.status().state is State.FRESH
        assert bad.explain(user="jim").reason is Reason.SERVER_DEFAULT


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_c11_what_ends_the_program_ends_a_refresh(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """The driver closes the client then."""
    with driven(service) as client:
        with monkeypatch.context() as patched:
            patched.setattr(client.session._refresher, "next_retry", raising(error()))
            with pytest.raises(error):
                client.refresh()
        assert client.status().failures == 0


@pytest.mark.parametrize("is_rule", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_c11_what_ends_the_program_is_raised_by_a_validator(
    service: FakeService, error: type[BaseException], is_rule: bool
) -> None:
    """For the value of a rule, and for the default of the service. It rejects no value."""
    setting = Setting("s", int, ["user"], 1)

    def validate(value: int, rule: object, _: object) -> int:
        if (rule is not None) is is_rule:
            raise error
        return value

    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        setting.add_validator(validate)
        with pytest.raises(error):
            client.refresh()


class NeedsInitError(UnexpectedResponseError):
    """An error whose text depends on its `__init__`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.code = "E17"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


def test_c11_an_error_class_without_a_text_is_not_used(service: FakeService) -> None:
    """The error of the service is reported nevertheless, and says why its class is another one."""
    _setting = Setting("s", int, ["user"], 1)
    with driven(service, error_classes={503: NeedsInitError}) as client:
        service.respond_with(QUERY, CannedResponse(503), times=1)
        error = client.reload_expecting(UnexpectedResponseError)
        assert (type(error), error.status) == (UnexpectedResponseError, 503)
        assert str(error) == (
            "NeedsInitError of error_classes cannot be used ('NeedsInitError' object has no attribute 'code'): "
            "GET /api/v1/query: the service responded with 503"
        )
        client.refresh()
        assert client.status().state is State.FRESH


def test_one_thread_or_task_runs_a_client(service: FakeService) -> None:
    """Until it has ended: that of the parent of a fork does not exist in the child."""
    client = DrivenClient(service)
    client.start()
    first, second = object(), object()
    assert [client.session.is_run_by(runner) for runner in (first, second, first)] == [True, False, True]
    client.session.suspend()
    assert (client.session.is_suspended, client.session.wait()) == (True, 0.0)
    client.session.resume()
    assert (client.session.is_suspended, client.session.is_run_by(second)) == (False, True)
    client.close()
