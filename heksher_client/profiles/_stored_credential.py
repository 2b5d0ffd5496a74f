"""Credential that takes its tokens from the token store and refreshes them there.

All processes of a user share the stored tokens. A refresh happens under the lock of the store, as most servers accept
a refresh token only once; a process that waited for the lock uses the tokens that the other process received.
"""

import time
from typing import TYPE_CHECKING, Any

import msgspec

from heksher_client._auth.token_refresh import Credential, Token
from heksher_client._logging import logger
from heksher_client.exceptions import ConfigError, CredentialError
from heksher_client.profiles._config import Config, OAuth
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._token_store import StoredTokens, TokenStore

if TYPE_CHECKING:
    from heksher_client._auth.oauth import ClientAuthMethod, Granted


def token_store(config: Config) -> TokenStore:
    """Return the token store of a configuration.

    Raises:
        ConfigError: Its location is unknown.
    """
    if config.path is None:
        raise ConfigError(
            "the location of the token store is unknown: install the extra `login`, or set HEKSHER_CONFIG"
        )
    return TokenStore(config.path)


def is_issued_for(tokens: StoredTokens, oauth: OAuth | None) -> bool:
    """Return whether the authorization server of a profile issued these tokens to the client of the profile.

    If not, the client secret of the profile must not be sent to the server that issued them. Tokens that a user
    provided are never sent with a client secret, and pass.
    """
    if oauth is None or tokens.token_url is None:
        return True
    urls = (tokens.issuer, oauth.issuer), (tokens.token_url, oauth.token_url)
    is_same_server = any(stored == configured for stored, configured in urls if configured is not None)
    return is_same_server and tokens.client_id == oauth.client_id


def client_auth_for(tokens: StoredTokens, oauth: OAuth | None) -> "ClientAuthMethod":
    """Return how the client secret is sent to the server that issued these tokens."""
    return (None if oauth is None else oauth.client_auth) or tokens.client_auth


class StoredCredential(Credential):
    """Tokens from the token store of a configuration."""

    def __init__(self, config: Config, store: TokenStore, http_client_args: dict[str, Any]) -> None:
        self._config, self._store, self._http_client_args = config, store, http_client_args
        self._unsaved: tuple[StoredTokens | None, StoredTokens] | None = None
        """The tokens in the store, and newer tokens that could not be saved in their place."""
        super().__init__()

    def _description(self) -> str:
        return f" profile {self._config.name}"

    def _fetch(self) -> Token:
        try:
            return self._load_or_refresh()
        except (ConfigError, ImportError, OSError) as error:
            raise CredentialError(f"{self!r}: {error}") from None

    def _load_or_refresh(self) -> Token:
        current = self._cached.token.value if self._cached is not None else None
        tokens = self._usable(self._store.load(self._config.name))
        if tokens.access_token != current and (tokens.expires_at is None or tokens.expires_at > time.time()):
            return Token(tokens.access_token, tokens.expires_at)
        if tokens.refresh_token is None:
            raise self._sign_in_error("the access token is no longer accepted")
        with self._store.lock():
            # Loaded before the refresh: that uses up the refresh token, so nothing may fail before the new one is kept.
            in_store = self._store.load(self._config.name)
            latest = self._usable(in_store)
            if latest.access_token != tokens.access_token:  # Another process refreshed it before the lock was acquired.
                return Token(latest.access_token, latest.expires_at)
            granted = self._refresh(tokens)
            refreshed = msgspec.structs.replace(
                tokens,
                access_token=granted.access_token,
                expires_at=granted.expires_at,
                refresh_token=granted.refresh_token or tokens.refresh_token,
            )
            self._unsaved = in_store, refreshed
            try:
                self._store.save(self._config.name, refreshed)
            except ConfigError as error:
                logger.error("the refreshed tokens could not be saved, and are lost when this process ends: %s", error)
            else:
                self._unsaved = None
        return Token(granted.access_token, granted.expires_at)

    def _refresh(self, tokens: StoredTokens) -> "Granted":
        # Imported here, as importing Authlib takes longer than importing the rest of the package.
        from heksher_client._auth.oauth import RefusedError, TokenEndpoint

        oauth = self._config.profile.oauth
        client_secret = None if oauth is None else oauth.client_secret
        client_auth = client_auth_for(tokens, oauth)
        endpoint = TokenEndpoint(
            tokens.token_url or "", tokens.client_id or "", client_secret, self._http_client_args, client_auth
        )
        try:
            return endpoint.refresh(tokens.refresh_token or "", None)
        except RefusedError as error:
            reason = str(error)
        # Raised outside of the handler, so that the new error has no context.
        raise self._sign_in_error(reason)

    def _usable(self, tokens: StoredTokens | None) -> StoredTokens:
        """Return the tokens in the store, or newer ones that could not be saved in their place.

        Raises:
            CredentialError: There are none, or they are for another server.
        """
        if self._unsaved is not None and tokens == self._unsaved[0]:
            return self._unsaved[1]
        if tokens is None:
            raise self._sign_in_error("no user is signed in")
        if tokens.origin != origin(str(self._config.profile.url)):
            raise self._sign_in_error(f"the stored tokens are for {tokens.origin}")
        if not is_issued_for(tokens, self._config.profile.oauth):
            raise self._sign_in_error("the stored tokens are for another server or client than its oauth")
        return tokens

    def _sign_in_error(self, reason: str) -> CredentialError:
        command = "heksher-client login" + (f" {self._config.name}" if self._config.is_profile else "")
        hint = f" (with HEKSHER_CONFIG={self._config.path})" if self._config.is_path_argument else ""
        return CredentialError(f"profile {self._config.name}: {reason}; sign in with: {command}{hint}")
