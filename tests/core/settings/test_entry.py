"""Reads: generated getters return what `RuleSet.resolve` specifies, and raise its errors."""

import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, copy_context
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import Conversion, MissingContextError, Reason, Rule, Setting, UnknownContextError
from heksher_client._core.settings import entry as entry_module
from heksher_client._core.settings import lookup_tree
from heksher_client._core.settings.context import Defaults, complete
from heksher_client._core.settings.entry import Entry, GetterState, PublishedRules
from heksher_client._core.settings.lookup_tree import LookupTree
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT
from heksher_client._core.settings.setting import entry_of
from heksher_client._core.settings.snapshot import update_lock

FEATURES = ("environment", "user", "theme")


def rule_set(rules: list[Rule[Any]], features: tuple[str, ...] = FEATURES, default: Any = "default") -> RuleSet[Any]:
    return RuleSet.build(group_by_features(rules), features, default, Reason.SERVER_DEFAULT)[0]


def published_setting(published: PublishedRules[Any], features: tuple[str, ...] = FEATURES) -> Setting[Any]:
    setting: Setting[Any] = Setting("s", str, features, "declared")
    entry_of(setting).publish(published)
    return setting


def setting_with(
    rules: list[Rule[Any]], features: tuple[str, ...] = FEATURES, /, **default_values: str | ContextVar[str]
) -> Setting[Any]:
    defaults = Defaults()
    defaults.update(default_values)
    return published_setting(PublishedRules(rule_set(rules, features), defaults), features)


def publish(setting: Setting[Any], rules: RuleSet[Any]) -> None:
    entry = entry_of(setting)
    entry.publish(PublishedRules(rules, entry.published.defaults))


def twice(setting: Setting[Any], **given_values: Any) -> Any:
    """Read on the slow path, which grows the tree, and then by the getter; return their common outcome."""
    first, second = [outcome(setting, given_values) for _ in range(2)]
    assert first == second
    return first


def outcome(setting: Setting[Any], given_values: Mapping[str, Any]) -> Any:
    try:
        return setting.get(**given_values)
    except (UnknownContextError, MissingContextError, TypeError) as error:
        return type(error), str(error)


