"""Setting types: their names on the wire, and values from and to JSON."""

import json
from collections.abc import Mapping, Sequence
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from heksher_client import (
    Conversion,
    HeksherEnum,
    HeksherFlags,
    HeksherMapping,
    HeksherSequence,
    SettingType,
    setting_type,
)


class Color(Enum):
    RED = "red"
    GREEN = "green"
    CRIMSON = "red"  # noqa: PIE796 - an alias


class Mixed(Enum):
    A = "a"
    TWO = 2
    HALF = 0.5
    NO = False


class Number(IntEnum):
    ONE = 1
    TWO = 2


class Word(StrEnum):
    A = "a"


class Shade(str, Enum):  # noqa: UP042 - whose str() is not its text
    DARK = "dark"


class Letters(IntFlag):
    NONE = 0
    A = 1
    B = 2
    AB = 3
    ALSO_A = 1


class Strict(Flag):
    X = 1
    Y = 2


@pytest.mark.parametrize(
    ("python_type", "name"),
    [
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (bool, "bool"),
        (Color, 'Enum["green","red"]'),
        (Mixed, 'Enum["a",0.5,2,false]'),
        (Number, "Enum[1,2]"),
        (Word, 'Enum["a"]'),
        (Letters, 'Flags["A","B"]'),
        (Strict, 'Flags["X","Y"]'),
        (Sequence[int], "Sequence<int>"),
        (Mapping[str, float], "Mapping<float>"),
        (Mapping[str, Sequence[Color]], 'Mapping<Sequence<Enum["green","red"]>>'),
        (HeksherSequence(HeksherMapping(int)), "Sequence<Mapping<int>>"),
        (HeksherEnum(Color), 'Enum["green","red"]'),
        (HeksherFlags(Letters), 'Flags["A","B"]'),
    ],
)
def test_the_name_of_a_type_is_as_the_service_writes_it(python_type: Any, name: str) -> None:
    """Options are sorted as JSON; aliases, zero and combined flags are no options."""
    assert setting_type(python_type).heksher_string() == name


