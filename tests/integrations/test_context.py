"""Requests and context variables: what holds while one is answered, and that nothing is left of it."""

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
from heksher_client.integrations.django.middleware import _parts_later
from heksher_client.testing import SyncStubHeksherClient

user: ContextVar[str] = ContextVar("user", default="nobody")


def environ(**headers: str) -> dict[str, Any]:
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()}


def test_a_wsgi_answer_that_comes_in_parts_is_made_in_its_own_context() -> None:
    """Until its last part, whatever other requests the thread works on in between."""
    closed: list[str] = []

    class Parts:
        def __init__(self) -> None:
            self._parts = iter(range(2))

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            next(self._parts)
            return user.get().encode()

        def close(self) -> None:
            closed.append(user.get())

    app = wsgi.ContextMiddleware(lambda environ, start: Parts(), {user: wsgi.header("X-User")})
    first, second = (app(environ(x_user=name), None) for name in ("jim", "ann"))
    assert [next(iter(parts)) for parts in (first, second, first)] == [b"jim", b"ann", b"jim"]
    for parts in (first, second):
        parts.close()  # type: ignore[attr-defined]
    assert closed == ["jim", "ann"]
    assert user.get() == "nobody"


def test_a_wsgi_application_that_fails_leaves_nothing() -> None:
    """Nor does a request without the header change anything."""

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
    assert isinstance(
        files({"wsgi.file_wrapper": FileWrapper}, None), FileWrapper
    )  # so that servers send it themselves
    assert len(plain({}, None)) == 1  # type: ignore[arg-type]  # so that servers know the length of the answer


def test_a_wsgi_answer_that_is_no_answer_or_is_closed_twice_leaves_nothing() -> None:
    """Also with a pin, which is let go once."""
    no_answer: Any = wsgi.ContextMiddleware(lambda environ, start: None, {}, pin=True)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError):
        no_answer({}, None)
    parts: Any = wsgi.ContextMiddleware(lambda environ, start: [b"x"], {}, pin=True)({}, None)
    assert list(parts) == [b"x"]
    parts.close()
    parts.close()


@pytest.mark.anyio
async def test_a_stream_of_django_that_nobody_reads_to_its_end_ends_in_its_own_context() -> None:
    """The server closes it, or the event loop does."""
    seen: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            yield user.get().encode()
        finally:
            seen.append(user.get())

    parts = _parts_later(stream(), {user: "jim"})
    assert await anext(parts) == b"jim"
    await parts.aclose()
    assert (seen, user.get()) == (["jim"], "nobody")


@pytest.mark.parametrize("kind", ["http", "websocket", "wsgi"])
def test_a_request_that_is_pinned_sees_the_rules_of_one_moment(kind: str) -> None:
    """A change in the middle of it is for the next one; but a WebSocket may be open for days, and hears of it."""
    setting = Setting("s", int, ["user"], 7)
    seen: list[int] = []
    with SyncStubHeksherClient() as stub:

        def read() -> None:
            seen.append(setting.get(user="jim"))
            stub[setting].rules = 9
            seen.append(setting.get(user="jim"))

        if kind == "wsgi":

            def answer(environ: Any, start: Any) -> Iterable[bytes]:
                read()
                return []

            wsgi.ContextMiddleware(answer, {}, pin=True)({}, None).close()  # type: ignore[attr-defined]
        else:

            async def answer_later(scope: Any, receive: Any, send: Any) -> None:
                read()

            app: Any = asgi.ContextMiddleware(answer_later, {}, pin=True)
            anyio.run(app, {"type": kind}, None, None)
        assert seen == [7, 9 if kind == "websocket" else 7]
        assert setting.get(user="jim") == 9


@pytest.mark.anyio
async def test_asgi_requests_at_the_same_time_have_a_context_each() -> None:
    """HTTP and WebSockets; what is neither passes through."""
    seen: list[str] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(user.get())

    app: Any = asgi.ContextMiddleware(answer, {user: asgi.header("X-User")})
    async with anyio.create_task_group() as group:
        for kind, headers in (("http", [(b"X-User", b"jim")]), ("websocket", [(b"x-user", b"ann")]), ("http", [])):
            group.start_soon(app, {"type": kind, "headers": headers}, None, None)
        group.start_soon(app, {"type": "lifespan"}, None, None)
    assert sorted(seen) == ["ann", "jim", "nobody", "nobody"]
    assert user.get() == "nobody"


@pytest.mark.parametrize("values", [{"user": len}, {user: "x-user"}, None, [user], "user"])
@pytest.mark.parametrize("middleware", [asgi.ContextMiddleware, wsgi.ContextMiddleware])
def test_values_that_cannot_be_found_are_refused_at_the_start(middleware: Any, values: Any) -> None:
    """And not with the first request."""
    with pytest.raises(TypeError, match=r"values must be .*context variables|what finds the value of user must be"):
        middleware(lambda *_: None, values)


@pytest.mark.parametrize("value", [5, b"jim"])
def test_what_is_found_and_is_no_text_is_refused(value: Any) -> None:
    """Where it is found, with the name of the variable; it would match no rule, and nobody knew why."""
    app = wsgi.ContextMiddleware(lambda environ, start: [b""], {user: lambda environ: value})
    with pytest.raises(TypeError, match=f"what is found for user must be text or None, not {type(value).__name__}"):
        app({}, None)
    assert user.get() == "nobody"
