"""Reads: the generated functions give what `RuleSet.resolve` says, and refuse what it cannot answer."""

import gc
import inspect
import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import MissingContextError, Reason, Rule, Setting, UnknownContextError
from heksher_client._core.settings import getter, lookup_tree
from heksher_client._core.settings.context import Defaults, complete
from heksher_client._core.settings.entry import GetterState, Reader, View
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT

FEATURES = ("environment", "user", "theme")


def like(**contexts: str) -> Any:
    """Something to look like."""


def rule_set(rules: list[Rule[Any]], features: tuple[str, ...] = FEATURES, default: Any = "default") -> RuleSet[Any]:
    return RuleSet.build(group_by_features(rules), features, default, Reason.SERVER_DEFAULT)[0]


def reader(
    rules: list[Rule[Any]], features: tuple[str, ...] = FEATURES, /, **default_values: str | ContextVar[str]
) -> Reader[Any]:
    defaults = Defaults()
    defaults.update(default_values)
    return Reader(None, "s", features, View(rule_set(rules, features), defaults), like=like)


def twice(read: Reader[Any], **given_values: Any) -> Any:
    """Read plainly, which lets the tree grow, and then by the tree: the outcome is the same."""
    first, second = [outcome(read, given_values) for _ in range(2)]
    assert first == second
    return first


def outcome(read: Reader[Any], given_values: Mapping[str, Any]) -> Any:
    try:
        return read.get(**given_values)
    except (UnknownContextError, MissingContextError, TypeError) as error:
        return type(error), str(error)


def specified(view: View[Any], given_values: Mapping[str, str]) -> Any:
    """The outcome of a read by the plain resolver."""
    assert view.defaults is not None
    try:
        return view.rule_set.resolve(complete(NAMES, given_values, view.defaults.values))
    except MissingContextError as error:
        return type(error), str(error)


class Text(str):
    """A string of another class."""


# -- against the specification -----------------------------------------------------------------------------------------

NAMES = ("environment", "user", "class", "_reading", "0")
VALUES = st.sampled_from(["a", "b", "c", "stranger", "another", "third"])
CONDITIONS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["a", "b", "c"]))
RULES = st.lists(CONDITIONS, max_size=40, unique_by=lambda c: tuple(sorted(c.items())))
KINDS = st.sampled_from(["constant", "text", "variable", "unset"])
SOURCES = st.dictionaries(st.sampled_from(NAMES), st.tuples(KINDS, VALUES))
READS = st.lists(st.dictionaries(st.sampled_from([*NAMES, "unknown"]), VALUES), min_size=1, max_size=30)


@given(RULES, SOURCES, READS, st.sampled_from([0, 3, 1024]), st.sampled_from([0, 1, 64]))
def test_every_read_gives_what_the_specification_says(
    conditions: list[dict[str, str]],
    sources: dict[str, tuple[str, str]],
    reads: list[dict[str, str]],
    room: int,
    strangers: int,
) -> None:
    """For any rules, defaults and arguments, read again and again: the plain resolver's value, or the same error."""
    rules = [Rule(c, f"rule {i}", i) for i, c in enumerate(conditions)]
    defaults = Defaults()
    for feature, (kind, value) in sources.items():
        variable = ContextVar(feature, default=value) if kind == "variable" else ContextVar[str](feature)
        defaults.update({feature: value if kind == "constant" else Text(value) if kind == "text" else variable})
    view = View(rule_set(rules, NAMES), defaults)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup_tree, "_SMALLEST_ROOM", room)
        patch.setattr(lookup_tree, "_FEWEST_FINDINGS", room)
        patch.setattr(lookup_tree, "_STRANGERS", strangers)
        read = Reader(None, "s", NAMES, view, like=like)
        for given_values in reads * 2:
            if "unknown" in given_values:
                with pytest.raises(UnknownContextError, match="setting s has no context feature unknown"):
                    read.get(**given_values)
                continue
            assert twice(read, **given_values) == specified(view, given_values)
            if not isinstance(specified(view, given_values), tuple):
                assert read.explain(given_values).value == specified(view, given_values)