def specified(
    published: PublishedRules[Any], given_values: Mapping[str, str], features: tuple[str, ...] = FEATURES
) -> Any:
    """Return the outcome that `RuleSet.resolve` specifies."""
    assert published.defaults is not None
    try:
        return published.rule_set.resolve(complete(features, given_values, published.defaults.values, "setting s"))
    except MissingContextError as error:
        return type(error), str(error)


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Return the contexts of all reads that were resolved on the slow path."""
    reads: list[Mapping[str, Any]] = []
    resolve = GetterState._resolve

    def record(state: GetterState[Any], given_values: Mapping[str, str]) -> Any:
        reads.append(given_values)
        return resolve(state, given_values)

    monkeypatch.setattr(GetterState, "_resolve", record)
    return reads


class Text(str):
    """A string of another class."""


# -- against the specification -----------------------------------------------------------------------------------------

NAMES = ("environment", "user", "class", "_state", "0")
VALUES = st.sampled_from(["a", "b", "c", "unlisted", "another", "third"])
CONDITIONS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["a", "b", "c"]))
RULES = st.lists(CONDITIONS, max_size=40, unique_by=lambda c: tuple(sorted(c.items())))
KINDS = st.sampled_from(["constant", "text", "variable", "unset"])
SOURCES = st.dictionaries(st.sampled_from(NAMES), st.tuples(KINDS, VALUES))
READS = st.lists(st.dictionaries(st.sampled_from([*NAMES, "unknown"]), VALUES), min_size=1, max_size=30)


@given(RULES, SOURCES, READS, st.sampled_from([0, 3, 1024]), st.sampled_from([0, 1, 64]))
def test_every_read_returns_the_specified_value(
    conditions: list[dict[str, str]],
    sources: dict[str, tuple[str, str]],
    reads: list[dict[str, str]],
    capacity: int,
    unlisted_branches: int,
) -> None:
    """For any rules, defaults and arguments, repeated reads return what `RuleSet.resolve` does, or raise its error."""
    rules = [Rule(c, f"rule {i}", i) for i, c in enumerate(conditions)]
    defaults = Defaults()
    for feature, (kind, value) in sources.items():
        variable = ContextVar(feature, default=value) if kind == "variable" else ContextVar[str](feature)
        defaults.update({feature: value if kind == "constant" else Text(value) if kind == "text" else variable})
    published = PublishedRules(rule_set(rules, NAMES), defaults)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup_tree, "_MIN_BRANCHES", capacity)
        patch.setattr(lookup_tree, "_MIN_MEMO_ENTRIES", capacity)
        patch.setattr(lookup_tree, "_MAX_UNLISTED_BRANCHES", unlisted_branches)
        setting = published_setting(published, NAMES)
        for given_values in reads * 2:
            if "unknown" in given_values:
                with pytest.raises(UnknownContextError, match="setting s has no context feature unknown"):
                    setting.get(**given_values)
                continue
            assert twice(setting, **given_values) == specified(published, given_values, NAMES)
            if not isinstance(specified(published, given_values, NAMES), tuple):
                assert setting.explain(**given_values).value == specified(published, given_values, NAMES)


@pytest.mark.parametrize("kinds", [*product(["constant", "variable", "none"], repeat=3)])
def test_only_the_first_read_in_a_context_takes_the_slow_path(
    kinds: tuple[str, ...], slow_reads: list[Mapping[str, Any]]
) -> None:
    """Whichever features have constant defaults, context variables or none, and whichever a caller passes."""
    rules = [Rule({"theme": "t0", "environment": f"e{i % 2}", "user": f"u{i % 3}"}, f"all {i}", i) for i in range(6)]
    rules += [Rule({"user": "u1"}, "u1"), Rule({"environment": "e1"}, "e1"), Rule({"theme": "t0"}, "t0")]
    defaults = Defaults()
    for feature, kind in zip(FEATURES, kinds, strict=True):
        value = f"{feature[0]}1"
        if kind != "none":
            defaults.update({feature: value if kind == "constant" else ContextVar(feature, default=value)})
    setting = published_setting(published := PublishedRules(rule_set(rules), defaults))
    values = [("", "e0", "e1", "e9"), ("", "u0", "u1", "u9"), ("", "t0", "t9")]
    for context in product(*values):
        given_values = {feature: value for feature, value in zip(FEATURES, context, strict=True) if value}
        expected = specified(published, given_values)
        del slow_reads[:]
        if not isinstance(expected, tuple):
            assert [setting.get(**given_values) for _ in range(3)] == [expected] * 3
            assert len(slow_reads) <= 1


def test_a_feature_may_have_any_name() -> None:
    """Keywords, digits, and the names in the generated code."""
    names = ("class", "0", "_plan", "type", "str", "get", "self")
    setting = setting_with([Rule({name: "a"}, name) for name in names], names)
    for name in names:
        assert twice(setting, **dict.fromkeys(names, "b") | {name: "a"}) == name
    assert twice(setting, **dict.fromkeys(names, "b")) == "default"
    assert twice(setting)[0] is MissingContextError


def test_memo_entries_do_not_use_up_the_branches(slow_reads: list[Mapping[str, Any]]) -> None:
    """A memo entry saves little time, a branch saves a slow read."""
    many = [Rule({"user": f"u{i}"}, i) for i in range(300)]
    many += [Rule({"theme": f"t{i % 10}", "user": f"u{i}"}, -i) for i in range(300)]
    setting = setting_with(many, environment="e")
    for _ in range(2):
        for theme in range(20):
            for user in range(300):
                expected = -user if theme == user % 10 else user
                assert setting.get(theme=f"t{theme}", user=f"u{user}") == expected
    assert len(slow_reads) == 20


def test_threads_that_read_first_share_one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """If each thread made a tree, one would grow and another one would be read."""
    setting = setting_with([Rule({"theme": "dark", "user": "jim"}, 1), Rule({"user": "ann"}, 2)], environment="e")
    grow = LookupTree.grow
    trees: list[LookupTree] = []

    def overtaken(tree: LookupTree, context: Mapping[str, Any]) -> Any:
        trees.append(tree)
        if len(trees) == 1:
            assert setting.get(theme="dark", user="jim") == 1
        return grow(tree, context)

    monkeypatch.setattr(LookupTree, "grow", overtaken)
    assert setting.get(theme="dark", user="jim") == 1
    assert setting.get(theme="other", user="jim") == "default"
    assert len({id(tree) for tree in trees[-2:]}) == 1


def test_a_read_never_waits_for_an_update(slow_reads: list[Mapping[str, Any]]) -> None:
    """While another thread holds the update lock, reads take the slow path; afterwards they get a getter."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="e", theme="t")
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with update_lock():
            locked.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(60)
    assert [setting.get(user="jim") for _ in range(3)] == [1, 1, 1]
    assert len(slow_reads) == 3
    release.set()
    holder.join()
    assert [setting.get(user="jim") for _ in range(3)] == [1, 1, 1]
    assert len(slow_reads) == 4


