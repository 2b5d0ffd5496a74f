"""Flows and their steps, whoever runs them."""

import pytest

from heksher_client._core.refresh.effects import Exchange, Flow, Limits, NoResponse, Reply, Response, exchange, limited
from heksher_client._core.refresh.protocol import HEALTH


def test_an_exchange_for_which_there_is_no_time_is_not_begun() -> None:
    """Its replies say so; one for which there is time gets the limits as they are then."""
    left = [5.0, 0.0]
    flow = limited(two_exchanges(), lambda: Limits(30.0, left.pop(0), 1000))
    step = next(flow)
    assert isinstance(step, Exchange)
    assert step.limits == Limits(30.0, 5.0, 1000)
    with pytest.raises(StopIteration) as end:
        flow.send((Response(200),))
    first, second = end.value.value
    assert first == Response(200)
    assert isinstance(second, NoResponse)
    assert str(second.error) == "not all of an answer within 0 seconds"


def two_exchanges() -> Flow[tuple[Reply, Reply]]:
    (first,) = yield from exchange(HEALTH)
    (second,) = yield from exchange(HEALTH)
    return first, second
