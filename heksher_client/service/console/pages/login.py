"""Login and logout."""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from heksher_client.service.addresses import reference
from heksher_client.service.console import security
from heksher_client.service.console.forms import Form, LoginForm, text
from heksher_client.service.console.rendering import render
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.tokens import create_session, delete_session, find_token

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_LOGIN_BYTES: Final = 1 << 16
"""The body of the login form, which anyone may send. It contains the address of a page, which may be as long."""


@router.get("/login")
def show_login(request: Request, next: str = "/console") -> Response:
    """Show the login form."""
    return render(request, "login.html", next=next, error="")


@router.post("/login", max_body_size=_MAX_LOGIN_BYTES)
def log_in(request: Request, database: RequestDatabase, form: LoginForm) -> Response:
    """Create a session for the owner of a token."""
    target = text(form, "next")
    with database.read() as connection:
        token = find_token(connection, text(form, "token"))
    if token is None:
        return render(request, "login.html", 422, next=target, error="this token is unknown, expired or revoked")
    with database.write() as connection:
        session = create_session(connection, token)
    is_page = target.startswith("/console") and not target.startswith("/console/login")
    page = target.lstrip("/") if is_page else "console"
    response = RedirectResponse(reference(request.scope, page), 303)
    security.set_session(request, response, session)
    return response


@router.post("/logout")
def log_out(request: Request, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - for its checks
    """End the session."""
    with database.write() as connection:
        delete_session(connection, security.session_of(request))
    response = RedirectResponse(reference(request.scope, "console/login"), 303)
    security.clear_session(request, response)
    return response
