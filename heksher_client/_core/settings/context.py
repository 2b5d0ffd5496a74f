"""The context of a read, and the contexts that a client tracks.

`Defaults` complete the context that a caller passes. `Tracking` says which context values are of interest; it is
immutable, so that a refresh works with one from its beginning to its end.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

import msgspec

from heksher_client._core.settings.context_values import (
    FILTER_CHARACTERS,
    escape_value,
    is_v1_value,
    normalize,
    normalized_value,
    type_error,
)
from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client.exceptions import MissingContextError, UnknownContextError

TRACK_ALL: Final = "*"
"""In `track_contexts`: all values of the context feature."""

_NAME: Final = re.compile(CONTEXT_NAME)
_FILTERABLE_NAME: Final = re.compile(r"[a-z]+")
"""The feature names that the reference implementation's parser of filters supports; it silently skips others."""


def check_feature_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of context features as a tuple, in the same order.

    Raises:
        TypeError: A single string instead of a collection, or no collection.
        ValueError: A name that the service would refuse, or a duplicate.
    """
    if isinstance(names, str):
        raise TypeError(f"context features must be a collection of names, not one string: use [{names!r}]")
    if not isinstance(names, Iterable):
        raise TypeError(f"context features must be a collection of names, not {names!r}")
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid name of a context feature: use letters, digits and underscores")
    if len(set(checked)) < len(checked):
        raise ValueError(f"a context feature is named twice in {list(checked)}")
    return checked


class Defaults:
    """The defaults of context features, for callers that do not pass them.

    All settings of a client share one object, so a default that is set late applies to every later read.
    """

    __slots__ = ("_given", "values")

    def __init__(self) -> None:
        self._given: dict[str, str | ContextVar[str]] = {}
        self.values: Mapping[str, str | ContextVar[str]] = {}
        """Replaced as a whole when one changes, so that a read uses the defaults of one moment."""

    def update(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Add or replace defaults. Constants are converted to the normal form of values in rules.

        Raises:
            TypeError: A default is neither a string nor a context variable.
        """
        for feature, value in values.items():
            if not isinstance(value, str | ContextVar):
                raise type_error(f"the default of context feature {feature}", value, "a str or a ContextVar")
        plain = {
            name: normalize(str.__str__(value)) if isinstance(value, str) else value for name, value in values.items()
        }
        self._given.update(plain)
        # Again if another thread, or a signal handler that interrupts this, has added defaults.
        while self.values != (given := self._given.copy()):
            self.values = given


def complete(
    features: Iterable[str], given: Mapping[str, str], defaults: Mapping[str, str | ContextVar[str]], whose: str
) -> dict[str, str]:
    """Return a value for each feature: the given one, or else the default.

    Args:
        features: The features.
        given: The values that the caller passes.
        defaults: The defaults.
        whose: The setting, for messages.

    Raises:
        MissingContextError: A feature has no value, or None.
        TypeError: A value is not a string.
    """
    context: dict[str, Any] = {}
    for feature in features:
        if feature in given:
            context[feature] = given[feature]
            continue
        default = defaults.get(feature)
        try:
            context[feature] = default.get() if isinstance(default, ContextVar) else default
        except LookupError:  # The variable is not set.
            context[feature] = None
    for feature, value in context.items():
        if not isinstance(value, str):
            raise _invalid_value(context, feature, given, whose)
    return context


