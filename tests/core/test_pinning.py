"""One view of all settings for a while."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any

import pytest

from heksher_client import MissingContextError, Setting, pinned
from heksher_client._core.settings import snapshot
from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import View
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.snapshot import PIN, publish
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


def view(defaults: Defaults, value: int, **conditions: str) -> View[int]:
    rules, _ = RuleSet.build(
        group_by_features([Rule(conditions, value)]), ["user", "theme"], -value, Reason.SERVER_DEFAULT
    )
    return View(rules, defaults)


def place(settings: list[Setting[int]], defaults: Defaults, value: int) -> None:
    publish({setting._reader: view(defaults, value, user="jim") for setting in settings})


def read(settings: list[Setting[int]]) -> list[int]:
    """As often as it takes until a read is a fast one."""
    values = [[setting.get() for setting in settings] for _ in range(4)]
    assert all(value == values[0] for value in values)
    return values[0]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not snapshot._moments


def test_inside_a_pin_all_settings_have_the_rules_of_its_beginning(two: list[Setting[int]], defaults: Defaults) -> None:
    """However many updates there are; outside, and after it, the newest."""
    place(two, defaults, 1)
    assert read(two) == [1, 1]
    outside = copy_context()
    with pinned():
        assert read(two) == [1, 1]
        for value in (2, 3):
            place(two, defaults, value)
            assert read(two) == [1, 1]
            assert outside.run(read, two) == [value, value]
            assert read(two) == [1, 1]
        assert [setting.explain().value for setting in two] == [1, 1]
        assert two[0].get(user="tom") == -1
        assert outside.run(lambda: two[0].get(user="tom")) == -3
    assert read(two) == [3, 3]


def test_the_context_is_that_of_each_read(two: list[Setting[int]], defaults: Defaults) -> None:
    """Context variables, what callers give, and defaults that are set inside."""
    place(two, defaults, 1)
    with pinned():
        place(two, defaults, 2)
        token = USER.set("tom")
        assert read(two) == [-1, -1]
        USER.reset(token)
        defaults.update({"user": "tom"})
        assert read(two) == [-1, -1]
        with pytest.raises(MissingContextError):
            two[0].get(theme=None)  # type: ignore[arg-type]


def test_a_pin_from_before_any_client_gives_declared_defaults(two: list[Setting[int]], defaults: Defaults) -> None:
    """Whatever the context, as reads did then."""
    with pinned():
        place(two, defaults, 2)
        assert read(two) == [0, 0]
    assert read(two) == [2, 2]


def test_a_pin_inside_a_pin_has_the_moment_of_the_outer_one(two: list[Setting[int]], defaults: Defaults) -> None:
    """A function that pins for itself can be called by one that has."""
    place(two, defaults, 1)
    with pinned():
        place(two, defaults, 2)
        with pinned():
            assert read(two) == [1, 1]
            place(two, defaults, 3)
        assert read(two) == [1, 1]


def test_pins_of_different_moments_see_what_was_there_then(two: list[Setting[int]], defaults: Defaults) -> None:
    """And what they need is let go with the last of them."""
    contexts = []
    pins = []
    for value in (1, 2, 3):
        place(two, defaults, value)
        contexts.append(context := copy_context())
        pins.append(pin := pinned())
        context.run(pin.__enter__)
    place(two, defaults, 4)
    for seen, context, pin in zip((1, 2, 3), contexts, pins, strict=True):
        assert context.run(read, two) == [seen, seen]
        assert read(two) == [4, 4]
        context.run(pin.__exit__, None, None, None)
        assert context.run(read, two) == [4, 4]
    assert not any(setting._reader._is_held for setting in two)


def test_a_block_keeps_the_moment_that_it_began_in_though_the_outer_one_ends_first(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """A task that pins for itself, begun by a request that is answered before."""
    place(two, defaults, 1)
    outer, inner = pinned(), pinned()
    outer.__enter__()
    task = copy_context()
    task.run(inner.__enter__)
    place(two, defaults, 2)
    outer.__exit__(None, None, None)
    assert read(two) == [2, 2]
    assert task.run(read, two) == [1, 1]
    task.run(inner.__exit__, None, None, None)
    assert task.run(read, two) == [2, 2]


def test_blocks_of_one_moment_share_what_is_kept(two: list[Setting[int]], defaults: Defaults) -> None:
    """However many requests there are, an update keeps what was there before once."""
    place(two, defaults, 1)
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    assert len(snapshot._moments) == 1
    place(two, defaults, 2)
    with pinned():
        assert len(snapshot._moments) == 2
    assert len(snapshot._moments) == 1
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


def test_threads_may_share_what_pins(two: list[Setting[int]], defaults: Defaults) -> None:
    """Each leaves the block that it has entered."""
    place(two, defaults, 1)
    first, second, pin = copy_context(), copy_context(), pinned()
    first.run(pin.__enter__)
    place(two, defaults, 2)
    second.run(pin.__enter__)
    place(two, defaults, 3)
    first.run(pin.__exit__, None, None, None)
    assert (first.run(read, two), second.run(read, two)) == ([3, 3], [2, 2])
    second.run(pin.__exit__, None, None, None)


def test_what_outlives_a_pin_reads_what_is_newest(two: list[Setting[int]], defaults: Defaults) -> None:
    """A task that was begun inside, say; and it may pin for itself."""
    place(two, defaults, 1)
    with pinned():
        later = copy_context()
        place(two, defaults, 2)
    assert later.run(read, two) == [2, 2]

    def pin_again() -> list[int]:
        with pinned():
            place(two, defaults, 3)
            return read(two)

    assert later.run(pin_again) == [2, 2]


def test_a_pin_that_ends_in_another_context_is_over(two: list[Setting[int]], defaults: Defaults) -> None:
    """As that of a generator may, which a framework runs in pieces."""
    place(two, defaults, 1)
    first, second = copy_context(), copy_context()
    pin = pinned()
    first.run(pin.__enter__)
    place(two, defaults, 2)
    second.run(pin.__exit__, None, None, None)
    assert first.run(read, two) == [2, 2]


@pytest.mark.anyio
async def test_a_pin_holds_across_awaits_and_in_tasks_that_begin_inside(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """And not in those that run beside it."""
    place(two, defaults, 1)
    updated = asyncio.Event()

    async def later() -> list[int]:
        await updated.wait()
        return read(two)

    beside = asyncio.create_task(later())
    with pinned():
        inside = asyncio.create_task(later())
        place(two, defaults, 2)
        updated.set()
        assert await inside == [1, 1]
        assert await asyncio.to_thread(read, two) == [1, 1]
        assert await beside == [2, 2]


def test_the_next_read_after_the_pins_is_as_cheap_as_ever(two: list[Setting[int]], defaults: Defaults) -> None:
    """Only while a pin needs what was replaced is there code that looks for it."""

    def looks_for_pins() -> bool:
        read(two)
        return "_pin" in two[0]._reader.get.__code__.co_names

    place(two, defaults, 1)
    assert not looks_for_pins()
    outside = copy_context()
    with pinned():
        assert not looks_for_pins()
        place(two, defaults, 2)
        assert outside.run(looks_for_pins)
    assert not looks_for_pins()


def test_a_pin_that_begins_in_the_middle_of_an_update_sees_all_of_it(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """Another thread that is at it is waited for; the same one, as a finalizer may be, sees what it has kept."""
    place(two, defaults, 1)
    first = two[0]._reader
    placed = first.place
    inside: list[list[int]] = []

    def pin() -> None:
        USER.set("jim")
        with pinned():
            inside.append(read(two))

    thread = threading.Thread(target=pin)

    def pin_after(new: View[int]) -> None:
        placed(new)
        thread.start()
        with pinned():
            two[0].get()

    vars(first)["place"] = pin_after
    place(two, defaults, 2)
    thread.join()
    assert inside == [[2, 2]]


def test_a_pin_can_be_entered_again(two: list[Setting[int]], defaults: Defaults) -> None:
    """Inside itself, and after it."""
    place(two, defaults, 1)
    pin = pinned()
    with pin:
        place(two, defaults, 2)
        with pin:
            assert read(two) == [1, 1]
        assert read(two) == [1, 1]
    with pin:
        place(two, defaults, 3)
        assert read(two) == [2, 2]


def test_what_an_update_costs_does_not_depend_on_the_pins(two: list[Setting[int]], defaults: Defaults) -> None:
    """Each setting is renewed once, and once more when the last pin of its time has ended."""
    renewed: list[Setting[int]] = []
    for setting in two:
        renew = setting._reader.renew

        def note(setting: Setting[int] = setting, renew: Callable[[], None] = renew) -> None:
            renewed.append(setting)
            renew()

        vars(setting._reader)["renew"] = note
    contexts = [(copy_context(), pinned()) for _ in range(10)]
    for context, pin in contexts:
        context.run(pin.__enter__)
    place(two, defaults, 2)
    assert renewed == two
    for context, pin in contexts:
        context.run(pin.__exit__, None, None, None)
    assert renewed == [*two, *two]


def test_threads_that_pin_never_see_two_moments(two: list[Setting[int]], defaults: Defaults) -> None:
    """Thousands of pins in two threads, with updates all the time: both settings always have the same number."""
    place(two, defaults, 1)
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
            place(two, defaults, value)

    threads = [threading.Thread(target=pin, args=[3000]) for _ in range(2)]
    updating = threading.Thread(target=update)
    for thread in (updating, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    updating.join()
    assert wrong.empty()
    assert not any(setting._reader._is_held for setting in two)


def test_a_child_of_a_fork_keeps_its_own_pin_and_none_of_other_threads(
    two: list[Setting[int]], defaults: Defaults
) -> None:
    """Nor does it wait for an update that another thread was at."""
    place(two, defaults, 1)
    other, other_context = pinned(), copy_context()
    other_context.run(other.__enter__)
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with snapshot._lock():
            locked.set()
            release.wait(10)

    holding = threading.Thread(target=hold)

    def goes_on() -> bool:
        return [len(moment.pins) for moment in snapshot._moments] == [1] and read(two) == [1, 1]

    with pinned():
        place(two, defaults, 2)
        holding.start()
        locked.wait(10)
        child = begun_in_child(goes_on)
        release.set()
    assert ended_well(child)
    holding.join()
    other_context.run(other.__exit__, None, None, None)


def test_a_long_pin_keeps_one_view_of_each_setting(two: list[Setting[int]], defaults: Defaults) -> None:
    """However often it is replaced meanwhile."""
    with pinned():
        for value in range(100):
            place(two[:1], defaults, value)
        place(two, defaults, 100)
        pin = PIN.get()
        assert pin is not None
        assert len(pin.views) == 2
        assert read(two) == [0, 0]


def test_stubs_can_be_pinned_as_well(two: list[Setting[int]]) -> None:
    """A test of a program that pins assigns rules as an operator would."""
    with SyncStubHeksherClient() as stub, pinned():
        stub.set_defaults(user="jim", theme="dark")
        stub[two[0]].rules = 5
        assert two[0].get() == 0
    assert PIN.get() is None
