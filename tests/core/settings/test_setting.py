"""Settings: what may be declared, and what a read may ask."""

import gc
import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pytest

from heksher_client import Reason, Setting, UnknownContextError
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "has-dash"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "s\n"}, "name"),
        ({"name": 5}, "name"),
        ({"alias": "bad alias"}, "alias"),
        ({"alias": "s"}, "differ"),
        ({"configurable_features": []}, "at least"),
        ({"configurable_features": "user"}, "not one string"),
        ({"configurable_features": ["user", "user"]}, "twice"),
        ({"configurable_features": ["no-dash"]}, "no-dash"),
        ({"version": "1"}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": "1.0.0"}, "version"),
        ({"metadata": {"bad key": 1}}, "metadata key"),
        ({"metadata": {1: 1}}, "metadata key"),
        ({"metadata": {"a": object()}}, "setting s"),
        ({"metadata": {"a": [float("nan")]}}, "setting s"),
        ({"metadata": {"a": date(2026, 1, 1)}}, "setting s"),
        ({"default_value": "x"}, "setting s: 'x' is not an int"),
        ({"default_value": None}, "setting s"),
        ({"type": list}, "not a setting type"),
        ({"type": str, "default_value": "\ud800"}, "setting s"),
    ],
)
def test_a_declaration_that_the_service_would_refuse_is_refused_here(changes: dict[str, Any], error: str) -> None:
    """With an error that says which part of it is wrong, and why."""
    arguments: dict[str, Any] = {"name": "s", "type": int, "configurable_features": ["user"], "default_value": 1}
    with pytest.raises((ValueError, TypeError), match=error):
        Setting(**(arguments | changes))
    assert registry.entries() == []


def test_a_declaration_says_everything_the_service_wants_to_know() -> None:
    """The alias is left out where there is none."""
    plain = Setting("a.b_1", Sequence[int], ["user", "theme"], [1])
    whole = Setting("s", int, ["user"], 1, {"team": "a", "k-1": [1]}, "old", "2.10")
    assert json.loads(entry_of(plain).declaration.body) == {
        "name": "a.b_1",
        "type": "Sequence<int>",
        "default_value": [1],
        "configurable_features": ["user", "theme"],
        "metadata": {},
        "version": "1.0",
    }
    more = json.loads(entry_of(whole).declaration.body)
    assert (more["alias"], more["version"], more["metadata"]) == ("old", "2.10", {"team": "a", "k-1": [1]})


def test_before_any_client_a_read_gives_the_declared_default() -> None:
    """Whatever the context, complete or not; but an unknown name is a mistake even then."""
    setting = Setting("s", int, ["user", "theme"], 5)
    assert setting.get() == setting.get(user="jim") == 5
    resolution = setting.explain(user="jim")
    assert (resolution.value, resolution.reason, resolution.rule) == (5, Reason.DECLARED_DEFAULT, None)
    for read in (setting.get, setting.explain):
        with pytest.raises(UnknownContextError, match="setting s has no context feature planet; it has: user, theme"):
            read(planet="mars")


def test_the_default_is_of_the_declared_type_and_cannot_be_changed() -> None:
    """A default is what it would be if it came from the service."""
    values = [1, 2]
    sequence = Setting("s", Sequence[int], ["user"], values)
    values.append(3)
    mapping = Setting("m", Mapping[str, int], ["user"], {"a": 1})
    assert sequence.get() == (1, 2)
    assert type(Setting("f", float, ["user"], 1).get()) is float
    with pytest.raises(TypeError):
        mapping.get()["b"] = 2  # type: ignore[index]


def test_a_feature_may_have_any_name() -> None:
    """Even `self`, or the name of an argument of something inside."""
    setting = Setting("s", int, ["self", "name", "contexts"], 5)
    assert setting.get(self="a", name="b", contexts="c") == 5


def test_settings_are_held_weakly_in_the_order_of_their_construction() -> None:
    """The registry knows what the program holds, and nothing else."""
    first, second, third = (Setting(name, int, ["user"], 1) for name in ("z", "a", "m"))
    assert [entry.setting for entry in registry.entries()] == [first, second, third]
    del second
    gc.collect()
    assert [entry.setting for entry in registry.entries()] == [first, third]


def test_a_setting_says_what_it_is() -> None:
    """In a debugger or a log."""
    assert repr(Setting("s", Sequence[int], ["user"], [])) == "<Setting s: Sequence<int>, version 1.0>"


def test_a_subclass_of_a_setting_is_a_setting() -> None:
    """A program may add what it likes."""

    class Audited(Setting[int]):
        reads = 0

        def get(self, /, **contexts: str) -> int:
            self.reads += 1
            return super().get(**contexts)

    setting = Audited("s", int, ["user"], 5)
    assert (setting.get(), setting.reads) == (5, 1)
