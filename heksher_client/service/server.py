"""The service on a port of this machine, started and stopped by a program."""

import socket
import threading
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Self

import uvicorn
from fastapi import FastAPI
from sqlalchemy import URL

from heksher_client.service.app import create_app


class LocalService:
    """A Heksher service in a thread of this process. A context manager; `url` is where it answers inside the block."""

    def __init__(
        self,
        context_features: Sequence[str] = (),
        *,
        database: str | PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Make a service that does not run yet.

        Args:
            context_features: Those that the service shall have, in their order.
            database: What keeps what the service is told: a file, or a URL as SQLAlchemy writes it. Without one, it is
                forgotten at the end.
            host: The address to listen on.
            port: The port to listen on; 0 for any that is free.
        """
        self._context_features = tuple(context_features)
        self._database = database
        self._host, self._port = host, port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the service answers. The port stays the same when it is stopped and started again."""
        if not self._port:
            raise RuntimeError("the service was not started, so it has no port")
        return f"http://{self._host}:{self._port}"

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
            listener = socket.create_server((self._host, self._port), backlog=2048)
        except OSError:
            app.state.database.close()
            raise
        # asyncio would set it, but not on sockets made like this one: without it each answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        self._server = _Server(app)
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
        return create_app(database_url, self._context_features)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def database_url(database: str | PathLike[str]) -> str | URL:
    """The URL of a database that may be given as a file."""
    if isinstance(database, str) and "://" in database:
        return database
    return URL.create("sqlite", database=fspath(database))


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=1, ws="none"
            )
        )
        self.ready = threading.Event()

    def serve_on(self, listener: socket.socket) -> None:
        try:
            with listener:
                self.run(sockets=[listener])
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
