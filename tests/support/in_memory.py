"""Both clients with a service in memory: HTTP and the real drivers, without sockets, servers and databases.

with running_in_memory(kind, service, headers={"X-Team": "shop"}) as subject:
    subject.ping()
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from heksher_client._core.refresh.effects import Request, Response
from tests.support.clients import Kind, Subject, running
from tests.support.fake_service import FakeService
from tests.support.faults import FaultServer

URL = "http://service"


def transport_to(service: FakeService) -> httpx.MockTransport:
    """Return a transport for both kinds of HTTP clients that passes requests to a service in memory."""

    def respond(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode("ascii")
        reply = service.respond(Request(request.method, target, dict(request.headers), request.content))
        if isinstance(reply, Response):
            return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.content)
        raise httpx.ConnectError("connection refused", request=request)

    return httpx.MockTransport(respond)


def in_memory(service: FakeService, **options: Any) -> dict[str, Any]:
    """Return options of a client with such a transport."""
    arguments = {"transport": transport_to(service), **options.pop("http_client_args", {})}
    return {**options, "http_client_args": arguments}


@contextmanager
def running_in_memory(kind: Kind, service: FakeService, *, url: str = URL, **options: Any) -> Iterator[Subject]:
    """Run a client as the main one, with a default for each feature."""
    with running(kind, url, **in_memory(service, **options)) as subject:
        yield subject


class LoopbackService(FakeService):
    """A service in memory that has a URL inside a `with` block, for clients that a test cannot give a transport."""

    def __init__(self) -> None:
        super().__init__()
        self._server = FaultServer(self)
        self.url = self._server.url

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(exc_type, exc, traceback)