def test_unlisted_values_share_a_branch_beyond_a_limit(
    monkeypatch: pytest.MonkeyPatch, slow_reads: list[Mapping[str, Any]]
) -> None:
    """The first of them get branches of their own. The others share one, and no longer take the slow path."""
    monkeypatch.setattr(lookup_tree, "_MAX_UNLISTED_BRANCHES", 10)
    rules = [Rule({"theme": "dark", "user": f"u{i}"}, i) for i in range(5)] + [Rule({"user": "jim"}, "jim")]
    setting = setting_with(rules)
    for i in range(100):
        assert twice(setting, environment="prod", theme=f"theme{i}", user="jim") == "jim"
        assert twice(setting, environment="prod", theme="dark", user=f"u{i}") == (i if i < 5 else "default")
    assert len(slow_reads) < 15
    invalid: tuple[Any, ...] = (None, 5, ["x"], ABSENT)
    for bad in invalid:
        with pytest.raises((MissingContextError, TypeError)):
            setting.get(environment="prod", theme=bad, user="jim")


def test_only_the_first_read_of_its_kind_takes_the_slow_path(slow_reads: list[Mapping[str, Any]]) -> None:
    """A feature that is passed for the first time is a parameter from then on, after an update as well."""
    names = (*FEATURES, "class")
    defaults = dict.fromkeys(names, "x") | {"user": "jim"}
    setting = setting_with([Rule({"user": "jim"}, 1), Rule({"class": "a"}, 2)], names, **defaults)
    kinds: list[dict[str, str]] = [{}, {"user": "ann"}, {"theme": "t", "user": "jim"}, {"class": "a"}, {"user": "jim"}]
    for update in range(2):
        entry_of(setting).renew_state()
        for kind in kinds * 3:
            assert setting.get(**kind) == (2 if "class" in kind else "default" if kind.get("user") == "ann" else 1)
        assert len(slow_reads) == (4 if update == 0 else 6)


def test_the_rule_of_the_highest_priority_wins_for_values_of_several_indexes() -> None:
    """For a value that occurs in an index, but not with the other values of this context, as well."""
    setting = setting_with(
        [Rule({"user": f"u{i}"}, ("user", i)) for i in range(10)]
        + [Rule({"environment": "prod", "user": f"u{i}"}, ("both", i)) for i in range(5, 15)]
        + [Rule({"environment": "dev", "user": "u0"}, "dev")]
    )
    for i in range(20):
        expected = ("both", i) if 5 <= i < 15 else ("user", i) if i < 10 else "default"
        for _ in range(3):
            assert twice(setting, environment="prod", theme="x", user=f"u{i}") == expected
    assert twice(setting, environment="dev", theme="x", user="u0") == "dev"


def test_a_large_rule_set_collects_the_values_of_the_last_feature_before_it_is_read() -> None:
    """A small one does so when it needs them, which would be too long a pause for a large one."""
    rules = [Rule({"user": f"u{i}"}, i) for i in range(6000)] + [Rule({"theme": "dark", "user": "u1"}, "dark")]
    large, small = rule_set(rules), rule_set(rules[5000:])
    assert (len(large.last_feature_values), len(small.last_feature_values)) == (6000, 0)
    setting = published_setting(PublishedRules(small, Defaults()))
    assert setting.get(environment="prod", user="u1", theme="dark") == "dark"
    assert len(small.last_feature_values) == 1001


def test_a_full_tree_is_read_on_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not take much more memory than the rules, and no context matters more than another."""
    monkeypatch.setattr(lookup_tree, "_MIN_BRANCHES", 4)
    rules = [Rule({"user": "u1"}, "user"), Rule({"user": "u1", "theme": "t1"}, "both"), Rule({"environment": "e"}, "e")]
    setting = setting_with(rules, theme="t1")
    for _ in range(2):
        for i in range(20):
            assert twice(setting, environment=f"e{i}", user="u1") == "both"
            assert twice(setting, environment=f"e{i}", user="u1", theme="x") == "user"
            assert twice(setting, environment="e", user=f"u{i + 2}") == "e"


def test_without_memo_capacity_values_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read of a value of several indexes returns the same, memoized or not."""
    monkeypatch.setattr(lookup_tree, "_MIN_MEMO_ENTRIES", 0)
    rules = [Rule({"user": f"u{i}"}, i) for i in range(4)]
    rules += [Rule({"user": f"u{i}", "theme": "dark"}, 10 + i) for i in range(4)]
    rules += [Rule({"user": f"u{i}", "theme": "dark", "environment": "e"}, 20 + i) for i in range(2)]
    setting = setting_with(rules, environment="x", theme="dark")
    for _ in range(3):
        assert [twice(setting, user=f"u{i}") for i in range(5)] == [10, 11, 12, 13, "default"]
        assert [twice(setting, user=f"u{i}", theme="light") for i in range(5)] == [0, 1, 2, 3, "default"]
        assert [twice(setting, user=f"u{i}", environment="e") for i in range(5)] == [20, 21, 12, 13, "default"]

    few = [Rule({"user": f"u{i}"}, i) for i in range(5)]
    few += [Rule({"theme": f"t{i}", "user": f"u{i % 2}"}, 10 + i) for i in range(4)]
    setting = setting_with(few, environment="e")
    for _ in range(3):
        for theme in range(4):
            for user in range(5):
                expected = 10 + theme if theme % 2 == user else user
                assert twice(setting, theme=f"t{theme}", user=f"u{user}") == expected


