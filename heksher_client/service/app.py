"""The service as an ASGI application: routes, middlewares, and the responses to errors."""

import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client._version import __version__
from heksher_client.service import routing, store
from heksher_client.service.access import AccessControl, is_page, required_role
from heksher_client.service.addresses import RootPath, check_root_path, reference, route_path
from heksher_client.service.console import pages
from heksher_client.service.console.forms import ExpiredFormError
from heksher_client.service.console.pages.confirmation import DEFAULT_PREVIEW_ABOVE
from heksher_client.service.console.rendering import render, render_api
from heksher_client.service.database import Database, is_read_only
from heksher_client.service.event_stream import EventStream
from heksher_client.service.history import StateHeaders
from heksher_client.service.metrics import Metrics, RequestMetrics
from heksher_client.service.query_cache import QueryCache
from heksher_client.service.routes import ROUTERS
from heksher_client.service.routes.change_log import STREAM_PATH
from heksher_client.service.routing import RequestError
from heksher_client.service.tokens import Role


def _error_response(
    request: Request, status: int, message: str, entered: Mapping[str, Sequence[str]] | None = None
) -> Response:
    """Return an error as a page of the console or in plain text."""
    if is_page(request.scope):
        is_missing = status == HTTPStatus.NOT_FOUND and request.method == "GET"
        return render(request, "error.html", status, message=message, is_missing=is_missing, entered=entered)
    return PlainTextResponse(message, status) if message else Response(status_code=status)


def _handle_request_error(request: Request, error: Exception) -> Response:
    entered = error.entered if isinstance(error, ExpiredFormError) else None
    status, message = error.args
    return _error_response(request, status, message, entered)


def _handle_validation_error(request: Request, error: Exception) -> Response:
    if is_page(request.scope):
        return _error_response(request, 422, "the address contains an invalid value")
    # Without the input, which FastAPI repeats by default: it may be long, or impossible to encode as JSON.
    details = [{key: detail[key] for key in ("loc", "msg", "type")} for detail in error.args[0]]
    return Response(json.dumps({"detail": details}), 422, media_type="application/json")


def _handle_integrity_error(request: Request, _: Exception) -> Response:
    return _error_response(request, 409, "another request changed the same data at the same time; try again")


def _handle_database_error(request: Request, error: Exception) -> Response:
    if is_read_only(error):
        return _error_response(
            request, 503, "the database is read-only, such as a read-only replica; send changes to another instance"
        )
    return _error_response(request, 500, "the database is not available")


async def _handle_http_error(request: Request, error: Any) -> Response:
    """Redirect from addresses that are not those of a page or an endpoint; respond to other errors.

    Such addresses are the path prefix without a slash, a path with a slash at its end, and those of the forms of pages.

    Starlette redirects as well, but to the host that the request names, which a proxy may have changed.
    """
    path = route_path(request.scope)
    query = f"?{request.url.query}" if request.url.query else ""
    if error.status_code == HTTPStatus.NOT_FOUND and not path:
        return RedirectResponse(f"./{quote(request.url.path.rpartition('/')[2])}/{query}")
    if error.status_code == HTTPStatus.NOT_FOUND and path.endswith("/") and path.strip("/"):
        page = path.rstrip("/")
        return RedirectResponse("../" * (len(path) - len(page)) + quote(page.rpartition("/")[2]) + query)
    if is_page(request.scope):
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "GET":
            return _redirect_to_page(request)
        return _error_response(request, error.status_code, "")
    return await http_exception_handler(request, error)


def _redirect_to_page(request: Request) -> Response:
    """Redirect from the address of a form, which a browser may load again without its fields, to the page above it."""
    path = route_path(request.scope).rpartition("/")[0]
    while not _has_page(request.app, path):  # At the latest, the console's first page is found.
        path = path.rpartition("/")[0]
    return RedirectResponse(reference(request.scope, quote(path.removeprefix("/"))), 303)


