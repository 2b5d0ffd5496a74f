"""Credentials: access tokens that authenticate a program to the service or its gateway, refreshed as they expire.

Pass one to a client as `auth`, in `http_client_args["auth"]`, or to `client.use_credential` while it runs:

    auth = ClientCredentials("https://login.example.com/token", client_id="shop", client_secret=secret)
    client = ThreadHeksherClient(url, 60, ["user"], auth=auth)

Each credential is an `httpx.Auth` as well. One object can serve any number of clients, tasks and threads: if several of
them need a new token, it is requested once. Tokens are refreshed in the background shortly before they expire.

`RefreshableToken` and `ClientCredentials` need the extra `oauth`.
"""

import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from heksher_client._auth.secret_string import SecretString, plain_text
from heksher_client._auth.token_refresh import Credential, Token
from heksher_client._core.refresh.options import checked_seconds
from heksher_client._core.settings.user_functions import check_function, is_coroutine_function, plain_result
from heksher_client._logging import logger
from heksher_client.exceptions import CredentialError

if TYPE_CHECKING:
    import asyncio

    from heksher_client._auth.oauth import ClientAuthMethod, TokenEndpoint

_PLAIN_FUNCTION: Final = "a function that is not a coroutine function"

__all__ = ["ClientCredentials", "Credential", "RefreshableToken", "StaticToken", "Token", "TokenFrom", "Tokens"]


class Tokens(NamedTuple):
    """The tokens of a refresh, for a program that stores them."""

    access_token: str
    refresh_token: str
    expires_at: float | None
    """The expiry of the access token, in seconds since 1970."""

    def __repr__(self) -> str:
        return f"Tokens(expires_at={self.expires_at!r})"


class StaticToken(Credential):
    """A token that does not change. Use `use_credential` to give a running client another one."""

    _can_refresh = False

    def __init__(self, token: str | SecretString) -> None:
        """Create a credential.

        Args:
            token: The token, or an object with a method `get_secret_value`, such as a `pydantic.SecretStr`.

        Raises:
            ValueError: The token cannot be sent in a header.
        """
        super().__init__(Token(plain_text(token)))


TokenSource: TypeAlias = (
    Callable[[], "str | SecretString | Token"] | Callable[[], "Coroutine[Any, Any, str | SecretString | Token]"]
)


class TokenFrom(Credential):
    """A token that a function returns: from a file that another program refreshes, say, or from another library."""

    def __init__(self, get_token: TokenSource, *, lifetime: float | None = None) -> None:
        """Create a credential.

        Args:
            get_token: Returns a token, as a string or as a `Token` with its expiry. It is called for the first token,
                shortly before a token expires, and when one is refused; in a thread that it may block. A coroutine
                function is for the async client only, and is awaited in its event loop.
            lifetime: Seconds after which a token that is a string is refreshed.

        Raises:
            TypeError, ValueError: The function is not callable, or the lifetime is not a positive number.
        """
        self._is_async = is_coroutine_function(get_token)
        if not self._is_async:
            check_function(get_token, "get_token")
        self._get_token = get_token
        self._lifetime = None if lifetime is None else checked_seconds("lifetime", lifetime)
        self._task: asyncio.Task[str | SecretString | Token] | None = None
        """The refresh of a coroutine function."""
        super().__init__()

    def _description(self) -> str:
        return f" {getattr(self._get_token, '__qualname__', type(self._get_token).__name__)}"

    def _fetch(self) -> Token:
        return self._as_token(self._get_token())

    def _run_refresh(self, refresh: "Future[Token]") -> None:
        if not self._is_async:
            super()._run_refresh(refresh)
            return
        loop = self._loop_for(refresh, _PLAIN_FUNCTION)
        try:
            coroutine: Any = self._get_token()
            self._task = loop.create_task(coroutine)  # stored, as the loop only has a weak reference
        except BaseException as error:  # User code, as in `_complete_refresh`.
            self._fail_refresh(refresh, error)
            return
        self._task.add_done_callback(partial(self._complete_async, refresh))

    def _complete_async(self, refresh: "Future[Token]", task: "asyncio.Task[str | SecretString | Token]") -> None:
        self._complete_refresh(refresh, lambda: self._as_token(task.result()))

    def _ensure_blocking_allowed(self) -> None:
        if self._is_async:
            raise TypeError(f"{self!r} has a coroutine function, which only the async client can await")

    def _is_abandoned(self) -> bool:
        return super()._is_abandoned() or (self._task is not None and self._task.get_loop().is_closed())

    def _as_token(self, result: Any) -> Token:
        try:
            plain_result(self._get_token, result)
        except TypeError as error:
            raise CredentialError(f"{self!r}: {error}, as get_token is not a coroutine function itself") from None
        if isinstance(result, Token):
            return result
        return Token(plain_text(result), None if self._lifetime is None else time.time() + self._lifetime)


class _OAuthCredential(Credential):
    """A token of an OAuth 2 server."""

    _endpoint: "TokenEndpoint"

    def _description(self) -> str:
        return f" {self._endpoint}"


