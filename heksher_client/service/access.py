"""Access control. It is decided here for all requests, before their bodies are read."""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, urlsplit

from anyio.to_thread import run_sync
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from heksher_client._clock import monotonic
from heksher_client.service.addresses import reference, route_path
from heksher_client.service.changes import TOKEN_ACTIONS, Change
from heksher_client.service.database import Database
from heksher_client.service.tokens import Role, Token, find_session, find_token

SESSION_COOKIE: Final = "heksher_session"
_PUBLIC_PATHS: Final = re.compile(r"/?|/api/(health|ready)|/docs|/openapi\.json|/console/(login(/|/again)?|assets/.*)")
_ADMIN_PATHS: Final = re.compile(r"/(api/v1|console)/tokens(/.*)?", re.DOTALL)
"""The role `admin` is required for all requests: also the names of tokens are for administrators only."""
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_READER_POSTS: Final = frozenset(["/api/v1/settings/declare", "/console/logout"])
"""Allowed with the role `read`, although they are POST requests. A declaration that changes nothing is a read."""
_CACHE_SECONDS: Final = 1.0
"""How long the result of a token lookup is reused."""
_MAX_CACHED_TOKENS: Final = 1_000
_MAX_TOKEN_LENGTH: Final = 200
"""Longer texts are not looked up. They would fill the memory of the cache."""
_MAX_FIELDS: Final = 1_000
"""Fields of a query string. Their parsing takes time, also before a token is needed."""

ErrorResponse = Callable[[Request, int, str], Response]
"""Returns the response with a status and a message."""
TokenLookup = Callable[[Connection, str], Token | None]


def required_role(method: str, path: str) -> Role | None:
    """Return the role that a request needs; None if it needs no token."""
    if _PUBLIC_PATHS.fullmatch(path):
        return None
    if _ADMIN_PATHS.fullmatch(path):
        return Role.ADMIN
    return Role.READ if method in _SAFE_METHODS or path in _READER_POSTS else Role.ADMIN


def is_loopback(host: str) -> bool:
    """Return True if only this machine can connect to an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # another host name


def request_token(scope: Scope) -> Token | None:
    """Return the token that a request was accepted with; None if it needed none."""
    token: Token | None = scope.get("heksher.token")
    return token


def is_admin(scope: Scope) -> bool:
    """Return True if a request may do everything: its token has the role `admin`, or it needs none."""
    token = request_token(scope)
    return token is None or token.role is Role.ADMIN


def visible_changes(scope: Scope, found: Sequence[Change]) -> list[Change]:
    """Return changes as a request may see them: the content of those of tokens is for administrators only."""
    is_complete = is_admin(scope)
    return [
        replace(change, former=None, new=None) if change.action in TOKEN_ACTIONS and not is_complete else change
        for change in found
    ]


def missing_role(token: Token, role: Role) -> str:
    """Return the message that a token does not have a role."""
    return f"the token {token.name} has the role {token.role}; this request needs the role {role}"


class AccessControl:
    """A middleware that refuses requests without a token that has the required role, or from pages of other sites."""

    def __init__(self, app: ASGIApp, database: Database, required: bool | None, show_error: ErrorResponse) -> None:
        """Control the access to an application.

        Args:
            app: The application.
            database: The database with the tokens.
            required: Whether requests need tokens; None if they do unless they arrive at a loopback address.
            show_error: Returns the response to a refused request of the console.
        """
        self._app, self._database, self._required, self._show_error = app, database, required, show_error
        self._cache: OrderedDict[tuple[TokenLookup, str], tuple[float, Token | None]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            _remove_other_cookies(scope)
            if self._is_required(scope):
                refusal = await self._check_token(scope)
            elif self._required is None and not _is_local(scope):
                refusal = _NOT_LOCAL
            refusal = refusal or _check_form(scope)
            if isinstance(refusal, PlainTextResponse) and is_page(scope):
                refusal = self._show_error(Request(scope), refusal.status_code, bytes(refusal.body).decode())
        await (refusal or self._app)(scope, receive, send)

    def _is_required(self, scope: Scope) -> bool:
        if self._required is None:
            server = scope.get("server")
            return server is None or not is_loopback(server[0])
        return self._required

    async def _check_token(self, scope: Scope) -> Response | None:
        """Store the token of a request in its scope, or return the response that refuses it."""
        path = route_path(scope)
        role = required_role(scope["method"], path)
        if role is None:
            return None
        is_console = is_page(scope)
        credentials = session_cookie(scope) if is_console else _bearer_token(scope)
        try:
            token = await self._find_cached(find_session if is_console else find_token, credentials)
        except SQLAlchemyError:
            return PlainTextResponse("the database is not available", 500)
        if token is None:
            return _redirect_to_login(scope) if is_console else _UNAUTHORIZED
        if not token.role.includes(role):
            return PlainTextResponse(missing_role(token, role), 403)
        scope["heksher.token"] = token
        return None

    async def _find_cached(self, lookup: TokenLookup, text: str) -> Token | None:
        if not 0 < len(text) <= _MAX_TOKEN_LENGTH:
            return None
        key, now = (lookup, text), monotonic()
        found_at, token = self._cache.get(key, (-_CACHE_SECONDS, None))
        if now - found_at >= _CACHE_SECONDS:
            token = await run_sync(self._find, lookup, text)
            self._cache[key] = now, token
            self._cache.move_to_end(key)
            if len(self._cache) > _MAX_CACHED_TOKENS:
                self._cache.popitem(last=False)
        return None if token is None or token.is_expired else token

    def _find(self, lookup: TokenLookup, text: str) -> Token | None:
        with self._database.begin(writes=False) as connection:
            return lookup(connection, text)


def _is_local(scope: Scope) -> bool:
    """Return True if a request names this machine as its host, and no proxy says that it forwarded the request.

    A page of another site may have its own host name resolve to this machine (DNS rebinding). Its requests then name
    that host. Proxies add headers to requests only if they are configured to.
    """
    headers = Headers(scope=scope)
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    has_local_host = is_loopback(host) or host.endswith(".localhost")
    return has_local_host and not any(name in headers for name in _PROXY_HEADERS)


_PROXY_HEADERS: Final = (
    "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
    "x-forwarded-proto", "x-real-ip",
)  # fmt: skip
_NOT_LOCAL: Final = PlainTextResponse(
    "without tokens, this service accepts requests from this machine only; the request names another host, or came "
    "through a proxy. Behind a proxy, start the service with --access-control or --no-access-control",
    403,
)
_UNAUTHORIZED: Final = PlainTextResponse(
    "the request needs a token, sent as `Authorization: Bearer TOKEN`; an unknown, expired or revoked token is refused",
    401,
    {"WWW-Authenticate": "Bearer"},
)


_TOO_MANY_FIELDS: Final = PlainTextResponse(f"the query string has more than {_MAX_FIELDS:,} fields", 400)
_OTHER_SITE: Final = PlainTextResponse(
    "a page of another site may not send requests without a Content-Type; send application/json", 403
)


def _check_form(scope: Scope) -> Response | None:
    """Return the response that refuses a request for its form, whatever its token is; None if it is acceptable.

    A page of another site can make a browser send a body without a type, which the API accepts as JSON.
    """
    if scope["query_string"].count(b"&") >= _MAX_FIELDS:
        return _TOO_MANY_FIELDS
    headers = Headers(scope=scope)
    is_untyped = scope["method"] not in _SAFE_METHODS and not headers.get("content-type")
    return _OTHER_SITE if is_untyped and is_from_other_site(scope) else None


_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def is_from_other_site(scope: Scope) -> bool:
    """Return True if a page of another site has sent a request, as far as its headers show.

    `Sec-Fetch-Site` decides if the browser sends it, which it does only to https and to loopback. Otherwise, the origin
    of the page must be the host that the request names, or the host that a proxy reports: pages cannot set this header.
    If these hosts have no port, it is the one that a proxy reports.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is None:
        return False
    scheme, _, host = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme, "")
    port = _first(headers, "x-forwarded-port")
    named = [headers.get("host", ""), _first(headers, "x-forwarded-host")]
    hosts = [_with_port(each.lower(), port).removesuffix(default) for each in named if each]
    return host.removesuffix(default) not in hosts


