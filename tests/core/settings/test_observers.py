"""Observers of reads: each is called for all reads, or for a sample of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest

from heksher_client import Setting
from heksher_client._core.settings.observers import ReadObserver, ReadObservers
from heksher_client._core.settings.registry import registry
from heksher_client.testing import Rule, SyncStubHeksherClient

Reads = list[tuple[str, dict[str, str]]]


@contextmanager
def observed(*draws: float, sample_rate: float = 1.0) -> Iterator[Reads]:
    reads: Reads = []
    numbers = cycle(draws or (0.0,))

    def record(setting: Setting[Any], given: Mapping[str, str]) -> None:
        reads.append((setting.name, dict(given)))

    observer = ReadObserver(record, sample_rate, lambda: next(numbers))
    registry.add_observer(observer)
    yield reads
    registry.remove_observer(observer)


def test_an_observer_is_called_with_the_context_that_the_caller_passed() -> None:
    """Before there is a client and with one, on the slow path and on the fast one, and by a `get` that was kept."""
    setting = Setting("s", int, ["user", "theme"], 7)
    get = setting.get
    with observed() as reads:
        assert get(user="jim", theme="dark") == 7
        with SyncStubHeksherClient() as stub:
            stub.set_defaults(theme="dark")
            stub[setting].rules = [Rule({"user": "jim"}, 8)]
            assert [get(user="jim"), get(user="jim"), setting.get(user="ann", theme="light")] == [8, 8, 7]
            assert setting.explain(user="jim").value == 8
    assert reads == [
        ("s", {"user": "jim", "theme": "dark"}),
        ("s", {"user": "jim"}),
        ("s", {"user": "jim"}),
        ("s", {"user": "ann", "theme": "light"}),
        ("s", {"user": "jim"}),
    ]


def test_a_getter_that_was_kept_calls_an_observer_once_per_read() -> None:
    """Although it hands over to the current one: after an update, and for a feature that was first passed later."""
    setting = Setting("s", int, ["user", "theme"], 7)
    with observed() as reads, SyncStubHeksherClient() as stub:
        stub.set_defaults(user="jim", theme="dark")
        unread = setting.get
        assert setting.get() == 7
        compiled = setting.get
        assert setting.get(theme="light") == 7
        del reads[:]
        for _ in range(2):
            assert [unread(theme="x"), compiled(theme="x"), compiled(), setting.get(theme="x")] == [7, 7, 7, 7]
            assert len(reads) == 4
            stub[setting].rules = 7
            assert setting.get() == 7
            del reads[:]


def test_a_setting_that_is_declared_later_is_observed() -> None:
    """From its first read on."""
    with observed() as reads:
        setting = Setting("later", int, ["user"], 7)
        setting.get(user="jim")
    assert reads == [("later", {"user": "jim"})]


def test_each_observer_has_a_sample_of_its_own() -> None:
    """Drawn for each read."""
    setting = Setting("s", int, ["user"], 7)
    with observed(0.05, 0.5, 0.95, sample_rate=0.1) as few, observed() as all_reads:
        for _ in range(6):
            setting.get(user="jim")
    assert (len(few), len(all_reads)) == (2, 6)


def test_observers_are_drawn_among_the_reads_that_are_sampled() -> None:
    """So each has its share of all reads. Without a sample, an observer of all reads is not drawn."""
    observers, calls = ReadObservers(), []
    assert observers.most_frequent is None
    observers.notify("s", {})
    numbers = iter((0.19, 0.2))
    often = ReadObserver(lambda setting, _: calls.append(("often", setting)), 0.5, lambda: 0.99)
    seldom = ReadObserver(lambda setting, _: calls.append(("seldom", setting)), 0.1, lambda: next(numbers))
    for observer in (seldom, often):
        observers.add(observer)
    assert observers.most_frequent is often
    for read in (1, 2):
        observers.notify(read, {}, 0.5)
    assert calls == [("seldom", 1), ("often", 1), ("often", 2)]

    for observer in (seldom, often):
        observers.remove(observer)
    observers.add(ReadObserver(lambda setting, _: calls.append(("always", setting)), 1.0, lambda: 0.99))
    observers.notify(3, {})
    assert calls[-1] == ("always", 3)


def test_a_read_is_drawn_once_for_a_single_observer() -> None:
    """Before there is a client and with one. A number that equals the rate is not part of the sample."""
    setting = Setting("s", int, ["user"], 7)
    with observed(0.05, 0.1, 0.95, sample_rate=0.1) as reads:
        for _ in range(3):
            setting.get(user="jim")
        assert len(reads) == 1
        with SyncStubHeksherClient():
            for _ in range(3):
                setting.get(user="jim")
        assert len(reads) == 2
    with observed(sample_rate=0.0) as reads, observed(sample_rate=0.0):
        setting.get(user="jim")
    assert reads == []


def test_a_read_raises_the_error_of_an_observer() -> None:
    """Until it is removed."""
    setting = Setting("s", int, ["user"], 7)

    def refuse(setting: Setting[Any], given: Mapping[str, str]) -> None:
        raise AssertionError(f"{setting.name} is read")

    observer = ReadObserver(refuse, 1.0, float)
    registry.add_observer(observer)
    with pytest.raises(AssertionError, match="s is read"):
        setting.get(user="jim")
    registry.remove_observer(observer)
    assert setting.get(user="jim") == 7


def test_reads_without_observers_do_not_check_for_them() -> None:
    """Only the getters of observed settings have code for it."""
    setting = Setting("s", int, ["user"], 7)

    def notifies() -> bool:
        setting.get(user="jim")
        return "_notify" in setting.get.__code__.co_names

    with SyncStubHeksherClient():
        assert not notifies()
        with observed():
            assert notifies()
        assert not notifies()
