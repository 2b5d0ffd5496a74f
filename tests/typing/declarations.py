"""The types of settings. Checked by mypy and pyright, never run.

Each line that must be an error has an ignore. An ignore without an error is itself an error.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any, assert_type

from heksher_client import (
    HeksherEnum,
    HeksherFlags,
    HeksherMapping,
    HeksherSequence,
    Resolution,
    Rule,
    Setting,
    SettingType,
)


class Color(Enum):
    RED = "red"


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class Letters(IntFlag):
    A = 1


# The value's type is inferred from the setting's type.
assert_type(Setting("s", int, ["user"], 5), Setting[int])
assert_type(Setting("s", float, ["user"], 0.5), Setting[float])
assert_type(Setting("s", float, ["user"], 5), Setting[float])
assert_type(Setting("s", str, ["user"], "x"), Setting[str])
assert_type(Setting("s", bool, ["user"], True), Setting[bool])
assert_type(Setting("s", Color, ["user"], Color.RED), Setting[Color])
assert_type(Setting("s", Word, ["user"], Word.A), Setting[Word])
assert_type(Setting("s", Number, ["user"], Number.ONE), Setting[Number])
assert_type(Setting("s", Letters, ["user"], Letters.A), Setting[Letters])
assert_type(Setting("s", Sequence[int], ["user"], [1]), Setting[Sequence[int]])
assert_type(Setting("s", Mapping[str, int], ["user"], {"a": 1}), Setting[Mapping[str, int]])
assert_type(
    Setting("s", Sequence[Mapping[str, Color]], ["user"], [{"a": Color.RED}]), Setting[Sequence[Mapping[str, Color]]]
)
assert_type(Setting("s", HeksherEnum(Color), ["user"], Color.RED), Setting[Color])
assert_type(Setting("s", HeksherSequence(HeksherEnum(Color)), ["user"], [Color.RED]), Setting[Sequence[Color]])
assert_type(Setting("s", HeksherMapping(HeksherEnum(Color)), ["user"], {}), Setting[Mapping[str, Color]])
assert_type(Setting("s", HeksherFlags(Letters), ["user"], Letters.A), Setting[Letters])

# A default of another type is an error.
Setting("s", int, ["user"], "x")  # type: ignore[call-overload]
Setting("s", int, ["user"], 1.5)  # type: ignore[call-overload]
Setting("s", int, ["user"], None)  # type: ignore[call-overload]
Setting("s", bool, ["user"], 1)  # type: ignore[call-overload]
Setting("s", float, ["user"], "1")  # type: ignore[call-overload]
Setting("s", str, ["user"], 1)  # type: ignore[call-overload]
Setting("s", Color, ["user"], "red")  # type: ignore[call-overload]
Setting("s", Word, ["user"], "a")  # type: ignore[call-overload]
Setting("s", Number, ["user"], 1)  # type: ignore[call-overload]
Setting("s", Letters, ["user"], 1)  # type: ignore[call-overload]
Setting("s", Sequence[int], ["user"], 1)  # type: ignore[call-overload]
Setting("s", Sequence[int], ["user"], ["x"])  # type: ignore[call-overload]
Setting("s", Mapping[str, int], ["user"], {"a": "x"})  # type: ignore[call-overload]
Setting("s", HeksherEnum(Color), ["user"], "red")  # type: ignore[arg-type]
Setting("s", HeksherFlags(Letters), ["user"], 1)  # type: ignore[arg-type]
Setting("s", HeksherSequence(HeksherEnum(Color)), ["user"], ["red"])  # type: ignore[misc]

# A custom type determines the type of the value.


def custom_type(custom: SettingType[int]) -> None:
    assert_type(Setting("s", custom, ["user"], 5), Setting[int])
    Setting("s", custom, ["user"], "x")  # type: ignore[misc]


def reads(setting: Setting[int]) -> None:
    assert_type(setting.get(user="jim"), int)
    assert_type(setting.explain(user="jim"), Resolution[int])
    assert_type(setting.explain().rule, Rule[int] | None)
    assert_type(setting.default_value, int)
    setting.get(user=5)  # type: ignore[arg-type]


def validators(setting: Setting[int]) -> None:
    @setting.add_validator
    def good(value: int, rule: Rule[int] | None, of: Setting[int]) -> int:
        return value

    def bad(value: str, rule: Any, of: Any) -> str:
        return value

    setting.add_validator(bad)  # type: ignore[arg-type]


def coercions() -> None:
    def good(value: int, raw: Any, coercions: Sequence[str], rule: Rule[int] | None, of: Setting[int]) -> int:
        return value

    Setting("s", int, ["user"], 5, on_coerce=good)
    Setting("s", int, ["user"], 5, on_coerce=None)
    Setting("s", str, ["user"], "x", on_coerce=good)  # type: ignore[call-overload]
