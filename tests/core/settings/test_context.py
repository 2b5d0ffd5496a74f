"""Context features: default values, and tracked values."""

import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from enum import Enum, IntEnum
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import TRACK_ALL, MissingContextError, UnknownContextError
from heksher_client._core.settings.context import (
    Defaults,
    Tracking,
    check_feature_names,
    check_known,
    complete,
    order_with,
)
from heksher_client._core.settings.context_values import normalize
from heksher_client.service.context_filters import admits as service_admits
from heksher_client.service.context_filters import parse_context_filters


def test_arguments_take_precedence_over_defaults() -> None:
    """A default is a constant, or a context variable that is evaluated at each read."""
    user: ContextVar[str] = ContextVar("user", default="anonymous")
    defaults = Defaults()
    defaults.update({"environment": "prod", "user": user})

    assert complete(["environment", "user"], {}, defaults.values, "s") == {"environment": "prod", "user": "anonymous"}
    assert complete(["environment", "user"], {"user": "jim"}, defaults.values, "s") == {
        "environment": "prod",
        "user": "jim",
    }
    user.set("john")
    assert complete(["user"], {}, defaults.values, "s") == {"user": "john"}
    defaults.update({"user": "jack"})
    assert complete(["user", "environment"], {}, defaults.values, "s") == {"user": "jack", "environment": "prod"}


class Text(str):
    """A string of another class."""


def test_a_default_replaces_only_that_of_its_feature() -> None:
    """A read that began before goes on with the defaults of its beginning. A string of another class is converted."""
    defaults = Defaults()
    defaults.update({"user": "jim", "theme": "dark"})
    before = defaults.values
    defaults.update({"user": Text("ann")})
    assert (before, defaults.values) == ({"user": "jim", "theme": "dark"}, {"user": "ann", "theme": "dark"})
    assert type(defaults.values["user"]) is str
    with pytest.raises(TypeError) as raised:
        defaults.update({"theme": "light", "user": 5})  # type: ignore[dict-item]
    assert (
        str(raised.value)
        == "the default of context feature user must be a str or a ContextVar, not int: use str(value)"
    )
    assert defaults.values == {"user": "ann", "theme": "dark"}


def test_the_error_names_all_features_without_a_value() -> None:
    """Without an argument and a default, with an unset context variable, or with None."""
    defaults = Defaults()
    defaults.update({"unset": ContextVar("unset")})
    with pytest.raises(MissingContextError) as raised:
        complete(["environment", "unset", "theme", "user"], {"theme": "dark", "user": None}, defaults.values, "s")  # type: ignore[dict-item]
    assert raised.value.features == ("environment", "unset", "user")
    assert str(raised.value) == (
        "s: no value for the context feature environment, unset, user (it is None): pass it to the call, or give "
        "the client a default with set_defaults (a context variable counts only where it is set)"
    )


def check_two_names(given: list[str]) -> None:
    check_known(given, ("user", "theme"), "setting s")


@pytest.mark.parametrize(
    ("check", "invalid", "error"),
    [
        (check_feature_names, "user", "context features must be a collection of names, not one string: use ['user']"),
        (check_feature_names, 5, "context features must be a collection of names, not 5"),
        (check_feature_names, ["a-b"], "'a-b' is not a valid name of a context feature: use letters, digits and "
                                       "underscores"),
        (check_feature_names, [""], "'' is not a valid name of a context feature: use letters, digits and underscores"),
        (check_feature_names, [5], "5 is not a valid name of a context feature: use letters, digits and underscores"),
        (check_feature_names, ["user", "user"], "a context feature is named twice in ['user', 'user']"),
        (check_two_names, ["user", "a", "b"], "setting s has no context feature a, b; it has: user, theme"),
        (Tracking().with_values, {"user": 5}, "the value of context feature user must be a str or a collection of "
                                              "them, not int: use str(value)"),
        (Tracking().with_values, {"user": "a\tb"}, "the value of context feature user must have 1 to 255 characters, "
                                                   "without control characters, not 'a\\tb'"),
    ],
)  # fmt: skip
def test_an_error_names_the_invalid_value_and_the_remedy(
    check: Callable[[Any], object], invalid: object, error: str
) -> None:
    """A single string is the most common mistake; it would be treated as a list of letters."""
    with pytest.raises((TypeError, ValueError, UnknownContextError)) as raised:
        check(invalid)
    assert str(raised.value) == error


