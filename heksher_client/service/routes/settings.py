"""The endpoints by which operators read and change settings."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection

from heksher_client.service import setting_operations, store
from heksher_client.service.operations import require_setting, setting_etag
from heksher_client.service.routing import (
    PRECONDITION_FAILED,
    Features,
    JSONValue,
    MetadataKey,
    NewSettingName,
    Precondition,
    RequestDatabase,
    TypeName,
    Version,
    documented,
    example,
    without_key,
)
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredSetting

router: Final = APIRouter(strict_content_type=False)  # as in the reference implementation
_EXAMPLE: Final = {
    "name": "cache_size",
    "type": "int",
    "default_value": 10,
    "version": "1.0",
    "configurable_features": ["environment", "user"],
    "metadata": {"owner": "shop"},
    "aliases": ["cache_limit"],
}
_NOT_FOUND: Final = {404: "There is no such setting."}
_VERSION_TOO_LOW: Final = {409: "The version is not higher than the setting's."}
_FOR_METADATA: Final = _NOT_FOUND | PRECONDITION_FAILED | _VERSION_TOO_LOW

# Names are not checked here: one that is not valid does not exist, as in the reference implementation.
SettingPath = Annotated[str, Path(openapi_examples=example("cache_size"))]
KeyPath = Annotated[MetadataKey, Path(openapi_examples=example("owner"))]


class NewVersion(BaseModel):
    """The version after the change, which must be higher: declarations of older versions are then outdated.

    A request that would change nothing is accepted at the same version as well, except for metadata.
    """

    version: Version


class NewName(NewVersion):
    name: NewSettingName


class NewType(NewVersion):
    type: TypeName


class NewFeatures(NewVersion):
    configurable_features: Features


class NewMetadata(NewVersion):
    metadata: dict[MetadataKey, JSONValue]


class NewMetadataValue(NewVersion):
    value: JSONValue


@router.get("/api/v1/settings", responses=documented(body={"settings": [_EXAMPLE]}))
def list_settings(
    database: RequestDatabase, include_additional_data: Annotated[bool, Query(openapi_examples=example(True))] = False
) -> dict[str, Any]:
    """Return all settings, sorted by name."""
    with database.read() as connection:
        database.state(connection)
        return {
            "settings": [
                _setting_body(setting, is_complete=include_additional_data) for setting in store.settings(connection)
            ]
        }


@router.get("/api/v1/settings/{name}", responses=documented(_NOT_FOUND, body=_EXAMPLE))
def get_setting(name: SettingPath, database: RequestDatabase, response: Response) -> dict[str, Any]:
    """Return a setting by its name or an alias.

    With its ETag in `If-Match`, a change of the setting is refused if somebody else has changed it.
    """
    with database.read() as connection:
        database.state(connection)
        setting = require_setting(connection, name)
        response.headers["ETag"] = setting_etag(setting)
        return _setting_body(setting, is_complete=True)


@router.delete("/api/v1/settings/{name}", status_code=204, responses=documented(_NOT_FOUND | PRECONDITION_FAILED))
def delete_setting(name: SettingPath, database: RequestDatabase, precondition: Precondition) -> None:
    """Delete a setting with its rules and aliases."""
    with database.write() as connection:
        store.delete_setting(
            connection, _require_unchanged(connection, name, precondition, message="setting name not found")
        )


@router.put(
    "/api/v1/settings/{name}/name",
    status_code=204,
    responses=documented(
        _NOT_FOUND | PRECONDITION_FAILED | {409: "The name is taken, or the version is not higher than the setting's."}
    ),
)
def rename_setting(
    name: SettingPath,
    body: Annotated[NewName, Body(openapi_examples=example({"name": "cache_entries", "version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Rename a setting, also to one of its aliases. The former name becomes an alias."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition, message="setting does not exist")
        setting_operations.rename(connection, setting, body.name, body.version)


@router.put(
    "/api/v1/settings/{name}/type",
    status_code=204,
    response_model=None,
    responses=documented(
        _NOT_FOUND
        | PRECONDITION_FAILED
        | {
            409: "The default value or a value of a rule is not of the type: `conflicts` lists them. Or the version is "
            "not high enough."
        }
    ),
)
def set_type(
    name: SettingPath,
    body: Annotated[NewType, Body(openapi_examples=example({"type": "float", "version": "2.0"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> JSONResponse | None:
    """Change the type of a setting, if its default value and the values of its rules are of the new type."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        conflicts = setting_operations.set_type(connection, setting, parse_setting_type(body.type), body.version)
        return JSONResponse({"conflicts": conflicts}, 409) if conflicts else None


