"""Access tokens and their refresh: one refresh serves all requests that need a token, whichever client sends them.

A token is refreshed in the background shortly before it expires, so that requests seldom wait for one. What happens
after a 401 is decided in `Credential._authenticate`; clients and httpx only perform its steps.
"""

import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from weakref import WeakSet

import httpx
import msgspec

from heksher_client._clock import monotonic
from heksher_client._core.refresh.options import checked_timeout
from heksher_client._core.settings.user_functions import DeferredResultError
from heksher_client._logging import shown_seconds
from heksher_client._resource import Resource
from heksher_client._runtime import fork
from heksher_client._runtime.wakeup import resolve_threadsafe, running_loop
from heksher_client._runtime.worker_threads import run_in_daemon_threads
from heksher_client.exceptions import ConfigError, CredentialError, CredentialTimeoutError

if TYPE_CHECKING:
    import asyncio

_REFRESH_MARGIN: Final = 60.0
"""Seconds before its expiry at which a token is refreshed. Short-lived tokens are refreshed in the last fifth of their
lifetime."""
_RETRY_INTERVAL: Final = 5.0
"""Seconds until a failed refresh in the background is retried, or one after a new token was refused."""
_REFRESH_TIMEOUT: Final = 30.0
"""Seconds after which a refresh is abandoned."""
_VISIBLE_ASCII: Final = re.compile(r"[!-~]+")


class UnsendableTokenError(ValueError):
    """A token that cannot be sent in a header. The message does not contain it."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token."""

    value: str = field(repr=False)
    expires_at: float | None = None
    """Seconds since 1970, or None if the expiry is unknown."""

    def __post_init__(self) -> None:
        if problem := _problem(self.value):
            raise UnsendableTokenError(f"an access token must {problem}")
        expires_at: Any = self.expires_at
        if expires_at is not None and not (isinstance(expires_at, int | float) and expires_at == expires_at):
            raise TypeError("expires_at must be a number of seconds since 1970, or None")


def _problem(value: object) -> str | None:
    """Return what a token that cannot be sent must be, without its text."""
    if not isinstance(value, str):
        hint = ": pass a credential as auth" if isinstance(value, httpx.Auth) else ""
        return f"be a string, not {type(value).__name__}{hint}"
    if not value:
        return "not be empty"
    if value.lower().startswith("bearer "):
        return "not begin with `Bearer`, which requests add to it"
    return None if _VISIBLE_ASCII.fullmatch(value) else "consist of visible ASCII characters, without spaces"


class AwaitToken(msgspec.Struct, frozen=True):
    """The step of an authentication that waits for a refresh. The result of the wait is ignored."""

    refresh: "Future[Token]"
    seconds: float
    """The longest time to wait."""


Authentication: TypeAlias = Generator[AwaitToken | httpx.Request, Any, None]
"""A flow that yields requests to send, and is sent their responses. The response to the last one is the final one."""


class _CachedToken(NamedTuple):
    token: Token
    refresh_at: float
    """Seconds since 1970."""


def _never(token: Token) -> bool:  # noqa: ARG001
    return False


def _is_valid(token: Token) -> bool:
    return token.expires_at is None or time.time() < token.expires_at


def _other_than(former: Token) -> Callable[[Token], bool]:
    return lambda token: token is not former


