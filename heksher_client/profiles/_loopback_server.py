"""Loopback server: receives the redirect that ends a sign-in with a browser (RFC 8252, section 7.3).

It listens on 127.0.0.1 only. Other programs and web pages on the machine can send requests to the same port, so a
request is accepted only if it has the `state` of the sign-in in progress.
"""

import secrets
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from heksher_client._runtime.worker_threads import start_daemon_thread

_PATH = "/callback"


class LoopbackServer:
    """An HTTP server on a free port, for the duration of one sign-in."""

    state = ""
    """The expected value of the parameter `state`. Set it before the browser is opened."""

    def __init__(self) -> None:
        self.redirect: Future[dict[str, str]] = Future()
        """The query parameters of the redirect: a `code` or an `error`, and `state`."""
        self.redirect.set_running_or_notify_cancel()  # So that the end of a wait does not cancel it.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self._server.daemon_threads = True
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_address[1]}{_PATH}"

    def __enter__(self) -> Self:
        start_daemon_thread("heksher-client-sign-in", partial(self._server.serve_forever, 0.05))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
                state = parameters.get("state", "").encode()
                is_expected = bool(server.state) and secrets.compare_digest(state, server.state.encode())
                if parts.path != _PATH or not is_expected or not {"code", "error"} & parameters.keys():
                    self._respond(404, "This request does not belong to the sign-in in progress.")
                    return
                self._respond(200, "You can close this window and return to the program.")
                with suppress(InvalidStateError):  # A page that is loaded again. The first one counts.
                    server.redirect.set_result(parameters)

            def _respond(self, status: int, text: str) -> None:
                body = f"<!doctype html><meta charset=utf-8><title>heksher</title><p>{text}".encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing, as the URL contains the authorization code."""

        return Handler
