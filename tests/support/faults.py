"""A proxy on raw sockets that injects network faults: stalled, slow, truncated, reset and invalid responses.

It forwards requests from a client to a service, by HTTP or in memory. If a fault is set, the fault writes the response.
"""

import http.client
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from heksher_client._core.refresh.effects import Request, Response
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.fake_service import FakeService

Fault = Callable[["Connection"], None]
"""Responds to a request on a connection."""


class Connection:
    """A connection from a client, with the last request that was read from it."""

    def __init__(self, raw: socket.socket, server: "FaultServer") -> None:
        self.raw, self.server = raw, server
        self.request = b""
        self.path = ""
        self.headers: dict[str, str] = {}

    def read(self) -> bool:
        """Read the next request; False at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self.raw.recv(65_536)):
                return False
            data += more
            if data[0] == 0x16:  # a TLS handshake
                self.write(http_response(b"TLS is not supported", 400))
                return False
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(self.headers.get("content-length", 0)):
            if not (more := self.raw.recv(65_536)):
                return False  # the client has given up
            body += more
        self.request, self.path = head + b"\r\n\r\n" + body, first.split(" ")[1]
        self.server.requests.append(" ".join(first.split(" ")[:2]))
        return True

    def write(self, data: bytes) -> None:
        self.raw.sendall(data)

    def forward(self) -> bytes:
        """Send the request to the service, and return the response as bytes without writing it.

        Of a stream of events, only the part that the service sends at once is returned.

        Raises:
            ConnectionError: The service in memory is not running. The server closes the connection.
        """
        if isinstance(self.server.upstream, FakeService):
            method, target = self._request_line()
            reply = self.server.upstream.respond(
                Request(method, target, self.headers, self.request.partition(b"\r\n\r\n")[2])
            )
            if not isinstance(reply, Response):
                raise ConnectionError("the service sends no response")
            return http_response(reply.content, reply.status, _header_lines(reply.headers.items()))
        with self._sent_to_service() as response:
            content = response.read1() if _is_stream(response) else response.read()
        return http_response(content, response.status, _header_lines(response.getheaders()))

    def relay(self, compress: bool = False) -> None:
        """Send the request to the service, and write the response: a stream of events as it arrives, optionally as a
        gzip body, until the client or the server ends it."""
        if isinstance(self.server.upstream, FakeService) or "/changes" not in self.path:
            self.write(self.forward())
            return
        with self._sent_to_service() as response:
            if not _is_stream(response):
                self.write(http_response(response.read(), response.status, _header_lines(response.getheaders())))
                return
            encoding = "Content-Encoding: gzip\r\n" if compress else ""
            compressor = zlib.compressobj(wbits=31)
            headers = _header_lines(response.getheaders())
            self.write(f"HTTP/1.1 200 OK\r\n{headers}{encoding}Connection: close\r\n\r\n".encode())
            while not self.server.is_ended and (piece := response.read1()):
                if compress:
                    piece = compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
                self.write(piece)
        self.raw.shutdown(socket.SHUT_RDWR)

    def _request_line(self) -> tuple[str, str]:
        method, target, _ = self.request.split(b"\r\n", 1)[0].decode().split(" ")
        return method, target

    @contextmanager
    def _sent_to_service(self) -> Iterator[http.client.HTTPResponse]:
        """Send the request to the service, which has a URL. The connection is closed after the block."""
        assert not isinstance(self.server.upstream, FakeService)
        method, target = self._request_line()
        upstream = http.client.HTTPConnection(self.server.upstream.netloc, timeout=TIMEOUT_SECONDS)
        try:
            body = self.request.partition(b"\r\n\r\n")[2]
            upstream.request(method, target, body or None, self.headers)
            yield upstream.getresponse()
        finally:
            upstream.close()


def _is_stream(response: http.client.HTTPResponse) -> bool:
    return (response.getheader("Content-Type") or "").startswith("text/event-stream")


def _header_lines(headers: Iterable[tuple[str, str]]) -> str:
    skipped = ("content-length", "connection", "transfer-encoding")
    return "".join(f"{name}: {value}\r\n" for name, value in headers if name.lower() not in skipped)


def http_response(body: bytes, status: int = 200, headers: str = "") -> bytes:
    """Return a complete HTTP response."""
    return f"HTTP/1.1 {status} Status\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


class FaultServer:
    """A server on the loopback interface that runs, with its connections, inside a `with` block."""

    def __init__(self, upstream: str | FakeService, tls: ssl.SSLContext | None = None) -> None:
        """Create a proxy of a service with a URL, or of one in memory, optionally with TLS."""
        self._tls = tls
        self.upstream = upstream if isinstance(upstream, FakeService) else urlsplit(upstream)
        self.fault: Fault | None = None
        self.only = ""
        """The fault applies to requests whose target contains this string; all others are forwarded."""
        self.requests: list[str] = []
        """The requests so far, as method and target."""
        self.connections = 0
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def inject(self, fault: Fault | None, only: str = "") -> None:
        """Set the fault for later requests; None to forward them."""
        self.only, self.fault = only, fault

    def wait(self, seconds: float) -> None:
        """Wait, at most until the server stops."""
        self._ended.wait(seconds)

    @property
    def is_ended(self) -> bool:
        return self._ended.is_set()

    def disconnect_all(self) -> None:
        """Shut down all connections."""
        for raw in self._open.copy():
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                self.connections += 1
                self._open.add(raw)
                threading.Thread(target=self._serve, args=[raw], daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with suppress(OSError, ValueError, IndexError), raw, self._secured(raw) as secured:  # invalid HTTP included
                connection = Connection(secured, self)
                while not self.is_ended and connection.read():
                    if self.fault is not None and self.only in connection.path:
                        self.fault(connection)
                    else:
                        connection.relay()
        finally:
            self._open.discard(raw)

    def _secured(self, raw: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(raw, server_side=True) if self._tls else raw


# -- faults ------------------------------------------------------------------------------------------------------------


def stall(connection: Connection) -> None:
    """Send no response while the client waits."""
    while connection.raw.recv(65_536):
        pass


def disconnect(connection: Connection) -> None:
    """Close the connection instead of a response."""
    connection.raw.shutdown(socket.SHUT_RDWR)


def trickle(connection: Connection) -> None:
    """Send a byte of an endless body every 10 ms."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not connection.server.is_ended:
        connection.write(b" ")
        connection.server.wait(0.01)


