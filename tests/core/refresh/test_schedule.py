"""The time at which the next refresh is due."""

from collections.abc import Callable

import pytest

from heksher_client import DeclarationError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client._core.refresh.schedule import Schedule


class Timeline(Schedule):
    """A schedule with a clock that a test moves."""

    def __init__(self, interval: float = 60.0, jitter: float = 0.0, random: float = 0.5) -> None:
        self.now = 0.0
        super().__init__(interval, jitter=jitter, max_backoff=10.0, clock=lambda: self.now, random=lambda: random)

    def waits(self, count: int, *failures: Exception) -> list[float]:
        """Return the waits after each of several failed refreshes in a row."""
        waits = []
        for _ in range(count):
            self.failed(failures or [ServiceUnavailableError("down")])
            waits.append(self.wait())
        return waits


def test_a_new_schedule_is_due_at_once() -> None:
    """The first refresh does not wait."""
    assert Timeline().wait() == 0


def test_the_interval_begins_at_the_end_of_a_refresh() -> None:
    """It is not shorter for a refresh that took long."""
    schedule = Timeline()
    schedule.now = 100.0
    schedule.succeeded()
    assert schedule.wait() == 60
    schedule.now = 130.0
    assert schedule.wait() == schedule.wait_for_refresh() == 30
    schedule.now = 500.0
    assert schedule.wait() == schedule.wait_for_refresh() == 0


def test_failures_are_retried_with_growing_waits() -> None:
    """1, 2, 4... seconds, up to a limit, for weeks if necessary. A success ends that at once."""
    schedule = Timeline()
    assert schedule.waits(6) == [1, 2, 4, 8, 10, 10]
    assert schedule.waits(5000)[-1] == 10
    schedule.succeeded()
    assert schedule.wait() == 60
    assert schedule.waits(2) == [1, 2]


@pytest.mark.parametrize(
    "failure",
    [*(UnexpectedResponseError("", status=status) for status in (401, 403, 404, 422)), DeclarationError("refused")],
)
def test_a_failure_that_people_must_fix_is_retried_slowly(failure: Exception) -> None:
    """Credentials do not become valid within seconds. The first failure of a refresh decides."""
    assert Timeline().waits(6, failure, ServiceUnavailableError("down")) == [30, 60, 120, 240, 300, 300]
    assert Timeline().waits(2, ServiceUnavailableError("down"), failure) == [1, 2]


@pytest.mark.parametrize(("retry_after", "wait"), [(0.0, 1), (7.0, 7), (100.0, 100), (1e9, 300), (-5.0, 1)])
def test_the_service_can_request_a_longer_wait(retry_after: float, wait: float) -> None:
    """Never less than the client's own wait, and never more than five minutes."""
    failures = [UnexpectedResponseError("", status=503, retry_after=value) for value in (None, retry_after)]
    assert Timeline().waits(1, *failures) == [wait]


def test_a_requested_refresh_is_due_whatever_the_interval() -> None:
    """The earliest request counts, until the next refresh begins."""
    schedule = Timeline()
    schedule.succeeded()
    for within, wait in [(20.0, 20.0), (30.0, 20.0), (5.0, 5.0), (0.0, 0.0)]:
        schedule.request(within)
        assert schedule.wait() == wait
    schedule.begin()
    assert schedule.wait() == 60.0
    schedule.request(20.0)
    schedule.restart()
    assert schedule.wait() == 0.0


def test_c14_request_at_once_is_not_lost_while_a_later_one_is_made() -> None:
    """A signal handler may interrupt the other one, for example when it has read the clock."""
    interruptions: list[Callable[[], None]] = []

    def clock() -> float:
        while interruptions:
            interruptions.pop()()
        return 100.0

    schedule = Schedule(60.0, jitter=0.0, max_backoff=10.0, clock=clock, random=lambda: 0.5)
    schedule.succeeded()
    interruptions.append(lambda: schedule.request(0.0))
    schedule.request(5.0)
    assert schedule.wait() == 0


def test_a_refresh_with_old_responses_is_repeated_soon() -> None:
    """After a second, as they were older than an announced change."""
    schedule = Timeline()
    schedule.plan([], is_behind=True)
    assert schedule.wait() == 1.0
    schedule.begin()
    schedule.plan([], is_behind=False)
    assert schedule.wait() == 60.0
    schedule.plan([ServiceUnavailableError("down")], is_behind=True)
    assert schedule.wait() == 1.0


def test_a_fleet_that_starts_together_does_not_refresh_together() -> None:
    """The first interval has a random length, the others differ by a tenth."""
    for random, first, later in [(0.0, 0.0, 54.0), (0.25, 15.0, 57.0), (1.0, 60.0, 66.0)]:
        schedule = Timeline(jitter=0.1, random=random)
        schedule.succeeded()
        assert schedule.wait() == pytest.approx(first)
        schedule.succeeded()
        assert schedule.wait() == pytest.approx(later)


def test_a_fleet_that_fails_together_does_not_retry_together() -> None:
    """Waits after failures are up to a half shorter, those that the service requested a little longer."""
    assert Timeline(jitter=0.1, random=0.0).waits(5) == [1, 2, 4, 8, 10]
    assert Timeline(jitter=0.1, random=1.0).waits(5) == [0.5, 1, 2, 4, 5]
    for random, retry_after, wait in [(1.0, 100.0, 110.0), (0.5, 100.0, 105.0), (1.0, 0.0, 0.5)]:
        failure = UnexpectedResponseError("", status=503, retry_after=retry_after)
        assert Timeline(jitter=0.1, random=random).waits(1, failure) == pytest.approx([wait])


def test_the_children_of_a_fork_do_not_refresh_together() -> None:
    """They begin within seconds."""
    for random, wait in [(0.0, 0.0), (0.5, 2.5), (1.0, 5.0)]:
        schedule = Timeline(jitter=0.1, random=random)
        schedule.restart()
        assert schedule.wait() == wait


def test_c18_child_of_a_parent_that_does_not_refresh() -> None:
    """Its rules are older than an interval, so it refreshes at once."""
    for age, wait in [(65.0, 5.0), (70.0, 0.0)]:
        schedule = Timeline(jitter=0.1, random=1.0)
        schedule.restart(age)
        assert schedule.wait() == wait
