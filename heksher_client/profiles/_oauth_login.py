"""Sign-in to the authorization server of a profile, and sign-out. Needs the extra `login`.

A sign-in saves tokens in the token store of the configuration. From then on `connect`, `connect_async` and the command
line use them, and refresh them, in all programs of the user.
"""

import secrets
import threading
import time
import webbrowser
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heksher_client._auth.token_refresh import Token
from heksher_client._clock import monotonic
from heksher_client._core.refresh.options import MAX_SECONDS, checked_seconds
from heksher_client._core.settings.user_functions import check_function, plain_result
from heksher_client._logging import escaped, logger
from heksher_client.exceptions import ConfigError, CredentialError, CredentialTimeoutError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config, OAuth
from heksher_client.profiles._connect import http_client_args
from heksher_client.profiles._loopback_server import LoopbackServer
from heksher_client.profiles._oauth_endpoints import OAuthEndpoints, required_url, resolve_endpoints
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._stored_credential import client_auth_for, is_issued_for, token_store
from heksher_client.profiles._token_store import StoredTokens

if TYPE_CHECKING:
    # Imported in the functions that need it, so that this module can be imported without the extra.
    from heksher_client._auth.oauth import Granted, TokenEndpoint

_DEVICE_CODE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SLOW_DOWN_SECONDS: Final = 5.0
"""Seconds to add to the polling interval if the server asks for it (RFC 8628, section 3.5) or is unavailable."""
_POLLING_SECONDS: Final = 5.0
"""The polling interval if the server does not say it (RFC 8628, section 3.2)."""
_SHORTEST_POLLING_SECONDS: Final = 1.0
"""Also if the server says less, such as 0: it would have a request after the other."""
_MAX_ERROR_LENGTH: Final = 300


class DeviceCode(NamedTuple):
    """A code that a user enters in a browser on another device to sign in."""

    url: str
    """The page to open."""
    code: str
    """The code to enter on that page."""
    complete_url: str | None
    """The URL of the page with the code filled in, to show as a QR code for example."""
    expires_in: float
    """Seconds until the code expires."""


class _LoginSession(NamedTuple):
    """A sign-in in progress: the profile that it is for, and the authorization session."""

    config: Config
    oauth: OAuth
    endpoints: OAuthEndpoints
    token_endpoint: "TokenEndpoint"

    @classmethod
    def begin(
        cls,
        profile: str | None,
        path: str | PathLike[str] | None,
        advice: str = "use a token (login_with_token, login --token)",
    ) -> "_LoginSession":
        """Load the profile, and fetch the metadata of the server if the profile names an issuer.

        Args:
            profile: The name of the profile.
            path: The configuration file, or its folder.
            advice: The alternative to an authorization server, for the error message.
        """
        config = _load_config(profile, path)
        oauth = config.profile.oauth
        if oauth is None:
            table = f"[profiles.{config.name}.oauth]" if config.is_profile else "a profile with the table oauth"
            raise ConfigError(
                f"{config.source} has no authorization server: add {table} with client_id and issuer, or {advice}"
            )
        from heksher_client._auth.oauth import TokenEndpoint

        arguments = http_client_args(config)
        endpoints = resolve_endpoints(config, oauth, arguments)
        token_endpoint = TokenEndpoint(
            endpoints.token_url, oauth.client_id, oauth.client_secret, arguments, endpoints.client_auth
        )
        return cls(config, oauth, endpoints, token_endpoint)

    def save(self, granted: "Granted") -> str:
        """Save the tokens that the server granted, and return their location."""
        try:
            token = Token(granted.access_token)
        except ValueError as error:
            raise CredentialError(f"{self.endpoints.token_url}: {error}") from None
        tokens = StoredTokens(
            origin=origin(str(self.config.profile.url)),
            access_token=token.value,
            refresh_token=granted.refresh_token,
            expires_at=granted.expires_at,
            token_url=self.endpoints.token_url,
            client_id=self.oauth.client_id,
            issuer=self.oauth.issuer,
            revocation_url=self.endpoints.revocation_url,
            client_auth=self.endpoints.client_auth,
        )
        return token_store(self.config).save(self.config.name, tokens)