class Region(Enum):
    EU = "eu-west-1"


class Number(Enum):
    ONE = 1


class Priority(IntEnum):
    HIGH = 1


class Unprintable:
    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (5, "not int: use str(value)"),
        (UUID(int=1), "not UUID: use str(value)"),
        (Region.EU, "not Region: use value.value"),
        (Number.ONE, "not Number: use str(value.value)"),
        (Priority.HIGH, "not Priority: use str(value.value)"),
        (["jim"], "not list: pass a single str"),
        (("jim",), "not tuple: pass a single str"),
        (b"jim", "not bytes: use value.decode()"),
        (Unprintable(), "not Unprintable: use str(value)"),
    ],
)
def test_the_error_for_a_value_that_is_not_a_string_says_how_to_convert_it(value: Any, error: str) -> None:
    """Also if it has a default, and for defaults and tracked values. The value itself is not shown."""
    variable: ContextVar[Any] = ContextVar("user", default=value)
    for call, expected in (
        (lambda: complete(["theme", "user"], {"user": value}, {"theme": "dark", "user": "jim"}, "setting s"),
         "setting s: the value of context feature user must be a str, "),
        (lambda: complete(["user"], {}, {"user": variable}, "setting s"),
         "setting s: the default of context feature user must be a str, "),
        (lambda: Defaults().update({"user": value}),
         "the default of context feature user must be a str or a ContextVar, "),
        (lambda: Tracking().with_values({"user": ["jim", value]}),
         "the value of context feature user must be a str, "),
    ):  # fmt: skip
        with pytest.raises(TypeError) as raised:
            call()
        assert str(raised.value) == expected + error


@pytest.mark.parametrize(("value", "error"), [(None, "NoneType"), (b"jim", "bytes: use value.decode()")])
def test_a_single_tracked_value_that_is_not_a_string_is_an_error(value: Any, error: str) -> None:
    """It need not be in a collection. Bytes are not a collection of values."""
    with pytest.raises(TypeError) as raised:
        Tracking().with_values({"user": value})
    assert str(raised.value) == (
        f"the value of context feature user must be a str or a collection of them, not {error}"
    )


@pytest.mark.parametrize("names", [["a\n"], [None], ["user", ""]])
def test_invalid_names_of_context_features_are_rejected(names: list[str]) -> None:
    """Strings and other objects, also after a valid name."""
    with pytest.raises(ValueError, match="is not a valid name"):
        check_feature_names(names)


def test_an_order_is_extended_by_the_features_that_it_lacks() -> None:
    """At its end: the service does not know them, so no rule has conditions on them."""
    assert check_feature_names(name for name in ("user", "theme")) == ("user", "theme")
    assert order_with(["user", "theme"], ["planet", "theme", "a"]) == ("user", "theme", "planet", "a")


def test_the_wire_filter_lists_the_tracked_values() -> None:
    """It is sorted, so that equal tracking gives equal queries. A filter that is too long is replaced by `*`."""
    tracking = Tracking().with_values({"user": ["jim", "ann"], "theme": TRACK_ALL}).with_values({"user": "bob"})
    text = "theme:*,user:(ann,bob,jim)"
    assert tracking.wire_filter(len(text)) == text
    assert tracking.wire_filter(len(text) - 1) == "*"


def test_a_feature_with_all_values_tracked_stays_fully_tracked() -> None:
    """Tracking one more value of it changes nothing."""
    tracking = Tracking().with_values({"user": TRACK_ALL}).with_values({"user": "jim"})
    assert tracking.wire_filter(1000) == "user:*"
    assert tracking.admits({"user": "ann"})


