"""Free ports on the loopback interface, which no other process takes before the server of a test listens there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def reserve_port() -> socket.socket:
    """Return a socket that is bound to a free port, and does not listen, so that connections are refused.

    While it is open, the system does not assign its port to another socket. A server that is told the port can listen
    on it, as servers set `SO_REUSEADDR`.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def port_of(reservation: socket.socket) -> int:
    """Return the port of such a socket."""
    port: int = reservation.getsockname()[1]
    return port


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port within a `with` block."""
    with reserve_port() as reservation:
        yield port_of(reservation)