def test_a_feature_with_a_name_that_python_has_for_itself_is_read_like_any_other() -> None:
    """Keywords, digits, and the names that the generated code uses."""
    names = ("class", "0", "_plan", "type", "str", "get", "self")
    read = reader([Rule({name: "a"}, name) for name in names], names)
    for name in names:
        assert twice(read, **dict.fromkeys(names, "b") | {name: "a"}) == name
    assert twice(read, **dict.fromkeys(names, "b")) == "default"
    assert twice(read)[0] is MissingContextError


def test_what_is_noted_of_many_users_leaves_the_room_for_other_contexts(
    plain_reads: list[Mapping[str, Any]],
) -> None:
    """A note spares a little, a branch spares a plain read."""
    many = [Rule({"user": f"u{i}"}, i) for i in range(300)]
    many += [Rule({"theme": f"t{i % 10}", "user": f"u{i}"}, -i) for i in range(300)]
    read = reader(many, environment="e")
    for _ in range(2):
        for theme in range(20):
            for user in range(300):
                expected = -user if theme == user % 10 else user
                assert read.get(theme=f"t{theme}", user=f"u{user}") == expected
    assert len(plain_reads) == 20


def test_threads_that_read_first_go_on_with_one_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each made one, one would grow and another one be read."""
    read = reader([Rule({"theme": "dark", "user": "jim"}, 1), Rule({"user": "ann"}, 2)], environment="e")
    grow = lookup_tree.Tree.grow
    overtaking: list[Any] = []

    def overtaken(tree: lookup_tree.Tree, context: Mapping[str, Any]) -> Any:
        if not overtaking:
            overtaking.append(tree)
            overtaking.append(read.get(theme="dark", user="jim"))
        return grow(tree, context)

    monkeypatch.setattr(lookup_tree.Tree, "grow", overtaken)
    assert read.get(theme="dark", user="jim") == 1
    planted = read._globals["_reading"]._planted
    assert planted.tree is not overtaking[0]
    assert planted.plan[0] is planted
    assert overtaking[1] == 1


def test_a_setting_keeps_nothing_of_former_code() -> None:
    """However often its rules change their shapes, and whatever callers give."""
    read = reader([], environment="e", theme="t", user="u")
    sets = [rule_set([Rule(dict.fromkeys(names, "a"), 1)]) for names in (["user"], ["theme"], ["user", "theme"], [])]
    sizes = set()
    for i in range(40):
        read.view = View(sets[i % 4], read.view.defaults)
        read.get(**{} if i % 3 else {"user": "a"})
        sizes.add(len(read._globals))
    assert len(sizes) <= 2


@pytest.fixture
def plain_reads(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What was given to the reads that went the plain way."""
    reads = []
    plainly = GetterState.plainly

    def noted(reading: GetterState[Any], values: Mapping[str, Any]) -> Any:
        reads.append(values)
        return plainly(reading, values)

    monkeypatch.setattr(GetterState, "plainly", noted)
    return reads


def test_values_that_no_rule_demands_are_read_right_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch, plain_reads: list[Mapping[str, Any]]
) -> None:
    """The first of them get branches of their own; the others share one, and are no longer read plainly."""
    monkeypatch.setattr(lookup_tree, "_STRANGERS", 10)
    read = reader([Rule({"theme": "dark", "user": f"u{i}"}, i) for i in range(5)] + [Rule({"user": "jim"}, "jim")])
    for i in range(100):
        assert twice(read, environment="prod", theme=f"theme{i}", user="jim") == "jim"
        assert twice(read, environment="prod", theme="dark", user=f"u{i}") == (i if i < 5 else "default")
    assert len(plain_reads) < 15
    for bad in (None, 5, ["x"], ABSENT):
        with pytest.raises((MissingContextError, TypeError)):
            read.get(environment="prod", theme=bad, user="jim")


