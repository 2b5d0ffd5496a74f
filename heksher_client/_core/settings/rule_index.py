"""Rules indexed for lookups: the rules with conditions on the same features, as nested dicts.

Two different rules with conditions on the same features never match the same context. So an index is searched with one
lookup per feature, however many rules it holds. All work here is done in steps, as there may be 100,000 rules.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from operator import indexOf, itemgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from heksher_client._core.settings.cooperative import Work
from heksher_client._core.settings.frozen_dict import FrozenDict
from heksher_client._core.settings.rules import ABSENT, Rule

T = TypeVar("T")

STEP_SIZE: Final = 10_000
"""Rules indexed in one step: a few milliseconds. Smaller sets do not pause at all."""

Nested: TypeAlias = Any
"""A dict for each feature, nested, with the rules' values inside the last one. Without features, the value of the one
rule."""


class RuleColumns(msgspec.Struct, Generic[T], frozen=True):
    """Rules with conditions on the same features, not indexed yet. Columns take less memory than objects."""

    conditions: Mapping[str, Sequence[str]]
    """The value that each rule requires, by feature."""
    values: Sequence[T]
    rule_ids: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.rule_ids)

    def conditions_of(self, row: int) -> dict[str, str]:
        return {feature: column[row] for feature, column in self.conditions.items()}

    def rule(self, row: int) -> Rule[T]:
        return Rule(FrozenDict(self.conditions_of(row)), self.values[row], self.rule_ids[row])

    def select(self, rows: Iterable[int]) -> "RuleColumns[T]":
        """Return some of the rules, by row number."""
        rows = list(rows)
        conditions = {feature: _select(column, rows) for feature, column in self.conditions.items()}
        return RuleColumns(conditions, _select(self.values, rows), _select(self.rule_ids, rows))

    def __add__(self, other: "RuleColumns[T]") -> "RuleColumns[T]":
        """Return these rules followed by others on the same features."""
        conditions = {feature: [*column, *other.conditions[feature]] for feature, column in self.conditions.items()}
        return RuleColumns(conditions, [*self.values, *other.values], [*self.rule_ids, *other.rule_ids])

    def deduplicate(self) -> "tuple[RuleColumns[T], list[Rule[T]]]":
        """Keep the rule with the highest id of those with the same conditions.

        Returns:
            The rules that were kept, and the duplicates that were dropped.
        """
        kept: dict[tuple[str, ...], int] = {}
        duplicates = []
        for row in range(len(self)):
            key = tuple(column[row] for column in self.conditions.values())
            other = kept.setdefault(key, row)
            if other != row:
                if (self.rule_ids[other] or 0) <= (self.rule_ids[row] or 0):
                    kept[key], row = row, other
                duplicates.append(self.rule(row))
        return self.select(kept.values()), duplicates


def group_by_features(rules: Iterable[Rule[T]]) -> list[RuleColumns[T]]:
    """Group rules by the features of their conditions."""
    by_features: dict[tuple[str, ...], list[Rule[T]]] = {}
    for rule in rules:
        by_features.setdefault(tuple(rule.match_conditions), []).append(rule)
    return [
        RuleColumns(
            {feature: [rule.match_conditions[feature] for rule in group] for feature in features},
            [rule.value for rule in group],
            [rule.rule_id for rule in group],
        )
        for features, group in by_features.items()
    ]


class RuleIndex(msgspec.Struct, Generic[T], frozen=True):
    """All rules of a setting with conditions on the same features."""

    features: tuple[str, ...]
    """In the order of the service."""
    levels: tuple[str, ...]
    """The same features in the order in which the dicts are nested."""
    tree: Nested
    rule_ids: Sequence[int | None]
    """In the order in which a walk through the tree reaches the rules."""

    @classmethod
    def build(
        cls, group: RuleColumns[T], position: Mapping[str, int], levels: Sequence[str]
    ) -> "Work[tuple[RuleIndex[T], list[Rule[T]]]]":
        """Index rules.

        Args:
            group: The rules.
            position: The positions of the features in the order of the service.
            levels: The order in which features are nested.

        Returns:
            The index, and the rules dropped because another rule has the same conditions.
        """
        own_levels = tuple(filter(group.conditions.__contains__, levels))
        # One tuple for both if there is a single feature: there may be thousands of settings.
        features = own_levels if len(own_levels) < 2 else tuple(sorted(own_levels, key=position.__getitem__))
        duplicates: list[Rule[T]] = []
        while True:
            rule_ids: list[int | None] = []
            columns = [group.conditions[level] for level in own_levels]
            tree = yield from _nest(columns, group.values, group.rule_ids, rule_ids)
            if _count(tree, len(own_levels)) == len(rule_ids):
                return cls(features, own_levels, tree, _compact(rule_ids)), duplicates
            group, duplicates = group.deduplicate()

    def __len__(self) -> int:
        return len(self.rule_ids)

    def find(self, context: Mapping[str, str]) -> T:
        """Return the value of the rule that matches; `ABSENT` if none does."""
        found = self.tree
        for level in self.levels:
            found = found.get(context[level], ABSENT)
            if found is ABSENT:
                break
        value: T = found
        return value

    def match(self, context: Mapping[str, str]) -> Rule[T] | None:
        """Return the rule that matches."""
        value = self.find(context)
        if value is ABSENT:
            return None
        key = [context[level] for level in self.levels]
        return self._rule(key, value, self.rule_ids[_position(self.tree, key)])

    def leaves(self) -> Iterator[Mapping[str, T]]:
        """Iterate over the innermost dicts."""
        trees = [self.tree]
        for _ in self.levels[1:]:
            trees = [subtree for tree in trees for subtree in tree.values()]
        yield from trees

    def rules(self) -> Iterator[Rule[T]]:
        for (key, value), rule_id in zip(_walk(self.tree, len(self.levels)), self.rule_ids, strict=True):
            yield self._rule(key, value, rule_id)

    def _rule(self, key: Sequence[str], value: T, rule_id: int | None) -> Rule[T]:
        conditions = dict(zip(self.levels, key, strict=True))
        return Rule(FrozenDict({feature: conditions[feature] for feature in self.features}), value, rule_id)


def _nest(
    columns: Sequence[Sequence[str]], values: Sequence[Any], rule_ids: Sequence[int | None], walked: list[int | None]
) -> Work[Nested]:
    """Build the nested dicts, and append the rule ids in the order in which a walk reaches them."""
    if len(values) == 1 or not columns:  # The most common case of a setting with few rules.
        walked += rule_ids
        tree = values[0]
        for column in reversed(columns):
            tree = {column[0]: tree}
        return tree
    if len(columns) == 2:
        return (yield from _nest_two(columns[0], columns[1], values, rule_ids, walked))
    if len(columns) == 1:
        walked += rule_ids
        return (yield from _nest_one(columns[0], values))
    return (yield from _nest_more(columns, values, rule_ids, walked))


def _nest_more(
    columns: Sequence[Sequence[str]], values: Sequence[Any], rule_ids: Sequence[int | None], walked: list[int | None]
) -> Work[Nested]:
    """Nest three or more features: group the rules by the first one, and nest each group by the others."""
    first, *others = columns
    rows_by_value: dict[str, list[int]] = {}
    for start in range(0, len(first), STEP_SIZE):
        if start:
            yield STEP_SIZE
        for row, value in enumerate(first[start : start + STEP_SIZE], start):
            try:
                rows_by_value[value].append(row)
            except KeyError:
                rows_by_value[value] = [row]
    tree = {}
    for value, rows in rows_by_value.items():
        below = [_select(column, rows) for column in others]
        tree[value] = yield from _nest(below, _select(values, rows), _select(rule_ids, rows), walked)
    return tree


def _nest_one(column: Sequence[str], values: Sequence[Any]) -> Work[Nested]:
    leaf: dict[str, Any] = {}
    rows = zip(column, values, strict=True)
    for start in range(0, len(column), STEP_SIZE):
        if start:
            yield STEP_SIZE
        leaf.update(islice(rows, STEP_SIZE))
    return leaf


def _nest_two(
    first: Sequence[str],
    second: Sequence[str],
    values: Sequence[Any],
    rule_ids: Sequence[int | None],
    walked: list[int | None],
) -> Work[Nested]:
    """Nest two features in one pass, without columns in between: the most common case, and the last step of others."""
    branches: dict[str, tuple[dict[str, Any], list[int | None]]] = {}
    rows = zip(first, second, values, rule_ids, strict=True)
    for start in range(0, len(first), STEP_SIZE):
        if start:
            yield STEP_SIZE
        for outer, inner, value, rule_id in islice(rows, STEP_SIZE):
            try:
                leaf, ids = branches[outer]
            except KeyError:
                leaf, ids = branches[outer] = {}, []
            leaf[inner] = value
            ids.append(rule_id)
    for _, ids in branches.values():
        walked += ids
    return {outer: leaf for outer, (leaf, _) in branches.items()}


def _select(column: Sequence[T], rows: Sequence[int]) -> Sequence[T]:
    """Return some elements, by position."""
    if len(rows) < 2:
        return [column[row] for row in rows]
    selected: tuple[T, ...] = itemgetter(*rows)(column)
    return selected


def _walk(tree: Nested, depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    if depth == 0:
        yield (), tree
        return
    for first, subtree in tree.items():
        for others, value in _walk(subtree, depth - 1):
            yield (first, *others), value


def _count(tree: Nested, depth: int) -> int:
    """Count the rules in a tree."""
    if depth < 2:
        return len(tree) if depth else 1
    if depth == 2:
        return sum(map(len, tree.values()))
    return sum(_count(subtree, depth - 1) for subtree in tree.values())


def _position(tree: Nested, key: Sequence[str]) -> int:
    """Count the rules that a walk reaches before the one with this key."""
    if len(key) < 2:
        return indexOf(tree, key[0]) if key else 0
    first, *others = key
    before = takewhile(lambda value: value != first, tree)
    return sum(_count(tree[value], len(others)) for value in before) + _position(tree[first], others)


def _compact(rule_ids: list[int | None]) -> Sequence[int | None]:
    """Store ids in 8 bytes each, if all are integers of 64 bits."""
    try:
        return array("q", rule_ids)  # type: ignore[type-var]
    except (TypeError, OverflowError):
        return tuple(rule_ids)
