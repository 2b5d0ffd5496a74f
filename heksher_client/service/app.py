"""The HTTP interface: requests checked, the store asked, answers and errors in the service's own words."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator
from sqlalchemy import URL, Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from heksher_client._version import __version__
from heksher_client.service import store
from heksher_client.service.context_filters import (
    MalformedFilterError,
    RepeatedFeatureError,
    admits,
    parse_context_filters,
)
from heksher_client.service.declarations import Declaration, Rules, judge, parse_version
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import Store, StoredRule, StoredSetting

ContextName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_0-9]+$")]
SettingName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_0-9.]+$")]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$", max_length=100)]


_DEEPEST: Final = 100
"""How many lists and objects of a value may be inside each other. JSON libraries stop at a few hundred."""


def _check_type(name: str) -> str:
    _check_json(name)
    parse_setting_type(name)
    return name


def _check_json(value: Any) -> Any:
    if _is_deeper_than(_DEEPEST, value):
        raise ValueError(f"more than {_DEEPEST} lists and objects inside each other")
    _json(value)  # Python's parser lets NaN and lone surrogates through, which nobody else could read again
    return value


def _is_deeper_than(limit: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_is_deeper_than(limit - 1, element) for element in inner)


def _check_digits(text: Any) -> Any:
    if not re.fullmatch("[0-9]{1,18}", str(text)):
        raise ValueError("a rule id is a whole number")
    return text


TypeName = Annotated[str, AfterValidator(_check_type)]
RuleId = Annotated[int, BeforeValidator(_check_digits), Path()]
JSONValue = Annotated[Any, AfterValidator(_check_json)]


class NewContextFeature(BaseModel):
    context_feature: ContextName


class DeclaredSetting(BaseModel):
    name: SettingName
    configurable_features: Annotated[list[ContextName], Field(min_length=1)]
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


class NewRule(BaseModel):
    setting: SettingName
    feature_values: Annotated[dict[ContextName, ContextName], Field(min_length=1)]
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}


class RuleValue(BaseModel):
    value: JSONValue


class NewName(BaseModel):
    name: SettingName
    version: Version


class RefusalError(Exception):
    """An answer in plain text that is no success."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)


def _transaction(request: Request) -> Iterator[Connection]:
    opened: Store = request.app.state.store
    with opened.begin(writes=request.method != "GET") as connection:
        yield connection


# Of function scope: the transaction is committed before the answer is sent, so that whoever has it can rely on it.
Transaction = Annotated[Connection, Depends(_transaction, scope="function")]

router: Final = APIRouter()


@router.get("/api/health")
def health(connection: Transaction) -> dict[str, str]:
    """Answer, if the database does."""
    store.context_features(connection)
    return {"version": __version__}


# -- context features --------------------------------------------------------------------------------------------------


@router.get("/api/v1/context_features")
def list_context_features(connection: Transaction) -> dict[str, list[str]]:
    """All context features, in their order."""
    return {"context_features": store.context_features(connection)}


@router.get("/api/v1/context_features/{name}")
def get_context_feature(name: str, connection: Transaction) -> dict[str, int]:
    """The place of a context feature in their order, counted from 0."""
    features = store.context_features(connection)
    if name not in features:
        raise RefusalError(404)
    return {"index": features.index(name)}


@router.post("/api/v1/context_features", status_code=204)
def add_context_feature(body: NewContextFeature, connection: Transaction) -> None:
    """Add a context feature after all others."""
    if body.context_feature in store.context_features(connection):
        raise RefusalError(409, "context feature already exists")
    store.add_context_feature(connection, body.context_feature)


# -- settings ----------------------------------------------------------------------------------------------------------


