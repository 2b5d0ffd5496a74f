"""HeksherMiddleware: the context values of each request."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextvars import Context, copy_context
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from django.utils.decorators import sync_and_async_middleware

from heksher_client.integrations._context import Extractors, request_context, variables_set
from heksher_client.integrations.django.apps import installed_app


@sync_and_async_middleware
def HeksherMiddleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:  # noqa: N802 - used like a class
    """Start the client with the server, and set the context values of each request while it is handled.

    The content of a streaming response is generated with the values of its request as well, but without its pin, which
    ends where the response begins.
    """
    app = installed_app()
    app.client()
    if iscoroutinefunction(get_response):

        async def handle_async(request: Any) -> Any:
            app.client()
            extractors = app.extractors
            with request_context(extractors, request, pin=app.pin):
                return _keep_context(await get_response(request), extractors)

        return handle_async

    def handle(request: Any) -> Any:
        app.client()  # In a test, this adopts the stub of the test.
        extractors = app.extractors
        with request_context(extractors, request, pin=app.pin):
            return _keep_context(get_response(request), extractors)

    return handle


def _keep_context(response: Any, extractors: Extractors[Any]) -> Any:
    """Return the response, whose streaming content is generated in the current context.

    A response that streams a file stays as it is, so that the server can send the file directly.
    """
    if not getattr(response, "streaming", False) or getattr(response, "file_to_stream", None) is not None:
        return response
    if response.is_async:
        values = {variable: value for variable, value in copy_context().items() if variable in extractors}
        response.streaming_content = _iterate_async(aiter(response.streaming_content), values)
    else:
        context = copy_context()
        # Django collects the `close` methods of the content when it is assigned. They belong to the same context.
        closers = response._resource_closers  # noqa: SLF001 - Django has no public name for it
        closers[:] = [partial(context.run, close) for close in closers]
        response.streaming_content = _iterate(iter(response.streaming_content), context)
    return response


def _iterate(chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
    while True:
        try:
            chunk = context.run(next, chunks)
        except StopIteration:
            return
        yield chunk


async def _iterate_async(chunks: AsyncIterator[bytes], values: dict[Any, Any]) -> AsyncGenerator[bytes]:
    try:
        while True:
            with variables_set(values):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:  # The server may close the response early.
        if isinstance(chunks, AsyncGenerator):
            with variables_set(values):
                await chunks.aclose()
