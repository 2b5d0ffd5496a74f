"""What keeps other pages in the same browser from using the console."""

from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Final

from fastapi import Request, Response

from heksher_client.service.access import SESSION_COOKIE, session_in
from heksher_client.service.routing import RefusalError

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
# Swagger's interface puts styles and pictures into its page.
HEADERS_OF_API: Final = HEADERS | {
    "Content-Security-Policy": _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
        "img-src 'self'", "img-src 'self' data:"
    )
}


def session_of(request: Request) -> str:
    """The session of a request; without access control it means nothing but that two requests are of one browser."""
    session: str = session_in(request.scope) or getattr(request.state, "new_session", "")
    return session


def begin_browsing(request: Request, response: Response) -> None:
    """Give the browser a session, unless it has one."""
    if not session_in(request.scope):
        set_session(request, response, request.state.new_session)


def form_secret(request: Request) -> str:
    """What forms carry, which other pages cannot know."""
    if not session_of(request):
        request.state.new_session = token_urlsafe(32)
    return sha256(f"form {session_of(request)}".encode()).hexdigest()


def check_origin(request: Request) -> None:
    """Refuse what another site's page has sent.

    Raises:
        RefusalError: It is that.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_foreign = site not in (None, "same-origin", "none")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        is_foreign = True
    if is_foreign:
        raise RefusalError(403, "this form was sent by a page of another site")


def check_form(request: Request, secret: str) -> None:
    """Refuse a form that was not made for this session.

    Raises:
        RefusalError: It was not.
    """
    if not session_in(request.scope) or not compare_digest(secret.encode(), form_secret(request).encode()):
        raise RefusalError(403, "this page is too old to change anything: go back, reload it, and try again")


def set_session(request: Request, response: Response, session: str) -> None:
    """Have the browser remember its session, where no script sees it."""
    response.set_cookie(
        SESSION_COOKIE, session, path="/console", httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )


def clear_session(response: Response) -> None:
    """Have the browser forget its session."""
    response.delete_cookie(SESSION_COOKIE, path="/console")
