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
from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client._core.settings.types import convert_many


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
        (int, 2.0**53, 2**53),
        (int, -(2.0**53), -(2**53)),
        (int, 2**64 - 1, 2**64 - 1),
        (int, -(2**63), -(2**63)),
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
    assert type(conversion.value) is type(value) or isinstance(conversion.value, FrozenDict)


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
    ("python_type", "raw", "error"),
    [
        (int, True, "True is not an int"),
        (int, 5.5, "5.5 is not an int"),
        (int, "5", "'5' is not an int"),
        (int, None, "None is not an int"),
        (int, 2.0**53 + 2, "9007199254740994.0 is too large to be an exact int"),
        (int, -(2.0**53) - 2, "-9007199254740994.0 is too large to be an exact int"),
        (int, float("inf"), "inf is not an int"),
        (int, 2**64, "an int beyond 64 bits has no exact JSON form"),
        (float, True, "True is not a float"),
        (float, "1", "'1' is not a float"),
        (float, float("nan"), "nan has no JSON form"),
        (float, float("inf"), "inf has no JSON form"),
        (float, 10**400, "an int this large has no float value"),
        (str, 1, "1 is not a str"),
        (str, None, "None is not a str"),
        (bool, 0, "0 is not a bool"),
        (bool, "true", "'true' is not a bool"),
        (Color, "blue", "'blue' is not a member of Color"),
        (Color, ["red"], "['red'] is not a member of Color"),
        (Mixed, 0, "0 is not a member of Mixed"),
        (Mixed, None, "None is not a member of Mixed"),
        (Number, True, "True is not a member of Number"),
        (Letters, "A", "'A' is not a list of flags"),
        (Letters, {"A": 1}, "{'A': 1} is not a list of flags"),
        (Letters, 1, "1 is not a list of flags"),
        (Sequence[str], "abc", "'abc' is not a list"),
        (Sequence[int], {"a": 1}, "{'a': 1} is not a list"),
        (Mapping[str, int], [1], "[1] is not a mapping"),
        (Mapping[str, int], None, "None is not a mapping"),
    ],
)
def test_a_value_of_another_type_is_rejected(python_type: Any, raw: Any, error: str) -> None:
    """A bool is not a number, a string is not a sequence, and a list is not a mapping."""
    with pytest.raises(TypeError) as raised:
        setting_type(python_type).convert_from_heksher(raw)
    assert str(raised.value) == error


@pytest.mark.parametrize(
    ("python_type", "raws"),
    [
        (int, [0, -(2**63), 2**63 - 1]),
        (float, [0, 0.5]),
        (float, [1]),
        (float, [0.5]),
        (str, ["", "a"]),
        (bool, [True, False]),
        (Mixed, ["a", 2, 2.0, False]),
    ],
)
def test_many_values_are_converted_like_each_of_them(python_type: Any, raws: list[Any]) -> None:
    """All at once, as there may be 100,000 of them."""
    kind = setting_type(python_type)
    converted = convert_many(kind, raws)
    assert converted is not None
    expected = [kind.convert_from_heksher(raw).value for raw in raws]
    assert [(type(value), value) for value in converted] == [(type(value), value) for value in expected]


class _Lenient(HeksherEnum[Color]):
    def convert_from_heksher(self, x: Any, /) -> Conversion[Color]:
        return super().convert_from_heksher(str(x).lower())


