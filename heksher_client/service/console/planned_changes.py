"""Changes of rules that operators ask for: the state that they are planned for, their effects, and how they are made.

All changes of a plan are made in the caller's transaction, each with its own entry in the change log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from heksher_client.service import clock, store
from heksher_client.service.changes import record_together
from heksher_client.service.console.why import values_in
from heksher_client.service.history import read_state
from heksher_client.service.json_values import is_identical
from heksher_client.service.schema import SETTINGS
from heksher_client.service.store import StoredRule, StoredSetting


class RuleChange(NamedTuple):
    """A change of one rule, which is added, changed or deleted."""

    former: StoredRule | None
    """None for a new rule."""
    new: StoredRule | None
    """None if the rule is deleted."""

    @property
    def states(self) -> list[StoredRule]:
        """The states of the rule before and after the change."""
        return [rule for rule in self if rule is not None]

    @property
    def action(self) -> str:
        """`add`, `change` or `delete`."""
        if self.former is None:
            return "add"
        return "delete" if self.new is None else "change"

    @property
    def is_effective(self) -> bool:
        """True if the rule differs afterwards."""
        former, new = (None if rule is None else store.rule_as_json(rule) for rule in self)
        return not is_identical(former, new)


@dataclass(frozen=True, slots=True)
class Effect:
    """The value before and after a change, in the context of exactly the conditions of a rule."""

    rule: StoredRule
    before: Any
    after: Any

    @property
    def is_change(self) -> bool:
        """True if the value differs afterwards."""
        return not is_identical(self.before, self.after)


def state_of(connection: Connection, setting: StoredSetting) -> str:
    """Return a text that identifies the state of a setting, its rules, and the order of the context features."""
    tag = connection.scalar(select(SETTINGS.c.tag).where(SETTINGS.c.id == setting.id))
    return f"{tag}.{read_state(connection).context_features_tag}"


def effects(connection: Connection, setting: StoredSetting, changes: Sequence[RuleChange]) -> list[Effect]:
    """Return what changes of rules do to values, in the order of the changes.

    Temporary rules that change are considered as they are while they apply, unless that is over.
    """
    now = clock.now()
    changed = {change.former.id for change in changes if change.former is not None}
    others = [rule for rule in store.rules(connection, [setting.id], only_in_effect=True) if rule.id not in changed]
    affected = {tuple(rule.conditions): rule for change in changes for rule in change.states}
    before, after = (
        values_in(
            [*others, *(rule for rule in rules if rule is not None and not _is_over(rule, now))],
            setting.declaration.configurable_features,
            setting.declaration.default_value,
            [dict(conditions) for conditions in affected],
        )
        for rules in zip(*changes, strict=True)
    )
    return [Effect(*each) for each in zip(affected.values(), before, after, strict=True)]


def _is_over(rule: StoredRule, now: datetime) -> bool:
    return rule.period.ends_at is not None and rule.period.ends_at <= now


def make_changes(
    connection: Connection, setting: StoredSetting, changes: Sequence[RuleChange], note: Mapping[str, str]
) -> None:
    """Make changes of rules.

    Args:
        connection: The connection of the transaction.
        setting: The setting of the rules.
        changes: The changes.
        note: The comment and the link of deletions. Other changes have them in the metadata of the rule.
    """
    with record_together(connection):
        for change in changes:
            _make_change(connection, setting, change, note)


def _make_change(connection: Connection, setting: StoredSetting, change: RuleChange, note: Mapping[str, str]) -> None:
    former, new = change
    if former is None and new is not None:
        store.add_rule(connection, setting, dict(new.conditions), new.value, new.metadata, period=new.period)
    elif former is not None and new is None:
        store.delete_rule(connection, setting, former, note=note)
    elif former is not None and new is not None:  # pragma: no branch - a change has one state at least
        store.change_rule(connection, setting, former, **_changed_attributes(former, new))


def _changed_attributes(former: StoredRule, new: StoredRule) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if dict(former.conditions) != dict(new.conditions):
        changed["conditions"] = new.conditions
    if former.period != new.period:
        changed["period"] = new.period
    if not is_identical(former.value, new.value):
        changed["value"] = new.value
    if not is_identical(dict(former.metadata), dict(new.metadata)):
        changed["metadata"] = dict(new.metadata)
    return changed
