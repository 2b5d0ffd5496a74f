"""The service as an ASGI application: all routes over one store, and what becomes of errors."""

import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route

from heksher_client._version import __version__
from heksher_client.service import routing, store
from heksher_client.service.access import AccessControl, needed_role
from heksher_client.service.console.pages import ASSETS
from heksher_client.service.console.pages import router as console
from heksher_client.service.console.rendering import render, render_api
from heksher_client.service.database import Database
from heksher_client.service.event_stream import Feed
from heksher_client.service.metrics import Metrics, Observed
from heksher_client.service.names import CONTEXT_NAME
from heksher_client.service.query_cache import Answers
from heksher_client.service.routes import ROUTERS
from heksher_client.service.routing import RefusalError
from heksher_client.service.tokens import Role


def _answer(request: Request, status: int, text: str) -> Response:
    """An answer in words: on a page where people read it."""
    if request.url.path.startswith("/console"):
        return render(request, "refusal.html", status, text=text)
    return PlainTextResponse(text, status) if text else Response(status_code=status)


def _refuse(request: Request, refusal: Exception) -> Response:
    return _answer(request, *refusal.args)


def _invalid(request: Request, error: Exception) -> Response:
    # Without the input, which FastAPI repeats by default: it may be long, or what no JSON can hold.
    if request.url.path.startswith("/console"):
        return _answer(request, 422, "this address has something in it that cannot be")
    details = [{key: detail[key] for key in ("loc", "msg", "type")} for detail in error.args[0]]
    return Response(json.dumps({"detail": details}), 422, media_type="application/json")


def _conflict(request: Request, _: Exception) -> Response:
    return _answer(request, 409, "another request changed the same thing at this moment; try again")


def _unwell(request: Request, error: Exception) -> Response:
    if getattr(getattr(error, "orig", None), "sqlstate", "") in _READ_ONLY:
        return _answer(request, 503, "this instance has a copy of the database, which cannot be changed")
    return _answer(request, 500, "the database does not answer")


_READ_ONLY: Final = ("25006", "0A000")
"""PostgreSQL's codes for it: of a statement that writes, and of the beginning of a transaction that may."""


def _to_console(_: Request) -> Response:
    return RedirectResponse("/console")


def _show_api(_: Request) -> Response:
    return render_api()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.feed.close()
    app.state.database.close()


def _add_missing(database: Database, context_features: Iterable[str]) -> None:
    """Add context features that a database lacks. One that lacks none may be a copy that cannot be written to."""
    with database.begin(writes=False) as connection:
        known = store.context_features(connection)
    missing = [name for name in context_features if name not in known]
    if missing:
        with database.begin() as connection:
            for name in missing:
                # Another instance may have been faster.
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
                role = needed_role(method.upper(), path)
                refused = _REFUSED_BODIES if "requestBody" in operation else {}
                if role is not None:
                    operation["security"] = [{}, {"token": []}]
                    refused = refused | _REFUSED_TOKENS[role]
                for status, meaning in refused.items():
                    operation["responses"].setdefault(status, {"description": meaning})
        return schema


_DESCRIPTION: Final = """\
Settings whose values depend on their context: *for user jim in environment prod, `cache_size` is 200*.

Programs **declare** their settings and **query** their rules; operators add **rules**. Names consist of letters, digits
and underscores; names of settings may also contain dots.

Unless the service listens on loopback, requests need a **token**: with the role `read` for programs, with the role
`admin` for operators.
"""
_REFUSED_BODIES: Final = {
    "400": "The body cannot be read.",
    "413": f"The body has more than {routing.MOST_BYTES:,} bytes.",
}
_NO_TOKEN: Final = {"401": "The request needs a valid token."}
_REFUSED_TOKENS: Final = {
    Role.READ: _NO_TOKEN,
    Role.ADMIN: _NO_TOKEN | {"403": "The request needs a token with the role `admin`."},
}


def create_app(
    database_url: str | URL = "sqlite://",
    context_features: Sequence[str] = (),
    *,
    access_control: bool | None = None,
) -> FastAPI:
    """Make the service as an ASGI application.

    Args:
        database_url: As SQLAlchemy writes it; one in memory unless given.
        context_features: Added to the database, after those it has, where it lacks them.
        access_control: Whether requests need a token. Unless given, those need one that come in at another address of
            this machine than loopback.

    Raises:
        TypeError: One string was given for a list of context features.
        ValueError: A name that no context feature can have.
    """
    if isinstance(context_features, str):
        raise TypeError(f"context_features must be a list of names, not one string: use [{context_features!r}]")
    for name in context_features:
        if not re.fullmatch(CONTEXT_NAME, name):
            raise ValueError(f"{name!r} is no name of a context feature: letters, digits and underscores only")
    opened = Database(database_url)
    _add_missing(opened, dict.fromkeys(context_features))
    # Not by `include_router`, which would build the routes anew, and while the first requests are answered.
    routes: list[BaseRoute] = [route for router in (*ROUTERS, console) for route in router.routes]
    routes += [Mount("/console/assets", ASSETS), Route("/", _to_console), Route("/docs", _show_api)]
    metrics = Metrics()
    app = _Application(
        title="Heksher",
        description=_DESCRIPTION,
        version=__version__,
        lifespan=_lifespan,
        routes=routes,
        max_body_size=routing.MOST_BYTES,
        docs_url=None,  # They have scripts of other hosts.
        redoc_url=None,
        middleware=[
            Middleware(Observed, metrics=metrics),
            Middleware(AccessControl, database=opened, required=access_control),
        ],
    )
    app.state.database = opened
    app.state.metrics = metrics
    app.state.feed = Feed(opened, metrics)
    app.state.answers = Answers()
    app.add_exception_handler(RefusalError, _refuse)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(IntegrityError, _conflict)
    app.add_exception_handler(SQLAlchemyError, _unwell)
    return app