def login(
    show_browser: Callable[[str], object] = webbrowser.open,
    *,
    profile: str | None = None,
    timeout: float = 300.0,
    path: str | PathLike[str] | None = None,
) -> str:
    """Sign in with a browser on this machine. Blocks until the sign-in is completed.

    Args:
        show_browser: A function that opens a URL in a browser. It returns False if there is no browser.
        profile: The name of the profile. If None, the profile that `connect` would use.
        timeout: Seconds to wait for the user.
        path: The configuration file, or its folder, as for `connect`.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid, or has no `oauth`.
        CredentialError: The sign-in was refused.
        CredentialTimeoutError: It was not completed in time. This is a CredentialError and a TimeoutError.
        TypeError: `show_browser` is not a plain function.
    """
    check_function(show_browser, "show_browser")
    checked_seconds("timeout", timeout)
    session = _LoginSession.begin(profile, path)
    authorization_url = required_url("authorization_url", session.endpoints.authorization_url, session.config)
    code_verifier = secrets.token_urlsafe(64)
    with LoopbackServer() as loopback:
        url, loopback.state = session.token_endpoint.authorization_url(
            authorization_url,
            redirect_uri=loopback.redirect_uri,
            scope=session.oauth.scope,
            audience=session.oauth.audience,
            code_verifier=code_verifier,
        )
        # `webbrowser.open` returns False if there is no browser.
        if plain_result(show_browser, show_browser(url)) is False:
            raise CredentialError("no browser could be opened: use login_headless, or login --headless")
        redirect = loopback.wait_for_redirect(timeout)
    if "code" not in redirect:
        reason = ": ".join(filter(None, [redirect.get("error"), redirect.get("error_description")]))
        raise CredentialError(f"the sign-in was refused ({escaped(reason)[:_MAX_ERROR_LENGTH]})")
    granted = session.token_endpoint.grant(
        "authorization_code",
        code=redirect["code"],
        redirect_uri=loopback.redirect_uri,
        code_verifier=code_verifier,
    )
    return session.save(granted)


def login_headless(
    get_code: Callable[[DeviceCode], object],
    *,
    profile: str | None = None,
    timeout: float | None = None,
    path: str | PathLike[str] | None = None,
) -> str:
    """Sign in with a browser on another device. Blocks until the sign-in is completed or the code has expired.

    Args:
        get_code: A function that shows the URL and the code to the user.
        profile: The name of the profile. If None, the profile that `connect` would use.
        timeout: Seconds to wait for the user. If None, until the code expires.
        path: The configuration file, or its folder, as for `connect`.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid, or has no `oauth`.
        CredentialError: The sign-in was refused.
        CredentialTimeoutError: It was not completed in time. This is a CredentialError and a TimeoutError.
        TypeError: `get_code` is not a plain function.
    """
    check_function(get_code, "get_code")
    longest = MAX_SECONDS if timeout is None else checked_seconds("timeout", timeout)
    from heksher_client._auth.oauth import RefusedError, ServerUnavailableError

    session = _LoginSession.begin(profile, path)
    url = required_url("device_authorization_url", session.endpoints.device_authorization_url, session.config)
    parameters = {"scope": session.oauth.scope, "audience": session.oauth.audience}
    response = session.token_endpoint.post(url, {key: value for key, value in parameters.items() if value is not None})
    try:
        device_code = str(response["device_code"])
        code = DeviceCode(
            str(response["verification_uri"]),
            str(response["user_code"]),
            response.get("verification_uri_complete"),
            _parse_seconds(response["expires_in"]),
        )
        given = response.get("interval")
        interval = _POLLING_SECONDS if given is None else max(_parse_seconds(given), _SHORTEST_POLLING_SECONDS)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise CredentialError(f"{url}: the response does not contain a valid device code") from None
    plain_result(get_code, get_code(code))
    seconds = min(code.expires_in, longest)
    deadline = monotonic() + seconds
    while (remaining := deadline - monotonic()) > 0:
        time.sleep(min(interval, remaining))
        try:
            granted = session.token_endpoint.grant(_DEVICE_CODE_GRANT, device_code=device_code)
        except RefusedError as error:
            if error.code not in ("authorization_pending", "slow_down"):
                raise
            interval += _SLOW_DOWN_SECONDS * (error.code == "slow_down")
        except ServerUnavailableError:  # The code remains valid.
            interval += _SLOW_DOWN_SECONDS
        else:
            return session.save(granted)
    raise CredentialTimeoutError(f"the code was not entered within {seconds:g} seconds: start again")


