"""Operations on rules that the API and the console share: find the rule or refuse the request, check, and change."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from heksher_client.service import json_values, store
from heksher_client.service.routing import RequestError
from heksher_client.service.rule_period import ALWAYS, Period
from heksher_client.service.store import StoredRule, StoredSetting


def rule_etag(rule: StoredRule) -> str:
    """Return the ETag of a rule. It changes with everything that operators see of the rule."""
    return _etag(store.rule_as_json(rule))


def setting_etag(setting: StoredSetting) -> str:
    """Return the ETag of a setting, which does not depend on its rules or on the order of the context features."""
    content = store.declaration_as_json(setting.declaration)
    return _etag([content | {"configurable_features": sorted(content["configurable_features"])}, *setting.aliases])


def _etag(content: Any) -> str:
    return f'"{sha256(json_values.encode(content)).hexdigest()[:32]}"'


def require_setting(
    connection: Connection, name: str, *, message: str | None = None, status: int = 404
) -> StoredSetting:
    """Return a setting by its name or an alias.

    Raises:
        RequestError: There is no such setting.
    """
    setting = store.setting(connection, name)
    if setting is None:
        raise RequestError(status, f"the setting {name} does not exist" if message is None else message)
    return setting


def require_rule(connection: Connection, rule_id: int, *, message: str = "") -> tuple[StoredRule, StoredSetting]:
    """Return a rule and its setting.

    Raises:
        RequestError: There is no such rule.
    """
    rule = store.rule(connection, rule_id)
    if rule is None:
        raise RequestError(404, message)
    return rule, store.setting_of(connection, rule)


def add_rule(
    connection: Connection,
    name: str,
    conditions: Mapping[str, str],
    value: Any,
    metadata: Mapping[str, Any],
    period: Period = ALWAYS,
) -> int:
    """Add a rule to a setting and return its id.

    Raises:
        RequestError: There is no such setting, it has a rule with these conditions, or the rule does not fit it.
    """
    setting = require_setting(connection, name, message=f"setting not found with name {name}", status=422)
    _check_features(setting, conditions)
    if store.find_rule(connection, setting.id, conditions) is not None:
        raise RequestError(409, "rule already exists")
    _check_value(setting, value)
    return store.add_rule(connection, setting, conditions, value, metadata, period=period)


def change_rule(connection: Connection, setting: StoredSetting, rule: StoredRule, **attributes: Any) -> None:
    """Change attributes of a rule, as `store.change_rule` does. The same conditions are no change.

    Raises:
        RequestError: The value is not of the type of the setting, the setting has another rule with these conditions or
            is not configurable by one of their features, or the period would end before it begins.
    """
    if "conditions" in attributes:
        conditions = dict(attributes["conditions"])
        _check_features(setting, conditions)
        existing = store.find_rule(connection, setting.id, conditions)
        if existing not in (None, rule.id):
            raise RequestError(409, f"rule {existing} has these conditions already")
        attributes["conditions"] = sorted(conditions.items())
        if existing is not None:
            del attributes["conditions"]
    if "value" in attributes:
        _check_value(setting, attributes["value"])
    if "period" in attributes and attributes["period"].is_empty:
        raise RequestError(400, "ends_at must be later than starts_at")
    if attributes:
        store.change_rule(connection, setting, rule, **attributes)


def _check_features(setting: StoredSetting, conditions: Mapping[str, str]) -> None:
    if unknown := conditions.keys() - set(setting.declaration.configurable_features):
        raise RequestError(400, f"setting is not configurable at context features {unknown}")


def _check_value(setting: StoredSetting, value: Any) -> None:
    if not setting.declaration.type.accepts(value):
        raise RequestError(400, f"rule value is incompatible with setting type {setting.declaration.type}")
