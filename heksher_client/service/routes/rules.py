"""Rules on settings."""

from typing import Annotated, Any, Final

from fastapi import Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.routing import (
    Conditions,
    JSONValue,
    MetadataKey,
    RefusalError,
    Router,
    RuleId,
    SettingName,
    Transaction,
    without,
)
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = Router()


class NewRule(BaseModel):
    setting: SettingName
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}


class RuleValue(BaseModel):
    value: JSONValue


class NewMetadata(BaseModel):
    metadata: dict[MetadataKey, JSONValue]


@router.post("/api/v1/rules", status_code=201)
def add_rule(body: NewRule, connection: Transaction, response: Response) -> dict[str, int]:
    """Add a rule to a setting."""
    held = store.setting(connection, body.setting)
    if held is None:
        raise RefusalError(422, f"setting not found with name {body.setting}")
    if unknown := body.feature_values.keys() - set(held.declaration.configurable_features):
        raise RefusalError(400, f"setting is not configurable at context features {unknown}")
    if store.find_rule(connection, held.id, body.feature_values) is not None:
        raise RefusalError(409, "rule already exists")
    _check_value(held, body.value)
    rule_id = store.add_rule(connection, held, body.feature_values, body.value, body.metadata)
    response.headers["Location"] = f"/api/v1/rules/{rule_id}"
    return {"rule_id": rule_id}


@router.get("/api/v1/rules/search")
def search_rule(
    setting: SettingName,
    feature_values: Annotated[str, Query(pattern=r"^[a-zA-Z_0-9]+:[a-zA-Z_0-9]+(,[a-zA-Z_0-9]+:[a-zA-Z_0-9]+)*$")],
    connection: Transaction,
) -> dict[str, int]:
    """The rule of a setting that has just these conditions, in whatever order: `user:jim,theme:dark`."""
    held = store.setting(connection, setting)
    pairs = [pair.split(":") for pair in feature_values.split(",")]
    conditions: dict[str, str] = dict(pairs)
    if len(conditions) < len(pairs):
        words = {"loc": ("query", "feature_values"), "msg": "a context feature is named twice", "type": "value_error"}
        raise RequestValidationError([words])
    rule_id = None if held is None else store.find_rule(connection, held.id, conditions)
    if rule_id is None:
        raise RefusalError(404)
    return {"rule_id": rule_id}


@router.get("/api/v1/rules/{rule_id}")
def get_rule(rule_id: RuleId, connection: Transaction) -> dict[str, Any]:
    """A rule by its id."""
    rule, held = _rule_and_setting(connection, rule_id)
    return {
        "setting": held.declaration.name,
        "value": rule.value,
        "feature_values": rule.conditions_in(store.context_features(connection)),
        "metadata": dict(rule.metadata),
    }


@router.delete("/api/v1/rules/{rule_id}", status_code=204)
def delete_rule(rule_id: RuleId, connection: Transaction) -> None:
    """Delete a rule."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.delete_rule(connection, held, rule)


@router.patch("/api/v1/rules/{rule_id}", status_code=204, deprecated=True)
@router.put("/api/v1/rules/{rule_id}/value", status_code=204)
def set_rule_value(rule_id: RuleId, body: RuleValue, connection: Transaction) -> None:
    """Give a rule another value."""
    rule, held = _rule_and_setting(connection, rule_id)
    _check_value(held, body.value)
    store.change_rule(connection, held, rule, value=body.value)


@router.get("/api/v1/rules/{rule_id}/metadata")
def get_metadata(rule_id: RuleId, connection: Transaction) -> dict[str, Any]:
    """What is noted of a rule."""
    rule, _ = _rule_and_setting(connection, rule_id)
    return {"metadata": dict(rule.metadata)}


@router.post("/api/v1/rules/{rule_id}/metadata", status_code=204)
def add_metadata(rule_id: RuleId, body: NewMetadata, connection: Transaction) -> None:
    """Note more of a rule, beside what is noted under other keys."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.change_rule(connection, held, rule, metadata={**rule.metadata, **body.metadata})


@router.put("/api/v1/rules/{rule_id}/metadata", status_code=204)
def replace_metadata(rule_id: RuleId, body: NewMetadata, connection: Transaction) -> None:
    """Replace all that is noted of a rule."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.change_rule(connection, held, rule, metadata=body.metadata)


@router.delete("/api/v1/rules/{rule_id}/metadata", status_code=204)
def delete_metadata(rule_id: RuleId, connection: Transaction) -> None:
    """Remove all that is noted of a rule."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.change_rule(connection, held, rule, metadata={})


@router.put("/api/v1/rules/{rule_id}/metadata/{key}", status_code=204)
def set_metadata_key(rule_id: RuleId, key: MetadataKey, body: RuleValue, connection: Transaction) -> None:
    """Note one thing of a rule."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.change_rule(connection, held, rule, metadata={**rule.metadata, key: body.value})


@router.delete("/api/v1/rules/{rule_id}/metadata/{key}", status_code=204)
def delete_metadata_key(rule_id: RuleId, key: MetadataKey, connection: Transaction) -> None:
    """Remove one thing that is noted of a rule."""
    rule, held = _rule_and_setting(connection, rule_id)
    store.change_rule(connection, held, rule, metadata=without(rule.metadata, key))


def _rule_and_setting(connection: Connection, rule_id: int) -> tuple[StoredRule, StoredSetting]:
    rule = store.rule(connection, rule_id)
    if rule is None:
        raise RefusalError(404)
    (held,) = store.settings(connection, [rule.setting_id])
    return rule, held


def _check_value(setting: StoredSetting, value: Any) -> None:
    if not setting.declaration.type.accepts(value):
        raise RefusalError(400, f"rule value is incompatible with setting type {setting.declaration.type}")
