"""The context filters of a query, which select rules by their conditions."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from heksher_client._core.settings.context_values import FILTER_VALUE, unescape_value
from heksher_client._core.settings.names import CONTEXT_NAME

ContextFilters = Mapping[str, frozenset[str] | None]
"""The selected values by context feature; None for all values."""

_FILTER: Final = re.compile(rf"({CONTEXT_NAME}):(?:\*|\(({FILTER_VALUE}(?:,{FILTER_VALUE})*)\))")
_FILTERS: Final = re.compile(rf"(?:{_FILTER.pattern}(?:,{_FILTER.pattern})*)?")


class MalformedFilterError(ValueError):
    """The text does not have the syntax of context filters."""


class RepeatedFeatureError(ValueError):
    """The filters contain a context feature twice."""


def parse_context_filters(text: str) -> ContextFilters | None:
    """Parse filters like `user:(jim,john),theme:*`. The context features need not exist.

    In a value, `~2C`, `~28`, `~29` and `~7E` are the characters `,`, `(`, `)` and `~`.

    Returns:
        The filters; None for `*`, which selects all rules.

    Raises:
        MalformedFilterError, RepeatedFeatureError: The text is invalid.
    """
    if text == "*":
        return None
    if not _FILTERS.fullmatch(text):
        raise MalformedFilterError(
            "context_filters must be *, or like user:(jim,john),theme:*, with ~2C, ~28, ~29 and ~7E for , ( ) and ~"
        )
    filters: dict[str, frozenset[str] | None] = {}
    for feature, values in _FILTER.findall(text):
        if feature in filters:
            raise RepeatedFeatureError(f"context name repeated in context filter: {feature}")
        filters[feature] = frozenset(map(unescape_value, values.split(","))) if values else None
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
