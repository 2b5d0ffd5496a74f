"""The registry of settings and main clients, without clients."""

import gc
from typing import Any

from heksher_client import Setting
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.registry import Registry
from heksher_client._core.settings.setting import entry_of
from heksher_client._core.settings.streams import WatchedValue


class RecordingClient:
    """A client that records what the registry requests."""

    def __init__(self) -> None:
        self.adopted: list[Entry[Any]] = []
        self.refreshes = 0

    def adopt(self, entry: Entry[Any]) -> None:
        self.adopted.append(entry)

    def refresh_soon(self) -> None:
        self.refreshes += 1


def make_entry(name: str) -> Entry[Any]:
    return entry_of(Setting(name, int, ["user"], 1))


def test_the_client_that_was_activated_last_adopts_all_settings() -> None:
    """Until it is deactivated: then the one before it adopts them. There may be no client at all."""
    registry, first, second = Registry(), RecordingClient(), RecordingClient()
    one, other = make_entry("one"), make_entry("other")
    registry.add(one)
    assert (registry.main, registry.entries()) == (None, [one])

    assert registry.activate(first) is None
    assert registry.activate(second) is first
    assert (first.adopted, second.adopted) == ([one], [one])
    registry.add(other)
    assert (registry.main, first.adopted, second.adopted) == (second, [one], [one, other])
    registry.validators_changed()
    assert (first.refreshes, second.refreshes) == (0, 2)

    for _ in range(2):
        registry.deactivate(second)
        assert (registry.main, first.adopted, first.refreshes) == (first, [one, one, other], 1)
    registry.deactivate(first)
    registry.validators_changed()
    assert (registry.main, first.refreshes, second.refreshes) == (None, 1, 2)


def test_a_client_that_is_not_the_main_one_is_deactivated_without_effect_on_settings() -> None:
    """The main client has adopted them already, and watches go on."""
    registry, first, second = Registry(), RecordingClient(), RecordingClient()
    registry.add(entry := make_entry("s"))
    entry.watch(watched := WatchedValue(int))
    for client in (first, second):
        registry.activate(client)
    registry.deactivate(first)
    assert (registry.main, len(second.adopted), second.refreshes, watched.is_closed) == (second, 1, 0, False)
    registry.deactivate(second)
    assert watched.is_closed


def test_the_generation_changes_with_each_setting() -> None:
    """An index of settings by name is up to date if the generation is the same."""
    registry = Registry()
    generations = [registry.generation]
    entries = [make_entry(name) for name in "abc"]
    for entry in entries:
        registry.add(entry)
        generations.append(registry.generation)
    assert sorted(set(generations)) == generations


def test_a_setting_leaves_nothing_behind() -> None:
    """A program may make settings without end."""
    registry = Registry()
    registry.add(make_entry("s"))
    gc.collect()
    assert (registry.entries(), registry._entries) == ([], {})
