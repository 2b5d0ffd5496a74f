"""Requests to an OAuth 2 server, by Authlib. Needs the extra `oauth`.

Error messages do not contain secrets, not even those that a server repeats.
"""

import math
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx

try:
    from authlib.oauth2.auth import ClientAuth, TokenAuth  # type: ignore[import-untyped]
    from authlib.oauth2.base import OAuth2Error  # type: ignore[import-untyped]
    from authlib.oauth2.client import OAuth2Client  # type: ignore[import-untyped]
except ImportError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError("an OAuth 2 server needs an extra: heksher_client[oauth], or [login] to sign in") from error

from heksher_client._auth.http_clients import check_environment, checked_arguments, create_client, is_unknown_authority
from heksher_client._logging import escaped, logger, redact
from heksher_client.exceptions import CredentialError, CredentialTimeoutError

_TIMEOUT: Final = 10.0
"""Seconds for each step of a request."""
_EXPIRY_FIELDS: Final = ("expires_at", "expires_on")
"""The fields for the expiry in a token response that has no `expires_in`, as RFC 6749 recommends it. The second one is
that of Azure."""
_reported_urls: Final[set[str]] = set()
"""The token endpoints whose invalid lifetimes were logged."""
_SECRET_PARAMETERS: Final = frozenset(["code", "code_verifier", "device_code"])
_CLIENT_AUTH_METHODS: Final = {"basic": "client_secret_basic", "post": "client_secret_post"}

_UNKNOWN_AUTHORITY: Final = (
    ": its certificate is of an unknown authority (ca_file of a profile, verify in http_client_args)"
)

ClientAuthMethod: TypeAlias = Literal["basic", "post"]
"""How a client secret is sent: in the header `Authorization`, or in the body of the request."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The tokens that a server has granted."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float | None
    """The expiry of the access token, in seconds since 1970."""


class RefusedError(CredentialError):
    """The server refused a request."""

    code: str = ""
    """The error code of the server, such as `invalid_grant` or `authorization_pending`."""


class ServerUnavailableError(CredentialError):
    """The server cannot be reached, or is unavailable."""


class ServerTimeoutError(ServerUnavailableError, CredentialTimeoutError):
    """The server did not respond in time."""


class _ServerError(OAuth2Error):  # type: ignore[misc]
    """An error of the server, with any characters: Authlib fails on those that the protocol does not allow."""

    def __init__(self, *, error: object = None, description: object = None, **more: Any) -> None:
        super().__init__(error=error, **more)
        self.description = description


def _raise_refusal(content: object) -> None:
    if isinstance(content, dict) and "error" in content:
        raise _ServerError(error=content["error"], description=content.get("error_description"))


class _ClientAuth(httpx.Auth, ClientAuth):  # type: ignore[misc]
    """Authlib's client authentication, as an authentication of httpx."""

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        url, headers, body = self.prepare(request.method, str(request.url), request.headers, request.content.decode())
        headers["Content-Length"] = str(len(body))
        yield httpx.Request(request.method, url, headers=headers, content=body, extensions=request.extensions)


class _TokenAuth(TokenAuth):  # type: ignore[misc]
    """Authlib's holder of a token, without its conversion of lifetimes, which fails on those that are not integers."""

    def set_token(self, token: dict[str, Any]) -> None:
        self.token = token


class _Client(OAuth2Client):  # type: ignore[misc]
    client_auth_class = _ClientAuth
    token_auth_class = _TokenAuth
    oauth_error_class = _ServerError


def check_server_url(name: str, url: object) -> None:
    """Raise if a URL is not that of a server. The message does not contain the URL, which may have a password.

    Raises:
        ValueError: It is not.
    """
    try:
        parts = urlsplit(str(url))
        is_valid = isinstance(url, str) and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(f"{name} must be an absolute http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{name} must not have a user name or a password")