def _first(headers: Headers, name: str) -> str:
    """Return the value that the first one of several proxies has set."""
    return headers.get(name, "").partition(",")[0].strip()


def _with_port(host: str, port: str) -> str:
    """Return a host with a port that it lacks. A proxy after the one that terminates TLS may report a default port."""
    has_port = re.search(":[0-9]*$", host) is not None
    is_other = port.isdecimal() and f":{port}" not in _DEFAULT_PORTS.values()
    return f"{host}:{port}" if is_other and not has_port else host


def _bearer_token(scope: Scope) -> str:
    scheme, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def is_page(scope: Scope) -> bool:
    """Return True if a request is for the console, and not for the API."""
    return route_path(scope).startswith("/console")


def session_cookie(scope: Scope) -> str:
    """Return the session in the cookies of a request; empty if there is none. It may be invalid."""
    found = _SESSION.search(Headers(scope=scope).get("cookie", ""))
    return found[1] if found else ""


_SESSION: Final = re.compile(rf"(?:^|;) ?{SESSION_COOKIE}=([a-zA-Z0-9_-]{{1,{_MAX_TOKEN_LENGTH}}})(?:;|$)")


def _remove_other_cookies(scope: Scope) -> None:
    """Remove all cookies but the session from the headers: in Python before 3.12.6, parsing them may take seconds."""
    session = session_cookie(scope)
    headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    scope["headers"] = [*headers, (b"cookie", f"{SESSION_COOKIE}={session}".encode())] if session else headers


def _redirect_to_login(scope: Scope) -> Response:
    path = route_path(scope)
    if scope["method"] == "POST" and path not in _READER_POSTS:
        # The browser sends the fields of the form again, so that the login can keep them.
        return RedirectResponse(reference(scope, f"console/login/again?next={quote(path, safe='')}"), 307)
    if "hx-request" in Headers(scope=scope):
        # htmx would follow a redirect, and insert the login form into the current page. So it loads this page again.
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    next_page = "/console"
    if scope["method"] == "GET":
        query = scope["query_string"].decode("ascii", "replace")
        next_page = path + (f"?{query}" if query else "")
    return RedirectResponse(reference(scope, f"console/login?next={quote(next_page, safe='')}"), 303)
