"""Sign-in to the authorization server of a profile, and sign-out. Needs the extra `login`.

A sign-in saves tokens in the token store of the configuration. From then on `connect`, `connect_async` and the command
line use them, and refresh them, in all programs of the user.
"""

import time
import webbrowser
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from os import PathLike
from typing import Any, Final

from heksher_client._auth.secret_string import SecretString, plain_text
from heksher_client._auth.token_refresh import Token
from heksher_client._core.refresh.options import checked_seconds
from heksher_client._core.settings.user_functions import check_function, plain_result
from heksher_client._drivers.flow_runner import run
from heksher_client._logging import logger
from heksher_client.exceptions import CredentialError
from heksher_client.profiles import _config
from heksher_client.profiles._config import Config
from heksher_client.profiles._connect import http_client_args
from heksher_client.profiles._keyring import KeyringTimeoutError, timeout_error
from heksher_client.profiles._login_flows import (
    CallBlocking,
    CallProgram,
    DeviceCode,
    LoginSession,
    LoginTarget,
    Wait,
    browser_flow,
    headless_flow,
    load_config,
)
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._stored_credential import client_auth_for, is_issued_for, token_store
from heksher_client.profiles._token_store import StoredTokens


def login(
    show_browser: Callable[[str], object] = webbrowser.open,
    *,
    profile: str | None = None,
    timeout: float = 300.0,
    path: str | PathLike[str] | None = None,
    url: str | None = None,
    oauth: Mapping[str, Any] | None = None,
) -> str:
    """Sign in with a browser on this machine. Blocks until the sign-in is completed.

    Args:
        show_browser: A function that opens a URL in a browser. It returns False if there is no browser.
        profile: The name of the profile. If None, the profile that `connect` would use.
        timeout: Seconds to wait for the user, from the call of `show_browser` on, which is not interrupted. Requests to
            the authorization server are not included: each step of one has a limit of 10 seconds.
        path: The configuration file, or its folder, as for `connect`.
        url: The URL of the service, to add the profile to the configuration file if it is not there. The name is
            `profile`, or else that of an existing profile with this URL, the default one first, or else the host of the
            URL. The profile stays there if the sign-in fails, but is not added if an argument is invalid.
        oauth: The table `oauth` of the new profile, such as `{"issuer": ..., "client_id": ...}`. It is added to an
            existing profile that has none.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid, or has no `oauth`.
        CredentialError: The sign-in was refused.
        CredentialTimeoutError: It was not completed in time. This is a CredentialError and a TimeoutError.
        TypeError: `show_browser` is not a plain function.
    """
    check_function(show_browser, "show_browser", ": use login_async")
    target = LoginTarget(profile, path, url, oauth)
    return run(browser_flow(show_browser, target, checked_seconds("timeout", timeout)), _PERFORMERS)


def login_headless(
    get_code: Callable[[DeviceCode], object],
    *,
    profile: str | None = None,
    timeout: float | None = None,
    path: str | PathLike[str] | None = None,
    url: str | None = None,
    oauth: Mapping[str, Any] | None = None,
) -> str:
    """Sign in with a browser on another device. Blocks until the sign-in is completed or the code has expired.

    Args:
        get_code: A function that shows the URL and the code to the user. If the server has no device codes, the code is
            empty, and the function returns the authorization code that the user pastes, or the address at which the
            browser ends: a page that need not load.
        profile: The name of the profile. If None, the profile that `connect` would use.
        timeout: Seconds to wait for the user, from the call of `get_code` on, which is not interrupted. If None, until
            the code expires. Requests to the authorization server are not included: each step of one has a limit of 10
            seconds.
        path: The configuration file, or its folder, as for `connect`.
        url: The URL of the service, to add the profile to the configuration file if it is not there. The name is
            `profile`, or else that of an existing profile with this URL, the default one first, or else the host of the
            URL. The profile stays there if the sign-in fails, but is not added if an argument is invalid.
        oauth: The table `oauth` of the new profile, such as `{"issuer": ..., "client_id": ...}`. It is added to an
            existing profile that has none.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid, or has no `oauth`.
        CredentialError: The sign-in was refused.
        CredentialTimeoutError: It was not completed in time. This is a CredentialError and a TimeoutError.
        TypeError: `get_code` is not a plain function.
    """
    check_function(get_code, "get_code", ": use login_headless_async")
    return run(headless_flow(get_code, LoginTarget(profile, path, url, oauth), timeout), _PERFORMERS)


def login_with_token(
    token: str | SecretString,
    *,
    refresh_token: str | SecretString | None = None,
    expires_at: float | None = None,
    profile: str | None = None,
    path: str | PathLike[str] | None = None,
    url: str | None = None,
    oauth: Mapping[str, Any] | None = None,
) -> str:
    """Save an access token that you already have, for use with a profile.

    Args:
        token: The access token.
        refresh_token: A refresh token to renew it with, if there is one. The authorization server is that of the
            profile's `oauth`.
        expires_at: The expiry of the access token, in seconds since 1970. If None, it is used until it is refused.
        profile: The name of the profile. If None, the profile that `connect` would use.
        path: The configuration file, or its folder, as for `connect`.
        url: The URL of the service, to add the profile to the configuration file if it is not there. The name is
            `profile`, or else that of an existing profile with this URL, the default one first, or else the host of the
            URL. The profile stays there if the sign-in fails, but is not added if an argument is invalid.
        oauth: The table `oauth` of the new profile, such as `{"issuer": ..., "client_id": ...}`. It is added to an
            existing profile that has none.

    Returns:
        The location of the saved tokens.

    Raises:
        ConfigError: The profile is invalid; or there is a refresh token, and the profile has no `oauth`.
        CredentialError: There is a refresh token, and the metadata of the authorization server could not be fetched.
        ValueError: The token contains characters that cannot be sent, or the refresh token is empty.
        TypeError: The expiry is not a number.
    """
    value, target = Token(plain_text(token), expires_at).value, LoginTarget(profile, path, url, oauth)
    if refresh_token is not None:
        renewal: str = plain_text(refresh_token)
        if not renewal:
            raise ValueError("refresh_token must not be empty: leave it out if there is none")
        from heksher_client._auth.oauth import Granted

        session = LoginSession.begin(target, advice="leave out the refresh token")
        return session.save(Granted(value, renewal, expires_at))
    with load_config(target) as config:
        pass  # The checks are complete.
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
    try:
        with store.lock():
            tokens = store.load(config.name)
            store.remove(config.name)
    except KeyringTimeoutError:
        raise timeout_error("and sign out again") from None
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


def _call_blocking(step: CallBlocking) -> Any:
    return step.call()


def _call_program(step: CallProgram) -> object:
    return plain_result(step.function, step.function(step.argument))


def _wait(step: Wait) -> None:
    if step.future is None:
        time.sleep(step.seconds)
    else:
        wait([step.future], step.seconds)


_PERFORMERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    CallBlocking: _call_blocking,
    CallProgram: _call_program,
    Wait: _wait,
}
