"""What is asked of an OAuth 2 server, in the words of the library that knows the protocol. Needs the extra `oauth`."""

from base64 import b64encode
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

try:
    from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
    from authlib.oauth2.base import OAuth2Error  # type: ignore[import-untyped]
    from authlib.oauth2.client import OAuth2Client  # type: ignore[import-untyped]
except ImportError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError("an OAuth 2 server needs an extra: heksher_client[oauth], or [login] to sign in") from error

from heksher_client._logging import escaped, redact
from heksher_client.exceptions import CredentialError

_TIMEOUT: Final = 10.0
"""Seconds for each step of a request for a token."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a server has granted."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float | None
    """Seconds since 1970."""


class RefusedError(CredentialError):
    """The server has said no."""

    code: str = ""
    """Its word for it: `invalid_grant`, `authorization_pending`..."""


class AwayError(CredentialError):
    """The server does not answer, or not now."""


class _RefusalError(OAuth2Error):  # type: ignore[misc]
    """What the server says, in whatever characters: the library fails on those that the protocol does not allow."""

    def __init__(self, *, error: object = None, description: object = None, **more: Any) -> None:
        super().__init__(error=error, **more)
        self.description = description


class _ClientAuth(httpx.Auth, ClientAuth):  # type: ignore[misc]
    """The authentication of a client as Authlib does it, for httpx to call."""

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        url, headers, body = self.prepare(request.method, str(request.url), request.headers, request.content.decode())
        headers["Content-Length"] = str(len(body))
        yield httpx.Request(request.method, url, headers=headers, content=body, extensions=request.extensions)


class _Client(OAuth2Client):  # type: ignore[misc]
    client_auth_class = _ClientAuth
    oauth_error_class = _RefusalError


def check_address(name: str, url: object) -> None:
    """Refuse what is no address of a server; an error without its words, which may hold a password.

    Raises:
        ValueError: It is none.
    """
    try:
        parts = urlsplit(str(url))
        is_address = isinstance(url, str) and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"{name} must be an absolute http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{name} must have no user name and no password")


class TokenEndpoint:
    """Where tokens come from. Each call is one request, which may block for some seconds."""

    def __init__(
        self, url: str, client_id: str, client_secret: str | None, http_client_args: Mapping[str, Any] | None
    ) -> None:
        """Note where it is, and who asks.

        Raises:
            ValueError: The URL is no HTTP URL.
        """
        check_address("token_url", url)
        self._url, self._client_id, self._client_secret = url, client_id, client_secret
        self._http_arguments = {"timeout": _TIMEOUT, **(http_client_args or {})}

    def __str__(self) -> str:
        return f"{self._client_id} at {urlsplit(self._url).hostname}"

    def refresh(self, refresh_token: str, scope: str | None) -> Granted:
        """Use a refresh token.

        Raises:
            CredentialError: It is not accepted, or there is no answer.
        """
        more = {} if scope is None else {"scope": scope}
        return self._ask(
            lambda client: client.refresh_token(self._url, refresh_token=refresh_token, **more), [refresh_token]
        )

    def client_credentials(self, wanted: Mapping[str, str | None]) -> Granted:
        """Get a token for the client itself.

        Raises:
            CredentialError: It is refused, or there is no answer.
        """
        return self.grant("client_credentials", **wanted)

    def grant(self, grant_type: str, **parameters: str | None) -> Granted:
        """Get tokens for something that somebody was given.

        Raises:
            CredentialError: It is refused, or there is no answer.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        secrets = [value for name, value in given.items() if name in _SECRET_PARAMETERS]
        return self._ask(lambda client: client.fetch_token(self._url, grant_type=grant_type, **given), secrets)

    def revoke(self, url: str, token: str) -> None:
        """Have the server forget a token.

        Raises:
            CredentialError: It does not say that it did.
        """

        def ask(client: Any) -> None:
            client.revoke_token(url, token=token).raise_for_status()

        self._call(ask, [token])

    def post(self, url: str, data: Mapping[str, str]) -> dict[str, Any]:
        """Ask another endpoint of the same server, for what Authlib has no method for.

        Raises:
            CredentialError: It is refused, or there is no answer.
        """

        def ask(client: Any) -> dict[str, Any]:
            auth = client.client_auth(client.token_endpoint_auth_method)
            answer = client.session.post(url, data=data, auth=auth)
            content = answer.json() if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR else None
            if isinstance(content, dict) and "error" in content:
                raise _RefusalError(error=content["error"], description=content.get("error_description"))
            answer.raise_for_status()
            return content if isinstance(content, dict) else {}

        content: dict[str, Any] = self._call(ask, [])
        return content

    def authorization_url(self, url: str, **parameters: str | None) -> tuple[str, str]:
        """The URL that a user is sent to, and the state that comes back with the answer."""
        client = _Client(None, self._client_id, code_challenge_method="S256")
        given = {name: value for name, value in parameters.items() if value is not None}
        whole, state = client.create_authorization_url(url, **given)
        return str(whole), str(state)

    def _ask(self, call: Any, secrets: Iterable[str]) -> Granted:
        token = self._call(call, secrets)
        try:
            access_token, refresh_token = token["access_token"], token.get("refresh_token")
            expires_at = token.get("expires_at")
            expires_at = None if expires_at is None else float(expires_at)
        except (KeyError, TypeError, ValueError):
            raise CredentialError(f"{self}: the answer holds no access token") from None
        if not isinstance(access_token, str) or not isinstance(refresh_token, str | None):
            raise CredentialError(f"{self}: the answer holds a token that is no text")
        return Granted(access_token, refresh_token, expires_at)

    def _call(self, call: Any, secrets: Iterable[str]) -> Any:
        with httpx.Client(**self._http_arguments) as http:
            try:
                return call(_Client(http, self._client_id, self._client_secret))
            except OAuth2Error as error:
                failure: CredentialError = RefusedError(f"{self}: refused ({self._words(error, secrets)})")
                failure.code = str(error.error or "")  # type: ignore[attr-defined]
            except httpx.HTTPStatusError as error:
                failure = AwayError(f"{self}: answered {error.response.status_code}")
            except httpx.HTTPError as error:
                failure = AwayError(f"{self}: no access token could be had ({type(error).__name__})")
            except (httpx.InvalidURL, ValueError, OverflowError) as error:
                # No words: they may hold what was sent.
                failure = CredentialError(f"{self}: no access token could be had ({type(error).__name__})")
        raise failure  # Out here, so that it does not bring along a request that holds secrets.

    def _words(self, error: Any, secrets: Iterable[str]) -> str:
        """What the server says, without what it was sent, and in one line."""
        words = f"{error.error}: {error.description}" if error.description else str(error.error)
        secret = self._client_secret
        ours = [] if secret is None else [secret, b64encode(f"{self._client_id}:{secret}".encode()).decode()]
        return escaped(redact(words.encode(errors="replace"), [*secrets, *ours]).decode())[:300]


_SECRET_PARAMETERS: Final = frozenset(["code", "code_verifier", "device_code"])
