"""Differences between rule sets, their delivery to callbacks and iterators, and watches of a value."""

import asyncio
import gc
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import pairwise
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Changed, MissingContextError, Setting, UnknownContextError
from heksher_client._core.settings.changes import Changes, PendingChanges, diff_rules
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.listeners import CallbackRegistry, deliver
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT, Reason, Rule
from heksher_client._core.settings.setting import Change, entry_of
from heksher_client._core.settings.streams import WatchedValue
from heksher_client.testing import SyncStubHeksherClient

FEATURES = ["user", "theme"]


def make_setting() -> Setting[int]:
    return Setting("s", int, FEATURES, 1)


def rule_set(rules: dict[tuple[str, str], int], default: int = 0, *, reverse: bool = False) -> RuleSet[int]:
    """Return a rule set from values by user and theme; an empty string means no condition."""
    built = [
        Rule({f: v for f, v in zip(FEATURES, key, strict=True) if v}, value, index)
        for index, (key, value) in enumerate(rules.items())
    ]
    order = FEATURES[::-1] if reverse else FEATURES
    return RuleSet.build(group_by_features(built), order, default, Reason.SERVER_DEFAULT)[0]


def compare(before: RuleSet[int], after: RuleSet[int]) -> Change[int]:
    return run_to_end(diff_rules(Setting("s", int, FEATURES, 0), before, after))


def test_a_change_has_the_added_removed_and_changed_rules() -> None:
    """Rules are identified by their conditions. A rule with another id and the same value has not changed."""
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
    assert [(old.value, new.value, old.rule_id, new.rule_id) for old, new in change.changed] == [(1, 7, 0, 1)]
    assert change.default == Changed(0, 9)
    assert change.missed == 0
    assert change


@pytest.mark.parametrize(
    "part",
    [
        {"added": (Rule({}, 1),)},
        {"removed": (Rule({}, 1),)},
        {"changed": (Changed(Rule({}, 1), Rule({}, 2)),)},
        {"default": Changed(1, 2)},
    ],
)
def test_a_change_is_true_if_it_has_any_part(part: dict[str, Any]) -> None:
    """An empty one is false, even if it has merged others."""
    assert Change(make_setting(), **part)
    assert not Change(make_setting(), missed=1)


CONDITIONS = st.tuples(st.sampled_from(["", "jim", "tom", "ann"]), st.sampled_from(["", "dark", "light"]))
RULES = st.dictionaries(CONDITIONS, st.integers(0, 3))


@given(before=RULES, after=RULES, reverse=st.booleans())
def test_a_change_applied_to_the_old_rules_gives_the_new_rules(
    before: dict[tuple[str, str], int], after: dict[tuple[str, str], int], reverse: bool
) -> None:
    """In any order of the context features. The change is empty if the rules are equal."""
    change = compare(rule_set(before), rule_set(after, reverse=reverse))

    def key(rule: Rule[int]) -> tuple[str, str]:
        return rule.match_conditions.get("user", ""), rule.match_conditions.get("theme", "")

    values = dict(before)
    for rule in change.removed:
        assert values.pop(key(rule)) == rule.value
    for rule in change.added:
        assert key(rule) not in values
        values[key(rule)] = rule.value
    for old, new in change.changed:
        assert values[key(old)] == old.value != new.value
        values[key(new)] = new.value
    assert values == after
    assert bool(change) == (before != after)


def test_a_rule_whose_features_swap_their_values_has_changed() -> None:
    """Although the rules look the same once they are nested, as the order of the features has changed too."""
    change = compare(rule_set({("x", "y"): 1}), rule_set({("y", "x"): 1}, reverse=True))
    assert [dict(rule.match_conditions) for rule in change.removed] == [{"user": "x", "theme": "y"}]
    assert [dict(rule.match_conditions) for rule in change.added] == [{"user": "y", "theme": "x"}]
    assert not change.changed


