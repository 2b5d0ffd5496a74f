"""The client for threads: flows run in a daemon thread, which sends, waits and locks."""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from heksher_client._client import Client
from heksher_client._core.protocol import (
    AT_ONCE,
    Exchange,
    Flow,
    Install,
    NoResponse,
    Reply,
    Request,
    SettingData,
    Step,
)
from heksher_client._transport import as_http_error, from_httpx, no_response, to_httpx
from heksher_client.exceptions import ClientNotRunningError, HeksherError

T = TypeVar("T")


class ThreadHeksherClient(Client):
    """Keeps all settings up to date in a daemon thread. All methods may be called from any thread.

    As a context manager it is the main client inside the block.
    """

    modification_lock: threading.Lock
    """Held while settings get new rules. Acquire it, and no value changes until it is released; so calling `reload`
    meanwhile is a deadlock."""

    _raises_at_start = False
    _close_within = 0.5
    """Seconds. A request that takes longer is left to end by itself, and what it brings is not used."""
    _thread: threading.Thread | None = None

    def set_as_main(self) -> None:
        """Become the main client: declare all settings, load their rules, and keep them up to date from then on.

        Returns when the first attempt is over, successful or not: an error is logged, and tried again soon.

        Raises:
            ClientNotRunningError: The client is closed, or was closed meanwhile.
            RuntimeError: It is the main client already, or no thread could be started.
        """
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        thread = threading.Thread(target=self._keep_updating, name="heksher-client", daemon=True)
        with self._starting:
            self._session.start()
            self._session.call_back(outcome.put)  # before the thread starts, so that its first refresh is the one meant
            self._thread = thread  # before it starts as well: what a hook calls first must know it for its own thread
            try:
                thread.start()
            except RuntimeError:  # the machine has no thread left to give
                self._thread = None
                self._session.close()
                raise
        try:
            _raise_if_closed(outcome.get())
        except BaseException:  # Ctrl-C included
            self.close()
            raise

    def close(self) -> None:
        """Stop updating. All settings keep their last values."""
        with self._starting:
            self._session.close()
        self._closed.set()
        self._woken.set()
        if self._thread is None:
            self._http.close()
        elif self._thread is not threading.current_thread():
            self._thread.join(self._close_within)

    def reload(self) -> None:
        """Wait for a refresh that begins after this call. The next one is due a full interval later.

        An error of the refresh is logged. Called in a hook, where waiting would be for ever, it only asks for the
        refresh.

        Raises:
            ClientNotRunningError: The client was not set as main, or is closed.
        """
        if self._thread is threading.current_thread():
            self._session.refresh_soon()
            return
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        self._session.call_back(outcome.put)
        _raise_if_closed(outcome.get())

    def ping(self) -> None:
        """Ask the service whether it is well.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not; either is an `httpx.HTTPError` too.
            ClientNotRunningError: The client is closed.
        """
        try:
            self._run(self._session.ping())
        except HeksherError as error:
            raise as_http_error(error) from error.__cause__

    def get_settings(self) -> dict[str, SettingData]:
        """Ask for all settings of the service, by name, whoever declared them.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It did not say.
            ClientNotRunningError: The client is closed.
        """
        return self._run(self._session.get_settings())

    def __enter__(self) -> Self:
        self.set_as_main()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _set_up(self, http_arguments: dict[str, Any]) -> None:
        self.modification_lock = threading.Lock()
        self._http = httpx.Client(**http_arguments)
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.Lock()

    def _wake_up(self) -> None:
        self._woken.set()

    def _keep_updating(self) -> None:
        try:
            while self._session.is_open:
                self._run(self._session.round())
                while (seconds := self._session.wait()) > 0:
                    self._woken.wait(min(seconds, threading.TIMEOUT_MAX))
                    self._woken.clear()
        finally:  # also when a hook or a validator ends the thread, by SystemExit say: nobody waits for it in vain
            self._session.close()
            self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        with closing(flow):
            try:
                step = next(flow)
                while True:
                    step = flow.send(self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    def _take(self, step: Step) -> tuple[Reply, ...]:
        if isinstance(step, Exchange):
            return self._send_all(step.requests)
        if isinstance(step, Install):
            with self.modification_lock:
                step.apply()
        else:
            self._closed.wait(step.seconds)
        return ()

    def _send_all(self, requests: Sequence[Request]) -> tuple[Reply, ...]:
        replies: dict[int, Reply] = {}
        waiting = deque(enumerate(requests))

        def send() -> None:
            with suppress(IndexError):  # none is left
                while True:
                    index, request = waiting.popleft()
                    replies[index] = self._send(request)

        # This thread is one of them. The others are daemons too, so that none of them delays the program's end.
        helpers = [
            threading.Thread(target=send, name="heksher-client-request", daemon=True) for _ in requests[1:AT_ONCE]
        ]
        started: list[threading.Thread] = []
        with suppress(RuntimeError):  # The machine has no thread left to give, or the program is ending.
            for helper in helpers:
                helper.start()
                started.append(helper)
        send()
        for helper in started:
            helper.join()
        return tuple(replies.get(index, _NOT_SENT) for index in range(len(requests)))

    def _send(self, request: Request) -> Reply:
        if self._closed.is_set():
            return NoResponse(ClientNotRunningError("the client was closed"))
        try:
            return from_httpx(self._http.send(to_httpx(self._http, request)))
        except Exception as error:
            # Authentication, transports and event hooks are the program's, and may raise anything.
            return no_response(error)


_NOT_SENT: Final = NoResponse(RuntimeError("the thread that was to send it has ended"))
"""For what an authentication or a transport of the program does to end its thread, SystemExit say."""


def _raise_if_closed(outcome: Exception | None) -> None:
    """Of the outcomes of a refresh, only that there was none is an error of the call that waited for it."""
    if isinstance(outcome, ClientNotRunningError):
        raise outcome