NAMES = st.text("abcXYZ_019", min_size=1, max_size=3)
VALUES = NAMES | st.text("a*:,()~%é\u0301 2C", min_size=1, max_size=3).filter(lambda value: value != TRACK_ALL)
LOWER = st.text("abc", min_size=1, max_size=2)


@given(
    st.dictionaries(NAMES, st.one_of(st.just(TRACK_ALL), st.lists(VALUES, max_size=3))),
    st.dictionaries(NAMES, VALUES.map(normalize), max_size=3),
)
def test_the_client_and_the_service_admit_the_same_rules(
    tracked: dict[str, str | list[str]], conditions: dict[str, str]
) -> None:
    """A service that implements the filter correctly omits exactly the rules that the client would drop."""
    tracking = Tracking().with_values(tracked)
    filters = parse_context_filters(tracking.wire_filter(10_000, accepts_any_value=True))
    assert service_admits(filters, conditions.items()) == tracking.admits(conditions)


@given(
    st.dictionaries(LOWER, st.one_of(st.just(TRACK_ALL), st.lists(NAMES, max_size=3))),
    st.dictionaries(LOWER, NAMES, max_size=3),
)
def test_the_reference_implementation_admits_the_same_rules(
    tracked: dict[str, str | list[str]], conditions: dict[str, str]
) -> None:
    """It receives filters without escapes, or none."""
    tracking = Tracking().with_values(tracked)
    text = tracking.wire_filter(10_000)
    assert re.fullmatch(r"[\w:(),*]*", text, re.ASCII)
    assert service_admits(parse_context_filters(text), conditions.items()) == tracking.admits(conditions)


def test_the_service_does_not_filter_if_it_could_not_parse_the_filter() -> None:
    """It skips names with other characters than small letters, and would omit rules that are of interest."""
    assert Tracking().wire_filter(1000) == "*"
    for name in ("User", "user1", "user_id"):
        assert Tracking().with_values({"theme": "dark", name: "a"}).wire_filter(1000) == "*"
    for value in ("has-dash", "é", "a,b"):
        assert Tracking().with_values({"theme": ["dark", value]}).wire_filter(1000) == "*"


def test_a_service_that_supports_all_values_filters_by_them() -> None:
    """Separators have escapes. The length is that in a URL, where other characters than ASCII take more of it."""
    tracking = Tracking().with_values({"User_1": ["b-c", "a,(b)~", "\u00e9"]})
    text = "User_1:(a~2C~28b~29~7E,b-c,\u00e9)"
    assert tracking.wire_filter(len(text) + 5, accepts_any_value=True) == text
    assert tracking.wire_filter(len(text) + 4, accepts_any_value=True) == "*"


FEATURES = ["a", "b", "c"]
TRACKINGS = st.dictionaries(
    st.sampled_from(FEATURES[:2]), st.one_of(st.just(TRACK_ALL), st.lists(st.sampled_from("xy"), max_size=2))
).map(Tracking().with_values)


def possible_conditions(features: list[str]) -> Iterator[dict[str, str]]:
    """Generate conditions on each subset of features, with tracked values and an untracked one."""
    for values in product(["", "x", "y", "z"], repeat=len(features)):
        yield {feature: value for feature, value in zip(features, values, strict=True) if value}


@given(TRACKINGS, TRACKINGS, st.lists(st.sampled_from(FEATURES), unique=True))
def test_a_tracking_covers_another_if_it_admits_all_rules_of_the_other(
    tracking: Tracking, other: Tracking, features: list[str]
) -> None:
    """Compared by all possible conditions. Otherwise the rules that the service omitted before are loaded again."""
    for selected, given_features in ((FEATURES, None), (features, features)):
        admitted = [tracking.admits(rule) for rule in possible_conditions(selected) if other.admits(rule)]
        assert tracking.covers(other, given_features) == all(admitted)
    assert tracking.admits_all(features) == all(map(tracking.admits, possible_conditions(features)))
