"""The limits of a lookup tree: it must not take much more memory than the rules, however many contexts are read."""

from typing import Any

import pytest

from heksher_client import Reason, Rule
from heksher_client._core.settings import lookup_tree
from heksher_client._core.settings.lookup_tree import UNLISTED, LookupTree
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT

FEATURES = ("environment", "theme", "user")


def rule_set(rules: list[Rule[Any]]) -> RuleSet[Any]:
    return RuleSet.build(group_by_features(rules), FEATURES, "default", Reason.SERVER_DEFAULT)[0]


def count_branches(node: Any) -> int:
    return sum(1 + count_branches(below) for below in node.values()) if isinstance(node, dict) else 0


@pytest.mark.parametrize(("minimum", "limit"), [(4, 10), (12, 12)])
def test_a_tree_has_at_most_as_many_branches_as_rules(
    monkeypatch: pytest.MonkeyPatch, minimum: int, limit: int
) -> None:
    """Or as a minimum, if that is higher. The branch that unlisted values lead to counts as well."""
    monkeypatch.setattr(lookup_tree, "_MIN_BRANCHES", minimum)
    tree = LookupTree(rule_set([Rule({"theme": f"t{i % 3}", "user": f"u{i}"}, i) for i in range(10)]), ["theme"])
    themes = (f"t{i}" for i in range(100))
    while tree.can_grow:
        assert count_branches(tree.root) < limit
        theme = next(themes)
        assert tree.grow({"theme": theme}) is tree.grow({"theme": theme})
    assert count_branches(tree.root) == limit


def test_unlisted_values_have_a_limited_number_of_branches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nodes of a level share the limit. Each of these branches leads to the same place."""
    monkeypatch.setattr(lookup_tree, "_MAX_UNLISTED_BRANCHES", 3)
    rules = [Rule({"environment": e, "theme": f"t{i}", "user": f"u{i}"}, i) for e in ("dev", "prod") for i in range(3)]
    tree = LookupTree(rule_set(rules), ["environment", "theme"])
    for environment, theme in [("dev", "x"), ("dev", "y"), ("prod", "x"), ("prod", "t0")]:
        tree.grow({"environment": environment, "theme": theme})
    assert tree.overflow_levels == frozenset()
    root: Any = tree.root
    dev, prod = root["dev"], root["prod"]
    assert (set(dev), set(prod)) == ({"x", "y", UNLISTED}, {"x", "t0", UNLISTED})
    assert dev["x"] is dev["y"] is dev[UNLISTED]

    assert tree.grow({"environment": "dev", "theme": "z"}) is dev[UNLISTED]
    assert tree.grow({"environment": "staging", "theme": "z"}) is root[UNLISTED][UNLISTED]
    assert tree.overflow_levels == {"theme"}
    assert (set(dev), set(root)) == ({"x", "y", UNLISTED}, {"dev", "prod", "staging", UNLISTED})


@pytest.mark.parametrize(("minimum", "limit"), [(4, 12), (14, 14)])
def test_a_tree_memoizes_at_most_as_many_values_as_rules(
    monkeypatch: pytest.MonkeyPatch, minimum: int, limit: int
) -> None:
    """Or as a minimum, if that is higher. All leaves share the limit; beyond it, values are searched again."""
    monkeypatch.setattr(lookup_tree, "_MIN_MEMO_ENTRIES", minimum)
    rules: list[Rule[Any]] = [Rule({"user": f"u{i}"}, i) for i in range(4)]
    rules += [Rule({"theme": t, "user": f"u{i}"}, (t, i)) for t in ("dark", "light") for i in range(4)]
    tree = LookupTree(rule_set(rules), ["theme"])
    users = [f"u{i}" for i in range(10)]
    memoized = 0
    for theme in ("dark", "light"):
        lookup, otherwise, search = tree.grow({"theme": theme})
        assert (otherwise, lookup("u0", ABSENT)) == ("default", ABSENT)
        assert search is not None
        expected = [(theme, i) if i < 4 else "default" for i in range(10)]
        assert [search(user) for user in users] == expected
        found = [value for user in users if (value := lookup(user, ABSENT)) is not ABSENT]
        assert found == expected[: len(found)]
        memoized += len(found)
    assert memoized == limit
