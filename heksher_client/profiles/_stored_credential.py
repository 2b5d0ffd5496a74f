"""The credential of one who has signed in: tokens that all processes of a user share, and renew one at a time."""

import time
from typing import TYPE_CHECKING, Any

import msgspec

from heksher_client._auth.token_refresh import Credential, Token
from heksher_client._logging import logger
from heksher_client.exceptions import ConfigError, CredentialError
from heksher_client.profiles._config import Config, OAuth
from heksher_client.profiles._secret_checks import origin
from heksher_client.profiles._token_store import SignIn, TokenStore

if TYPE_CHECKING:
    from heksher_client._auth.oauth import Granted


def store_of(config: Config) -> TokenStore:
    """Where the tokens of a configuration are kept.

    Raises:
        ConfigError: There is no such place.
    """
    if config.path is None:
        raise ConfigError("there is no place for tokens: install the extra `login`, or set HEKSHER_CONFIG")
    return TokenStore(config.path)


def is_from(kept: SignIn, oauth: OAuth | None) -> bool:
    """Whether tokens come from where a profile would get them now: its client secret is for no other server."""
    if oauth is None or kept.token_url is None:  # A token that somebody has got elsewhere.
        return True
    servers = (kept.issuer, oauth.issuer), (kept.token_url, oauth.token_url)
    is_same = any(was == now for was, now in servers if now is not None)
    return is_same and kept.client_id == oauth.client_id


class SignedIn(Credential):
    """Tokens out of the store of a configuration."""

    def __init__(self, config: Config, store: TokenStore, http_arguments: dict[str, Any]) -> None:
        self._config, self._store, self._http_arguments = config, store, http_arguments
        self._unsaved: tuple[SignIn, SignIn] | None = None
        """Tokens that could not be kept, behind those that are kept in their place."""
        super().__init__()

    def _described(self) -> str:
        return f" profile {self._config.name}"

    def _fetch(self) -> Token:
        try:
            return self._renewed()
        except (ConfigError, ImportError, OSError) as error:
            raise CredentialError(f"{self!r}: {error}") from None

    def _renewed(self) -> Token:
        used = self._held.token.value if self._held is not None else None
        kept = self._load()
        if kept.access_token != used and (kept.expires_at is None or kept.expires_at > time.time()):
            return Token(kept.access_token, kept.expires_at)
        if kept.refresh_token is None:
            raise self._ended("the token is not accepted any more")
        with self._store.lock():
            newer = self._load()
            if newer.access_token != kept.access_token:  # Another process has renewed it meanwhile.
                return Token(newer.access_token, newer.expires_at)
            granted = self._refresh(kept)
            renewed = msgspec.structs.replace(
                kept,
                access_token=granted.access_token,
                expires_at=granted.expires_at,
                refresh_token=granted.refresh_token or kept.refresh_token,
            )
            # Before all else: the former refresh token is spent, whether the new one can be kept or not.
            in_store = self._store.load(self._config.name)
            self._unsaved = None if in_store is None else (in_store, renewed)
            try:
                self._store.save(self._config.name, renewed)
            except ConfigError as error:
                logger.error("the renewed tokens are lost when this process ends: %s", error)
            else:
                self._unsaved = None
        return Token(granted.access_token, granted.expires_at)

    def _refresh(self, kept: SignIn) -> "Granted":
        from heksher_client._auth.oauth import (  # which takes longer to import than all the rest
            RefusedError,
            TokenEndpoint,
        )

        oauth = self._config.profile.oauth
        secret = None if oauth is None else oauth.client_secret
        tokens = TokenEndpoint(kept.token_url or "", kept.client_id or "", secret, self._http_arguments)
        try:
            return tokens.refresh(kept.refresh_token or "", None)
        except RefusedError as error:
            why = str(error)
        raise self._ended(why)

    def _load(self) -> SignIn:
        kept = self._store.load(self._config.name)
        if self._unsaved is not None and kept == self._unsaved[0]:
            return self._unsaved[1]
        if kept is None:
            raise self._ended("nobody is signed in")
        if kept.origin != origin(str(self._config.profile.url)):
            raise self._ended(f"the tokens are for {kept.origin}")
        if not is_from(kept, self._config.profile.oauth):
            raise self._ended("the tokens are from another server than its oauth names, or for another client")
        return kept

    def _ended(self, why: str) -> CredentialError:
        name = f" {self._config.name}" if self._config.is_profile else ""
        return CredentialError(f"profile {self._config.name}: {why}; sign in: heksher-client login{name}")
