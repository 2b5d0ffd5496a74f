"""What shows a service, or the gateway before it, that a program may ask: access tokens, renewed as they end.

Give one to a client as `auth`, in `http_client_args["auth"]`, or to `client.use_credential` while it runs:

    auth = ClientCredentials("https://login.example.com/token", client_id="shop", client_secret=secret)
    client = ThreadHeksherClient(url, 60, ["user"], auth=auth)

Each is an `httpx.Auth` too. One object may serve any number of clients, tasks and threads: however many of them need a
new token, it is asked for once. Ahead of its end that happens beside them, while the old one still serves.

`RefreshableToken` and `ClientCredentials` need the extra `oauth`.
"""

import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from heksher_client._auth.token_refresh import Credential, Token
from heksher_client._logging import logger
from heksher_client.exceptions import CredentialError

if TYPE_CHECKING:
    import asyncio

    from heksher_client._auth.oauth import TokenEndpoint

__all__ = ["ClientCredentials", "Credential", "RefreshableToken", "StaticToken", "Token", "TokenFrom", "Tokens"]


class Tokens(NamedTuple):
    """What a refresh has brought, for a program that keeps it."""

    access_token: str
    refresh_token: str
    expires_at: float | None
    """Seconds since 1970, of the access token."""

    def __repr__(self) -> str:
        return f"Tokens(expires_at={self.expires_at!r})"


class StaticToken(Credential):
    """A token that does not change. `use_credential` gives a running client another one."""

    _can_be_renewed = False

    def __init__(self, token: str) -> None:
        """Make one.

        Raises:
            ValueError: It could not be sent.
        """
        super().__init__(Token(token))


TokenSource: TypeAlias = Callable[[], "str | Token"] | Callable[[], "Coroutine[Any, Any, str | Token]"]


class TokenFrom(Credential):
    """A token that a function gives: out of a file that something else renews, say, or of another library."""

    def __init__(self, get_token: TokenSource, *, lifetime: float | None = None) -> None:
        """Make one.

        Args:
            get_token: Gives a token, as a string or as a `Token` that tells its end. Called when the first one is
                needed, ahead of the end, and when one is refused; in a thread that it may block. A coroutine function
                is for the async client alone, and is awaited in its event loop.
            lifetime: Seconds after which another one is asked for, where it gives strings.

        Raises:
            TypeError, ValueError: The function cannot be called, or the lifetime is not positive.
        """
        if not callable(get_token):
            raise TypeError(f"get_token must be a function, not {type(get_token).__name__}")
        if lifetime is not None and not lifetime > 0:
            raise ValueError(f"lifetime must be a positive number of seconds, not {lifetime!r}")
        self._get_token, self._lifetime = get_token, lifetime
        self._task: asyncio.Task[str | Token] | None = None
        """The renewal, where it is awaited."""
        self._is_awaited = inspect.iscoroutinefunction(get_token) or inspect.iscoroutinefunction(
            type(get_token).__call__  # of an object that can be called
        )
        super().__init__()

    def _described(self) -> str:
        return f" {getattr(self._get_token, '__qualname__', type(self._get_token).__name__)}"

    def _fetch(self) -> Token:
        return self._as_token(self._get_token())

    def _begin(self, renewal: "Future[Token]") -> None:
        if not self._is_awaited:
            super()._begin(renewal)
            return
        import asyncio

        loop = asyncio.get_running_loop()
        try:
            getting: Any = self._get_token()
            self._task = loop.create_task(getting)  # which the loop holds but weakly
        except BaseException as error:  # As in `_renew`.
            self._failed(renewal, error)
            return
        self._task.add_done_callback(partial(self._settle, renewal))

    def _settle(self, renewal: "Future[Token]", task: "asyncio.Task[str | Token]") -> None:
        def result() -> Token:
            return self._as_token(task.result())

        self._renew(renewal, result)

    def check_may_block(self) -> None:
        if self._is_awaited:
            raise TypeError(f"{self!r} is a coroutine function, which only the async client can await")

    def _is_lost(self) -> bool:
        return super()._is_lost() or (self._task is not None and self._task.get_loop().is_closed())

    def _as_token(self, given: Any) -> Token:
        if inspect.isawaitable(given):
            if inspect.iscoroutine(given):
                given.close()
            raise CredentialError(f"{self!r} gives something to await: it must be a coroutine function itself")
        if isinstance(given, Token):
            return given
        return Token(given, None if self._lifetime is None else time.time() + self._lifetime)