def check_known(given: Iterable[str], known: Collection[str], whose: str) -> None:
    """Check that names are known context features.

    Raises:
        UnknownContextError: Some are not; with these, and the known ones.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UnknownContextError(f"{whose} has no context feature {', '.join(unknown)}; it has: {', '.join(known)}")


def _invalid_value(context: Mapping[str, object], feature: str, given: Collection[str], whose: str) -> Exception:
    if (value := context[feature]) is not None:
        kind = "value" if feature in given else "default"
        return type_error(f"{whose}: the {kind} of context feature {feature}", value)
    missing = [name for name, value in context.items() if value is None]
    names = [f"{name} (it is None)" if name in given else name for name in missing]
    error = MissingContextError(
        f"{whose}: no value for the context feature {', '.join(names)}: pass it to the call, or give the client a "
        "default with set_defaults (a context variable counts only where it is set)"
    )
    error.features = tuple(missing)
    return error


def order_with(order: Sequence[str], features: Iterable[str]) -> tuple[str, ...]:
    """Return an order of context features, followed by those that it lacks: no rule can have conditions on them."""
    return (*order, *(feature for feature in features if feature not in order))


class Tracking(msgspec.Struct, frozen=True, dict=True):
    """The context values of interest. Until a value is tracked, all are."""

    options: Mapping[str, frozenset[str]] = {}
    """The values by context feature; `TRACK_ALL` among them means every value."""

    def with_values(self, values: Mapping[str, str | Collection[str]]) -> "Tracking":
        """Return a tracking with more values.

        Raises:
            TypeError: A value is not a string.
            ValueError: A value that no rule may require.
        """
        options = dict(self.options)
        for feature, more in values.items():
            if isinstance(more, bytes) or not isinstance(more, Iterable):
                raise type_error(f"the value of context feature {feature}", more, "a str or a collection of them")
            added = {normalized_value(feature, value) for value in ([more] if isinstance(more, str) else more)}
            options[feature] = options.get(feature, frozenset()) | added
        return Tracking(options)

    def admits_all(self, features: Iterable[str]) -> bool:
        """True if all rules with conditions on these features are admitted, whatever values they require."""
        return not self.options or all(TRACK_ALL in self.options.get(feature, ()) for feature in features)

    def admits(self, conditions: Mapping[str, str]) -> bool:
        """True if a rule with these conditions can match a tracked context. The service's filter does the same."""
        if not self.options:
            return True
        for feature, value in conditions.items():
            values = self.options.get(feature, ())
            if value not in values and TRACK_ALL not in values:
                return False
        return True

    def covers(self, other: "Tracking", features: Iterable[str] | None = None) -> bool:
        """True if all rules that the other tracking admits are admitted: all rules, or those on these features."""
        if not self.options:
            return True
        for feature in other.options if features is None else features:
            values = self.options.get(feature, frozenset())
            if TRACK_ALL in values:
                continue
            if not other.options or not other.options.get(feature, frozenset()) <= values:
                return False
        return bool(other.options) or features is not None

    def wire_filter(self, max_length: int, *, accepts_any_value: bool = False) -> str:
        """Return the `context_filters` of a query, or `*` if the service could not parse them.

        A filter only saves bytes: `admits` is applied to the response in any case. So if the service's parser would
        skip a name (with capitals, digits or underscores) or refuse a value, or a URL would be too long, the service
        does not filter.

        Args:
            max_length: In characters of a URL.
            accepts_any_value: Whether the service's parser supports all names and values.
        """
        if not self.options or not (accepts_any_value or self._is_v1):
            return "*"
        text, length = self._wire_filter
        return text if length <= max_length else "*"

    @cached_property
    def _wire_filter(self) -> tuple[str, int]:
        """The filter, and its length in a URL."""
        filters = []
        for feature, values in sorted(self.options.items()):
            if TRACK_ALL in values:
                filters.append(f"{feature}:*")
            elif values:
                filters.append(f"{feature}:({','.join(map(escape_value, sorted(values)))})")
        text = ",".join(filters)
        return text, len(quote(text, safe=FILTER_CHARACTERS))

    @cached_property
    def unsupported_values(self) -> list[tuple[str, str]]:
        """The tracked features and values that the reference implementation of the service does not accept."""
        return [
            (feature, value)
            for feature, values in sorted(self.options.items())
            for value in sorted(values - {TRACK_ALL})
            if not is_v1_value(value)
        ]

    @cached_property
    def _is_v1(self) -> bool:
        """True if the reference implementation of the service can parse the filter."""
        return all(map(_FILTERABLE_NAME.fullmatch, self.options)) and not self.unsupported_values
