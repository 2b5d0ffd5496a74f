"""The command `heksher-client rules`: list and change the rules of a setting."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import click
from click.shell_completion import CompletionItem

from heksher_client._json_values import is_equal
from heksher_client._logging import shortened
from heksher_client.cli.arguments import Command, context_argument
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import NumberError, format_value, parse_json
from heksher_client.cli.output import format_conditions, json_option, print_json, print_table
from heksher_client.cli.settings import require_setting, rule_set_of

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient, RuleRecord, SettingRecord

_ANY = "*"
_MAX_LENGTH = 100
"""Characters of a value in an error message."""


class _RulesGroup(click.Group):
    """A group that accepts the name of a setting as a command: `rules NAME` means `rules list NAME`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["list", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [*super().shell_complete(ctx, incomplete), *complete_setting(ctx, click.Argument(["name"]), incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The group has no options of its own, so those before the name of a setting belong to `list`.
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            if command := next((word for word in args if word in self.commands), None):
                raise click.UsageError(f"options must follow the command: rules {command} ...", ctx)
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RulesGroup, subcommand_metavar="NAME | COMMAND [ARGS]...")
def rules() -> None:
    """List or change the rules of the setting NAME.

    `rules NAME` is short for `rules list NAME`.
    """


_NAME = click.argument("name", shell_complete=complete_setting)
_CONDITIONS = context_argument("conditions")
_EXPECTED = click.option(
    "--expected",
    metavar="VALUE",
    help="Change the rule only if it has this value, so that a change by somebody else is not lost.",
)
_DASH_IN_VALUE = {"ignore_unknown_options": True}
"""Context settings of commands whose value may begin with a dash, like a negative number."""
_HAS_SEPARATOR = "heksher_client.has_separator"
"""Key in the context's `meta`: True if the arguments contain `--`."""


class _ValueCommand(click.Command):
    """A command with an argument VALUE that may begin with a dash: a negative number, or anything after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_HAS_SEPARATOR] = "--" in args
        return super().parse_args(ctx, args)


@rules.command("list")
@_NAME
@service_options
@json_option
def list_rules(name: str, profile: str | None, url: str | None, *, as_json: bool) -> None:
    """List the rules of the setting NAME, strongest first."""
    with connect(profile, url) as client:
        record, all_features = require_setting(client, name), client.context_features()
        by_id: dict[int | None, RuleRecord] = {rule.rule_id: rule for rule in record.rules}
        ranked = [by_id[rule.rule_id] for rule in rule_set_of(record, all_features).rules()]
    if as_json:
        print_json([_rule_fields(rule) for rule in ranked])
        return
    features = [feature for feature in all_features if feature in record.data.configurable_features]
    rows = [[rule.rule_id, *(rule.conditions.get(f, _ANY) for f in features), format_value(rule.value)]
            for rule in ranked]  # fmt: skip
    rows.append(["default", *(_ANY for _ in features), format_value(record.data.default_value)])
    print_table(("rule", *features, "value"), rows, "")


@rules.command(cls=_ValueCommand, context_settings=_DASH_IN_VALUE)
@_NAME
@click.argument("value")
@_CONDITIONS
@service_options
@json_option
def add(
    name: str, value: str, conditions: Mapping[str, str], profile: str | None, url: str | None, *, as_json: bool
) -> None:
    """Add a rule to the setting NAME.

    The rule applies in contexts that match all conditions, unless a stronger rule matches too.

    VALUE is JSON, for example 5, true or '["a", "b"]'. For a setting of type str, it may be plain text.
    """
    _reject_option(value)
    if not conditions:
        raise click.UsageError(
            "a rule requires a condition, for example user=jim; contexts without a matching rule get the default value"
        )
    with connect(profile, url) as client:
        record = require_setting(client, name)
        if (existing := record.find_rule(conditions)) is not None:
            raise CommandError(
                f"rule {existing.rule_id} already has these conditions; change it with `heksher-client rules set`"
            )
        rule_id = client.add_rule(record.data.name, _parse_value(record, value), conditions)
    _report("Added", rule_id, conditions, as_json=as_json)


class _RuleOptions(TypedDict):
    """The parameters of the commands that change a rule, except its new value."""

    name: str
    conditions: Mapping[str, str]
    expected: str | None
    profile: str | None
    url: str | None
    as_json: bool


def _rule_options(*, has_value: bool) -> Callable[[Command], Command]:
    """Return a decorator that adds the parameters of `_RuleOptions` to a command, and the argument VALUE if it has one.

    A decorator adds a parameter before those that the command has already.
    """
    value = (click.argument("value"),) if has_value else ()
    parameters = (_NAME, *value, _CONDITIONS, _EXPECTED, service_options, json_option)
    return lambda command: reduce(lambda with_later, add: add(with_later), reversed(parameters), command)


class _OpenRule(NamedTuple):
    """A rule to change, and the client that is connected to its service."""

    client: "AdminClient"
    record: "SettingRecord"
    rule_id: int
    value: Any
    etag: str | None


@contextmanager
def _open_rule(options: _RuleOptions) -> Iterator[_OpenRule]:
    """Connect, and yield the rule if it has the expected value."""
    with connect(options["profile"], options["url"]) as client:
        record = require_setting(client, options["name"])
        rule_id, value = _require_rule(record, options["conditions"])
        yield _OpenRule(client, record, rule_id, value, _check_value(client, record, rule_id, options["expected"]))


@rules.command("set", cls=_ValueCommand, context_settings=_DASH_IN_VALUE)
@_rule_options(has_value=True)
def set_value(value: str, **options: Unpack[_RuleOptions]) -> None:
    """Change the value of a rule of the setting NAME, and show its former value.

    The rule is the one with exactly these conditions.
    """
    _reject_option(value)
    with _open_rule(options) as rule:
        new = _parse_value(rule.record, value)
        rule.client.set_rule(rule.rule_id, new, etag=rule.etag)
    change = f" from {format_value(rule.value)} to {format_value(new)}"
    _report("Changed", rule.rule_id, options["conditions"], change, as_json=options["as_json"])


@rules.command()
@_rule_options(has_value=False)
def remove(**options: Unpack[_RuleOptions]) -> None:
    """Remove a rule of the setting NAME.

    The rule is the one with exactly these conditions.
    """
    with _open_rule(options) as rule:
        rule.client.remove_rule(rule.rule_id, etag=rule.etag)
    _report("Removed", rule.rule_id, options["conditions"], as_json=options["as_json"])


def _check_value(client: "AdminClient", record: "SettingRecord", rule_id: int, expected: str | None) -> str | None:
    """Check that a rule has the expected value, and return the ETag with which it may be changed, if there is one.

    Raises:
        CommandError: It has another value, or no longer exists.
    """
    if expected is None:
        return None
    rule = client.rule(rule_id)
    if rule is None:
        raise CommandError(f"rule {rule_id} no longer exists: somebody else has removed it")
    if not is_equal(rule.value, _parse_value(record, expected)):
        raise CommandError(
            f"rule {rule_id} has the value {format_value(rule.value)}, and not {expected}: somebody else has changed it"
        )
    return rule.etag


def _require_rule(record: "SettingRecord", conditions: Mapping[str, str]) -> tuple[int, Any]:
    """Return the id and the value of the rule with exactly these conditions.

    Raises:
        CommandError: The rule does not exist.
    """
    rule = record.find_rule(conditions)
    if rule is None:
        name = record.data.name
        raise CommandError(
            f"setting {name} has no rule with exactly these conditions: {format_conditions(conditions) or '(none)'}; "
            f"list its rules with `heksher-client rules {name}`"
        )
    return rule.rule_id, rule.value


def _reject_option(value: str) -> None:
    """Check that the value is not a mistyped option, which click passes on for the sake of negative numbers.

    Raises:
        click.UsageError: The value begins with a dash, and is neither a number nor after `--`.
    """
    is_intended = click.get_current_context().meta[_HAS_SEPARATOR] or re.match(r"-\.?\d", value)
    if value.startswith("-") and not is_intended:
        raise click.UsageError(f"no such option: {value} (for a value that begins with a dash, put -- before it)")


def _parse_value(record: "SettingRecord", text: str) -> Any:
    """Parse a value as JSON. For a setting of type str, or an Enum, anything else is plain text.

    Raises:
        CommandError: The value is not valid JSON, and the setting is not of such a type.
    """
    is_str = record.data.type == "str"
    try:
        value = parse_json(text)
    except RecursionError:
        raise CommandError("the value is nested too deeply") from None
    except ValueError as error:
        if is_str or record.data.type.startswith("Enum["):
            return text
        problem = error if isinstance(error, NumberError) else f"{shortened(repr(text), _MAX_LENGTH)} is not valid JSON"
        raise CommandError(f"{problem}, and setting {record.data.name} has type {record.data.type}") from None
    return text if is_str and not isinstance(value, str) else value


def _report(action: str, rule_id: int, conditions: Mapping[str, str], change: str = "", *, as_json: bool) -> None:
    if as_json:
        print_json({"rule_id": rule_id})
    else:
        click.echo(f"{action} rule {rule_id} ({format_conditions(conditions)}){change}.")


def _rule_fields(rule: "RuleRecord") -> dict[str, Any]:
    return {
        "rule_id": rule.rule_id,
        "conditions": dict(rule.conditions),
        "value": rule.value,
        "metadata": dict(rule.metadata),
    }
