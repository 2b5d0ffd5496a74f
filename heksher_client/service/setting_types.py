"""Setting types: parsing of their names, checks of JSON values, and the subtype relation."""

import json
import math
import re
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final


class SettingType(ABC):
    """A type. `str()` returns its canonical name."""

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Return True if a JSON value is of this type."""

    @abstractmethod
    def is_subtype_of(self, other: "SettingType") -> bool:
        """Return True if each value of this type is also a value of the other type."""


@dataclass(frozen=True, slots=True)
class Primitive(SettingType):
    """`int`, `float`, `str` or `bool`."""

    name: str

    def __str__(self) -> str:
        return self.name

    def accepts(self, value: Any) -> bool:
        match self.name:
            case "int":  # JSON does not distinguish 1.0 from 1
                return type(value) is int or (isinstance(value, float) and value.is_integer())
            case "float":  # the largest has 309 digits
                return type(value) in (int, float) and abs(value) <= sys.float_info.max
            case "str":
                return isinstance(value, str)
        return isinstance(value, bool)

    def is_subtype_of(self, other: SettingType) -> bool:
        return self == other or (self.name == "int" and other == Primitive("float"))


@dataclass(frozen=True, slots=True)
class Options(SettingType):
    """`Enum[...]`: one of several JSON primitives; or `Flags[...]`: a list of distinct ones."""

    kind: str
    """`Enum` or `Flags`."""
    options: frozenset[str]
    """As JSON texts, because 1 and true are different in JSON and equal in Python."""

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(sorted(self.options))}]"

    def accepts(self, value: Any) -> bool:
        if self.kind == "Enum":
            return _is_primitive(value) and option_text(value) in self.options
        if not isinstance(value, list) or not all(map(_is_primitive, value)):
            return False
        chosen = [option_text(element) for element in value]
        return len(set(chosen)) == len(chosen) and self.options.issuperset(chosen)

    def is_subtype_of(self, other: SettingType) -> bool:
        return isinstance(other, Options) and self.kind == other.kind and self.options <= other.options


@dataclass(frozen=True, slots=True)
class Collection(SettingType):
    """`Sequence<...>` or `Mapping<...>`."""

    kind: str
    """`Sequence` or `Mapping`."""
    inner: SettingType

    def __str__(self) -> str:
        return f"{self.kind}<{self.inner}>"

    def accepts(self, value: Any) -> bool:
        if self.kind == "Sequence":
            return isinstance(value, list) and all(map(self.inner.accepts, value))
        return isinstance(value, dict) and all(map(self.inner.accepts, value.values()))

    def is_subtype_of(self, other: SettingType) -> bool:
        return isinstance(other, Collection) and self.kind == other.kind and self.inner.is_subtype_of(other.inner)


_PRIMITIVE: Final = re.compile(r"int|float|str|bool")
_OPTIONS: Final = re.compile(r"(Enum|Flags)\s*(\[.*\])", re.DOTALL)
_COLLECTION: Final = re.compile(r"(Sequence|Mapping)\s*<(.*)>", re.DOTALL)
_MAX_DEPTH: Final = 32


def parse_setting_type(name: str, depth: int = 0) -> SettingType:
    """Return the type with a name.

    Args:
        name: The name, in canonical form or with spaces and options in another order.
        depth: The number of collections around the type.

    Raises:
        ValueError: The name is not a type.
    """
    name = name.strip()
    if _PRIMITIVE.fullmatch(name):
        return Primitive(name)
    if match := _OPTIONS.fullmatch(name):
        return Options(match[1], _parse_options(name, match[2]))
    if (match := _COLLECTION.fullmatch(name)) and depth < _MAX_DEPTH:
        return Collection(match[1], parse_setting_type(match[2], depth + 1))
    raise ValueError(f"cannot resolve setting type {name}")


def _parse_options(name: str, text: str) -> frozenset[str]:
    try:
        options = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"cannot resolve setting type {name}: its options are not JSON") from None
    if not options or not all(map(_is_primitive, options)):
        raise ValueError(f"cannot resolve setting type {name}: its options must be JSON primitives, at least one")
    distinct = frozenset(map(option_text, options))
    if len(distinct) < len(options):
        raise ValueError(f"cannot resolve setting type {name}: an option is repeated")
    return distinct


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_primitive(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))  # a bool is an int


def option_text(value: Any) -> str:
    """Return a JSON primitive as text: the same for 1 and 1.0."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(whole, ensure_ascii=False)
