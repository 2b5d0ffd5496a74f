"""The local service with a middleware that records requests and can replace responses."""

import json
import sqlite3
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar
from unittest import mock
from urllib.parse import parse_qs

import httpx
from fastapi import FastAPI
from sqlalchemy import URL, Engine, event

from heksher_client.service import LocalService, create_app, database, engines
from heksher_client.service.database import Database
from tests.support.http import http_client

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the service received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class CannedResponse:
    """A response that replaces that of the service."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "CannedResponse":
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json", **headers})


_IN_MEMORY = "sqlite://"


@cache
def _new_database(context_features: tuple[str, ...]) -> bytes:
    """Return a database with context features, as the service creates it."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "new.db")
        create_app(f"sqlite:///{path}", context_features).state.database.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # A database in memory cannot have a WAL.
            return connection.serialize()


class _Apps:
    """The service as an application, several times in succession.

    All with the same URL have one engine, which prepares its connections and compiles each SQL statement only once. A
    database in memory begins as a copy of one that the service has created.
    """

    def __init__(self, context_features: tuple[str, ...]) -> None:
        self._context_features = context_features
        self._engines: dict[str, Engine] = {}

    def _fill(self, connection: sqlite3.Connection, _: object) -> None:
        """Copy the database into a new connection. SQLAlchemy connects again after `Database.close`."""
        connection.deserialize(_new_database(self._context_features))
        # No two databases have the same identity and tag, so neither have their query results.
        connection.execute(
            "UPDATE state SET context_features_tag = lower(hex(randomblob(8))), database = lower(hex(randomblob(8)))"
        )

    def create(self, database_url: str, **options: Any) -> FastAPI:
        """Create the service. The database of the former one with this URL must be closed."""
        if database_url not in self._engines:
            _new_database(self._context_features)
            self._engines[database_url] = engines.new_engine(database_url)
            if database_url == _IN_MEMORY:
                event.listen(self._engines[database_url], "connect", self._fill)
        with mock.patch.object(database, "new_engine", return_value=self._engines[database_url]):
            return create_app(database_url, self._context_features, **options)


DECLARE = "POST /api/v1/settings/declare"
QUERY = "GET /api/v1/query"
CHANGES = "GET /api/v1/changes"
CONTEXT_FEATURES = "GET /api/v1/context_features"

ResponseT = TypeVar("ResponseT")


class RequestRecorder(Generic[ResponseT]):
    """Records the requests that a service receives, and replaces its responses."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.intercept: Callable[[RecordedRequest], ResponseT | None] = lambda request: None

    def requests_to(self, route: str) -> list[RecordedRequest]:
        """Return the requests to a route so far: `DECLARE`, `QUERY`..."""
        return [request for request in self.requests if str(request) == route]

    def respond_with(
        self, route: str, response: Callable[[RecordedRequest], ResponseT | None] | ResponseT, *, times: int = 10**9
    ) -> None:
        """Respond to requests to a route with another response; the service handles all other requests.

        Args:
            route: `DECLARE`, `QUERY`...
            response: The response, or a function that returns one, or None for that of the service.
            times: How many requests are affected.
        """
        remaining = times

        def intercept(request: RecordedRequest) -> ResponseT | None:
            nonlocal remaining
            if str(request) != route or remaining == 0:
                return None
            remaining -= 1
            return response(request) if callable(response) else response

        self.intercept = intercept


class WatchedService(RequestRecorder[CannedResponse], LocalService):
    """A local service whose requests tests can inspect, and whose responses they can replace."""

    def __init__(self, context_features: tuple[str, ...] = ("environment", "user", "theme"), *, port: int = 0) -> None:
        RequestRecorder.__init__(self)
        LocalService.__init__(self, context_features, port=port)
        self.offers_changes = False
        """True to announce the change stream to clients. The reference service does not have one."""
        self._current_app: FastAPI | None = None
        self._apps = _Apps(context_features)
        # No keep-alive, as tests stop and start the service.
        self._api = http_client(limits=httpx.Limits(max_keepalive_connections=0))

    def reset(
        self, database_url: str = _IN_MEMORY, *, access_control: bool | None = None, offers_changes: bool = False
    ) -> None:
        """Replace the service by an empty one on the same port, which is faster than a restart."""
        self.offers_changes = offers_changes
        self._close_current_app()
        self._current_app = self._apps.create(database_url, access_control=access_control)
        self.requests = []
        self.intercept = lambda request: None

    def stop(self) -> None:
        """Stop the service if it is running."""
        self._close_current_app()
        super().stop()

    def _close_current_app(self) -> None:
        if self._current_app is not None:
            self._current_app.state.event_stream.close()
            self._current_app.state.database.close()

    @property
    def database(self) -> Database | None:
        """The database of the service since the last `reset`; None before."""
        return None if self._current_app is None else self._current_app.state.database

    def set_preview_above(self, number: int) -> None:
        """Set the number of rules that the console changes without a preview, until the next `reset`."""
        assert self._current_app is not None
        self._current_app.state.preview_above = number

    # Requests of an administrator, which are not recorded.

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        response = self._api.request(method, self.url + path, json=body, headers={"x-admin": "yes"})
        response.raise_for_status()
        return response

    def add_rule(self, setting: str, value: Any, **conditions: str) -> int:
        body = {"setting": setting, "feature_values": conditions, "value": value}
        return int(self.call("POST", "/api/v1/rules", body).json()["rule_id"])

    def declare(self, name: str, type_: str, default: Any, features: list[str], **more: Any) -> None:
        body = {"name": name, "type": type_, "default_value": default, "configurable_features": features, **more}
        self.call("POST", "/api/v1/settings/declare", body)

    def _make_app(self, database_url: str | URL) -> FastAPI:
        app = super()._make_app(database_url)
        app.add_middleware(_RecordingMiddleware, service=self)
        return app


class _RecordingMiddleware:
    def __init__(self, app: Any, service: WatchedService) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901 - one request from its beginning to its end
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode(), keep_blank_values=True).items()}
        request = RecordedRequest(scope["method"], scope["path"], query, headers, body)
        response = None
        if "x-admin" not in headers:
            self._service.requests.append(request)
            response = self._service.intercept(request)
        if response is not None:
            raw = [(name.encode(), value.encode()) for name, value in response.headers.items()]
            await send({"type": "http.response.start", "status": response.status, "headers": raw})
            await send({"type": "http.response.body", "body": response.body})
            return

        is_received = False

        async def receive_again() -> MutableMapping[str, Any]:
            nonlocal is_received
            if is_received:
                return await receive()  # the disconnect
            is_received = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_response(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and not self._service.offers_changes:
                hidden = (b"heksher-revision", b"heksher-database")
                message["headers"] = [pair for pair in message["headers"] if pair[0] not in hidden]
            await send(message)

        await (self._service._current_app or self._app)(scope, receive_again, send_response)
