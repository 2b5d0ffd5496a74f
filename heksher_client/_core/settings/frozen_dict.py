"""FrozenDict: the immutable dict of the mappings that a program gets from settings, rules and resolutions.

Settings share the empty containers, as there may be thousands of them.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn, TypeVar

V = TypeVar("V")

EMPTY_SET: Final[frozenset[Any]] = frozenset()
"""The interpreter makes a new one, of 216 bytes, for each call of `frozenset()`."""


class FrozenDict(dict[str, V]):
    """A dict that cannot be changed.

    It is a dict because `json`, orjson, msgspec and templates accept one as it is, and `MappingProxyType` can be
    neither serialized, pickled nor copied. Only a call that names the base class, such as `dict.update(value, ...)`,
    could change it.
    """

    __slots__ = ()

    def __new__(cls, items: Mapping[str, V] | Iterable[tuple[str, V]] = ()) -> "FrozenDict[V]":
        """Create a mapping with these items."""
        instance: FrozenDict[V] = dict.__new__(cls)
        dict.update(instance, items)
        return instance

    # It ignores arguments, as `__new__` is overridden; a call of `dict.__init__` would change the items. A refresh
    # creates one object for each value, and a function that does nothing would double the time that this takes.
    __init__ = object.__init__

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> "FrozenDict[V]":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenDict[V]":
        duplicate: FrozenDict[V] = FrozenDict(copy.deepcopy(dict(self), memo))
        return duplicate

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is immutable: change a copy of it, dict(mapping)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


EMPTY_DICT: Final[FrozenDict[Any]] = FrozenDict()
