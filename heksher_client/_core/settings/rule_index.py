"""Rules, and the one place that knows which of them wins.

All conditions of a rule must match the context. Among the rules that match, compare from the *last* context feature to
the first: at the first feature where they differ, the rule with an exact condition beats the wildcard.

Rules are grouped by their shape, the set of features that they have a condition on. Two different rules of one shape
never match the same context, so the priority of a rule is that of its shape, and a read looks once into each shape
however many rules there are.

`RuleSet.resolve` says what a read gives. `readers` does the same faster, and is tested against it.
"""

from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, islice, takewhile
from operator import indexOf, itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Work: TypeAlias = Generator[int, None, T]
"""Something long: it yields now and then how many rules it has worked on since, so that others may get their turn, and
returns its result."""


def finished(work: Work[T]) -> T:
    """The result of some work that nobody has to wait beside."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(frozen=True, slots=True)
class Rule(Generic[T_co]):
    """A value for all contexts that match the conditions."""

    match_conditions: Mapping[str, str]
    """The exact value that the rule demands, by context feature. Features that are not named are wildcards."""
    value: T_co
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
class Resolution(Generic[T_co]):
    """The value of a setting in one context, and how it came about."""

    value: T_co
    reason: Reason
    context: Mapping[str, str]
    """The context that was looked up, defaults filled in."""
    rule: Rule[T_co] | None = None
    """The rule that won, or None where none matched."""
    outranked: tuple[Rule[T_co], ...] = ()
    """The rules that matched too and lost, the strongest first."""


ABSENT: Final[Any] = object()
"""What is not there, where None may be a value."""

_AT_A_TIME: Final = 10_000
"""Rules indexed in one step: a few milliseconds."""
_FOUND_LATE: Final = 5000
"""Up to so many rules, their last values are not found before somebody reads, which then takes half a millisecond: many
settings are never read, and all that is kept takes room."""

Nested: TypeAlias = Any
"""The rules of one shape by the values that they demand: a dict for each feature, nested, and inside the last of them
the rules' values. Without features it is the one rule's value itself."""


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Rules with conditions on the same features, not yet indexed: in columns, which take less room than objects."""

    demanded: Mapping[str, Sequence[str]]
    """By feature, the value that each rule demands of it."""
    values: Sequence[T]
    rule_ids: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.rule_ids)

    def conditions(self, row: int) -> dict[str, str]:
        return {feature: column[row] for feature, column in self.demanded.items()}

    def rule(self, row: int) -> Rule[T]:
        return Rule(self.conditions(row), self.values[row], self.rule_ids[row])

    def ordered(self, place: Mapping[str, int]) -> "Group[T]":
        """The same rules, with the features in their order."""
        features = sorted(self.demanded, key=place.__getitem__)
        return Group({feature: self.demanded[feature] for feature in features}, self.values, self.rule_ids)

    def only(self, rows: Iterable[int]) -> "Group[T]":
        """Some of the rules, by their position."""
        rows = list(rows)
        demanded = {feature: _picked(column, rows) for feature, column in self.demanded.items()}
        return Group(demanded, _picked(self.values, rows), _picked(self.rule_ids, rows))

    def __add__(self, other: "Group[T]") -> "Group[T]":
        """These rules and others on the same features."""
        demanded = {feature: [*column, *other.demanded[feature]] for feature, column in self.demanded.items()}
        return Group(demanded, [*self.values, *other.values], [*self.rule_ids, *other.rule_ids])

    def distinct(self) -> "tuple[Group[T], list[Rule[T]]]":
        """Of rules with the same conditions, keep the one with the highest id; the others are returned beside."""
        kept: dict[tuple[str, ...], int] = {}
        outdone = []
        for row in range(len(self)):
            key = tuple(column[row] for column in self.demanded.values())
            other = kept.setdefault(key, row)
            if other != row:
                if (self.rule_ids[other] or 0) <= (self.rule_ids[row] or 0):
                    kept[key], row = row, other
                outdone.append(self.rule(row))
        return self.only(kept.values()), outdone


