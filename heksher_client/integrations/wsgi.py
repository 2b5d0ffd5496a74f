"""WSGI applications: Flask, Django, Pyramid, Bottle.

    app.wsgi_app = ContextMiddleware(app.wsgi_app, {current_user: header("x-user")})

Reads take the user from that variable then, where it is the client's default for a context feature.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from heksher_client._core.settings.snapshot import pinned
from heksher_client.integrations._context import Values, check, found, hold

__all__ = ["ContextMiddleware", "header"]

Environ: TypeAlias = dict[str, Any]
Application: TypeAlias = Callable[[Environ, Any], Iterable[bytes]]


class ContextMiddleware:
    """Has context variables hold data of a request for as long as it is answered, up to the last byte."""

    def __init__(self, app: Application, values: Values[Environ], *, pin: bool = False) -> None:
        """Wrap an application.

        Args:
            app: The application.
            values: By context variable, what finds its value in a request's environment: `header("x-user")`, or any
                function that gives text, or None to leave the variable as it is.
            pin: Whether all reads of one request see the rules of one moment, to the end of what is streamed.

        Raises:
            TypeError: The values are none.
        """
        self._app, self._values, self._pin = app, check(values), pin

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        # A context of its own, which is dropped as a whole: the server asks for the parts of an answer after this has
        # returned, and between those of other requests.
        context = copy_context()
        context.run(lambda: hold(found(self._values, environ)))
        pin = pinned() if self._pin else nullcontext()
        context.run(pin.__enter__)
        try:
            parts = context.run(self._app, environ, start_response)
            iterator = context.run(iter, parts)
        except BaseException:
            context.run(pin.__exit__, None, None, None)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        is_file = isinstance(wrapper, type) and isinstance(parts, wrapper)
        if not self._pin and (isinstance(parts, list | tuple) or is_file):
            return parts  # all of it is made: servers know the length of a list, and send files by themselves
        return _Parts(parts, iterator, context, pin)


class _Parts:
    """The parts of an answer, made in the context of its request."""

    def __init__(
        self,
        parts: Iterable[bytes],
        iterator: Iterator[bytes],
        context: Context,
        pin: AbstractContextManager[object],
    ) -> None:
        self._parts, self._iterator, self._context, self._pin = parts, iterator, context, pin
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """Let go of the request: servers call this at the end, whatever it was."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if (close := getattr(self._parts, "close", None)) is not None:
                self._context.run(close)
        finally:
            self._context.run(self._pin.__exit__, None, None, None)


def header(name: str) -> Callable[[Environ], str | None]:
    """What finds a header, whatever its case; None where there is none."""
    key = name.upper().replace("-", "_")
    key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"

    def find(environ: Environ) -> str | None:
        return environ.get(key)

    return find