@pytest.mark.parametrize(
    ("python_type", "raws"),
    [
        (int, [1, True]),
        (int, [1, 2.0]),
        (int, [1, 2**63]),
        (int, [1, None]),
        (float, [1, True]),
        (float, [1.0, "1"]),
        (float, [1.0, float("nan")]),
        (float, [1.0, 10**400]),
        (str, ["a", 1]),
        (bool, [True, 1]),
        (Mixed, ["a", "b"]),
        (Mixed, ["a", []]),
        (_Lenient(Color), ["red"]),
        (Letters, [["A"]]),
        (Sequence[int], [[1]]),
        (Mapping[str, int], [{"a": 1}]),
    ],
)
def test_many_values_are_converted_one_by_one_if_one_needs_it(python_type: Any, raws: list[Any]) -> None:
    """Each invalid value is reported, and each one that is valid in another form."""
    assert convert_many(setting_type(python_type), raws) is None


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
    ("python_type", "value", "error"),
    [
        (int, True, "True is not an int"),
        (int, 1.0, "1.0 is not an int"),
        (int, 2**64, "an int beyond 64 bits has no exact JSON form"),
        (int, -(2**63) - 1, "an int beyond 64 bits has no exact JSON form"),
        (float, "1", "'1' is not a float"),
        (float, float("nan"), "nan has no JSON form"),
        (str, b"x", "b'x' is not a str"),
        (bool, 1, "1 is not a bool"),
        (Color, "red", "'red' is not a member of Color"),
        (Color, Word.A, "<Word.A: 'a'> is not a member of Color"),
        (Letters, 1, "1 is not a Letters"),
        (Letters, Letters(8), "<Letters: 8> has bits without a name, which the service cannot store"),
        (Sequence[str], "abc", "'abc' is not a sequence"),
        (Sequence[int], {1}, "{1} is not a sequence"),
        (Sequence[int], ["x"], "'x' is not an int"),
        (Mapping[str, int], {1: 1}, "{1: 1} is not a mapping with string keys"),
        (Mapping[str, int], ["a"], "['a'] is not a mapping with string keys"),
    ],
)
def test_a_python_value_of_another_type_is_rejected(python_type: Any, value: Any, error: str) -> None:
    """A default of the wrong type raises before the declaration is sent."""
    with pytest.raises(TypeError) as raised:
        setting_type(python_type).convert_to_heksher(value)
    assert str(raised.value) == error


class _OneAndTrue(Enum):
    A = 1
    B = True


class _ZeroAndFalse(Enum):
    A = "a"
    B = False
    C = 0


class _Unhashable(Enum):
    A = [1]  # noqa: RUF012


class _NotANumber(Enum):
    A = float("nan")


class _Empty(Enum):
    pass


class _OnlyCombined(IntFlag):
    AB = 3


_SUPPORTED = (
    "is not a setting type: use int, float, str, bool, an Enum or IntFlag class, Sequence[...], Mapping[str, ...] "
    "or a SettingType"
)
_NOT_A_PRIMITIVE = "has a value that is not a JSON primitive (str, int, float or bool)"
_EQUAL = "in Python 1, 1.0 and True are equal, in JSON they are not. Remove the alias, or use strings"


@pytest.mark.parametrize(
    ("python_type", "error"),
    [
        (_OneAndTrue, f"_OneAndTrue.B is an alias of A (1): {_EQUAL}"),
        (_ZeroAndFalse, f"_ZeroAndFalse.C is an alias of B (False): {_EQUAL}"),
        (_Unhashable, f"<_Unhashable.A: [1]> {_NOT_A_PRIMITIVE}"),
        (_NotANumber, f"<_NotANumber.A: nan> {_NOT_A_PRIMITIVE}"),
        (_Empty, "_Empty has no members, so no value could ever be valid"),
        (_OnlyCombined, "_OnlyCombined has no member of a single bit, so there is nothing to declare"),
        (list, f"<class 'list'> {_SUPPORTED}"),
        (list[int], f"list[int] {_SUPPORTED}"),
        (Sequence, f"<class 'collections.abc.Sequence'> {_SUPPORTED}"),
        (dict[str, int], f"dict[str, int] {_SUPPORTED}"),
        (None, f"None {_SUPPORTED}"),
        (Mapping[int, str], "the keys of a mapping must be str, not <class 'int'>"),
        ([], f"[] {_SUPPORTED}"),
    ],
)
def test_an_unsupported_type_is_rejected_with_a_reason(python_type: Any, error: str) -> None:
    """The error says why it is unsupported, or lists the supported types."""
    with pytest.raises(TypeError) as raised:
        setting_type(python_type)
    assert str(raised.value) == error


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
    assert hash(setting_type(int)) != hash(setting_type(float))
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
    """The error is one short line of a log, even if the value is large: at most 80 characters of it."""
    for value, quoted in [
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 76 + "..."),
        (["x" * 10_000, "\n"], "['" + "x" * 75 + "..."),
        ("\n", r"'\n'"),
    ]:
        with pytest.raises(TypeError) as raised:
            setting_type(int).convert_from_heksher(value)
        assert str(raised.value) == f"{quoted} is not an int"
