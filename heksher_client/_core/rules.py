"""Rules, and the one place that knows which of them wins.

All conditions of a rule must match the context. Among the rules that match, compare from the *last* context feature to
the first: at the first feature where they differ, the rule with an exact condition beats the wildcard.

Rules are grouped by their shape, the set of features that they have a condition on. Two different rules of one shape
never match the same context, so the priority of a rule is that of its shape, and a read looks once into each shape
however many rules there are.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """A value for all contexts that match the conditions."""

    match_conditions: Mapping[str, str]
    """The exact value that the rule demands, by context feature. Features that are not named are wildcards."""
    value: T
    rule_id: int | None = None
    """The id of the rule in the service; None for a rule that did not come from there."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "match_conditions", MappingProxyType(dict(self.match_conditions)))


class Reason(Enum):
    """Why a setting has the value that it has."""

    RULE = "rule"
    """A rule matched the context."""
    SERVER_DEFAULT = "server default"
    """No rule matched; the service's default value."""
    DECLARED_DEFAULT = "declared default"
    """No rule matched, and the service never gave a default; the declaration's own."""


@dataclass(frozen=True, slots=True)
class Resolution(Generic[T]):
    """The value of a setting in one context, and how it came about."""

    value: T
    reason: Reason
    context: Mapping[str, str]
    """The context that was looked up, defaults filled in."""
    rule: Rule[T] | None = None
    """The rule that won, or None where none matched."""
    outranked: tuple[Rule[T], ...] = ()
    """The rules that matched too and lost, the strongest first."""


_ABSENT: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class _Shape(Generic[T]):
    """All rules with conditions on the same features."""

    features: tuple[str, ...]
    """In the order of the service."""
    key: Callable[[Mapping[str, str]], Hashable]
    """Picks what identifies a rule of this shape, alike from the rule's conditions and from a context."""
    values: dict[Hashable, T] = field(default_factory=dict)
    rule_ids: dict[Hashable, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, features: tuple[str, ...]) -> "_Shape[T]":
        return cls(features, itemgetter(*features) if features else lambda _: ())

    def put(self, rule: Rule[T]) -> Rule[T] | None:
        """Add a rule; of two with the same conditions keep the higher id, and return the other one."""
        key = self.key(rule.match_conditions)
        held = self.rule(key) if key in self.values else None
        if held is not None and (held.rule_id or 0) > (rule.rule_id or 0):
            return rule
        self.values[key] = rule.value
        self.rule_ids[key] = rule.rule_id
        return held

    def rule(self, key: Hashable) -> Rule[T]:
        wanted = key if isinstance(key, tuple) else (key,)
        return Rule(dict(zip(self.features, wanted, strict=True)), self.values[key], self.rule_ids[key])


@dataclass(frozen=True, slots=True)
class RuleSet(Generic[T]):
    """The rules of one setting at one moment, with the value for when none of them matches. Never changed once made."""

    default: T
    default_reason: Reason
    shapes: tuple[_Shape[T], ...] = ()
    """In the order of their priority, the highest first."""

    @classmethod
    def index(
        cls, rules: Iterable[Rule[T]], order: Sequence[str], default: T, default_reason: Reason
    ) -> tuple["RuleSet[T]", list[Rule[T]]]:
        """Index rules once, so that they are resolved at little cost ever after.

        Args:
            rules: In any order; of two with the same conditions, the one with the higher id is kept.
            default: The value where no rule matches.
            default_reason: Whose default that is.
            order: The context features in the service's order; all that the rules name.

        Returns:
            The rule set, and the rules left out of it because another one has the same conditions.
        """
        place = {feature: index for index, feature in enumerate(order)}
        shapes: dict[int, _Shape[T]] = {}
        duplicates = []
        for rule in rules:
            # One bit a feature, the last feature's the highest: comparing the numbers is the documented comparison.
            priority = sum(1 << place[feature] for feature in rule.match_conditions)
            shape = shapes.get(priority)
            if shape is None:
                shape = shapes[priority] = _Shape.of(tuple(sorted(rule.match_conditions, key=place.__getitem__)))
            duplicate = shape.put(rule)
            if duplicate is not None:
                duplicates.append(duplicate)
        ranked = tuple(shapes[priority] for priority in sorted(shapes, reverse=True))
        return cls(default, default_reason, ranked), duplicates

    def __len__(self) -> int:
        return sum(len(shape.values) for shape in self.shapes)

    def resolve(self, context: Mapping[str, str]) -> T:
        """The value in a context that has a value for every feature."""
        for shape in self.shapes:
            value: T = shape.values.get(shape.key(context), _ABSENT)
            if value is not _ABSENT:
                return value
        return self.default

    def explain(self, context: Mapping[str, str]) -> Resolution[T]:
        """The same value as `resolve` gives, with the reason for it."""
        matching = self.matching(context)
        if not matching:
            return Resolution(self.default, self.default_reason, MappingProxyType(dict(context)))
        winner, *outranked = matching
        return Resolution(winner.value, Reason.RULE, MappingProxyType(dict(context)), winner, tuple(outranked))

    def matching(self, context: Mapping[str, str]) -> list[Rule[T]]:
        """All rules that match, the strongest first."""
        keys = ((shape, shape.key(context)) for shape in self.shapes)
        return [shape.rule(key) for shape, key in keys if key in shape.values]

    def rules(self) -> list[Rule[T]]:
        """All rules, in the order of their priority."""
        return [shape.rule(key) for shape in self.shapes for key in shape.values]
