"""Rules, and the result of looking one up: the values that programs see."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from heksher_client._core.settings.frozen_dict import FrozenDict

T_co = TypeVar("T_co", covariant=True)

ABSENT: Final[Any] = object()
"""The absence of a value, where None may be a value."""


_STRINGS: Final = frozenset([str])


@dataclass(frozen=True, slots=True)
class Rule(Generic[T_co]):
    """A value for all contexts that match the conditions."""

    match_conditions: Mapping[str, str]
    """The exact value that the rule requires, by context feature. Features without a value, or with None, match any
    value."""
    value: T_co
    rule_id: int | None = None
    """The id of the rule in the service; None for a rule that did not come from there."""

    def __post_init__(self) -> None:
        conditions = self.match_conditions
        if type(conditions) is FrozenDict:  # They are those of another rule, or of an index.
            return
        if not isinstance(conditions, Mapping):
            raise TypeError(f"match_conditions must be a dict of values by feature, not {type(conditions).__name__}")
        if not {*map(type, conditions), *map(type, conditions.values())} <= _STRINGS:
            conditions = _checked(conditions)
        object.__setattr__(self, "match_conditions", FrozenDict(conditions))


def _checked(conditions: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions without wildcards, which may be None, as in the older client.

    Raises:
        TypeError: Another one is not a string, and so would never match.
    """
    for feature, value in conditions.items():
        if not isinstance(feature, str) or not isinstance(value, str | None):
            raise TypeError(f"a condition of a rule must be a str, or None for a wildcard: {feature!r} is {value!r}")
    return {feature: value for feature, value in conditions.items() if value is not None}


class Reason(StrEnum):
    """Why a setting has its value. A member is its own text, and so can be written to JSON."""

    RULE = "rule"
    """A rule matched the context."""
    SERVER_DEFAULT = "server default"
    """No rule matched; the service's default value."""
    DECLARED_DEFAULT = "declared default"
    """No rule matched, and the service never sent a default; the default of the declaration."""


@dataclass(frozen=True, slots=True)
class Resolution(Generic[T_co]):
    """The value of a setting in one context, and the reason for it."""

    value: T_co
    reason: Reason
    context: Mapping[str, str]
    """The complete context, defaults included."""
    rule: Rule[T_co] | None = None
    """The rule that won, or None if none matched."""
    outranked: tuple[Rule[T_co], ...] = ()
    """The other rules that matched, in descending priority."""
