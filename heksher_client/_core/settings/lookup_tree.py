"""The tree that a read walks, one context feature after the other, instead of searching each index of the rule set.

A leaf at the end of a path, for values of all features but the last, holds what the rules leave open there. The last
feature is the one with the most values, so there are few paths. The tree grows with the contexts that are read:
publishing rules costs nothing here, nor does a setting that is never read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from heksher_client._core.settings.frozen_dict import EMPTY_SET
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT

UNLISTED: Final[Any] = object()
"""The key in a node of all values that have no branch of their own."""

Node: TypeAlias = dict[Any, Any]
"""The next nodes, or leaves, by value. A plain dict, which the interpreter searches fastest."""

_MIN_BRANCHES: Final = 16_384
"""The limit of a tree's branches, or the number of rules if that is higher: a tree must not take much more memory than
the rules. Reads in contexts beyond the limit take the slow path."""
_MIN_MEMO_ENTRIES: Final = 4096
"""The limit of memoized lookups of a tree, or the number of rules if that is higher."""
_MAX_UNLISTED_BRANCHES: Final = 256
"""Branches of one level for values that no rule requires; a branch of its own is the fastest way. All further values,
whose number may be unbounded, share one branch of their node. All these branches of a node lead to the same place."""


Leaf: TypeAlias = tuple[Callable[..., Any], Any, Callable[[str], Any] | None]
"""A function to look up the last feature's value with; the result if it is not found; and, if rules of several indexes
are left, a function to search them with a value that is not found but occurs in a rule. A plain tuple, which the
interpreter unpacks fastest."""


class _Capacity(msgspec.Struct):
    """Memo entries that are left. An object of its own: a leaf that referred to its tree would form a cycle, and the
    tree would not be freed at once."""

    left: int


class LookupTree:
    """The tree of one rule set."""

    def __init__(self, rule_set: RuleSet[Any], inner_features: Sequence[str]) -> None:
        """Create a tree without branches.

        Args:
            rule_set: The rules to search.
            inner_features: The features that rules have conditions on, except the last one, in the order of the tree.
        """
        self._rule_set = rule_set
        self._inner_features = inner_features
        self._leaves: dict[tuple[int, ...], Leaf] = {}
        self._unlisted_branches = dict.fromkeys(inner_features, 0)
        self.overflow_levels: frozenset[str] = EMPTY_SET
        """The features with more unlisted values than get a branch of their own."""
        self._branches_left = max(_MIN_BRANCHES, len(rule_set))
        self._memo_capacity = _Capacity(max(_MIN_MEMO_ENTRIES, len(rule_set)))
        self.root: Node | Leaf = {} if inner_features else self._leaf({})

    @property
    def can_grow(self) -> bool:
        """True until the limit of branches is reached."""
        return self._branches_left > 0

    def grow(self, context: Mapping[str, Any]) -> Any:
        """Add the path of a context, as far as it has values, and return the node at its end."""
        node: Any = self.root
        conditions: dict[str, str] = {}
        for feature in self._inner_features:
            if feature not in context:
                break
            value = str.__str__(context[feature])
            if value in self._rule_set.condition_values[feature]:
                conditions[feature] = value
            node = self._branch(node, feature, value, conditions)
        return node

    def _branch(self, node: Node, feature: str, value: str, conditions: Mapping[str, str]) -> Any:
        if value in node:
            return node[value]
        key = value if feature in conditions else UNLISTED
        if key not in node:
            self._branches_left -= 1
            node[key] = self._leaf(conditions) if feature == self._inner_features[-1] else {}
        if key is UNLISTED:
            if self._unlisted_branches[feature] < _MAX_UNLISTED_BRANCHES:
                self._unlisted_branches[feature] += 1
                self._branches_left -= 1
                node[value] = node[UNLISTED]
            else:
                self.overflow_levels |= {feature}
        return node[key]

    def _leaf(self, conditions: Mapping[str, str]) -> Leaf:
        """Return the leaf for some values that rules require. Paths that leave the same rules open share a leaf."""
        last_feature = self._rule_set.last_feature
        dicts: list[dict[str, Any]] = []
        otherwise = self._rule_set.default
        for index in self._rule_set.indexes:
            found = index.tree
            for level in index.levels:
                if level == last_feature:
                    dicts.append(found)
                    break
                found = found.get(conditions.get(level, ABSENT), ABSENT)
                if found is ABSENT:
                    break
            else:
                otherwise = found  # It matches every value of the last feature, so rules of lower priority never win.
                break
        key = (id(otherwise), *map(id, dicts))  # The rule set refers to all of them, so no id is reused.
        if key not in self._leaves:
            self._leaves[key] = self._make_leaf(dicts, otherwise)
        return self._leaves[key]

    def _make_leaf(self, dicts: Sequence[dict[str, Any]], otherwise: Any) -> Leaf:
        if len(dicts) < 2:
            empty: dict[str, Any] = {}
            return (dicts[0] if dicts else empty).get, otherwise, None
        self._rule_set.fill_last_feature_values()
        memo: dict[str, Any] = {}
        return memo.get, otherwise, _search(dicts, otherwise, memo, self._memo_capacity)


def _search(
    dicts: Sequence[Mapping[str, Any]], otherwise: Any, memo: dict[str, Any], capacity: _Capacity
) -> Callable[[str], Any]:
    """Return a function that searches one dict after the other, and memoizes the result while there is capacity."""

    def search(value: str) -> Any:
        found = next((candidates[value] for candidates in dicts if value in candidates), otherwise)
        if capacity.left > 0:
            capacity.left -= 1
            memo[value] = found
        return found

    return search
