"""Transitions: periods of temporary rules begin and end, which changes query results.

Each transition is a change with its own revision, and is made once, by the first instance of the service that notices
it. The time of the next one is in the state of the database, so requests notice it without an additional read.
"""

from datetime import datetime

from sqlalchemy import Connection, func, or_, select, update

from heksher_client.service import clock, store
from heksher_client.service.changes import SCHEDULED_ACTIONS, record_change
from heksher_client.service.history import State
from heksher_client.service.schema import RULES, STATE
from heksher_client.service.store import StoredRule

_STARTED, _ENDED = SCHEDULED_ACTIONS


def apply_transitions(connection: Connection, state: State) -> None:
    """Apply the transitions that are due. A rule whose whole period has passed since the last one changes nothing.

    Args:
        connection: The connection of the transaction, which writes.
        state: The state of the database, which is overdue.
    """
    since, now = state.next_transition, clock.now()
    # Only transitions since then: the clock of the instance that applied former ones may have been ahead of this one.
    passed = or_(RULES.c.starts_at.between(since, now), RULES.c.ends_at.between(since, now))
    changed = [
        rule
        for rule in map(store.rule_from_row, connection.execute(select(RULES).where(passed)))
        if rule.in_effect != rule.period.contains(now)
    ]
    settings = {setting.id: setting for setting in store.settings(connection, {rule.setting_id for rule in changed})}
    for rule in sorted(changed, key=lambda rule: (_last_transition(rule, now), rule.id)):
        _apply(connection, rule, settings[rule.setting_id].declaration.name)
    limits = [
        connection.scalar(select(func.min(column)).where(column > now))
        for column in (RULES.c.starts_at, RULES.c.ends_at)
    ]
    following = min((limit for limit in limits if limit is not None), default=None)
    connection.execute(update(STATE).values(next_transition=following))


def _last_transition(rule: StoredRule, until: datetime) -> datetime:
    """Return the last time at which the period of a rule began or ended, if it did."""
    return max(at for at in rule.period if at is not None and at <= until)


def _apply(connection: Connection, rule: StoredRule, setting: str) -> None:
    in_effect = not rule.in_effect
    connection.execute(update(RULES).where(RULES.c.id == rule.id).values(in_effect=in_effect))
    content, action = store.rule_as_json(rule), _STARTED if in_effect else _ENDED
    record_change(connection, action, former=content, new=content, setting_id=rule.setting_id, settings=[setting])
