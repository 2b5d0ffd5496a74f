"""Snapshots: all reads inside a `pinned()` block use the rules from the start of the block."""

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
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.forks import exited_successfully, fork_and_check

USER: ContextVar[str] = ContextVar("user")


@pytest.fixture
def settings() -> list[Setting[int]]:
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
    """Close the scopes that a test left open, so that they do not affect other tests, and fail the test."""
    yield
    left = [scope for opened in snapshot._open for scope in opened.scopes]
    for scope in left:
        scope.close()
    snapshot.detach()
    assert not left


def test_reads_inside_a_block_use_the_rules_from_its_start(settings: list[Setting[int]], defaults: Defaults) -> None:
    """However many updates follow. Reads outside of the block, and after it, use the latest rules."""
    publish(settings, defaults, 1)
    assert read(settings) == [1, 1]
    outside = copy_context()
    with pinned():
        assert read(settings) == [1, 1]
        for value in (2, 3):
            publish(settings, defaults, value)
            assert read(settings) == [1, 1]
            assert outside.run(read, settings) == [value, value]
            assert read(settings) == [1, 1]
        assert [setting.explain().value for setting in settings] == [1, 1]
        assert settings[0].get(user="tom") == -1
        assert outside.run(lambda: settings[0].get(user="tom")) == -3
    assert read(settings) == [3, 3]


def test_a_block_does_not_affect_the_context_of_reads(settings: list[Setting[int]], defaults: Defaults) -> None:
    """Context variables, arguments and defaults that are set inside the block apply."""
    publish(settings, defaults, 1)
    with pinned():
        publish(settings, defaults, 2)
        token = USER.set("tom")
        assert read(settings) == [-1, -1]
        USER.reset(token)
        defaults.update({"user": "tom"})
        assert read(settings) == [-1, -1]
        with pytest.raises(MissingContextError):
            settings[0].get(theme=None)  # type: ignore[arg-type]


