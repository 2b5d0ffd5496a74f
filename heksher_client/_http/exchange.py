"""One HTTP exchange: everything that happens from waiting for a token to the last byte of the response.

An exchange is a flow: a generator that yields effects and is sent their results. The error of an effect is thrown into
the flow. A generator cannot yield while it is being closed, so whatever runs a flow closes the open response when the
flow ends, however it ends.

For each request that is sent, the effects are `AwaitToken` if there is no valid token, `AwaitTurn` and `Send`. So a
request without a token does not count for the rate limit, and every request that is sent does. A response is closed
before the flow waits for anything else, as other requests may need its connection.

The wait for a turn may be long: the token may expire before it ends, or the program replace the credential. So the
credential is read, and the request signed, after that wait. If there is no valid token then, the request keeps its turn
while it waits for one. Only a request that is sent again, after a 401 or on another connection, is signed before its
turn.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from typing import Any, Final, TypeAlias, TypeVar

import httpx
import msgspec
from msgspec.structs import replace

from heksher_client._auth.token_refresh import AwaitToken, Credential, acquire_token, authenticate, is_token_awaited
from heksher_client._core.refresh import effects
from heksher_client._core.refresh.effects import Limits, NoResponse, OpenStream, Reply, Request
from heksher_client._core.refresh.server_sent_events import silence
from heksher_client._http.body import Body, StreamBody
from heksher_client._http.connections import ConnectionTrace
from heksher_client._http.endpoint import TIME_LIMITS, Endpoint
from heksher_client._http.errors import is_connection_error, is_read_timeout, no_response
from heksher_client._http.rate_limit import RateLimit
from heksher_client._logging import shown_seconds
from heksher_client.exceptions import CredentialTimeoutError

T = TypeVar("T")

_MAX_REDIRECTS: Final = 3


class AwaitTurn(msgspec.Struct, frozen=True):
    """Wait until the rate limit allows a request. Raise if no caller waits for the response any more."""

    seconds: float
    restarts_timeout: bool
    """Whether the time limit of the exchange starts after this wait: the first wait is not part of it."""


class Send(msgspec.Struct, frozen=True):
    """Send a request with the HTTP client; the result is the response, of which only the head has been read."""

    request: httpx.Request
    arguments: Mapping[str, Any]
    """Other arguments of the client's `send`."""


class Read(msgspec.Struct, frozen=True):
    """Read the body of a response as it was sent, and feed it to a function, until that returns False."""

    response: httpx.Response
    feed: Callable[[bytes], bool]


class Close(msgspec.Struct, frozen=True):
    """Close the response that is open."""


HttpEffect: TypeAlias = AwaitToken | AwaitTurn | Send | Read | Close
HttpFlow: TypeAlias = Generator[HttpEffect, Any, T]
Performers: TypeAlias = Mapping[type, Callable[[Any], Any]]


class Performer(ABC):
    """Performs the effects of one exchange in a thread, or in a task: then each method returns an awaitable.

    As a context manager, it closes the response that is open when the flow ends. An error of that is ignored: the reply
    is complete, or the exchange has failed already.
    """

    @property
    def performers(self) -> Performers:
        """The methods by the type of the effect."""
        return {
            AwaitToken: self.await_token,
            AwaitTurn: self.await_turn,
            Send: self.send,
            Read: self.read,
            Close: self.close,
        }

    @abstractmethod
    def await_token(self, effect: AwaitToken) -> Any:
        """Wait until a refresh of the token ends."""

    @abstractmethod
    def await_turn(self, effect: AwaitTurn) -> Any:
        """Wait for so many seconds."""

    @abstractmethod
    def send(self, effect: Send) -> Any:
        """Send a request, and return the response."""

    @abstractmethod
    def read(self, effect: Read) -> Any:
        """Read the body of a response."""

    @abstractmethod
    def close(self, effect: Close) -> Any:
        """Close the response that is open."""


def send_request(endpoint: Endpoint, rate_limit: RateLimit | None, request: Request, limits: Limits) -> HttpFlow[Reply]:
    """Send a request, and return the response with its whole body, or the error."""
    return _exchange(
        endpoint,
        rate_limit,
        build=lambda: endpoint.build_request(request, *limits.shortest),
        make_body=lambda response: Body(response, limits.max_bytes),
        has_timeout=True,
    )


def timed_out(endpoint: Endpoint, limits: Limits) -> NoResponse:
    """Return the reply to a request that took too long. The service is not the reason if no access token arrived."""
    late = effects.timed_out(limits)
    if isinstance(endpoint.auth, Credential) and is_token_awaited(endpoint.auth):
        seconds = shown_seconds(limits.shortest[0], 3)
        late = replace(late, error=CredentialTimeoutError(f"no access token within {seconds}, {late.limit}"))
    return late


def open_stream(endpoint: Endpoint, rate_limit: RateLimit | None, stream: OpenStream) -> HttpFlow[Reply]:
    """Open a stream, pass its body on as it arrives, and return the response without it, or the error."""
    reply = yield from _exchange(
        endpoint,
        rate_limit,
        build=lambda: endpoint.build_stream_request(stream),
        make_body=lambda response: StreamBody(response, stream.take),
        has_timeout=False,
    )
    return _as_silence(reply, stream.seconds)


