"""The local service with a listener in front of it, that notes each request and may answer in the service's place."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
from fastapi import FastAPI
from sqlalchemy import URL

from heksher_client.service import LocalService, create_app
from heksher_client.service.database import Database

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request as the service got it."""

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
class Answer:
    """An answer in the service's place."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "Answer":
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json", **headers})


Interceptor = Callable[[Asked], Answer | None]

DECLARE = "POST /api/v1/settings/declare"
QUERY = "GET /api/v1/query"


class WatchedService(LocalService):
    """A local service whose traffic the tests see, and may change."""

    def __init__(self, context_features: tuple[str, ...] = ("environment", "user", "theme"), *, port: int = 0) -> None:
        super().__init__(context_features, port=port)
        self.asked: list[Asked] = []
        self.intercept: Interceptor = lambda asked: None
        self.offers_changes = False
        """Whether clients are told that changes can be followed, which the reference does not."""
        self._renewed: FastAPI | None = None
        # No kept connections, as the service may be stopped and started; no certificates, as there is no TLS.
        self._api = httpx.Client(verify=False, limits=httpx.Limits(max_keepalive_connections=0))  # noqa: S501

    def renew(
        self, database_url: str = "sqlite://", *, access_control: bool | None = None, offers_changes: bool = False
    ) -> None:
        """Forget everything, as a new service on the same port would; quicker than starting one."""
        self.offers_changes = offers_changes
        self._end_renewed()
        self._renewed = create_app(database_url, self._context_features, access_control=access_control)
        self.asked = []
        self.intercept = lambda asked: None

    def stop(self) -> None:
        """Stop, if it runs."""
        self._end_renewed()
        super().stop()

    def _end_renewed(self) -> None:
        if self._renewed is not None:
            self._renewed.state.feed.close()
            self._renewed.state.database.close()

    @property
    def database(self) -> Database | None:
        """The database behind the service since it was last renewed."""
        return None if self._renewed is None else self._renewed.state.database

    def questions(self, what: str) -> list[Asked]:
        """The requests so far of one kind: `DECLARE`, `QUERY`..."""
        return [asked for asked in self.asked if str(asked) == what]

    def answering(self, what: str, answer: Callable[[Asked], Answer | None] | Answer, *, times: int = 10**9) -> None:
        """Answer requests of one kind with something else; the others go to the service."""
        left = times

        def intercept(asked: Asked) -> Answer | None:
            nonlocal left
            if str(asked) != what or left == 0:
                return None
            left -= 1
            return answer if isinstance(answer, Answer) else answer(asked)

        self.intercept = intercept

    # What an operator does.

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        response = self._api.request(method, self.url + path, json=body, headers={"x-operator": "yes"})
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
        app.add_middleware(_Listener, service=self)
        return app


class _Listener:
    def __init__(self, app: Any, service: WatchedService) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        asked = Asked(scope["method"], scope["path"], query, headers, body)
        answer = None
        if "x-operator" not in headers:
            self._service.asked.append(asked)
            answer = self._service.intercept(asked)
        if answer is not None:
            raw = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            await send({"type": "http.response.body", "body": answer.body})
            return

        is_replayed = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal is_replayed
            if is_replayed:
                return await receive()  # that it is over
            is_replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def answer_plainly(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and not self._service.offers_changes:
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"heksher-revision"]
            await send(message)

        await (self._service._renewed or self._app)(scope, replay, answer_plainly)
