"""The commands `heksher-client compare|copy`: the values in two contexts of one service, and copies of rules."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import click
from rich.markup import escape

from heksher_client._core.refresh.comparison import compared_settings
from heksher_client._core.settings.context_comparison import CopyKind, PlannedCopy, copied_metadata, plan_copy
from heksher_client._json_values import is_equal
from heksher_client._logging import escaped
from heksher_client.cli.arguments import Command, dry_run_option, parse_pairs, require_link, yes_option
from heksher_client.cli.comparison import Difference, print_differences
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.errors import CommandError, ExitStatus
from heksher_client.cli.import_plan import confirm_changes
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import (
    check_unattended,
    count,
    format_conditions,
    json_option,
    print_json,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient, ComparedValues, ResolvedValue, RuleRecord

_ROWS: Final = 500
"""Values in the table without `--limit`. More of them take seconds to lay out."""


def _parse_context(
    context: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    text: str,
) -> Mapping[str, str]:
    r"""Parse a context like `environment=prod,user=jim`. In a value, `\,` is a comma."""
    return parse_pairs(pair.replace(r"\,", ",") for pair in re.split(r"(?<!\\),", text))


class _Source(TypedDict):
    """The parameters that select the service and its settings."""

    pattern: str
    profile: str | None
    url: str | None


def _contexts_and_pattern(command: Command) -> Command:
    """Add the arguments A, B and NAME-PATTERN to a command."""
    pattern = click.argument("pattern", default="*", metavar="[NAME-PATTERN]", shell_complete=complete_setting)
    second = click.argument("second", metavar="B", callback=_parse_context)
    return click.argument("first", metavar="A", callback=_parse_context)(second(pattern(command)))


# -- compare -----------------------------------------------------------------------------------------------------------


@click.command(short_help="Compare the values in two contexts.")
@_contexts_and_pattern
@click.option("--all", "show_all", is_flag=True, help="Show equal values as well.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"The most values to show. Default: {_ROWS} for the table, and all with --json.",
)
@service_options
@json_option
def compare(
    first: Mapping[str, str],
    second: Mapping[str, str],
    limit: int | None,
    *,
    show_all: bool,
    as_json: bool,
    **source: Unpack[_Source],
) -> None:
    r"""Compare the values of settings in the contexts A and B of one service.

    A and B are pairs FEATURE=VALUE, separated by commas, for example environment=staging environment=prod. In a value,
    write \, for a comma. With NAME-PATTERN, only settings whose names match it are compared, for example 'shop.*'.

    Context features that are not given have the defaults of the profile. If a rule for A or B has further conditions,
    the values in both contexts with these conditions are compared as well.

    Exits with status 5 if values differ. To compare services, profiles or files, use `diff`.
    """
    pattern = source["pattern"]
    with connect(source["profile"], source["url"]) as client:
        _check_features(client, {**first, **second})
        if pattern != "*":
            _require_match(client, pattern, client.settings())
        first, second = {**client.defaults, **first}, {**client.defaults, **second}
        with progress("Comparing") as on_progress:
            found = client.compare(first, second, include_equal=show_all, on_progress=on_progress)
    pairs = [pair for pair in found if fnmatchcase(pair.setting, pattern)]
    if as_json:
        print_json([_pair_fields(pair) for pair in pairs[:limit]])
    else:
        _print_pairs(pairs[: limit or _ROWS], first, second)
        if len(pairs) > (limit or _ROWS):
            hidden = count(len(pairs) - (limit or _ROWS), "value is", "values are")
            click.echo(f"Note: {hidden} not shown; use --limit {len(pairs)}, NAME-PATTERN or --json.", err=True)
    if any(pair.is_different for pair in pairs):
        click.get_current_context().exit(ExitStatus.DIFFERENT)


def _check_features(client: "AdminClient", given: Iterable[str]) -> None:
    """Check that the context features of contexts exist.

    Raises:
        click.UsageError: The service does not have one.
    """
    features = client.context_features()
    if unknown := ", ".join(feature for feature in given if feature not in features):
        raise click.UsageError(
            f"the service does not have the context feature {unknown}; its context features are: "
            f"{escaped(', '.join(features)) or '(none)'}"
        )


def _require_match(client: "AdminClient", pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that match a pattern, sorted.

    Raises:
        CommandError: None does, although settings are required.
    """
    matching = sorted(name for name in names if fnmatchcase(name, pattern))
    if not matching and pattern != "*":
        raise CommandError(
            f"no setting of {client.service_url} matches {pattern!r}; list the settings with `heksher-client settings`"
        )
    return matching


def _print_pairs(pairs: Sequence["ComparedValues"], first: Mapping[str, str], second: Mapping[str, str]) -> None:
    has_further = any(pair.conditions for pair in pairs)
    columns = ["setting", *(["with"] if has_further else []), *(escape(format_conditions(c)) for c in (first, second))]
    rows = [
        [
            pair.setting,
            *([format_conditions(pair.conditions)] if has_further else []),
            _format_side(pair.first),
            _format_side(pair.second),
        ]
        for pair in pairs
    ]
    print_table(columns, rows, "No differences.")


def _format_side(side: "ResolvedValue") -> str:
    return format_value(side.value) + (" (default)" if side.rule_id is None else "")


def _pair_fields(pair: "ComparedValues") -> dict[str, Any]:
    return {
        "setting": pair.setting,
        "conditions": dict(pair.conditions),
        "a": _side_fields(pair.first),
        "b": _side_fields(pair.second),
        "is_different": pair.is_different,
    }


def _side_fields(side: "ResolvedValue") -> dict[str, Any]:
    fields = None if side.rule_id is None else {"rule_id": side.rule_id, "conditions": dict(side.conditions)}
    return {"value": side.value, "rule": fields}


