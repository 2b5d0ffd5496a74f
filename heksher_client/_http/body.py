"""Between the core's values and those of the HTTP client: the only place that knows both."""

import base64
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final

import httpx

from heksher_client._core.refresh.effects import NoResponse, Oversized, Reply, Response
from heksher_client._logging import redact
from heksher_client.exceptions import HeksherError, ServiceUnavailableError, UnexpectedResponseError

_MAX_REDIRECTS: Final = 3
"""How many redirects a request follows."""
_FOLLOWED: Final = "heksher_client.redirects"
"""Where a request notes how many it has followed."""


def redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """The request that a redirect asks for, if it may be followed: to the same server, with the same method, and a few.

    Elsewhere it would take the program's credentials along, or (as a GET) lose what was to be declared.
    """
    following = response.next_request
    if following is None or following.method != request.method or _origin(following.url) != _origin(request.url):
        return None
    followed = request.extensions.get(_FOLLOWED, 0) + 1
    following.extensions = {**request.extensions, _FOLLOWED: followed}
    # httpx leaves out all but those that it was handed by the server.
    if cookies := {**_cookies(request), **_cookies(following)}:
        following.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return following if followed <= _MAX_REDIRECTS else None


def _cookies(request: httpx.Request) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in request.headers.get("Cookie", "").split(";")]
    return {name.strip(): value for name, _, value in pairs if name.strip()}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class Body:
    """The body of a response on its way in: inflated bit by bit, and never to more than a limit."""

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        """Begin with a response of which only the head is there.

        Raises:
            httpx.DecodingError: Its encoding is none that was asked for.
        """
        self._response, self._max_bytes = response, max_bytes
        self.is_read = response.is_stream_consumed
        """Whether somebody has read all of it already, and inflated it: a transport of the program, or a hook."""
        self._parts: list[bytes] = []
        self._size = 0
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity", "") and not self.is_read:
            raise httpx.DecodingError(f"the answer is encoded as {encoding[:20]!r}")
        self._inflate = zlib.decompressobj(_GZIP) if "gzip" in encoding else None

    def add(self, chunk: bytes) -> bool:
        """Take some bytes as they came.

        Returns:
            Whether more are wanted.

        Raises:
            httpx.DecodingError: They are not what their encoding says.
        """
        if self._inflate is None:
            self._keep(chunk)
        while self._inflate is not None and chunk and self._size <= self._max_bytes:
            try:
                self._keep(self._inflate.decompress(chunk, self._max_bytes + 1 - self._size))
            except zlib.error:
                raise httpx.DecodingError("the answer cannot be inflated") from None
            if self._inflate.unused_data:
                raise httpx.DecodingError("the answer goes on after the end of its compressed data")
            chunk = self._inflate.unconsumed_tail
        return self._size <= self._max_bytes

    def reply(self) -> Reply:
        """The response as the core takes it.

        Raises:
            httpx.DecodingError: The body ends too early.
        """
        if self.is_read:
            self._keep(self._response.content)
        elif self._inflate is not None and not self._inflate.eof and 0 < self._size <= self._max_bytes:
            raise httpx.DecodingError("the answer ends before its compressed data does")
        if self._size > self._max_bytes:
            return Oversized(self._response.status_code, self._max_bytes)
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        to_show = partial(_without_secrets, self._response.request)
        return Response(self._response.status_code, b"".join(self._parts), headers, to_show)

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)


def hang_up(response: httpx.Response) -> None:
    """End a response that another thread waits for, which does not notice that it is closed."""
    stream = response.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("socket")
    if connection is not None:  # A transport of the program has none: it ends with the next byte.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class StreamBody(Body):
    """The body of a stream: handed on as it comes, if it is a success; otherwise the beginning of what it says."""

    def __init__(self, response: httpx.Response, take: Callable[[bytes], bool]) -> None:
        super().__init__(response, _MOST_OF_A_REFUSAL)
        is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
        self._take = take if response.status_code == httpx.codes.OK and is_stream else super().add

    def add(self, chunk: bytes) -> bool:
        return self._take(chunk)


