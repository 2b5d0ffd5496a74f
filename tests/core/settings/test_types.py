"""Setting types: wire names, and conversion of values from and to JSON."""

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


class Shade(str, Enum):  # noqa: UP042 - unlike a StrEnum, its str() is not its value
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
def test_a_type_has_the_wire_name_that_the_service_uses(python_type: Any, name: str) -> None:
    """Options are sorted as JSON. Aliases, zero and combined flags are not options."""
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
    """A value that is valid in the service becomes a Python value of the declared type."""
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
def test_an_invalid_part_of_a_value_is_dropped_and_reported(
    python_type: Any, raw: Any, value: Any, coercions: tuple[str, ...]
) -> None:
    """An unknown flag or an invalid element is reported as a coercion, and the rest of the value is used."""
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
    """A bool is not a number, a string is not a sequence, and a list is not a mapping."""
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
def test_a_python_value_is_converted_to_json_for_the_service(python_type: Any, value: Any, raw: Any) -> None:
    """The inverse of the conversion from JSON."""
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
def test_a_python_value_of_another_type_is_rejected(python_type: Any, value: Any) -> None:
    """A default of the wrong type raises before the declaration is sent."""
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
    ("python_type", "reason"),
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
def test_an_unsupported_type_is_rejected_with_a_reason(python_type: Any, reason: str) -> None:
    """The error says why it is unsupported, or lists the supported types."""
    with pytest.raises(TypeError, match=reason):
        setting_type(python_type)


def test_values_from_the_service_are_immutable() -> None:
    """Sequences and mappings are shared by all reads."""
    value = setting_type(Mapping[str, Sequence[int]]).convert_from_heksher({"a": [1]}).value
    assert isinstance(value["a"], tuple)
    with pytest.raises(TypeError):
        value["b"] = ()


def test_types_with_the_same_conversion_are_equal() -> None:
    """Their hashes are equal as well."""
    assert setting_type(Sequence[Color]) == HeksherSequence(HeksherEnum(Color))
    assert hash(setting_type(Sequence[Color])) == hash(HeksherSequence(HeksherEnum(Color)))
    assert setting_type(Color) != setting_type(Word)
    assert setting_type(int) != setting_type(float)
    assert repr(setting_type(Sequence[int])) == "<HeksherSequence Sequence<int>>"


def test_a_program_can_define_a_setting_type() -> None:
    """`setting_type` returns an instance of `SettingType` unchanged."""

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


def test_an_error_quotes_only_the_beginning_of_a_value() -> None:
    """The error is one short line of a log, even if the value is large."""
    with pytest.raises(TypeError) as raised:
        setting_type(int).convert_from_heksher(["x" * 10_000, "\n"])
    assert len(str(raised.value)) < 120
    assert "\n" not in str(raised.value)
