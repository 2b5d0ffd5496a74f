"""When the next refresh is due."""

from typing import Any

import pytest

from heksher_client._core.schedule import Schedule


def test_a_new_schedule_is_due_at_once() -> None:
    """The first refresh waits for nothing."""
    assert Schedule(60).wait(0.0) == 0


def test_after_a_success_the_interval_passes() -> None:
    """Counted from the end of the refresh."""
    schedule = Schedule(60)
    schedule.completed(100.0, failed=False)
    assert schedule.wait(100.0) == 60
    assert schedule.wait(130.0) == 30
    assert schedule.wait(500.0) == 0


def test_after_failures_it_is_tried_sooner_and_less_and_less_often() -> None:
    """1, 2, 4... seconds, never more than the interval; and a success ends that."""
    schedule = Schedule(10)
    waits = []
    for _ in range(6):
        schedule.completed(0.0, failed=True)
        waits.append(schedule.wait(0.0))
    assert waits == [1, 2, 4, 8, 10, 10]
    schedule.completed(0.0, failed=False)
    schedule.completed(0.0, failed=True)
    assert schedule.wait(0.0) == 1


@pytest.mark.parametrize("interval", [0, -1, float("inf"), float("nan"), "60", None, True])
def test_an_impossible_interval_is_refused(interval: Any) -> None:
    """It is a positive number of seconds."""
    with pytest.raises((TypeError, ValueError), match="update_interval"):
        Schedule(interval)
