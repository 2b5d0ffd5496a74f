"""The command `heksher-client changes`: the change log of a service."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client._logging import shortened
from heksher_client.cli.arguments import Time, parse_pairs
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import format_conditions, json_option, local_time, print_json, print_table
from heksher_client.cli.settings import require_declaration

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient, ChangeCriteria, ChangeRecord

_PAGE: Final = 100
"""Changes that are read at once."""
_MAX_LENGTH: Final = 60
"""Characters of a value in the table."""
_MAX_REVISION: Final = 2**63 - 1


def _parse_feature(context: click.Context, parameter: click.Parameter, text: str | None) -> "ChangeCriteria":  # noqa: ARG001
    """Return the criteria for a context feature, or for a condition. A callback."""
    if text is None:
        return {}
    if "=" in text:
        return {"conditions": parse_pairs([text])}
    if not re.fullmatch(CONTEXT_NAME, text):
        raise click.BadParameter(f"{text!r} must have the form FEATURE or FEATURE=VALUE, for example environment=prod")
    return {"feature": text}


@click.command(short_help="Show the change log.")
@click.argument("name", required=False, shell_complete=complete_setting)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most changes to show.")
@click.option("--after", type=click.IntRange(0, _MAX_REVISION), help="Only changes after this revision.")
@click.option(
    "--sort",
    type=click.Choice(["newest", "oldest"]),
    help="newest: show the latest changes, the latest first. oldest: show the first ones, the oldest first. "
    "Default: the latest ones, the latest last; with --after, oldest.",
)
@click.option(
    "--setting", "setting_part", metavar="TEXT", help="Only settings with this text in a name, present or former."
)
@click.option(
    "--actor",
    "actor_part",
    metavar="TEXT",
    help="Only tokens with this text in their names; schedule for the periods of rules.",
)
@click.option("--action", metavar="TEXT", help="Only actions that contain this text, such as 'rule added' or rule.")
@click.option(
    "--feature",
    metavar="FEATURE[=VALUE]",
    callback=_parse_feature,
    help="Only rules with a condition on this context feature, or with this condition, such as environment=prod.",
)
@click.option(
    "--value", metavar="TEXT", help="Only rules and default values with this text in the value, before or after."
)
@click.option(
    "--since",
    type=Time(is_past=True),
    metavar="TIME",
    help="Only changes since this time: 2026-01-31T09:30, or a duration before now, such as 2h or 3d.",
)
@click.option(
    "--until", type=Time(is_past=True), metavar="TIME", help="Only changes until this time, in the same form."
)
@service_options
@json_option
def changes(
    name: str | None,
    limit: int,
    after: int | None,
    sort: str | None,
    action: str | None,
    profile: str | None,
    url: str | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Show the change log of a service, the latest change last.

    With NAME, only changes of this setting, also under its former names. Texts are found in any case. With --json, each
    change is one line of JSON.
    """
    criteria: Any = {"setting": name, **options.pop("feature"), **options}
    with connect(profile, url) as client:
        if sort == "oldest" or (sort is None and after is not None):
            read = _read(client, after or 0, criteria)
        else:
            read = takewhile(lambda change: change.revision > (after or 0), _read_latest(client, criteria))
        found = list(islice((change for change in read if (action or "").lower() in change.action), limit))
        if sort is None and after is None:
            found.reverse()
        if name is not None and not (found or client.latest_changes(setting=name, limit=1)):
            require_declaration(client, name)  # It is mistyped.
    if as_json:
        for change in found:
            print_json(asdict(change))
        return
    rows = [
        (change.revision, local_time(change.at, "%Y-%m-%d %H:%M:%S"), change.actor or "-", change.action,
         ", ".join(change.settings), _describe(change.former, change.new))
        for change in found
    ]  # fmt: skip
    print_table(("revision", "time", "actor", "action", "setting", "change"), rows, "No changes.")


def _read(client: "AdminClient", after: int, criteria: "ChangeCriteria") -> Iterator["ChangeRecord"]:
    """Yield the changes after a revision that the service selects, page by page, the oldest first."""
    while page := client.changes(after=after, limit=_PAGE, **criteria):
        yield from page
        after = page[-1].revision


def _read_latest(client: "AdminClient", criteria: "ChangeCriteria") -> Iterator["ChangeRecord"]:
    """Yield the changes that the service selects, page by page, the latest first."""
    before = None
    while page := client.latest_changes(before=before, limit=_PAGE, **criteria):
        yield from page
        before = page[-1].revision


def _describe(former: Any, new: Any) -> str:
    """Return what a change has changed, for people."""
    if former is None and new is None:  # Only admins see the tokens that were added or revoked.
        return ""
    if not isinstance(former or new, dict):
        return _change_text(former, new)
    before, after = former or {}, new or {}
    conditions = after.get("feature_values") or before.get("feature_values")
    if not (former and new) and "role" in (former or new):
        return f"{_shown((former or new)['name'])}: {_shown((former or new)['role'])}"
    if conditions is None:
        return _describe_attributes(before, after)
    if not (former and new):
        text = _shown((former or new)["value"])
    elif before["value"] == after["value"]:
        text = _describe_attributes(before, after) or _shown(after["value"])
    else:
        text = _change_text(before["value"], after["value"])
    # The comment of a deletion is not metadata of the rule.
    comment = before.get("comment") if new is None else _comment(after)
    if former and new and comment == _comment(before):
        comment = None
    return f"{format_conditions(conditions)}: {text}" + ("" if comment is None else f" ({_shown(comment)})")


def _comment(rule: dict[str, Any]) -> Any:
    return rule.get("metadata", {}).get("comment")


def _describe_attributes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the attributes that differ, unless the object is new or was deleted."""
    if not (before and after):
        return ""
    names = [name for name in after | before if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {_change_text(before.get(name), after.get(name))}" for name in names)


def _change_text(former: Any, new: Any) -> str:
    return f"{_shown(former)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return shortened(format_value(value), _MAX_LENGTH)
