"""Undo of changes of rules. It is refused if one of the rules has been changed since."""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change
from heksher_client.service.console.planned_changes import RuleChange, SettingChanges, rule_from_json
from heksher_client.service.json_values import is_identical
from heksher_client.service.operations import require_setting
from heksher_client.service.routing import RequestError
from heksher_client.service.store import StoredRule, StoredSetting

UNDOABLE: Final = frozenset(["rule added", "rule changed", "rule deleted"])


class _Undone(NamedTuple):
    """The states of a rule that are exchanged, in JSON values; None if it did not exist."""

    setting: str
    former: Any
    """Before the first undone change."""
    new: Any
    """After the last one."""


def undo(connection: Connection, changes: Sequence[Change]) -> list[SettingChanges]:
    """Return the changes of rules that undo other changes.

    Args:
        connection: The connection of the transaction.
        changes: Entries of the change log, the oldest first.

    Raises:
        RequestError: They can no longer be undone.
    """
    undone: dict[int, _Undone] = {}
    for change in reversed(changes):
        if change.action not in UNDOABLE:
            raise RequestError(409, "only changes of rules can be undone")
        rule_id = (change.new or change.former)["rule_id"]
        new = undone[rule_id].new if rule_id in undone else change.new
        undone[rule_id] = _Undone(change.settings[0], change.former, new)
    rules = store.rules_with_ids(connection, list(undone))
    by_setting: dict[str, tuple[StoredSetting, list[RuleChange]]] = {}
    for rule_id, states in undone.items():
        name, rule = states.setting, rules.get(rule_id)
        if name not in by_setting:
            message = f"cannot undo: the setting {name} no longer exists"
            by_setting[name] = require_setting(connection, name, message=message, status=409), []
        setting, found = by_setting[name]
        if not is_identical(None if rule is None else store.rule_as_json(rule), states.new):
            raise RequestError(409, f"cannot undo: rule {rule_id} has been changed since")
        former = None if states.former is None else _former_rule(connection, setting, states.former, undone)
        found.append(RuleChange(rule, former))
    return [SettingChanges(setting, found) for setting, found in by_setting.values()]


def _former_rule(connection: Connection, setting: StoredSetting, former: Any, undone: Collection[int]) -> StoredRule:
    """Return a former rule, if a setting can have it again.

    Raises:
        RequestError: The setting has changed, or has another rule with the same conditions.
    """
    if not setting.declaration.type.accepts(former["value"]):
        raise RequestError(409, "cannot undo: the setting now has another type")
    conditions = former["feature_values"]
    if not set(conditions) <= set(setting.declaration.configurable_features):
        raise RequestError(409, "cannot undo: the setting now has other configurable features")
    existing = store.find_rule(connection, setting.id, conditions)
    if existing is not None and existing not in undone:
        raise RequestError(409, "cannot undo: another rule now has the same conditions")
    return rule_from_json(setting, former)