@router.post("/api/v1/settings/declare")
def declare(body: DeclaredSetting, connection: Transaction) -> JSONResponse:
    """Create a setting, upgrade it, or say how the declaration differs from it."""
    declared = body.declaration()
    held = _declared_before(connection, body)
    if held is None:
        if declared.version != "1.0":
            raise RefusalError(400, "newly created settings must have version 1.0")
        if unknown := _unknown_features(connection, declared):
            raise RefusalError(404, f"{unknown} are not acceptable context features")
        store.add_setting(connection, declared)
        return JSONResponse({"outcome": "created"})
    # Under an alias, and without asking for a rename, it is the same setting.
    is_rename = body.alias == held.declaration.name
    is_newer = declared.version_number >= held.declaration.version_number
    compared = replace(declared, name=held.declaration.name) if is_newer and not is_rename else declared
    verdict = judge(compared, held.declaration, lambda: _rules_of(connection, held))
    if verdict.outcome == "upgraded":
        if unknown := _unknown_features(connection, declared):
            raise HTTPException(404, f"{unknown} are not acceptable context features")
        store.update_setting(connection, held, compared)
    return JSONResponse({"outcome": verdict.outcome} | verdict.body, 409 if verdict.is_conflict else 200)


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


@router.get("/api/v1/settings")
def list_settings(connection: Transaction, include_additional_data: bool = False) -> dict[str, Any]:
    """All settings, by name."""
    return {"settings": [_setting_body(s, whole=include_additional_data) for s in store.settings(connection)]}


@router.get("/api/v1/settings/{name}")
def get_setting(name: str, connection: Transaction) -> dict[str, Any]:
    """A setting by its name or an alias."""
    held = store.setting(connection, name)
    if held is None:
        raise RefusalError(404, f"the setting {name} does not exist")
    return _setting_body(held, whole=True)


@router.delete("/api/v1/settings/{name}", status_code=204)
def delete_setting(name: str, connection: Transaction) -> None:
    """Delete a setting with its rules and aliases."""
    held = store.setting(connection, name)
    if held is None:
        raise RefusalError(404, "setting name not found")
    store.delete_setting(connection, held)


@router.put("/api/v1/settings/{name}/name", status_code=204)
def rename_setting(name: str, body: NewName, connection: Transaction) -> None:
    """Rename a setting; the former name stays as an alias."""
    held = store.setting(connection, name)
    if held is None:
        raise RefusalError(404, "setting does not exist")
    if parse_version(body.version) <= held.declaration.version_number:
        raise RefusalError(409, f"the setting {held.declaration.name} is at version {held.declaration.version} already")
    other = store.setting(connection, body.name)
    if body.name == held.declaration.name or (other is not None and other.id != held.id):
        raise RefusalError(409, "name already exists")
    store.update_setting(connection, held, replace(held.declaration, name=body.name, version=body.version))


def _setting_body(setting: StoredSetting, *, whole: bool) -> dict[str, Any]:
    declaration = setting.declaration
    body: dict[str, Any] = {
        "name": declaration.name,
        "type": str(declaration.type),
        "default_value": declaration.default_value,
        "version": declaration.version,
    }
    if whole:
        body["configurable_features"] = list(declaration.configurable_features)
        body["metadata"] = dict(declaration.metadata)
        body["aliases"] = list(setting.aliases)
    return body


# -- rules -------------------------------------------------------------------------------------------------------------


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
    rule_id = store.add_rule(connection, held.id, body.feature_values, body.value, body.metadata)
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
        raise RefusalError(422, "a context feature is named twice")
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
        "feature_values": _ordered(rule, store.context_features(connection)),
        "metadata": dict(rule.metadata),
    }


@router.delete("/api/v1/rules/{rule_id}", status_code=204)
def delete_rule(rule_id: RuleId, connection: Transaction) -> None:
    """Delete a rule."""
    _rule_and_setting(connection, rule_id)
    store.delete_rule(connection, rule_id)


@router.patch("/api/v1/rules/{rule_id}", status_code=204, deprecated=True)
@router.put("/api/v1/rules/{rule_id}/value", status_code=204)
def set_rule_value(rule_id: RuleId, body: RuleValue, connection: Transaction) -> None:
    """Give a rule another value."""
    _, held = _rule_and_setting(connection, rule_id)
    _check_value(held, body.value)
    store.set_rule_value(connection, rule_id, body.value)


def _rule_and_setting(connection: Connection, rule_id: int) -> tuple[StoredRule, StoredSetting]:
    rule = store.rule(connection, rule_id)
    if rule is None:
        raise RefusalError(404)
    (held,) = store.settings(connection, [rule.setting_id])
    return rule, held


def _check_value(setting: StoredSetting, value: Any) -> None:
    if not setting.declaration.type.accepts(value):
        raise RefusalError(400, f"rule value is incompatible with setting type {setting.declaration.type}")


