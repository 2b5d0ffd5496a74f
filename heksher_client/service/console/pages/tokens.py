"""The page of access tokens, for administrators only."""

from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from heksher_client.service import tokens
from heksher_client.service.console.forms import Form, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.outcomes import Entered, FormError, done_change, redirect_to_done
from heksher_client.service.console.pages.settings import Revision
from heksher_client.service.console.rendering import page
from heksher_client.service.routing import RequestDatabase, RequestError
from heksher_client.service.tokens import Role, Token, TokenError

router: Final = APIRouter(prefix="/console/tokens", include_in_schema=False)
_MAX_DAYS: Final = 36_500
_ROLES: Final = {
    Role.READ: "read everything",
    Role.DECLARE: "also declare settings, as programs do",
    Role.ADMIN: "change everything",
}


@router.get("")
def list_tokens(request: Request, database: RequestDatabase, done: Revision = 0) -> Response:
    """Show all tokens."""
    with database.read() as connection:
        return _page(request, connection, done=done_change(request, connection, done))


@router.post("")
def create_token(request: Request, database: RequestDatabase, form: Form) -> Response:
    """Create a token, and show its text.

    The response is the page itself: after a redirect, the text would have to be stored or be in the address. It is
    neither cached by the browser (`Cache-Control: no-store`, as for all pages) nor logged.
    """
    with database.write() as connection:
        try:
            name = text(form, "name")
            created = tokens.add_token(connection, name, _role(form), lifetime=_lifetime(form))
        except FormError as error:
            return _page(request, connection, error.status, entered=Entered("new", form, error.errors))
        except TokenError as error:
            return _page(request, connection, 422, entered=Entered("new", form, {"name": str(error)}))
        return _page(request, connection, 201, created=(name, created))


@router.post("/{name}/revoke")
def revoke_token(request: Request, name: str, database: RequestDatabase, form: Form) -> Response:
    """Revoke a token, unless it has been replaced by another one with its name since the page was loaded."""
    with database.write() as connection:
        token = tokens.stored_token(connection, name)
        if token is None:
            raise RequestError(404, f"the token {name} does not exist any more")
        if text(form, "created_at") != _identity(token):
            raise RequestError(409, f"the token {name} is another one than the page has shown; nothing was revoked")
        tokens.revoke_token(connection, name)
        return redirect_to_done(request, connection, "console/tokens")


def _page(request: Request, connection: Connection, status: int = 200, **values: Any) -> Response:
    found = tokens.list_tokens(connection)
    admins = [token.name for token in found if token.role is Role.ADMIN and not token.is_expired]
    shown = {"done": None, "back": "/console/tokens", "entered": Entered(), "created": None} | values
    return page(
        request,
        "tokens.html",
        connection,
        status=status,
        tokens=[(token, _identity(token)) for token in found],
        last_admin=admins[0] if len(admins) == 1 else None,
        roles=_ROLES,
        max_days=_MAX_DAYS,
        **shown,
    )


def _identity(token: Token) -> str:
    return token.as_json()["created_at"]


def _role(form: Fields) -> Role:
    try:
        return Role(text(form, "role"))
    except ValueError:
        raise FormError(f"use one of {', '.join(Role)}", at="role") from None


def _lifetime(form: Fields) -> timedelta | None:
    days = text(form, "days")
    if not days:
        return None
    if not (days.isascii() and days.isdecimal() and len(days) <= len(str(_MAX_DAYS)) and 1 <= int(days) <= _MAX_DAYS):
        raise FormError(f"use a whole number from 1 to {_MAX_DAYS:,}, or leave it empty", at="days")
    return timedelta(days=int(days))
