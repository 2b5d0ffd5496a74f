"""Rules on settings."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from heksher_client.service import operations, store
from heksher_client.service.names import CONTEXT_NAME
from heksher_client.service.operations import require_rule, require_setting
from heksher_client.service.routing import (
    Conditions,
    JSONValue,
    MetadataKey,
    RefusalError,
    RequestDatabase,
    RuleId,
    SettingName,
    without,
)

router: Final = APIRouter()
_CONDITION: Final = f"{CONTEXT_NAME}:{CONTEXT_NAME}"


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
def add_rule(body: NewRule, database: RequestDatabase, response: Response) -> dict[str, int]:
    """Add a rule to a setting."""
    with database.write() as connection:
        rule_id = operations.add_rule(connection, body.setting, body.feature_values, body.value, body.metadata)
        response.headers["Location"] = f"/api/v1/rules/{rule_id}"
        return {"rule_id": rule_id}


@router.get("/api/v1/rules/search")
def search_rule(
    setting: SettingName,
    feature_values: Annotated[str, Query(pattern=rf"^{_CONDITION}(,{_CONDITION})*$")],
    database: RequestDatabase,
) -> dict[str, int]:
    """The rule of a setting that has just these conditions, in whatever order: `user:jim,theme:dark`."""
    pairs = [pair.split(":") for pair in feature_values.split(",")]
    conditions: dict[str, str] = dict(pairs)
    if len(conditions) < len(pairs):
        words = {"loc": ("query", "feature_values"), "msg": "a context feature is named twice", "type": "value_error"}
        raise RequestValidationError([words])
    with database.read() as connection:
        rule_id = store.find_rule(connection, require_setting(connection, setting, message="").id, conditions)
        if rule_id is None:
            raise RefusalError(404)
        return {"rule_id": rule_id}


@router.get("/api/v1/rules/{rule_id}")
def get_rule(rule_id: RuleId, database: RequestDatabase) -> dict[str, Any]:
    """A rule by its id."""
    with database.read() as connection:
        rule, held = require_rule(connection, rule_id)
        return {
            "setting": held.declaration.name,
            "value": rule.value,
            "feature_values": rule.conditions_in(store.context_features(connection)),
            "metadata": dict(rule.metadata),
        }


@router.delete("/api/v1/rules/{rule_id}", status_code=204)
def delete_rule(rule_id: RuleId, database: RequestDatabase) -> None:
    """Delete a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.delete_rule(connection, held, rule)


@router.patch("/api/v1/rules/{rule_id}", status_code=204, deprecated=True)
@router.put("/api/v1/rules/{rule_id}/value", status_code=204)
def set_rule_value(rule_id: RuleId, body: RuleValue, database: RequestDatabase) -> None:
    """Give a rule another value."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        operations.set_rule_value(connection, held, rule, body.value)


@router.get("/api/v1/rules/{rule_id}/metadata")
def get_metadata(rule_id: RuleId, database: RequestDatabase) -> dict[str, Any]:
    """What is noted of a rule."""
    with database.read() as connection:
        rule, _ = require_rule(connection, rule_id)
        return {"metadata": dict(rule.metadata)}


@router.post("/api/v1/rules/{rule_id}/metadata", status_code=204)
def add_metadata(rule_id: RuleId, body: NewMetadata, database: RequestDatabase) -> None:
    """Note more of a rule, beside what is noted under other keys."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.change_rule(connection, held, rule, metadata={**rule.metadata, **body.metadata})


@router.put("/api/v1/rules/{rule_id}/metadata", status_code=204)
def replace_metadata(rule_id: RuleId, body: NewMetadata, database: RequestDatabase) -> None:
    """Replace all that is noted of a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.change_rule(connection, held, rule, metadata=body.metadata)


@router.delete("/api/v1/rules/{rule_id}/metadata", status_code=204)
def delete_metadata(rule_id: RuleId, database: RequestDatabase) -> None:
    """Remove all that is noted of a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.change_rule(connection, held, rule, metadata={})


@router.put("/api/v1/rules/{rule_id}/metadata/{key}", status_code=204)
def set_metadata_key(rule_id: RuleId, key: MetadataKey, body: RuleValue, database: RequestDatabase) -> None:
    """Note one thing of a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.change_rule(connection, held, rule, metadata={**rule.metadata, key: body.value})


@router.delete("/api/v1/rules/{rule_id}/metadata/{key}", status_code=204)
def delete_metadata_key(rule_id: RuleId, key: MetadataKey, database: RequestDatabase) -> None:
    """Remove one thing that is noted of a rule."""
    with database.write() as connection:
        rule, held = require_rule(connection, rule_id)
        store.change_rule(connection, held, rule, metadata=without(rule.metadata, key))