def grouped(rules: Iterable[Rule[T]]) -> list[Group[T]]:
    """Rules by the features of their conditions."""
    by_features: dict[tuple[str, ...], list[Rule[T]]] = {}
    for rule in rules:
        by_features.setdefault(tuple(rule.match_conditions), []).append(rule)
    return [
        Group(
            {feature: [rule.match_conditions[feature] for rule in alike] for feature in features},
            [rule.value for rule in alike],
            [rule.rule_id for rule in alike],
        )
        for features, alike in by_features.items()
    ]


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """All rules of a rule set with conditions on the same features."""

    features: tuple[str, ...]
    """In the order of the service."""
    levels: tuple[str, ...]
    """The same features in the order in which the tree nests them."""
    tree: Nested
    rule_ids: Sequence[int | None]
    """In the order in which a walk through the tree meets the rules."""

    @classmethod
    def of(cls, group: Group[T], levels: Sequence[str]) -> "Work[tuple[Shape[T], list[Rule[T]]]]":
        """Index a group.

        Args:
            group: Its features are in the order of the service.
            levels: The order in which the tree nests features.

        Returns:
            The shape, and the rules left out of it because another one has the same conditions.
        """
        own_levels = tuple(level for level in levels if level in group.demanded)
        outdone: list[Rule[T]] = []
        while True:
            rule_ids: list[int | None] = []
            columns = [group.demanded[level] for level in own_levels]
            tree = yield from _tree(columns, group.values, group.rule_ids, rule_ids)
            if _size(tree, len(own_levels)) == len(rule_ids):
                return cls(tuple(group.demanded), own_levels, tree, _compact(rule_ids)), outdone
            group, outdone = group.distinct()

    def __len__(self) -> int:
        return _size(self.tree, len(self.levels))

    def find(self, context: Mapping[str, str]) -> T:
        """The value of the rule that matches; `ABSENT` if none does."""
        found = self.tree
        for level in self.levels:
            found = found.get(context[level], ABSENT)
            if found is ABSENT:
                break
        value: T = found
        return value

    def match(self, context: Mapping[str, str]) -> Rule[T] | None:
        """The rule that matches."""
        value = self.find(context)
        if value is ABSENT:
            return None
        key = [context[level] for level in self.levels]
        return self._rule(key, value, self.rule_ids[_position(self.tree, key)])

    def leaves(self) -> Iterator[Mapping[str, T]]:
        """The last dicts of all branches."""
        trees = [self.tree]
        for _ in self.levels[1:]:
            trees = [subtree for tree in trees for subtree in tree.values()]
        yield from trees

    def rules(self) -> Iterator[Rule[T]]:
        for (key, value), rule_id in zip(_walk(self.tree, len(self.levels)), self.rule_ids, strict=True):
            yield self._rule(key, value, rule_id)

    def _rule(self, key: Sequence[str], value: T, rule_id: int | None) -> Rule[T]:
        conditions = dict(zip(self.levels, key, strict=True))
        return Rule({feature: conditions[feature] for feature in self.features}, value, rule_id)


