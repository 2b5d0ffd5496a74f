"""The commands `heksher-client rules add|set|remove`: change the rules of a setting."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import click

from heksher_client._json_values import is_equal
from heksher_client.cli.arguments import (
    DASH_IN_VALUE,
    Command,
    Time,
    ValueCommand,
    context_argument,
    now,
    reject_option,
    require_link,
)
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import format_conditions, json_option, local_time, print_json
from heksher_client.cli.setting_values import parse_value
from heksher_client.cli.settings import check_features, require_declaration

if TYPE_CHECKING:
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client.admin import AdminClient, RuleRecord

_NAME = click.argument("name", shell_complete=complete_setting)
_CONDITIONS = context_argument("conditions")
_EXPECTED = click.option(
    "--expected",
    metavar="VALUE",
    help="Change the rule only if it has this value, so that a change by somebody else is not lost.",
)
_COMMENT = click.option("--comment", metavar="TEXT", help="Why, for the change log and for whoever reads the rule.")
_LINK = click.option("--link", metavar="URL", callback=require_link, help="Link to a ticket, for example.")


def _comment_metadata(comment: str | None, link: str | None) -> dict[str, str]:
    return {key: text for key, text in (("comment", comment), ("link", link)) if text is not None}


@click.command(cls=ValueCommand, context_settings=DASH_IN_VALUE, short_help="Add a rule.")
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
    reject_option(value)
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


@click.command("set", cls=ValueCommand, context_settings=DASH_IN_VALUE, short_help="Change the value of a rule.")
@_rule_options(has_value=True)
@_COMMENT
@_LINK
def set_value(value: str, comment: str | None, link: str | None, **options: Unpack[_RuleOptions]) -> None:
    """Change the value of a rule of the setting NAME, and show its former value.

    The rule is the one with exactly these conditions.
    """
    reject_option(value)
    metadata = _comment_metadata(comment, link)
    with _open_rule(options) as rule:
        new = parse_value(rule.setting, value)
        rule.client.set_rule(rule.rule_id, new, etag=rule.etag)
        if metadata:
            rule.client.add_rule_metadata(rule.rule_id, metadata)
    change = f" from {format_value(rule.value)} to {format_value(new)}"
    _report("Changed", rule.rule_id, options["conditions"], change, as_json=options["as_json"])


@click.command(short_help="Remove a rule.")
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


def _report(action: str, rule_id: int, conditions: Mapping[str, str], change: str = "", *, as_json: bool) -> None:
    if as_json:
        print_json({"rule_id": rule_id})
    else:
        click.echo(f"{action} rule {rule_id} ({format_conditions(conditions)}){change}.")
