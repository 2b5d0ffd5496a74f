"""The endpoints of rules."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, model_validator
from sqlalchemy import Connection

from heksher_client._core.settings.context_values import FILTER_VALUE, unescape_value
from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client.service import operations, store
from heksher_client.service.addresses import reference
from heksher_client.service.operations import require_rule, require_setting, rule_etag
from heksher_client.service.routing import (
    NO_ETAG,
    PRECONDITION_FAILED,
    WITHOUT_ETAG,
    Conditions,
    EndTime,
    JSONValue,
    MetadataKey,
    Note,
    Precondition,
    RequestDatabase,
    RequestError,
    RuleId,
    SettingName,
    Time,
    documented,
    example,
)
from heksher_client.service.rule_period import Period
from heksher_client.service.store import StoredRule, StoredSetting

router: Final = APIRouter(strict_content_type=False)  # as in the reference implementation
_CONDITIONS: Final = {"environment": "prod", "user": "ann"}
_PERIOD: Final = {"starts_at": "2027-01-31T09:30:00Z", "ends_at": "2027-02-28T09:30:00Z"}
_NEW_RULE: Final = {"setting": "cache_size", "feature_values": _CONDITIONS, "value": 500}
_ATTRIBUTES: Final = ("feature_values", "value", "metadata", "starts_at", "ends_at")
"""The attributes of a rule that one request can change."""
_RULE_CHANGE: Final = {"value": 400, "metadata": {"comment": "slow queries"}, "ends_at": None}
NOT_FOUND: Final = {404: "There is no such rule."}
FOR_CHANGE: Final = NOT_FOUND | PRECONDITION_FAILED
_WRONG_TYPE: Final = {400: "The value is not of the setting's type."}
_LINK: Final = "^[Hh][Tt][Tt][Pp][Ss]?://[^/]"
_CONDITION: Final = f"{CONTEXT_NAME}:{FILTER_VALUE}"
CONDITIONS_PATTERN: Final = f"^{_CONDITION}(,{_CONDITION})*$"
"""Conditions in a query string, like `user:jim,theme:dark`."""


_UNKNOWN_SETTING_OR_INVALID: Final = {
    "description": "There is no such setting, or the request is invalid: `detail` lists the errors.",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}},
        "text/plain": {"schema": {"type": "string"}},
    },
}

RulePath = Annotated[RuleId, Path(openapi_examples=example("1"))]


class _UnchangedRule:
    """The rule that a request changes."""

    def __init__(self, rule_id: RulePath, database: RequestDatabase, precondition: Precondition) -> None:
        self._rule_id, self._database, self._precondition = rule_id, database, precondition

    @contextmanager
    def write(self) -> Iterator[tuple[Connection, StoredRule, StoredSetting]]:
        """Open a transaction that changes the rule: its connection, the rule, and the setting.

        Raises:
            RequestError: There is no such rule, or it has been changed since it was read.
        """
        with self._database.write() as connection:
            rule, setting = require_rule(connection, self._rule_id)
            self._precondition.check(rule_etag(rule))
            yield connection, rule, setting


UnchangedRule = Annotated[_UnchangedRule, Depends()]


class NewRule(BaseModel):
    setting: SettingName
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}
    starts_at: Time | None = None
    ends_at: EndTime = None


class RulePeriod(BaseModel):
    starts_at: Time | None
    ends_at: EndTime


class RuleConditions(BaseModel):
    feature_values: Conditions


class RuleValue(BaseModel):
    value: JSONValue


class RuleChange(BaseModel):
    """Attributes of a rule to change. Those that are not given stay as they are."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in _ATTRIBUTES]})

    feature_values: Conditions = {}
    value: JSONValue = None
    metadata: dict[MetadataKey, JSONValue] = {}
    starts_at: Time | None = None
    ends_at: EndTime = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self.model_fields_set.isdisjoint(_ATTRIBUTES):
            raise ValueError(f"one of {', '.join(_ATTRIBUTES)} is required")
        return self

    def attributes(self, rule: StoredRule) -> dict[str, Any]:
        """Return the attributes, as in `StoredRule`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        attributes: dict[str, Any] = {name: given[name] for name in ("value", "metadata") if name in given}
        if "feature_values" in given:
            attributes["conditions"] = given["feature_values"]
        if period := {name: given[name] for name in Period._fields if name in given}:
            attributes["period"] = rule.period._replace(**period)
        return attributes


@router.post(
    "/api/v1/rules",
    status_code=201,
    dependencies=WITHOUT_ETAG,
    responses=documented(
        {
            400: "The setting is not configurable by one of the features, or the value is not of its type.",
            409: "The setting has a rule with the same conditions.",
        }
        | NO_ETAG,
        body={"rule_id": 2},
        status=201,
    )
    | {422: _UNKNOWN_SETTING_OR_INVALID},
)
def add_rule(
    body: Annotated[NewRule, Body(openapi_examples=example(_NEW_RULE))],
    database: RequestDatabase,
    request: Request,
    response: Response,
) -> dict[str, int]:
    """Add a rule to a setting.

    A temporary rule has a time `starts_at`, before which it does not apply, or a time `ends_at`, from which on it does
    not apply.
    """
    period = Period(body.starts_at, body.ends_at)
    with database.write() as connection:
        rule_id = operations.add_rule(connection, body.setting, body.feature_values, body.value, body.metadata, period)
        response.headers["Location"] = reference(request.scope, f"api/v1/rules/{rule_id}")
        return {"rule_id": rule_id}


def parse_conditions(text: str, name: str) -> dict[str, str]:
    """Return the conditions in the parameter of a query string with this name.

    Raises:
        RequestValidationError: A context feature is named twice.
    """
    pairs = [pair.split(":", 1) for pair in text.split(",")]
    conditions = {feature: unescape_value(value) for feature, value in pairs}
    if len(conditions) < len(pairs):
        error = {"loc": ("query", name), "msg": "a context feature is named twice", "type": "value_error"}
        raise RequestValidationError([error])
    return conditions


@router.get("/api/v1/rules/search", responses=documented(NOT_FOUND, body={"rule_id": 1}))
def search_rule(
    setting: Annotated[SettingName, Query(openapi_examples=example("cache_size"))],
    feature_values: Annotated[str, Query(openapi_examples=example("user:jim"), pattern=CONDITIONS_PATTERN)],
    database: RequestDatabase,
) -> dict[str, int]:
    """Return the rule of a setting with exactly the given conditions, in any order, like `user:jim,theme:dark`.

    In a value, `~2C`, `~28`, `~29` and `~7E` are the characters `,`, `(`, `)` and `~`.
    """
    conditions = parse_conditions(feature_values, "feature_values")
    with database.read() as connection:
        rule_id = store.find_rule(connection, require_setting(connection, setting, message="").id, conditions)
        if rule_id is None:
            raise RequestError(404)
        return {"rule_id": rule_id}


@router.get(
    "/api/v1/rules/{rule_id}",
    responses=documented(
        NOT_FOUND,
        body={
            "setting": "cache_size",
            "value": 200,
            "feature_values": [["user", "jim"]],
            "metadata": {"ticket": "OPS-17"},
        },
    ),
)
def get_rule(rule_id: RulePath, database: RequestDatabase, response: Response) -> dict[str, Any]:
    """Return a rule. With its ETag in `If-Match`, a change of the rule is refused if somebody else has changed it.

    A temporary rule also has the times `starts_at` or `ends_at`, and `in_effect`: whether query results contain it.
    """
    with database.read() as connection:
        rule, setting = require_rule(connection, rule_id)
        response.headers["ETag"] = rule_etag(rule)
        return {
            "setting": setting.declaration.name,
            "value": rule.value,
            "feature_values": rule.conditions_in(store.context_features(connection)),
            "metadata": dict(rule.metadata),
            **({"in_effect": rule.in_effect, **rule.period.as_json()} if any(rule.period) else {}),
        }


@router.delete("/api/v1/rules/{rule_id}", status_code=204, responses=documented(FOR_CHANGE))
def delete_rule(
    unchanged: UnchangedRule,
    comment: Annotated[Note, Query(openapi_examples=example("the test is over"))] = "",
    link: Annotated[Note, Query(pattern=_LINK, openapi_examples=example("https://example.com/OPS-17"))] = "",
) -> None:
    """Delete a rule. Its entry in the change log has the `comment` and the `link` in `former`."""
    note = {name: text for name, text in (("comment", comment), ("link", link)) if text}
    with unchanged.write() as (connection, rule, setting):
        store.delete_rule(connection, setting, rule, note=note)


@router.patch(
    "/api/v1/rules/{rule_id}",
    status_code=204,
    responses=documented(
        FOR_CHANGE
        | {
            400: "The value is not of the setting's type, the setting is not configurable by one of the features, or "
            "the period would end before it begins.",
            409: "The setting has another rule with the same conditions.",
        }
    ),
)
def change_rule(
    unchanged: UnchangedRule,
    body: Annotated[RuleChange, Body(openapi_examples=example(_RULE_CHANGE))],
) -> None:
    """Change several attributes of a rule, with one entry in the change log.

    `feature_values` and `metadata` replace all conditions and all metadata. A limit of the period that is null is
    removed.
    """
    with unchanged.write() as (connection, rule, setting):
        operations.change_rule(connection, setting, rule, **body.attributes(rule))


@router.put("/api/v1/rules/{rule_id}/value", status_code=204, responses=documented(FOR_CHANGE | _WRONG_TYPE))
def set_rule_value(
    unchanged: UnchangedRule,
    body: Annotated[RuleValue, Body(openapi_examples=example({"value": 300}))],
) -> None:
    """Change the value of a rule."""
    with unchanged.write() as (connection, rule, setting):
        operations.change_rule(connection, setting, rule, value=body.value)


@router.put(
    "/api/v1/rules/{rule_id}/conditions",
    status_code=204,
    responses=documented(
        FOR_CHANGE
        | {
            400: "The setting is not configurable by one of the features.",
            409: "The setting has another rule with the same conditions.",
        }
    ),
)
def set_rule_conditions(
    unchanged: UnchangedRule,
    body: Annotated[RuleConditions, Body(openapi_examples=example({"feature_values": _CONDITIONS}))],
) -> None:
    """Replace the conditions of a rule."""
    with unchanged.write() as (connection, rule, setting):
        operations.change_rule(connection, setting, rule, conditions=body.feature_values)


@router.put("/api/v1/rules/{rule_id}/period", status_code=204, responses=documented(FOR_CHANGE))
def set_rule_period(
    unchanged: UnchangedRule,
    body: Annotated[RulePeriod, Body(openapi_examples=example(_PERIOD))],
) -> None:
    """Replace the period in which a rule applies. A limit that is null is removed."""
    with unchanged.write() as (connection, rule, setting):
        store.change_rule(connection, setting, rule, period=Period(body.starts_at, body.ends_at))