def trickle_head(connection: Connection) -> None:
    """Send a byte of an endless header every 10 ms."""
    connection.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not connection.server.is_ended:
        connection.write(b"x")
        connection.server.wait(0.01)


def truncate(connection: Connection) -> None:
    """Send an incomplete response, and close the connection."""
    whole = connection.forward()
    connection.write(whole[: len(whole) - 10])
    connection.raw.shutdown(socket.SHUT_RDWR)


def reset(connection: Connection) -> None:
    """Send an incomplete response, and reset the connection."""
    whole = connection.forward()
    connection.write(whole[: len(whole) - 10])
    connection.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.raw.close()


def canned_response(body: bytes, status: int = 200, headers: str = "") -> Fault:
    """Return a fault that always sends the same response."""
    return lambda connection: connection.write(http_response(body, status, headers))


def redirect_to(location: str, status: int = 307) -> Fault:
    """Return a fault that redirects; `{path}` in the location is replaced by the path and query of the request."""

    def fault(connection: Connection) -> None:
        target = location.replace("{path}", connection.path)
        connection.write(http_response(b"", status, f"Location: {target}\r\n"))

    return fault


def gzip_bomb(megabytes: int) -> Fault:
    """Return a fault that sends a small compressed response with a large body."""
    compressor = zlib.compressobj(9, wbits=31)
    # Compressed once and repeated, which takes no time. Only the checksum at the end is wrong, which no client reaches.
    first, repeated = (compressor.compress(b" " * (1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    body = first + repeated * (megabytes - 1) + compressor.flush()
    return canned_response(body, headers="Content-Encoding: gzip\r\n")