class _Granted(Credential):
    """A token that an OAuth 2 server gives."""

    _endpoint: "TokenEndpoint"

    def _described(self) -> str:
        return f" {self._endpoint}"


class RefreshableToken(_Granted):
    """An access token that a refresh token renews."""

    def __init__(
        self,
        access_token: str | None,
        refresh_token: str,
        *,
        token_url: str,
        client_id: str,
        client_secret: str | None = None,
        scope: str | None = None,
        expires_at: float | None = None,
        on_new_tokens: Callable[[Tokens], object] | None = None,
        http_client_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Make one.

        Args:
            access_token: None to begin with a refresh.
            refresh_token: What renews it. Where the server gives a new one with each refresh, that is used next.
            token_url: The token endpoint of the OAuth 2 server.
            client_id: Whose tokens they are.
            client_secret: None for a public client.
            scope: What to ask for; the same as before if it is not given.
            expires_at: The end of the access token, in seconds since 1970.
            on_new_tokens: Called after each refresh, in a thread that it may block: a program that starts again needs
                the newest ones.
            http_client_args: For the httpx client that asks for tokens, as verify or proxy.

        Raises:
            ImportError: The extra `oauth` is not installed.
        """
        self._endpoint = _endpoint(token_url, client_id, client_secret, http_client_args)
        self._refresh_token, self._scope, self._on_new_tokens = refresh_token, scope, on_new_tokens
        self._new: Tokens | None = None
        """What the last refresh has brought."""
        super().__init__(None if access_token is None else Token(access_token, expires_at))

    def _fetch(self) -> Token:
        granted = self._endpoint.refresh(self._refresh_token, self._scope)
        self._refresh_token = granted.refresh_token or self._refresh_token
        self._new = Tokens(granted.access_token, self._refresh_token, granted.expires_at)
        return Token(granted.access_token, granted.expires_at)

    def _hand_on(self) -> None:
        if self._on_new_tokens is not None and self._new is not None:
            try:
                self._on_new_tokens(self._new)
            except Exception as error:  # The token is good, whatever the program does. No words: they may hold it.
                logger.error("the new tokens could not be handed on: %s", type(error).__name__)


class ClientCredentials(_Granted):
    """A token for a program itself, which can always get another one."""

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        audience: str | None = None,
        http_client_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Make one.

        Args:
            token_url: The token endpoint of the OAuth 2 server.
            client_id: The program's name there.
            client_secret: What shows that it is that program.
            scope: What to ask for.
            audience: For whom the token is, where the server wants to be told.
            http_client_args: For the httpx client that asks for tokens, as verify or proxy.

        Raises:
            ImportError: The extra `oauth` is not installed.
        """
        self._endpoint = _endpoint(token_url, client_id, client_secret, http_client_args)
        self._wanted = {"scope": scope, "audience": audience}
        super().__init__()

    def _fetch(self) -> Token:
        granted = self._endpoint.client_credentials(self._wanted)
        return Token(granted.access_token, granted.expires_at)


def _endpoint(
    token_url: str, client_id: str, client_secret: str | None, http_client_args: Mapping[str, Any] | None
) -> "TokenEndpoint":
    # Only here, as most programs need none, and as it takes longer to import than all the rest.
    from heksher_client._auth.oauth import TokenEndpoint

    return TokenEndpoint(token_url, client_id, client_secret, http_client_args)
