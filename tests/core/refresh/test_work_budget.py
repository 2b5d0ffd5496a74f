"""Pauses between computations: one after every five thousand rules, whatever they are processed for."""

import pytest

from heksher_client._core.refresh.effects import Flow, Pause
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.cooperative import Work


def pauses(flow: Flow[object]) -> int:
    """Run a flow to its end, and return the number of its pauses."""
    effects = list(flow)
    assert effects == [Pause()] * len(effects)
    return len(effects)


def work_in_steps(*steps: int) -> Work[str]:
    """Return a computation that processes so many rules in each step."""
    yield from steps
    return "done"


def test_others_run_after_five_thousand_rules() -> None:
    """In whatever portions. Then the count begins again."""
    budget = WorkBudget()
    assert [pauses(budget.spend(rules)) for rules in (4999, 1, 4999, 0, 7000, 4999, 1)] == [0, 1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("steps", "spent", "expected"),
    [((4999,), 0, 0), ((5000,), 0, 1), ((4000, 2000, 4000, 1000), 0, 2), ((1000,), 4000, 1), ((999,), 4000, 0)],
)
def test_a_computation_pauses_after_five_thousand_rules(steps: tuple[int, ...], spent: int, expected: int) -> None:
    """Including those that were processed immediately before it."""
    assert pauses(WorkBudget().cooperatively(work_in_steps(*steps), spent)) == expected


def test_all_computations_of_a_client_share_its_budget() -> None:
    """Many small settings are as much work as a large one. The result of each computation is returned."""
    budget = WorkBudget()
    assert pauses(budget.spend(3000)) == 0
    assert pauses(budget.cooperatively(work_in_steps(1999))) == 0
    flow = budget.cooperatively(work_in_steps(1, 4999))
    assert next(flow) == Pause()
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert end.value.value == "done"
    assert pauses(budget.spend(1)) == 1
