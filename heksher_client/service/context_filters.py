"""The context filters of a query: which rules are wanted, by what their conditions are on."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from heksher_client.service.names import CONTEXT_NAME

ContextFilters = Mapping[str, frozenset[str] | None]
"""The wanted values by context feature; None for all of them."""

_ONE: Final = rf"{CONTEXT_NAME}:(?:\*|\({CONTEXT_NAME}(?:,{CONTEXT_NAME})*\))"
_ALL: Final = re.compile(rf"(?:{_ONE}(?:,{_ONE})*)?")


class MalformedFilterError(ValueError):
    """A text that is no filter."""


class RepeatedFeatureError(ValueError):
    """A filter that names a context feature twice."""


def parse_context_filters(text: str) -> ContextFilters | None:
    """Read `user:(jim,john),theme:*`, of whatever features the service has; None for `*`, which is no filter.

    Raises:
        MalformedFilterError, RepeatedFeatureError: It is none.
    """
    if text == "*":
        return None
    if not _ALL.fullmatch(text):
        raise MalformedFilterError("context_filters must be *, or like user:(jim,john),theme:*")
    filters: dict[str, frozenset[str] | None] = {}
    for feature, values in re.findall(r"(\w+):(\*|\([^)]*\))", text):
        if feature in filters:
            raise RepeatedFeatureError(f"context name repeated in context filter: {feature}")
        filters[feature] = None if values == "*" else frozenset(values[1:-1].split(","))
    return filters


def admits(filters: ContextFilters | None, conditions: Iterable[tuple[str, str]]) -> bool:
    """Whether a rule with these conditions is wanted: all of them must be on wanted values."""
    if filters is None:
        return True
    for feature, value in conditions:
        if feature not in filters:
            return False
        wanted = filters[feature]
        if wanted is not None and value not in wanted:
            return False
    return True