def test_only_the_first_read_of_its_kind_goes_the_plain_way(plain_reads: list[Mapping[str, Any]]) -> None:
    """A feature that is given for the first time is a parameter from then on, also after an update."""
    names = (*FEATURES, "class")
    defaults = dict.fromkeys(names, "x") | {"user": "jim"}
    read = reader([Rule({"user": "jim"}, 1), Rule({"class": "a"}, 2)], names, **defaults)
    kinds: list[dict[str, str]] = [{}, {"user": "ann"}, {"theme": "t", "user": "jim"}, {"class": "a"}, {"user": "jim"}]
    for update in range(2):
        read.renew()
        for kind in kinds * 3:
            assert read.get(**kind) == (2 if "class" in kind else "default" if kind.get("user") == "ann" else 1)
        assert len(plain_reads) == (4 if update == 0 else 6)


def test_where_the_last_feature_has_rules_of_several_shapes_the_strongest_wins() -> None:
    """Also for a value that occurs in a shape, but not with the other values of this context."""
    read = reader(
        [Rule({"user": f"u{i}"}, ("user", i)) for i in range(10)]
        + [Rule({"environment": "prod", "user": f"u{i}"}, ("both", i)) for i in range(5, 15)]
        + [Rule({"environment": "dev", "user": "u0"}, "dev")]
    )
    for i in range(20):
        expected = ("both", i) if 5 <= i < 15 else ("user", i) if i < 10 else "default"
        for _ in range(3):
            assert twice(read, environment="prod", theme="x", user=f"u{i}") == expected
    assert twice(read, environment="dev", theme="x", user="u0") == "dev"


def test_a_large_rule_set_knows_its_last_values_before_it_is_read() -> None:
    """A small one finds them when they are needed first: that would be too long a pause for a large one."""
    rules = [Rule({"user": f"u{i}"}, i) for i in range(6000)] + [Rule({"theme": "dark", "user": "u1"}, "dark")]
    large, small = rule_set(rules), rule_set(rules[5000:])
    assert (len(large.last_feature_values), len(small.last_feature_values)) == (6000, 0)
    read = Reader(None, "s", FEATURES, View(small, Defaults()), like=like)
    assert read.get(environment="prod", user="u1", theme="dark") == "dark"
    assert len(small.last_feature_values) == 1001


def test_a_tree_without_room_is_read_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not outgrow the rules, and no context is worth more than another."""
    monkeypatch.setattr(lookup_tree, "_SMALLEST_ROOM", 4)
    rules = [Rule({"user": "u1"}, "user"), Rule({"user": "u1", "theme": "t1"}, "both"), Rule({"environment": "e"}, "e")]
    read = reader(rules, theme="t1")
    for _ in range(2):
        for i in range(20):
            assert twice(read, environment=f"e{i}", user="u1") == "both"
            assert twice(read, environment=f"e{i}", user="u1", theme="x") == "user"
            assert twice(read, environment="e", user=f"u{i + 2}") == "e"


def test_what_was_found_for_a_value_of_several_shapes_is_noted_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second read of it is as fast as any, and what is not noted is found again."""
    monkeypatch.setattr(lookup_tree, "_FEWEST_FINDINGS", 0)
    rules = [Rule({"user": f"u{i}"}, i) for i in range(4)]
    rules += [Rule({"user": f"u{i}", "theme": "dark"}, 10 + i) for i in range(4)]
    rules += [Rule({"user": f"u{i}", "theme": "dark", "environment": "e"}, 20 + i) for i in range(2)]
    read = reader(rules, environment="x", theme="dark")
    for _ in range(3):
        assert [twice(read, user=f"u{i}") for i in range(5)] == [10, 11, 12, 13, "default"]
        assert [twice(read, user=f"u{i}", theme="light") for i in range(5)] == [0, 1, 2, 3, "default"]
        assert [twice(read, user=f"u{i}", environment="e") for i in range(5)] == [20, 21, 12, 13, "default"]


