"""The endpoints of context features and their order."""

from typing import Annotated, Final

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, model_validator

from heksher_client.service import feature_operations, store
from heksher_client.service.routing import (
    NO_ETAG,
    WITHOUT_ETAG,
    ContextName,
    RequestDatabase,
    RequestError,
    documented,
    example,
)

router: Final = APIRouter(strict_content_type=False)  # as in the reference implementation
_NOT_FOUND: Final = {404: "There is no such context feature."}

# Names of existing features are not checked: one that is not valid does not exist, as in the reference implementation.
ThemePath = Annotated[str, Path(openapi_examples=example("theme"))]


class NewContextFeature(BaseModel):
    context_feature: ContextName


class NewPlace(BaseModel):
    """The new position of a context feature. Exactly one of the two is required."""

    to_before: str | None = None
    to_after: str | None = None

    @model_validator(mode="after")
    def _has_one_position(self) -> "NewPlace":
        if (self.to_before is None) == (self.to_after is None):
            raise ValueError("either to_before or to_after must be given")
        return self


@router.get(
    "/api/v1/context_features", responses=documented(body={"context_features": ["environment", "user", "theme"]})
)
def list_context_features(database: RequestDatabase) -> dict[str, list[str]]:
    """Return all context features, in their order."""
    with database.read() as connection:
        database.state(connection)
        return {"context_features": store.context_features(connection)}


@router.get("/api/v1/context_features/{name}", responses=documented(_NOT_FOUND, body={"index": 1}))
def get_context_feature(
    name: Annotated[str, Path(openapi_examples=example("user"))], database: RequestDatabase
) -> dict[str, int]:
    """Return the position of a context feature, counted from 0."""
    with database.read() as connection:
        features = store.context_features(connection)
        if name not in features:
            raise RequestError(404)
        return {"index": features.index(name)}


@router.post(
    "/api/v1/context_features",
    status_code=204,
    dependencies=WITHOUT_ETAG,
    responses=documented({409: "The context feature already exists."} | NO_ETAG),
)
def add_context_feature(
    body: Annotated[NewContextFeature, Body(openapi_examples=example({"context_feature": "region"}))],
    database: RequestDatabase,
) -> None:
    """Add a context feature after all others."""
    with database.write() as connection:
        feature_operations.add(connection, body.context_feature)


@router.patch(
    "/api/v1/context_features/{name}/index",
    status_code=204,
    dependencies=WITHOUT_ETAG,
    responses=documented({404: "There is no such context feature, or none to move it before or after."} | NO_ETAG),
)
def move_context_feature(
    name: ThemePath,
    body: Annotated[NewPlace, Body(openapi_examples=example({"to_before": "user"}))],
    database: RequestDatabase,
) -> None:
    """Move a context feature before or after another one. This changes the priority of rules."""
    with database.write() as connection:
        other = body.to_after if body.to_before is None else body.to_before
        feature_operations.move(connection, name, str(other), is_after=body.to_after is not None)


@router.delete(
    "/api/v1/context_features/{name}",
    status_code=204,
    dependencies=WITHOUT_ETAG,
    responses=documented(_NOT_FOUND | {409: "At least one setting is configurable by the context feature."} | NO_ETAG),
)
def delete_context_feature(name: ThemePath, database: RequestDatabase) -> None:
    """Delete a context feature that no setting is configurable by."""
    with database.write() as connection:
        feature_operations.delete(connection, name)
