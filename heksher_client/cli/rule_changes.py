"""The commands `heksher-client rules add|set|change|remove`: change the rules of a setting."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
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
    parse_pairs,
    require_link,
    value_argument,
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


def _require_future(context: click.Context, parameter: click.Parameter, value: datetime | None) -> datetime | None:  # noqa: ARG001
    """Return the end of a period, which must not have passed. A callback."""
    if value is not None and value <= now():
        raise click.BadParameter(f"{local_time(value.isoformat())} has passed")
    return value


_COMMENT = click.option("--comment", metavar="TEXT", help="The reason, for the change log and the list of rules.")
_LINK = click.option("--link", metavar="URL", callback=require_link, help="Link to a ticket, for example.")
_FROM = click.option(
    "--from",
    "starts_at",
    type=Time(),
    metavar="TIME",
    help="When the rule begins to apply: 2026-01-31T09:30, or a duration from now, such as 2h or 3d.",
)
_UNTIL = click.option(
    "--until",
    "ends_at",
    type=Time(),
    metavar="TIME",
    callback=_require_future,
    help="When the rule ends, in the same form.",
)


@click.command(cls=ValueCommand, context_settings=DASH_IN_VALUE, short_help="Add a rule.")
@_NAME
@value_argument("value")
@_CONDITIONS
@_COMMENT
@_LINK
@_FROM
@_UNTIL
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
    if not conditions:
        raise click.UsageError(
            "a rule requires a condition, for example user=jim; contexts without a matching rule get the default value"
        )
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
    value = (value_argument("value"),) if has_value else ()
    parameters = (_NAME, *value, _CONDITIONS, _EXPECTED, service_options, json_option)
    return lambda command: reduce(lambda with_later, add: add(with_later), reversed(parameters), command)


class _OpenRule(NamedTuple):
    """A rule to change, and the client that is connected to its service."""

    client: "AdminClient"
    setting: "SettingData"
    record: "RuleRecord"


@contextmanager
def _open_rule(options: _RuleOptions) -> Iterator[_OpenRule]:
    """Connect, and yield the rule if it has the expected value."""
    with connect(options["profile"], options["url"]) as client:
        data = require_declaration(client, options["name"])
        check_features(data, options["conditions"])
        rule_id = _require_rule(client, data, options["conditions"])
        record = client.rule(rule_id)
        if record is None:
            raise CommandError(f"rule {rule_id} no longer exists: somebody else has removed it")
        if (expected := options["expected"]) is not None:
            _check_value(data, record, expected)
        yield _OpenRule(client, data, record)


class _ChangeOptions(_RuleOptions):
    """The parameters of the commands that change a rule: its reason and its period."""

    comment: str | None
    link: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    no_start: bool
    no_end: bool


def _change_options(command: Command) -> Command:
    """Add the parameters of `_ChangeOptions` to a command, except those of `_RuleOptions`."""
    no_start = click.option("--no-from", "no_start", is_flag=True, help="Remove the start of the rule.")
    no_end = click.option("--no-until", "no_end", is_flag=True, help="Remove the end of the rule.")
    return reduce(lambda with_later, add: add(with_later), (no_end, no_start, _UNTIL, _FROM, _LINK, _COMMENT), command)


def _new_period(options: _ChangeOptions) -> dict[str, datetime | None]:
    """Return the limits of the period that are to be changed.

    Raises:
        click.UsageError: A limit is to be set and removed.
    """
    limits = {"starts_at": options["starts_at"], "ends_at": options["ends_at"]}
    period = {name: limit for name, limit in limits.items() if limit is not None}
    removed = {name for name, is_removed in (("starts_at", options["no_start"]), ("ends_at", options["no_end"]))
               if is_removed}  # fmt: skip
    if removed & period.keys():
        raise click.UsageError("use either --from or --no-from, and either --until or --no-until")
    return {**period, **dict.fromkeys(removed)}


def _new_metadata(options: _ChangeOptions, former: Mapping[str, Any], *, has_new_value: bool) -> dict[str, Any]:
    """Return the metadata of a rule after a change. A new value does not keep the comment and the link of another."""
    metadata = dict(former)
    for key, text in (("comment", options["comment"]), ("link", options["link"])):
        if text:
            metadata[key] = text
        elif has_new_value or text is not None:
            metadata.pop(key, None)
    return metadata


def _change(rule: _OpenRule, options: _ChangeOptions, changes: Mapping[str, Any], *, has_new_value: bool) -> None:
    """Make changes of a rule, and those of its period and its metadata, with one entry in the change log."""
    changes = {**changes, **_new_period(options)}
    metadata = _new_metadata(options, rule.record.metadata, has_new_value=has_new_value)
    if metadata != rule.record.metadata:
        changes["metadata"] = metadata
    is_checked = options["expected"] is not None or "metadata" in changes
    rule.client.change_rule(rule.record.rule_id, etag=rule.record.etag if is_checked else None, **changes)


@click.command("set", cls=ValueCommand, context_settings=DASH_IN_VALUE, short_help="Change the value of a rule.")
@_rule_options(has_value=True)
@_change_options
def set_value(value: str, **options: Unpack[_ChangeOptions]) -> None:
    """Change the value of a rule of the setting NAME, and show its former value.

    The rule is the one with exactly these conditions. Its comment and its link are the reason for its value: those of
    the former value are removed, unless new ones replace them.
    """
    _new_period(options)
    with _open_rule(options) as rule:
        new, former = parse_value(rule.setting, value), rule.record.value
        _change(rule, options, {"value": new}, has_new_value=not is_equal(former, new))
    change = f" from {format_value(former)} to {format_value(new)}"
    _report("Changed", rule.record.rule_id, options["conditions"], change, as_json=options["as_json"])


@click.command(short_help="Change conditions, period or comment.")
@_rule_options(has_value=False)
@click.option(
    "--to",
    "new_conditions",
    metavar="FEATURE=VALUE",
    multiple=True,
    callback=lambda _context, _parameter, pairs: parse_pairs(pairs),
    help="Condition of the rule after the change. Repeat the option for all of its conditions.",
)
@_change_options
def change(new_conditions: Mapping[str, str], **options: Unpack[_ChangeOptions]) -> None:
    """Change the conditions, the period, the comment or the link of a rule of the setting NAME.

    The rule is the one with exactly these conditions. Its value stays as it is. An empty comment or link removes it.
    """
    has_reason = options["comment"] is not None or options["link"] is not None
    if not (new_conditions or has_reason or _new_period(options)):
        raise click.UsageError("use --to, --from, --until, --no-from, --no-until, --comment or --link")
    with _open_rule(options) as rule:
        check_features(rule.setting, new_conditions)
        changes = {"conditions": new_conditions} if new_conditions else {}
        _change(rule, options, changes, has_new_value=False)
    text = f" to {format_conditions(new_conditions)}" if new_conditions else ""
    _report("Changed", rule.record.rule_id, options["conditions"], text, as_json=options["as_json"])


@click.command(short_help="Remove a rule.")
@_rule_options(has_value=False)
@_COMMENT
@_LINK
def remove(comment: str | None, link: str | None, **options: Unpack[_RuleOptions]) -> None:
    """Remove a rule of the setting NAME.

    The rule is the one with exactly these conditions. The comment and the link are in the change log.
    """
    with _open_rule(options) as rule:
        etag = None if options["expected"] is None else rule.record.etag
        rule.client.remove_rule(rule.record.rule_id, comment=comment, link=link, etag=etag)
    _report("Removed", rule.record.rule_id, options["conditions"], as_json=options["as_json"])


def _check_value(setting: "SettingData", rule: "RuleRecord", expected: str) -> None:
    """Check that a rule has the expected value.

    Raises:
        CommandError: It has another value.
    """
    if not is_equal(rule.value, parse_value(setting, expected, is_expected=True)):
        raise CommandError(
            f"rule {rule.rule_id} has the value {format_value(rule.value)}, and not {expected}: "
            "somebody else has changed it"
        )


def _find_rule(client: "AdminClient", setting: "SettingData", conditions: Mapping[str, str]) -> "RuleRecord | None":
    """Return the rule of a setting with exactly these conditions. The service selects the rules that may be it."""
    candidates = client.rules(setting.name, conditions) if conditions else ()
    return next((rule for rule in candidates if rule.conditions.keys() == conditions.keys()), None)


def _require_rule(client: "AdminClient", setting: "SettingData", conditions: Mapping[str, str]) -> int:
    """Return the id of the rule with exactly these conditions.

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
    return rule.rule_id


def _report(action: str, rule_id: int, conditions: Mapping[str, str], change: str = "", *, as_json: bool) -> None:
    if as_json:
        print_json({"rule_id": rule_id})
    else:
        click.echo(f"{action} rule {rule_id} ({format_conditions(conditions)}){change}.")
