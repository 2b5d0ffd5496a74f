"""Middleware for WSGI applications: Flask, Django, Pyramid, Bottle.

    app.wsgi_app = ContextMiddleware(app.wsgi_app, {current_user: header("x-user")})

Reads then use that context variable if it is the client's default for a context feature.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from heksher_client._core.settings.snapshot import pinned
from heksher_client._core.settings.user_functions import is_coroutine_function, refuse_deferred
from heksher_client.integrations._context import Extractors, check_extractors, extract_values, set_variables

__all__ = ["ContextMiddleware", "header"]

Environ: TypeAlias = dict[str, Any]
Application: TypeAlias = Callable[[Environ, Any], Iterable[bytes]]


class ContextMiddleware:
    """Middleware that sets context variables from each request until the end of its response."""

    def __init__(self, app: Application, values: Extractors[Environ], *, pin: bool = False) -> None:
        """Wrap an application.

        Args:
            app: The application.
            values: For each context variable, a function that returns its value for the environment of a request, or
                None to leave the variable unchanged: `header("x-user")`, or a function of your own.
            pin: If true, all reads of one request use the same rules, until the end of a streamed response.

        Raises:
            TypeError: `values` is not a mapping of context variables to functions, or `app` is an ASGI application.
        """
        if is_coroutine_function(app):
            raise TypeError("app must be a WSGI application: wrap an ASGI application with integrations.asgi")
        self._app, self._extractors, self._pin = app, check_extractors(values), pin

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Handle a request."""
        # The request runs in a copy of the context, which is dropped at the end. Resetting the variables here would be
        # too early: the server iterates over the body after this method has returned, and may interleave other
        # requests.
        context = copy_context()
        context.run(lambda: set_variables(extract_values(self._extractors, environ)))
        pin = pinned() if self._pin else nullcontext()
        context.run(pin.__enter__)
        try:
            body = context.run(self._app, environ, start_response)
            if hasattr(type(body), "__await__"):
                refuse_deferred(body, lambda: "the WSGI application returned")
            iterator = context.run(iter, body)
        except BaseException:
            context.run(pin.__exit__, None, None, None)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        is_file = isinstance(wrapper, type) and isinstance(body, wrapper)
        if not self._pin and (isinstance(body, list | tuple) or is_file):
            return body  # Nothing is generated later: servers use the length of a list, and send files directly.
        return _Body(body, iterator, context, pin)


class _Body:
    """The body of a response, iterated over and closed in the context of its request."""

    def __init__(
        self,
        body: Iterable[bytes],
        iterator: Iterator[bytes],
        context: Context,
        pin: AbstractContextManager[object],
    ) -> None:
        self._body, self._iterator, self._context, self._pin = body, iterator, context, pin
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """Close the body and end the pin. The server calls this in all cases; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if (close := getattr(self._body, "close", None)) is not None:
                self._context.run(close)
        finally:
            self._context.run(self._pin.__exit__, None, None, None)


def header(name: str) -> Callable[[Environ], str | None]:
    """Return a function that returns a header, or None if the request does not have it.

    Args:
        name: The name of the header, in any case.
    """
    key = name.upper().replace("-", "_")
    key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"

    def get_header(environ: Environ) -> str | None:
        return environ.get(key)

    return get_header