def _as_silence(reply: Reply, seconds: float) -> Reply:
    """Return the reply to a stream. If no byte arrived in time, its error says so."""
    if isinstance(reply, NoResponse) and is_read_timeout(reply.error):
        return replace(reply, error=silence(seconds))
    return reply


def _exchange(
    endpoint: Endpoint,
    rate_limit: RateLimit | None,
    *,
    build: Callable[[], httpx.Request],
    make_body: Callable[[httpx.Response], Body],
    has_timeout: bool,
) -> HttpFlow[Reply]:
    limits: Mapping[str, str] = {}
    request: httpx.Request | None = None
    with closing(_Turns(rate_limit, restarts_timeout=has_timeout)) as turns:
        try:
            request = build()
            limits, redirects = request.extensions[TIME_LIMITS], 0
            while True:
                response = yield from _send_authenticated(endpoint, turns, request)
                body = make_body(response)
                if not body.is_read:
                    yield Read(response, body.feed)
                reply, redirect = body.reply(), _redirect(request, response)
                if redirect is None or redirects == _MAX_REDIRECTS:
                    return reply
                yield Close()
                request, redirects = redirect, redirects + 1
        except Exception as error:
            # Authentication, transports and event hooks are user code, which can raise anything.
            return no_response(error, limits, request)


def _send_authenticated(endpoint: Endpoint, turns: "_Turns", request: httpx.Request) -> HttpFlow[httpx.Response]:
    """Send a request with the credential of the endpoint, which may want it to be sent again with another token."""
    if isinstance(endpoint.auth, Credential):
        yield from acquire_token(endpoint.auth)
    yield from turns.take()
    auth = endpoint.auth  # The program may have replaced it during the wait.
    if not isinstance(auth, Credential):
        return (yield from _send(endpoint, turns, request, auth))
    with closing(authenticate(auth, request)) as steps, suppress(StopIteration):
        step = next(steps)
        while True:
            if isinstance(step, AwaitToken):
                yield step
                step = next(steps)
            else:
                response = yield from _send(endpoint, turns, step, auth)
                step = steps.send(response)
                yield Close()  # Not reached if this is the final response.
    return response


def _send(endpoint: Endpoint, turns: "_Turns", request: httpx.Request, auth: Any) -> HttpFlow[httpx.Response]:
    """Send a request; once more if the server had closed its connection while it was idle."""
    if request.headers.get("Connection") == "close":  # It is to reach another replica, which may have another address.
        endpoint.hosts.forget()
    trace = ConnectionTrace(endpoint.connections)
    request.extensions["trace"] = trace.record_async if endpoint.is_async else trace.record
    arguments: dict[str, Any] = {"stream": True, "follow_redirects": False}
    if auth is not None:  # Otherwise the HTTP client may have its own. A credential has signed the request already.
        arguments["auth"] = None if isinstance(auth, Credential) else auth
    try:
        response: httpx.Response = yield from _send_in_turn(turns, request, arguments)
    except Exception as error:  # Each transport has its own error classes.
        if not (trace.is_reused and is_connection_error(error)):
            raise
        response = yield from _send_in_turn(turns, request, arguments)
    return response


def _send_in_turn(turns: "_Turns", request: httpx.Request, arguments: Mapping[str, Any]) -> HttpFlow[httpx.Response]:
    yield from turns.take()
    turns.use()
    response: httpx.Response = yield Send(request, arguments)
    return response


class _Turns:
    """The turns of one exchange: one for each request that it sends."""

    def __init__(self, rate_limit: RateLimit | None, *, restarts_timeout: bool) -> None:
        self._rate_limit = rate_limit
        self._restarts_timeout = restarts_timeout
        self._is_taken = False
        """Whether a request may be sent now."""
        self._place: float | None = None
        """The place in the rate limit that is not used yet."""

    def take(self) -> HttpFlow[None]:
        """Wait for a turn, unless one is taken that was not used."""
        if self._is_taken:
            return
        if self._rate_limit is not None:
            self._place = self._rate_limit.take()
        while True:
            seconds = self._seconds()
            yield AwaitTurn(seconds, self._restarts_timeout)
            if seconds <= 0:
                break
        self._is_taken, self._restarts_timeout = True, False

    def use(self) -> None:
        """Use the turn for a request, which is sent now."""
        self._is_taken, self._place = False, None

    def close(self) -> None:
        """Give back the place that is not used: the exchange was closed while it waited, or there is no token."""
        if self._rate_limit is not None and self._place is not None:
            self._rate_limit.give_back(self._place)

    def _seconds(self) -> float:
        return 0.0 if self._rate_limit is None or self._place is None else self._rate_limit.wait(self._place)


def _redirect(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """Return the request that a redirect asks for, if it has the same origin and method.

    A request to another origin would disclose the program's credentials, and a GET instead of a POST would lose a
    declaration.
    """
    following = response.next_request
    if following is None or following.method != request.method or _origin(following.url) != _origin(request.url):
        return None
    following.extensions = dict(request.extensions)
    # httpx keeps only the cookies that the server has set.
    if cookies := {**_cookies(request), **_cookies(following)}:
        following.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return following


def _cookies(request: httpx.Request) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in request.headers.get("Cookie", "").split(";")]
    return {name.strip(): value for name, _, value in pairs if name.strip()}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
