"""The command `heksher-client rules`: list and change the rules of a setting."""

from collections.abc import Collection, Mapping, Sequence
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
_SORTS: Final = ("priority", "rule", "value", "changed")
_NOTES: Final = ("period", "changed", "author", "comment")
"""The columns of the table that are shown if a rule has them."""


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
@click.option("--text", metavar="TEXT", help="Only rules with this text in a condition, such as jim or user=ji.")
@click.option("--value", metavar="TEXT", help="Only rules with this text in the JSON of the value.")
@click.option("--author", metavar="TOKEN", help="Only rules that the token of this name has changed last.")
@click.option(
    "--sort",
    type=click.Choice(_SORTS),
    default="priority",
    show_default=True,
    help="priority: strongest first. rule: by ID. value: lowest first. changed: last change first.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
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
    sort: str,
    limit: int | None,
    profile: str | None,
    url: str | None,
    *,
    reverse: bool,
    as_json: bool,
    **criteria: str | None,
) -> None:
    """List the rules of the setting NAME, strongest first.

    With FEATURE=VALUE, only those with these conditions, which may have others as well. Texts are found in any case.
    The table shows authors and times of changes with --author and with --sort changed; --json always has them.
    """
    order: Any = {"sort": f"-{sort}" if reverse else sort, **criteria}
    with connect(profile, url) as client:
        data, all_features = require_declaration(client, name), client.context_features()
        check_features(data, conditions)
        if limit is None and as_json:
            shown = client.rules(data.name, conditions, **order)
            total = len(shown)
        else:
            page = client.rule_page(data.name, conditions, limit=limit or _ROWS, **order)
            shown, total = page.rules, page.total
    if as_json:
        print_json([_rule_fields(rule) for rule in shown])
        return
    is_filtered = bool(conditions) or any(criteria.values())
    is_by_priority = order["sort"] == "priority"
    rows = [(str(rule.rule_id), rule.conditions, rule.value, _notes(rule)) for rule in shown]
    if is_by_priority and not is_filtered:
        rows.append(("default", {}, data.default_value, ("",) * len(_NOTES)))
    left_out = () if sort == "changed" or criteria["author"] else ("changed", "author")
    features = [feature for feature in all_features if feature in data.configurable_features]
    _print_rows(rows, features, left_out, "No rule meets these criteria." if is_filtered else "No rules.")
    if len(shown) < total:
        kind = "weaker" if is_by_priority else "more"
        hidden = count(total - len(shown), f"{kind} rule is", f"{kind} rules are")
        click.echo(f"Note: {hidden} not shown; use --limit {total}, or conditions such as user=jim.", err=True)


def _print_rows(
    rows: Sequence[tuple[str, Mapping[str, str], Any, Sequence[str]]],
    features: Sequence[str],
    left_out: Collection[str],
    if_empty: str,
) -> None:
    """Print the table of rules.

    Args:
        rows: The ID, the conditions, the value and the notes of each rule.
        features: The context features, each with a column.
        left_out: Notes that are not shown.
        if_empty: The sentence that is printed if there are no rows.
    """
    notes = [i for i, note in enumerate(_NOTES) if note not in left_out and any(row[3][i] for row in rows)]
    columns = ["rule", *features, "value", *(_NOTES[i] for i in notes)]
    cells = [
        [
            rule_id,
            *(conditions.get(feature, _ANY) for feature in features),
            format_value(value),
            *(texts[i] for i in notes),
        ]
        for rule_id, conditions, value, texts in rows
    ]
    print_table(columns, cells, if_empty)


def _notes(rule: "RuleRecord") -> tuple[str, ...]:
    """Return the texts of a rule for the columns `_NOTES`."""
    limits = [
        f"{word} {local_time(time)}" for word, time in (("from", rule.starts_at), ("until", rule.ends_at)) if time
    ]
    period = " ".join(limits) + ("" if rule.in_effect else " (not in effect)")
    changed = local_time(rule.changed_at) if rule.changed_at else ""
    comment = rule.metadata.get("comment")
    return period, changed, rule.changed_by or "", "" if comment is None else format_value(comment)


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
