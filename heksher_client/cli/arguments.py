"""Arguments that several commands take: contexts, durations and texts that are not empty."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from heksher_client._core.settings.context_values import normalized_value
from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client._logging import escaped

Command = Callable[..., Any]


class Seconds(click.FloatRange):
    """A number of seconds within a range. Unlike `click.FloatRange`, it rejects NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail if it is NaN or out of range."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def require_text(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001
    """Return the value of a parameter that must not be empty, such as an unset variable of a shell. A callback."""
    if not value:
        raise click.BadParameter("it is empty")
    return value


def context_argument(name: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the argument `[FEATURE=VALUE]...`, which the command receives as a mapping."""
    return click.argument(name, nargs=-1, metavar="[FEATURE=VALUE]...", callback=_parse_context)


def _parse_context(
    context: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    pairs: tuple[str, ...],
) -> Mapping[str, str]:
    return parse_pairs(pairs)


def parse_pairs(pairs: Iterable[str]) -> Mapping[str, str]:
    """Return the values of context features by name, from texts like `user=jim`.

    Raises:
        click.BadParameter: A text does not have this form, a value is invalid, or a feature is given twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        feature, separator, value = pair.partition("=")
        if not separator or not re.fullmatch(CONTEXT_NAME, feature):
            raise click.BadParameter(
                f"{pair!r} must have the form FEATURE=VALUE, for example user=jim; "
                "FEATURE consists of letters, digits and underscores"
            )
        if feature in values:
            raise click.BadParameter(f"context feature {feature} is given twice")
        try:
            values[feature] = normalized_value(feature, value)
        except ValueError as error:
            raise click.BadParameter(escaped(str(error))) from None
    return values
