"""Flows and effects, driven by hand."""

import pytest

from heksher_client._core.refresh.effects import (
    Exchange,
    Flow,
    Limits,
    NoResponse,
    Pause,
    Reply,
    Response,
    RunBlocking,
    run_blocking,
)
from heksher_client._core.refresh.protocol import HEALTH
from heksher_client._core.refresh.session import limited
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.cooperative import Work


def two_exchanges() -> Flow[tuple[Reply, Reply]]:
    (first,) = yield Exchange((HEALTH,))
    (second,) = yield Exchange((HEALTH,))
    return first, second


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
    assert str(second.error) == "no complete response within 0 seconds"


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
