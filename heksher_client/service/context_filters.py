"""The context filters of a query, which select rules by their conditions."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from heksher_client._core.settings.names import CONTEXT_NAME

ContextFilters = Mapping[str, frozenset[str] | None]
"""The selected values by context feature; None for all values."""

_FILTER: Final = rf"{CONTEXT_NAME}:(?:\*|\({CONTEXT_NAME}(?:,{CONTEXT_NAME})*\))"
_FILTERS: Final = re.compile(rf"(?:{_FILTER}(?:,{_FILTER})*)?")


class MalformedFilterError(ValueError):
    """The text does not have the syntax of context filters."""


class RepeatedFeatureError(ValueError):
    """The filters contain a context feature twice."""


def parse_context_filters(text: str) -> ContextFilters | None:
    """Parse filters like `user:(jim,john),theme:*`. The context features need not exist.

    Returns:
        The filters; None for `*`, which selects all rules.

    Raises:
        MalformedFilterError, RepeatedFeatureError: The text is invalid.
    """
    if text == "*":
        return None
    if not _FILTERS.fullmatch(text):
        raise MalformedFilterError("context_filters must be *, or like user:(jim,john),theme:*")
    filters: dict[str, frozenset[str] | None] = {}
    for feature, values in re.findall(r"(\w+):(\*|\([^)]*\))", text):
        if feature in filters:
            raise RepeatedFeatureError(f"context name repeated in context filter: {feature}")
        filters[feature] = None if values == "*" else frozenset(values[1:-1].split(","))
    return filters


def admits(filters: ContextFilters | None, conditions: Iterable[tuple[str, str]]) -> bool:
    """Return True if the filters select a rule: if they select the value of each of its conditions."""
    if filters is None:
        return True
    for feature, value in conditions:
        if feature not in filters:
            return False
        selected = filters[feature]
        if selected is not None and value not in selected:
            return False
    return True