def test_a_value_of_several_indexes_may_match_none_of_them_in_a_context() -> None:
    """It occurs with other values of the other features only."""
    setting = setting_with(
        [Rule({"user": "u", "theme": "t0"}, 1), Rule({"user": "u", "environment": "e0"}, 2)]
        + [Rule({"user": f"v{i}", "theme": "t1"}, 3) for i in range(3)]
        + [Rule({"user": f"v{i}", "environment": "e1"}, 4) for i in range(3)]
    )
    for _ in range(2):
        assert twice(setting, user="u", theme="t1", environment="e1") == "default"
        assert twice(setting, user="u", theme="t0", environment="e1") == 1
        assert twice(setting, user="v1", theme="t1", environment="e1") == 3


def test_paths_that_leave_the_same_rules_open_share_a_leaf() -> None:
    """An entry that is memoized for one path is memoized for all of them."""
    rules = rule_set(
        [Rule({"environment": e, "theme": "dark"}, e) for e in ("prod", "dev")]
        + [Rule({"user": f"u{i}"}, i) for i in range(3)]
    )
    assert rules.last_feature == "user"
    tree = LookupTree(rules, ["theme", "environment"])
    leaves = [tree.grow({"theme": "light", "environment": e}) for e in ("prod", "dev", "other")]
    assert leaves[0] is leaves[1] is leaves[2]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [[], [Rule({"user": "jim"}, 1)], [Rule({"theme": "x", "user": "u"}, 1), Rule({}, 2)]])
def test_every_path_refuses_invalid_values(rules: list[Rule[Any]]) -> None:
    """Missing, None, not a string, unhashable: with rules on the feature and without."""
    unset: ContextVar[str] = ContextVar("unset")
    setting = setting_with(rules, environment="prod", theme=unset)
    assert twice(setting, user="x", theme="y") == (rule_set(rules).resolve({"user": "x", "theme": "y"}))
    assert twice(setting, user="x")[0] is MissingContextError
    assert twice(setting, theme="y")[0] is MissingContextError
    for feature in FEATURES:
        good = {"environment": "prod", "user": "x", "theme": "y"}
        assert twice(setting, **good | {feature: None})[0] is MissingContextError
        for bad, remedy in ((5, "use"), (b"x", "use"), (["x"], "pass"), ({"x"}, "pass"), (object(), "use")):
            kind, message = twice(setting, **good | {feature: bad})
            assert kind is TypeError
            name = type(bad).__name__
            assert f"the value of context feature {feature} must be a str, not {name}: {remedy}" in message
        assert twice(setting, **good | {"usr": "x"})[0] is UnknownContextError