def _parse_seconds(value: Any) -> float:
    """Convert a duration in a response.

    Raises:
        TypeError, ValueError, OverflowError: It is not a number, or cannot be waited for.
    """
    seconds = float(value)
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{seconds} seconds")
    return seconds


def login_with_token(
    token: str,
    *,
    refresh_token: str | None = None,
    expires_at: float | None = None,
    profile: str | None = None,
    path: str | PathLike[str] | None = None,
) -> str:
    """Save an access token that you already have, for use with a profile.

    Args:
        token: The access token.
        refresh_token: A refresh token to renew it with, if there is one. The authorization server is that of the
            profile's `oauth`.
        expires_at: The expiry of the access token, in seconds since 1970. If None, it is used until it is refused.
        profile: The name of the profile. If None, the profile that `connect` would use.
        path: The configuration file, or its folder, as for `connect`.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid; or there is a refresh token, and the profile has no `oauth`.
        CredentialError: There is a refresh token, and the metadata of the authorization server could not be fetched.
        ValueError: The token contains characters that cannot be sent, or the refresh token is empty.
        TypeError: The expiry is not a number.
    """
    value = Token(token, expires_at).value
    if refresh_token is not None:
        if not refresh_token:
            raise ValueError("refresh_token must not be empty: leave it out if there is none")
        from heksher_client._auth.oauth import Granted

        session = _LoginSession.begin(profile, path, "leave out the refresh token")
        return session.save(Granted(value, refresh_token, expires_at))
    config = _load_config(profile, path)
    tokens = StoredTokens(origin=origin(str(config.profile.url)), access_token=value, expires_at=expires_at)
    return token_store(config).save(config.name, tokens)


def logout(*, profile: str | None = None, path: str | PathLike[str] | None = None) -> bool:
    """Remove the tokens of a profile, and revoke them if the authorization server supports it.

    Args:
        profile: The name of the profile. If None, the profile that `connect` would use.
        path: The configuration file, or its folder, as for `connect`.

    Returns:
        True if a user was signed in.

    Raises:
        ConfigError: The profile is invalid, or the tokens cannot be removed.
    """
    config = _config.load(profile, {}, prefer_named=True, path=path)
    store = token_store(config)
    with store.lock():
        tokens = store.load(config.name)
        store.remove(config.name)
    if tokens is None:
        return False
    if tokens.revocation_url and tokens.token_url and tokens.client_id:
        try:
            _revoke(tokens, config, tokens.revocation_url)
        except CredentialError as error:
            logger.warning("signed out locally, but the server may still accept the tokens: %s", error)
    return True


def _revoke(tokens: StoredTokens, config: Config, url: str) -> None:
    """Revoke the refresh token, with which most servers revoke its access tokens, and then the access token.

    Raises:
        CredentialError: A token could not be revoked.
    """
    from heksher_client._auth.oauth import RefusedError, TokenEndpoint

    oauth = config.profile.oauth
    client_secret = oauth.client_secret if oauth is not None and is_issued_for(tokens, oauth) else None
    endpoint = TokenEndpoint(
        tokens.token_url or "",
        tokens.client_id or "",
        client_secret,
        http_client_args(config),
        client_auth_for(tokens, oauth),
    )
    if tokens.refresh_token is not None:
        endpoint.revoke(url, tokens.refresh_token, "refresh_token")
    try:
        endpoint.revoke(url, tokens.access_token, "access_token")
    except RefusedError as error:  # RFC 7009, section 2: servers need not be able to revoke access tokens.
        if error.code != "unsupported_token_type" or tokens.refresh_token is None:
            raise


def _load_config(profile: str | None, path: str | PathLike[str] | None) -> Config:
    """Load the configuration of a profile to sign in for.

    Raises:
        ConfigError: The configuration is invalid, or has other credentials, which would be used instead of the sign-in.
    """
    config = _config.load(profile, {}, prefer_named=True, path=path)
    if config.profile.token is not None:
        raise ConfigError(
            f"{config.source} has a token, or HEKSHER_TOKEN is set, and it would be used instead of the sign-in: "
            "remove it first"
        )
    if config.profile.oauth is not None and config.profile.oauth.grant == "client_credentials":
        raise ConfigError(
            f"{config.source} has its own client secret (grant = client_credentials), so users do not sign in for it"
        )
    return config