@pytest.mark.parametrize(
    ("python_type", "raw", "value"),
    [
        (int, 5, 5),
        (int, 5.0, 5),
        (int, -(2**53), -(2**53)),
        (float, 5, 5.0),
        (float, 0.5, 0.5),
        (str, "", ""),
        (str, "a\x00b", "a\x00b"),
        (bool, True, True),
        (Color, "red", Color.RED),
        (Mixed, 2.0, Mixed.TWO),
        (Mixed, False, Mixed.NO),
        (Letters, ["A", "B"], Letters.AB),
        (Letters, [], Letters.NONE),
        (Letters, ["ALSO_A"], Letters.A),
        (Letters, ["AB", "NONE"], Letters.AB),
        (Sequence[int], [1, 2.0], (1, 2)),
        (Sequence[Sequence[int]], [[1], []], ((1,), ())),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_of_the_type_is_converted_without_loss(python_type: Any, raw: Any, value: Any) -> None:
    """A value that the service holds valid arrives as a Python value of the declared type."""
    conversion = setting_type(python_type).convert_from_heksher(raw)
    assert conversion == Conversion(value)
    assert type(conversion.value) is type(value) or isinstance(conversion.value, MappingProxyType)


@pytest.mark.parametrize(
    ("python_type", "raw", "value", "coercions"),
    [
        (Letters, ["A", "Z"], Letters.A, ("unknown flag 'Z' dropped",)),
        (Letters, ["A", 1, []], Letters.A, ("unknown flag 1 dropped", "unknown flag [] dropped")),
        (Sequence[int], [1, "x"], (1,), ("element 1 dropped: 'x' is not an int",)),
        (Mapping[str, int], {"a": 1, "b": None}, {"a": 1}, ("key 'b' dropped: None is not an int",)),
        (Sequence[Letters], [["Z"]], (Letters.NONE,), ("element 0: unknown flag 'Z' dropped",)),
    ],
)
def test_a_part_that_cannot_be_used_is_dropped_and_reported(
    python_type: Any, raw: Any, value: Any, coercions: tuple[str, ...]
) -> None:
    """An unknown flag, a bad element: the rest is used, and the loss is told as a coercion."""
    assert setting_type(python_type).convert_from_heksher(raw) == Conversion(value, coercions)


@pytest.mark.parametrize(
    ("python_type", "raw"),
    [
        (int, True),
        (int, 5.5),
        (int, "5"),
        (int, None),
        (int, 2.0**60),
        (int, float("inf")),
        (int, 2**64),
        (float, True),
        (float, "1"),
        (float, float("nan")),
        (float, float("inf")),
        (float, 10**400),
        (str, 1),
        (str, None),
        (bool, 0),
        (bool, "true"),
        (Color, "blue"),
        (Color, ["red"]),
        (Mixed, 0),
        (Mixed, None),
        (Number, True),
        (Letters, "A"),
        (Letters, {"A": 1}),
        (Letters, 1),
        (Sequence[str], "abc"),
        (Sequence[int], {"a": 1}),
        (Mapping[str, int], [1]),
        (Mapping[str, int], None),
    ],
)
def test_a_value_of_another_type_is_rejected(python_type: Any, raw: Any) -> None:
    """What is not of the type raises `TypeError`: a bool is no number, a string no sequence, a list no mapping."""
    with pytest.raises(TypeError):
        setting_type(python_type).convert_from_heksher(raw)


@pytest.mark.parametrize(
    ("python_type", "value", "raw"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (bool, False, False),
        (str, "x", "x"),
        (str, Word.A, "a"),
        (str, Shade.DARK, "dark"),
        (Mapping[str, int], {Shade.DARK: 1}, {"dark": 1}),
        (Color, Color.CRIMSON, "red"),
        (Number, Number.ONE, 1),
        (Letters, Letters.AB, ["A", "B"]),
        (Letters, Letters.NONE, []),
        (Letters, ~Letters.A, ["B"]),
        (Sequence[Color], (Color.RED,), ["red"]),
        (Mapping[str, Letters], MappingProxyType({"a": Letters.A}), {"a": ["A"]}),
    ],
)
def test_a_python_value_becomes_the_json_that_the_service_expects(python_type: Any, value: Any, raw: Any) -> None:
    """The way to JSON is the reverse of the way from it."""
    converted = setting_type(python_type).convert_to_heksher(value)
    assert json.dumps(converted) == json.dumps(raw)


@pytest.mark.parametrize(
    ("python_type", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, 2**64),
        (int, -(2**63) - 1),
        (float, "1"),
        (float, float("nan")),
        (str, b"x"),
        (bool, 1),
        (Color, "red"),
        (Color, Word.A),
        (Letters, 1),
        (Letters, Letters(8)),
        (Sequence[str], "abc"),
        (Sequence[int], {1}),
        (Sequence[int], ["x"]),
        (Mapping[str, int], {1: 1}),
        (Mapping[str, int], [("a", 1)]),
    ],
)
def test_a_python_value_of_another_type_is_refused(python_type: Any, value: Any) -> None:
    """A wrong default is found at its declaration, not by the service."""
    with pytest.raises(TypeError):
        setting_type(python_type).convert_to_heksher(value)


class _OneAndTrue(Enum):
    A = 1
    B = True


class _Unhashable(Enum):
    A = ()


class _NotANumber(Enum):
    A = float("nan")


class _Empty(Enum):
    pass


class _OnlyCombined(IntFlag):
    AB = 3


@pytest.mark.parametrize(
    ("python_type", "why"),
    [
        (_OneAndTrue, "in Python 1, 1.0 and True are equal"),
        (_Unhashable, "not a JSON primitive"),
        (_NotANumber, "not a JSON primitive"),
        (_Empty, "no members"),
        (_OnlyCombined, "single bit"),
        (list, "not a setting type"),
        (list[int], "not a setting type"),
        (Sequence, "not a setting type"),
        (dict[str, int], "not a setting type"),
        (None, "not a setting type"),
        (Mapping[int, int], "keys"),
        ([], "not a setting type"),
    ],
)
def test_what_cannot_be_a_setting_type_is_refused_with_a_reason(python_type: Any, why: str) -> None:
    """The error says what is wrong with it, or what there is to choose from."""
    with pytest.raises(TypeError, match=why):
        setting_type(python_type)


def test_values_from_the_service_cannot_be_changed() -> None:
    """Whoever reads a sequence or a mapping cannot change it for the next reader."""
    value = setting_type(Mapping[str, Sequence[int]]).convert_from_heksher({"a": [1]}).value
    assert isinstance(value["a"], tuple)
    with pytest.raises(TypeError):
        value["b"] = ()


def test_types_are_equal_when_they_mean_the_same() -> None:
    """Types compare and hash by what they convert."""
    assert setting_type(Sequence[Color]) == HeksherSequence(HeksherEnum(Color))
    assert hash(setting_type(Sequence[Color])) == hash(HeksherSequence(HeksherEnum(Color)))
    assert setting_type(Color) != setting_type(Word)
    assert setting_type(int) != setting_type(float)
    assert repr(setting_type(Sequence[int])) == "<HeksherSequence Sequence<int>>"


def test_a_program_can_bring_its_own_type() -> None:
    """`setting_type` gives a `SettingType` back as it is."""

    class Upper(SettingType[str]):
        def heksher_string(self) -> str:
            return "str"

        def convert_from_heksher(self, x: Any, /) -> Conversion[str]:
            return Conversion(str(x).upper())

        def convert_to_heksher(self, x: str, /) -> str:
            return x.lower()

    upper = Upper()
    assert setting_type(upper) is upper
    assert HeksherSequence(upper).convert_from_heksher(["a"]).value == ("A",)


def test_a_message_does_not_repeat_a_whole_payload() -> None:
    """An error about a huge value stays one line of a log."""
    with pytest.raises(TypeError) as raised:
        setting_type(int).convert_from_heksher(["x" * 10_000, "\n"])
    assert len(str(raised.value)) < 120
    assert "\n" not in str(raised.value)
