"""Changes of rules that operators ask for: the state that they are planned for, their effects, and how they are made.

All changes of a plan are made in the caller's transaction, each with its own entry in the change log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from heksher_client.service import clock, store
from heksher_client.service.changes import record_together
from heksher_client.service.console.protection import is_protected
from heksher_client.service.console.why import values_in
from heksher_client.service.history import read_state
from heksher_client.service.json_values import is_identical
from heksher_client.service.rule_period import Period
from heksher_client.service.schema import SETTINGS
from heksher_client.service.store import StoredRule, StoredSetting


class RuleChange(NamedTuple):
    """A change of one rule, which is added, changed or deleted."""

    former: StoredRule | None
    """None for a new rule."""
    new: StoredRule | None
    """None if the rule is deleted. The id of a new rule is 0, unless the rule is restored."""

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
class SettingChanges:
    """Changes of the rules of one setting."""

    setting: StoredSetting
    changes: Sequence[RuleChange]

    @property
    def effective(self) -> "SettingChanges":
        """The changes after which a rule differs."""
        return SettingChanges(self.setting, [change for change in self.changes if change.is_effective])

    @property
    def is_protected(self) -> bool:
        """True if a changed rule is protected, or affects a protected context."""
        return any(is_protected(self.setting, rule) for change in self.changes for rule in change.states)


@dataclass(frozen=True, slots=True)
class Effect:
    """The value before and after a change, in the context of exactly the conditions of a rule."""

    setting: StoredSetting
    rule: StoredRule
    """Its last state with these conditions. It has no conditions for the contexts that no rule matches."""
    former: StoredRule | None
    """The rule with these conditions before the change."""
    before: Any
    after: Any
    is_protected: bool

    @property
    def is_change(self) -> bool:
        """True if the value differs afterwards."""
        return not is_identical(self.before, self.after)


def rule_from_json(setting: StoredSetting, state: Mapping[str, Any]) -> StoredRule:
    """Return the rule of a setting that an entry of the change log contains."""
    conditions, period = tuple(sorted(state["feature_values"].items())), Period.from_json(state)
    in_effect = period.contains(clock.now())
    return StoredRule(state["rule_id"], setting.id, conditions, state["value"], state["metadata"], period, in_effect)


def state_of(connection: Connection, settings: Iterable[StoredSetting]) -> str:
    """Return a text that identifies the state of settings, their rules, and the order of the context features."""
    tags = dict(map(tuple, connection.execute(select(SETTINGS.c.id, SETTINGS.c.tag))))
    text = ".".join([read_state(connection).context_features_tag, *(tags[setting.id] for setting in settings)])
    return sha256(text.encode()).hexdigest()


def effects(connection: Connection, parts: Iterable[SettingChanges]) -> list[Effect]:
    """Return what changes of rules do to values, in the order of the changes.

    Temporary rules that change are considered as they are while they apply, unless that is over.
    """
    now = clock.now()
    return [effect for part in parts if part.changes for effect in _effects(connection, part, now)]


def _effects(connection: Connection, part: SettingChanges, now: datetime) -> list[Effect]:
    setting, changes = part.setting, part.changes
    changed = {change.former.id for change in changes if change.former is not None}
    others = [rule for rule in store.rules(connection, [setting.id], only_in_effect=True) if rule.id not in changed]
    states = [rule for change in changes for rule in change.states]
    affected = {tuple(rule.conditions): rule for rule in states}
    former = {tuple(change.former.conditions): change.former for change in changes if change.former is not None}
    protected = {tuple(rule.conditions) for rule in states if is_protected(setting, rule)}
    before, after = (
        values_in(
            [*others, *(rule for rule in rules if rule is not None and not _is_over(rule, now))],
            setting.declaration.configurable_features,
            setting.declaration.default_value,
            [dict(conditions) for conditions in affected],
        )
        for rules in zip(*changes, strict=True)
    )
    return [
        Effect(setting, rule, former.get(conditions), value, new, is_protected=conditions in protected)
        for (conditions, rule), value, new in zip(affected.items(), before, after, strict=True)
    ]


def _is_over(rule: StoredRule, now: datetime) -> bool:
    return rule.period.ends_at is not None and rule.period.ends_at <= now


def make_changes(connection: Connection, parts: Iterable[SettingChanges], note: Mapping[str, str]) -> None:
    """Make changes of rules.

    Args:
        connection: The connection of the transaction.
        parts: The changes.
        note: The comment and the link of deletions. Other changes have them in the metadata of the rule.
    """
    with record_together(connection):
        for part in parts:
            for change in part.changes:
                _make_change(connection, part.setting, change, note)


def _make_change(connection: Connection, setting: StoredSetting, change: RuleChange, note: Mapping[str, str]) -> None:
    former, new = change
    if former is None and new is not None:
        # A restored rule has its former id, which is free. So its former changes are its own, and can be undone too.
        conditions, rule_id = dict(new.conditions), new.id or None
        store.add_rule(connection, setting, conditions, new.value, new.metadata, period=new.period, rule_id=rule_id)
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
