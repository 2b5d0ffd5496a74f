"""What shows a service, or the gateway before it, that a program may ask: access tokens, renewed as they end.

Give one to a client as `auth`, in `http_client_args["auth"]`, or to `client.use_credential` while it runs:

    auth = ClientCredentials("https://login.example.com/token", client_id="shop", client_secret=secret)
    client = ThreadHeksherClient(url, 60, ["user"], auth=auth)

Each is an `httpx.Auth` too. One object may serve any number of clients, tasks and threads: however many of them need a
new token, it is asked for once. Ahead of its end that happens beside them, while the old one still serves.

`RefreshableToken` and `ClientCredentials` need the extra `oauth`.
"""

import inspect
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from weakref import WeakSet

import httpx

from heksher_client._core.logs import logger
from heksher_client.exceptions import CredentialError

if TYPE_CHECKING:
    import asyncio

    from heksher_client._oauth import TokenEndpoint

__all__ = ["ClientCredentials", "Credential", "RefreshableToken", "StaticToken", "Token", "TokenFrom", "Tokens"]

_AHEAD: Final = 60.0
"""Seconds before its end at which a token is renewed; for short-lived ones, a fifth of what they have left."""
_BETWEEN_ATTEMPTS: Final = 5.0
"""Seconds until a renewal ahead of the end is tried again that has failed."""
_PATIENCE: Final = 30.0
"""Seconds after which nobody waits any more for a renewal that does not end."""
_VISIBLE: Final = re.compile(r"[!-~]+")


class UnsendableTokenError(ValueError):
    """A token that no header can hold. Its words do not hold it either."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token."""

    value: str = field(repr=False)
    expires_at: float | None = None
    """Seconds since 1970; None if nobody knows."""

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not _VISIBLE.fullmatch(self.value):
            raise UnsendableTokenError("an access token is made of visible ASCII characters, without spaces")


class Tokens(NamedTuple):
    """What a refresh has brought, for a program that keeps it."""

    access_token: str
    refresh_token: str
    expires_at: float | None
    """Seconds since 1970, of the access token."""

    def __repr__(self) -> str:
        return f"Tokens(expires_at={self.expires_at!r})"


class _Held(NamedTuple):
    token: Token
    renew_at: float
    """Seconds since 1970."""


def _nothing(token: Token) -> bool:  # noqa: ARG001
    return False


def _serves(token: Token) -> bool:
    return token.expires_at is None or time.time() < token.expires_at


def _other_than(former: Token) -> Callable[[Token], bool]:
    return lambda token: token is not former