def _ordered(rule: StoredRule, features: Sequence[str]) -> list[list[str]]:
    """The conditions in the order of the context features."""
    conditions = dict(rule.conditions)
    return [[feature, conditions[feature]] for feature in features if feature in conditions]


# -- queries -----------------------------------------------------------------------------------------------------------


@router.get("/api/v1/query")
def query(
    connection: Transaction,
    settings: Annotated[str | None, Query(pattern=r"^([a-zA-Z_0-9.]+(,[a-zA-Z_0-9.]+)*)?$")] = None,
    context_filters: str = "*",
    include_metadata: bool = False,
    if_none_match: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """The default values and rules of settings: all of them, or those named."""
    try:
        filters = parse_context_filters(context_filters)
    except RepeatedFeatureError as error:
        raise RefusalError(400, str(error)) from None
    except MalformedFilterError as error:
        location = ("query", "context_filters")
        raise RequestValidationError([{"loc": location, "msg": str(error), "type": "value_error"}]) from None
    wanted = _wanted(connection, settings)
    features = store.context_features(connection)
    answers: dict[int, dict[str, Any]] = {
        held.id: {"default_value": held.declaration.default_value, "rules": []} for held in wanted
    }
    for rule in store.rules(connection, None if settings is None else answers):
        if not admits(filters, rule.conditions):
            continue
        found = {"value": rule.value, "context_features": _ordered(rule, features), "rule_id": rule.id}
        answers[rule.setting_id]["rules"].append(
            found | {"metadata": dict(rule.metadata)} if include_metadata else found
        )
    body = _json({"settings": {held.declaration.name: answers[held.id] for held in wanted}})
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if _matches(",".join(if_none_match or ()), etag):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})


def _wanted(connection: Connection, names: str | None) -> list[StoredSetting]:
    if names is None:
        return store.settings(connection)
    asked = dict.fromkeys(names.split(",")) if names else {}
    ids = store.setting_ids(connection, asked)
    if missing := [name for name in asked if name not in ids]:
        raise RefusalError(404, f"the following are not setting names: {missing}")
    return store.settings(connection, ids.values())


def _matches(if_none_match: str, etag: str) -> bool:
    return if_none_match.strip() == "*" or etag in re.findall(r'"[^"]*"', if_none_match)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


# -- the application ---------------------------------------------------------------------------------------------------


def _refuse(_: Request, refusal: Exception) -> Response:
    status, text = refusal.args
    return PlainTextResponse(text, status) if text else Response(status_code=status)


def _invalid(_: Request, error: Exception) -> Response:
    # Without the input, which FastAPI repeats by default: it may be long, or what no JSON can hold.
    details = [{key: detail[key] for key in ("loc", "msg", "type")} for detail in error.args[0]]
    return Response(json.dumps({"detail": details}), 422, media_type="application/json")


def _conflict(_: Request, __: Exception) -> Response:
    return PlainTextResponse("another request changed the same thing at this moment; try again", 409)


def _unwell(_: Request, __: Exception) -> Response:
    return PlainTextResponse("the database does not answer", 500)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.store.close()


def create_app(database_url: str | URL = "sqlite://", context_features: Sequence[str] = ()) -> FastAPI:
    """Make the service as an ASGI application.

    Args:
        database_url: As SQLAlchemy writes it; one in memory unless given.
        context_features: Added to the database, after those it has, where it lacks them.

    Raises:
        TypeError: One string was given for a list of context features.
        ValueError: A name that no context feature can have.
    """
    if isinstance(context_features, str):
        raise TypeError(f"context_features must be a list of names, not one string: use [{context_features!r}]")
    for name in context_features:
        if not re.fullmatch(r"[a-zA-Z_0-9]+", name):
            raise ValueError(f"{name!r} is no name of a context feature: letters, digits and underscores only")
    opened = Store(database_url)
    with opened.begin() as connection:
        for name in dict.fromkeys(context_features):
            if name not in store.context_features(connection):
                store.add_context_feature(connection, name)
    app = FastAPI(title="Heksher", version=__version__, lifespan=_lifespan)
    app.state.store = opened
    app.include_router(router)
    app.add_exception_handler(RefusalError, _refuse)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(IntegrityError, _conflict)
    app.add_exception_handler(SQLAlchemyError, _unwell)
    return app
