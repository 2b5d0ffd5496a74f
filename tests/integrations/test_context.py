"""The context of a request: its values are set while it is handled, and reset afterwards."""

import io
from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from typing import Any
from wsgiref.util import FileWrapper

import anyio
import anyio.lowlevel
import pytest

from heksher_client import Setting
from heksher_client.integrations import asgi, wsgi
from heksher_client.testing import SyncStubHeksherClient

user: ContextVar[str] = ContextVar("user", default="nobody")


def environ(**headers: str) -> dict[str, Any]:
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()}


def test_a_wsgi_body_is_generated_in_the_context_of_its_request() -> None:
    """It is, up to its last chunk and `close`, even if the thread handles other requests in between."""
    closed: list[str] = []

    class Body:
        def __init__(self) -> None:
            self._chunks = iter(range(2))

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            next(self._chunks)
            return user.get().encode()

        def close(self) -> None:
            closed.append(user.get())

    app = wsgi.ContextMiddleware(lambda environ, start: Body(), {user: wsgi.header("X-User")})
    first, second = (app(environ(x_user=name), None) for name in ("jim", "ann"))
    assert [next(iter(body)) for body in (first, second, first)] == [b"jim", b"ann", b"jim"]
    for body in (first, second):
        body.close()  # type: ignore[attr-defined]
    assert closed == ["jim", "ann"]
    assert user.get() == "nobody"


def test_a_wsgi_application_that_raises_leaves_the_context_unchanged() -> None:
    """A request without the header leaves the variable unchanged. Lists and files are passed on as they are."""

    def fail(environ: Any, start: Any) -> Iterable[bytes]:
        raise ValueError(user.get())

    app = wsgi.ContextMiddleware(fail, {user: wsgi.header("x-user")})
    with pytest.raises(ValueError, match="jim"):
        app(environ(x_user="jim"), None)
    with pytest.raises(ValueError, match="nobody"):
        app({}, None)
    with pytest.raises(ValueError, match="ann"):
        wsgi.ContextMiddleware(fail, {user: wsgi.header("x-user")}, pin=True)(environ(x_user="ann"), None)
    plain = wsgi.ContextMiddleware(lambda environ, start: [user.get().encode()], {user: wsgi.header("content-type")})
    assert list(plain({"CONTENT_TYPE": "text"}, None)) == [b"text"]
    files: Any = wsgi.ContextMiddleware(lambda environ, start: FileWrapper(io.BytesIO(b"x")), {})
    # Servers send a file wrapper directly, and use the length of a list.
    assert isinstance(files({"wsgi.file_wrapper": FileWrapper}, None), FileWrapper)
    assert len(plain({}, None)) == 1  # type: ignore[arg-type]


def test_an_invalid_wsgi_body_and_a_second_close_end_the_pin_once() -> None:
    """An application that returns None raises TypeError, and a second `close` does nothing."""
    invalid: Any = wsgi.ContextMiddleware(lambda environ, start: None, {}, pin=True)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError):
        invalid({}, None)
    body: Any = wsgi.ContextMiddleware(lambda environ, start: [b"x"], {}, pin=True)({}, None)
    assert list(body) == [b"x"]
    body.close()
    body.close()


@pytest.mark.frameworks("django")
@pytest.mark.anyio
async def test_an_aborted_django_stream_is_closed_in_the_context_of_its_request() -> None:
    """The server closes a stream that it does not read to the end."""
    from heksher_client.integrations.django.middleware import _iterate_async

    seen: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            yield user.get().encode()
        finally:
            seen.append(user.get())

    content = _iterate_async(stream(), {user: "jim"})
    assert await anext(content) == b"jim"
    await content.aclose()
    assert (seen, user.get()) == (["jim"], "nobody")


@pytest.mark.parametrize("kind", ["http", "websocket", "wsgi"])
def test_a_pinned_request_reads_the_same_rules_throughout(kind: str) -> None:
    """A change during the request applies to the next one. WebSockets are not pinned: they may be open for days."""
    setting = Setting("s", int, ["user"], 7)
    seen: list[int] = []
    with SyncStubHeksherClient() as stub:

        def read() -> None:
            seen.append(setting.get(user="jim"))
            stub[setting].rules = 9
            seen.append(setting.get(user="jim"))

        if kind == "wsgi":

            def respond(environ: Any, start: Any) -> Iterable[bytes]:
                read()
                return []

            wsgi.ContextMiddleware(respond, {}, pin=True)({}, None).close()  # type: ignore[attr-defined]
        else:

            async def respond_async(scope: Any, receive: Any, send: Any) -> None:
                read()

            app: Any = asgi.ContextMiddleware(respond_async, {}, pin=True)
            anyio.run(app, {"type": kind}, None, None)
        assert seen == [7, 9 if kind == "websocket" else 7]
        assert setting.get(user="jim") == 9


@pytest.mark.anyio
async def test_concurrent_asgi_requests_have_separate_contexts() -> None:
    """HTTP requests and WebSockets have their own; other scopes are passed on unchanged."""
    seen: list[str] = []

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(user.get())

    app: Any = asgi.ContextMiddleware(respond, {user: asgi.header("X-User")})
    async with anyio.create_task_group() as group:
        for kind, headers in (("http", [(b"X-User", b"jim")]), ("websocket", [(b"x-user", b"ann")]), ("http", [])):
            group.start_soon(app, {"type": kind, "headers": headers}, None, None)
        group.start_soon(app, {"type": "lifespan"}, None, None)
    assert sorted(seen) == ["ann", "jim", "nobody", "nobody"]
    assert user.get() == "nobody"


@pytest.mark.parametrize("values", [{"user": len}, {user: "x-user"}, None, [user], "user"])
@pytest.mark.parametrize("middleware", [asgi.ContextMiddleware, wsgi.ContextMiddleware])
def test_invalid_extractors_are_refused_by_the_constructor(middleware: Any, values: Any) -> None:
    """They are not refused only at the first request."""
    with pytest.raises(
        TypeError, match=r"values must be a dict|keys of values must be|the value for user must be a function"
    ):
        middleware(lambda *_: None, values)


@pytest.mark.parametrize(("value", "error"), [(5, "int: use str(value)"), (b"jim", "bytes: use value.decode()")])
def test_an_extracted_value_that_is_not_a_string_is_refused(value: Any, error: str) -> None:
    """The error names the variable. The value would match no rule, without a visible cause."""
    app = wsgi.ContextMiddleware(lambda environ, start: [b""], {user: lambda environ: value})
    with pytest.raises(TypeError) as raised:
        app({}, None)
    assert str(raised.value) == f"the value for user must be a str or None, not {error}"
    assert user.get() == "nobody"
