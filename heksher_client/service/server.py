"""The service on a port of this machine, started and stopped by a program."""

import asyncio
import signal
import socket
import threading
from collections.abc import Sequence
from os import PathLike
from time import monotonic
from types import FrameType
from typing import Any, Final, Self

import uvicorn
from fastapi import FastAPI
from sqlalchemy import URL

from heksher_client.service.access import is_loopback
from heksher_client.service.app import create_app
from heksher_client.service.database import database_url
from heksher_client.service.event_stream import Feed


class LocalService:
    """A Heksher service in a thread of this process. A context manager; `url` is where it answers inside the block."""

    def __init__(
        self,
        context_features: Sequence[str] = (),
        *,
        database: str | PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        access_control: bool | None = None,
    ) -> None:
        """Make a service that does not run yet.

        Args:
            context_features: Those that the service shall have, in their order.
            database: What keeps what the service is told: a file, or a URL as SQLAlchemy writes it. Without one, it is
                forgotten at the end.
            host: The address to listen on.
            port: The port to listen on; 0 for any that is free.
            access_control: Whether requests need a token. Unless given, they do where the host is not loopback; and
                where it is, requests that came by way of a proxy are refused.
        """
        self._context_features = tuple(context_features)
        self._database = database
        self._host, self._port = host, port
        self._access_control = access_control
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the service answers. The port stays the same when it is stopped and started again."""
        if not self._port:
            raise RuntimeError("the service was not started, so it has no port")
        return url_of(self._host, self._port)

    def start(self) -> None:
        """Start, and return when requests are answered.

        Raises:
            RuntimeError: It runs already, or could not start.
            OSError: The port is taken.
        """
        if self._server is not None:
            raise RuntimeError("the service runs already")
        app = self._make_app("sqlite://" if self._database is None else database_url(self._database))
        try:
            listener = listen(self._host, self._port)
        except OSError:
            app.state.database.close()
            raise
        self._port = listener.getsockname()[1]
        self._server = Server(app, log_level="warning")
        self._thread = threading.Thread(
            target=self._server.serve_on, args=(listener,), name="heksher-service", daemon=True
        )
        self._thread.start()
        self._server.ready.wait()
        if not self._server.started:
            self.stop()
            app.state.database.close()
            raise RuntimeError("the service could not start; its log says why")

    def stop(self) -> None:
        """Stop, if it runs. Without a file, what it was told is forgotten."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None

    def _make_app(self, database_url: str | URL) -> FastAPI:
        return create_app(
            database_url, self._context_features, access_control=access_control_at(self._host, self._access_control)
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def access_control_at(host: str, access_control: bool | None) -> bool | None:
    """The access control of a service that listens on a host: as it is told, or everywhere but on loopback."""
    return True if access_control is None and not is_loopback(host) else access_control


_KEPT_ALIVE: Final = 75
"""Seconds for which an idle connection is kept: longer than the interval of a minute that clients have by default."""


class Server(uvicorn.Server):
    """The server of an application, which ends its streams before it stops."""

    def __init__(self, app: FastAPI, *, drain: float = 0.0, stop_within: int = 1, **options: Any) -> None:
        """Make a server that does not run yet.

        Args:
            app: The application.
            drain: Seconds for which it still answers when it is to stop, but for saying that it is not ready.
            stop_within: Seconds for requests that are under way then.
            options: Those of uvicorn.
        """
        plain = {
            "access_log": False,
            "lifespan": "on",
            "ws": "none",
            "timeout_graceful_shutdown": stop_within,
            "timeout_keep_alive": _KEPT_ALIVE,
        }
        super().__init__(uvicorn.Config(app, **{**plain, **options}))
        self._feed: Feed = app.state.feed
        self._drain = drain
        self.ready = threading.Event()

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until told to stop."""
        try:
            with listener:
                self.run(sockets=[listener])
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, as uvicorn does."""
        await super().startup(sockets)
        self.ready.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop in order at a signal, or at once at a second Ctrl-C; uvicorn would end as if it had been killed."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as uvicorn does, which waits for streams as for all answers."""
        self._feed.close()
        until = monotonic() + self._drain
        while monotonic() < until and not self.force_exit:  # noqa: ASYNC110 - a signal sets it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
        # Those whose requests did not end in time, and those that were accepted after uvicorn had told all to close: it
        # leaves them to the end of the process, which in a program is another one.
        for connection in list[Any](self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections.

    Raises:
        OSError: The port is taken, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio would set it, but not on sockets made like this one: without it each answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Where a service answers."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
