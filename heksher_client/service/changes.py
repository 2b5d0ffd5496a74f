"""The log of all changes. Each raises the revision, and gives new tags to the settings that it touches."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, Select, Text, cast, func, insert, select, update

from heksher_client.service.database import CHANNEL
from heksher_client.service.schema import CHANGES, SETTINGS, STATE


@dataclass(frozen=True, slots=True)
class Change:
    """One change, of one revision."""

    revision: int
    at: datetime
    actor: str | None
    """Who made it, where that is known."""
    action: str
    settings: Sequence[str]
    """The names of the settings that it touched, those that they had before and those that they have now."""
    former: Any
    new: Any


def note(
    connection: Connection,
    action: str,
    *,
    former: Any = None,
    new: Any = None,
    setting_id: int | None = None,
    settings: Sequence[str] = (),
    is_of_features: bool = False,
) -> None:
    """Note a change that the transaction makes.

    Args:
        connection: Of the transaction.
        action: What was done.
        former: What was there before, in JSON values.
        new: What is there now.
        setting_id: The key of the setting whose answers are others now.
        settings: Its names.
        is_of_features: Whether the order of the context features is another now, and with it all answers.
    """
    state = update(STATE).values(revision=STATE.c.revision + 1).returning(STATE.c.revision)
    if is_of_features:
        state = state.values(context_features_tag=new_tag())
    revision = connection.scalar(state)
    row = {
        "revision": revision,
        "at": datetime.now(UTC),
        "actor": connection.get_execution_options().get("actor"),
        "action": action,
        "settings": list(settings),
        "former": former,
        "new": new,
    }
    connection.execute(insert(CHANGES).values(**row))
    if setting_id is not None:
        connection.execute(update(SETTINGS).where(SETTINGS.c.id == setting_id).values(tag=new_tag()))
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, str(revision))))


def changes(connection: Connection, *, after: int, setting: str | None = None, most: int = 100) -> list[Change]:
    """The changes after a revision, in their order.

    Args:
        connection: Of the transaction.
        after: The revision.
        setting: Only those that touched the setting of that name.
        most: How many to give.
    """
    query = select(CHANGES).where(CHANGES.c.revision > after).order_by(CHANGES.c.revision)
    return _found(connection, query, setting, most)


def latest_changes(
    connection: Connection, *, before: int | None = None, setting: str | None = None, most: int = 100
) -> list[Change]:
    """The changes before a revision, or the last ones: the latest first. Otherwise like `changes`."""
    query = select(CHANGES).order_by(CHANGES.c.revision.desc())
    if before is not None:
        query = query.where(CHANGES.c.revision < before)
    return _found(connection, query, setting, most)


def _found(connection: Connection, query: Select[Any], setting: str | None, most: int) -> list[Change]:
    if setting is not None:  # a list of names in JSON
        query = query.where(cast(CHANGES.c.settings, Text).contains(f'"{setting}"', autoescape=True))
    rows = connection.execute(query.limit(most))
    return [Change(row.revision, row.at, row.actor, row.action, row.settings, row.former, row.new) for row in rows]


def new_tag() -> str:
    """A tag that nothing has had before."""
    return token_hex(8)
