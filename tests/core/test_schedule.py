"""When the next refresh is due."""

from collections.abc import Callable
from typing import Any

import pytest

from heksher_client._core.refresh.options import Options
from heksher_client._core.refresh.schedule import Schedule


def make(interval: float = 60.0, jitter: float = 0.0, random: Callable[[], float] = lambda: 0.5) -> Schedule:
    return Schedule(interval, jitter=jitter, max_backoff=10.0, random=random)


def waits(schedule: Schedule, count: int, **failure: Any) -> list[float]:
    """The waits after so many failures in a row."""
    found = []
    for _ in range(count):
        schedule.failed(0.0, **failure)
        found.append(schedule.wait(0.0))
    return found


def test_a_new_schedule_is_due_at_once() -> None:
    """The first refresh waits for nothing."""
    assert make().wait(0.0) == 0


def test_after_a_success_the_interval_passes() -> None:
    """Counted from the end of the refresh."""
    schedule = make()
    schedule.succeeded(100.0)
    assert schedule.wait(100.0) == 60
    assert schedule.wait(130.0) == 30
    assert schedule.wait(500.0) == 0


def test_after_failures_it_is_tried_sooner_and_less_and_less_often() -> None:
    """1, 2, 4... seconds, up to a longest wait, for weeks if need be; and a success ends that at once."""
    schedule = make()
    assert waits(schedule, 6) == [1, 2, 4, 8, 10, 10]
    assert waits(schedule, 5000)[-1] == 10
    schedule.succeeded(0.0)
    assert schedule.wait(0.0) == 60
    assert waits(schedule, 2) == [1, 2]


def test_what_takes_people_to_mend_is_tried_slowly() -> None:
    """Credentials do not become valid within seconds."""
    assert waits(make(), 6, is_lasting=True) == [30, 60, 120, 240, 300, 300]


@pytest.mark.parametrize(("asked", "wait"), [(0.0, 1), (7.0, 7), (100.0, 100), (1e9, 300), (-5.0, 1)])
def test_a_service_that_asks_for_time_gets_it_within_bounds(asked: float, wait: float) -> None:
    """Never less than the client's own wait, and never more than five minutes."""
    assert waits(make(), 1, retry_after=asked) == [wait]


def test_a_fleet_that_starts_at_once_does_not_ask_at_once() -> None:
    """The first interval ends at any moment of it, the others at a tenth more or less."""
    for random, first, later in [(0.0, 0.0, 54.0), (0.25, 15.0, 57.0), (1.0, 60.0, 66.0)]:
        schedule = make(jitter=0.1, random=lambda random=random: random)  # type: ignore[misc]
        schedule.succeeded(0.0)
        assert schedule.wait(0.0) == pytest.approx(first)
        schedule.succeeded(0.0)
        assert schedule.wait(0.0) == pytest.approx(later)


def test_a_fleet_that_fails_at_once_does_not_come_back_at_once() -> None:
    """Waits after failures are up to a half shorter, those that the service asked for a little longer."""
    assert waits(make(jitter=0.1, random=lambda: 0.0), 5) == [1, 2, 4, 8, 10]
    assert waits(make(jitter=0.1, random=lambda: 1.0), 5) == [0.5, 1, 2, 4, 5]
    assert waits(make(jitter=0.1, random=lambda: 1.0), 1, retry_after=100.0) == pytest.approx([110.0])


def test_the_children_of_a_fork_do_not_all_begin_at_once() -> None:
    """But within seconds."""
    for random, wait in [(0.0, 0.0), (0.5, 2.5), (1.0, 5.0)]:
        schedule = make(jitter=0.1, random=lambda random=random: random)  # type: ignore[misc]
        schedule.soon(0.0)
        assert schedule.wait(0.0) == wait


GOOD: dict[str, Any] = {
    "update_interval": 60, "start_timeout": 60, "request_timeout": 30, "max_response_bytes": 1000, "jitter": 0.1,
    "max_backoff": 60, "max_age": 1000, "follow_changes": True,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in GOOD if not name.startswith(("max_response", "jitter", "follow"))])
@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan"), "60", True, [1]])
def test_an_impossible_number_of_seconds_is_refused(name: str, bad: Any) -> None:
    """It is positive and finite."""
    with pytest.raises((TypeError, ValueError), match=name):
        Options.checked(GOOD | {name: bad}, can_follow=True)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("jitter", bad) for bad in (-0.1, 1.1, float("nan"), "0", None, True)]
    + [("max_response_bytes", bad) for bad in (0, -1, 1.5, "1", None, True)],
)
def test_other_impossible_options_are_refused(name: str, bad: Any) -> None:
    """With the name of the option."""
    with pytest.raises((TypeError, ValueError), match=name):
        Options.checked(GOOD | {name: bad}, can_follow=True)


def test_settings_are_stale_after_three_intervals_unless_it_is_said_otherwise() -> None:
    """A single poll that fails is no reason for alarm."""
    assert Options.checked(GOOD, can_follow=True).stale_after == 180
    assert Options.checked(GOOD | {"stale_after": 5}, can_follow=True).stale_after == 5