def test_a_context_is_passed_by_keyword() -> None:
    """Before the first read, and after it."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    for _ in range(2):
        with pytest.raises(TypeError, match="positional argument"):
            setting.get("jim")  # type: ignore[call-arg]
        assert setting.get(user="jim") == 1


def test_a_missing_value_does_not_use_the_branch_of_unlisted_values() -> None:
    """It is missing however many unlisted values were read before."""
    setting = setting_with(
        [Rule({"theme": "x", "user": "1"}, 1), Rule({"user": "2"}, 2), Rule({"user": "3"}, 3)], user="2"
    )
    missing = twice(setting, environment="prod")
    assert missing[0] is MissingContextError
    for i in range(200):
        assert twice(setting, environment="prod", theme=f"unlisted{i}") == 2
    assert twice(setting, environment="prod") == missing
    assert twice(setting, environment="prod", theme=None)[0] is MissingContextError


def test_a_subclass_of_str_is_a_string() -> None:
    """A rule may require the value or not."""
    setting = setting_with([Rule({"user": "jim"}, 1), Rule({"theme": "dark", "user": "x"}, 2)], environment="prod")
    assert twice(setting, user=Text("jim"), theme=Text("light")) == 1
    assert twice(setting, user=Text("ann"), theme=Text("dark")) == "default"


def test_until_a_client_is_the_main_one_the_context_does_not_matter() -> None:
    """Values may be missing, but an unknown name is an error."""
    setting: Setting[Any] = Setting("s", str, FEATURES, "declared")
    assert (twice(setting), twice(setting, user="jim")) == ("declared", "declared")
    assert twice(setting, usr="jim")[0] is UnknownContextError


# -- updates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_before", [0, 2])
def test_a_getter_that_was_kept_reads_later_updates(reads_before: int) -> None:
    """`get = setting.get` stays correct for any rules, whether it was kept before the first read or after it."""
    setting = setting_with([], environment="prod", theme="dark")
    for _ in range(reads_before):
        setting.get(user="jim")
    get = setting.get
    assert get(user="jim") == "default"
    for rules, expected in [
        ([Rule({"user": "jim"}, 1)], 1),
        ([Rule({"user": "jim"}, 2)], 2),
        ([Rule({"theme": "dark"}, 3), Rule({"user": "jim", "environment": "prod"}, 4)], 3),
        ([], "default"),
    ]:
        publish(setting, rule_set(rules))
        assert [get(user="jim"), get(user="jim")] == [expected, expected]


def test_a_getter_that_was_kept_hands_over_to_the_current_one(slow_reads: list[Mapping[str, Any]]) -> None:
    """It does not take the slow path itself: not after an update, and not for features that were first passed later."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    unread = setting.get
    assert unread(user="jim") == 1
    compiled = setting.get
    assert compiled is not unread
    assert setting.get(user="jim", theme="x") == 1
    del slow_reads[:]
    assert [get(user="jim", theme="x") for get in (unread, compiled)] == [1, 1]
    getters = (unread, compiled, setting.get)
    publish(setting, rule_set([Rule({"user": "jim"}, 2)]))
    assert setting.get(user="jim") == 2
    assert len(slow_reads) == 1
    assert [get(user="jim") for get in getters] == [2, 2, 2]
    assert len(slow_reads) == 1
    with pytest.raises(UnknownContextError):
        compiled(usr="jim")


def test_a_getter_that_was_kept_hands_over_the_names_that_are_not_valid_in_code(
    slow_reads: list[Mapping[str, Any]],
) -> None:
    """They cannot be keywords of a call in the generated code."""
    setting = setting_with([Rule({"class": "a"}, 1)], ("class", "user"), user="jim")
    assert twice(setting, **{"class": "a"}) == 1
    kept = setting.get
    publish(setting, rule_set([Rule({"class": "a"}, 2)], ("class", "user")))
    assert twice(setting, **{"class": "a"}) == 2
    del slow_reads[:]
    assert (kept(**{"class": "a"}), slow_reads) == (2, [])


def test_a_getter_is_compiled_once_for_the_features_that_callers_pass() -> None:
    """Contexts that are read for the first time only grow the tree."""
    setting = setting_with([Rule({"user": "jim", "theme": "dark"}, 1)], environment="prod")
    assert setting.get(user="jim", theme="dark") == 1
    compiled = setting.get
    for theme in ("light", "other"):
        assert setting.get(user="ann", theme=theme) == "default"
    assert setting.get is compiled