def test_large_rule_sets_are_compared_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks of the event loop can run between the steps."""
    monkeypatch.setattr("heksher_client._core.settings.changes._STEP_SIZE", 100)
    before = rule_set({(f"u{n}", ""): n for n in range(500)})
    after = rule_set({(f"u{n}", ""): n for n in range(1, 501)})
    steps = list(diff_rules(Setting("s", int, FEATURES, 0), before, after))
    assert len(steps) >= 8
    assert sum(steps) <= 1000


# -- callbacks ---------------------------------------------------------------------------------------------------------


class Cache:
    def clear(self, change: Change[Any]) -> None: ...


def test_a_bound_method_is_referenced_weakly() -> None:
    """A setting at module level would otherwise keep the owners of all its callbacks alive."""
    callbacks = CallbackRegistry()
    cache = Cache()
    callbacks.add(cache.clear)
    assert list(callbacks.functions()) == [cache.clear]
    reference = ref(cache)
    del cache
    gc.collect()
    assert reference() is None
    assert not callbacks
    assert list(callbacks.functions()) == []
    callbacks.add(print)
    assert list(callbacks.functions()) == [print]


def test_a_callback_that_does_not_support_weak_references_is_kept() -> None:
    """A strong reference is better than a lost callback."""

    class Slotted:
        __slots__ = ()

        def handle(self, change: Change[Any]) -> None: ...

    callbacks = CallbackRegistry()
    callbacks.add(Slotted().handle)
    gc.collect()
    assert len(list(callbacks.functions())) == 1


def test_a_callback_that_was_added_twice_must_be_removed_twice() -> None:
    """Removing an unknown callback does nothing."""
    callbacks = CallbackRegistry()
    callbacks.add(print)
    callbacks.add(print)
    callbacks.remove(print)
    assert list(callbacks.functions()) == [print]
    assert len(callbacks.callbacks) == 1  # the other one is freed
    callbacks.add(repr)
    callbacks.remove(repr)
    callbacks.remove(print)
    callbacks.remove(print)
    assert not callbacks


def test_an_invalid_callback_raises_a_type_error() -> None:
    """A coroutine function is invalid too; the error suggests `changes()` instead."""
    setting = Setting("s", int, ["user"], 0)

    async def coroutine_function(change: Change[int]) -> None: ...

    class AsyncCallable:
        async def __call__(self, change: Change[int]) -> None: ...

    suggestion = r"^callback must be a plain function, .*; iterate over the client's changes\(\) instead$"
    with pytest.raises(TypeError, match=suggestion):
        setting.on_change(AsyncCallable())
    with pytest.raises(TypeError, match=r"^callback must be a function, not int$"):
        setting.on_change(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=suggestion):
        setting.on_change(coroutine_function)
    Setting("t", int, ["user"], 0).off_change(coroutine_function)
    setting.off_change(coroutine_function)
    setting.on_change(print)
    setting.off_change(print)
    assert not entry_of(setting).get_listeners()


def test_a_change_is_delivered_to_all_that_receive_it() -> None:
    """To queues at once. The callbacks are returned in the order of their registries; a setting may have none."""
    setting = make_setting()
    of_setting, of_client, pending = CallbackRegistry(), CallbackRegistry(), PendingChanges()
    of_setting.add(print)
    of_client.add(repr)
    of_client.add_queue(pending)
    change = Change(setting, added=(Rule({}, 1),))
    callbacks = deliver(change, (of_setting, None, of_client))
    assert [callback.function for callback in callbacks] == [print, repr]
    assert pending.take() is change


def test_a_closed_registry_has_no_receivers() -> None:
    """A callback is not called even for a change that was delivered before; a queue that is added later is closed."""
    registry, before, later = CallbackRegistry(), PendingChanges(), PendingChanges()
    registry.add(print)
    registry.add_queue(before)
    assert (registry.is_closed, before.is_closed) == (False, False)
    (callback,) = deliver(Change(make_setting()), [registry])
    registry.close()
    registry.add_queue(later)
    assert (registry.is_closed, before.is_closed, later.is_closed) == (True, True, True)
    assert (callback.function, registry.callbacks) == (None, ())


def test_a_registry_is_true_while_it_has_receivers() -> None:
    """Queues are held weakly."""
    registry, pending = CallbackRegistry(), PendingChanges()
    assert not registry
    registry.add_queue(pending)
    assert registry
    del pending
    gc.collect()
    assert not registry
    registry.add(print)
    assert registry


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_pending_changes_are_merged_by_setting() -> None:
    """They are in the order of their last change; `missed` counts the changes that were merged into it."""
    settings = [Setting(name, int, FEATURES, 0) for name in ("a", "b")]
    changes = Changes(pending := PendingChanges())
    sets = [rule_set({("jim", ""): value}) for value in range(4)]
    for before, after in pairwise(sets):
        for setting in settings if after is sets[1] else settings[:1]:
            pending.push(run_to_end(diff_rules(setting, before, after)))
    changes.close()
    assert pending
    second, first = list(changes)
    assert not pending
    assert (first.setting, first.missed) == (settings[0], 2)
    assert [(old.value, new.value) for old, new in first.changed] == [(0, 3)]
    assert (second.setting, second.missed) == (settings[1], 0)


@given(sets=st.lists(st.tuples(RULES, st.integers(0, 1)), min_size=2, max_size=5))
def test_a_merged_change_is_the_difference_between_the_first_and_the_last_state(
    sets: list[tuple[dict[tuple[str, str], int], int]],
) -> None:
    """For any sequence of rule sets."""
    setting = Setting("s", int, FEATURES, 0)
    states = [rule_set(rules, default) for rules, default in sets]
    changes = Changes(pending := PendingChanges())
    for before, after in pairwise(states):
        pending.push(run_to_end(diff_rules(setting, before, after)))
    merged, expected = next(changes), run_to_end(diff_rules(setting, states[0], states[-1]))

    def key(rule: Rule[int]) -> tuple[Any, int]:
        return frozenset(rule.match_conditions.items()), rule.value

    assert set(map(key, merged.added)) == set(map(key, expected.added))
    assert set(map(key, merged.removed)) == set(map(key, expected.removed))
    assert {(key(old), key(new)) for old, new in merged.changed} == {
        (key(old), key(new)) for old, new in expected.changed
    }
    assert (merged.default, merged.missed) == (expected.default, len(sets) - 2)


def test_tasks_can_share_one_iterator() -> None:
    """Each change is received by one of the tasks."""
    settings = [Setting(name, int, FEATURES, 0) for name in ("a", "b")]
    changes = Changes(pending := PendingChanges())

    async def receive() -> Setting[Any]:
        return (await anext(changes)).setting

    async def receive_both() -> list[Setting[Any]]:
        waiting = [asyncio.ensure_future(receive()) for _ in settings]
        await asyncio.sleep(0)
        for setting in settings:
            pending.push(Change(setting, added=(Rule({}, 1),)))
        return await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert asyncio.run(receive_both()) == settings


@pytest.mark.anyio
async def test_all_tasks_that_share_an_iterator_end_with_the_client() -> None:
    """Each waiting task gets the end of the iteration."""
    stub = SyncStubHeksherClient()
    with stub:
        changes = stub.changes()
        tasks = [asyncio.create_task(anext(changes, None)) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == [None] * 3
    assert list(stub.changes()) == []


def test_merged_changes_can_cancel_each_other_out() -> None:
    """The merged change is empty, and false."""
    setting = Setting("s", int, FEATURES, 0)
    without_rules, with_rule = rule_set({}), rule_set({("jim", ""): 1})
    changes = Changes(pending := PendingChanges())
    pending.push(run_to_end(diff_rules(setting, without_rules, with_rule)))
    pending.push(run_to_end(diff_rules(setting, with_rule, without_rules)))
    change = next(changes)
    assert not change
    assert change.missed == 1


def test_an_iterator_yields_its_last_change_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may push its last change and close while another thread checks for changes."""
    setting = Setting("s", int, FEATURES, 0)
    without_rules, with_rule = rule_set({}), rule_set({("jim", ""): 1})
    changes = Changes(PendingChanges())
    take = PendingChanges.take

    def take_before_close(pending: PendingChanges) -> Change[Any]:
        monkeypatch.undo()
        empty = take(pending)
        pending.push(run_to_end(diff_rules(setting, without_rules, with_rule)))
        changes.close()
        return empty

    monkeypatch.setattr(PendingChanges, "take", take_before_close)
    assert [len(change.added) for change in changes] == [1]


