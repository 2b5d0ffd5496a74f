"""Context features: default values, and tracked values."""

from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import TRACK_ALL, MissingContextError
from heksher_client._core.settings.context import Defaults, Tracking, check_feature_names, complete
from heksher_client.service.context_filters import admits as service_admits
from heksher_client.service.context_filters import parse_context_filters


def test_arguments_take_precedence_over_defaults() -> None:
    """A default is a constant, or a context variable that is evaluated at each read."""
    user: ContextVar[str] = ContextVar("user", default="anonymous")
    defaults = Defaults()
    defaults.update({"environment": "prod", "user": user})

    assert complete(["environment", "user"], {}, defaults.values) == {"environment": "prod", "user": "anonymous"}
    assert complete(["environment", "user"], {"user": "jim"}, defaults.values) == {"environment": "prod", "user": "jim"}
    user.set("john")
    assert complete(["user"], {}, defaults.values) == {"user": "john"}
    defaults.update({"user": "jack"})
    assert complete(["user", "environment"], {}, defaults.values) == {"user": "jack", "environment": "prod"}


def test_the_error_names_all_features_without_a_value() -> None:
    """Without an argument and a default, with an unset context variable, or with None."""
    defaults = Defaults()
    defaults.update({"unset": ContextVar("unset")})
    with pytest.raises(MissingContextError, match="environment, unset, user:"):
        complete(["environment", "unset", "theme", "user"], {"theme": "dark", "user": None}, defaults.values)  # type: ignore[dict-item]


@pytest.mark.parametrize("names", ["user", ["a-b"], [""], ["user", "user"], [5], ["a\n"]])
def test_invalid_names_of_context_features_are_rejected(names: list[str]) -> None:
    """A single string is the most common mistake; it would be treated as a list of letters."""
    with pytest.raises((TypeError, ValueError)):
        check_feature_names(names)


def test_the_wire_filter_lists_the_tracked_values() -> None:
    """It is sorted, so that equal tracking gives equal queries. A filter that is too long is replaced by `*`."""
    tracking = Tracking().with_values({"user": ["jim", "ann"], "theme": TRACK_ALL}).with_values({"user": "bob"})
    assert tracking.wire_filter(1000) == "theme:*,user:(ann,bob,jim)"
    assert tracking.wire_filter(5) == "*"


def test_a_feature_with_all_values_tracked_stays_fully_tracked() -> None:
    """Tracking one more value of it changes nothing."""
    tracking = Tracking().with_values({"user": TRACK_ALL}).with_values({"user": "jim"})
    assert tracking.wire_filter(1000) == "user:*"
    assert tracking.admits({"user": "ann"})


NAMES = st.text("abcXYZ_019", min_size=1, max_size=3)
LOWER = st.text("abc", min_size=1, max_size=2)


@given(
    st.dictionaries(LOWER, st.one_of(st.just(TRACK_ALL), st.lists(NAMES, max_size=3))),
    st.dictionaries(LOWER, NAMES, max_size=3),
)
def test_the_client_and_the_service_admit_the_same_rules(
    tracked: dict[str, str | list[str]], conditions: dict[str, str]
) -> None:
    """A service that implements the filter correctly omits exactly the rules that the client would drop."""
    tracking = Tracking().with_values(tracked)
    filters = parse_context_filters(tracking.wire_filter(10_000))
    assert service_admits(filters, conditions.items()) == tracking.admits(conditions)
