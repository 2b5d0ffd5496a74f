"""The body of a response: decompressed as it arrives, limited in size, and without secrets where it is shown."""

import base64
import re
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

import httpx

from heksher_client._core.refresh.effects import Oversized, Reply, Response
from heksher_client._logging import redact


class Body:
    """The body of a response. It never takes more memory than its limit, however small its compressed data is."""

    def __init__(self, response: httpx.Response, max_bytes: int) -> None:
        """Prepare to read the body of a response.

        Args:
            response: Only its head has been read, or all of it.
            max_bytes: The limit of the decompressed body.

        Raises:
            httpx.DecodingError: Its encoding was not requested.
        """
        self._response, self._max_bytes = response, max_bytes
        self.is_read = response.is_stream_consumed
        """Whether a transport or an event hook of the program has read and decompressed it."""
        self._parts: list[bytes] = []
        self._size = 0
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "x-gzip", "identity", "") and not self.is_read:
            raise httpx.DecodingError(f"the response has the unsupported encoding {encoding[:20]!r}")
        self._gzip = zlib.decompressobj(_GZIP_WINDOW_BITS) if "gzip" in encoding else None

    def feed(self, chunk: bytes) -> bool:
        """Add some bytes of the encoded body.

        Returns:
            False if no more bytes are needed, as the limit is exceeded.

        Raises:
            httpx.DecodingError: The bytes are not valid in its encoding.
        """
        if self._gzip is None:
            self._append(chunk)
        while self._gzip is not None and chunk and self._size <= self._max_bytes:
            try:
                self._append(self._gzip.decompress(chunk, self._max_bytes + 1 - self._size))
            except zlib.error:
                raise httpx.DecodingError("the response cannot be decompressed") from None
            if self._gzip.unused_data:
                raise httpx.DecodingError("the response has data after the end of its compressed data")
            chunk = self._gzip.unconsumed_tail
        return self._size <= self._max_bytes

    def reply(self) -> Reply:
        """Return the response as a value of the core.

        Raises:
            httpx.DecodingError: The compressed data is incomplete.
        """
        if self.is_read:
            self._append(self._response.content)
        elif self._gzip is not None and not self._gzip.eof and 0 < self._size <= self._max_bytes:
            raise httpx.DecodingError("the response ends before its compressed data does")
        if self._size > self._max_bytes:
            return Oversized(self._response.status_code, self._max_bytes)
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        redact_request = partial(_redact_request, self._response.request)
        return Response(self._response.status_code, b"".join(self._parts), headers, redact_request)

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)


class StreamBody(Body):
    """The body of an event stream, passed on as it arrives. For another response, the beginning of its body."""

    def __init__(self, response: httpx.Response, take: Callable[[bytes], bool]) -> None:
        super().__init__(response, _MAX_ERROR_BYTES)
        is_event_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
        self._take = take if response.status_code == httpx.codes.OK and is_event_stream else super().feed

    def feed(self, chunk: bytes) -> bool:
        return self._take(chunk)


def shut_down(response: httpx.Response) -> None:
    """Shut down the connection of a response. A thread that reads from it would not notice that it was closed."""
    stream = response.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("socket")
    if connection is not None:  # The transport may not have one: then the thread ends with the next byte.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _redact_request(request: httpx.Request, content: bytes) -> bytes:
    """Redact the values of the headers, cookies and parameters that the program added to a request."""
    sent = [*request.headers.items(), *request.url.params.items()]
    values = [value for name, value in sent if name.lower() not in _PUBLIC_NAMES]
    parts = [part for value in values for part in re.split(r"[\s;,=]+", value) if len(part) >= _MIN_PART_LENGTH]
    return redact(content, [*values, *parts, *_basic_auth_secrets(values)])


def _basic_auth_secrets(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() == "basic":
            with suppress(ValueError):
                pair = base64.b64decode(encoded).decode()
                yield from (pair, pair.partition(":")[2])


_PUBLIC_NAMES: Final = frozenset(
    ["accept", "accept-encoding", "connection", "content-length", "content-type", "host", "if-none-match", "user-agent",
     "settings", "context_filters", "include_metadata", "include_additional_data"]
)  # fmt: skip
"""The headers and parameters that the client itself sends."""
_MAX_ERROR_BYTES: Final = 1 << 16
_MIN_PART_LENGTH: Final = 6
"""Characters of a part of a header that is redacted by itself: a cookie, or what follows an authentication scheme."""
_GZIP_WINDOW_BITS: Final = 31
"""zlib's largest window, with a gzip header."""