def test_reads_inside_a_block_that_began_before_any_client_return_declared_defaults(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """In any context, like reads before the block."""
    with pinned():
        publish(settings, defaults, 2)
        assert read(settings) == [0, 0]
    assert read(settings) == [2, 2]


def test_a_block_inside_a_block_uses_the_snapshot_of_the_outer_one(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """A function that uses a block can be called inside another block."""
    publish(settings, defaults, 1)
    with pinned():
        publish(settings, defaults, 2)
        with pinned():
            assert read(settings) == [1, 1]
            publish(settings, defaults, 3)
        assert read(settings) == [1, 1]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_blocks_that_began_at_different_times_see_different_rules(
    settings: list[Setting[int]], defaults: Defaults, order: tuple[int, ...]
) -> None:
    """The rules that are retained for them are released when the last of them ends, in any order."""
    blocks = {}
    for value in (1, 2, 3):
        publish(settings, defaults, value)
        blocks[value] = context, pin = copy_context(), pinned()
        context.run(pin.__enter__)
    publish(settings, defaults, 4)
    for seen in order:
        context, pin = blocks[seen]
        assert context.run(read, settings) == [seen, seen]
        assert read(settings) == [4, 4]
        context.run(pin.__exit__, None, None, None)
        assert context.run(read, settings) == [4, 4]
    assert not any(entry_of(setting)._retained_by for setting in settings)


def test_a_block_keeps_its_snapshot_if_the_outer_block_ends_first(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """For example in a task that a request started and did not wait for."""
    publish(settings, defaults, 1)
    outer, inner = pinned(), pinned()
    outer.__enter__()
    task = copy_context()
    task.run(inner.__enter__)
    publish(settings, defaults, 2)
    outer.__exit__(None, None, None)
    assert read(settings) == [2, 2]
    assert task.run(read, settings) == [1, 1]
    task.run(inner.__exit__, None, None, None)
    assert task.run(read, settings) == [2, 2]


def test_blocks_that_begin_between_two_updates_share_a_snapshot(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """An update retains the previous rules once, however many requests are in progress."""
    publish(settings, defaults, 1)
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    assert len(snapshot._open) == 1
    publish(settings, defaults, 2)
    with pinned():
        assert len(snapshot._open) == 2
    assert len(snapshot._open) == 1
    left, pin = contexts.pop()
    later = left.copy()
    left.run(pin.__exit__, None, None, None)
    outliving = pinned()
    later.run(outliving.__enter__)
    assert later.run(read, settings) == [2, 2]
    later.run(outliving.__exit__, None, None, None)
    for context, pin in contexts:
        assert context.run(read, settings) == [1, 1]
        context.run(pin.__exit__, None, None, None)


def test_threads_can_share_one_context_manager(settings: list[Setting[int]], defaults: Defaults) -> None:
    """Each thread ends its own block."""
    publish(settings, defaults, 1)
    first, second, pin = copy_context(), copy_context(), pinned()
    first.run(pin.__enter__)
    publish(settings, defaults, 2)
    second.run(pin.__enter__)
    publish(settings, defaults, 3)
    first.run(pin.__exit__, None, None, None)
    assert (first.run(read, settings), second.run(read, settings)) == ([3, 3], [2, 2])
    second.run(pin.__exit__, None, None, None)


def test_a_task_that_outlives_a_block_reads_the_latest_rules(settings: list[Setting[int]], defaults: Defaults) -> None:
    """It can begin a block of its own."""
    publish(settings, defaults, 1)
    with pinned():
        later = copy_context()
        publish(settings, defaults, 2)
    assert later.run(read, settings) == [2, 2]

    def read_in_own_block() -> list[int]:
        with pinned():
            publish(settings, defaults, 3)
            return read(settings)

    assert later.run(read_in_own_block) == [2, 2]

    other, pin = copy_context(), pinned()
    other.run(pin.__enter__)
    publish(settings, defaults, 4)
    assert later.run(read, settings) == [4, 4]
    other.run(pin.__exit__, None, None, None)


def test_a_block_can_end_in_another_context(settings: list[Setting[int]], defaults: Defaults) -> None:
    """For example in a generator that a framework runs in several contexts."""
    publish(settings, defaults, 1)
    first, second = copy_context(), copy_context()
    pin = pinned()
    first.run(pin.__enter__)
    publish(settings, defaults, 2)
    second.run(pin.__exit__, None, None, None)
    assert first.run(read, settings) == [2, 2]


@pytest.mark.anyio
async def test_a_block_applies_across_awaits_and_in_tasks_that_begin_inside(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """It does not apply in other tasks."""
    publish(settings, defaults, 1)
    updated = asyncio.Event()

    async def later() -> list[int]:
        await updated.wait()
        return read(settings)

    outside = asyncio.create_task(later())
    with pinned():
        inside = asyncio.create_task(later())
        publish(settings, defaults, 2)
        updated.set()
        assert await inside == [1, 1]
        assert await asyncio.to_thread(read, settings) == [1, 1]
        assert await outside == [2, 2]


def test_getters_check_the_scope_only_while_rules_are_retained(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """At other times their code does not refer to it."""

    def checks_scope() -> bool:
        read(settings)
        return "_scope" in settings[0].get.__code__.co_names

    publish(settings, defaults, 1)
    assert not checks_scope()
    outside = copy_context()
    with pinned():
        assert not checks_scope()
        publish(settings, defaults, 2)
        assert outside.run(checks_scope)
    assert not checks_scope()


def test_a_snapshot_that_begins_during_an_update_sees_all_of_it(
    settings: list[Setting[int]], defaults: Defaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for an update in another thread, but not in the same thread, for example in a finalizer."""
    publish(settings, defaults, 1)
    replace_published = Entry.replace_published
    inside: list[list[int]] = []

    def pin() -> None:
        USER.set("jim")
        with pinned():
            inside.append(read(settings))

    thread = threading.Thread(target=pin)

    def pin_after(entry: Entry[int], published: PublishedRules[int]) -> None:
        replace_published(entry, published)
        if entry.setting is settings[0]:
            thread.start()
            with pinned():
                settings[0].get()

    monkeypatch.setattr(Entry, "replace_published", pin_after)
    publish(settings, defaults, 2)
    thread.join()
    assert inside == [[2, 2]]


def test_the_context_manager_is_reentrant_and_reusable(settings: list[Setting[int]], defaults: Defaults) -> None:
    """It can be entered again inside its block, and after it."""
    publish(settings, defaults, 1)
    pin = pinned()
    with pin:
        publish(settings, defaults, 2)
        with pin:
            assert read(settings) == [1, 1]
        assert read(settings) == [1, 1]
    with pin:
        publish(settings, defaults, 3)
        assert read(settings) == [2, 2]


def test_the_cost_of_an_update_does_not_depend_on_the_number_of_scopes(
    settings: list[Setting[int]], defaults: Defaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of each setting is renewed once, and once more when the last scope of the snapshot ends."""
    renewed: list[Setting[int]] = []
    renew_state = Entry._renew_state

    def record(entry: Entry[int]) -> None:
        renewed.append(entry.setting)
        renew_state(entry)

    monkeypatch.setattr(Entry, "_renew_state", record)
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    publish(settings, defaults, 2)
    assert renewed == settings
    for context, pin in contexts:
        context.run(pin.__exit__, None, None, None)
    assert renewed == [*settings, *settings]


def test_reads_inside_a_block_never_mix_two_updates(settings: list[Setting[int]], defaults: Defaults) -> None:
    """In thousands of blocks in two threads, during continuous updates, both settings have equal values."""
    publish(settings, defaults, 1)
    mixed: SimpleQueue[Any] = SimpleQueue()
    is_over = threading.Event()

    def pin(count: int) -> None:
        USER.set("jim")
        for _ in range(count):
            with pinned():
                values = [setting.get() for setting in (*settings, *settings[::-1])]
            if len(set(values)) > 1:
                mixed.put(values)

    def update() -> None:
        value = 1
        while not is_over.is_set():
            value += 1
            publish(settings, defaults, value)

    threads = [threading.Thread(target=pin, args=[3000]) for _ in range(2)]
    updater = threading.Thread(target=update)
    for thread in (updater, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    updater.join()
    assert mixed.empty()
    assert not any(entry_of(setting)._retained_by for setting in settings)


def test_a_forked_child_keeps_only_the_scope_of_the_forking_thread(
    settings: list[Setting[int]], defaults: Defaults
) -> None:
    """It does not wait for an update that is in progress in another thread of the parent."""
    publish(settings, defaults, 1)
    other, other_context = pinned(), copy_context()
    other_context.run(other.__enter__)
    locked, release = threading.Event(), threading.Event()

    def hold_lock() -> None:
        with snapshot.update_lock():
            locked.set()
            release.wait(TIMEOUT_SECONDS)

    lock_holder = threading.Thread(target=hold_lock)

    def keeps_own_scope() -> bool:
        return [len(opened.scopes) for opened in snapshot._open] == [1] and read(settings) == [1, 1]

    with pinned():
        publish(settings, defaults, 2)
        lock_holder.start()
        assert locked.wait(TIMEOUT_SECONDS)
        try:
            child = fork_and_check(keeps_own_scope)
        finally:
            release.set()
            lock_holder.join()
    assert exited_successfully(child)
    other_context.run(other.__exit__, None, None, None)


def test_after_a_fork_the_scopes_of_other_threads_are_closed(
    settings: list[Setting[int]], defaults: Defaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots of this thread stay open, also around an inner one. The lock that another thread held is replaced."""
    monkeypatch.setattr(snapshot, "_update_lock", held := snapshot.update_lock())
    publish(settings, defaults, 1)
    other, other_context = pinned(), copy_context()
    other_context.run(other.__enter__)
    with pinned():
        publish(settings, defaults, 2)
        with pinned():
            snapshot.after_fork()
            assert snapshot.update_lock() is not held
            assert read(settings) == [1, 1]
            assert other_context.run(read, settings) == [2, 2]
        publish(settings, defaults, 3)
        assert read(settings) == [1, 1]
    assert read(settings) == [3, 3]
    other_context.run(other.__exit__, None, None, None)


def test_a_long_block_retains_one_rule_set_of_each_setting(settings: list[Setting[int]], defaults: Defaults) -> None:
    """However often rules are replaced."""
    with pinned():
        for value in range(100):
            publish(settings[:1], defaults, value)
        publish(settings, defaults, 100)
        scope = SCOPE.get()
        assert scope is not None
        assert len(scope.retained) == 2
        assert read(settings) == [0, 0]


def test_reads_of_stubbed_settings_use_the_snapshot(settings: list[Setting[int]]) -> None:
    """A test can assign rules inside a block to simulate an update."""
    with SyncStubHeksherClient() as stub, pinned():
        stub.set_defaults(user="jim", theme="dark")
        stub[settings[0]].rules = 5
        assert settings[0].get() == 0
    assert SCOPE.get() is None
