"""Rules, and the result of looking one up: the values that programs see."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

ABSENT: Final[Any] = object()
"""The absence of a value, where None may be a value."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[T_co]):
    """A value for all contexts that match the conditions."""

    match_conditions: Mapping[str, str]
    """The exact value that the rule requires, by context feature. Features that are not named are wildcards."""
    value: T_co
    rule_id: int | None = None
    """The id of the rule in the service; None for a rule that did not come from there."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "match_conditions", MappingProxyType(dict(self.match_conditions)))


class Reason(Enum):
    """Why a setting has its value."""

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
