"""Declarations of settings, as programs send them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, model_validator
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.declarations import Declaration, Rules, judge
from heksher_client.service.routing import (
    Features,
    JSONValue,
    MetadataKey,
    NewSettingName,
    RefusalError,
    RequestDatabase,
    SettingName,
    TypeName,
    Version,
    documented,
    example,
)
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredSetting

router: Final = APIRouter()
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
    def _fits_together(self) -> "DeclaredSetting":
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
    responses=documented(
        {
            400: "A new setting must have the version 1.0.",
            404: "There is no such context feature, or no setting with the name given as the alias.",
            409: "The version does not allow the differences from the stored setting: the outcome is `rejected` or "
            "`mismatch`, and `differences` lists them. Or the alias belongs to another setting.",
        },
        body={"outcome": "uptodate"},
    ),
)
def declare(
    body: Annotated[DeclaredSetting, Body(openapi_examples=example(_DECLARATION))], database: RequestDatabase
) -> JSONResponse:
    """Create a setting, upgrade it, or say how the declaration differs from it."""
    # Most declarations change nothing, and need not wait for those that do.
    with database.read() as connection:
        answer, write = _decide(connection, body)
    if write is not None:
        with database.write() as connection:
            answer, write = _decide(connection, body)  # Another instance may have been faster.
            if write is not None:
                write(connection)
    return answer


def _decide(
    connection: Connection,
    body: DeclaredSetting,
) -> tuple[JSONResponse, Callable[[Connection], None] | None]:
    """The answer to a declaration, and what has to be written for it to be true."""
    declared = body.declaration()
    held = _declared_before(connection, body)
    if held is None:
        if declared.version != "1.0":
            raise RefusalError(400, "newly created settings must have version 1.0")
        if unknown := _unknown_features(connection, declared):
            raise RefusalError(404, f"{unknown} are not acceptable context features")
        return JSONResponse({"outcome": "created"}), partial(store.add_setting, declaration=declared)
    # Under an alias, and without asking for a rename, it is the same setting.
    is_rename = body.alias == held.declaration.name
    is_newer = declared.version_number >= held.declaration.version_number
    compared = replace(declared, name=held.declaration.name) if is_newer and not is_rename else declared
    verdict = judge(compared, held.declaration, lambda: _rules_of(connection, held))
    answer = JSONResponse({"outcome": verdict.outcome} | verdict.body, 409 if verdict.is_conflict else 200)
    if verdict.outcome == "upgraded":
        if unknown := _unknown_features(connection, declared):
            raise HTTPException(404, f"{unknown} are not acceptable context features")
        return answer, partial(store.update_setting, held=held, declaration=compared)
    return answer, None


def _declared_before(connection: Connection, body: DeclaredSetting) -> StoredSetting | None:
    """The setting that a declaration is about: known by its name, or to be renamed from its alias."""
    held = store.setting(connection, body.name)
    if body.alias is None:
        return held
    aliased = store.setting(connection, body.alias)
    if aliased is None:
        raise HTTPException(404, f"alias {body.alias} does not exist")
    name = aliased.declaration.name
    if (held is None and name == body.alias) or (held is not None and held.id == aliased.id):
        return aliased
    raise HTTPException(409, f"alias {body.alias} is an alias of unrelated setting {name}")


def _unknown_features(connection: Connection, declaration: Declaration) -> set[str]:
    return set(declaration.configurable_features) - set(store.context_features(connection))


def _rules_of(connection: Connection, setting: StoredSetting) -> Rules:
    by_feature: dict[str, list[int]] = {}
    values = {}
    for rule in store.rules(connection, [setting.id]):
        values[rule.id] = rule.value
        for feature, _ in rule.conditions:
            by_feature.setdefault(feature, []).append(rule.id)
    return Rules(by_feature, values)
