"""The command `heksher-client rules`: list and change the rules of a setting."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client.cli.arguments import context_argument
from heksher_client.cli.command_groups import DefaultCommandGroup
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, group_options, service_options
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import count, json_option, local_time, print_json, print_table
from heksher_client.cli.rule_changes import add, change, remove, set_value
from heksher_client.cli.settings import check_features, require_declaration

if TYPE_CHECKING:
    from heksher_client.admin import RuleRecord

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


for _command in (add, set_value, change, remove):
    rules.add_command(_command)


_NAME = click.argument("name", shell_complete=complete_setting)
_CONDITIONS = context_argument("conditions")


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
        data, all_features = require_declaration(client, name), client.context_features()
        check_features(data, conditions)
        if limit is None and as_json:
            shown = client.rules(data.name, conditions, sort="priority")
            total = len(shown)
        else:
            page = client.rule_page(data.name, conditions, sort="priority", limit=limit or _ROWS)
            shown, total = page.rules, page.total
    if as_json:
        print_json([_rule_fields(rule) for rule in shown])
        return
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
    if len(shown) < total:
        click.echo(
            f"Note: {count(total - len(shown), 'weaker rule is', 'weaker rules are')} not shown; use --limit "
            f"{total}, or conditions such as user=jim.",
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
