"""The difference between rule sets, and how callbacks and iterators receive it."""

import asyncio
import gc
from itertools import pairwise
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Changed, Setting, UnknownContextError
from heksher_client._core.settings.changes import Changes, PendingChanges, diff_rules
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.setting import Change

FEATURES = ["user", "theme"]


def rule_set(rules: dict[tuple[str, str], int], default: int = 0, *, reverse: bool = False) -> RuleSet[int]:
    """Rules by user and theme, where nothing stands for a wildcard."""
    made = [
        Rule({f: v for f, v in zip(FEATURES, key, strict=True) if v}, value, index)
        for index, (key, value) in enumerate(rules.items())
    ]
    order = FEATURES[::-1] if reverse else FEATURES
    return RuleSet.build(group_by_features(made), order, default, Reason.SERVER_DEFAULT)[0]


def compare(before: RuleSet[int], after: RuleSet[int]) -> Change[int]:
    return run_to_end(diff_rules(Setting("s", int, FEATURES, 0), before, after))


def test_a_change_has_the_added_removed_and_changed_rules() -> None:
    """Rules are identified by their conditions. One with another id and the same value has not changed."""
    before = rule_set({("jim", ""): 1, ("tom", ""): 2, ("", ""): 3, ("", "dark"): 4})
    after = rule_set({("ann", ""): 5, ("jim", ""): 7, ("jim", "dark"): 6, ("", ""): 3}, default=9)
    change = compare(before, after)
    assert [(dict(rule.match_conditions), rule.value) for rule in change.added] == [
        ({"user": "jim", "theme": "dark"}, 6),
        ({"user": "ann"}, 5),
    ]
    assert [(dict(rule.match_conditions), rule.value, rule.rule_id) for rule in change.removed] == [
        ({"user": "tom"}, 2, 1),
        ({"theme": "dark"}, 4, 3),
    ]
    assert [(was.value, now.value, was.rule_id, now.rule_id) for was, now in change.changed] == [(1, 7, 0, 1)]
    assert change.default == Changed(0, 9)
    assert change.missed == 0
    assert change


CONDITIONS = st.tuples(st.sampled_from(["", "jim", "tom", "ann"]), st.sampled_from(["", "dark", "light"]))
RULES = st.dictionaries(CONDITIONS, st.integers(0, 3))


@given(before=RULES, after=RULES, reverse=st.booleans())
def test_any_difference_applied_to_what_was_gives_what_is(
    before: dict[tuple[str, str], int], after: dict[tuple[str, str], int], reverse: bool
) -> None:
    """And there is none where nothing differs, whatever the order of the context features."""
    change = compare(rule_set(before), rule_set(after, reverse=reverse))

    def key(rule: Rule[int]) -> tuple[str, str]:
        return rule.match_conditions.get("user", ""), rule.match_conditions.get("theme", "")

    made = dict(before)
    for rule in change.removed:
        assert made.pop(key(rule)) == rule.value
    for rule in change.added:
        assert key(rule) not in made
        made[key(rule)] = rule.value
    for was, now in change.changed:
        assert made[key(was)] == was.value != now.value
        made[key(now)] = now.value
    assert made == after
    assert bool(change) == (before != after)


def test_large_rule_sets_are_compared_bit_by_bit() -> None:
    """Others run in between."""
    before = rule_set({(f"u{n}", ""): n for n in range(10_000)})
    after = rule_set({(f"u{n}", ""): n for n in range(1, 10_001)})
    steps = list(diff_rules(Setting("s", int, FEATURES, 0), before, after))
    assert len(steps) >= 8
    assert sum(steps) <= 20_000


# -- callbacks ---------------------------------------------------------------------------------------------------------


class Cache:
    def clear(self, change: Change[Any]) -> None: ...


def test_a_bound_method_goes_with_its_owner() -> None:
    """A setting at module level would keep everything alive that ever listened to it."""
    listeners = CallbackRegistry()
    cache = Cache()
    listeners.add(cache.clear)
    assert list(listeners.functions()) == [cache.clear]
    gone = ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    assert not listeners
    assert list(listeners.functions()) == []
    listeners.add(print)
    assert list(listeners.functions()) == [print]


def test_what_cannot_be_referred_to_weakly_is_kept() -> None:
    """It is better than to lose it."""

    class Slotted:
        __slots__ = ()

        def hear(self, change: Change[Any]) -> None: ...

    listeners = CallbackRegistry()
    listeners.add(Slotted().hear)
    gc.collect()
    assert len(list(listeners.functions())) == 1


def test_a_callback_is_removed_once_for_each_time_that_it_was_added() -> None:
    """And nothing happens where there is none."""
    listeners = CallbackRegistry()
    listeners.add(print)
    listeners.add(print)
    listeners.remove(print)
    assert list(listeners.functions()) == [print]
    listeners.add(repr)
    listeners.remove(repr)
    listeners.remove(print)
    listeners.remove(print)
    assert not listeners