class Credential(Resource, httpx.Auth):
    """Sends an access token with each request, and refreshes it shortly before it expires, or once the service refuses
    it with status 401."""

    _can_refresh = True
    _lock: threading.Lock
    _pending_refresh: "Future[Token] | None"
    """The refresh that is in progress."""
    _is_awaited: bool
    """True if a caller has waited for that refresh, and does not just go on with the current token."""
    _refresh_started_at: float
    """By the monotonic clock."""
    _failed_at: float
    """The time of the last failed refresh, by the monotonic clock."""
    _refused_at: float
    """The time when the service last refused a token that was new, by the monotonic clock."""

    def __init__(self, token: Token | None = None) -> None:
        """Create a credential, with its first token if there is one."""
        self._cached: _CachedToken | None = None
        self._reset()
        if token is not None:
            self._cache(token)
        _credentials.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._description()}>"

    @property
    def expires_at(self) -> float | None:
        """The expiry of the current token, in seconds since 1970.

        None if it is unknown, or if no token has been requested yet. Reading it requests none.
        """
        cached = self._cached
        return None if cached is None else cached.token.expires_at

    def token(self, *, timeout: float | None = None) -> str:
        """Return a valid access token, for a request that the program sends itself. Blocks if one must be requested.

        Args:
            timeout: Seconds to wait, 30 by default. A refresh in progress goes on after it.

        Raises:
            CredentialError: There is no token.
            CredentialTimeoutError: It did not arrive in time. This is a CredentialError and a TimeoutError.
        """
        self._ensure_blocking_allowed()
        return _run_blocking(self._acquire(checked_timeout(timeout, _REFRESH_TIMEOUT))).value

    async def atoken(self, *, timeout: float | None = None) -> str:
        """Do the same as `token` without blocking the event loop."""
        return (await _run_async(self._acquire(checked_timeout(timeout, _REFRESH_TIMEOUT)))).value

    def force_refresh(self, *, timeout: float | None = None) -> None:
        """Get a new token now. Blocks until it has arrived, or until a refresh that is in progress has ended.

        Args:
            timeout: Seconds to wait, 30 by default. The refresh goes on after it.

        Raises:
            CredentialError: The refresh failed.
            CredentialTimeoutError: It did not end in time. This is a CredentialError and a TimeoutError.
        """
        self._ensure_blocking_allowed()
        _run_blocking(self._new_token(checked_timeout(timeout, _REFRESH_TIMEOUT)))

    async def aforce_refresh(self, *, timeout: float | None = None) -> None:
        """Do the same as `force_refresh` without blocking the event loop."""
        await _run_async(self._new_token(checked_timeout(timeout, _REFRESH_TIMEOUT)))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Implement `httpx.Auth` for synchronous HTTP clients."""
        self._ensure_blocking_allowed()
        with closing(self._authenticate(request)) as steps, suppress(StopIteration):
            step = next(steps)
            while True:
                if isinstance(step, AwaitToken):
                    wait([step.refresh], step.seconds)
                    step = next(steps)
                else:
                    step = steps.send((yield step))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Implement `httpx.Auth` for asynchronous HTTP clients."""
        with closing(self._authenticate(request)) as steps, suppress(StopIteration):
            step = next(steps)
            while True:
                if isinstance(step, AwaitToken):
                    await wait_async(step)
                    step = next(steps)
                else:
                    step = steps.send((yield step))

    def _authenticate(self, request: httpx.Request) -> Authentication:
        """Sign a request, and once more with another token if it is refused with status 401."""
        token = yield from self._acquire()
        response = yield _signed(request, token)
        if self._should_retry(response):
            token = yield from self._result_of(self._start_refresh(_other_than(token)))
            response = yield _signed(request, token)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._refused_at = monotonic()

    def _acquire(self, timeout: float = _REFRESH_TIMEOUT) -> Generator[AwaitToken, Any, Token]:
        """Return a valid token; start and await a refresh if there is none."""
        return self._valid_token() or (yield from self._result_of(self._start_refresh(_is_valid), timeout))

    def _new_token(self, timeout: float) -> Generator[AwaitToken, Any, Token]:
        return (yield from self._result_of(self._start_refresh(), timeout))

    def _should_retry(self, response: httpx.Response) -> bool:
        """Return True if the token was refused and another one may be accepted.

        If all tokens are refused, not every request may cause a refresh.
        """
        is_due = self._can_refresh and monotonic() >= self._refused_at + _RETRY_INTERVAL
        return response.status_code == httpx.codes.UNAUTHORIZED and is_due

    def _fetch(self) -> Token:
        """Get a new token. Called in a thread that may block, and never twice at the same time.

        Raises:
            CredentialError: There is no token.
        """
        raise CredentialError("this token cannot be refreshed: give the client another credential (use_credential)")

    def _on_refreshed(self) -> None:
        """Report a new token to the program, while requests already use it. Called in the thread of `_fetch`."""

    def _description(self) -> str:
        """Return text for the `repr` that identifies the credential and contains no secret."""
        return ""

    def _ensure_blocking_allowed(self) -> None:
        """Raise if a thread cannot wait for a token.

        Raises:
            TypeError: A token must be awaited.
        """

    def _is_abandoned(self) -> bool:
        """Return True if the refresh in progress will not end."""
        return monotonic() >= self._refresh_started_at + _REFRESH_TIMEOUT

    def _valid_token(self) -> Token | None:
        """Return the current token if it is valid. Starts a refresh in the background if that is due."""
        cached, now = self._cached, time.time()
        if cached is None or not _is_valid(cached.token):
            return None
        if now >= cached.refresh_at and monotonic() >= self._failed_at + _RETRY_INTERVAL:
            self._start_refresh(_other_than(cached.token))
        return cached.token

    def _start_refresh(self, is_acceptable: Callable[[Token], bool] = _never) -> "Future[Token]":
        """Return the refresh that is in progress, or start one.

        Args:
            is_acceptable: Tests the current token, which another refresh may just have brought. If it is acceptable, no
                refresh is started, and the result has that token. By default none is.
        """
        with self._lock:
            if self._cached is not None and is_acceptable(self._cached.token):
                done: Future[Token] = Future()
                done.set_result(self._cached.token)
                return done
            if self._pending_refresh is not None and not self._is_abandoned():
                return self._pending_refresh
            refresh: Future[Token] = Future()
            self._pending_refresh, self._is_awaited, self._refresh_started_at = refresh, False, monotonic()
        self._run_refresh(refresh)
        return refresh

    def _run_refresh(self, refresh: "Future[Token]") -> None:
        """Fetch a token in a thread that may block."""
        run_in_daemon_threads("heksher-client-token", partial(self._complete_refresh, refresh, self._fetch))

    def _loop_for(self, refresh: "Future[Token]", otherwise: str) -> "asyncio.AbstractEventLoop":
        """Return the running event loop for a function that is awaited. Without one, the refresh fails.

        Raises:
            RuntimeError: There is none. The message names the alternative.
        """
        try:
            return running_loop(f"{self!r}", otherwise)
        except RuntimeError as error:
            self._fail_refresh(refresh, error)
            raise

    def _complete_refresh(self, refresh: "Future[Token]", fetch: Callable[[], Token]) -> None:
        try:
            token = fetch()
        except BaseException as error:  # User code can raise anything, and no request must wait in vain.
            self._fail_refresh(refresh, error)
            return
        with self._lock:
            self._cache(token)
            self._end_refresh(refresh)
        refresh.set_result(token)
        self._on_refreshed()

    def _fail_refresh(self, refresh: "Future[Token]", error: BaseException) -> None:
        if not isinstance(error, CredentialError):
            # The message could contain a token, or the secret that it is fetched with.
            is_harmless = isinstance(error, UnsendableTokenError | ConfigError | DeferredResultError)
            reason = str(error) if is_harmless else type(error).__name__
            error = CredentialError(f"{self!r}: failed to get an access token ({reason})")
        with self._lock:
            self._failed_at = monotonic()
            self._end_refresh(refresh)
        refresh.set_exception(error)

    def _cache(self, token: Token) -> None:
        now = time.time()
        expires_at = float("inf") if token.expires_at is None else token.expires_at
        self._cached = _CachedToken(token, expires_at - min(_REFRESH_MARGIN, max(expires_at - now, 0.0) / 5))

    def _end_refresh(self, refresh: "Future[Token]") -> None:
        if self._pending_refresh is refresh:
            self._pending_refresh = None

    def _result_of(
        self, refresh: "Future[Token]", seconds: float = _REFRESH_TIMEOUT
    ) -> Generator[AwaitToken, Any, Token]:
        """Await a refresh, and return its token.

        Raises:
            CredentialError: The refresh failed, or takes too long.
        """
        if not refresh.done():
            self._is_awaited = True
            yield AwaitToken(refresh, seconds)
        try:
            return refresh.result(0)
        except CredentialError as error:
            # Each caller needs its own, as each adds a traceback. A time-out of a function stays one.
            kind = CredentialTimeoutError if isinstance(error, CredentialTimeoutError) else CredentialError
            raise kind(*error.args) from None
        except TimeoutError:
            raise CredentialTimeoutError(f"no access token within {shown_seconds(seconds)}") from None

    def _reset(self) -> None:
        """Forget the refresh that is in progress. The child of a fork does not have its thread."""
        self._lock = threading.Lock()
        self._pending_refresh, self._is_awaited = None, False
        self._refresh_started_at = self._failed_at = self._refused_at = float("-inf")


