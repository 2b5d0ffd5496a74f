"""An OAuth 2 authorization server, and a gateway that requires its access tokens in front of a service.

The server implements authorization codes with PKCE (RFC 6749, 7636), device codes (RFC 8628), refresh token rotation,
client credentials, revocation (RFC 7009), and metadata (RFC 8414).
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

from tests.support.clients import TIMEOUT_SECONDS
from tests.support.service import CannedResponse, RecordedRequest, RequestRecorder

CLIENT = "shop"
SECRET = "the-clients-secret"  # noqa: S105 - a secret of this test server


class OAuthServer:
    """An authorization server on loopback that approves every sign-in. Tests set its attributes to change that."""

    def __init__(self) -> None:
        self.lifetime = 3600
        """Seconds until new access tokens expire."""
        self.denies = False
        """True to deny every sign-in."""
        self.denial_description = "not today"
        """The `error_description` of a denied authorization request."""
        self.pending_polls = 0
        """The number of polls for a device code that are answered with `slow_down` or `authorization_pending`."""
        self.token_response: tuple[int, bytes] | None = None
        """If set, the status and body of every response of the token endpoint."""
        self.gate = threading.Event()
        """The token endpoint responds once this event is set."""
        self.gate.set()
        self.metadata_path = "/.well-known/openid-configuration"
        self.client_auth: str | None = None
        """`basic` or `post` if the server requires a client secret, sent in this way."""
        self.metadata_methods: list[str] | None = None
        """The methods of client authentication in the metadata. If None, that of `client_auth`."""
        self.revokes_access_tokens = True
        self.token_requests: list[dict[str, str]] = []
        self.revoked: list[str] = []
        self._access_tokens: dict[str, float] = {}
        """Expiry times by access token."""
        self._refresh_tokens: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}
        """Parameters of the authorization requests by authorization code."""
        self._device_codes: set[str] = set()
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
        """Return whether an `Authorization` header contains a valid access token."""
        return self._access_tokens.get((authorization or "").removeprefix("Bearer "), 0) > time.time()

    def issue_refresh_token(self) -> str:
        """Return a new refresh token."""
        token = f"refresh-{token_urlsafe(12)}"
        self._refresh_tokens.add(token)
        return token

    def issue(self) -> str:
        """Return a new access token."""
        token = f"access-{token_urlsafe(12)}"
        self._access_tokens[token] = time.time() + self.lifetime
        return token

    def expire_all(self) -> None:
        """Expire all access tokens that were issued so far."""
        self._access_tokens.clear()

    def revoke_refresh_tokens(self) -> None:
        """Revoke all refresh tokens that were issued so far."""
        self._refresh_tokens.clear()

    def metadata(self) -> dict[str, Any]:
        """Return the metadata document."""
        paths = {
            "authorization": "authorize",
            "token": "token",
            "device_authorization": "device",
            "revocation": "revoke",
        }
        endpoints = {f"{name}_endpoint": f"{self.url}/{path}" for name, path in paths.items()}
        methods = self.metadata_methods
        if methods is None and self.client_auth is not None:
            methods = [f"client_secret_{self.client_auth}"]
        more = {} if methods is None else {"token_endpoint_auth_methods_supported": methods}
        return {"issuer": self.url, **endpoints, **more}

    def authorize(self, parameters: dict[str, str]) -> str:
        """Handle an authorization request. Return the URL to redirect the browser to."""
        assert parameters["response_type"] == "code"
        assert parameters["code_challenge_method"] == "S256"
        assert parameters["client_id"] == CLIENT
        if self.denies:
            result = {"error": "access_denied", "error_description": self.denial_description}
        else:
            result = {"code": token_urlsafe(12)}
            self._codes[result["code"]] = parameters
        return f"{parameters['redirect_uri']}?{urlencode({**result, 'state': parameters['state']})}"

    def authorize_device(self, parameters: dict[str, str]) -> dict[str, Any]:
        """Handle a device authorization request. Return the body of the response."""
        device_code = token_urlsafe(12)
        self._device_codes.add(device_code)
        page = f"{self.url}/enter"
        return {
            "device_code": device_code,
            "user_code": "WDJB-MJHT",
            "verification_uri": page,
            "verification_uri_complete": f"{page}?code=WDJB",
            "expires_in": 60,
            "interval": 0,
        }

    def token(  # noqa: C901 - one case for each grant type
        self, parameters: dict[str, str], authorization: str | None
    ) -> tuple[int, dict[str, Any]]:
        """Handle a token request. Return the status and the body of the response."""
        client_auth = self.authenticate(parameters, authorization)
        if client_auth is None:
            return 401, {"error": "invalid_client"}
        match parameters["grant_type"]:
            case "client_credentials" if client_auth != "none":
                return 200, self._grant(with_refresh_token=False)
            case "refresh_token" if parameters["refresh_token"] in self._refresh_tokens:
                self._refresh_tokens.discard(parameters["refresh_token"])
                return 200, self._grant()
            case "authorization_code" if (request := self._codes.pop(parameters["code"], None)) is not None:
                digest = sha256(parameters["code_verifier"].encode()).digest()
                challenge = urlsafe_b64encode(digest).rstrip(b"=").decode()
                if challenge == request["code_challenge"] and parameters["redirect_uri"] == request["redirect_uri"]:
                    return 200, self._grant()
            case "urn:ietf:params:oauth:grant-type:device_code" if parameters["device_code"] in self._device_codes:
                if self.denies:
                    return 400, {"error": "access_denied"}
                if self.pending_polls:
                    self.pending_polls -= 1
                    return 400, {"error": "authorization_pending" if self.pending_polls % 2 else "slow_down"}
                self._device_codes.discard(parameters["device_code"])
                return 200, self._grant()
        token = parameters.get("refresh_token", "")
        return 400, {"error": "invalid_grant", "error_description": f"unknown, used or expired: {token}"}

    def authenticate(self, parameters: dict[str, str], authorization: str | None) -> str | None:
        """Return how a client has authenticated itself (`basic`, `post` or `none`), or None if it must not be so."""
        if authorization is not None:
            assert b64decode(authorization.removeprefix("Basic ")).decode() == f"{CLIENT}:{SECRET}"
            assert "client_secret" not in parameters
            client_auth = "basic"
        elif parameters.get("client_id") != CLIENT:
            return None
        else:
            client_auth = "post" if "client_secret" in parameters else "none"
            assert parameters.get("client_secret", SECRET) == SECRET
        return client_auth if self.client_auth in (None, client_auth) else None

    def revoke(self, parameters: dict[str, str], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Handle a revocation request. Return the status and the body of the response."""
        if self.authenticate(parameters, authorization) is None:
            return 401, {"error": "invalid_client"}
        if parameters["token_type_hint"] == "access_token" and not self.revokes_access_tokens:  # noqa: S105 - no secret
            return 400, {"error": "unsupported_token_type"}
        self.revoked.append(parameters["token"])
        self._refresh_tokens.discard(parameters["token"])
        self._access_tokens.pop(parameters["token"], None)
        return 200, {}

    def _grant(self, *, with_refresh_token: bool = True) -> dict[str, Any]:
        body = {"access_token": self.issue(), "token_type": "Bearer", "expires_in": self.lifetime}
        return body | ({"refresh_token": self.issue_refresh_token()} if with_refresh_token else {})


