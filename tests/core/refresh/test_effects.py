"""Flows and effects, driven by hand."""

import pytest

from heksher_client._core.refresh.effects import (
    Exchange,
    Flow,
    Limits,
    NoResponse,
    Pause,
    Reply,
    Request,
    Response,
    RunBlocking,
    limited,
    run_blocking,
    timed_out,
)
from heksher_client._core.refresh.protocol import HEALTH
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.cooperative import Work


def two_exchanges() -> Flow[tuple[Reply, Reply]]:
    (first,) = yield Exchange((HEALTH,))
    (second,) = yield Exchange((HEALTH,))
    return first, second


def three_requests() -> Flow[tuple[Reply, ...]]:
    replies: tuple[Reply, ...] = yield Exchange((HEALTH,) * 3)
    return replies


def test_an_exchange_that_begins_too_late_is_not_sent() -> None:
    """Its replies say so. An earlier one gets the time that is left."""
    now = [95.0]
    flow = limited(two_exchanges(), Limits(30.0, max_bytes=1000), lambda: now[0], until=100.0)
    effect = next(flow)
    assert isinstance(effect, Exchange)
    assert effect.limits == Limits(30.0, 5.0, 1000)
    now[0] = 100.0
    with pytest.raises(StopIteration) as end:
        flow.send((Response(200),))
    first, second = end.value.value
    assert first == Response(200)
    assert isinstance(second, NoResponse)
    assert str(second.error) == "no time was left for a response"


def test_an_exchange_after_the_end_of_the_time_is_not_sent() -> None:
    """Its replies are errors of the network, one for each request. Any time that is left is used."""
    assert isinstance(next(limited(three_requests(), Limits(30.0), lambda: 100.0, until=100.001)), Exchange)
    for until in (100.0, 50.0):
        with pytest.raises(StopIteration) as end:
            next(limited(three_requests(), Limits(30.0), lambda: 100.0, until))
        replies = end.value.value
        assert [(str(reply.error), reply.is_network_error) for reply in replies] == [
            ("no time was left for a response", True)
        ] * 3


def test_without_an_end_only_the_limits_of_the_exchange_count() -> None:
    """The limits may be for each request or for all of them."""
    for limits in (Limits(30.0, max_bytes=1000), Limits(30.0, 40.0)):
        assert next(limited(three_requests(), limits, lambda: 1e6)) == Exchange((HEALTH,) * 3, limits)


@pytest.mark.parametrize(
    ("limits", "text", "option"),
    [
        (Limits(30.0, 5.25), "no complete response within 5.25 seconds", "start_timeout"),
        (Limits(30.0, 30.0), "no complete response within 30 seconds", "start_timeout"),
        (Limits(5.0, 30.0), "no complete response within 5 seconds", "request_timeout"),
        (Limits(5.0, 0.0), "no time was left for a response", "start_timeout"),
        (Limits(5.0, -1.0), "no time was left for a response", "start_timeout"),
        (Limits(30.0), "no complete response within 30 seconds", "request_timeout"),
    ],
)
def test_n13_the_error_of_a_timeout_has_the_shorter_limit(limits: Limits, text: str, option: str) -> None:
    """It counts as an error of the network, and names the option."""
    reply = timed_out(limits)
    assert isinstance(reply.error, TimeoutError)
    assert str(reply.error) == text
    assert (reply.is_network_error, reply.is_untrusted) == (True, False)
    assert reply.limit == f"limited by the option {option}"
    assert reply.is_timeout


def test_a_request_is_named_by_its_method_and_path() -> None:
    """Its query may be long, or have secrets."""
    assert str(Request("GET", "/api/v1/query?settings=a&x=?")) == "GET /api/v1/query"
    assert str(Request("POST", "/api")) == "POST /api"


def test_a_disk_that_takes_too_long_is_an_error() -> None:
    """Like one that fails."""
    flow = run_blocking(lambda: 5)
    next(flow)
    with pytest.raises(TimeoutError, match=r"^the disk takes too long$"):
        flow.send(None)

    failing = run_blocking(lambda: 1 // 0)
    effect = next(failing)
    assert isinstance(effect, RunBlocking)
    with pytest.raises(ZeroDivisionError):
        failing.send(effect.call())


def test_waiting_for_a_disk_has_the_limit_of_a_request() -> None:
    """So that a disk that hangs does not stop the refreshes."""
    flow = limited(run_blocking(lambda: 5), Limits(30.0), lambda: 0.0)
    effect = next(flow)
    assert isinstance(effect, RunBlocking)
    assert effect.seconds == 30.0
    with pytest.raises(StopIteration) as end:
        flow.send(effect.call())
    assert end.value.value == 5


def test_long_work_is_interrupted_by_pauses() -> None:
    """After every 5,000 rules, counted across calls."""

    def work() -> Work[str]:
        for _ in range(4):
            yield 2000
        return "done"

    budget = WorkBudget()
    for pauses in (1, 1, 2):
        assert list(budget.cooperatively(work())) == [Pause()] * pauses


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.0, "1 second"), (1.0001, "1 second"), (0.5, "0.5 seconds"), (30.0, "30 seconds")],
)
def test_seconds_in_a_message_are_singular_or_plural(seconds: float, text: str) -> None:
    """As the number is shown, which is rounded."""
    assert str(timed_out(Limits(seconds)).error) == f"no complete response within {text}"
