"""The middleware: each request's own context."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from django.utils.decorators import sync_and_async_middleware

from heksher_client.integrations._context import Values, bound, holding
from heksher_client.integrations.django.apps import installed


@sync_and_async_middleware
def HeksherMiddleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:  # noqa: N802 - it is used as a class
    """Start the client with the server, and have reads know the context of the request that they are part of.

    What a response streams is made with the values of its request too; but not with its pin, which ends where the
    response begins.
    """
    app = installed()
    app.client()
    if iscoroutinefunction(get_response):

        async def answer_later(request: Any) -> Any:
            app.client()
            values = app.values
            with bound(values, request, pin=app.pin):
                return _streaming(await get_response(request), values)

        return answer_later

    def answer(request: Any) -> Any:
        app.client()  # which in a test is the stub of that test
        values = app.values
        with bound(values, request, pin=app.pin):
            return _streaming(get_response(request), values)

    return answer


def _streaming(response: Any, values: Values[Any]) -> Any:
    """The same response, whose content is made in the context that it has now; but for files, which servers send."""
    if not getattr(response, "streaming", False) or getattr(response, "file_to_stream", None) is not None:
        return response
    if response.is_async:
        variables = {variable: value for variable, value in copy_context().items() if variable in values}
        response.streaming_content = _parts_later(aiter(response.streaming_content), variables)
    else:
        context = copy_context()
        # Django notes how the content is closed as it is assigned: that is a part of making it.
        response._resource_closers[:] = [partial(context.run, close) for close in response._resource_closers]
        response.streaming_content = _parts(iter(response.streaming_content), context)
    return response


def _parts(parts: Iterator[bytes], context: Context) -> Iterator[bytes]:
    while True:
        try:
            part = context.run(next, parts)
        except StopIteration:
            return
        yield part


async def _parts_later(parts: AsyncIterator[bytes], variables: dict[Any, Any]) -> AsyncGenerator[bytes]:
    try:
        while True:
            with holding(variables):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part
    finally:  # also when the server wants no more of it
        if isinstance(parts, AsyncGenerator):
            with holding(variables):
                await parts.aclose()
