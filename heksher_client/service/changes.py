"""The change log. Each change gets the next revision, and replaces the tags of the settings that it affects."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, Text, bindparam, cast, func, insert, or_, select, update

from heksher_client.service import clock
from heksher_client.service.change_filter import ALL_CHANGES, SCHEDULED_ACTIONS, ChangeFilter, change_criteria
from heksher_client.service.schema import CHANGES, SETTINGS, STATE

CHANNEL: Final = "heksher"
"""The channel of PostgreSQL's notifications, by which the instances learn of changes."""
TOKEN_ACTIONS: Final = ("token added", "token revoked")
ACTIONS: Final = (
    "rule added", "rule changed", "rule deleted", *SCHEDULED_ACTIONS, "setting declared", "setting changed",
    "setting deleted", "aliases changed", "context feature added", "context feature moved", "context feature deleted",
    *TOKEN_ACTIONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change log."""

    revision: int
    at: datetime
    actor: str | None
    """The name of the token that made the change; None without access control."""
    action: str
    settings: Sequence[str]
    """The affected settings, with the names that they had before and after the change."""
    former: Any
    """The state before the change, in JSON values."""
    new: Any
    """The state after the change, in JSON values."""
    group: int | None = None
    """The first revision of the changes that were made together with this one; None if it was made alone."""


def record_change(
    connection: Connection,
    action: str,
    *,
    former: Any = None,
    new: Any = None,
    setting_id: int | None = None,
    settings: Sequence[str] = (),
    affects_features: bool = False,
) -> None:
    """Add a change of the current transaction to the change log.

    Args:
        connection: The connection of the transaction.
        action: A short description of the change.
        former: The state before the change, in JSON values.
        new: The state after the change.
        setting_id: The id of the affected setting, which gets a new tag.
        settings: The names of the affected settings.
        affects_features: Whether the context features or their order change, which affects all query results.
    """
    batch: _Batch | None = connection.info.get(_BATCH)
    row = {
        "at": clock.now() if batch is None else batch.at,
        "actor": actor(connection),
        "action": action,
        "settings": list(settings),
        "former": former,
        "new": new,
    }
    record = _Record(row, setting_id, affects_features)
    if batch is None:
        _write(connection, [record])
    else:
        batch.records.append(record)


class _Record(NamedTuple):
    """A change that is to be added to the change log."""

    row: dict[str, Any]
    """The columns other than the revision."""
    setting_id: int | None
    affects_features: bool


class _Batch(NamedTuple):
    """Changes that are recorded together."""

    at: datetime
    """The time of all of them."""
    records: list[_Record]


_BATCH: Final = "heksher.changes"
"""The key of the changes of a batch in the `info` of a connection."""


@contextmanager
def record_together(connection: Connection) -> Iterator[None]:
    """Add all changes of a block to the change log at its end, which takes a fraction of the time for thousands.

    Until then, the block sees the former revision and the former tags. The changes have the same time, and revisions
    without a gap. If there are several, they are a group.
    """
    batch = _Batch(clock.now(), [])
    connection.info[_BATCH] = batch
    try:
        yield
    finally:
        del connection.info[_BATCH]
    _write(connection, batch.records)


def _write(connection: Connection, records: Sequence[_Record]) -> None:
    if not records:
        return
    state = update(STATE).values(revision=STATE.c.revision + len(records)).returning(STATE.c.revision)
    if any(record.affects_features for record in records):
        state = state.values(context_features_tag=new_tag())
    last: int = connection.execute(state).scalar_one()
    first = last - len(records) + 1
    group = first if len(records) > 1 else None
    rows = [{"revision": revision, "group_id": group, **record.row} for revision, record in enumerate(records, first)]
    connection.execute(insert(CHANGES), rows)
    tags = [
        {"changed": setting_id, "new_tag": new_tag()} for setting_id in {each.setting_id for each in records} - {None}
    ]
    if tags:
        has_id = SETTINGS.c.id == bindparam("changed")
        connection.execute(update(SETTINGS).where(has_id).values(tag=bindparam("new_tag")), tags)
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, str(last))))


def actor(connection: Connection) -> str | None:
    """Return the author of the changes in a transaction: the name of a token; None without access control."""
    name: str | None = connection.get_execution_options().get("actor")
    return name


def changes(
    connection: Connection,
    *,
    after: int,
    before: int | None = None,
    selected: ChangeFilter = ALL_CHANGES,
    limit: int = 100,
) -> list[Change]:
    """Return the changes after a revision, the oldest first.

    Args:
        connection: The connection of the transaction.
        after: The revision.
        before: Return only changes before this revision.
        selected: Return only these changes.
        limit: The maximum number of changes.
    """
    query = select(CHANGES).order_by(CHANGES.c.revision)
    return _filtered(connection, query, selected, after=after, before=before, limit=limit)


def latest_changes(
    connection: Connection,
    selected: ChangeFilter = ALL_CHANGES,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int = 100,
) -> list[Change]:
    """Return the last changes that a filter selects, of those after and before revisions, the latest first."""
    query = select(CHANGES).order_by(CHANGES.c.revision.desc())
    return _filtered(connection, query, selected, after=after, before=before, limit=limit)


def _filtered(
    connection: Connection, query: Select[Any], selected: ChangeFilter, *, after: int, before: int | None, limit: int
) -> list[Change]:
    query = query.where(CHANGES.c.revision > after, *change_criteria(connection, selected))
    if before is not None:
        query = query.where(CHANGES.c.revision < before)
    return _read(connection, query.limit(limit))


def recent_actors(connection: Connection, limit: int) -> list[str]:
    """Return the names of the tokens that have made the last changes, as many as the limit."""
    recent = select(CHANGES.c.actor).order_by(CHANGES.c.revision.desc()).limit(limit).subquery()
    return sorted(actor for actor in connection.scalars(select(recent.c.actor).distinct()) if actor is not None)


def rule_changes(connection: Connection, rule_id: int, *, limit: int = 100) -> list[Change]:
    """Return the last changes of a rule, the latest first."""
    # The states of a rule are stored as JSON that begins with its id.
    beginning = json.dumps({"rule_id": rule_id}).removesuffix("}") + ","
    states = [cast(CHANGES.c.former, Text), cast(CHANGES.c.new, Text)]
    is_its = or_(*(func.substr(state, 1, len(beginning)) == beginning for state in states))
    return _read(connection, select(CHANGES).where(is_its).order_by(CHANGES.c.revision.desc()).limit(limit))


def _read(connection: Connection, query: Select[Any]) -> list[Change]:
    return [
        Change(row.revision, row.at, row.actor, row.action, row.settings, row.former, row.new, row.group_id)
        for row in connection.execute(query)
    ]


def new_tag() -> str:
    """Return a random tag, which has not been used before."""
    return token_hex(8)
