"""ASGI applications: FastAPI, Starlette, Django, Quart.

    app.add_middleware(ContextMiddleware, values={current_user: header("x-user")})

Reads take the user from that variable then, where it is the client's default for a context feature.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from heksher_client.integrations._context import Values, bound, check

__all__ = ["ContextMiddleware", "header"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ContextMiddleware:
    """Has context variables hold data of a request for as long as it is answered, WebSockets included."""

    def __init__(self, app: Application, values: Values[Scope], *, pin: bool = False) -> None:
        """Wrap an application.

        Args:
            app: The application.
            values: By context variable, what finds its value in a request's scope: `header("x-user")`, or any function
                that gives text, or None to leave the variable as it is.
            pin: Whether all reads of one request see the rules of one moment, to the end of what is streamed. Not those
                of a WebSocket, which may be open for days.

        Raises:
            TypeError: The values are none.
        """
        self._app, self._values, self._pin = app, check(values), pin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with bound(self._values, scope, pin=self._pin and scope["type"] == "http"):
            await self._app(scope, receive, send)


def header(name: str) -> Callable[[Scope], str | None]:
    """What finds the first value of a header, whatever its case; None where there is none."""
    wanted = name.lower().encode("latin-1")

    def find(scope: Scope) -> str | None:
        return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted), None)

    return find
