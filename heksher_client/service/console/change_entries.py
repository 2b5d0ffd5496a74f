"""Entries of the change log for people: who has made a change, and what it has changed, attribute by attribute."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, union

from heksher_client.service.change_filter import SCHEDULE, SCHEDULED_ACTIONS
from heksher_client.service.changes import Change
from heksher_client.service.console.undo import UNDOABLE
from heksher_client.service.json_values import is_identical
from heksher_client.service.schema import ALIASES, CHANGES, RULES, SETTINGS

_NOTES: Final = ("comment", "link")
"""Metadata that describe the change, and not the rule."""
_LABELS: Final = {
    "configurable_features": "depends on",
    "default_value": "default value",
    "created_at": "created",
    "ends_at": "end",
    "expires_at": "expires",
    "feature_values": "conditions",
    "starts_at": "start",
}
_TEXTS: Final = ("type", "version", "name", "role")
"""Attributes that are texts and not JSON, in addition to metadata."""
_TIMES: Final = ("starts_at", "ends_at", "created_at", "expires_at")


class Shown(NamedTuple):
    """A value, and how a page shows it."""

    kind: str
    """`json`, `text`, `time` or `conditions`."""
    value: Any


class Difference(NamedTuple):
    """An attribute before and after a change."""

    label: str
    """Empty for the value of a rule."""
    former: Shown | None
    """None if there was none."""
    new: Shown | None
    """None if there is none any more."""


_HIDDEN: Final = Shown("text", "only administrators see the token")


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """A change as the change log shows it."""

    change: Change
    actor: str
    """The name of a token, or `schedule`; empty without access control."""
    conditions: Mapping[str, str]
    """The conditions of the rule that has changed, if it is one."""
    rule_id: int | None
    """The id of this rule."""
    differences: Sequence[Difference]
    comment: Any
    link: Any


class Existing(NamedTuple):
    """The rules and settings of changes that exist, so that links can lead to them, and groups with an undo."""

    rules: Collection[int]
    """The ids of the rules."""
    settings: Collection[str]
    """The names, which may be aliases."""
    undoable_groups: Collection[int]
    """The groups of changes that consist of changes of rules."""


def existing(connection: Connection, changes: Sequence[Change]) -> Existing:
    """Return the rules and settings of changes that exist, and the groups that can be undone."""
    ids = {rule_id for change in changes if (rule_id := _rule_id(change)) is not None}
    names = {name for change in changes for name in change.settings}
    found = union(
        select(SETTINGS.c.name).where(SETTINGS.c.name.in_(names)),
        select(ALIASES.c.alias).where(ALIASES.c.alias.in_(names)),
    )
    rules = connection.scalars(select(RULES.c.id).where(RULES.c.id.in_(ids)))
    return Existing(set(rules), set(connection.scalars(found)), _undoable_groups(connection, changes))


def _undoable_groups(connection: Connection, changes: Sequence[Change]) -> set[int]:
    groups = {change.group for change in changes if change.group is not None}
    has_others = select(CHANGES.c.group_id).where(CHANGES.c.group_id.in_(groups), CHANGES.c.action.not_in(UNDOABLE))
    return groups.difference(connection.scalars(has_others.distinct()))


def _rule_id(change: Change) -> int | None:
    state = change.new or change.former
    return state.get("rule_id") if isinstance(state, dict) else None


def change_entry(change: Change) -> ChangeEntry:
    """Return a change as the change log shows it."""
    former, new = change.former, change.new
    actor = change.actor or (SCHEDULE if change.action in SCHEDULED_ACTIONS else "")
    if former is None and new is None:
        return ChangeEntry(change, actor, {}, None, [Difference("", None, _HIDDEN)], "", "")
    if not isinstance(former or new, dict):
        sides = [None if state is None else _shown("", state) for state in (former, new)]
        return ChangeEntry(change, actor, {}, None, [Difference("", *sides)], "", "")
    state = new or former
    notes = _notes(former, new)
    differences = list(_differences(former or {}, new or {}))
    if not differences and "value" in state:
        differences = [Difference("", None, _shown("value", state["value"]))]
    conditions, comment, link = state.get("feature_values", {}), notes.get("comment", ""), notes.get("link", "")
    return ChangeEntry(change, actor, conditions, _rule_id(change), differences, comment, link)


def _notes(former: Any, new: Any) -> dict[str, Any]:
    """Return the comment and the link of a change of a rule, as far as it has some of its own."""
    if new is None:
        return {name: former[name] for name in _NOTES if name in former}
    before = {} if former is None else former.get("metadata", {})
    after = new.get("metadata", {}) if "rule_id" in new else {}
    return {name: after[name] for name in _NOTES if after.get(name) != before.get(name) and name in after}


def _differences(former: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    state = new or former
    is_rule = "rule_id" in state
    ignored = {"metadata", *_NOTES} if is_rule else {"metadata"}
    if not (former and new):  # The entry shows the rule or the setting that was added or deleted.
        ignored |= {"rule_id", "feature_values"}
        ignored |= {"name"} if "default_value" in state else set()
    yield from _attributes(former, new, ignored)
    before, after = former.get("metadata", {}), new.get("metadata", {})
    for key in dict.fromkeys([*before, *after]):
        states = [[metadata[key]] if key in metadata else [] for metadata in (before, after)]
        if not is_identical(*states) and not (is_rule and key in _NOTES):
            yield Difference(f"metadata {key}", *(Shown("text", *state) if state else None for state in states))


def _attributes(former: Mapping[str, Any], new: Mapping[str, Any], ignored: set[str]) -> Iterator[Difference]:
    for name in dict.fromkeys([*former, *new]):
        states = [[state[name]] if name in state else [] for state in (former, new)]
        if name not in ignored and not is_identical(*states):
            sides = [_shown(name, *state) if state else None for state in states]
            yield Difference("" if name == "value" else _LABELS.get(name, name), *sides)


def _shown(name: str, value: Any) -> Shown:
    if name == "rules":  # of a deleted setting: perhaps thousands
        return Shown("text", f"{len(value):,}")
    if name in _TIMES:
        return Shown("time", datetime.fromisoformat(value))
    if name == "feature_values":
        return Shown("conditions", value)
    if name in _TEXTS and isinstance(value, str):
        return Shown("text", value)
    if isinstance(value, list) and name in ("", "aliases", "configurable_features"):
        return Shown("text", ", ".join(map(str, value)) or "none")
    return Shown("json", value)
