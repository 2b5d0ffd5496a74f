"""The types of settings: their names on the wire, and the conversion of values from and to JSON.

A value from the service is made immutable: a list becomes a tuple, an object a `FrozenDict`. If part of it cannot
be used, the rest is kept, and the loss is reported as a coercion; if nothing can, the conversion raises `TypeError`.
"""

import math
from abc import ABC, abstractmethod
from array import array
from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag
from typing import Any, Final, Generic, TypeVar, get_args, get_origin

import orjson

from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client._core.settings.user_functions import PLAIN_TYPES, check_function, plain_result, refuse_deferred

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)
FlagT = TypeVar("FlagT", bound=Flag)


@dataclass(frozen=True, slots=True)
class Conversion(Generic[T]):
    """A value from the service, converted to Python."""

    value: T
    coercions: tuple[str, ...] = ()
    """Descriptions of the parts that were dropped."""

    def __post_init__(self) -> None:
        if type(self.value) not in PLAIN_TYPES:
            refuse_deferred(self.value, lambda: "the value of a Conversion is")


class SettingType(ABC, Generic[T]):
    """Converts values of one type between JSON and Python. Subclass it for your own type, with plain methods."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in ("heksher_string", "convert_from_heksher", "convert_to_heksher"):
            check_function(getattr(cls, name), f"{cls.__name__}.{name}")

    @abstractmethod
    def heksher_string(self) -> str:
        """Return the name of the type on the wire, in the service's notation."""

    @abstractmethod
    def convert_from_heksher(self, x: Any, /) -> Conversion[T]:
        """Convert a JSON value to an immutable Python value.

        Raises:
            TypeError: The value is not of this type, and no part of it can be used.
        """

    @abstractmethod
    def convert_to_heksher(self, x: T, /) -> Any:
        """Convert a Python value to a JSON value.

        Raises:
            TypeError: The value is not of this type.
        """

    def _convert_many(self, values: Sequence[Any]) -> Sequence[T] | None:  # noqa: ARG002
        """Convert many JSON values at once, if all of them can be converted without coercions.

        This only saves time. None means that each value is converted by `convert_from_heksher`, so your own type need
        not have this method.
        """
        return None

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.heksher_string()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.heksher_string()}>"


class _Int(SettingType[int]):
    def heksher_string(self) -> str:
        return "int"

    def convert_from_heksher(self, x: Any, /) -> Conversion[int]:
        if isinstance(x, float) and x.is_integer():
            # The service stores 5.0 for an int as it is. Above 2**53 a float may represent several integers.
            if abs(x) > 2**53:
                raise TypeError(f"{x!r} is too large to be an exact int")
            x = int(x)
        return Conversion(self.convert_to_heksher(x))

    def _convert_many(self, values: Sequence[Any]) -> Sequence[int] | None:
        try:
            array("q", values)  # The fastest check for integers of up to 64 bits.
        except (TypeError, OverflowError):
            return None
        return values if set(map(type, values)) == {int} else None

    def convert_to_heksher(self, x: int, /) -> int:
        if not isinstance(x, int) or isinstance(x, bool):
            raise _mismatch(x, "an int")
        if not -(2**63) <= x < 2**64:
            raise TypeError("an int beyond 64 bits has no exact JSON form")
        return int(x)


class _Float(SettingType[float]):
    def heksher_string(self) -> str:
        return "float"

    def convert_from_heksher(self, x: Any, /) -> Conversion[float]:
        return Conversion(self.convert_to_heksher(x))

    def _convert_many(self, values: Sequence[Any]) -> Sequence[float] | None:
        if not set(map(type, values)) <= {int, float}:
            return None
        try:
            converted = list(map(float, values))
        except OverflowError:
            return None
        return converted if all(map(math.isfinite, converted)) else None

    def convert_to_heksher(self, x: float, /) -> float:
        if not isinstance(x, int | float) or isinstance(x, bool):
            raise _mismatch(x, "a float")
        try:
            value = float(x)
        except OverflowError:
            raise TypeError("an int this large has no float value") from None
        if not math.isfinite(value):
            raise TypeError(f"{x!r} has no JSON form")
        return value


class _Str(SettingType[str]):
    def heksher_string(self) -> str:
        return "str"

    def convert_from_heksher(self, x: Any, /) -> Conversion[str]:
        return Conversion(self.convert_to_heksher(x))

    def _convert_many(self, values: Sequence[Any]) -> Sequence[str] | None:
        return values if set(map(type, values)) == {str} else None

    def convert_to_heksher(self, x: str, /) -> str:
        if not isinstance(x, str):
            raise _mismatch(x, "a str")
        return str.__str__(x)  # The text itself, even of a member of a str Enum.