class RefreshableToken(_OAuthCredential):
    """An access token that is refreshed with a refresh token."""

    def __init__(  # noqa: PLR0913 - the parameters of the protocol, all but two of them named
        self,
        access_token: str | SecretString | None,
        refresh_token: str | SecretString,
        *,
        token_url: str,
        client_id: str,
        client_secret: str | SecretString | None = None,
        scope: str | None = None,
        expires_at: float | None = None,
        on_new_tokens: Callable[[Tokens], object] | None = None,
        http_client_args: Mapping[str, Any] | None = None,
        client_auth: Literal["basic", "post"] = "basic",
    ) -> None:
        """Create a credential.

        Args:
            access_token: None to start with a refresh.
            refresh_token: The first refresh token. If the server issues a new one with a refresh, that is used next.
            token_url: The token endpoint of the OAuth 2 server.
            client_id: The client that the tokens were issued to.
            client_secret: None for a public client.
            scope: The scope to request; the original one if it is not given.
            expires_at: The expiry of the access token, in seconds since 1970.
            on_new_tokens: Called after each refresh, in a thread that it may block, so that a program can store the
                tokens for its next start. A coroutine function is for the async client only, and is awaited in its
                event loop.
            http_client_args: Arguments of the httpx client that requests tokens, such as verify, proxy or timeout (10
                seconds by default).
            client_auth: How the client secret is sent: in the header `Authorization`, or with `"post"` in the body
                (`client_secret_post`).

        Raises:
            ImportError: The extra `oauth` is not installed.
            ValueError: `token_url` is not an HTTP URL, or `client_auth` is unknown.
            TypeError: `on_new_tokens` is not a function.
        """
        self._is_async = is_coroutine_function(on_new_tokens)
        if on_new_tokens is not None and not self._is_async:
            check_function(on_new_tokens, "on_new_tokens")
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the last refresh was started, if `on_new_tokens` is awaited."""
        self._storing: Future[None] | None = None
        """The call of `on_new_tokens`. Stored, as an event loop only has a weak reference to its task."""
        self._endpoint = _token_endpoint(token_url, client_id, client_secret, http_client_args, client_auth)
        self._refresh_token: str = plain_text(refresh_token)
        self._scope, self._on_new_tokens = scope, on_new_tokens
        self._new_tokens: Tokens | None = None
        """The tokens of the last refresh."""
        super().__init__(None if access_token is None else Token(plain_text(access_token), expires_at))

    def _fetch(self) -> Token:
        granted = self._endpoint.refresh(self._refresh_token, self._scope)
        self._refresh_token = granted.refresh_token or self._refresh_token
        self._new_tokens = Tokens(granted.access_token, self._refresh_token, granted.expires_at)
        return Token(granted.access_token, granted.expires_at)

    def _run_refresh(self, refresh: "Future[Token]") -> None:
        if self._is_async:
            self._loop = self._loop_for(refresh, _PLAIN_FUNCTION)
        super()._run_refresh(refresh)

    def _ensure_blocking_allowed(self) -> None:
        if self._is_async:
            raise TypeError(f"{self!r}: on_new_tokens is a coroutine function, which only the async client can await")

    def _on_refreshed(self) -> None:
        tokens = self._new_tokens
        if self._on_new_tokens is None or tokens is None:
            return
        if self._loop is not None:
            self._store_async(self._loop, tokens)
            return
        try:
            plain_result(self._on_new_tokens, self._on_new_tokens(tokens), may_be_running=True)
        except Exception as error:  # User code. The tokens are valid, whether they are stored or not.
            _log_unstored(error)

    def _store_async(self, loop: "asyncio.AbstractEventLoop", tokens: Tokens) -> None:
        import asyncio  # The program has imported it. Programs without tasks do not need it.

        on_new_tokens: Any = self._on_new_tokens

        async def store() -> None:
            try:
                await on_new_tokens(tokens)
            except BaseException as error:
                _log_unstored(error)
                if not isinstance(error, Exception):
                    raise

        coroutine = store()
        try:
            self._storing = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as error:  # The loop is closed.
            coroutine.close()
            _log_unstored(error)


def _log_unstored(error: BaseException) -> None:
    # The token is valid all the same. Not the message: it may contain the tokens.
    logger.error("on_new_tokens raised %s: the new tokens may not be stored", type(error).__name__)


class ClientCredentials(_OAuthCredential):
    """A token that a program gets for itself, with its client secret."""

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | SecretString,
        *,
        scope: str | None = None,
        audience: str | None = None,
        http_client_args: Mapping[str, Any] | None = None,
        client_auth: Literal["basic", "post"] = "basic",
    ) -> None:
        """Create a credential.

        Args:
            token_url: The token endpoint of the OAuth 2 server.
            client_id: The client ID of the program.
            client_secret: Its client secret.
            scope: The scope to request.
            audience: The audience to request, if the server needs it.
            http_client_args: Arguments of the httpx client that requests tokens, such as verify, proxy or timeout (10
                seconds by default).
            client_auth: How the client secret is sent: in the header `Authorization`, or with `"post"` in the body
                (`client_secret_post`).

        Raises:
            ImportError: The extra `oauth` is not installed.
            ValueError: `token_url` is not an HTTP URL, or `client_auth` is unknown.
        """
        self._endpoint = _token_endpoint(token_url, client_id, client_secret, http_client_args, client_auth)
        self._parameters = {"scope": scope, "audience": audience}
        super().__init__()

    def _fetch(self) -> Token:
        granted = self._endpoint.client_credentials(self._parameters)
        return Token(granted.access_token, granted.expires_at)


def _token_endpoint(
    token_url: str,
    client_id: str,
    client_secret: str | SecretString | None,
    http_client_args: Mapping[str, Any] | None,
    client_auth: "ClientAuthMethod",
) -> "TokenEndpoint":
    # Imported here: most programs do not need it, and it takes longer to import than everything else.
    from heksher_client._auth.oauth import TokenEndpoint

    return TokenEndpoint(token_url, client_id, plain_text(client_secret), http_client_args, client_auth)