def _parse_expiry(value: object, start: float) -> float | None:
    """Return a time in seconds since 1970; None if it cannot be read.

    Args:
        value: A number of seconds, as a number or a string; or a date, in the format of ISO 8601 or RFC 5322.
        start: The time from which the seconds are counted.
    """
    is_text = isinstance(value, str)
    parsers: tuple[Callable[[Any], float], ...] = (float, _parse_iso_date, _parse_email_date) if is_text else (float,)
    for parse in parsers if not isinstance(value, bool) else ():
        try:
            seconds = parse(value)
        except (TypeError, ValueError, OverflowError):
            continue
        return seconds + start * (parse is float) if math.isfinite(seconds) else None
    return None


def _parse_iso_date(text: Any) -> float:
    return _timestamp(datetime.fromisoformat(text))


def _parse_email_date(text: Any) -> float:
    return _timestamp(parsedate_to_datetime(text))


def _timestamp(date: datetime) -> float:
    return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()


class TokenEndpoint:
    """The token endpoint of a server. Each call sends one request, and may block for some seconds."""

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str | None,
        http_client_args: Mapping[str, Any] | None,
        client_auth: ClientAuthMethod = "basic",
    ) -> None:
        """Prepare requests of one client.

        Raises:
            ValueError: The URL is not an HTTP URL, or `client_auth` is unknown.
            ConfigError: An environment variable for HTTP clients cannot be used.
            TypeError: An event hook is not a plain function.
        """
        check_server_url("token_url", url)
        if client_auth not in _CLIENT_AUTH_METHODS:
            raise ValueError(f'client_auth must be "basic" or "post", not {client_auth!r}')
        self._url, self._client_id, self._client_secret = url, client_id, client_secret
        self._client_auth = client_auth
        self._auth_method = _CLIENT_AUTH_METHODS[client_auth] if client_secret else "none"
        self._http_client_args = {"timeout": _TIMEOUT, **checked_arguments(http_client_args or {}, is_async=False)}
        check_environment(url, self._http_client_args)

    def __str__(self) -> str:
        return f"{self._client_id} at {urlsplit(self._url).hostname}"

    def refresh(self, refresh_token: str, scope: str | None) -> Granted:
        """Exchange a refresh token for new tokens.

        Raises:
            CredentialError: The request failed.
        """
        more = {} if scope is None else {"scope": scope}
        return self._request_tokens(
            lambda client: client.refresh_token(self._url, refresh_token=refresh_token, **more), [refresh_token]
        )

    def client_credentials(self, parameters: Mapping[str, str | None]) -> Granted:
        """Request a token for the client itself.

        Raises:
            CredentialError: The request failed.
        """
        return self.grant("client_credentials", **parameters)

    def grant(self, grant_type: str, **parameters: str | None) -> Granted:
        """Exchange a grant, such as an authorization code, for tokens.

        Raises:
            CredentialError: The request failed.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        secrets = [value for name, value in given.items() if name in _SECRET_PARAMETERS]
        return self._request_tokens(
            lambda client: client.fetch_token(self._url, grant_type=grant_type, **given), secrets
        )

    def revoke(self, url: str, token: str, type_hint: str) -> None:
        """Revoke a token.

        Args:
            url: The revocation endpoint.
            token: The token.
            type_hint: `access_token` or `refresh_token`.

        Raises:
            CredentialError: The request failed.
        """

        def send(client: Any) -> None:
            response = client.revoke_token(url, token=token, token_type_hint=type_hint)
            if response.is_client_error and "json" in response.headers.get("Content-Type", ""):
                _raise_refusal(response.json())
            response.raise_for_status()

        self._send(send, [token])

    def post(self, url: str, data: Mapping[str, str]) -> dict[str, Any]:
        """Send a form to another endpoint of the server, for which Authlib has no method.

        Raises:
            CredentialError: The request failed.
        """

        def send(client: Any) -> dict[str, Any]:
            auth = client.client_auth(client.token_endpoint_auth_method)
            response = client.session.post(url, data=data, auth=auth)
            content = response.json() if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR else None
            _raise_refusal(content)
            response.raise_for_status()
            return content if isinstance(content, dict) else {}

        content: dict[str, Any] = self._send(send, [])
        return content

    def authorization_url(self, url: str, **parameters: str | None) -> tuple[str, str]:
        """Return the URL at which a user signs in, and the state that the redirect from there must have."""
        client = _Client(None, self._client_id, code_challenge_method="S256")
        given = {name: value for name, value in parameters.items() if value is not None}
        authorization_url, state = client.create_authorization_url(url, **given)
        return str(authorization_url), str(state)

    def _request_tokens(self, send: Callable[[Any], Any], secrets: Iterable[str]) -> Granted:
        token = self._send(send, secrets)
        try:
            access_token, refresh_token = token["access_token"], token.get("refresh_token")
        except KeyError:
            raise CredentialError(f"{self}: the response has no access token") from None
        if not isinstance(access_token, str) or not isinstance(refresh_token, str | None):
            raise CredentialError(f"{self}: the response has a token that is not a string")
        return Granted(access_token, refresh_token, self._expiry(token))

    def _expiry(self, token: Mapping[str, Any]) -> float | None:
        """Return the expiry of a token, or None if the response has none that can be used. The token is used anyway.

        Servers send lifetimes as numbers and as strings, and some only a date. A lifetime of 0 or less is ignored: the
        token would have to be refreshed before each request.
        """
        given = {name: token[name] for name in ("expires_in", *_EXPIRY_FIELDS) if token.get(name) is not None}
        now = time.time()
        for name, value in given.items():
            expires_at = _parse_expiry(value, now if name == "expires_in" else 0.0)
            if expires_at is not None and expires_at > now:
                return expires_at
        if given and self._url not in _reported_urls:
            _reported_urls.add(self._url)
            name, value = next(iter(given.items()))
            logger.warning(
                "%s: the lifetime of the access token (%s: %s) is invalid and is ignored: the token is refreshed once "
                "the service refuses it",
                self,
                name,
                escaped(str(value))[:100],
            )
        return None

    def _send(self, send: Callable[[Any], Any], secrets: Iterable[str]) -> Any:
        with create_client(httpx.Client, self._url, self._http_client_args).client as http:
            try:
                method = self._auth_method
                return send(_Client(http, self._client_id, self._client_secret, method, method))
            except OAuth2Error as error:
                reason = self._redacted_message(error, secrets)
                failure: CredentialError = RefusedError(f"{self}: refused ({reason}){self._remedy(error.error)}")
                failure.code = str(error.error or "")  # type: ignore[attr-defined]
            except httpx.HTTPStatusError as error:
                failure = ServerUnavailableError(
                    f"{self}: the server responded with status {error.response.status_code}"
                )
            except httpx.TimeoutException as error:
                failure = ServerTimeoutError(f"{self}: the request failed ({_describe_timeout(error)})")
            except httpx.HTTPError as error:
                remedy = _UNKNOWN_AUTHORITY if is_unknown_authority(error) else ""
                failure = ServerUnavailableError(f"{self}: the request failed ({type(error).__name__}){remedy}")
            except (httpx.InvalidURL, ValueError, OverflowError) as error:
                # Not the message: it may contain the request.
                failure = CredentialError(f"{self}: the request failed ({type(error).__name__})")
        raise failure  # Not above, where its context would be an error that has the request, with its secrets.

    def _remedy(self, code: object) -> str:
        if code != "invalid_client":
            return ""
        if not self._client_secret:
            return ": check client_id; the server may require a client_secret"
        return f': check client_id, client_secret, and client_auth, which is "{self._client_auth}"'

    def _redacted_message(self, error: Any, secrets: Iterable[str]) -> str:
        message = f"{error.error}: {error.description}" if error.description else str(error.error)
        secret = self._client_secret
        own = [] if secret is None else [secret, b64encode(f"{self._client_id}:{secret}".encode()).decode()]
        return escaped(redact(message.encode(errors="replace"), [*secrets, *own]).decode())[:300]


def _describe_timeout(error: httpx.TimeoutException) -> str:
    """Return the kind of a timeout, with the seconds of the step that took too long, and the option for them."""
    kind = type(error).__name__
    seconds = error.request.extensions.get("timeout", {}).get(kind.removesuffix("Timeout").lower())
    return kind if seconds is None else f'{kind}, limited to {seconds:g} seconds by http_client_args={{"timeout": ...}}'