class _Handler(BaseHTTPRequestHandler):
    oauth: OAuthServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == self.oauth.metadata_path:
            self._send(200, self.oauth.metadata())
        elif parts.path == "/authorize":
            self.send_response(302)
            self.send_header("Location", self.oauth.authorize(parameters))
            self.end_headers()
        else:
            self._send(404, {"error": "not_found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        parameters = {name: values[0] for name, values in parse_qs(body).items()}
        match self.path:
            case "/token":
                self.oauth.token_requests.append(parameters)
                self.oauth.gate.wait(TIMEOUT_SECONDS)
                if self.oauth.token_response is not None:
                    self._write(*self.oauth.token_response)
                else:
                    self._send(*self.oauth.token(parameters, self.headers["Authorization"]))
            case "/device":
                assert self.oauth.authenticate(parameters, self.headers["Authorization"]) is not None
                self._send(200, self.oauth.authorize_device(parameters))
            case "/revoke":
                self._send(*self.oauth.revoke(parameters, self.headers["Authorization"]))

    def _send(self, status: int, content: object) -> None:
        self._write(status, json.dumps(content).encode())

    def _write(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def put_behind_gateway(service: RequestRecorder[Any], oauth: OAuthServer) -> None:
    """Make a service respond with 401 to requests without a valid access token."""

    def intercept(request: RecordedRequest) -> CannedResponse | None:
        if oauth.accepts(request.headers.get("authorization")):
            return None
        detail = f"no such token: {request.headers.get('authorization')}"
        return CannedResponse.of({"detail": detail}, 401, **{"www-authenticate": "Bearer"})

    service.intercept = intercept