def test_a_value_of_several_shapes_may_be_in_none_of_them_here() -> None:
    """It occurs with other values of the other features only."""
    read = reader(
        [Rule({"user": "u", "theme": "t0"}, 1), Rule({"user": "u", "environment": "e0"}, 2)]
        + [Rule({"user": f"v{i}", "theme": "t1"}, 3) for i in range(3)]
        + [Rule({"user": f"v{i}", "environment": "e1"}, 4) for i in range(3)]
    )
    for _ in range(2):
        assert twice(read, user="u", theme="t1", environment="e1") == "default"
        assert twice(read, user="u", theme="t0", environment="e1") == 1
        assert twice(read, user="v1", theme="t1", environment="e1") == 3


def test_without_room_for_what_is_found_it_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it is read."""
    monkeypatch.setattr(lookup_tree, "_FEWEST_FINDINGS", 0)
    rules = [Rule({"user": f"u{i}"}, i) for i in range(5)]
    rules += [Rule({"theme": f"t{i}", "user": f"u{i % 2}"}, 10 + i) for i in range(4)]
    read = reader(rules, environment="e")
    for _ in range(3):
        for theme in range(4):
            for user in range(5):
                assert twice(read, theme=f"t{theme}", user=f"u{user}") == (10 + theme if theme % 2 == user else user)


def test_paths_that_leave_the_same_rules_end_at_the_same_leaf() -> None:
    """What is noted for one is noted for all of them."""
    rules = [Rule({"environment": e, "theme": "dark"}, e) for e in ("prod", "dev")]
    read = reader([*rules, *(Rule({"user": f"u{i}"}, i) for i in range(5))])
    for environment in ("prod", "dev", "other"):
        assert twice(read, environment=environment, theme="light", user="u1") == 1
    # The tree begins with the theme, which has fewer values.
    tree = read._globals["_reading"]._planted.tree
    assert len({id(leaf) for node in tree.root.values() for leaf in node.values()}) == 1


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [[], [Rule({"user": "jim"}, 1)], [Rule({"theme": "x", "user": "u"}, 1), Rule({}, 2)]])
def test_what_is_no_value_is_refused_by_every_path(rules: list[Rule[Any]]) -> None:
    """Missing, None, no string, nothing to look up by: with rules on the feature and without."""
    unset: ContextVar[str] = ContextVar("unset")
    read = reader(rules, environment="prod", theme=unset)
    assert twice(read, user="x", theme="y") == (rule_set(rules).resolve({"user": "x", "theme": "y"}))
    assert twice(read, user="x")[0] is MissingContextError
    assert twice(read, theme="y")[0] is MissingContextError
    for feature in FEATURES:
        good = {"environment": "prod", "user": "x", "theme": "y"}
        assert twice(read, **good | {feature: None})[0] is MissingContextError
        for bad in (5, b"x", ["x"], {"x"}, object()):
            kind, message = twice(read, **good | {feature: bad})
            assert kind is TypeError
            assert f"the value of the context feature {feature} must be a str" in message
        assert twice(read, **good | {"usr": "x"})[0] is UnknownContextError


def test_a_value_stays_missing_however_many_others_were_given() -> None:
    """The branch that further strangers share is not for those who give nothing."""
    read = reader([Rule({"theme": "x", "user": "1"}, 1), Rule({"user": "2"}, 2), Rule({"user": "3"}, 3)], user="2")
    missing = twice(read, environment="prod")
    assert missing[0] is MissingContextError
    for i in range(200):
        assert twice(read, environment="prod", theme=f"stranger{i}") == 2
    assert twice(read, environment="prod") == missing
    assert twice(read, environment="prod", theme=None)[0] is MissingContextError


def test_a_string_of_another_class_is_a_string() -> None:
    """Whether a rule has it or not."""
    read = reader([Rule({"user": "jim"}, 1), Rule({"theme": "dark", "user": "x"}, 2)], environment="prod")
    assert twice(read, user=Text("jim"), theme=Text("light")) == 1
    assert twice(read, user=Text("ann"), theme=Text("dark")) == "default"


def test_before_there_are_defaults_the_context_does_not_matter() -> None:
    """No client has been the main one, so no value is asked for. A wrong name is wrong all the same."""
    read = Reader(None, "s", FEATURES, View(RuleSet("declared", Reason.DECLARED_DEFAULT)), like=like)
    assert (twice(read), twice(read, user="jim")) == ("declared", "declared")
    assert twice(read, usr="jim")[0] is UnknownContextError


# -- what stays --------------------------------------------------------------------------------------------------------


def test_a_read_that_was_kept_sees_what_is_put_in_place_later() -> None:
    """`get` can be taken out of a loop: it is one function for ever, whatever rules and defaults come."""
    read = reader([], environment="prod", theme="dark")
    get = read.get
    assert get(user="jim") == "default"
    for rules, expected in [
        ([Rule({"user": "jim"}, 1)], 1),
        ([Rule({"user": "jim"}, 2)], 2),
        ([Rule({"theme": "dark"}, 3), Rule({"user": "jim", "environment": "prod"}, 4)], 3),
        ([], "default"),
    ]:
        read.view = View(rule_set(rules), read.view.defaults)
        assert [get(user="jim"), get(user="jim")] == [expected, expected]


def test_defaults_that_change_late_hold_for_the_next_read() -> None:
    """A constant becomes a context variable, and another constant."""
    defaults = Defaults()
    defaults.update({"environment": "prod", "theme": "dark", "user": "jim"})
    read = Reader(None, "s", FEATURES, View(rule_set([Rule({"user": "ann"}, "ann")]), defaults), like=like)
    assert twice(read) == "default"
    user: ContextVar[str] = ContextVar("user")
    defaults.update({"user": user})
    read.renew()
    assert twice(read)[0] is MissingContextError
    context = copy_context()
    context.run(user.set, "ann")
    assert context.run(read.get) == "ann"
    defaults.update({"user": "ann"})
    read.renew()
    assert twice(read) == "ann"


def test_a_read_that_was_kept_keeps_its_setting() -> None:
    """It is declared and updated as long as it is read; dropped by all, it goes with the garbage collector."""
    get = Setting("kept", int, ["user"], 1).get
    gc.collect()
    assert [setting.name for setting in registry.settings()] == ["kept"]
    assert get(user="jim") == 1
    del get
    gc.collect()
    assert registry.settings() == []


def test_what_was_replaced_is_freed_at_once() -> None:
    """A million old rules do not wait for the garbage collector beside a million new ones."""
    read = reader([Rule({"user": f"u{i}"}, i) for i in range(5)] + [Rule({"theme": "x", "user": "u1"}, 9)], theme="x")
    gc.disable()
    try:
        for i in range(5):
            assert read.get(environment="e", user=f"u{i}") is not None
        replaced = weakref.ref(read._globals["_reading"]._planted.tree)
        read.view = View(rule_set([]), read.view.defaults)
        assert replaced() is None
    finally:
        gc.enable()


def test_a_reading_that_is_replaced_while_it_is_first_read_is_not_read_again() -> None:
    """Its tree would be in place with former rules, and nobody would know."""
    read = reader([Rule({"user": "jim"}, "former")], environment="e", theme="x")
    former = read._globals["_reading"]
    newer = View(rule_set([Rule({"user": "jim"}, "newer")]), read.view.defaults)
    read.view = newer
    assert (
        former.plainly({"environment": "e", "user": "jim", "theme": "x"}) == "former"
    )  # as a read does that began before
    assert twice(read, user="jim") == "newer"


def test_features_with_odd_names_are_read_while_rules_change() -> None:
    """Code that is not for what it looks into reads plainly."""
    names = ("class", "0")
    read = reader([Rule({"class": "a"}, 1)], names)
    assert twice(read, **{"class": "a", "0": "x"}) == 1
    code = read.get.__code__
    read.view = View(rule_set([Rule({"0": "x"}, 2)], names), read.view.defaults)
    assert twice(read, **{"class": "a", "0": "x"}) == 2
    read.get.__code__ = code  # as a read does that began before the change
    assert twice(read, **{"class": "a", "0": "x"}) == 2


def test_a_subclass_reads_in_its_own_way() -> None:
    """It overrides `get` like any method, and calls that of its base."""

    class Doubled(Setting[int]):
        def get(self, /, **contexts: str) -> int:
            return 2 * super().get(**contexts)

    doubled: Setting[int] = Doubled("s", int, ["user"], 21)
    assert doubled.get(user="jim") == 42
    assert Setting("s", int, ["user"], 21).get(user="jim") == 21


def test_the_code_is_that_of_the_documentation() -> None:
    """It is shown where it is explained."""
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "performance.md").read_text()
    sources = (str, NoneType, ContextVar)
    form = getter.Form(("environment", "user", "theme"), frozenset(["user"]), sources, ("theme", "user"))
    assert getter.source(form, "_plan_1") in page


def test_the_function_looks_like_the_method() -> None:
    """To those who ask for help."""
    setting = Setting("s", int, ["user"], 1)
    assert setting.get.__doc__ == Setting.get.__doc__
    assert setting.get.__qualname__ == "Setting.get"
    assert setting.get.__module__ == Setting.__module__
    assert inspect.signature(setting.get) == inspect.signature(Setting.get).replace(
        parameters=[*inspect.signature(Setting.get).parameters.values()][1:]
    )


def test_a_reader_that_is_overtaken_puts_the_newer_in_place() -> None:
    """Two threads that change a setting at once: whichever ends last, reads see the last change."""
    read = reader([], environment="prod", theme="dark")
    newer = View(rule_set([Rule({"user": "jim"}, "newer")]), read.view.defaults)
    calls = []

    class Overtaken(View[Any]):
        @property
        def defaults(self) -> Defaults | None:
            calls.append(1)
            if len(calls) == 2:  # while it is being put in place
                read._view = newer
            return newer.defaults

    overtaken: View[Any] = Overtaken.__new__(Overtaken)
    object.__setattr__(overtaken, "rule_set", rule_set([Rule({"user": "jim"}, "older")]))
    read.view = overtaken
    assert read.get(user="jim") == "newer"


def test_no_read_sees_a_mix_of_two_updates() -> None:
    """While one thread replaces rules by those of other shapes, a read is of one update, and never of an older one."""
    shapes = [["user"], ["user", "theme"], ["environment"], []]
    updates = []
    for number in range(200):
        features = shapes[number % len(shapes)]
        context = {"environment": "prod", "user": "jim", "theme": "dark"}
        rules = [Rule({f: context[f] for f in features}, number), Rule({"user": "ann", "theme": "x"}, -1)]
        updates.append(rule_set(rules, default=number))
    read = Reader(None, "s", FEATURES, View(updates[0], defaults := Defaults()), like=like)
    defaults.update({"environment": "prod", "theme": "dark"})
    read.renew()
    seen: list[list[int]] = [[] for _ in range(3)]
    done = threading.Event()

    def watch(values: list[int]) -> None:
        while not done.is_set():
            values.append(read.get(user="jim"))

    threads = [threading.Thread(target=watch, args=[values]) for values in seen]
    for thread in threads:
        thread.start()
    for update in updates:
        read.view = View(update, defaults)
    done.set()
    for thread in threads:
        thread.join()

    for values in seen:
        assert values == sorted(values)
    assert read.get(user="jim") == 199
