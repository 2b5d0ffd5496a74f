"""The command `heksher-client rules`: list and change the rules of a setting."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, Unpack

import click

from heksher_client._json_values import is_equal
from heksher_client.cli.arguments import Command, Time, context_argument, now, require_link
from heksher_client.cli.command_groups import DefaultCommandGroup
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, group_options, service_options
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import count, format_conditions, json_option, local_time, print_json, print_table
from heksher_client.cli.setting_values import parse_value
from heksher_client.cli.settings import check_features, require_declaration, rule_set_of

if TYPE_CHECKING:
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client.admin import AdminClient, RuleRecord

_ANY: Final = "*"
_ROWS: Final = 500
"""Rules in the table without `--limit`. More of them take seconds to lay out."""


@click.group(
    cls=DefaultCommandGroup,
    needs_argument=True,
    short_help="List and change the rules of a setting.",
    subcommand_metavar="NAME | COMMAND [ARGS]...",
)
@group_options
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


@rules.command("list", short_help="List rules, strongest first.")
@_NAME
@_CONDITIONS
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"The most rules to show. Default: {_ROWS} for the table, and all with --json.",
)
@service_options
@json_option
def list_rules(
    name: str,
    conditions: Mapping[str, str],
    limit: int | None,
    profile: str | None,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """List the rules of the setting NAME, strongest first.

    With FEATURE=VALUE, only those with these conditions, which may have others as well.
    """
    with connect(profile, url) as client:
        from heksher_client.admin import SettingRecord

        data, all_features = require_declaration(client, name), client.context_features()
        check_features(data, conditions)
        by_id = {rule.rule_id: rule for rule in client.rules(data.name, conditions)}
    rule_set = rule_set_of(SettingRecord(data, tuple(by_id.values())), all_features)
    ranked = [by_id[rule.rule_id or 0] for rule in rule_set.rules()]
    if as_json:
        print_json([_rule_fields(rule) for rule in ranked[:limit]])
        return
    shown = ranked[: limit or _ROWS]
    features = [feature for feature in all_features if feature in data.configurable_features]
    rows: list[list[object]] = [
        [rule.rule_id, *(rule.conditions.get(f, _ANY) for f in features), format_value(rule.value), *_notes(rule)]
        for rule in shown
    ]
    if not conditions:
        rows.append(["default", *(_ANY for _ in features), format_value(data.default_value), *("" for _ in _NOTES)])
    columns = ["rule", *features, "value", *_NOTES]
    used = [i for i, column in enumerate(columns) if column not in _NOTES or any(row[i] for row in rows)]
    print_table([columns[i] for i in used], [[row[i] for i in used] for row in rows], "No rule has these conditions.")
    if len(shown) < len(ranked):
        click.echo(
            f"Note: {count(len(ranked) - len(shown), 'weaker rule is', 'weaker rules are')} not shown; use --limit "
            f"{len(ranked)}, or conditions such as user=jim.",
            err=True,
        )


_NOTES: Final = ("period", "comment")
"""The columns of the table that are shown if a rule has them."""


def _notes(rule: "RuleRecord") -> tuple[str, str]:
    """Return the period and the comment of a rule, as in the table."""
    limits = [
        f"{word} {local_time(time)}" for word, time in (("from", rule.starts_at), ("until", rule.ends_at)) if time
    ]
    period = " ".join(limits) + ("" if rule.in_effect else " (not in effect)")
    comment = rule.metadata.get("comment")
    return period, "" if comment is None else format_value(comment)


_COMMENT = click.option("--comment", metavar="TEXT", help="Why, for the change log and for whoever reads the rule.")
_LINK = click.option("--link", metavar="URL", callback=require_link, help="Link to a ticket, for example.")


def _comment_metadata(comment: str | None, link: str | None) -> dict[str, str]:
    return {key: text for key, text in (("comment", comment), ("link", link)) if text is not None}


@rules.command(cls=_ValueCommand, context_settings=_DASH_IN_VALUE, short_help="Add a rule.")
@_NAME
@click.argument("value")
@_CONDITIONS
@_COMMENT
@_LINK
@click.option(
    "--from",
    "starts_at",
    type=Time(),
    metavar="TIME",
    help="When the rule begins to apply: 2026-01-31T09:30, or a duration from now, such as 2h or 3d.",
)
@click.option("--until", "ends_at", type=Time(), metavar="TIME", help="When the rule ends, in the same form.")
@service_options
@json_option
def add(
    name: str,
    value: str,
    conditions: Mapping[str, str],
    profile: str | None,
    url: str | None,
    *,
    as_json: bool,
    **details: Any,
) -> None:
    """Add a rule to the setting NAME.

    The rule applies in contexts that match all conditions, unless a stronger rule matches too. With --from or --until,
    it applies in this period only.

    VALUE is JSON, for example 5, true or '["a", "b"]'. For a setting of type str, it may be plain text.
    """
    _reject_option(value)
    if not conditions:
        raise click.UsageError(
            "a rule requires a condition, for example user=jim; contexts without a matching rule get the default value"
        )
    if (ends_at := details["ends_at"]) is not None and ends_at <= now():
        raise click.BadParameter(f"{local_time(ends_at.isoformat())} has passed", param_hint="'--until'")
    with connect(profile, url) as client:
        data = require_declaration(client, name)
        check_features(data, conditions)
        if (existing := _find_rule(client, data, conditions)) is not None:
            raise CommandError(
                f"rule {existing.rule_id} already has these conditions; change it with `heksher-client rules set`"
            )
        rule_id = client.add_rule(data.name, parse_value(data, value), conditions, **details)
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
    setting: "SettingData"
    rule_id: int
    value: Any
    etag: str | None


@contextmanager
def _open_rule(options: _RuleOptions) -> Iterator[_OpenRule]:
    """Connect, and yield the rule if it has the expected value."""
    with connect(options["profile"], options["url"]) as client:
        data = require_declaration(client, options["name"])
        check_features(data, options["conditions"])
        rule_id, value = _require_rule(client, data, options["conditions"])
        yield _OpenRule(client, data, rule_id, value, _check_value(client, data, rule_id, options["expected"]))


@rules.command("set", cls=_ValueCommand, context_settings=_DASH_IN_VALUE, short_help="Change the value of a rule.")
@_rule_options(has_value=True)
@_COMMENT
@_LINK
def set_value(value: str, comment: str | None, link: str | None, **options: Unpack[_RuleOptions]) -> None:
    """Change the value of a rule of the setting NAME, and show its former value.

    The rule is the one with exactly these conditions.
    """
    _reject_option(value)
    metadata = _comment_metadata(comment, link)
    with _open_rule(options) as rule:
        new = parse_value(rule.setting, value)
        rule.client.set_rule(rule.rule_id, new, etag=rule.etag)
        if metadata:
            rule.client.add_rule_metadata(rule.rule_id, metadata)
    change = f" from {format_value(rule.value)} to {format_value(new)}"
    _report("Changed", rule.rule_id, options["conditions"], change, as_json=options["as_json"])


@rules.command(short_help="Remove a rule.")
@_rule_options(has_value=False)
def remove(**options: Unpack[_RuleOptions]) -> None:
    """Remove a rule of the setting NAME.

    The rule is the one with exactly these conditions.
    """
    with _open_rule(options) as rule:
        rule.client.remove_rule(rule.rule_id, etag=rule.etag)
    _report("Removed", rule.rule_id, options["conditions"], as_json=options["as_json"])


def _check_value(client: "AdminClient", setting: "SettingData", rule_id: int, expected: str | None) -> str | None:
    """Check that a rule has the expected value, and return the ETag with which it may be changed, if there is one.

    Raises:
        CommandError: It has another value, or no longer exists.
    """
    if expected is None:
        return None
    rule = client.rule(rule_id)
    if rule is None:
        raise CommandError(f"rule {rule_id} no longer exists: somebody else has removed it")
    if not is_equal(rule.value, parse_value(setting, expected, is_expected=True)):
        raise CommandError(
            f"rule {rule_id} has the value {format_value(rule.value)}, and not {expected}: somebody else has changed it"
        )
    return rule.etag


def _find_rule(client: "AdminClient", setting: "SettingData", conditions: Mapping[str, str]) -> "RuleRecord | None":
    """Return the rule of a setting with exactly these conditions. The service selects the rules that may be it."""
    candidates = client.rules(setting.name, conditions) if conditions else ()
    return next((rule for rule in candidates if rule.conditions.keys() == conditions.keys()), None)


def _require_rule(client: "AdminClient", setting: "SettingData", conditions: Mapping[str, str]) -> tuple[int, Any]:
    """Return the id and the value of the rule with exactly these conditions.

    Raises:
        CommandError: The rule does not exist.
    """
    rule = _find_rule(client, setting, conditions)
    if rule is None:
        name = setting.name
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
        "starts_at": rule.starts_at,
        "ends_at": rule.ends_at,
        "in_effect": rule.in_effect,
        "changed_at": rule.changed_at,
        "changed_by": rule.changed_by,
    }