def authenticate(credential: Credential, request: httpx.Request) -> Authentication:
    """Return the flow that sends a request with a token. For the clients, which perform its steps themselves."""
    return credential._authenticate(request)  # noqa: SLF001 - private, as it is not for users of the class


def acquire_token(credential: Credential) -> Generator[AwaitToken, Any, Token]:
    """Return the flow that returns a valid token, and starts and awaits a refresh if there is none.

    Raises:
        CredentialError: The refresh failed, or takes too long.
    """
    return credential._acquire()  # noqa: SLF001 - as in `authenticate`


def is_token_awaited(credential: Credential) -> bool:
    """Return True if a token is being requested that callers wait for."""
    return credential._pending_refresh is not None and credential._is_awaited  # noqa: SLF001 - as in `authenticate`


def ensure_blocking_allowed(credential: Credential) -> None:
    """Raise if a thread cannot wait for the tokens of a credential.

    Raises:
        TypeError: The tokens must be awaited.
    """
    credential._ensure_blocking_allowed()  # noqa: SLF001 - as in `authenticate`


async def wait_async(step: AwaitToken) -> None:
    """Perform a step of an authentication in an event loop."""
    import asyncio  # Any caller has imported it; programs without tasks should not have to.

    loop = running_loop("a request with a credential in a task", "a thread")
    ended: asyncio.Future[None] = loop.create_future()
    # Not `asyncio.wrap_future`: cancelling that would cancel the refresh, which others wait for.
    step.refresh.add_done_callback(lambda _: resolve_threadsafe(ended, None))
    until = monotonic() + step.seconds
    while not ended.done() and (remaining := until - monotonic()) > 0:  # A test can make the time of the loop jump.
        await asyncio.wait([ended], timeout=remaining)


def _signed(request: httpx.Request, token: Token) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.value}"
    return request


def _run_blocking(flow: Generator[AwaitToken, Any, Token]) -> Token:
    try:
        while True:
            step = next(flow)
            wait([step.refresh], step.seconds)
    except StopIteration as done:
        token: Token = done.value
        return token


async def _run_async(flow: Generator[AwaitToken, Any, Token]) -> Token:
    try:
        while True:
            await wait_async(next(flow))
    except StopIteration as done:
        token: Token = done.value
        return token


_credentials: Final[WeakSet[Credential]] = WeakSet()


def _reset_all() -> None:  # in the child of a fork
    for credential in list(_credentials):
        credential._reset()  # noqa: SLF001 - as in `authenticate`


fork.call_in_child(fork.Stage.CREDENTIALS, _reset_all)