def _without_secrets(request: httpx.Request, content: bytes) -> bytes:
    """The words of an answer without what was sent in headers, cookies and parameters of the program's own."""
    sent = [*request.headers.items(), *request.url.params.items()]
    values = [value for name, value in sent if name.lower() not in _HARMLESS]
    parts = [part for value in values for part in re.split(r"[\s;,=]+", value) if len(part) >= _SHORTEST_PART]
    return redact(content, [*values, *parts, *_passwords(values)])


def _passwords(values: Iterable[str]) -> Iterator[str]:
    """What is in headers of basic authentication."""
    for value in values:
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                pair = base64.b64decode(encoded).decode()
                yield from (pair, pair.partition(":")[2])


_HARMLESS: Final = frozenset(
    ["accept", "accept-encoding", "connection", "content-length", "content-type", "host", "if-none-match", "user-agent",
     "settings", "context_filters", "include_metadata", "include_additional_data"]
)  # fmt: skip
"""The headers and parameters that are the client's own."""
_MOST_OF_A_REFUSAL: Final = 1 << 16
"""Bytes."""
_SHORTEST_PART: Final = 6
"""Of a header that has several: a cookie, or the credentials after the name of their scheme."""
_GZIP: Final = 31
"""What zlib calls its largest window, and a gzip header."""
_NETWORKS_ERRORS: Final = ("NetworkError", "TimeoutException", "RemoteProtocolError", "DecodingError")


def no_response(error: Exception) -> NoResponse:
    """A failure to get any response. Of httpx's errors, those of the network are told from those of bad requests."""
    if _is_httpx(error, "LocalProtocolError"):
        # Its words quote the header that is none, which may be a token with a line break; and tracebacks show causes.
        error = httpx.LocalProtocolError("a header of the request is not valid")
    is_untrusted = _is_httpx(error, "ConnectError") and _is_caused_by(error, ssl.SSLError)
    return NoResponse(error, isinstance(error, TimeoutError) or _is_httpx(error, *_NETWORKS_ERRORS), is_untrusted)


def _is_httpx(error: Exception, *names: str) -> bool:
    """Whether an error is one of httpx, by the name of its class: what behaves as httpx has classes of its own."""
    return any(kind.__name__ in names and kind.__module__.startswith("httpx") for kind in type(error).__mro__)


class Trace:
    """What became of the connection that a request was sent on. An extension of the request, which httpx calls."""

    def __init__(self) -> None:
        self._is_new = self._is_sent = False

    def note(self, event: str, _: object) -> None:
        self._is_new |= ".connect_" in event
        self._is_sent |= event.endswith("send_request_headers.started")

    async def note_async(self, event: str, info: object) -> None:
        self.note(event, info)

    def is_stale(self, error: Exception) -> bool:
        """Whether a request failed because its connection, which others had used before, was closed meanwhile."""
        is_closed = _is_httpx(error, "RemoteProtocolError", "ReadError", "WriteError")
        return is_closed and self._is_sent and not self._is_new


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def as_http_error(error: HeksherError) -> HeksherError:
    """The same error, as an `httpx.HTTPError` as well if it is the service's or the network's doing."""
    if not isinstance(error, ServiceUnavailableError | UnexpectedResponseError):
        return error
    made_for: Any = type(error)
    kind: type[HeksherError] = _as_http_error(made_for)
    twin = kind.__new__(kind, *error.args)
    vars(twin).update(vars(error), _request=None, _plain=error)
    return twin


@lru_cache(maxsize=64)
def _as_http_error(kind: Any) -> Any:
    def reduce(error: Any) -> Any:  # Pickles find classes by name, and this one has none of its own.
        return as_http_error, (error._plain,)

    own = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    return type(kind.__name__, (kind, httpx.HTTPError), own)
