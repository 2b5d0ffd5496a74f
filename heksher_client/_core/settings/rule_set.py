"""The rules of one setting, and the one place that knows which of them wins.

All conditions of a rule must match the context. Among the rules that match, compare from the *last* context feature to
the first: at the first feature where they differ, the rule with an exact condition beats the wildcard.

So the priority of a rule depends only on the set of features that it has conditions on. Rules are grouped by that set,
one `RuleIndex` each, and a lookup tries the indexes in descending priority.

`RuleSet.resolve` specifies a read. `Setting.get` returns the same faster (`entry`, `lookup_tree`, `getter`), and is
tested against it.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Final, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from heksher_client._core.settings.cooperative import Work, run_to_end
from heksher_client._core.settings.frozen_dict import EMPTY_DICT, EMPTY_SET, FrozenDict
from heksher_client._core.settings.rule_index import STEP_SIZE, RuleColumns, RuleIndex
from heksher_client._core.settings.rules import ABSENT, Reason, Resolution, Rule

T = TypeVar("T")

_MAX_RULES_FOR_LAZY_VALUES: Final = 5000
"""Up to this many rules, `last_feature_values` is filled by the first read that needs it, which takes half a
millisecond: many settings are never read, and the set takes memory."""


class RuleSet(msgspec.Struct, Generic[T], frozen=True):
    """The rules of one setting at one moment, and the value if none of them matches. Immutable."""

    default: T
    default_reason: Reason
    indexes: tuple[RuleIndex[T], ...] = ()
    """In descending priority."""
    condition_values: Mapping[str, frozenset[str]] = EMPTY_DICT
    """The values that rules require, by feature; the feature with the fewest values first. Dicts are nested in this
    order: few dicts, each with many values. The set of the last feature, which may be as large as the number of rules,
    is left empty."""
    last_feature_values: dict[str, None] = EMPTY_DICT
    """The values of the last feature, if several indexes have conditions on it. Small rule sets fill it when it is
    first needed."""

    @classmethod
    def build(
        cls, groups: Iterable[RuleColumns[T]], order: Sequence[str], default: T, default_reason: Reason
    ) -> "tuple[RuleSet[T], list[Rule[T]]]":
        """Index rules once, so that resolving them is cheap.

        Args:
            groups: In any order; of two rules with the same conditions, the one with the higher id is kept.
            order: The context features in the service's order, including all that the rules name.
            default: The value if no rule matches.
            default_reason: Where the default comes from.

        Returns:
            The rule set, and the rules dropped because another rule has the same conditions.
        """
        return run_to_end(cls.build_in_steps(groups, order, default, default_reason))

    @classmethod
    def build_in_steps(
        cls, groups: Iterable[RuleColumns[T]], order: Sequence[str], default: T, default_reason: Reason
    ) -> "Work[tuple[RuleSet[T], list[Rule[T]]]]":
        """Do the same as `build`, in steps."""
        position = {feature: index for index, feature in enumerate(order)}
        ranked = _sort_by_priority(groups, position)
        del groups
        condition_values: dict[str, set[str]] = {}
        for group in ranked:
            for feature, column in group.conditions.items():
                values = condition_values.setdefault(feature, set())
                for start in range(0, len(column), STEP_SIZE):
                    if start:
                        yield STEP_SIZE // 2
                    values.update(column[start : start + STEP_SIZE])
        levels = sorted(condition_values, key=lambda feature: (len(condition_values[feature]), position[feature]))
        indexes, duplicates = [], []
        while ranked:  # Each group is freed as soon as it is indexed: freeing all of them at once would take a while.
            index, dropped = yield from RuleIndex.build(ranked.popleft(), position, levels)
            indexes.append(index)
            duplicates += dropped
        kept = {level: frozenset(condition_values[level]) if level != levels[-1] else EMPTY_SET for level in levels}
        rule_set = cls(default, default_reason, tuple(indexes), kept)
        if rule_set.shares_last_feature:
            last_values: dict[str, None] = {}
            rule_set = replace(rule_set, last_feature_values=last_values)
            if len(rule_set) > _MAX_RULES_FOR_LAZY_VALUES:
                yield from _collect(condition_values.pop(levels[-1]), last_values)
        return rule_set, duplicates

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    @property
    def last_feature(self) -> str | None:
        """The feature for which rules require the most values."""
        return next(reversed(list(self.condition_values)), None)

    @property
    def shares_last_feature(self) -> bool:
        """True if several indexes have conditions on the last feature."""
        return len(self._indexes_with_last_feature()) > 1

    def fill_last_feature_values(self) -> None:
        """Fill `last_feature_values`, unless that was done."""
        if self.last_feature_values:
            return
        leaves = [leaf for index in self._indexes_with_last_feature() for leaf in index.leaves()]
        # In one operation, as other threads may be reading.
        self.last_feature_values.update(dict.fromkeys(chain.from_iterable(leaves)))

    def _indexes_with_last_feature(self) -> "list[RuleIndex[T]]":
        last = self.last_feature
        return [index for index in self.indexes if index.levels and index.levels[-1] == last]

    def resolve(self, context: Mapping[str, str]) -> T:
        """Return the value in a complete context."""
        for index in self.indexes:
            value = index.find(context)
            if value is not ABSENT:
                return value
        return self.default

    def explain(self, context: Mapping[str, str]) -> Resolution[T]:
        """Return the same value as `resolve`, with the reason for it."""
        matching = self.matching(context)
        if not matching:
            return Resolution(self.default, self.default_reason, FrozenDict(context))
        winner, *outranked = matching
        return Resolution(winner.value, Reason.RULE, FrozenDict(context), winner, tuple(outranked))

    def matching(self, context: Mapping[str, str]) -> list[Rule[T]]:
        """Return all rules that match, in descending priority."""
        return [rule for index in self.indexes if (rule := index.match(context)) is not None]

    def rules(self) -> list[Rule[T]]:
        """Return all rules, in descending priority."""
        return [rule for index in self.indexes for rule in index.rules()]


def _collect(values: Iterable[str], collected: dict[str, None]) -> Work[None]:
    values_left = iter(values)
    while step := dict.fromkeys(islice(values_left, STEP_SIZE)):
        collected.update(step)
        yield len(step) // 2


def _sort_by_priority(groups: Iterable[RuleColumns[T]], position: Mapping[str, int]) -> deque[RuleColumns[T]]:
    """Merge the groups with the same features, and sort them by descending priority."""
    by_priority: dict[int, RuleColumns[T]] = {}
    for group in groups:
        # One bit for each feature, the highest for the last one: comparing the numbers is the documented comparison.
        priority = sum([1 << position[feature] for feature in group.conditions])
        known = by_priority.get(priority)
        by_priority[priority] = group if known is None else known + group
    return deque(by_priority[priority] for priority in sorted(by_priority, reverse=True))
