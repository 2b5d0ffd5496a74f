"""Snapshots: inside `pinned()` all reads use the rules of one moment."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

import pytest

from heksher_client import MissingContextError, Setting, pinned
from heksher_client._core.settings import snapshot
from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import Entry, PublishedRules
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.setting import entry_of
from heksher_client._core.settings.snapshot import SCOPE
from heksher_client.testing import SyncStubHeksherClient
from tests.support.forks import begun_in_child, ended_well

USER: ContextVar[str] = ContextVar("user")


@pytest.fixture
def two() -> list[Setting[int]]:
    return [Setting(name, int, ["user", "theme"], 0) for name in ("a", "b")]


@pytest.fixture
def defaults() -> Defaults:
    defaults = Defaults()
    defaults.update({"user": USER, "theme": "dark"})
    USER.set("jim")
    return defaults


def publish(settings: list[Setting[int]], defaults: Defaults, value: int) -> None:
    """Publish a rule for jim with the value, and its negative as the default."""
    groups = group_by_features([Rule({"user": "jim"}, value)])
    rules, _ = RuleSet.build(groups, ["user", "theme"], -value, Reason.SERVER_DEFAULT)
    snapshot.publish({entry_of(setting): PublishedRules(rules, defaults) for setting in settings})


def read(settings: list[Setting[int]]) -> list[int]:
    """Read until a compiled getter is used."""
    values = [[setting.get() for setting in settings] for _ in range(4)]
    assert all(value == values[0] for value in values)
    return values[0]


@pytest.fixture(autouse=True)
def _no_snapshot_is_left_open() -> Iterator[None]:
    yield
    assert not snapshot._open


def test_inside_a_block_all_settings_have_the_rules_of_its_beginning(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """However many updates there are. Outside, and after it, they have the latest."""
    publish(two, defaults, 1)
    assert read(two) == [1, 1]
    outside = copy_context()
    with pinned():
        assert read(two) == [1, 1]
        for value in (2, 3):
            publish(two, defaults, value)
            assert read(two) == [1, 1]
            assert outside.run(read, two) == [value, value]
            assert read(two) == [1, 1]
        assert [setting.explain().value for setting in two] == [1, 1]
        assert two[0].get(user="tom") == -1
        assert outside.run(lambda: two[0].get(user="tom")) == -3
    assert read(two) == [3, 3]


def test_the_context_is_that_of_each_read(two: list[Setting[int]], defaults: Defaults) -> None:
    """Context variables, arguments, and defaults that are set inside."""
    publish(two, defaults, 1)
    with pinned():
        publish(two, defaults, 2)
        token = USER.set("tom")
        assert read(two) == [-1, -1]
        USER.reset(token)
        defaults.update({"user": "tom"})
        assert read(two) == [-1, -1]
        with pytest.raises(MissingContextError):
            two[0].get(theme=None)  # type: ignore[arg-type]


def test_a_block_that_began_before_any_client_reads_declared_defaults(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """In any context, as reads did then."""
    with pinned():
        publish(two, defaults, 2)
        assert read(two) == [0, 0]
    assert read(two) == [2, 2]


def test_a_block_inside_a_block_uses_the_snapshot_of_the_outer_one(two: list[Setting[int]], defaults: Defaults) -> None:
    """A function with a block of its own can be called inside another one."""
    publish(two, defaults, 1)
    with pinned():
        publish(two, defaults, 2)
        with pinned():
            assert read(two) == [1, 1]
            publish(two, defaults, 3)
        assert read(two) == [1, 1]


def test_blocks_that_began_at_different_times_see_different_rules(two: list[Setting[int]], defaults: Defaults) -> None:
    """What is retained for them is released with the last of them."""
    contexts = []
    pins = []
    for value in (1, 2, 3):
        publish(two, defaults, value)
        contexts.append(context := copy_context())
        pins.append(pin := pinned())
        context.run(pin.__enter__)
    publish(two, defaults, 4)
    for seen, context, pin in zip((1, 2, 3), contexts, pins, strict=True):
        assert context.run(read, two) == [seen, seen]
        assert read(two) == [4, 4]
        context.run(pin.__exit__, None, None, None)
        assert context.run(read, two) == [4, 4]
    assert not any(entry_of(setting)._retained_by for setting in two)


def test_a_block_keeps_its_snapshot_if_the_outer_block_ends_first(two: list[Setting[int]], defaults: Defaults) -> None:
    """As in a task that a request began and did not wait for."""
    publish(two, defaults, 1)
    outer, inner = pinned(), pinned()
    outer.__enter__()
    task = copy_context()
    task.run(inner.__enter__)
    publish(two, defaults, 2)
    outer.__exit__(None, None, None)
    assert read(two) == [2, 2]
    assert task.run(read, two) == [1, 1]
    task.run(inner.__exit__, None, None, None)
    assert task.run(read, two) == [2, 2]


def test_blocks_that_begin_between_two_updates_share_a_snapshot(two: list[Setting[int]], defaults: Defaults) -> None:
    """However many requests there are, an update retains the former rules once."""
    publish(two, defaults, 1)
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    assert len(snapshot._open) == 1
    publish(two, defaults, 2)
    with pinned():
        assert len(snapshot._open) == 2
    assert len(snapshot._open) == 1
    left, pin = contexts.pop()
    later = left.copy()
    left.run(pin.__exit__, None, None, None)
    outliving = pinned()
    later.run(outliving.__enter__)
    assert later.run(read, two) == [2, 2]
    later.run(outliving.__exit__, None, None, None)
    for context, pin in contexts:
        assert context.run(read, two) == [1, 1]
        context.run(pin.__exit__, None, None, None)


def test_threads_may_share_one_object(two: list[Setting[int]], defaults: Defaults) -> None:
    """Each ends the block that it began."""
    publish(two, defaults, 1)
    first, second, pin = copy_context(), copy_context(), pinned()
    first.run(pin.__enter__)
    publish(two, defaults, 2)
    second.run(pin.__enter__)
    publish(two, defaults, 3)
    first.run(pin.__exit__, None, None, None)
    assert (first.run(read, two), second.run(read, two)) == ([3, 3], [2, 2])
    second.run(pin.__exit__, None, None, None)


def test_a_task_that_outlives_a_block_reads_the_latest_rules(two: list[Setting[int]], defaults: Defaults) -> None:
    """It may begin a block of its own."""
    publish(two, defaults, 1)
    with pinned():
        later = copy_context()
        publish(two, defaults, 2)
    assert later.run(read, two) == [2, 2]

    def pin_again() -> list[int]:
        with pinned():
            publish(two, defaults, 3)
            return read(two)

    assert later.run(pin_again) == [2, 2]


def test_a_block_may_end_in_another_context(two: list[Setting[int]], defaults: Defaults) -> None:
    """As in a generator that a framework runs in several contexts."""
    publish(two, defaults, 1)
    first, second = copy_context(), copy_context()
    pin = pinned()
    first.run(pin.__enter__)
    publish(two, defaults, 2)
    second.run(pin.__exit__, None, None, None)
    assert first.run(read, two) == [2, 2]


@pytest.mark.anyio
async def test_a_block_applies_across_awaits_and_in_tasks_that_begin_inside(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """It does not apply in other tasks."""
    publish(two, defaults, 1)
    updated = asyncio.Event()

    async def later() -> list[int]:
        await updated.wait()
        return read(two)

    beside = asyncio.create_task(later())
    with pinned():
        inside = asyncio.create_task(later())
        publish(two, defaults, 2)
        updated.set()
        assert await inside == [1, 1]
        assert await asyncio.to_thread(read, two) == [1, 1]
        assert await beside == [2, 2]


def test_reads_look_for_snapshots_only_while_rules_are_retained(two: list[Setting[int]], defaults: Defaults) -> None:
    """Only then their code checks the current scope."""

    def looks_for_pins() -> bool:
        read(two)
        return "_scope" in two[0].get.__code__.co_names

    publish(two, defaults, 1)
    assert not looks_for_pins()
    outside = copy_context()
    with pinned():
        assert not looks_for_pins()
        publish(two, defaults, 2)
        assert outside.run(looks_for_pins)
    assert not looks_for_pins()


def test_a_snapshot_that_begins_during_an_update_sees_all_of_it(
    two: list[Setting[int]], defaults: Defaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for an update of another thread. In the same thread, as in a finalizer, it can begin."""
    publish(two, defaults, 1)
    replace_published = Entry.replace_published
    inside: list[list[int]] = []

    def pin() -> None:
        USER.set("jim")
        with pinned():
            inside.append(read(two))

    thread = threading.Thread(target=pin)

    def pin_after(entry: Entry[int], published: PublishedRules[int]) -> None:
        replace_published(entry, published)
        if entry.setting is two[0]:
            thread.start()
            with pinned():
                two[0].get()

    monkeypatch.setattr(Entry, "replace_published", pin_after)
    publish(two, defaults, 2)
    thread.join()
    assert inside == [[2, 2]]


