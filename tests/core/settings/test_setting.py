"""Settings without a client: validation of declarations, and reads."""

import copy
import gc
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import pytest

from heksher_client import Reason, Setting, UnknownContextError, setting_type
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import entry_of

_NAME = "use letters, digits, underscores and dots"
_FEATURE = "is not a valid name of a context feature: use letters, digits and underscores"
_KEY = "is not a valid metadata key: use letters, digits, _ and -"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "has-dash"}, f"'has-dash' is not a valid name of a setting: {_NAME}"),
        ({"name": ""}, f"'' is not a valid name of a setting: {_NAME}"),
        ({"name": "s\n"}, rf"'s\n' is not a valid name of a setting: {_NAME}"),
        ({"name": 5}, f"5 is not a valid name of a setting: {_NAME}"),
        ({"alias": "bad alias"}, f"'bad alias' is not a valid alias of a setting: {_NAME}"),
        ({"alias": "s"}, "setting s: the alias must differ from the name"),
        ({"configurable_features": []}, "setting s: it must have at least one configurable feature"),
        (
            {"configurable_features": "user"},
            "context features must be a collection of names, not one string: use ['user']",
        ),
        ({"configurable_features": ["user", "user"]}, "a context feature is named twice in ['user', 'user']"),
        ({"configurable_features": ["no-dash"]}, f"'no-dash' {_FEATURE}"),
        ({"version": "1"}, "setting s: the version must be like '1.0', not '1'"),
        ({"version": 1.0}, "setting s: the version must be like '1.0', not 1.0"),
        ({"version": "1.0.0"}, "setting s: the version must be like '1.0', not '1.0.0'"),
        ({"metadata": ["a"]}, "setting s: metadata must be a dict of values by key, not ['a']"),
        ({"metadata": {"bad key": 1}}, f"setting s: 'bad key' {_KEY}"),
        ({"metadata": {1: 1}}, f"setting s: 1 {_KEY}"),
        ({"metadata": {"a": object}}, "setting s: Object of type type is not JSON serializable"),
        ({"metadata": {"a": [float("nan")]}}, "setting s: Out of range float values are not JSON compliant"),
        ({"metadata": {"a": date(2026, 1, 1)}}, "setting s: Object of type date is not JSON serializable"),
        ({"default_value": "x"}, "setting s: 'x' is not an int"),
        ({"default_value": None}, "setting s: None is not an int"),
        ({"type": list}, "<class 'list'> is not a setting type: use int, float, str, bool, "),
        ({"type": str, "default_value": "\ud800"}, "setting s: str is not valid UTF-8: surrogates not allowed"),
    ],
)
def test_a_declaration_that_the_service_would_refuse_raises(changes: dict[str, Any], error: str) -> None:
    """The error names the invalid part and the reason."""
    arguments: dict[str, Any] = {"name": "s", "type": int, "configurable_features": ["user"], "default_value": 1}
    with pytest.raises((ValueError, TypeError)) as raised:
        Setting(**(arguments | changes))
    assert str(raised.value).startswith(error)
    assert registry.entries() == []


def test_the_body_of_a_declaration_has_all_fields() -> None:
    """The alias is omitted if there is none."""
    minimal = Setting("a.b_1", Sequence[int], ["user", "theme"], [1])
    complete = Setting("s", int, ["user"], 1, {"team": "a", "k-1": [1]}, "old", "2.10")
    assert json.loads(entry_of(minimal).declaration.body) == {
        "name": "a.b_1",
        "type": "Sequence<int>",
        "default_value": [1],
        "configurable_features": ["user", "theme"],
        "metadata": {},
        "version": "1.0",
    }
    body = json.loads(entry_of(complete).declaration.body)
    assert (body["alias"], body["version"], body["metadata"]) == ("old", "2.10", {"team": "a", "k-1": [1]})
    assert (complete.name, complete.alias, complete.version) == ("s", "old", "2.10")
    assert (complete.metadata, complete.configurable_features) == ({"team": "a", "k-1": [1]}, ("user",))
    assert (complete.type, complete.default_value) == (setting_type(int), 1)
    assert (minimal.alias, minimal.version, minimal.metadata) == (None, "1.0", {})


def test_reads_without_a_client_return_the_declared_default() -> None:
    """The context may be incomplete, but an unknown context feature raises."""
    setting = Setting("s", int, ["user", "theme"], 5)
    assert setting.get() == setting.get(user="jim") == 5
    resolution = setting.explain(user="jim")
    assert (resolution.value, resolution.reason, resolution.rule) == (5, Reason.DECLARED_DEFAULT, None)
    for read in (setting.get, setting.explain):
        with pytest.raises(UnknownContextError, match="setting s has no context feature planet; it has: user, theme"):
            read(planet="mars")


def test_the_default_is_converted_to_the_declared_type() -> None:
    """It is immutable, like a value from the service."""
    values = [1, 2]
    sequence = Setting("s", Sequence[int], ["user"], values)
    values.append(3)
    mapping = Setting("m", Mapping[str, int], ["user"], {"a": 1})
    assert sequence.get() == (1, 2)
    assert type(Setting("f", float, ["user"], 1).get()) is float
    with pytest.raises(TypeError):
        mapping.get()["b"] = 2  # type: ignore[index]


def test_a_feature_may_have_any_name() -> None:
    """Even `self`, or the name of an internal parameter."""
    setting = Setting("s", int, ["self", "name", "contexts"], 5)
    assert setting.get(self="a", name="b", contexts="c") == 5


def test_the_registry_references_settings_weakly() -> None:
    """It lists the settings that the program still refers to, in the order of their creation."""
    first, second, third = (Setting(name, int, ["user"], 1) for name in ("z", "a", "m"))
    assert [entry.setting for entry in registry.entries()] == [first, second, third]
    del second
    gc.collect()
    assert [entry.setting for entry in registry.entries()] == [first, third]


def test_the_repr_of_a_setting_has_its_name_type_and_version() -> None:
    """For debuggers and logs."""
    assert repr(Setting("s", Sequence[int], ["user"], [])) == "<Setting s: Sequence<int>, version 1.0>"


def test_a_subclass_can_override_get() -> None:
    """The override can call the method of `Setting`."""

    class Audited(Setting[int]):
        reads = 0

        def get(self, /, **contexts: str) -> int:
            self.reads += 1
            return super().get(**contexts)

    setting = Audited("s", int, ["user"], 5)
    assert (setting.get(), setting.reads) == (5, 1)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_setting_cannot_be_copied_or_pickled(duplicate: Callable[[Any], object]) -> None:
    """The error says why, and what to do instead."""
    with pytest.raises(TypeError) as raised:
        duplicate(Setting("s", int, ["user"], 5))
    assert str(raised.value) == (
        "setting s cannot be copied or pickled, as no client would update the copy: import it from the module that "
        "declares it, or pass its value or its name"
    )


@pytest.mark.parametrize(
    "name", ["name", "type", "configurable_features", "default_value", "metadata", "alias", "version"]
)
def test_what_is_declared_cannot_be_changed(name: str) -> None:
    """A client has declared it, or is about to, and rules are converted for it."""
    setting = Setting("s", int, ["user"], 5)
    with pytest.raises(AttributeError):
        setattr(setting, name, getattr(setting, name))