def test_a_setting_that_is_read_seldom_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the first update, nor after any. Compiling takes time and memory, and reads do not need it."""
    monkeypatch.setattr(entry_module, "READS_BEFORE_COMPILATION", 3)
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    for value in (1, 2):
        publish(setting, rule_set([Rule({"user": "jim"}, value)]))
        for _ in range(3):
            assert setting.get(user="jim") == value
            assert "get" not in vars(setting)
        assert setting.get(user="jim") == value
        assert "get" in vars(setting)


def test_a_getter_that_the_program_has_replaced_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the program puts back what it found, before the first read or after it."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    for value in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(setting, "get", lambda **_: 5)
            publish(setting, rule_set([Rule({"user": "jim"}, value)]))
            assert [setting.get(user="jim"), entry_of(setting).get({"user": "jim"})] == [5, value]
        assert [setting.get(user="jim") for _ in range(3)] == [value] * 3
    publish(setting, rule_set([Rule({"user": "jim"}, 3)]))
    assert setting.get(user="jim") == 3
    assert not inspect.ismethod(setting.get)


def test_a_getter_that_was_kept_hands_over_once_unlisted_values_share_a_branch(
    monkeypatch: pytest.MonkeyPatch, slow_reads: list[Mapping[str, Any]]
) -> None:
    """It has no code for that branch, and belongs to the same state as the getter that has."""
    monkeypatch.setattr(lookup_tree, "_MAX_UNLISTED_BRANCHES", 3)
    rules = [Rule({"theme": "dark", "user": f"u{i}"}, i) for i in range(5)]
    setting = setting_with(rules, environment="prod", user="u1")
    assert [setting.get(theme=f"theme{i}") for i in range(2)] == ["default"] * 2
    kept = setting.get
    for i in range(10):
        assert twice(setting, theme=f"theme{i}") == "default"
    del slow_reads[:]
    assert [kept(theme=theme) for theme in ("dark", "theme7", "theme9")] == [1, "default", "default"]
    assert slow_reads == [{"theme": "dark"}]  # nobody has read it before
    invalid: Any = 5
    with pytest.raises(TypeError):
        kept(theme=invalid)


def test_a_getter_of_a_replaced_state_refuses_unknown_names() -> None:
    """It hands them over as well."""
    setting = setting_with([], environment="prod", theme="dark")
    setting.get(user="jim")
    get = setting.get
    publish(setting, rule_set([]))
    assert twice_with(get, usr="jim")[0] is UnknownContextError


def twice_with(get: Callable[..., Any], **given_values: Any) -> Any:
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(get(**given_values))
        except UnknownContextError as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_a_patched_get_is_left_alone() -> None:
    """A test may replace `get` of a setting, and later put back the getter that it found; updates go on meanwhile."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    assert setting.get(user="jim") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting, "get", lambda **_: "patched")
        publish(setting, rule_set([Rule({"user": "jim"}, 2)]))
        assert setting.get(user="jim") == "patched"
    assert twice(setting, user="jim") == 2
    publish(setting, rule_set([Rule({"user": "jim"}, 3)]))
    assert twice(setting, user="jim") == 3


def test_defaults_that_change_late_apply_to_the_next_read() -> None:
    """A constant becomes a context variable, and another constant."""
    defaults = Defaults()
    defaults.update({"environment": "prod", "theme": "dark", "user": "jim"})
    setting = published_setting(PublishedRules(rule_set([Rule({"user": "ann"}, "ann")]), defaults))
    assert twice(setting) == "default"
    user: ContextVar[str] = ContextVar("user")
    defaults.update({"user": user})
    registry.defaults_changed(defaults)
    assert twice(setting)[0] is MissingContextError
    context = copy_context()
    context.run(user.set, "ann")
    assert context.run(setting.get) == "ann"
    defaults.update({"user": "ann"})
    registry.defaults_changed(defaults)
    assert twice(setting) == "ann"


def test_a_getter_that_was_kept_keeps_its_setting() -> None:
    """The setting is declared and updated until the getter is dropped too."""
    get = Setting("kept", int, ["user"], 1).get
    gc.collect()
    assert [entry.name for entry in registry.entries()] == ["kept"]
    assert get(user="jim") == 1
    del get
    gc.collect()
    assert registry.entries() == []


def test_replaced_rules_are_freed_at_once() -> None:
    """A million old rules do not wait for the garbage collector while a million new ones arrive."""
    rules = [Rule({"user": f"u{i}"}, i) for i in range(5)] + [Rule({"theme": "x", "user": "u1"}, 9)]
    setting = setting_with(rules, theme="x")
    gc.disable()
    try:
        for i in range(5):
            assert setting.get(environment="e", user=f"u{i}") is not None

        class Traced(str):
            """A value that can be referenced weakly."""

        value = Traced()
        publish(setting, rule_set([Rule({"theme": "x", "user": "u1"}, value), Rule({"user": "u1"}, 1)]))
        assert [setting.get(environment="e", user="u1") for _ in range(2)] == [value, value]
        replaced = weakref.ref(value)
        del value
        publish(setting, rule_set([]))
        assert replaced() is None
    finally:
        gc.enable()