def test_a_block_can_be_entered_again(two: list[Setting[int]], defaults: Defaults) -> None:
    """Inside itself, and after it."""
    publish(two, defaults, 1)
    pin = pinned()
    with pin:
        publish(two, defaults, 2)
        with pin:
            assert read(two) == [1, 1]
        assert read(two) == [1, 1]
    with pin:
        publish(two, defaults, 3)
        assert read(two) == [2, 2]


def test_the_cost_of_an_update_does_not_depend_on_the_number_of_scopes(
    two: list[Setting[int]], defaults: Defaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting is renewed once, and once more when the last scope of a snapshot ends."""
    renewed: list[Setting[int]] = []
    renew_state = Entry._renew_state

    def record(entry: Entry[int]) -> None:
        renewed.append(entry.setting)
        renew_state(entry)

    monkeypatch.setattr(Entry, "_renew_state", record)
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    publish(two, defaults, 2)
    assert renewed == two
    for context, pin in contexts:
        context.run(pin.__exit__, None, None, None)
    assert renewed == [*two, *two]


def test_a_block_never_sees_two_updates(two: list[Setting[int]], defaults: Defaults) -> None:
    """Thousands of blocks in two threads, with updates all the time: both settings always have the same number."""
    publish(two, defaults, 1)
    wrong: SimpleQueue[Any] = SimpleQueue()
    is_over = threading.Event()

    def pin(count: int) -> None:
        USER.set("jim")
        for _ in range(count):
            with pinned():
                values = [setting.get() for setting in (*two, *two[::-1])]
            if len(set(values)) > 1:
                wrong.put(values)

    def update() -> None:
        value = 1
        while not is_over.is_set():
            value += 1
            publish(two, defaults, value)

    threads = [threading.Thread(target=pin, args=[3000]) for _ in range(2)]
    updating = threading.Thread(target=update)
    for thread in (updating, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    updating.join()
    assert wrong.empty()
    assert not any(entry_of(setting)._retained_by for setting in two)


def test_the_child_of_a_fork_keeps_its_own_scope_and_none_of_other_threads(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """It does not wait for an update that another thread of the parent had begun."""
    publish(two, defaults, 1)
    other, other_context = pinned(), copy_context()
    other_context.run(other.__enter__)
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with snapshot.update_lock():
            locked.set()
            release.wait(10)

    holding = threading.Thread(target=hold)

    def continues() -> bool:
        return [len(opened.scopes) for opened in snapshot._open] == [1] and read(two) == [1, 1]

    with pinned():
        publish(two, defaults, 2)
        holding.start()
        locked.wait(10)
        child = begun_in_child(continues)
        release.set()
    assert ended_well(child)
    holding.join()
    other_context.run(other.__exit__, None, None, None)


def test_a_long_block_retains_one_rule_set_of_each_setting(two: list[Setting[int]], defaults: Defaults) -> None:
    """However often the rules are replaced."""
    with pinned():
        for value in range(100):
            publish(two[:1], defaults, value)
        publish(two, defaults, 100)
        scope = SCOPE.get()
        assert scope is not None
        assert len(scope.retained) == 2
        assert read(two) == [0, 0]


def test_a_block_applies_to_stubs(two: list[Setting[int]]) -> None:
    """A test may assign rules inside, as an operator would add them."""
    with SyncStubHeksherClient() as stub, pinned():
        stub.set_defaults(user="jim", theme="dark")
        stub[two[0]].rules = 5
        assert two[0].get() == 0
    assert SCOPE.get() is None