class _Bool(SettingType[bool]):
    def heksher_string(self) -> str:
        return "bool"

    def convert_from_heksher(self, x: Any, /) -> Conversion[bool]:
        return Conversion(self.convert_to_heksher(x))

    def _convert_many(self, values: Sequence[Any]) -> Sequence[bool] | None:
        return values if set(map(type, values)) == {bool} else None

    def convert_to_heksher(self, x: bool, /) -> bool:
        if not isinstance(x, bool):
            raise _mismatch(x, "a bool")
        return x


class HeksherEnum(SettingType[EnumT]):
    """A member of an `Enum` class; on the wire, its value."""

    def __init__(self, enum_type: type[EnumT]) -> None:
        """Create the type of an `Enum` class with values that are str, int, float or bool.

        Raises:
            TypeError: The class has no members, a value that is not a JSON primitive, or an alias of 0 or 1.
        """
        self.enum_type = enum_type
        if not list(enum_type):
            raise TypeError(f"{enum_type.__name__} has no members, so no value could ever be valid")
        self._members: dict[tuple[bool, object], EnumT] = {}
        for member in enum_type:
            _check_option(member)
            self._members[_option_key(member.value)] = member
        for name, member in enum_type.__members__.items():
            # Python makes `B = True` an alias of `A = 1`, without its own value: declaring only 1 would lose a value.
            if name != member.name and member.value in (0, 1):
                raise TypeError(
                    f"{enum_type.__name__}.{name} is an alias of {member.name} ({member.value!r}): in Python 1, 1.0 "
                    "and True are equal, in JSON they are not. Remove the alias, or use strings"
                )

    def heksher_string(self) -> str:
        return _options_string("Enum", (member.value for member in self.enum_type))

    def convert_from_heksher(self, x: Any, /) -> Conversion[EnumT]:
        try:
            return Conversion(self._members[_option_key(x)])
        except (KeyError, TypeError):
            raise TypeError(f"{_shown(x)} is not a member of {self.enum_type.__name__}") from None

    def _convert_many(self, values: Sequence[Any]) -> Sequence[EnumT] | None:
        if type(self) is not HeksherEnum:
            return None  # A subclass may have its own conversion.
        try:
            return [self._members[_option_key(value)] for value in values]
        except (KeyError, TypeError):
            return None

    def convert_to_heksher(self, x: EnumT, /) -> Any:
        if not isinstance(x, self.enum_type):
            raise _mismatch(x, f"a member of {self.enum_type.__name__}")
        return x.value


class HeksherFlags(SettingType[FlagT]):
    """A combination of members of an `IntFlag` (or `Flag`) class; on the wire, a list of their names.

    Only members of a single bit are options of the type. Names for zero or for combinations are accepted from the
    service, but not declared.
    """

    def __init__(self, flags_type: type[FlagT]) -> None:
        """Create the type of a flag class with at least one member of a single bit.

        Raises:
            TypeError: The class has no such member.
        """
        self.flags_type = flags_type
        self._options: dict[str, FlagT] = {str(member.name): member for member in flags_type}
        if not self._options:
            raise TypeError(f"{flags_type.__name__} has no member of a single bit, so there is nothing to declare")

    def heksher_string(self) -> str:
        return _options_string("Flags", self._options)

    def convert_from_heksher(self, x: Any, /) -> Conversion[FlagT]:
        if not isinstance(x, list):
            raise _mismatch(x, "a list of flags")
        value, coercions = self.flags_type(0), []
        for name in x:
            member = self.flags_type.__members__.get(name) if isinstance(name, str) else None
            if member is None:
                coercions.append(f"unknown flag {_shown(name)} dropped")
            else:
                value |= member
        return Conversion(value, tuple(coercions))

    def convert_to_heksher(self, x: FlagT, /) -> list[str]:
        if not isinstance(x, self.flags_type):
            raise _mismatch(x, f"a {self.flags_type.__name__}")
        names = [name for name, member in self._options.items() if member in x]
        known = self.flags_type(0)
        for name in names:
            known |= self._options[name]
        if known != x and x.value >= 0:  # A negative value is the inverse of flags: all bits except theirs.
            raise TypeError(f"{x!r} has bits without a name, which the service cannot store")
        return names


class HeksherSequence(SettingType[Sequence[T]]):
    """A sequence of values of one type; a tuple if it is from the service."""

    def __init__(self, inner: SettingType[T] | type[T]) -> None:
        """Create the type of a sequence from the type of its elements, as `setting_type` accepts it."""
        self.inner: SettingType[T] = setting_type(inner)

    def heksher_string(self) -> str:
        return f"Sequence<{self.inner.heksher_string()}>"

    def convert_from_heksher(self, x: Any, /) -> Conversion[Sequence[T]]:
        if not isinstance(x, list):
            raise _mismatch(x, "a list")
        values, coercions = _convert_each(self.inner, enumerate(x), "element")
        return Conversion(tuple(values.values()), coercions)

    def convert_to_heksher(self, x: Sequence[T], /) -> list[Any]:
        if not isinstance(x, abc.Sequence) or isinstance(x, str | bytes | bytearray):
            raise _mismatch(x, "a sequence")
        return [self.inner.convert_to_heksher(element) for element in x]


