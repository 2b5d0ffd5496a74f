"""The body of a response: decompressed as it arrives, limited in size, and without secrets where it is shown."""

import base64
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_plus

import httpx

from heksher_client._core.refresh.effects import Oversized, Reply, Response, SentRequest
from heksher_client._core.refresh.protocol import content_encodings, encoding_problem, stream_mismatch
from heksher_client._logging import redact


class Body:
    """The body of a response. It takes little more memory than its limit, however small its compressed data is."""

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        """Prepare to read the body of a response.

        Args:
            response: Only its head has been read, or all of it.
            max_bytes: The limit of the decompressed body.
        """
        self._response, self._max_bytes = response, max_bytes
        self.is_read = response.is_stream_consumed
        """Whether a transport or an event hook of the program has read and decompressed it."""
        self._parts: list[bytes] = []
        self._size = 0
        encoding = response.headers.get("Content-Encoding", "")
        self._encoding_problem = encoding_problem(encoding)
        self._decompressors: list[_Decompressor] = []
        """One for each encoding, from the one that was applied last."""
        if not self._encoding_problem:
            self._decompressors = [_Decompressor(name) for name in reversed(content_encodings(encoding))]
        self._problem = ""

    def feed(self, chunk: bytes) -> bool:
        """Add some bytes of the encoded body.

        Returns:
            False if no more bytes are needed: the limit is exceeded, or they cannot be decoded.
        """
        try:
            for part in self._decoded(chunk):
                self._add(part)
                if self._is_oversized:
                    return False
        except _DecodingError as error:
            self._problem = str(error)
        return not self._problem

    def reply(self) -> Reply:
        """Return the response as a value of the core."""
        if self.is_read:
            self._add(self._response.content)
        if self._is_oversized:
            return Oversized(self._response.status_code, self._max_bytes, partial(sent_request, self._response.request))
        if any(decompressor.is_incomplete for decompressor in self._decompressors):
            self._problem = self._problem or "with compressed data that ends too early"
        return self._as_response()

    @property
    def _is_oversized(self) -> bool:
        ignored = sum(decompressor.ignored for decompressor in self._decompressors)
        return self._size + ignored > self._max_bytes

    def _add(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._size += len(part)

    def _decoded(self, chunk: bytes) -> Iterable[bytes]:
        """Decode some bytes.

        Raises:
            _DecodingError: They are not valid in their encoding, or that is not supported.
        """
        if self._encoding_problem and chunk:
            raise _DecodingError(self._encoding_problem)
        parts: Iterable[bytes] = (chunk,)
        for number, decompressor in enumerate(self._decompressors):
            # Compressed data hardly shrinks when it is compressed again, unless it is to use up the time of the client.
            between = _limited(parts, len(chunk) + _MAX_EXPANDED_BYTES) if number else parts
            parts = decompressor.decompress(between)
        return parts

    def _as_response(self) -> Response:
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        content = b"" if self._problem else b"".join(self._parts)
        request = self._response.request
        redact_request, sent = partial(_redact_request, request), partial(sent_request, request)
        return Response(self._response.status_code, content, headers, redact_request, self._problem, sent)


class StreamBody(Body):
    """The body of a stream of events, passed on as it arrives; the beginning of the body of another response."""

    def __init__(self, response: httpx.Response, take: Callable[[bytes], bool]) -> None:
        super().__init__(response, _MAX_ERROR_BYTES)
        headers = {name.lower(): value for name, value in response.headers.items()}
        self._take = take if stream_mismatch(response.status_code, headers) is None else None
        # The body of another response only adds to the reason, and may never arrive.
        is_announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.is_read = self.is_read or (self._take is None and not (is_announced and not self._encoding_problem))

    def feed(self, chunk: bytes) -> bool:
        if self._take is None:
            super().feed(chunk)
            self._problem = ""
            return False
        try:
            return all(self._take(part) for part in _limited(self._decoded(chunk), _MAX_EXPANDED_BYTES))
        except _DecodingError as error:
            self._problem = str(error)
            return False

    def reply(self) -> Reply:
        return self._as_response()


class _DecodingError(Exception):
    """A body that cannot be decoded. The message is a part of a sentence."""


def _limited(parts: Iterable[bytes], max_size: int) -> Iterator[bytes]:
    """Return the same parts, up to a size of all together.

    Raises:
        _DecodingError: They are larger.
    """
    size = 0
    for part in parts:
        size += len(part)
        if size > max_size:
            raise _DecodingError("with data that is compressed too much")
        yield part


class _Decompressor:
    """The decompression of one body, in parts of limited size."""

    def __init__(self, encoding: str) -> None:
        self._window_bits: int | None = None if encoding == "deflate" else _GZIP_WINDOW_BITS
        self._zlib: Any = None
        self._is_ended = False
        """True if something else than another member follows the end of the data."""
        self._held = b""
        """The first byte after the end of a member, if it may be that of another one."""
        self.ignored = 0
        """The number of bytes that followed the end of the data."""

    @property
    def is_incomplete(self) -> bool:
        """True if compressed data has arrived, but not its end."""
        return self._zlib is not None and not self._zlib.eof

    def decompress(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the data that some more bytes decompress to.

        Raises:
            _DecodingError: The bytes are not valid.
        """
        for chunk in chunks:
            yield from self._decompress(chunk)

    def _decompress(self, chunk: bytes) -> Iterator[bytes]:
        is_pending = True
        while is_pending:
            if self._zlib is not None and self._zlib.eof:
                chunk = self._next_member(chunk)
            if not chunk and (self._zlib is None or self._zlib.eof):
                yield b""  # The reader of a stream checks with each part how long there was no event.
                return
            if self._zlib is None or self._zlib.eof:
                self._zlib = zlib.decompressobj(self._window_bits or _deflate_window_bits(chunk))
            try:
                part = self._zlib.decompress(chunk, _PART_BYTES)
            except zlib.error:
                raise _DecodingError("with compressed data that is not valid") from None
            yield part
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data
            is_pending = bool(chunk) or (len(part) == _PART_BYTES and not self._zlib.eof)

    def _next_member(self, chunk: bytes) -> bytes:
        """Return the beginning of another member of the data. Other bytes that follow the end of one are ignored.

        Some servers send padding after the data. HTTP clients and the program gzip accept that.
        """
        after = (self._held + chunk).lstrip(b"\0")
        self._held = b""
        if after and not self._is_ended:
            self._is_ended = not self._may_be_member(after[:2])
            if not self._is_ended and len(after) > 1:
                return after
            self._held = b"" if self._is_ended else after
        self.ignored += len(chunk)
        return b""

    def _may_be_member(self, beginning: bytes) -> bool:
        """Return True if data that begins with these bytes, one or two, may be a member. It has the header of one."""
        if self._window_bits is not None:
            return _GZIP_MAGIC.startswith(beginning)
        is_zlib = beginning[0] & 0x8F == zlib.DEFLATED
        return is_zlib and (len(beginning) == 1 or int.from_bytes(beginning, "big") % 31 == 0)


def _deflate_window_bits(beginning: bytes) -> int:
    """Return the format of data with the encoding `deflate`: with the header of zlib, or, from some servers, raw."""
    return zlib.MAX_WBITS if beginning[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS


def sent_request(request: httpx.Request) -> SentRequest:
    """Describe a request for an error, without the values that `Response.redact` would redact as a whole."""
    query = "&".join(
        f"{name}=***" if _is_secret(unquote_plus(name), unquote_plus(value)) else name + equals + value
        for name, equals, value in (pair.partition("=") for pair in request.url.query.decode("ascii").split("&"))
    )
    url = request.url.copy_with(username=None, password=None, query=query.encode() or None, fragment=None)
    return SentRequest(
        str(url),
        {name.lower(): "***" if _is_secret(name, value) else value for name, value in request.headers.items()},
    )


def _is_secret(name: str, value: str) -> bool:
    """Return True if the value of a header or parameter may be a secret."""
    is_long = len(value) >= _MIN_PART_LENGTH
    return name.lower() not in _PUBLIC_NAMES and bool(value) and (is_long or _SECRET_NAME.search(name) is not None)


def _redact_request(request: httpx.Request, content: bytes) -> bytes:
    """Redact the values of the headers, cookies and parameters that the program added to a request."""
    sent = [*request.headers.items(), *request.url.params.items()]
    secrets = [secret for name, value in sent if name.lower() not in _PUBLIC_NAMES for secret in _secrets(name, value)]
    return redact(content, secrets)


def _secrets(name: str, value: str) -> Iterator[str]:
    """Yield the value of a header or parameter, and the parts of it that may be secrets by themselves."""
    yield from _basic_auth_secrets(value)
    min_length = _MIN_PART_LENGTH
    if name.lower() in ("authorization", "proxy-authorization"):
        value, min_length = _SCHEME.sub("", value), 0
    if _SECRET_NAME.search(name) or len(value) >= _MIN_PART_LENGTH:
        yield value
    parts = re.split(r"[\s;,]+", value)
    for part in parts:
        key, _, assigned = part.partition("=")
        # A part may be the name and value of a cookie, or end with the padding of base64.
        found = (part, part.rstrip("="), assigned.strip('"')) if assigned.strip("=") else (part, key)
        yield from (text for text in found if len(text) >= min_length)


def _basic_auth_secrets(value: str) -> Iterator[str]:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            pair = base64.b64decode(encoded).decode()
            yield from (pair, pair.partition(":")[2])


_PUBLIC_NAMES: Final = frozenset(
    ["accept", "accept-encoding", "connection", "content-length", "content-type", "host", "if-none-match", "user-agent",
     "settings", "context_filters", "include_metadata", "include_additional_data",
     "accept-charset", "accept-language", "b3", "cache-control", "last-event-id", "pragma", "traceparent", "tracestate",
     "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid", "x-cloud-trace-context", "x-amzn-trace-id",
     "correlation-id", "request-id", "x-correlation-id", "x-request-id"]
)  # fmt: skip
"""The headers and parameters that the client itself sends, and those that identify a request. Others may be secrets."""
_SECRET_NAME: Final = re.compile("auth|cookie|cred|key|pass|pwd|secret|session|sig|token", re.IGNORECASE)
"""Names of secrets, which are redacted even if they are short. Short values of other names are words like `json`."""
_MAX_ERROR_BYTES: Final = 1 << 16
_PART_BYTES: Final = 1 << 18
"""The largest part of a body that is decompressed at once."""
_MAX_EXPANDED_BYTES: Final = 1 << 22
"""The size of what one chunk of a stream, of some kilobytes, may decompress to: more would delay the event loop."""
_MIN_PART_LENGTH: Final = 6
"""Characters of a value that is redacted without the name of a secret, or as a part of a header, such as a cookie."""
_SCHEME: Final = re.compile(r"^[A-Za-z][A-Za-z0-9-]*\s+")
"""The beginning of the header Authorization: the scheme, which is not a secret."""
_GZIP_WINDOW_BITS: Final = 31
"""zlib's largest window, with a gzip header."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
"""The beginning of each member of gzip data."""
