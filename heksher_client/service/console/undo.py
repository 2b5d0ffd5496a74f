"""Undoing a change of a rule, if nothing has happened to that rule since."""

from typing import Any

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change
from heksher_client.service.json_values import is_identical
from heksher_client.service.operations import require_setting
from heksher_client.service.routing import RefusalError
from heksher_client.service.store import StoredSetting

UNDOABLE = frozenset(["rule added", "rule changed", "rule deleted"])


def undo(connection: Connection, change: Change) -> StoredSetting:
    """Undo a change; gives the setting that it was of.

    Raises:
        RefusalError: It cannot be undone any more.
    """
    if change.action not in UNDOABLE:
        raise RefusalError(409, "only changes of rules can be undone")
    name = change.settings[0]
    setting = require_setting(connection, name, message=f"the setting {name} is not there any more", status=409)
    held = store.rule(connection, (change.new or change.former)["rule_id"])
    if not is_identical(None if held is None else store.noted(held), change.new):
        raise RefusalError(409, "it cannot be undone: the rule has been changed since")
    former = change.former
    if held is None:
        _add_again(connection, setting, former)
    elif former is None:
        store.delete_rule(connection, setting, held)
    else:
        _check(setting, former)
        store.change_rule(connection, setting, held, value=former["value"], metadata=former["metadata"])
    return setting


def _add_again(connection: Connection, setting: StoredSetting, former: Any) -> None:
    conditions = former["feature_values"]
    _check(setting, former)
    if not set(conditions) <= set(setting.declaration.configurable_features):
        raise RefusalError(409, "it cannot be undone: the setting has other context features now")
    if store.find_rule(connection, setting.id, conditions) is not None:
        raise RefusalError(409, "it cannot be undone: there is another rule with the same conditions now")
    store.add_rule(connection, setting, conditions, former["value"], former["metadata"])


def _check(setting: StoredSetting, former: Any) -> None:
    if not setting.declaration.type.accepts(former["value"]):
        raise RefusalError(409, "it cannot be undone: the setting has another type now")
