"""Who is let in. One place decides what a request needs, before anything of it is read."""

import re
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic
from typing import Final
from urllib.parse import quote, urlsplit

from anyio.to_thread import run_sync
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from heksher_client.service.database import Database
from heksher_client.service.tokens import Role, Token, find_session, find_token

SESSION_COOKIE: Final = "heksher_session"
_OPEN: Final = re.compile(r"/|/api/(health|ready)|/docs|/openapi\.json|/console/(login|assets/.*)")
"""The paths that tell no secrets, and change nothing."""
_HARMLESS_POSTS: Final = frozenset(["/api/v1/settings/declare", "/console/logout"])
"""What the owner of a token for reading may do as well: a program that reads settings declares them first."""
_SECONDS: Final = 1.0
"""How long what was found out about a token is relied on."""
_MOST_KNOWN: Final = 1_000

Finding = Callable[[Connection, str], Token | None]


def needed_role(method: str, path: str) -> Role | None:
    """The role that a request needs; None if anybody may send it."""
    if _OPEN.fullmatch(path):
        return None
    return Role.READ if method in ("GET", "HEAD", "OPTIONS") or path in _HARMLESS_POSTS else Role.ADMIN


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # the name of some machine


def token_of(scope: Scope) -> Token | None:
    """The token of a request that was let in; None where none is needed."""
    token: Token | None = scope.get("heksher.token")
    return token


class AccessControl:
    """Lets requests in that need no token, or have one with the role that they need."""

    def __init__(self, app: ASGIApp, database: Database, required: bool | None) -> None:
        """Control the access to an application.

        Args:
            app: The application.
            database: Has the tokens.
            required: Whether tokens are needed; None for at any other address than loopback.
        """
        self._app, self._database, self._required = app, database, required
        self._known: OrderedDict[tuple[Finding, str], tuple[float, Token | None]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            if self._is_required(scope):
                refusal = await self._refusal(scope)
            elif self._required is None and not _is_from_here(scope):
                refusal = _FROM_ELSEWHERE
        await (refusal or self._app)(scope, receive, send)

    def _is_required(self, scope: Scope) -> bool:
        if self._required is None:
            server = scope.get("server")
            return server is None or not is_loopback(server[0])
        return self._required

    async def _refusal(self, scope: Scope) -> Response | None:
        """What to answer to somebody who is not let in."""
        path: str = scope["path"]
        role = needed_role(scope["method"], path)
        if role is None:
            return None
        is_console = path.startswith("/console")
        credentials = session_in(scope) if is_console else _bearer(scope)
        try:
            token = await self._find(find_session if is_console else find_token, credentials)
        except SQLAlchemyError:
            return PlainTextResponse("the database does not answer", 500)
        if token is None:
            return _login(scope) if is_console else _UNKNOWN
        if role is Role.ADMIN and token.role is not Role.ADMIN:
            return PlainTextResponse(f"the token {token.name} is for reading; this needs one with the role admin", 403)
        scope["heksher.token"] = token
        return None

    async def _find(self, finding: Finding, text: str) -> Token | None:
        """Look a token up, unless that was done a moment ago."""
        if not text:
            return None
        key, now = (finding, text), monotonic()
        found_at, token = self._known.get(key, (-_SECONDS, None))
        if now - found_at >= _SECONDS:
            token = await run_sync(self._look_up, finding, text)
            self._known[key] = now, token
            self._known.move_to_end(key)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return None if token is None or token.is_expired else token

    def _look_up(self, finding: Finding, text: str) -> Token | None:
        with self._database.begin(writes=False) as connection:
            return finding(connection, text)


def _is_from_here(scope: Scope) -> bool:
    """Whether a request names this machine as it reaches it, and was passed on by nobody.

    A page of another site, whose name was made to lead here, names that; and proxies say that they are there, if they
    are told to.
    """
    headers = Headers(scope=scope)
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    is_local = is_loopback(host) or host.endswith(".localhost")
    return is_local and not any(name in headers for name in _OF_PROXIES)


_OF_PROXIES: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_FROM_ELSEWHERE: Final = PlainTextResponse(
    "this service needs no token, as it is for this machine alone; but the request was sent to another name, or came "
    "by way of a proxy. Whoever has a proxy in front of it decides: --access-control, or --no-access-control",
    403,
)
_UNKNOWN: Final = PlainTextResponse(
    "a token is needed, as `Authorization: Bearer TOKEN`; one that was given is unknown, expired or revoked",
    401,
    {"WWW-Authenticate": "Bearer"},
)


def _bearer(scope: Scope) -> str:
    scheme, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def session_in(scope: Scope) -> str:
    """The session that a browser says it has."""
    return cookie_parser(Headers(scope=scope).get("cookie", "")).get(SESSION_COOKIE, "")


def _login(scope: Scope) -> Response:
    where = "/console"
    headers = Headers(scope=scope)
    if scope["method"] == "GET" and "hx-target" not in headers:
        query = scope["query_string"].decode("ascii", "replace")
        where = scope["path"] + (f"?{query}" if query else "")
    target = f"/console/login?next={quote(where, safe='')}"
    if "hx-request" in headers:  # A script has sent it, which would follow a redirect without a word.
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)