def test_a_state_that_is_replaced_during_its_first_read_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise later reads would return its rules."""
    setting = setting_with([Rule({"user": "jim"}, "former")], environment="e", theme="x")
    resolve = GetterState.complete

    def overtaken(state: GetterState[Any], given_values: Mapping[str, str]) -> Mapping[str, str]:
        monkeypatch.undo()
        publish(setting, rule_set([Rule({"user": "jim"}, "newer")]))
        return resolve(state, given_values)

    monkeypatch.setattr(GetterState, "complete", overtaken)
    assert setting.get(user="jim") == "former"  # The read began before the update.
    assert twice(setting, user="jim") == "newer"


def test_a_subclass_may_override_get() -> None:
    """Like any method, and call that of its base."""

    class Doubled(Setting[int]):
        def get(self, /, **contexts: str) -> int:
            return 2 * super().get(**contexts)

    doubled: Setting[int] = Doubled("s", int, ["user"], 21)
    assert [doubled.get(user="jim") for _ in range(3)] == [42, 42, 42]
    entry_of(doubled).publish(PublishedRules(RuleSet(22, Reason.SERVER_DEFAULT), Defaults()))
    assert [doubled.get(user="jim") for _ in range(3)] == [44, 44, 44]
    assert Setting("s", int, ["user"], 21).get(user="jim") == 21


@pytest.mark.parametrize("reads", [0, 2])
def test_the_getter_is_documented_like_the_method(reads: int) -> None:
    """For `help` and for editors: before the first read, and after it."""
    setting = setting_with([])
    for _ in range(reads):
        setting.get(environment="e", user="u", theme="t")
    assert setting.get.__doc__ == Setting.get.__doc__
    assert setting.get.__qualname__ == "Setting.get"
    assert setting.get.__module__ == Setting.__module__
    assert inspect.signature(setting.get) == inspect.signature(Setting.get).replace(
        parameters=[*inspect.signature(Setting.get).parameters.values()][1:]
    )


def test_no_read_combines_two_updates() -> None:
    """While one thread publishes rules with other conditions, a read sees one update, and never an older one."""
    shapes = [["user"], ["user", "theme"], ["environment"], []]
    updates = []
    for number in range(200):
        features = shapes[number % len(shapes)]
        context = {"environment": "prod", "user": "jim", "theme": "dark"}
        rules = [Rule({f: context[f] for f in features}, number), Rule({"user": "ann", "theme": "x"}, -1)]
        updates.append(rule_set(rules, default=number))
    setting = published_setting(PublishedRules(updates[0], defaults := Defaults()))
    defaults.update({"environment": "prod", "theme": "dark"})
    registry.defaults_changed(defaults)
    kept = setting.get
    seen: list[list[int]] = [[] for _ in range(3)]
    done = threading.Event()

    def watch(values: list[int], get: Callable[[], int]) -> None:
        while not done.is_set():
            values.append(get())

    readers: list[Callable[[], int]] = [lambda: setting.get(user="jim"), lambda: kept(user="jim")]
    threads = [threading.Thread(target=watch, args=[values, readers[i % 2]]) for i, values in enumerate(seen)]
    for thread in threads:
        thread.start()
    for update in updates:
        entry_of(setting).publish(PublishedRules(update, defaults))
    done.set()
    for thread in threads:
        thread.join()

    for values in seen:
        assert values == sorted(values)
    assert setting.get(user="jim") == 199


# -- interrupted by a signal handler or a finalizer, which the update lock does not exclude ----------------------------


def interrupt(patch: pytest.MonkeyPatch, owner: object, name: str, handler: Callable[[], None]) -> None:
    """Call a handler before and after the next call of a function."""
    function = getattr(owner, name)

    def interrupted(*args: Any) -> Any:
        patch.setattr(owner, name, function)
        handler()
        result = function(*args)
        handler()
        return result

    patch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("name", ["getter_factory", "LookupTree", "CompiledGetter"])
@pytest.mark.parametrize("reads_before", [0, 2])
def test_a_read_is_interrupted_by_reads(monkeypatch: pytest.MonkeyPatch, name: str, reads_before: int) -> None:
    """While a getter is compiled, others are read with, and compiled: also for features that were not passed before."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", user="ann", theme="dark")
    for _ in range(reads_before):
        assert setting.get() == "default"
    kept = setting.get
    handled: list[Any] = []

    def handler() -> None:
        handled.extend(get(**given) for get in (setting.get, kept) for given in ({"user": "jim"}, {"theme": "x"}, {}))

    interrupt(monkeypatch, entry_module, name, handler)
    assert setting.get(environment="dev") == "default"
    if name != "LookupTree" or not reads_before:
        assert handled == [1, "default", "default"] * 4
    for get in (setting.get, kept):
        assert [get(user="jim", **more) for more in ({}, {"theme": "x"}, {"environment": "dev"}) * 2] == [1] * 6
    publish(setting, rule_set([Rule({"user": "jim"}, 2)]))
    assert [get(user="jim") for get in (setting.get, kept) * 2] == [2] * 4