def test_what_cannot_be_called_is_refused() -> None:
    """And what would have to be awaited, with what to do instead."""
    setting = Setting("s", int, ["user"], 0)

    async def later(change: Change[int]) -> None: ...

    class Later:
        async def __call__(self, change: Change[int]) -> None: ...

    with pytest.raises(TypeError, match=r"changes\(\)"):
        setting.on_change(Later())
    with pytest.raises(TypeError, match="must be a function"):
        setting.on_change(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"changes\(\)"):
        setting.on_change(later)
    Setting("t", int, ["user"], 0).off_change(later)
    setting.off_change(later)
    setting.on_change(print)
    setting.off_change(print)


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_changes_that_were_not_taken_are_merged_by_setting() -> None:
    """In the order of the last change, with the number of changes that were merged into it."""
    settings = [Setting(name, int, FEATURES, 0) for name in ("a", "b")]
    changes = Changes(pending := PendingChanges())
    sets = [rule_set({("jim", ""): value}) for value in range(4)]
    for before, after in pairwise(sets):
        for setting in settings if after is sets[1] else settings[:1]:
            pending.push(run_to_end(diff_rules(setting, before, after)))
    changes.close()
    second, first = list(changes)
    assert (first.setting, first.missed) == (settings[0], 2)
    assert [(was.value, now.value) for was, now in first.changed] == [(0, 3)]
    assert (second.setting, second.missed) == (settings[1], 0)


@given(sets=st.lists(st.tuples(RULES, st.integers(0, 1)), min_size=2, max_size=5))
def test_a_merged_change_is_the_difference_between_the_first_and_the_last_state(
    sets: list[tuple[dict[tuple[str, str], int], int]],
) -> None:
    """Whatever was added and removed in between."""
    setting = Setting("s", int, FEATURES, 0)
    states = [rule_set(rules, default) for rules, default in sets]
    changes = Changes(pending := PendingChanges())
    for before, after in pairwise(states):
        pending.push(run_to_end(diff_rules(setting, before, after)))
    told, whole = next(changes), run_to_end(diff_rules(setting, states[0], states[-1]))

    def known(rule: Rule[int]) -> tuple[Any, int]:
        return frozenset(rule.match_conditions.items()), rule.value

    assert set(map(known, told.added)) == set(map(known, whole.added))
    assert set(map(known, told.removed)) == set(map(known, whole.removed))
    assert {(known(was), known(now)) for was, now in told.changed} == {
        (known(was), known(now)) for was, now in whole.changed
    }
    assert (told.default, told.missed) == (whole.default, len(sets) - 2)


def test_all_tasks_that_wait_for_one_iterator_are_woken() -> None:
    """One that has taken a change wakes the next."""
    settings = [Setting(name, int, FEATURES, 0) for name in ("a", "b")]
    changes = Changes(pending := PendingChanges())

    async def take() -> Setting[Any]:
        return (await anext(changes)).setting

    async def both() -> list[Setting[Any]]:
        waiting = [asyncio.ensure_future(take()) for _ in settings]
        await asyncio.sleep(0)
        for setting in settings:
            pending.push(Change(setting, added=(Rule({}, 1),)))
        return await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert asyncio.run(both()) == settings


def test_a_watch_yields_nan_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN does not equal itself, but the same NaN is not a change."""
    setting, nan = Setting("s", float, ["user"], 0.0), float("nan")
    monkeypatch.setattr(setting, "get", lambda **_: nan)
    watch = setting.watch(user="jim")
    assert next(watch) is nan
    watch.close()
    assert list(watch) == []


def test_merged_changes_may_cancel_each_other_out() -> None:
    """Then the change is empty, and false."""
    setting = Setting("s", int, FEATURES, 0)
    one, other = rule_set({}), rule_set({("jim", ""): 1})
    changes = Changes(pending := PendingChanges())
    pending.push(run_to_end(diff_rules(setting, one, other)))
    pending.push(run_to_end(diff_rules(setting, other, one)))
    change = next(changes)
    assert not change
    assert change.missed == 1


def test_the_last_change_comes_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may push its last change and close while another thread looks for a change."""
    setting = Setting("s", int, FEATURES, 0)
    one, other = rule_set({}), rule_set({("jim", ""): 1})
    changes = Changes(PendingChanges())
    take = PendingChanges.take

    def late(pending: PendingChanges) -> Change[Any]:
        monkeypatch.undo()
        nothing = take(pending)
        pending.push(run_to_end(diff_rules(setting, one, other)))
        changes.close()
        return nothing

    monkeypatch.setattr(PendingChanges, "take", late)
    assert [len(change.added) for change in changes] == [1]


def test_watching_an_unknown_feature_is_an_error() -> None:
    """At the call, and not in the iteration."""
    with pytest.raises(UnknownContextError):
        Setting("s", int, ["user"], 0).watch(theme="dark")
