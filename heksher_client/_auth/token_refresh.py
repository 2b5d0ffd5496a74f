"""Getting another token in time: once for all who need one, beside them while the old one still serves."""

import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from weakref import WeakSet

import httpx

from heksher_client._runtime import fork
from heksher_client._runtime.worker_threads import run_in_daemon_threads
from heksher_client.exceptions import CredentialError

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
        self._token()

    async def aget_ready(self) -> None:
        """Do what `get_ready` does, and let the event loop go on meanwhile.

        Raises:
            CredentialError: There is none to be had.
        """
        await self._atoken()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """What httpx calls: sign a request, and once more if it is refused."""
        self.check_may_block()
        token = self._token()
        response = yield _signed(request, token)
        if self.is_refused(response):
            response = yield _signed(request, self._result_of(self._renewal(_other_than(token))))
            self.note_answer_to_another(response)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """What httpx calls: sign a request, and once more if it is refused."""
        token = await self._atoken()
        response = yield _signed(request, token)
        if self.is_refused(response):
            response = yield _signed(request, await self._aresult_of(self._renewal(_other_than(token))))
            self.note_answer_to_another(response)

    def _token(self) -> Token:
        return self._at_hand() or self._result_of(self._renewal(_serves))

    async def _atoken(self) -> Token:
        return self._at_hand() or await self._aresult_of(self._renewal(_serves))

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
        run_in_daemon_threads("heksher-client-token", lambda: self._renew(renewal, self._fetch))

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


def _signed(request: httpx.Request, token: Token) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token.value}"
    return request


def _too_late() -> CredentialError:
    return CredentialError(f"no access token could be had within {_PATIENCE:g} seconds")


_credentials: Final[WeakSet[Credential]] = WeakSet()


def _go_on_after_fork() -> None:  # in the child of a fork
    for credential in list(_credentials):
        credential._begin_anew()


fork.call_in_child(fork.Stage.CREDENTIALS, _go_on_after_fork)
