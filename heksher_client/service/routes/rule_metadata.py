"""The endpoints of the metadata of rules."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel

from heksher_client.service import store
from heksher_client.service.operations import require_rule
from heksher_client.service.routes.rules import FOR_CHANGE, NOT_FOUND, RulePath, RuleValue, UnchangedRule
from heksher_client.service.routing import (
    PRECONDITION_FAILED,
    JSONValue,
    MetadataKey,
    RequestDatabase,
    documented,
    example,
    without_key,
)

router: Final = APIRouter(strict_content_type=False)  # as in the reference implementation

KeyPath = Annotated[MetadataKey, Path(openapi_examples=example("ticket"))]


class NewMetadata(BaseModel):
    metadata: dict[MetadataKey, JSONValue]


@router.get(
    "/api/v1/rules/{rule_id}/metadata", responses=documented(NOT_FOUND, body={"metadata": {"ticket": "OPS-17"}})
)
def get_metadata(rule_id: RulePath, database: RequestDatabase) -> dict[str, Any]:
    """Return the metadata of a rule."""
    with database.read() as connection:
        rule, _ = require_rule(connection, rule_id)
        return {"metadata": dict(rule.metadata)}


@router.post("/api/v1/rules/{rule_id}/metadata", status_code=204, responses=documented(FOR_CHANGE))
def add_metadata(
    unchanged: UnchangedRule,
    body: Annotated[NewMetadata, Body(openapi_examples=example({"metadata": {"until": "2027-01-01"}}))],
) -> None:
    """Add metadata to a rule, and replace those with the same keys."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, metadata={**rule.metadata, **body.metadata})


@router.put("/api/v1/rules/{rule_id}/metadata", status_code=204, responses=documented(FOR_CHANGE))
def replace_metadata(
    unchanged: UnchangedRule,
    body: Annotated[NewMetadata, Body(openapi_examples=example({"metadata": {"ticket": "OPS-18"}}))],
) -> None:
    """Replace the metadata of a rule."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, metadata=body.metadata)


@router.delete("/api/v1/rules/{rule_id}/metadata", status_code=204, responses=documented(FOR_CHANGE))
def delete_metadata(unchanged: UnchangedRule) -> None:
    """Delete the metadata of a rule."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, metadata={})


@router.put("/api/v1/rules/{rule_id}/metadata/{key}", status_code=204, responses=documented(FOR_CHANGE))
def set_metadata_key(
    unchanged: UnchangedRule,
    key: KeyPath,
    body: Annotated[RuleValue, Body(openapi_examples=example({"value": "OPS-18"}))],
) -> None:
    """Set a metadata key of a rule."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, metadata={**rule.metadata, key: body.value})


@router.delete(
    "/api/v1/rules/{rule_id}/metadata/{key}",
    status_code=204,
    responses=documented({404: "There is no such rule or metadata key."} | PRECONDITION_FAILED),
)
def delete_metadata_key(unchanged: UnchangedRule, key: KeyPath) -> None:
    """Delete a metadata key of a rule."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, metadata=without_key(rule.metadata, key))