@dataclass(frozen=True, slots=True)
class RuleSet(Generic[T]):
    """The rules of one setting at one moment, with the value for when none of them matches. Never changed once made."""

    default: T
    default_reason: Reason
    shapes: tuple[Shape[T], ...] = ()
    """In the order of their priority, the highest first."""
    demanded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The values that rules demand of each feature, the feature with the fewest values first. Trees are nested in this
    order: so there are few dicts, each with many values. Of the last feature, which may have as many values as there
    are rules, they are not kept."""
    last_values: dict[str, None] = field(default_factory=dict)
    """These too, where rules of more than one shape have a condition on that last feature: those of any shape. In small
    rule sets they are found when they are first needed."""

    @classmethod
    def index(
        cls, groups: Iterable[Group[T]], order: Sequence[str], default: T, default_reason: Reason
    ) -> "tuple[RuleSet[T], list[Rule[T]]]":
        """Index rules once, so that they are resolved at little cost ever after.

        Args:
            groups: In any order; of two rules with the same conditions, the one with the higher id is kept.
            order: The context features in the service's order; all that the rules name.
            default: The value where no rule matches.
            default_reason: Whose default that is.

        Returns:
            The rule set, and the rules left out of it because another one has the same conditions.
        """
        return finished(cls.index_in_steps(groups, order, default, default_reason))

    @classmethod
    def index_in_steps(
        cls, groups: Iterable[Group[T]], order: Sequence[str], default: T, default_reason: Reason
    ) -> "Work[tuple[RuleSet[T], list[Rule[T]]]]":
        """Do the same as `index`, bit by bit."""
        place = {feature: index for index, feature in enumerate(order)}
        ranked = _ranked(groups, place)
        del groups
        demanded: dict[str, set[str]] = {}
        for group in ranked:
            for feature, column in group.demanded.items():
                values = demanded.setdefault(feature, set())
                for start in range(0, len(column), _AT_A_TIME):
                    values.update(column[start : start + _AT_A_TIME])
                    yield _AT_A_TIME // 2
        levels = sorted(demanded, key=lambda feature: (len(demanded[feature]), place[feature]))
        shapes, outdone = [], []
        while ranked:  # Each group is freed as soon as it is indexed: all at once would take a while.
            shape, same = yield from Shape.of(ranked.popleft(), levels)
            shapes.append(shape)
            outdone += same
        kept = {level: frozenset(demanded[level]) if level != levels[-1] else frozenset[str]() for level in levels}
        rule_set = cls(default, default_reason, tuple(shapes), kept)
        if rule_set.shares_last and len(rule_set) > _FOUND_LATE:
            values_left = iter(demanded.pop(levels[-1]))
            while some := dict.fromkeys(islice(values_left, _AT_A_TIME)):
                rule_set.last_values.update(some)
                yield _AT_A_TIME // 2
        return rule_set, outdone

    def __len__(self) -> int:
        return sum(map(len, self.shapes))

    @property
    def shares_last(self) -> bool:
        """Whether more than one shape has the last feature."""
        return len(self._shapes_with_last()) > 1

    def find_last_values(self) -> None:
        """Fill `last_values`, if that was not done."""
        if self.last_values:
            return
        leaves = [leaf for shape in self._shapes_with_last() for leaf in shape.leaves()]
        self.last_values.update(dict.fromkeys(chain.from_iterable(leaves)))  # at once, as somebody may be reading

    def _shapes_with_last(self) -> "list[Shape[T]]":
        return [shape for shape in self.shapes if shape.levels and shape.levels[-1] == self.last]

    @property
    def last(self) -> str | None:
        """The feature that rules demand the most values of."""
        return next(reversed(list(self.demanded)), None)

    def resolve(self, context: Mapping[str, str]) -> T:
        """The value in a context that has a value for every feature."""
        for shape in self.shapes:
            value = shape.find(context)
            if value is not ABSENT:
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
        return [rule for shape in self.shapes if (rule := shape.match(context)) is not None]

    def rules(self) -> list[Rule[T]]:
        """All rules, in the order of their priority."""
        return [rule for shape in self.shapes for rule in shape.rules()]


def _ranked(groups: Iterable[Group[T]], place: Mapping[str, int]) -> deque[Group[T]]:
    """One group for each set of features, in the order of their priority."""
    by_priority: dict[int, Group[T]] = {}
    for group in groups:
        # One bit a feature, the last feature's the highest: comparing the numbers is the documented comparison.
        priority = sum(1 << place[feature] for feature in group.demanded)
        known = by_priority.get(priority)
        by_priority[priority] = group.ordered(place) if known is None else known + group
    return deque(by_priority[priority] for priority in sorted(by_priority, reverse=True))


def _tree(
    columns: Sequence[Sequence[str]], values: Sequence[Any], rule_ids: Sequence[int | None], walked: list[int | None]
) -> Work[Nested]:
    """Nest rules, and note their ids in the order in which a walk meets them."""
    if len(columns) == 2:
        return (yield from _tree_of_two(columns[0], columns[1], values, rule_ids, walked))
    if len(columns) < 2:
        walked += rule_ids
        return (yield from _tree_of_one(columns[0], values)) if columns else values[0]
    first, *others = columns
    rows_by_value: dict[str, list[int]] = {}
    for start in range(0, len(first), _AT_A_TIME):
        for row, value in enumerate(first[start : start + _AT_A_TIME], start):
            try:
                rows_by_value[value].append(row)
            except KeyError:
                rows_by_value[value] = [row]
        yield _AT_A_TIME
    tree = {}
    for value, rows in rows_by_value.items():
        below = [_picked(column, rows) for column in others]
        tree[value] = yield from _tree(below, _picked(values, rows), _picked(rule_ids, rows), walked)
    return tree


def _tree_of_one(column: Sequence[str], values: Sequence[Any]) -> Work[Nested]:
    leaf: dict[str, Any] = {}
    rows = zip(column, values, strict=True)
    for _ in range(0, len(column), _AT_A_TIME):
        leaf.update(islice(rows, _AT_A_TIME))
        yield min(len(column), _AT_A_TIME)
    return leaf


def _tree_of_two(
    first: Sequence[str],
    second: Sequence[str],
    values: Sequence[Any],
    rule_ids: Sequence[int | None],
    walked: list[int | None],
) -> Work[Nested]:
    """The commonest of the deeper trees, and the last two levels of the others: in one go, without columns between."""
    branches: dict[str, tuple[dict[str, Any], list[int | None]]] = {}
    rows = zip(first, second, values, rule_ids, strict=True)
    for _ in range(0, len(first), _AT_A_TIME):
        for one, other, value, rule_id in islice(rows, _AT_A_TIME):
            try:
                leaf, ids = branches[one]
            except KeyError:
                leaf, ids = branches[one] = {}, []
            leaf[other] = value
            ids.append(rule_id)
        yield min(len(first), _AT_A_TIME)
    for _, ids in branches.values():
        walked += ids
    return {one: leaf for one, (leaf, _) in branches.items()}


def _picked(column: Sequence[T], rows: Sequence[int]) -> Sequence[T]:
    """Some of the elements, by their position."""
    if len(rows) < 2:
        return [column[row] for row in rows]
    picked: tuple[T, ...] = itemgetter(*rows)(column)
    return picked


def _walk(tree: Nested, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if depth == 0:
        yield (), tree
        return
    for first, subtree in tree.items():
        for others, value in _walk(subtree, depth - 1):
            yield (first, *others), value


def _size(tree: Nested, depth: int) -> int:
    """How many rules there are in a tree."""
    if depth < 2:
        return len(tree) if depth else 1
    return sum(_size(subtree, depth - 1) for subtree in tree.values())


def _position(tree: Nested, key: Sequence[str]) -> int:
    """How many rules a walk meets before the one with this key."""
    if len(key) < 2:
        return indexOf(tree, key[0]) if key else 0
    first, *others = key
    before = takewhile(lambda value: value != first, tree)
    return sum(_size(tree[value], len(others)) for value in before) + _position(tree[first], others)


def _compact(rule_ids: list[int | None]) -> Sequence[int | None]:
    """Ids in 8 bytes each, where they are numbers of 64 bits."""
    try:
        return array("q", rule_ids)  # type: ignore[type-var]
    except (TypeError, OverflowError):
        return tuple(rule_ids)
