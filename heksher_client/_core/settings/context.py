"""Where the context of a read comes from, and which contexts a client will ever ask for.

`Defaults` fill in what a read leaves out; `Tracking` says which values are of interest. A `Tracking` is immutable, so
that a refresh works with one from its beginning to its end.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from heksher_client.exceptions import MissingContextError, UnknownContextError

TRACK_ALL: Final = "*"
"""In `track_contexts`: every value of the context feature is of interest."""

_NAME: Final = re.compile(r"[a-zA-Z_0-9]+")
_READABLE_IN_FILTERS: Final = re.compile(r"[a-z]+")
"""The feature names that the service's parser of context filters sees; it skips all others without a word."""


def check_feature_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of context features as a tuple, in their order.

    Raises:
        TypeError: One string was given where a collection of them belongs.
        ValueError: A name that the service would refuse, or one twice.
    """
    if isinstance(names, str):
        raise TypeError(f"context features must be a collection of names, not one string: use [{names!r}]")
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a context feature: letters, digits and underscores only")
    if len(set(checked)) < len(checked):
        raise ValueError(f"a context feature is named twice in {list(checked)}")
    return checked


class Defaults:
    """What a read takes for the context features that its caller does not give.

    All settings of a client share one, so a default set late holds for every later read.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: Mapping[str, str | ContextVar[str]] = {}
        """Replaced as a whole when one changes, so that a read can keep to what it was at one moment."""

    def update(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Add or replace defaults.

        Raises:
            TypeError: A default is neither a string nor a context variable.
        """
        for feature, value in values.items():
            if not isinstance(value, str | ContextVar):
                raise TypeError(f"the default of {feature!r} must be a str or a ContextVar, not {value!r}")
        plain = {name: str.__str__(value) if isinstance(value, str) else value for name, value in values.items()}
        self.values = {**self.values, **plain}


def complete(
    features: Iterable[str], given: Mapping[str, str], defaults: Mapping[str, str | ContextVar[str]]
) -> dict[str, str]:
    """Find a value for each feature: the given one, else the default.

    Raises:
        MissingContextError: A feature has no value, or None for one.
        TypeError: A value is no string.
    """
    context: dict[str, Any] = {}
    for feature in features:
        if feature in given:
            context[feature] = given[feature]
            continue
        default = defaults.get(feature)
        try:
            context[feature] = default.get() if isinstance(default, ContextVar) else default
        except LookupError:  # it is not set
            context[feature] = None
    for feature, value in context.items():
        if not isinstance(value, str):
            raise _no_value(context, feature)
    return context


def check_known(given: Iterable[str], known: Collection[str], whose: str) -> None:
    """Refuse names that are no context features here.

    Raises:
        UnknownContextError: With the names, and those there are.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UnknownContextError(f"{whose} has no context feature {', '.join(unknown)}; it has: {', '.join(known)}")


def _no_value(context: Mapping[str, object], feature: str) -> Exception:
    if context[feature] is not None:
        return TypeError(f"the value of the context feature {feature} must be a str, not {context[feature]!r}")
    missing = [name for name, value in context.items() if value is None]
    error = MissingContextError(
        f"no value for the context feature {', '.join(missing)}: pass it to the call, or give the client a default "
        "with set_defaults (a context variable counts only where it is set)"
    )
    error.features = tuple(missing)
    return error


def order_with(order: Sequence[str], features: Iterable[str]) -> tuple[str, ...]:
    """An order of context features, followed by those that it lacks: no rule of the service can be on them."""
    return (*order, *(feature for feature in features if feature not in order))


@dataclass(frozen=True, slots=True)
class Tracking:
    """The context values of interest. While nothing was ever tracked, everything is."""

    options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The values by context feature; `TRACK_ALL` among them stands for every value."""

    def with_values(self, values: Mapping[str, str | Collection[str]]) -> "Tracking":
        """Track more values. What was tracked before stays so.

        Raises:
            ValueError: A value that no rule can have, because the service does not allow it.
        """
        options = dict(self.options)
        for feature, more in values.items():
            added = frozenset([more] if isinstance(more, str) else more)
            for value in added:
                if value != TRACK_ALL and not (isinstance(value, str) and _NAME.fullmatch(value)):
                    raise ValueError(
                        f"{value!r} cannot be tracked for {feature!r}: the values of context features in rules are "
                        "made of letters, digits and underscores"
                    )
            options[feature] = options.get(feature, frozenset()) | added
        return Tracking(options)

    def admits_all(self, features: Iterable[str]) -> bool:
        """Whether no rule with conditions on these features is left out, whatever values it demands."""
        return not self.options or all(TRACK_ALL in self.options.get(feature, ()) for feature in features)

    def admits(self, conditions: Mapping[str, str]) -> bool:
        """Whether a rule with these conditions can ever matter. The service's filter and this one agree."""
        if not self.options:
            return True
        for feature, value in conditions.items():
            values = self.options.get(feature, ())
            if value not in values and TRACK_ALL not in values:
                return False
        return True

    def covers(self, other: "Tracking", features: Iterable[str] | None = None) -> bool:
        """Whether no rule is left out that the other tracking admits: none at all, or none on these features."""
        if not self.options:
            return True
        for feature in other.options if features is None else features:
            values = self.options.get(feature, frozenset())
            if TRACK_ALL in values:
                continue
            if not other.options or not other.options.get(feature, frozenset()) <= values:
                return False
        return bool(other.options) or features is not None

    def wire_filter(self, max_length: int) -> str:
        """The `context_filters` of a query: what is tracked, or `*` where the service could not read that.

        A filter only spares bytes: `admits` is applied to the answer in any case. So whatever the service's parser
        would skip (names with capitals, digits or underscores) or a URL could not hold is simply not filtered there.

        Args:
            max_length: In characters.
        """
        if not self.options or not all(map(_READABLE_IN_FILTERS.fullmatch, self.options)):
            return "*"
        filters = []
        for feature, values in sorted(self.options.items()):
            if TRACK_ALL in values:
                filters.append(f"{feature}:*")
            elif values:
                filters.append(f"{feature}:({','.join(sorted(values))})")
        text = ",".join(filters)
        return text if len(text) <= max_length else "*"
