"""The log of requests and the metrics for Prometheus."""

import logging
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heksher_client._clock import monotonic
from heksher_client._logging import escape_arguments
from heksher_client.service.access import request_token

access_log: Final = escape_arguments(logging.getLogger("heksher_client.service.access"))
"""One record for each request, with the level INFO. The parts of the message are attributes of the record as well."""
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS: Final = frozenset(["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"])
_OTHER: Final = "none"
"""The label for unknown routes and methods. Arbitrary texts from requests would create any number of metrics."""


class Metrics:
    """The metrics of one instance, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "heksher_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "heksher_request_seconds",
            "Time from the arrival of a request to the end of its response, without event streams.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge("heksher_streams", "Open event streams.", registry=self.registry)
        self.revision = Gauge("heksher_revision", "Revision of the database.", registry=self.registry)
        self.settings = Gauge("heksher_settings", "Settings in the database.", registry=self.registry)
        self.rules = Gauge("heksher_rules", "Rules in the database.", registry=self.registry)


class RequestMetrics:
    """A middleware that counts, times and logs each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, is_stream = monotonic(), HTTPStatus.INTERNAL_SERVER_ERROR.value, False

        async def send_and_inspect(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = (b"content-type", b"text/event-stream; charset=utf-8") in message["headers"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_inspect)
        finally:
            self._record(scope, status, None if is_stream else monotonic() - start)

    def _record(self, scope: Scope, status: int, seconds: float | None) -> None:
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        route = getattr(scope.get("route"), "path", _OTHER)
        self._metrics.requests.labels(method, route, status).inc()
        if seconds is not None:
            self._metrics.seconds.labels(method, route).observe(seconds)
        if access_log.isEnabledFor(logging.INFO):
            client, token = scope.get("client") or ("-",), request_token(scope)
            access_log.info(
                "%s %s %s %s %d %.1f ms",
                client[0],
                token.name if token else "-",
                method,
                (scope.get("raw_path") or quote(scope["path"]).encode()).decode("ascii", "replace"),
                status,
                (seconds or 0.0) * 1000,
                extra={"client": client[0], "token": token and token.name, "method": method, "path": scope["path"],
                       "route": route, "status": status, "seconds": seconds},
            )  # fmt: skip
