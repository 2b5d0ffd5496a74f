"""The command `heksher-client changes`: the change log of a service."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import shortened
from heksher_client.cli.arguments import Time
from heksher_client.cli.completion import complete_setting
from heksher_client.cli.connection import connect, service_options
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import format_conditions, json_option, local_time, print_json, print_table
from heksher_client.cli.settings import require_declaration

if TYPE_CHECKING:
    from heksher_client.admin import AdminClient, ChangeRecord

_PAGE: Final = 100
"""Changes that are read at once."""
_MAX_LENGTH: Final = 60
"""Characters of a value in the table."""
_SCHEDULE: Final = "schedule"
"""The author of changes that the service makes when the period of a rule begins or ends, for `--actor`."""
_SCHEDULED_ACTIONS: Final = ("rule started", "rule ended")
_MAX_REVISION: Final = 2**63 - 1


@click.command(short_help="Show the change log.")
@click.argument("name", required=False, shell_complete=complete_setting)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most changes to show.")
@click.option(
    "--after",
    type=click.IntRange(0, _MAX_REVISION),
    help="Show the first changes after this revision, instead of the latest changes.",
)
@click.option(
    "--actor", metavar="NAME", help="Only changes made with the token of this name; schedule for the periods of rules."
)
@click.option("--action", metavar="TEXT", help="Only actions that contain this text, such as 'rule added' or rule.")
@click.option(
    "--since",
    type=Time(is_past=True),
    metavar="TIME",
    help="Only changes since this time: 2026-01-31T09:30, or a duration before now, such as 2h or 3d.",
)
@service_options
@json_option
def changes(
    name: str | None,
    limit: int,
    after: int | None,
    actor: str | None,
    action: str | None,
    since: datetime | None,
    profile: str | None,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Show the change log of a service, the latest change last.

    With NAME, only changes of this setting, also under its former names. With --json, each change is one line of JSON.
    """
    with connect(profile, url) as client:
        if after is None:
            latest = _read_latest(client, name, actor, since)
            found = list(islice((change for change in latest if (action or "") in change.action), limit))[::-1]
        else:
            is_wanted = _Filter(actor, action, since)
            found = list(islice(filter(is_wanted.accepts, _read(client, name, after)), limit))
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


class _Filter:
    """The changes after a revision that are shown. Of the latest changes, the service selects these itself."""

    def __init__(self, actor: str | None, action: str | None, since: datetime | None) -> None:
        self._actor, self._action, self._since = actor, action, since

    def accepts(self, change: "ChangeRecord") -> bool:
        if self._actor == _SCHEDULE:
            if change.actor is not None or change.action not in _SCHEDULED_ACTIONS:
                return False
        elif self._actor is not None and change.actor != self._actor:
            return False
        if self._action is not None and self._action not in change.action:
            return False
        return self._since is None or datetime.fromisoformat(change.at) >= self._since


def _read(client: "AdminClient", name: str | None, after: int) -> Iterator["ChangeRecord"]:
    """Yield all changes after a revision, page by page, the oldest first."""
    while page := client.changes(after=after, setting=name, limit=_PAGE):
        yield from page
        after = page[-1].revision


def _read_latest(
    client: "AdminClient", name: str | None, actor: str | None, since: datetime | None
) -> Iterator["ChangeRecord"]:
    """Yield the changes that the service selects, page by page, the latest first."""
    before = None
    while page := client.latest_changes(setting=name, actor=actor, since=since, before=before, limit=_PAGE):
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
