"""`LocalService`, which runs the service in a thread, and the HTTP server that it shares with the command line."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from types import FrameType
from typing import Any, Final, Self

import uvicorn
from fastapi import FastAPI
from sqlalchemy import URL

from heksher_client._clock import monotonic
from heksher_client._resource import Resource
from heksher_client.service.access import is_loopback
from heksher_client.service.app import check_context_features, create_app
from heksher_client.service.console.pages.confirmation import DEFAULT_PREVIEW_ABOVE
from heksher_client.service.database import database_url
from heksher_client.service.event_stream import EventStream


class LocalService(Resource):
    """A Heksher service in a thread of this process. As a context manager, it runs inside the block."""

    def __init__(
        self,
        context_features: Sequence[str] = (),
        *,
        database: str | PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        access_control: bool | None = None,
        preview_above: int = DEFAULT_PREVIEW_ABOVE,
    ) -> None:
        """Create a service, without starting it.

        Args:
            context_features: The context features of the service, in their order.
            database: The path of an SQLite file, or a URL of SQLAlchemy. By default, the data are kept in memory and
                lost when the service stops.
            host: The address to listen on.
            port: The port to listen on; 0 for any free port.
            access_control: Whether requests need a token. By default they do if the host is not loopback. On loopback,
                requests through a proxy are then refused.
            preview_above: The number of rules that the console changes at once without a preview.

        Raises:
            TypeError: `context_features` is a string.
            ValueError: A context feature has an invalid name.
        """
        self._context_features = check_context_features(context_features)
        self._database = database
        self._host, self._port = host, port
        self._access_control = access_control
        self._preview_above = preview_above
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL of the service. The port stays the same if the service is stopped and started again.

        Raises:
            RuntimeError: The port is not known before the first start.
        """
        if not self._port:
            raise RuntimeError("the service was not started, so it has no port yet")
        return service_url(self._host, self._port)

    def start(self) -> None:
        """Start the service, and return when it answers requests.

        Raises:
            RuntimeError: The service is already running, or could not start.
            OSError: The port is in use.
        """
        if self._server is not None:
            raise RuntimeError("the service is already running")
        app = self._make_app("sqlite://" if self._database is None else database_url(self._database))
        try:
            listener = listen(self._host, self._port)
        except OSError:
            app.state.database.close()
            raise
        self._port = listener.getsockname()[1]
        self._server = Server(app)
        self._thread = threading.Thread(
            target=self._server.serve_on, args=(listener,), name="heksher-service", daemon=True
        )
        self._thread.start()
        self._server.ready.wait()
        if not self._server.started:
            self.stop()
            app.state.database.close()
            raise RuntimeError("the service could not start; see its log")

    def stop(self) -> None:
        """Stop the service if it is running. Data in memory are lost."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None

    def _make_app(self, database_url: str | URL) -> FastAPI:
        access_control = resolve_access_control(self._host, self._access_control)
        return create_app(
            database_url,
            self._context_features,
            access_control=access_control,
            preview_above=self._preview_above,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def resolve_access_control(host: str, access_control: bool | None) -> bool | None:
    """Return True for a host that is not loopback, unless the access control is chosen explicitly."""
    return True if access_control is None and not is_loopback(host) else access_control


_KEEP_ALIVE: Final = 75
"""Seconds for which idle connections stay open: longer than the clients' default interval of 60 seconds."""


class _Config(uvicorn.Config):
    """A configuration that leaves uvicorn's loggers as the program has set them up: they belong to the process."""

    def configure_logging(self) -> None:
        """Change no logger."""

    def load(self) -> None:
        """Load the application, which logs its requests itself, so that uvicorn does not."""
        super().load()
        self.http_protocol_class: Any = partial(_protocol_without_access_log, self.http_protocol_class)


def _protocol_without_access_log(protocol_class: Callable[..., Any], **arguments: Any) -> Any:
    protocol = protocol_class(**arguments)
    protocol.access_log = False
    return protocol


class Server(uvicorn.Server):
    """A uvicorn server that ends the event streams before it stops."""

    def __init__(self, app: FastAPI, *, drain: float = 0.0, stop_within: int = 1, **options: Any) -> None:
        """Create a server, without starting it.

        Args:
            app: The application.
            drain: Seconds for which a stopping server still answers requests, while `/api/ready` responds with 503.
            stop_within: Seconds after that in which open requests may finish.
            options: Further options of uvicorn.
        """
        defaults = {
            "lifespan": "on",
            "ws": "none",
            "http": "h11",  # Its limit for headers is documented; httptools has none.
            "timeout_graceful_shutdown": stop_within,
            "timeout_keep_alive": _KEEP_ALIVE,
        }
        super().__init__(_Config(app, **{**defaults, **options}))
        self._event_stream: EventStream = app.state.event_stream
        self._drain = drain
        self.ready = threading.Event()
        """Set when the server answers requests, or could not start."""

    def serve_on(self, listener: socket.socket) -> None:
        """Serve on a listening socket until the server is stopped."""
        try:
            with listener:
                self.run(sockets=[listener])
        finally:
            self.ready.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the server is stopped, even if a test has frozen the time: the timers of its loop go on."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.BaseEventLoop):  # pragma: no branch - others do not use `time.monotonic`
            vars(loop)["time"] = monotonic
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and set `ready`."""
        await super().startup(sockets)
        self.ready.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop gracefully, or at once at a second Ctrl-C. uvicorn would raise the signal again after its shutdown."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, which uvicorn would wait for, and stop as uvicorn does."""
        self._event_stream.close()
        end = monotonic() + self._drain
        while monotonic() < end and not self.force_exit:  # noqa: ASYNC110 - a signal handler sets it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
        # uvicorn leaves connections open whose requests did not finish in time, or that were accepted after it had told
        # the others to close. It expects the process to end, which is not the case for a `LocalService`.
        for connection in list[Any](self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The port is in use, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio sets TCP_NODELAY on sockets that it creates itself only. Without it, each response takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def service_url(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of a service."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