class Credential(httpx.Auth):
    """Sends an access token with each request, and gets another one when it is time: shortly before the end, or when
    the service refuses it with 401, once."""

    _can_be_renewed = True
    _lock: threading.Lock
    _pending: "Future[Token] | None"
    """The renewal that is under way."""
    _pending_since: float
    """By the monotonic clock."""
    _failed_at: float
    """When a renewal last failed, in seconds since 1970."""
    _in_vain_at: float
    """When a token was last refused that a refusal had brought."""

    def __init__(self, token: Token | None = None) -> None:
        """Begin with a token, or with none as yet."""
        self._held: _Held | None = None
        self._begin_anew()
        if token is not None:
            self._hold(token)
        _credentials.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._described()}>"

    def force_refresh(self) -> None:
        """Get a new token now, and wait for it; shared with all who wait for one already. Blocks.

        Raises:
            CredentialError: There is none to be had.
        """
        self.check_may_block()
        self._result_of(self._renewal())

    async def aforce_refresh(self) -> None:
        """Do what `force_refresh` does, and let the event loop go on meanwhile.

        Raises:
            CredentialError: There is none to be had.
        """
        await self._aresult_of(self._renewal())

    def get_ready(self) -> None:
        """Wait until there is a token to send. Blocks.

        Raises:
            CredentialError: There is none to be had.
        """
        self.check_may_block()
        if self._at_hand() is None:
            self._result_of(self._renewal(_serves))

    async def aget_ready(self) -> None:
        """Do what `get_ready` does, and let the event loop go on meanwhile.

        Raises:
            CredentialError: There is none to be had.
        """
        if self._at_hand() is None:
            await self._aresult_of(self._renewal(_serves))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """What httpx calls: sign a request, and once more if it is refused."""
        self.check_may_block()
        token = self._at_hand() or self._result_of(self._renewal(_serves))
        response = yield _signed(request, token)
        if self.is_refused(response):
            response = yield _signed(request, self._result_of(self._renewal(_other_than(token))))
            self.note_answer_to_another(response)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """What httpx calls: sign a request, and once more if it is refused."""
        token = self._at_hand() or await self._aresult_of(self._renewal(_serves))
        response = yield _signed(request, token)
        if self.is_refused(response):
            response = yield _signed(request, await self._aresult_of(self._renewal(_other_than(token))))
            self.note_answer_to_another(response)

    def is_refused(self, response: httpx.Response) -> bool:
        """Whether a response asks for another token than the one that was sent, and there may be one that serves."""
        is_time = self._can_be_renewed and time.time() >= self._in_vain_at + _BETWEEN_ATTEMPTS
        return response.status_code == httpx.codes.UNAUTHORIZED and is_time

    def note_answer_to_another(self, response: httpx.Response) -> None:
        """Note what another token has come to. While all are refused, not each request is to cost one."""
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._in_vain_at = time.time()

    def _fetch(self) -> Token:
        """Get a new token. Called in a thread that may be blocked, and by one at a time.

        Raises:
            CredentialError: There is none to be had.
        """
        raise CredentialError("this token cannot be renewed: give the client another one (use_credential)")

    def _hand_on(self) -> None:
        """Tell others of a new token, which serves already. Called in the thread that has got it."""

    def _described(self) -> str:
        """What tells it from others, and is no secret."""
        return ""

    def check_may_block(self) -> None:
        """Refuse to be waited for by a thread, if that is of no use.

        Raises:
            TypeError: It has to be awaited.
        """

    def _is_lost(self) -> bool:
        """Whether the renewal that is under way will not end."""
        return time.monotonic() >= self._pending_since + _PATIENCE

    def _at_hand(self) -> Token | None:
        """The token that can be sent now. Its renewal is begun, beside, if it is time for that."""
        held, now = self._held, time.time()
        if held is None or not _serves(held.token):
            return None
        if now >= held.renew_at and now >= self._failed_at + _BETWEEN_ATTEMPTS:
            self._renewal(_other_than(held.token))
        return held.token

    def _renewal(self, is_wanted: Callable[[Token], bool] = _nothing) -> "Future[Token]":
        """The renewal that is under way, or one that begins now; or its result, if that has come already.

        Args:
            is_wanted: Whether a token is one that the caller would take, if another renewal has brought it meanwhile;
                none is, unless given.
        """
        with self._lock:
            if self._held is not None and is_wanted(self._held.token):
                done: Future[Token] = Future()
                done.set_result(self._held.token)
                return done
            if self._pending is not None and not self._is_lost():
                return self._pending
            renewal: Future[Token] = Future()
            renewal.set_running_or_notify_cancel()  # so that a task that is cancelled does not cancel it for all
            self._pending, self._pending_since = renewal, time.monotonic()
        self._begin(renewal)
        return renewal

    def _begin(self, renewal: "Future[Token]") -> None:
        """Have a token fetched where waiting keeps nobody from running."""
        thread = threading.Thread(
            target=self._renew, args=[renewal, self._fetch], name="heksher-client-token", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # The machine has no thread left to give.
            self._renew(renewal, self._fetch)

    def _renew(self, renewal: "Future[Token]", fetch: Callable[[], Token]) -> None:
        try:
            token = fetch()
        except BaseException as error:  # The program's own code may raise anything; nobody is to wait in vain.
            self._failed(renewal, error)
            return
        with self._lock:
            self._hold(token)
            self._forget(renewal)
        renewal.set_result(token)
        self._hand_on()

    def _failed(self, renewal: "Future[Token]", error: BaseException) -> None:
        if not isinstance(error, CredentialError):
            # Its words may hold the token, or whatever it is got by.
            why = str(error) if isinstance(error, UnsendableTokenError) else type(error).__name__
            error = CredentialError(f"{self!r}: no access token could be had ({why})")
        with self._lock:
            self._failed_at = time.time()
            self._forget(renewal)
        renewal.set_exception(error)

    def _hold(self, token: Token) -> None:
        now = time.time()
        end = float("inf") if token.expires_at is None else token.expires_at
        self._held = _Held(token, end - min(_AHEAD, max(end - now, 0.0) / 5))

    def _forget(self, renewal: "Future[Token]") -> None:
        if self._pending is renewal:
            self._pending = None

    @staticmethod
    def _result_of(renewal: "Future[Token]") -> Token:
        try:
            return renewal.result(_PATIENCE)
        except CredentialError as error:
            raise CredentialError(*error.args) from None  # One for each caller, as each adds its own traceback.
        except TimeoutError:
            raise _too_late() from None

    @staticmethod
    async def _aresult_of(renewal: "Future[Token]") -> Token:
        import asyncio  # whoever awaits this has it; a program without tasks need not wait for its import

        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.wrap_future(renewal)
        except CredentialError as error:
            raise CredentialError(*error.args) from None
        except TimeoutError:
            raise _too_late() from None

    def _begin_anew(self) -> None:
        """Forget a renewal that is under way. In the child of a fork it is not."""
        self._lock = threading.Lock()
        self._pending = None
        self._pending_since = self._failed_at = self._in_vain_at = float("-inf")


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
    from heksher_client._oauth import TokenEndpoint

    return TokenEndpoint(token_url, client_id, client_secret, http_client_args)


def _signed(request: httpx.Request, token: Token) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.value}"
    return request


def _too_late() -> CredentialError:
    return CredentialError(f"no access token could be had within {_PATIENCE:g} seconds")


_credentials: Final[WeakSet[Credential]] = WeakSet()


def _go_on_after_fork() -> None:  # in the child of a fork
    for credential in list(_credentials):
        credential._begin_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    os.register_at_fork(after_in_child=_go_on_after_fork)
