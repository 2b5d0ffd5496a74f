"""Undo of a change of a rule. It is refused if the rule has been changed since."""

from typing import Any

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.changes import Change
from heksher_client.service.json_values import is_identical
from heksher_client.service.operations import require_setting
from heksher_client.service.routing import RequestError
from heksher_client.service.rule_period import Period
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
    if former is None and rule is not None:
        store.delete_rule(connection, setting, rule)
        return setting
    _check_former(connection, setting, former)
    conditions, value, metadata = former["feature_values"], former["value"], former["metadata"]
    period = Period.from_json(former)
    if rule is None:
        # With its former id, which is free, so that its former changes are still its own, and can be undone as well.
        store.add_rule(connection, setting, conditions, value, metadata, period=period, rule_id=former["rule_id"])
    else:
        attributes = {"conditions": sorted(conditions.items()), "value": value, "metadata": metadata, "period": period}
        store.change_rule(connection, setting, rule, **attributes)
    return setting


def _check_former(connection: Connection, setting: StoredSetting, former: Any) -> None:
    """Check that a setting can have a former rule again.

    Raises:
        RequestError: The setting has changed, or has another rule with the same conditions.
    """
    if not setting.declaration.type.accepts(former["value"]):
        raise RequestError(409, "cannot undo: the setting now has another type")
    conditions = former["feature_values"]
    if not set(conditions) <= set(setting.declaration.configurable_features):
        raise RequestError(409, "cannot undo: the setting now has other configurable features")
    if store.find_rule(connection, setting.id, conditions) not in (None, former["rule_id"]):
        raise RequestError(409, "cannot undo: another rule now has the same conditions")