# -- watches -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_watch_can_be_awaited_and_uses_the_context_of_its_task() -> None:
    """It may be created before a client, and ends with the client or when it is closed."""
    theme: ContextVar[str] = ContextVar("theme")
    theme.set("dark")
    setting = make_setting()
    watch = setting.watch(user="jim")
    assert await anext(watch) == 1
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(theme=theme)
        stub[setting].rules = [Rule({"theme": "dark"}, 2), Rule({"theme": "light"}, 3)]
        assert await anext(watch) == 2
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        stub[setting].rules = 5
        assert await waiting == 5
        watch.close()
        assert [value async for value in watch] == []
        other = setting.watch(user="jim")
        assert next(other) == 5
    assert list(other) == [1]  # the declared default, and then the end


def test_a_watch_raises_for_a_missing_context_value() -> None:
    """It raises when it is iterated, with the error that `get` raises."""
    setting = make_setting()
    with SyncStubHeksherClient(), pytest.raises(MissingContextError):
        next(setting.watch(user="jim"))


def test_an_abandoned_watch_is_freed() -> None:
    """The setting does not refer to it."""
    setting = make_setting()
    reference = ref(setting.watch(user="jim"))
    gc.collect()
    assert reference() is None


def test_a_watch_yields_nan_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN does not equal itself, but the same NaN is not a change."""
    setting, nan = Setting("s", float, ["user"], 0.0), float("nan")
    monkeypatch.setattr(setting, "get", lambda **_: nan)
    watch = setting.watch(user="jim")
    assert next(watch) is nan
    watch.close()
    assert list(watch) == []


def test_a_watched_value_is_new_if_it_does_not_equal_the_last_one() -> None:
    """None is a value like any other: a setting type of a program may have it."""
    values: Iterator[Any] = iter((None, None, [0], [0], None))
    value = WatchedValue(lambda: next(values))
    assert [value.take() for _ in range(5)] == [None, ABSENT, [0], ABSENT, None]


def test_watch_raises_for_an_unknown_feature() -> None:
    """The call raises, not the iteration."""
    with pytest.raises(UnknownContextError, match=r"^setting s has no context feature theme; it has: user$"):
        Setting("s", int, ["user"], 0).watch(theme="dark")
