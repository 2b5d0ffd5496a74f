"""The connections of one HTTP client for threads, so that they can be shut down while other threads wait for them.

A thread that waits for a response does not notice that its connection was closed, but does if it was shut down. Until a
response begins, httpx does not tell which connection a request uses; but it reports each connection that it opens.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from weakref import ref


class Connections:
    """The sockets of one HTTP client. All methods may be called from any thread, and by signal handlers."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._sockets: set[ref[socket.socket]] = set()
        self._is_shut_down = False

    def add(self, stream: Any) -> None:
        """Add a connection that was opened, as a network stream of httpcore."""
        if (opened := _socket_of(stream)) is not None:
            self._sockets.add(ref(opened, self._sockets.discard))
            if self._is_shut_down:
                _shut_down_socket(opened)

    def shut_down(self) -> None:
        """Shut down all connections, and each one that is opened after this.

        In the child of a fork nothing happens, as the parent uses them.
        """
        self._is_shut_down = True
        if self._process == os.getpid():
            for opened in filter(None, [reference() for reference in self._sockets.copy()]):
                _shut_down_socket(opened)


class ConnectionTrace:
    """Follows the connection of one request. httpx calls it as an extension of the request."""

    def __init__(self, connections: Connections | None) -> None:
        """Begin with a request.

        Args:
            connections: Connections that are opened for the request are added to them.
        """
        self._connections = connections
        self._is_new = self._is_sending = False

    @property
    def is_reused(self) -> bool:
        """True if at least the beginning of the request was sent, on a connection that was idle."""
        return self._is_sending and not self._is_new

    def record(self, event: str, info: Mapping[str, Any]) -> None:
        """Record an event of the request: the name of a step, and what it returned."""
        self._is_new |= ".connect_" in event
        self._is_sending |= event.endswith("send_request_headers.started")
        if self._connections is not None and event.endswith(_OPENED):
            self._connections.add(info.get("return_value"))

    async def record_async(self, event: str, info: Mapping[str, Any]) -> None:
        """Record an event of a request of an asynchronous HTTP client."""
        self.record(event, info)


_OPENED: Final = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
"""The events that return a network stream. The one of TLS replaces the socket."""


def shut_down_stream(stream: Any) -> None:
    """Shut down a connection, as a network stream of httpcore, or None if the transport has none."""
    if (opened := _socket_of(stream)) is not None:
        _shut_down_socket(opened)


def _socket_of(stream: Any) -> socket.socket | None:
    """Return the socket of a network stream. Transports of the program may have none."""
    opened = None if stream is None else stream.get_extra_info("socket")
    return opened if isinstance(opened, socket.socket) else None


def _shut_down_socket(opened: socket.socket) -> None:
    with suppress(OSError):  # closed already
        opened.shutdown(socket.SHUT_RDWR)
