"""Undo of a change of a rule. It is refused if the rule has been changed since."""

from typing import Any

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change
from heksher_client.service.json_values import is_identical
from heksher_client.service.operations import require_setting
from heksher_client.service.routing import RequestError
from heksher_client.service.store import StoredSetting

UNDOABLE = frozenset(["rule added", "rule changed", "rule deleted"])


def undo(connection: Connection, change: Change) -> StoredSetting:
    """Undo a change, and return the setting of the rule.

    Raises:
        RequestError: The change can no longer be undone.
    """
    if change.action not in UNDOABLE:
        raise RequestError(409, "only changes of rules can be undone")
    name = change.settings[0]
    setting = require_setting(connection, name, message=f"cannot undo: the setting {name} no longer exists", status=409)
    rule = store.rule(connection, (change.new or change.former)["rule_id"])
    if not is_identical(None if rule is None else store.rule_as_json(rule), change.new):
        raise RequestError(409, "cannot undo: the rule has been changed since")
    former = change.former
    if rule is None:
        _add_again(connection, setting, former)
    elif former is None:
        store.delete_rule(connection, setting, rule)
    else:
        _check_type(setting, former)
        store.change_rule(connection, setting, rule, value=former["value"], metadata=former["metadata"])
    return setting


def _add_again(connection: Connection, setting: StoredSetting, former: Any) -> None:
    conditions = former["feature_values"]
    _check_type(setting, former)
    if not set(conditions) <= set(setting.declaration.configurable_features):
        raise RequestError(409, "cannot undo: the setting now has other configurable features")
    if store.find_rule(connection, setting.id, conditions) is not None:
        raise RequestError(409, "cannot undo: another rule now has the same conditions")
    store.add_rule(connection, setting, conditions, former["value"], former["metadata"])


def _check_type(setting: StoredSetting, former: Any) -> None:
    if not setting.declaration.type.accepts(former["value"]):
        raise RequestError(409, "cannot undo: the setting now has another type")
