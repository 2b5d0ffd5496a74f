"""Between the core's values and httpx's: the only place that knows both."""

import re
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import quote, quote_plus

import httpx

from heksher_client._core.protocol import Listen, NoResponse, Oversized, Reply, Request, Response
from heksher_client._version import __version__
from heksher_client.exceptions import (
    HeksherError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UntrustedServiceError,
)

_MAX_REDIRECTS: Final = 3
"""How many redirects a request follows."""
_FOLLOWED: Final = "heksher_client.redirects"
"""Where a request notes how many it has followed."""


def client_arguments(service_url: str, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments for an httpx client: the program's own, with ours where it says nothing.

    Raises:
        ValueError: The URL is no HTTP URL that paths can be appended to.
    """
    try:
        url = httpx.URL(service_url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("service_url is no URL (a user name or password in it must be percent-encoded)") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("service_url must be an absolute http:// or https:// URL")
    if url.query or url.fragment:
        raise ValueError("service_url must have no query and no fragment: requests append their paths to it")
    arguments = dict(arguments or {})
    if url.userinfo:
        # httpx would do the same with each request, and write the URL with its password into its log.
        arguments.setdefault("auth", (url.username, url.password))
        url = url.copy_with(username=None, password=None)
    headers = httpx.Headers(arguments.pop("headers", None))
    headers.setdefault("User-Agent", f"heksher-client/{__version__}")
    return {"base_url": url, "headers": headers, **arguments}


def to_httpx(client: httpx.Client | httpx.AsyncClient, request: Request, seconds: float) -> httpx.Request:
    """A request as httpx sends it, with the client's URL, headers, cookies and parameters.

    No step of it takes longer than the seconds given, whatever time-outs the client has.
    """
    # Only what `Body` can inflate bit by bit: a small answer may inflate to more than the memory holds.
    headers = {**request.headers, "Accept-Encoding": "gzip"}
    built = client.build_request(request.method, request.target, headers=headers, content=request.content)
    steps: dict[str, float | None] = built.extensions.get("timeout", {})
    shorter = {step: seconds if longest is None else min(longest, seconds) for step, longest in steps.items()}
    built.extensions = {**built.extensions, "timeout": shorter}
    query = request.target.partition("?")[2]
    if query and client.params:
        # httpx would replace the query of a URL by the client's parameters.
        built.url = built.url.copy_with(query=f"{query}&{client.params}".encode())
    return built


def to_httpx_stream(client: httpx.Client | httpx.AsyncClient, step: Listen) -> httpx.Request:
    """The request for a stream, which may be quiet for longer than an answer."""
    built = to_httpx(client, step.request, step.seconds)
    built.headers["Accept-Encoding"] = "identity"
    built.extensions["timeout"]["read"] = step.seconds
    return built


def redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """The request that a redirect asks for, if it may be followed: to the same server, with the same method, and a few.

    Elsewhere it would take the program's credentials along, or (as a GET) lose what was to be declared.
    """
    following = response.next_request
    if following is None or following.method != request.method or _origin(following.url) != _origin(request.url):
        return None
    followed = request.extensions.get(_FOLLOWED, 0) + 1
    following.extensions = {**request.extensions, _FOLLOWED: followed}
    return following if followed <= _MAX_REDIRECTS else None


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
    shown = {form for value in (*values, *parts) for form in (value, quote(value, safe=""), quote_plus(value))}
    for secret in sorted(shown, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            content = content.replace(secret.encode(), b"***")
    return content


_HARMLESS: Final = frozenset(
    ["accept", "accept-encoding", "connection", "content-length", "content-type", "host", "if-none-match", "user-agent",
     "settings", "context_filters", "include_metadata", "include_additional_data"]
)  # fmt: skip
"""The headers and parameters that are the client's own."""
_MOST_OF_A_REFUSAL: Final = 1 << 16
"""Bytes."""
_SHORTEST_SECRET: Final = 4
_SHORTEST_PART: Final = 6
"""Of a header that has several: a cookie, or the credentials after the name of their scheme."""
_GZIP: Final = 31
"""What zlib calls its largest window, and a gzip header."""
_NETWORKS_ERRORS: Final = (
    httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.DecodingError, TimeoutError
)  # fmt: skip


def no_response(error: Exception) -> NoResponse:
    """A failure to get any response. Of httpx's errors, those of the network are told from those of bad requests."""
    if isinstance(error, httpx.LocalProtocolError):
        # Its words quote the header that is none, which may be a token with a line break; and tracebacks show causes.
        error = httpx.LocalProtocolError("a header of the request is not valid")
    is_untrusted = isinstance(error, httpx.ConnectError) and _is_caused_by(error, ssl.SSLError)
    return NoResponse(error, isinstance(error, _NETWORKS_ERRORS), is_untrusted)


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


class UntrustedHTTPError(UntrustedServiceError, httpx.HTTPError):
    """An `UntrustedServiceError` where the interface promises an `httpx.HTTPError`."""


class UnavailableHTTPError(ServiceUnavailableError, httpx.HTTPError):
    """A `ServiceUnavailableError` where the interface promises an `httpx.HTTPError`."""


class UnexpectedHTTPError(UnexpectedResponseError, httpx.HTTPError):
    """An `UnexpectedResponseError` where the interface promises an `httpx.HTTPError`."""

    def __init__(self, error: UnexpectedResponseError) -> None:
        httpx.HTTPError.__init__(self, str(error))
        self.status, self.content, self.retry_after = error.status, error.content, error.retry_after


def as_http_error(error: HeksherError) -> HeksherError:
    """The same error, as an `httpx.HTTPError` as well if it is the service's or the network's doing."""
    if isinstance(error, UnexpectedResponseError):
        return UnexpectedHTTPError(error)
    if isinstance(error, UntrustedServiceError):
        return UntrustedHTTPError(str(error))
    return UnavailableHTTPError(str(error)) if isinstance(error, ServiceUnavailableError) else error