@router.put(
    "/api/v1/settings/{name}/configurable_features",
    status_code=204,
    responses=documented(
        {
            404: "There is no such setting or context feature.",
            409: "A rule has a condition on a removed feature, or the version is not high enough.",
        }
        | PRECONDITION_FAILED
    ),
)
def set_configurable_features(
    name: SettingPath,
    body: Annotated[
        NewFeatures,
        Body(openapi_examples=example({"configurable_features": ["environment", "user", "theme"], "version": "2.0"})),
    ],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Change the configurable features of a setting, if no rule has a condition on a removed feature."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        setting_operations.set_features(connection, setting, body.configurable_features, body.version)


@router.get(
    "/api/v1/settings/{name}/metadata",
    responses=documented(_NOT_FOUND, body={"metadata": {"owner": "shop"}}),
)
def get_metadata(name: SettingPath, database: RequestDatabase) -> dict[str, Any]:
    """Return the metadata of a setting."""
    with database.read() as connection:
        return {"metadata": dict(require_setting(connection, name).declaration.metadata)}


@router.post("/api/v1/settings/{name}/metadata", status_code=204, responses=documented(_FOR_METADATA))
def add_metadata(
    name: SettingPath,
    body: Annotated[NewMetadata, Body(openapi_examples=example({"metadata": {"tier": 1}, "version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Add metadata to a setting, and replace those with the same keys."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        merged = {**setting.declaration.metadata, **body.metadata}
        setting_operations.set_metadata(connection, setting, merged, body.version)


@router.put("/api/v1/settings/{name}/metadata", status_code=204, responses=documented(_FOR_METADATA))
def replace_metadata(
    name: SettingPath,
    body: Annotated[NewMetadata, Body(openapi_examples=example({"metadata": {"owner": "search"}, "version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Replace the metadata of a setting."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        setting_operations.set_metadata(connection, setting, body.metadata, body.version)


@router.delete(
    "/api/v1/settings/{name}/metadata",
    status_code=204,
    responses=documented(_FOR_METADATA),
)
def delete_metadata(
    name: SettingPath,
    body: Annotated[NewVersion, Body(openapi_examples=example({"version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Delete the metadata of a setting."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        setting_operations.set_metadata(connection, setting, {}, body.version)


@router.put("/api/v1/settings/{name}/metadata/{key}", status_code=204, responses=documented(_FOR_METADATA))
def set_metadata_key(
    name: SettingPath,
    key: KeyPath,
    body: Annotated[NewMetadataValue, Body(openapi_examples=example({"value": "search", "version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Set a metadata key of a setting."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        merged = {**setting.declaration.metadata, key: body.value}
        setting_operations.set_metadata(connection, setting, merged, body.version)


@router.delete(
    "/api/v1/settings/{name}/metadata/{key}",
    status_code=204,
    responses=documented({404: "There is no such setting or metadata key."} | PRECONDITION_FAILED | _VERSION_TOO_LOW),
)
def delete_metadata_key(
    name: SettingPath,
    key: KeyPath,
    body: Annotated[NewVersion, Body(openapi_examples=example({"version": "1.1"}))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Delete a metadata key of a setting."""
    with database.write() as connection:
        setting = _require_unchanged(connection, name, precondition)
        rest = without_key(setting.declaration.metadata, key)
        setting_operations.set_metadata(connection, setting, rest, body.version)


@router.put(
    "/api/v1/settings/{name}/aliases/{alias}",
    status_code=204,
    responses=documented(_NOT_FOUND | PRECONDITION_FAILED | {409: "It is the name of a setting, or its alias."}),
)
def add_alias(
    name: SettingPath,
    alias: Annotated[NewSettingName, Path(openapi_examples=example("cache_entries"))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Add an alias to a setting, by which programs can read it as well. The version stays the same."""
    with database.write() as connection:
        setting_operations.add_alias(connection, _require_unchanged(connection, name, precondition), alias)


@router.delete(
    "/api/v1/settings/{name}/aliases/{alias}",
    status_code=204,
    responses=documented({404: "There is no such setting, or it does not have the alias."} | PRECONDITION_FAILED),
)
def delete_alias(
    name: SettingPath,
    alias: Annotated[str, Path(openapi_examples=example("cache_limit"))],
    database: RequestDatabase,
    precondition: Precondition,
) -> None:
    """Delete an alias of a setting. Programs can no longer read the setting by it. The version stays the same."""
    with database.write() as connection:
        setting_operations.delete_alias(connection, _require_unchanged(connection, name, precondition), alias)


def _require_unchanged(
    connection: Connection, name: str, precondition: Precondition, *, message: str | None = None
) -> StoredSetting:
    """Return a setting that is to be changed.

    Raises:
        RequestError: There is no such setting, or it has been changed since it was read.
    """
    setting = require_setting(connection, name, message=message)
    precondition.check(setting_etag(setting))
    return setting


def _setting_body(setting: StoredSetting, *, is_complete: bool) -> dict[str, Any]:
    declaration = setting.declaration
    body: dict[str, Any] = {
        "name": declaration.name,
        "type": str(declaration.type),
        "default_value": declaration.default_value,
        "version": declaration.version,
    }
    if is_complete:
        body["configurable_features"] = list(declaration.configurable_features)
        body["metadata"] = dict(declaration.metadata)
        body["aliases"] = list(setting.aliases)
    return body
