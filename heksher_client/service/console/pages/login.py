"""Login and logout.

If the session has ended when a form is submitted, the login keeps what was entered: the login form has the fields of
the form in hidden inputs, and after the login, a page asks whether to submit them. Nothing of them is stored, or in an
address or a cookie.
"""

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from heksher_client.service.addresses import reference
from heksher_client.service.console import security
from heksher_client.service.console.forms import Form, LoginForm, entered, text
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.rendering import render
from heksher_client.service.routing import RequestDatabase
from heksher_client.service.tokens import create_session, delete_session, find_token

router: Final = APIRouter(prefix="/console", include_in_schema=False)
_MAX_FORM_BYTES: Final = 1 << 16
"""The body of a form that the login keeps. Anyone may send it, and the login form, which has the address of a page."""
_MAX_LOGIN_BYTES: Final = 2 * _MAX_FORM_BYTES
_KEPT: Final = "form."
"""The beginning of the names of the fields that the login form keeps."""


@router.get("/login")
def show_login(request: Request, next: str = "/console") -> Response:
    """Show the login form."""
    return _login_page(request, next, {})


@router.post("/login/again", max_body_size=_MAX_FORM_BYTES)
def show_login_for_form(request: Request, form: Form, next: str = "/console") -> Response:
    """Show the login form, which keeps the fields of another form that was submitted after its session had ended.

    Its CSRF token is that of the ended session, whose cookie the browser still has. So it is a form of the console.
    """
    response = _login_page(request, next, {name: values for name, values in form.items() if name != "csrf"})
    response.headers["HX-Push-Url"] = "false"
    return response


@router.post("/login", max_body_size=_MAX_LOGIN_BYTES)
def log_in(request: Request, database: RequestDatabase, form: LoginForm) -> Response:
    """Create a session for the owner of a token, and lead to a page, or ask whether to submit a form."""
    target = text(form, "next")
    fields = {name.removeprefix(_KEPT): values for name, values in form.items() if name.startswith(_KEPT)}
    if fields:  # Also a page of another site could send them.
        security.check_csrf_token(request, text(form, "csrf"))
    with database.read() as connection:
        token = find_token(connection, text(form, "token"))
    if token is None:
        return _login_page(request, target, fields, 422, "this token is unknown, expired or revoked")
    with database.write() as connection:
        session = create_session(connection, token)
    is_page = target.startswith("/console") and not target.startswith("/console/login")
    if is_page and fields:
        security.begin_session(request, session)
        shown = entered(fields)
        return render(request, "continue.html", action=target, name=token.name, fields=fields, entered=shown)
    response = RedirectResponse(reference(request.scope, target.lstrip("/") if is_page else "console"), 303)
    security.set_session(request, response, session)
    return response


def _login_page(request: Request, target: str, fields: Fields, status: int = 200, error: str = "") -> Response:
    """Return the login form.

    Args:
        request: The request.
        target: The address of the page that the login leads to, or of the form with the fields.
        fields: The fields of a form that the login keeps.
        status: The status of the response.
        error: The reason why the login has failed.
    """
    kept = {f"{_KEPT}{name}": values for name, values in fields.items()}
    return render(request, "login.html", status, next=target, error=error, fields=kept, entered=entered(fields))


@router.post("/logout")
def log_out(request: Request, database: RequestDatabase, form: Form) -> Response:  # noqa: ARG001 - for its checks
    """End the session."""
    with database.write() as connection:
        delete_session(connection, security.session_of(request))
    response = RedirectResponse(reference(request.scope, "console/login"), 303)
    security.clear_session(request, response)
    return response
