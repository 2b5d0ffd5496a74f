"""Arguments that several commands take: contexts, times, durations, and options that groups share with commands."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._core.settings.context_values import normalized_value
from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client._logging import escaped

Command = Callable[..., Any]

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


if TYPE_CHECKING:
    _TimeType = click.ParamType[datetime]
else:
    _TimeType = click.ParamType  # not generic before click 8.5


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Time(_TimeType):
    """A time in ISO 8601, in the local time zone if it has no offset; or a duration from now, such as 2h or 3d."""

    name = "time"

    def __init__(self, *, is_past: bool = False) -> None:
        """Create it.

        Args:
            is_past: Whether a duration is the time before now instead of after it.
        """
        self._is_past = is_past

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC, or fail if the text is not a time."""
        try:
            if duration := _DURATION.fullmatch(value):
                difference = timedelta(**{_UNITS[duration[2]]: int(duration[1])})
                return now() - difference if self._is_past else now() + difference
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time: use one such as 2026-01-31T09:30 or 2026-01-31T09:30:00+01:00, "
                "or a duration such as 30m, 2h, 3d or 1w",
                param,
                ctx,
            )


_SHARED: Final = "heksher_client.shared."
"""The prefix of the keys of shared options in the context's `meta`, which groups share with their commands."""


def share_option(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Return the value of an option that may be given before or after a command; the last one counts. A callback."""
    if value is not None and value is not False:
        context.meta[_SHARED + str(parameter.name)] = value
    return context.meta.get(_SHARED + str(parameter.name), value)


def shared_option(context: click.Context, name: str) -> Any:
    """Return the value of an option whose callback is `share_option`; None if it was not given."""
    return context.meta.get(_SHARED + name)


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


def require_link(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    """Return the value of an option that is a link, which the console shows as one. A callback."""
    if value and not re.match("https?://[^/]", value, re.IGNORECASE):
        raise click.BadParameter(f"{value!r} must begin with http:// or https://")
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
        click.UsageError: A text does not have this form, a value is invalid, or a feature is given twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        feature, separator, value = pair.partition("=")
        if feature.startswith("-"):  # Commands whose value may begin with a dash get unknown options as arguments.
            raise click.UsageError(f"no such option: {feature}")
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


def yes_option(command: Command) -> Command:
    """Add the option `--yes` to a command that asks for confirmation."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def dry_run_option(command: Command) -> Command:
    """Add the option `--dry-run` to a command that makes many changes."""
    return click.option("--dry-run", is_flag=True, help="Show all changes without making them.")(command)


def new_token_options(command: Command) -> Command:
    """Add the options `--role` and `--days` to a command that creates a token."""
    days = click.option("--days", type=click.IntRange(1, 36_500), help="Days until the token expires. Default: never.")
    role = click.option(
        "--role",
        type=click.Choice(["read", "declare", "admin"]),
        default="declare",
        show_default=True,
        help="read: read everything. declare: also declare settings, for programs. admin: change everything.",
    )
    return role(days(command))


DASH_IN_VALUE: Final = {"ignore_unknown_options": True}
"""Context settings of commands whose value may begin with a dash, like a negative number."""
_SIMILARITY: Final = 0.8
"""How similar an option is to a mistyped one, from 0 to 1, to be suggested. All of them begin with dashes."""
_HAS_SEPARATOR: Final = "heksher_client.has_separator"
"""Key in the context's `meta`: True if the arguments contain `--`."""


class ValueCommand(click.Command):
    """A command with an argument VALUE that may begin with a dash: a negative number, or anything after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and note whether they contain the separator."""
        ctx.meta[_HAS_SEPARATOR] = "--" in args
        return super().parse_args(ctx, args)


def value_argument(name: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the argument of a `ValueCommand` that is a value."""
    return click.argument(name, callback=_reject_option)


def _reject_option(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001
    """Return a value that is not a mistyped option, which click passes on for the sake of negative numbers. A callback.

    Raises:
        click.UsageError: The value begins with a dash, and is neither a number nor after `--`.
    """
    is_intended = context.meta[_HAS_SEPARATOR] or re.match(r"-\.?\d", value)
    if value.startswith("-") and not is_intended:
        options = [option for each in context.command.params for option in each.opts if option.startswith("--")]
        similar = get_close_matches(value, options, cutoff=_SIMILARITY)
        hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
        raise click.UsageError(f"no such option: {value}{hint} (for a value that begins with a dash, put -- before it)")
    return value
