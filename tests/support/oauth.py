"""A small OAuth 2 server, and a service behind a gateway that wants its tokens.

It speaks the protocol: authorization codes with PKCE (RFC 6749, 7636), device codes (RFC 8628), refresh tokens that are
replaced with each use, client credentials, revocation (RFC 7009), and metadata (RFC 8414).
"""

import json
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.service import Answer, Asked, WatchedService

CLIENT = "shop"
SECRET = "the-clients-secret"  # noqa: S105 - it opens nothing


class OAuthServer:
    """Listens on loopback, and approves of everybody who comes to sign in."""

    def __init__(self) -> None:
        self.lifetime = 3600
        """Seconds, of access tokens."""
        self.denies = False
        """Whether whoever comes to sign in is refused."""
        self.refusal = "not today"
        """What is said then."""
        self.pending = 0
        """How many more times a device is told to wait."""
        self.answer_instead: tuple[int, bytes] | None = None
        """What the token endpoint says whatever it is asked."""
        self.gate = threading.Event()
        """Token requests wait for it."""
        self.gate.set()
        self.metadata_path = "/.well-known/openid-configuration"
        self.token_requests: list[dict[str, str]] = []
        self.revoked: list[str] = []
        self._access: dict[str, float] = {}
        self._refresh: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}
        self._devices: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"oauth": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.token_url = f"{self.url}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def accepts(self, authorization: str | None) -> bool:
        """Whether a request with this header may pass the gateway."""
        return self._access.get((authorization or "").removeprefix("Bearer "), 0) > time.time()

    def issue_refresh_token(self) -> str:
        token = f"refresh-{token_urlsafe(12)}"
        self._refresh.add(token)
        return token

    def issue(self) -> str:
        """A valid access token."""
        token = f"access-{token_urlsafe(12)}"
        self._access[token] = time.time() + self.lifetime
        return token

    def expire_all(self) -> None:
        """Have no access token accepted any more that was issued so far."""
        self._access.clear()

    def metadata(self) -> dict[str, str]:
        ends = {
            "authorization": "authorize",
            "token": "token",
            "device_authorization": "device",
            "revocation": "revoke",
        }
        return {"issuer": self.url} | {f"{name}_endpoint": f"{self.url}/{path}" for name, path in ends.items()}

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the user's browser is sent back to."""
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert asked["client_id"] == CLIENT
        if self.denies:
            answer = {"error": "access_denied", "error_description": self.refusal}
        else:
            answer = {"code": token_urlsafe(12)}
            self._codes[answer["code"]] = asked
        return f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}"

    def begin_device(self, asked: dict[str, str]) -> dict[str, Any]:
        assert asked["client_id"] == CLIENT
        device = token_urlsafe(12)
        self._devices.add(device)
        enter = f"{self.url}/enter"
        shown = {"user_code": "WDJB-MJHT", "verification_uri": enter, "verification_uri_complete": f"{enter}?code=WDJB"}
        return {"device_code": device, **shown, "expires_in": 60, "interval": 0}

    def token(self, asked: dict[str, str], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """An answer of the token endpoint."""
        if authorization is not None:
            assert b64decode(authorization.removeprefix("Basic ")).decode() == f"{CLIENT}:{SECRET}"
        elif asked.get("client_id") != CLIENT:
            return 401, {"error": "invalid_client"}
        match asked["grant_type"]:
            case "client_credentials" if authorization is not None:
                return 200, self._granted(with_refresh=False)
            case "refresh_token" if asked["refresh_token"] in self._refresh:
                self._refresh.discard(asked["refresh_token"])
                return 200, self._granted()
            case "authorization_code" if (began := self._codes.pop(asked["code"], None)) is not None:
                challenge = urlsafe_b64encode(sha256(asked["code_verifier"].encode()).digest()).rstrip(b"=").decode()
                if challenge == began["code_challenge"] and asked["redirect_uri"] == began["redirect_uri"]:
                    return 200, self._granted()
            case "urn:ietf:params:oauth:grant-type:device_code" if asked["device_code"] in self._devices:
                if self.denies:
                    return 400, {"error": "access_denied"}
                if self.pending:
                    self.pending -= 1
                    return 400, {"error": "authorization_pending" if self.pending % 2 else "slow_down"}
                self._devices.discard(asked["device_code"])
                return 200, self._granted()
        token = asked.get("refresh_token", "")
        return 400, {"error": "invalid_grant", "error_description": f"unknown, used or ended {token}"}

    def revoke(self, asked: dict[str, str]) -> None:
        self.revoked.append(asked["token"])
        self._refresh.discard(asked["token"])

    def _granted(self, *, with_refresh: bool = True) -> dict[str, Any]:
        granted = {"access_token": self.issue(), "token_type": "Bearer", "expires_in": self.lifetime}
        return granted | ({"refresh_token": self.issue_refresh_token()} if with_refresh else {})


class _Handler(BaseHTTPRequestHandler):
    oauth: OAuthServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == self.oauth.metadata_path:
            self._send(200, self.oauth.metadata())
        elif parts.path == "/authorize":
            self.send_response(302)
            self.send_header("Location", self.oauth.authorize(asked))
            self.end_headers()
        else:
            self._send(404, {"error": "not_found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        match self.path:
            case "/token":
                self.oauth.token_requests.append(asked)
                self.oauth.gate.wait(10)
                if self.oauth.answer_instead is not None:
                    self._write(*self.oauth.answer_instead)
                else:
                    self._send(*self.oauth.token(asked, self.headers["Authorization"]))
            case "/device":
                self._send(200, self.oauth.begin_device(asked))
            case "/revoke":
                self.oauth.revoke(asked)
                self._send(200, {})

    def _send(self, status: int, content: object) -> None:
        self._write(status, json.dumps(content).encode())

    def _write(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def put_behind_gateway(service: WatchedService, oauth: OAuthServer) -> None:
    """Have the service answer only requests with a token of the server's."""

    def intercept(asked: Asked) -> Answer | None:
        if oauth.accepts(asked.headers.get("authorization")):
            return None
        said = f"no such token: {asked.headers.get('authorization')}"
        return Answer.of({"detail": said}, 401, **{"www-authenticate": "Bearer"})

    service.intercept = intercept
