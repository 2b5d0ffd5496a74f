"""Middleware for ASGI applications: FastAPI, Starlette, Django, Quart.

    app.add_middleware(ContextMiddleware, values={current_user: header("x-user")})

Reads then use that context variable if it is the client's default for a context feature.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from heksher_client.integrations._context import Extractors, check_extractors, request_context

__all__ = ["ContextMiddleware", "header"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ContextMiddleware:
    """Middleware that sets context variables from each HTTP request or WebSocket while it is handled."""

    def __init__(self, app: Application, values: Extractors[Scope], *, pin: bool = False) -> None:
        """Wrap an application.

        Args:
            app: The application.
            values: For each context variable, a function that returns its value for the scope of a request, or None to
                leave the variable unchanged: `header("x-user")`, or a function of your own.
            pin: If true, all reads of one request use the same rules, until the end of a streamed response. WebSockets
                are not pinned, as they may be open for days.

        Raises:
            TypeError: `values` is not a mapping of context variables to functions.
        """
        self._app, self._extractors, self._pin = app, check_extractors(values), pin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with request_context(self._extractors, scope, pin=self._pin and scope["type"] == "http"):
            await self._app(scope, receive, send)


def header(name: str) -> Callable[[Scope], str | None]:
    """Return a function that returns the first value of a header, or None if the request does not have it.

    Args:
        name: The name of the header, in any case.
    """
    wanted = name.lower().encode("latin-1")

    def get_header(scope: Scope) -> str | None:
        return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted), None)

    return get_header