@pytest.mark.parametrize("name", ["getter_factory", "CompiledGetter"])
def test_a_read_is_interrupted_by_an_update(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It returns a former value at most. No getter stays with that."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    numbers, kept = iter(range(2, 10)), [setting.get]

    def handler() -> None:
        publish(setting, rule_set([Rule({"user": "jim"}, next(numbers))]))
        setting.get(user="jim")
        kept.append(setting.get)

    interrupt(monkeypatch, entry_module, name, handler)
    assert setting.get(user="jim") == 1
    assert [get(user="jim") for get in (setting.get, *kept) * 2] == [3] * 8


def test_an_update_is_interrupted_by_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They return the former value, or the new one. No getter stays with the former one."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    assert twice(setting, user="jim") == 1
    kept = [setting.get]

    def handler() -> None:
        assert twice(setting, user="jim") == 1
        kept.append(setting.get)

    interrupt(monkeypatch, GetterState, "retire", handler)
    for number in (2, 3):
        publish(setting, rule_set([Rule({"user": "jim"}, number)]))
        assert [get(user="jim") for get in (setting.get, *kept) * 2] == [number] * 8


def test_an_update_is_interrupted_by_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one stays."""
    setting = setting_with([Rule({"user": "jim"}, 1)], environment="prod", theme="dark")
    assert twice(setting, user="jim") == 1
    numbers, kept = iter((3, 4)), [setting.get]

    def handler() -> None:
        publish(setting, rule_set([Rule({"user": "jim"}, next(numbers))]))
        assert twice(setting, user="jim") in (3, 4)
        kept.append(setting.get)

    interrupt(monkeypatch, GetterState, "retire", handler)
    publish(setting, rule_set([Rule({"user": "jim"}, 2)]))
    assert [get(user="jim") for get in (setting.get, *kept) * 2] == [4] * 8
    publish(setting, rule_set([Rule({"user": "jim"}, 5)]))
    assert [get(user="jim") for get in (setting.get, *kept) * 2] == [5] * 8


# -- without the handle ------------------------------------------------------------------------------------------------


def test_an_entry_is_read_without_its_handle(slow_reads: list[Mapping[str, Any]]) -> None:
    """By the package itself, as fast."""
    entry: Entry[Any] = entry_of(setting := setting_with([Rule({"user": "jim"}, 1)], environment="e", theme="t"))
    assert [entry.get({"user": "jim"}) for _ in range(3)] == [1, 1, 1]
    assert len(slow_reads) == 1
    assert entry.explain({"user": "jim"}).value == 1
    assert entry.setting is setting


# -- values from the service -------------------------------------------------------------------------------------------


def test_a_value_is_coerced_and_then_validated_in_order() -> None:
    """Each function gets the result of the one before, the rule and the setting; the rule is made only for them."""
    calls: list[tuple[Any, ...]] = []

    def record(value: Sequence[int], *arguments: Any) -> Sequence[int]:
        calls.append((value, *arguments))
        return (*value, len(calls))

    setting = Setting("s", Sequence[int], ["user"], [], on_coerce=record)
    rule, entry = Rule({"user": "jim"}, [1, "x"]), entry_of(setting)
    made: list[int] = []

    def get_rule() -> Rule[Any]:
        made.append(1)
        return rule

    assert (entry.convert([7], get_rule), made, calls) == (Conversion((7,)), [], [])
    assert entry.convert_many([[1], [2]]) is None  # There is no faster way for sequences.
    coercions = ("element 1 dropped: 'x' is not an int",)
    assert entry.convert([1, "x"], get_rule) == Conversion((1, 1), coercions)
    assert (made, calls) == ([1], [((1,), [1, "x"], coercions, rule, setting)])

    del calls[:]
    for _ in range(2):
        setting.add_validator(record)
    assert entry.convert([7], get_rule) == Conversion((7, 1, 2))
    assert (made, calls) == ([1, 1], [((7,), rule, setting), ((7, 1), rule, setting)])


def test_the_error_of_disabled_coercions_names_all_of_them() -> None:
    """Values that need none are converted."""
    entry = entry_of(Setting("s", Sequence[int], ["user"], [], on_coerce=None))
    assert entry.convert([1], lambda: None) == Conversion((1,))
    with pytest.raises(TypeError) as raised:
        entry.convert([1, "x", None], lambda: None)
    assert str(raised.value) == (
        "coercions are disabled for this setting: element 1 dropped: 'x' is not an int; "
        "element 2 dropped: None is not an int"
    )


def test_values_are_converted_one_by_one_if_there_is_a_validator() -> None:
    """Otherwise all at once."""
    setting = Setting("s", float, ["user"], 1.0)
    entry = entry_of(setting)
    assert entry.convert_many([1, 2.5]) == [1.0, 2.5]
    setting.add_validator(lambda value, *_: value)
    assert entry.convert_many([1, 2.5]) is None
