"""The endpoints of access tokens, for administrators only."""

from datetime import UTC, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, Field

from heksher_client.service import tokens
from heksher_client.service.routing import (
    NO_ETAG,
    WITHOUT_ETAG,
    NewTokenName,
    RequestDatabase,
    RequestError,
    documented,
    example,
)
from heksher_client.service.tokens import Role, Token, TokenError

router: Final = APIRouter(strict_content_type=False)  # as all endpoints
_MAX_LIFETIME: Final = 36_500 * 24 * 3600
"""Seconds: 100 years."""
_TIMES: Final = {"created_at": "2026-01-31T09:30:00+00:00", "expires_at": "2027-01-31T09:30:00+00:00"}
_SHOP: Final = {"name": "shop", "role": "declare", **_TIMES, "expired": False}
_CREATED: Final = {"name": "dashboard", "role": "read", **_TIMES, "expired": False, "token": "heksher_…"}


class NewToken(BaseModel):
    name: NewTokenName
    role: Role = Role.DECLARE
    lifetime: Annotated[int, Field(ge=1, le=_MAX_LIFETIME)] | None = None
    """Seconds until the token expires; without it, the token does not expire."""


@router.get("/api/v1/tokens", responses=documented(body={"tokens": [_SHOP]}))
def list_tokens(database: RequestDatabase) -> dict[str, Any]:
    """Return all tokens, sorted by name. Their texts are not stored."""
    with database.read() as connection:
        return {"tokens": list(map(_token_body, tokens.list_tokens(connection)))}


@router.post(
    "/api/v1/tokens",
    status_code=201,
    dependencies=WITHOUT_ETAG,
    responses=documented({409: "A token with this name exists."} | NO_ETAG, body=_CREATED, status=201),
)
def create_token(
    body: Annotated[
        NewToken, Body(openapi_examples=example({"name": "dashboard", "role": "read", "lifetime": 31_536_000}))
    ],
    database: RequestDatabase,
    response: Response,
) -> dict[str, Any]:
    """Create a token. This response alone contains its text, as `token`."""
    response.headers["Cache-Control"] = "no-store"
    lifetime = None if body.lifetime is None else timedelta(seconds=body.lifetime)
    with database.write() as connection:
        try:
            text = tokens.add_token(connection, body.name, body.role, lifetime=lifetime)
        except TokenError as error:
            raise RequestError(409, str(error)) from None
        created = tokens.stored_token(connection, body.name)
        assert created is not None  # noqa: S101 - in this transaction
        return {**_token_body(created), "token": text}


@router.delete(
    "/api/v1/tokens/{name}",
    status_code=204,
    dependencies=WITHOUT_ETAG,
    responses=documented({404: "There is no such token."} | NO_ETAG),
)
def revoke_token(name: Annotated[str, Path(openapi_examples=example("shop"))], database: RequestDatabase) -> None:
    """Revoke a token. It is refused within a second, its event streams end, and so do its sessions in the console."""
    with database.write() as connection:
        try:
            tokens.revoke_token(connection, name)
        except TokenError as error:
            raise RequestError(404, str(error)) from None


def _token_body(token: Token) -> dict[str, Any]:
    expires_at = None if token.expires_at is None else token.expires_at.astimezone(UTC).isoformat()
    return {**token.as_json(), "expires_at": expires_at, "expired": token.is_expired}
