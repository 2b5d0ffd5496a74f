"""The client of commands: an admin client, with the defaults of a profile, the stream of changes, and a log."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from heksher_client._clock import monotonic
from heksher_client._core.refresh.effects import (
    Effect,
    Exchange,
    Flow,
    NoResponse,
    Reply,
    Request,
    Response,
    perform_by,
)
from heksher_client._drivers.thread_client import ThreadHeksherClient, internals
from heksher_client.admin import AdminClient

T = TypeVar("T")


class CommandClient(AdminClient):
    """An admin client with what only commands need."""

    def __init__(self, client: ThreadHeksherClient, log: Callable[[str], object] | None = None) -> None:
        """Use the URL, the credentials and the connections of a client, which is closed with this one.

        Args:
            client: The client.
            log: Called with a description of each request and its response, without secrets.
        """
        self._client, self._log = client, log

    @property
    def defaults(self) -> Mapping[str, str]:
        """The default values of context features, except those from context variables and callables."""
        defaults = internals(self._client).session.defaults
        return {name: value for name, value in defaults.items() if isinstance(value, str)}

    @property
    def has_credentials(self) -> bool:
        """True if requests are sent with a token or a password."""
        return self._client.options.auth is not None or self.has_authorization_header

    @property
    def has_authorization_header(self) -> bool:
        """True if the headers of all requests contain a token or a password."""
        return "authorization" in map(str.lower, self._client.options.headers)

    def ping(self, *, timeout: float | None = None) -> None:
        """Check that the service is healthy, as `AdminClient.ping` does."""
        session = internals(self._client).session
        self._run(session.within(session.requests.ping(), timeout))

    def follow(self, flow: Callable[[], Flow[None]]) -> None:
        """Run a flow that follows the stream of changes, in a thread of its own, unless one is running."""
        internals(self._client).stream.start(lambda: self._run(flow()))

    def close(self) -> None:
        """End the change stream, and close the client."""
        internals(self._client).stream.end()
        super().close()

    def _run(self, flow: Flow[T]) -> T:
        return super()._run(flow if self._log is None else perform_by(self._perform, flow))

    def _perform(self, effect: Effect) -> Flow[Any]:
        if not isinstance(effect, Exchange) or self._log is None:
            return (yield effect)
        started = monotonic()
        replies: tuple[Reply, ...] = yield effect
        milliseconds = (monotonic() - started) * 1000
        for request, reply in zip(effect.requests, replies, strict=True):
            self._log(f"{_describe_request(request)}: {_describe_reply(reply)}, {milliseconds:.0f} ms")
        return replies


def _describe_request(request: Request) -> str:
    sent = "" if request.content is None else f" ({len(request.content):,} bytes)"
    return f"{request.method} {request.target}{sent}"


def _describe_reply(reply: Reply) -> str:
    # Without headers and bodies, which may contain secrets.
    if isinstance(reply, NoResponse):
        return f"no response ({type(reply.error).__name__})"
    return f"{reply.status}, {len(reply.content):,} bytes" if isinstance(reply, Response) else f"{reply.status}"