def _has_page(app: FastAPI, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
    routes: Sequence[BaseRoute] = app.routes
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


def _redirect_to_console(request: Request) -> Response:
    return RedirectResponse(reference(request.scope, "console"))


def _show_api(request: Request) -> Response:
    return render_api(request)


class _HeadRequests:
    """A middleware that responds to HEAD as to GET, without the body. Event streams would not end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD" or route_path(scope) == STREAM_PATH:
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send_head)
        finally:
            scope["route"] = as_get.get("route")  # for the metrics


def _lifespan(database: Database, event_stream: EventStream) -> Lifespan[Any]:
    @asynccontextmanager
    async def run(_: Any) -> AsyncIterator[None]:  # The argument may be an application that this one is part of.
        if event_stream.is_closed:
            raise RuntimeError(
                "this application was closed at the end of its lifespan; create another one with create_app"
            )
        yield
        event_stream.close()
        database.close()

    return run


def _add_missing_features(database: Database, context_features: Iterable[str]) -> None:
    """Add the context features that a database lacks. Do not write if it lacks none, as it may be read-only."""
    with database.begin(writes=False) as connection:
        existing = store.context_features(connection)
    missing = [name for name in context_features if name not in existing]
    if missing:
        with database.begin() as connection:
            for name in missing:
                # Another instance may have added it since.
                if name not in store.context_features(connection):  # pragma: no branch - by chance only
                    store.add_context_feature(connection, name)


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the responses that do not come from the routes.

        FastAPI documents the parameters, responses and dependencies of a route. Requests are also refused before they
        reach one: for their token by `AccessControl`, for their size and encoding by FastAPI.
        """
        if self.openapi_schema is not None:
            return self.openapi_schema
        schema = super().openapi()
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                role = required_role(method.upper(), path)
                errors = _BODY_ERRORS if "requestBody" in operation else {}
                if role is not None:
                    operation["security"] = [{}, {"token": []}]  # No token is needed on loopback.
                    errors = errors | _TOKEN_ERRORS[role]
                for status, meaning in errors.items():
                    operation["responses"].setdefault(status, {"description": meaning})
        return schema


_DESCRIPTION: Final = """\
Settings whose values depend on their context: *for user jim in environment prod, `cache_size` is 200*.

Programs **declare** their settings and **query** their rules; operators add **rules**. Names consist of letters, digits
and underscores; names of settings may also contain dots. Conditions may require any text without control characters.

Unless the service listens on loopback, requests need a **token**: with the role `declare` for programs, with the role
`admin` for operators. With the role `read`, a token may change nothing.
"""
_BODY_ERRORS: Final = {
    "400": "The body cannot be read.",
    "413": f"The body has more than {routing.MAX_BODY_BYTES:,} bytes.",
}
_NO_TOKEN: Final = {"401": "The request needs a valid token."}
_TOKEN_ERRORS: Final = {
    Role.READ: _NO_TOKEN,
    Role.ADMIN: _NO_TOKEN | {"403": "The request needs a token with the role `admin`."},
}


def check_context_features(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of context features without repetitions, in the same order.

    Raises:
        TypeError: A single string instead of a collection.
        ValueError: A name is invalid.
    """
    if isinstance(names, str):
        raise TypeError(f"context_features must be a list of names, not one string: use [{names!r}]")
    checked = tuple(dict.fromkeys(names))
    for name in checked:
        if not re.fullmatch(CONTEXT_NAME, name):
            raise ValueError(
                f"{name!r} is not a valid name of a context feature: use letters, digits and underscores only"
            )
    return checked


def create_app(
    database_url: str | URL = "sqlite://",
    context_features: Sequence[str] = (),
    *,
    access_control: bool | None = None,
    root_path: str = "",
    preview_above: int = DEFAULT_PREVIEW_ABOVE,
) -> FastAPI:
    """Return the service as an ASGI application. It runs once: the end of its lifespan closes its database.

    Args:
        database_url: A URL of SQLAlchemy. By default, the data are kept in memory.
        context_features: Context features to add to the database if it lacks them, after those that it has.
        access_control: Whether requests need a token. By default they do unless they arrive at a loopback address.
        root_path: The path prefix of the service, like `/heksher`, whether a proxy removes it from requests or not.
        preview_above: The number of rules that the console changes at once without a preview.

    Raises:
        TypeError: `context_features` is a string.
        ValueError: A context feature has an invalid name, the path prefix is invalid, or the number is negative.
    """
    if preview_above < 0:
        raise ValueError(f"preview_above must be a number of rules, not {preview_above}")
    features = check_context_features(context_features)
    prefix = check_root_path(root_path)
    database = Database(database_url)
    database.begin_epoch()
    _add_missing_features(database, features)
    # Not with `include_router`, which would create all routes again, while the first requests are answered.
    routes: list[BaseRoute] = [route for router in (*ROUTERS, *pages.ROUTERS) for route in router.routes]
    routes += [Mount("/console/assets", pages.ASSETS), Route("/", _redirect_to_console), Route("/docs", _show_api)]
    metrics = Metrics()
    event_stream = EventStream(database, metrics)
    app = _Application(
        title="Heksher",
        description=_DESCRIPTION,
        version=__version__,
        lifespan=_lifespan(database, event_stream),
        routes=routes,
        redirect_slashes=False,
        max_body_size=routing.MAX_BODY_BYTES,
        docs_url=None,  # FastAPI's pages load scripts from other hosts.
        redoc_url=None,
        middleware=[
            Middleware(RootPath, root_path=prefix),
            Middleware(RequestMetrics, metrics=metrics),
            Middleware(AccessControl, database=database, required=access_control, show_error=_error_response),
            Middleware(_HeadRequests),
            Middleware(StateHeaders),
        ],
    )
    app.state.database = database
    app.state.metrics = metrics
    app.state.event_stream = event_stream
    app.state.query_cache = QueryCache()
    app.state.preview_above = preview_above
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(RequestError, _handle_request_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(IntegrityError, _handle_integrity_error)
    app.add_exception_handler(SQLAlchemyError, _handle_database_error)
    return app