class HeksherMapping(SettingType[Mapping[str, T]]):
    """A mapping from strings to values of one type; an immutable dict if it is from the service."""

    def __init__(self, inner: SettingType[T] | type[T]) -> None:
        """Create the type of a mapping from the type of its values, as `setting_type` accepts it."""
        self.inner: SettingType[T] = setting_type(inner)

    def heksher_string(self) -> str:
        return f"Mapping<{self.inner.heksher_string()}>"

    def convert_from_heksher(self, x: Any, /) -> Conversion[Mapping[str, T]]:
        if not isinstance(x, dict):
            raise _mismatch(x, "a mapping")
        values, coercions = _convert_each(self.inner, x.items(), "key")
        return Conversion(FrozenDict(values), coercions)

    def convert_to_heksher(self, x: Mapping[str, T], /) -> dict[str, Any]:
        if not isinstance(x, abc.Mapping) or not all(isinstance(key, str) for key in x):
            raise _mismatch(x, "a mapping with string keys")
        return {str.__str__(key): self.inner.convert_to_heksher(value) for key, value in x.items()}


_PRIMITIVES: Final[Mapping[Any, SettingType[Any]]] = {int: _Int(), float: _Float(), str: _Str(), bool: _Bool()}


def setting_type(arg: Any) -> SettingType[Any]:
    """Return the setting type for a Python type.

    Args:
        arg: `int`, `float`, `str`, `bool`, an `Enum` or `IntFlag` class, `Sequence[...]`, `Mapping[str, ...]` (nested
            to any depth), or a `SettingType`, which is returned unchanged.

    Raises:
        TypeError: There is no setting type for it.
    """
    if isinstance(arg, SettingType):
        return arg
    if isinstance(arg, type) and arg in _PRIMITIVES:
        return _PRIMITIVES[arg]
    origin, args = get_origin(arg), get_args(arg)
    if origin is abc.Sequence and len(args) == 1:
        return HeksherSequence(args[0])
    if origin is abc.Mapping and len(args) == 2:
        if args[0] is not str:
            raise TypeError(f"the keys of a mapping must be str, not {args[0]!r}")
        return HeksherMapping(args[1])
    if isinstance(arg, type) and issubclass(arg, Flag):
        return HeksherFlags(arg)
    if isinstance(arg, type) and issubclass(arg, Enum):
        return HeksherEnum(arg)
    raise TypeError(
        f"{arg!r} is not a setting type: use int, float, str, bool, an Enum or IntFlag class, Sequence[...], "
        "Mapping[str, ...] or a SettingType"
    )


def _convert_each(
    inner: SettingType[T], items: abc.Iterable[tuple[Any, Any]], word: str
) -> tuple[dict[Any, T], tuple[str, ...]]:
    values: dict[Any, T] = {}
    coercions: list[str] = []
    for key, raw in items:
        try:
            conversion = convert(inner, raw)
        except TypeError as error:
            coercions.append(f"{word} {key!r} dropped: {error}")
        else:
            values[key] = conversion.value
            coercions.extend(f"{word} {key!r}: {coercion}" for coercion in conversion.coercions)
    return values, tuple(coercions)


def _check_option(member: Enum) -> None:
    value = member.value
    if type(value) not in (str, int, float, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f"{member!r} has a value that is not a JSON primitive (str, int, float or bool)")


def _option_key(value: object) -> tuple[bool, object]:
    """Return a key for which `true` and `1` are different, as in JSON; `1` and `1.0` are equal in JSON as well."""
    return isinstance(value, bool), value


def _options_string(word: str, options: abc.Iterable[object]) -> str:
    return f"{word}[{','.join(sorted(orjson.dumps(option).decode() for option in options))}]"


def _mismatch(x: object, wanted: str) -> TypeError:
    return TypeError(f"{_shown(x)} is not {wanted}")


def _shown(x: object) -> str:
    """Return a value for a message: at most 80 characters, and in one line."""
    text = repr(x)
    return text if len(text) <= 80 else f"{text[:77]}..."


def convert(setting_type: SettingType[T], raw: Any) -> Conversion[T]:
    """Convert a JSON value.

    Raises:
        Exception: The error of the type.
    """
    conversion = setting_type.convert_from_heksher(raw)
    return conversion if type(conversion) is Conversion else plain_result(setting_type.convert_from_heksher, conversion)


def convert_many(setting_type: SettingType[T], values: Sequence[Any]) -> Sequence[T] | None:
    """Convert many JSON values at once; return None if each of them has to be looked at."""
    return setting_type._convert_many(values)  # noqa: SLF001 - not public, as types of programs need not have it
