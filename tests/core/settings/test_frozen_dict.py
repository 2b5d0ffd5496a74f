"""The immutable dict that values, conditions and contexts are."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from heksher_client._core.settings.frozen_dict import FrozenDict

MUTATIONS: dict[str, Callable[[Any], object]] = {
    "setitem": lambda value: value.__setitem__("a", 2),
    "delitem": lambda value: value.__delitem__("a"),
    "ior": lambda value: value.__ior__({"a": 2}),
    "update": lambda value: value.update(a=2),
    "update with a dict": lambda value: value.update({"a": 2}),
    "pop": lambda value: value.pop("a"),
    "pop with a default": lambda value: value.pop("b", None),
    "popitem": lambda value: value.popitem(),
    "clear": lambda value: value.clear(),
    "setdefault": lambda value: value.setdefault("b", 2),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_c22_a_mapping_cannot_be_changed(mutation: str) -> None:
    """The error says what to do instead."""
    value = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match=r"^this mapping is immutable: change a copy of it, dict\(mapping\)$"):
        MUTATIONS[mutation](value)
    value.__init__({"a": 2})
    with pytest.raises(AttributeError):
        value.attribute = 1
    assert value == {"a": 1}


def test_c22_copies_of_a_mapping_that_are_dicts_can_be_changed() -> None:
    """`dict(...)`, `copy()` and `|` return a plain dict."""
    value = FrozenDict({"a": 1})
    copies = (dict(value), value.copy(), value | {}, {} | value, {**value})
    for each in copies:
        each["b"] = 2
    assert all(type(each) is dict for each in copies)
    assert value == {"a": 1}


def test_c22_a_deep_copy_copies_the_elements() -> None:
    """A custom type may have values that can be changed."""
    original: FrozenDict[list[int]] = FrozenDict({"a": [1]})
    copy.deepcopy(original)["a"].append(2)
    assert original == {"a": [1]}


def test_c22_a_deep_copy_of_a_mapping_has_each_element_once() -> None:
    """As in the original, also if it is a part of another object."""
    element = [1]
    duplicate, other = copy.deepcopy((FrozenDict({"a": element}), element))
    assert type(duplicate) is FrozenDict
    assert duplicate["a"] is other is not element


def test_c22_a_mapping_is_hashed_and_pickled_by_its_items() -> None:
    """In any order."""
    value = FrozenDict({"a": 1, "b": 2})
    assert {value: 3}[FrozenDict({"b": 2, "a": 1})] == 3
    assert hash(value) != hash(FrozenDict({"a": 1}))
    other = pickle.loads(pickle.dumps(value))  # noqa: S301 - it is pickled here
    assert (type(other), other) == (FrozenDict, value)
