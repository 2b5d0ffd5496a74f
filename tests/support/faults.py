"""A server on a raw socket that does what no HTTP server would: it stalls, trickles, truncates, resets and lies.

It stands between a client and a service. Without a fault it passes everything on; with one, the fault writes whatever
it likes to the connection.
"""

import http.client
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Fault = Callable[["Connection"], None]
"""Does something to a connection on which a request has come in."""


class Connection:
    """One connection of a client, with the request that was read from it last."""

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
            if data[0] == 0x16:  # TLS, which this is not
                self.write(answer(b"speak plainly", 400))
                return False
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(self.headers.get("content-length", 0)):
            body += self.raw.recv(65_536)
        self.request, self.path = head + b"\r\n\r\n" + body, first.split(" ")[1]
        self.server.asked.append(" ".join(first.split(" ")[:2]))
        return True

    def write(self, data: bytes) -> None:
        self.raw.sendall(data)

    def pass_on(self) -> bytes:
        """Have the service answer; gives its answer as bytes, and writes nothing."""
        method, target, _ = self.request.split(b"\r\n", 1)[0].decode().split(" ")
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=5)
        try:
            body = self.request.partition(b"\r\n\r\n")[2]
            upstream.request(method, target, body or None, self.headers)
            response = upstream.getresponse()
            content = response.read()
        finally:
            upstream.close()
        skipped = ("content-length", "connection", "transfer-encoding")
        headers = "".join(f"{k}: {v}\r\n" for k, v in response.getheaders() if k.lower() not in skipped)
        return answer(content, response.status, headers)


def answer(body: bytes, status: int = 200, headers: str = "") -> bytes:
    """A polite HTTP answer."""
    return f"HTTP/1.1 {status} It Is\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


class FaultServer:
    """Listens on loopback. As a context manager it ends with all its connections."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self.upstream = (parts.hostname, parts.port)
        self.fault: Fault | None = None
        self.only = ""
        """The fault is for requests whose target contains this; all others are passed on."""
        self.asked: list[str] = []
        """The requests so far."""
        self.connections = 0
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def break_(self, fault: Fault | None, only: str = "") -> None:
        """Have requests met by a fault from now on, or by none."""
        self.only, self.fault = only, fault

    def wait(self, seconds: float) -> None:
        """Do nothing for a while, unless the server ends."""
        self._ended.wait(seconds)

    @property
    def is_ended(self) -> bool:
        return self._ended.is_set()

    def cut(self) -> None:
        """End all connections that there are."""
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
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                self.connections += 1
                self._open.add(raw)
                threading.Thread(target=self._serve, args=[raw], daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        connection = Connection(raw, self)
        try:
            with suppress(OSError, ValueError, IndexError), raw:  # also where there is no HTTP
                while not self.is_ended and connection.read():
                    if self.fault is not None and self.only in connection.path:
                        self.fault(connection)
                    else:
                        connection.write(connection.pass_on())
        finally:
            self._open.discard(raw)


# -- what may go wrong -------------------------------------------------------------------------------------------------


def stall(connection: Connection) -> None:
    """Never answer, as long as the client waits."""
    while connection.raw.recv(65_536):
        pass


def trickle(connection: Connection) -> None:
    """A byte of the body every 50 ms, for ever."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not connection.server.is_ended:
        connection.write(b" ")
        connection.server.wait(0.05)


def trickle_head(connection: Connection) -> None:
    """A byte of a header every 50 ms, for ever."""
    connection.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not connection.server.is_ended:
        connection.write(b"x")
        connection.server.wait(0.05)


def truncate(connection: Connection) -> None:
    """Half of the answer."""
    whole = connection.pass_on()
    connection.write(whole[: len(whole) - 10])
    connection.raw.shutdown(socket.SHUT_RDWR)


def reset(connection: Connection) -> None:
    """Half of the answer, and a reset."""
    whole = connection.pass_on()
    connection.write(whole[: len(whole) - 10])
    connection.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.raw.close()


def says(body: bytes, status: int = 200, headers: str = "") -> Fault:
    """Always the same answer."""
    return lambda connection: connection.write(answer(body, status, headers))


def redirects(location: str, status: int = 307) -> Fault:
    """To another place; `{path}` stands for the path and query of the request."""

    def fault(connection: Connection) -> None:
        target = location.replace("{path}", connection.path)
        connection.write(answer(b"", status, f"Location: {target}\r\n"))

    return fault


def inflates(megabytes: int) -> Fault:
    """A small answer that inflates to a large one."""
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(b" " * (1 << 20)) for _ in range(megabytes)) + compressor.flush()
    return says(bomb, headers="Content-Encoding: gzip\r\n")