# -- copy --------------------------------------------------------------------------------------------------------------


@click.command(short_help="Copy rules to another context.")
@_contexts_and_pattern
@click.option("--comment", default="", help="Comment of the copied rules, in their metadata. Default: as it is.")
@click.option(
    "--link",
    default="",
    callback=require_link,
    help="Link of the copied rules, to a ticket for example. Default: as it is.",
)
@dry_run_option
@yes_option
@service_options
@json_option
def copy(
    first: Mapping[str, str],
    second: Mapping[str, str],
    *,
    comment: str,
    link: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **source: Unpack[_Source],
) -> None:
    r"""Copy rules of the context A to the context B of one service.

    Copies each rule that has all conditions of A, with those of B instead: its value, metadata and other conditions. If
    a rule with these conditions exists, its value is changed. Other rules of B are not changed or removed.

    A and B are pairs FEATURE=VALUE, separated by commas, for example environment=staging environment=prod. In a value,
    write \, for a comma. With NAME-PATTERN, only rules of settings whose names match it are copied, for example
    'shop.*'. The defaults of the profile are not used.

    Each change is a request. If one fails, those before remain; run the command again to make the others.
    """
    if first == second:
        raise click.UsageError("A and B are the same context")
    check_unattended(as_json=as_json, is_decided=yes or dry_run)
    with connect(source["profile"], source["url"]) as client:
        _check_features(client, {**first, **second})
        with progress("Fetching rules") as on_progress:
            state = client.service_state(on_progress)
        names = _require_match(client, source["pattern"], state.settings)
        settings = compared_settings(state.settings[name] for name in names)
        plan = list(plan_copy(settings, state.context_features, first, second))
        changes = [step for step in plan if step.is_change]
        if not as_json:
            _print_plan(plan)
        if changes and not dry_run:
            if not yes:
                confirm_changes(len(changes))
            rules = {rule.rule_id: rule for record in state.settings.values() for rule in record.rules}
            with progress("Copying rules") as on_progress:
                _copy_rules(client, changes, rules, {"comment": comment, "link": link}, on_progress)
    counts = Counter(step.kind for step in plan)
    if as_json:
        print_json({
            **{str(kind): counts[kind] for kind in CopyKind},
            "rules": [difference._asdict() for step in changes for difference in _differences(step)],
        })  # fmt: skip
    else:
        shown = ", ".join(f"{counts[kind]} {kind}" for kind in CopyKind if counts[kind] or kind is not CopyKind.SKIPPED)
        click.echo(f"{shown} (dry run)." if dry_run else f"{shown}.")


def _print_plan(plan: Iterable[PlannedCopy]) -> None:
    for step in plan:
        if step.kind is CopyKind.SKIPPED:
            conditions = format_conditions(step.rule.conditions)
            click.echo(f"Skipped {escaped(step.setting)} rule {conditions}: {step.reason}.", err=True)
    print_differences(difference for step in plan if step.is_change for difference in _differences(step))


def _differences(step: PlannedCopy) -> Iterator[Difference]:
    """Yield the differences that a copy makes, as `diff` shows them."""
    rule, existing = step.rule, step.existing
    if existing is None:
        yield Difference(step.setting, "rule", step.conditions, None, rule.value, "added")
        return
    for what, before, after in (
        ("rule", existing.value, rule.value), ("rule_period", existing.period, rule.period),
    ):  # fmt: skip
        if not is_equal(before, after):
            yield Difference(step.setting, what, step.conditions, before, after, "changed")


def _copy_rules(
    client: "AdminClient",
    changes: Sequence[PlannedCopy],
    rules: Mapping[int, "RuleRecord"],
    notes: Mapping[str, str],
    on_progress: Callable[[int, int], object],
) -> None:
    """Make the changes of a plan, and print how many were made if one fails.

    Args:
        client: The client of the service.
        changes: The changes.
        rules: All rules by their IDs.
        notes: The comment and the link for the copied rules.
        on_progress: Called with the number of changes that have been made, and the number of all.
    """
    made = 0
    try:
        for step in changes:
            _copy_rule(client, step, rules, notes)
            made += 1
            on_progress(made, len(changes))
    finally:
        if made < len(changes):
            click.echo(f"Made {made} of {len(changes)} changes.", err=True)


def _copy_rule(
    client: "AdminClient", step: PlannedCopy, rules: Mapping[int, "RuleRecord"], notes: Mapping[str, str]
) -> None:
    source = rules[step.rule.rule_id]
    starts_at, ends_at = map(_parse_time, (source.starts_at, source.ends_at))
    if step.existing is None:
        metadata = copied_metadata(source.metadata, {}, notes)
        client.add_rule(
            step.setting, source.value, step.conditions, metadata=metadata, starts_at=starts_at, ends_at=ends_at
        )
        return
    rule_id = step.existing.rule_id
    current = client.rule(rule_id)
    if current is None or not is_equal([current.value, current.period], [step.existing.value, step.existing.period]):
        raise CommandError(f"rule {rule_id} of setting {step.setting} has been changed or removed by somebody else")
    metadata = copied_metadata(source.metadata, current.metadata, notes)
    # Only the first of these changes has the ETag, which each changes.
    etag = current.etag
    if not is_equal(source.value, current.value):
        client.set_rule(rule_id, source.value, etag=etag)
        etag = None
    if source.period != current.period:
        client.set_rule_period(rule_id, starts_at=starts_at, ends_at=ends_at, etag=etag)
    if metadata != dict(current.metadata):
        client.replace_rule_metadata(rule_id, metadata)


def _parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
