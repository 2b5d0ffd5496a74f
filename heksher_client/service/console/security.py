"""Protection of the console against other pages in the same browser: headers, session cookies, and CSRF tokens."""

from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Final

from fastapi import Request, Response

from heksher_client.service.access import SESSION_COOKIE, is_from_other_site, session_cookie
from heksher_client.service.addresses import cookie_path
from heksher_client.service.routing import RequestError

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Swagger UI uses inline styles and images.
API_HEADERS: Final = HEADERS | {
    "Content-Security-Policy": _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
        "img-src 'self'", "img-src 'self' data:"
    )
}


def session_of(request: Request) -> str:
    """Return the session of a request. Without access control, it only identifies a browser."""
    session: str = getattr(request.state, "new_session", "") or session_cookie(request.scope)
    return session


def begin_session(request: Request, session: str) -> None:
    """Begin a session with this request: the page in the response has its cookie, and its CSRF token."""
    request.state.new_session = session


def ensure_session(request: Request, response: Response) -> None:
    """Set the session cookie if the session begins with this request."""
    if session := getattr(request.state, "new_session", ""):
        set_session(request, response, session)


def csrf_token(request: Request) -> str:
    """Return the token for the forms of a session. Other sites cannot read it."""
    if not session_of(request):
        begin_session(request, token_urlsafe(32))
    return sha256(f"form {session_of(request)}".encode()).hexdigest()


def check_origin(request: Request) -> None:
    """Check that a form was not submitted by a page of another site.

    Raises:
        RequestError: The page belongs to another site.
    """
    if is_from_other_site(request.scope):
        raise RequestError(
            403,
            "the form was submitted by a page of another site, or a proxy has changed the host of the request: then it "
            "must send the former one as X-Forwarded-Host, or leave it as it is",
        )


def check_csrf_token(request: Request, token: str) -> None:
    """Check that a form was created for the session of the request.

    Raises:
        RequestError: The token belongs to another session.
    """
    if not session_cookie(request.scope) or not compare_digest(token.encode(), csrf_token(request).encode()):
        raise RequestError(403, "the session of this page has expired: go back, reload the page, and try again")


def set_session(request: Request, response: Response, session: str) -> None:
    """Set the session cookie. Scripts cannot read it."""
    response.set_cookie(
        SESSION_COOKIE,
        session,
        path=cookie_path(request.scope),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def clear_session(request: Request, response: Response) -> None:
    """Delete the session cookie."""
    response.delete_cookie(SESSION_COOKIE, path=cookie_path(request.scope))
