"""Contexts: defaults, and the tracking of values."""

from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import TRACK_ALL, MissingContextError
from heksher_client._core.settings.context import Defaults, Tracking, check_feature_names, complete
from heksher_client.service.context_filters import admits as service_admits
from heksher_client.service.context_filters import parse_context_filters


def test_what_is_given_goes_before_the_default() -> None:
    """Constants and context variables fill in only what a read leaves out."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    defaults = Defaults()
    defaults.update({"environment": "prod", "user": user})

    assert complete(["environment", "user"], {}, defaults.values) == {"environment": "prod", "user": "nobody"}
    assert complete(["environment", "user"], {"user": "jim"}, defaults.values) == {"environment": "prod", "user": "jim"}
    user.set("john")
    assert complete(["user"], {}, defaults.values) == {"user": "john"}
    defaults.update({"user": "jack"})
    assert complete(["user", "environment"], {}, defaults.values) == {"user": "jack", "environment": "prod"}


def test_every_feature_without_a_value_is_named() -> None:
    """No argument, no default, an unset context variable, None: all the same, and all told at once."""
    defaults = Defaults()
    defaults.update({"unset": ContextVar("unset")})
    with pytest.raises(MissingContextError, match="environment, unset, user:"):
        complete(["environment", "unset", "theme", "user"], {"theme": "dark", "user": None}, defaults.values)  # type: ignore[dict-item]


@pytest.mark.parametrize("names", ["user", ["a-b"], [""], ["user", "user"], [5], ["a\n"]])
def test_impossible_names_of_context_features_are_refused(names: list[str]) -> None:
    """One string for a list is the commonest slip; it would be taken for a list of letters."""
    with pytest.raises((TypeError, ValueError)):
        check_feature_names(names)


def test_the_filter_says_what_is_tracked() -> None:
    """Features and values are sorted, so that the same tracking is the same question."""
    tracking = Tracking().with_values({"user": ["jim", "ann"], "theme": TRACK_ALL}).with_values({"user": "bob"})
    assert tracking.wire_filter(1000) == "theme:*,user:(ann,bob,jim)"
    assert tracking.wire_filter(5) == "*"


def test_tracking_everything_stays_so() -> None:
    """All values of a feature and some more are all values."""
    tracking = Tracking().with_values({"user": TRACK_ALL}).with_values({"user": "jim"})
    assert tracking.wire_filter(1000) == "user:*"
    assert tracking.admits({"user": "anybody"})


NAMES = st.text("abcXYZ_019", min_size=1, max_size=3)
LOWER = st.text("abc", min_size=1, max_size=2)


@given(
    st.dictionaries(LOWER, st.one_of(st.just(TRACK_ALL), st.lists(NAMES, max_size=3))),
    st.dictionaries(LOWER, NAMES, max_size=3),
)
def test_the_filter_on_the_wire_and_the_one_here_agree(
    tracked: dict[str, str | list[str]], conditions: dict[str, str]
) -> None:
    """A service that reads the filter right leaves out exactly the rules that would be left out here."""
    tracking = Tracking().with_values(tracked)
    filters = parse_context_filters(tracking.wire_filter(10_000))
    assert service_admits(filters, conditions.items()) == tracking.admits(conditions)
