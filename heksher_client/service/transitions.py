"""Transitions: periods of temporary rules begin and end, which changes query results.

Each transition is a change with its own revision, and is made once, by the first instance of the service that notices
it. The time of the next one is in the state of the database, so requests notice it without an additional read.
"""

from datetime import datetime

from sqlalchemy import Connection, func, or_, select, update

from heksher_client.service import clock, store
from heksher_client.service.change_filter import SCHEDULED_ACTIONS
from heksher_client.service.changes import record_change, record_together
from heksher_client.service.history import State
from heksher_client.service.schema import RULES, SETTINGS, STATE
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
    names: dict[int, str] = {}
    changed: list[StoredRule] = []
    for row in connection.execute(select(RULES, SETTINGS.c.name).join_from(RULES, SETTINGS).where(passed)):
        rule = store.rule_from_row(row)
        if rule.in_effect != rule.period.contains(now):
            changed.append(rule)
            names[rule.setting_id] = row.name
    changed.sort(key=lambda rule: (_last_transition(rule, now), rule.id))
    # All together: thousands of rules may begin or end at the same time, and all requests wait for them.
    for in_effect in (True, False):
        store.set_in_effect(
            connection, [rule.id for rule in changed if rule.in_effect != in_effect], in_effect=in_effect
        )
    with record_together(connection):
        for rule in changed:
            _record(connection, rule, names[rule.setting_id])
    limits = [
        connection.scalar(select(func.min(column)).where(column > now))
        for column in (RULES.c.starts_at, RULES.c.ends_at)
    ]
    following = min((limit for limit in limits if limit is not None), default=None)
    connection.execute(update(STATE).values(next_transition=following))


def _last_transition(rule: StoredRule, until: datetime) -> datetime:
    """Return the last time at which the period of a rule began or ended, if it did."""
    return max(at for at in rule.period if at is not None and at <= until)


def _record(connection: Connection, rule: StoredRule, setting: str) -> None:
    content, action = store.rule_as_json(rule), _ENDED if rule.in_effect else _STARTED
    record_change(connection, action, former=content, new=content, setting_id=rule.setting_id, settings=[setting])
