"""Finding a value by going down a tree, one feature after the other, instead of looking into each shape.

At the end of a path, for values of all features but the last, is a leaf: what the rules leave open there. The last
feature is the one that rules demand the most values of, so there are few paths. The tree grows with the contexts that
are read: putting new rules in place costs nothing here, nor does a setting that nobody reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT

OTHERS: Final[Any] = object()
"""Where in a node all values go that have no branch of their own."""

Node: TypeAlias = dict[Any, Any]
"""The next nodes, or leaves, by value. A plain dict, as the interpreter looks into those the fastest."""

_SMALLEST_ROOM: Final = 16_384
"""A tree grows by so many branches, or by as many as there are rules if that is more: it must not outgrow them by much.
Contexts beyond that are read plainly."""
_FEWEST_FINDINGS: Final = 4096
"""So many values found are noted, or as many as there are rules."""
_STRANGERS: Final = 256
"""So many branches of a level are for values that no rule demands, which is the fastest way. All further ones, and who
knows how many there are, take one more branch of their node. All these branches of a node lead to the same."""


Leaf: TypeAlias = tuple[Callable[..., Any], Any, Callable[[str], Any] | None]
"""What is left of the rules when all features but the last have values: where to look the last feature's value up;
what holds where it is not there; and, if rules of several shapes are left, what to call with a value that is not there
but is demanded somewhere. A plain tuple, as the interpreter unpacks those the fastest."""


@dataclass(slots=True)
class _Room:
    """How many more findings may be noted. A part of its own, as a leaf that referred to its tree would keep it from
    being freed at once."""

    left: int


class Tree:
    """The tree of one rule set."""

    def __init__(self, rule_set: RuleSet[Any], few: Sequence[str]) -> None:
        """Make a tree without branches.

        Args:
            rule_set: What values are found in.
            few: The features that rules demand values of, but for the last one, in the order of the tree.
        """
        self._rule_set = rule_set
        self._few = few
        self._leaves: dict[tuple[int, ...], Leaf] = {}
        self._strangers = dict.fromkeys(few, 0)
        self.open_levels: frozenset[str] = frozenset()
        """Those at which there are more values that no rule demands than get a branch of their own."""
        self._room = max(_SMALLEST_ROOM, len(rule_set))
        self._room_for_findings = _Room(max(_FEWEST_FINDINGS, len(rule_set)))
        self.root: Node | Leaf = {} if few else self._leaf({})

    @property
    def has_room(self) -> bool:
        """Whether it may grow."""
        return self._room > 0

    def grow(self, context: Mapping[str, Any]) -> Any:
        """Grow the way for a context, and go down it as far as there are values for the features."""
        node: Any = self.root
        conditions: dict[str, str] = {}
        for feature in self._few:
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
        # All values that no rule demands lead to the same.
        branch = value if feature in conditions else OTHERS
        if branch not in node:
            self._room -= 1
            node[branch] = self._leaf(conditions) if feature == self._few[-1] else {}
        if branch is OTHERS:
            if self._strangers[feature] < _STRANGERS:
                self._strangers[feature] += 1
                self._room -= 1
                node[value] = node[OTHERS]
            else:
                self.open_levels |= {feature}
        return node[branch]

    def _leaf(self, conditions: Mapping[str, str]) -> Leaf:
        """The leaf for these values, out of those that rules demand. Where the same is left, it is the same leaf."""
        last = self._rule_set.last_feature
        dicts: list[dict[str, Any]] = []
        otherwise = self._rule_set.default
        for shape in self._rule_set.indexes:
            found = shape.tree
            for level in shape.levels:
                if level == last:
                    dicts.append(found)
                    break
                found = found.get(conditions.get(level, ABSENT), ABSENT)
                if found is ABSENT:
                    break
            else:
                otherwise = found  # It matches whatever the last feature's value is: no weaker rule ever wins.
                break
        key = (id(otherwise), *map(id, dicts))  # The rule set holds them all, so no id is ever reused.
        if key not in self._leaves:
            self._leaves[key] = self._make_leaf(dicts, otherwise)
        return self._leaves[key]

    def _make_leaf(self, dicts: Sequence[dict[str, Any]], otherwise: Any) -> Leaf:
        if len(dicts) < 2:
            nowhere: dict[str, Any] = {}
            return (dicts[0] if dicts else nowhere).get, otherwise, None
        self._rule_set.fill_last_feature_values()
        findings: dict[str, Any] = {}
        return findings.get, otherwise, _finder(dicts, otherwise, findings, self._room_for_findings)


def _finder(
    dicts: Sequence[Mapping[str, Any]], otherwise: Any, findings: dict[str, Any], room: _Room
) -> Callable[[str], Any]:
    """Look a value up in one dict after the other, and note what was found, as long as there is room."""

    def find(value: str) -> Any:
        found = next((candidates[value] for candidates in dicts if value in candidates), otherwise)
        if room.left > 0:
            room.left -= 1
            findings[value] = found
        return found

    return find
