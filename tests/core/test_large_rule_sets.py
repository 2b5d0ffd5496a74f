"""Large rule sets: they are indexed in steps, between which others run, and small ones are not."""

import pytest

from heksher_client import Reason, Rule
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet

FEATURES = ("environment", "user", "theme")
STEP_SIZE = 100
"""The clients process 10,000 rules in a step, of which tests would take seconds."""


def rules(features: tuple[str, ...], count: int) -> list[Rule[int]]:
    return [Rule({feature: f"{feature}{number}" for feature in features}, number, number) for number in range(count)]


@pytest.mark.parametrize("features", [FEATURES[:1], FEATURES[:2], FEATURES])
def test_a_large_rule_set_is_indexed_in_steps(features: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them processes so many rules, or half as many where that takes longer; all rules are found afterwards."""
    for module in ("rule_index", "rule_set"):
        monkeypatch.setattr(f"heksher_client._core.settings.{module}.STEP_SIZE", STEP_SIZE)
    many = rules(features, 2 * STEP_SIZE + 1)
    work = RuleSet.build_in_steps(group_by_features(many), FEATURES, -1, Reason.SERVER_DEFAULT)
    steps = []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            rule_set, duplicates = end.value
            break
    assert set(steps) <= {STEP_SIZE, STEP_SIZE // 2}
    assert steps.count(STEP_SIZE) == 2
    assert (len(rule_set), duplicates) == (len(many), [])
    last = {feature: f"{feature}{2 * STEP_SIZE}" for feature in FEATURES}
    assert rule_set.resolve(last) == 2 * STEP_SIZE


@pytest.mark.parametrize("features", [FEATURES[:1], FEATURES[:2], FEATURES])
def test_a_small_rule_set_is_indexed_in_one_step(features: tuple[str, ...]) -> None:
    """A pause for each of thousands of settings would take longer than their rules."""
    few = rules(features, 100)
    assert list(RuleSet.build_in_steps(group_by_features(few), FEATURES, -1, Reason.SERVER_DEFAULT)) == []
