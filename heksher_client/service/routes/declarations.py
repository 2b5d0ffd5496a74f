"""The endpoint by which programs declare their settings."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, model_validator
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.access import missing_role, request_token
from heksher_client.service.declarations import Declaration, ExistingRules, compare
from heksher_client.service.routing import (
    NO_ETAG,
    WITHOUT_ETAG,
    Features,
    JSONValue,
    MetadataKey,
    NewSettingName,
    RequestDatabase,
    RequestError,
    SettingName,
    TypeName,
    Version,
    documented,
    example,
)
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredSetting
from heksher_client.service.tokens import Role

router: Final = APIRouter(strict_content_type=False)  # as in the reference implementation
_DECLARATION: Final = {
    "name": "cache_size",
    "type": "int",
    "default_value": 10,
    "configurable_features": ["environment", "user"],
    "metadata": {"owner": "shop"},
    "version": "1.0",
}


class DeclaredSetting(BaseModel):
    name: NewSettingName
    configurable_features: Features
    type: TypeName
    default_value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}
    alias: SettingName | None = None
    version: Version = "1.0"

    @model_validator(mode="after")
    def _is_consistent(self) -> "DeclaredSetting":
        if not parse_setting_type(self.type).accepts(self.default_value):
            raise ValueError(f"type ({self.type}) and default value ({self.default_value}) must match")
        if self.alias == self.name:
            raise ValueError(f"name ({self.name}) and alias ({self.alias}) must differ")
        return self

    def declaration(self) -> Declaration:
        return Declaration(
            self.name,
            tuple(dict.fromkeys(self.configurable_features)),
            parse_setting_type(self.type),
            self.default_value,
            self.metadata,
            self.version,
        )


@router.post(
    "/api/v1/settings/declare",
    response_model=dict[str, Any],
    dependencies=WITHOUT_ETAG,
    responses=documented(
        {
            400: "A new setting must have the version 1.0.",
            403: "The declaration would change the setting, or is not valid, and the token has the role `read`.",
            404: "There is no such context feature, or no setting with the name given as the alias.",
            409: "The version does not allow the differences from the stored setting: the outcome is `rejected` or "
            "`mismatch`, and `differences` lists them. Or the alias belongs to another setting.",
        }
        | NO_ETAG,
        body={"outcome": "uptodate"},
    ),
)
def declare(
    body: Annotated[DeclaredSetting, Body(openapi_examples=example(_DECLARATION))],
    request: Request,
    database: RequestDatabase,
) -> JSONResponse:
    """Create or upgrade a setting, or return the differences between the declaration and the stored setting."""
    token = request_token(request.scope)
    if token is not None and not token.role.includes(Role.DECLARE):
        return _compare(body, database, RequestError(403, missing_role(token, Role.DECLARE)))
    # Most declarations change nothing, so a transaction that only reads, and does not wait for others, comes first.
    with database.read() as connection:
        database.state(connection)
        response, write = _decide(connection, body)
    if write is not None:
        with database.write() as connection:
            response, write = _decide(connection, body)  # Another request may have changed the setting since.
            if write is not None:
                write(connection)
            database.state(connection)
    return response


def _compare(body: DeclaredSetting, database: RequestDatabase, refusal: RequestError) -> JSONResponse:
    """Return the response to a declaration that may not change the setting.

    So a program with such a token reads the settings that others have declared.

    Raises:
        RequestError: The declaration would change the setting, or is not valid.
    """
    with database.read() as connection:
        database.state(connection)
        try:
            response, write = _decide(connection, body)
        except (RequestError, HTTPException):
            raise refusal from None
        if write is not None:
            raise refusal
        return response


def _decide(
    connection: Connection,
    body: DeclaredSetting,
) -> tuple[JSONResponse, Callable[[Connection], None] | None]:
    """Return the response to a declaration, and the change that it requires, if any."""
    declared = body.declaration()
    stored = _find_declared(connection, body)
    if stored is None:
        if declared.version != "1.0":
            raise RequestError(400, "newly created settings must have version 1.0")
        if unknown := _unknown_features(connection, declared):
            raise RequestError(404, f"{unknown} are not acceptable context features")
        return JSONResponse({"outcome": "created"}), partial(store.add_setting, declaration=declared)
    # A declaration under an alias is a declaration of the setting, unless it requests to rename it.
    is_rename = body.alias == stored.declaration.name
    is_current = declared.version_number >= stored.declaration.version_number
    compared = replace(declared, name=stored.declaration.name) if is_current and not is_rename else declared
    result = compare(compared, stored.declaration, lambda: _existing_rules(connection, stored))
    response = JSONResponse({"outcome": result.outcome} | result.details, 409 if result.is_conflict else 200)
    if result.outcome == "upgraded":
        if unknown := _unknown_features(connection, declared):
            raise HTTPException(404, f"{unknown} are not acceptable context features")
        return response, partial(store.update_setting, setting=stored, declaration=compared)
    return response, None


def _find_declared(connection: Connection, body: DeclaredSetting) -> StoredSetting | None:
    """Return the declared setting by its name, or by the alias that is to become its former name.

    Raises:
        HTTPException: The alias does not exist, or belongs to another setting.
    """
    stored = store.setting(connection, body.name)
    if body.alias is None:
        return stored
    aliased = store.setting(connection, body.alias)
    if aliased is None:
        raise HTTPException(404, f"alias {body.alias} does not exist")
    name = aliased.declaration.name
    if (stored is None and name == body.alias) or (stored is not None and stored.id == aliased.id):
        return aliased
    raise HTTPException(409, f"alias {body.alias} is an alias of unrelated setting {name}")


def _unknown_features(connection: Connection, declaration: Declaration) -> set[str]:
    return set(declaration.configurable_features) - set(store.context_features(connection))


def _existing_rules(connection: Connection, setting: StoredSetting) -> ExistingRules:
    ids_by_feature: dict[str, list[int]] = {}
    values = {}
    for rule in store.rules(connection, [setting.id]):
        values[rule.id] = rule.value
        for feature, _ in rule.conditions:
            ids_by_feature.setdefault(feature, []).append(rule.id)
    return ExistingRules(ids_by_feature, values)
