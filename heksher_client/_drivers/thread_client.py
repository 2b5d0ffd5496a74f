"""The client for threads: flows run in a daemon thread, which sends, waits and locks."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from heksher_client._auth.token_refresh import Credential
from heksher_client._core.refresh.effects import (
    MAX_CONCURRENT_REQUESTS,
    ApplyLocked,
    CallUserCode,
    Effect,
    Exchange,
    Flow,
    Limits,
    NoResponse,
    OpenStream,
    Pause,
    Reply,
    Request,
    RunBlocking,
)
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.settings.snapshot import detach
from heksher_client._drivers.client import LONGEST_SLEEP, Client
from heksher_client._drivers.threaded_exchange import CLOSED, StreamThread, ThreadedExchange
from heksher_client._http.body import (
    Body,
    StreamBody,
    Trace,
    as_http_error,
    hang_up,
    no_response,
    redirected,
)
from heksher_client._runtime.worker_threads import DetachedCall, start_daemon_thread
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
    _make_http = httpx.Client
    _close_within = 0.5
    """Seconds."""
    _thread: threading.Thread | None = None

    def set_as_main(self) -> None:
        """Become the main client: declare all settings, load their rules, and keep them up to date from then on.

        Returns when the first attempt is over, successful or not: an error is logged, and tried again soon.

        Raises:
            ClientNotRunningError: The client is closed, or was closed meanwhile.
            RuntimeError: It is the main client already, or no thread could be started.
        """
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        with self._starting:
            self._session.start()
            self._session.add_waiter(outcome.put)  # before the thread starts: it waits for the first refresh
            try:
                self._thread = start_daemon_thread("heksher-client", self._keep_updating)
            except RuntimeError:
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
        for sending in self._sendings.copy():
            sending.give_up(CLOSED)
        if self._thread is None:
            self._close_http()
        elif not self._is_own_thread():
            self._thread.join(self._close_within)

    def reload(self) -> None:
        """Wait for a refresh that begins after this call. The next one is due a full interval later.

        An error of the refresh is logged. Called in a hook, where waiting would be for ever, it only asks for the
        refresh.

        Raises:
            ClientNotRunningError: The client was not set as main, or is closed.
        """
        if self._is_own_thread():
            self._session.refresh_soon()
            return
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        self._session.add_waiter(outcome.put)
        _raise_if_closed(outcome.get())

    def ping(self) -> None:
        """Ask the service whether it is well.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not; either is an `httpx.HTTPError` too.
            ClientNotRunningError: The client is closed.
        """
        try:
            self._run(self._session.requests.ping())
        except HeksherError as error:
            raise as_http_error(error) from error.__cause__

    def get_settings(self) -> dict[str, SettingData]:
        """Ask for all settings of the service, by name, whoever declared them.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It did not say.
            ClientNotRunningError: The client is closed.
        """
        return self._run(self._session.requests.get_settings())

    def __enter__(self) -> Self:
        if not self._session.is_open:  # `connect` has started it
            self.set_as_main()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _set_up(self) -> None:
        super()._set_up()
        self.modification_lock = threading.Lock()
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._sendings: set[ThreadedExchange] = set()
        self._left_alone: list[threading.Thread] = []
        """Threads that still send what was given up."""
        self._renewed_at = 0
        """How many there were when connections were last closed under them; the others wait for something else."""
        self._disk, self._hooks = DetachedCall(), DetachedCall()
        self._listening = StreamThread(self._close_http)

    def _is_own_thread(self) -> bool:
        """Whether the caller is a hook, or a validator, which the refreshes wait for."""
        return self._thread is threading.current_thread() or self._hooks.is_current_thread

    def _wake_up(self) -> None:
        self._woken.set()

    def _set_up_again(self) -> None:  # in the child of a fork
        was_main = self._session.is_open
        self._route.renew()
        self._set_up()
        if was_main:
            self._thread = start_daemon_thread("heksher-client", self._keep_updating_in_child)

    def _keep_updating_in_child(self) -> None:  # in the child of a fork
        self._thread = threading.current_thread()
        self._sleep()
        self._keep_updating()

    def _keep_updating(self) -> None:
        detach()
        self._thread = threading.current_thread()  # before a hook can run, which must know that this is its own thread
        try:
            # In the child of a fork out of this very thread (a hook can do that) another thread goes on.
            while self._session.is_open and self._thread is threading.current_thread():
                self._run(self._session.refresh())
                if self._session.wants_to_follow:
                    self._listening.begin(lambda: self._run(self._session.follow()))
                self._sleep()
        finally:  # also when a hook or a validator ends the thread, by SystemExit say: nobody waits for it in vain
            if self._thread is threading.current_thread():  # pragma: no branch - only there
                self._session.close()
                self._listening.end()

    def _sleep(self) -> None:
        """Until there is something to do."""
        while (seconds := self._session.wait()) > 0:
            self._woken.wait(min(seconds, LONGEST_SLEEP))
            self._woken.clear()

    def _run(self, flow: Flow[T]) -> T:
        with closing(flow):
            try:
                step = next(flow)
                while True:
                    step = flow.send(self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    def _take(self, step: Effect) -> Any:
        match step:
            case Exchange():
                return self._send_all(step)
            case RunBlocking():
                return self._disk.call(step.call, step.seconds)
            case CallUserCode():
                return self._hooks.call(step.call, step.seconds)
            case ApplyLocked():
                with self.modification_lock:
                    step.apply()
            case OpenStream():
                return self._listen(step)
            case Pause():  # pragma: no branch - there are no others
                self._closed.wait(step.seconds)
        return None

    def _send_all(self, exchange: Exchange) -> tuple[Reply, ...]:
        self._left_alone = [thread for thread in self._left_alone if thread.is_alive()]
        if len(self._left_alone) >= _MOST_LEFT_ALONE:
            return (_TOO_MANY_LEFT_ALONE,) * len(exchange.requests)
        are_more = len(self._left_alone) >= self._renewed_at + MAX_CONCURRENT_REQUESTS
        self._renewed_at = min(self._renewed_at, len(self._left_alone))
        if are_more and self._route.can_be_renewed:
            # Those that wait for a server get an error from the connection that is closed under them.
            self._renewed_at = len(self._left_alone)
            with suppress(Exception):  # There may be no file descriptor for the certificates: then another time.
                self._route.renew().close()
        sending = ThreadedExchange(exchange, self._get_ready, self._send, self._rate_limit)
        self._sendings.add(sending)
        try:
            if self._closed.is_set():
                sending.give_up(CLOSED)  # `close` may not have seen it
            return sending.replies()
        finally:
            self._sendings.discard(sending)
            self._left_alone += sending.hanging()

    def _get_ready(self) -> NoResponse | None:
        """Wait until there is something to show that we may ask, before the time of a request comes."""
        try:
            if isinstance(auth := self._route.auth, Credential):
                auth.get_ready()
        except Exception as error:  # It is the program's, and may raise anything.
            return no_response(error)
        return None

    def _send(self, request: Request, limits: Limits, is_given_up: Callable[[], bool]) -> Reply:
        try:
            following: httpx.Request | None = self._route.request(request, limits.seconds)
            while following is not None:
                reply, following = self._receive(
                    following, lambda response: Body(response, limits.max_bytes), is_given_up
                )
                if following is not None:
                    self._wait_for_rate(is_given_up)
        except Exception as error:
            # Authentication, transports and event hooks are the program's, and may raise anything.
            return no_response(error)
        return reply

    def _listen(self, step: OpenStream) -> Reply:
        def body_of(response: httpx.Response) -> Body:
            self._listening.connected(lambda: hang_up(response))
            return StreamBody(response, step.take)

        try:
            self._wait_for_rate()
            request = self._route.stream(step)
            reply, _ = self._receive(request, body_of, self._closed.is_set)
        except Exception as error:  # As above.
            return no_response(error)
        return reply

    def _receive(
        self, request: httpx.Request, body_of: Callable[[httpx.Response], Body], is_given_up: Callable[[], bool]
    ) -> tuple[Reply, httpx.Request | None]:
        """The reply to a request, and the request that it asks for instead."""
        response = self._open(request, is_given_up)
        try:
            body = body_of(response)
            if not body.is_read:
                for chunk in response.iter_raw():
                    if is_given_up() or not body.add(chunk):
                        break
            return body.reply(), redirected(request, response)
        finally:
            response.close()

    def _wait_for_rate(self, is_given_up: Callable[[], bool] = bool) -> None:
        """Until the next request may be sent, or nobody waits for it any more.

        Raises:
            ClientNotRunningError: Nobody does.
        """
        place = self._rate_limit.take()
        if self._closed.wait(self._rate_limit.wait(place)) or is_given_up():
            self._rate_limit.give_back(place)
            raise ClientNotRunningError("nobody waits for it any more")

    def _open(self, request: httpx.Request, is_given_up: Callable[[], bool]) -> httpx.Response:
        """The head of the response to a request, sent with what shows that we may ask."""
        auth = self._route.auth
        if not isinstance(auth, Credential):
            return self._reach(request, auth, is_given_up)
        with closing(auth.sync_auth_flow(request)) as flow:
            response = self._reach(next(flow), auth, is_given_up)
            if not auth.is_refused(response):
                return response
            response.close()  # before waiting for another token: others may need the connection
            signed_anew = flow.send(response)
            self._wait_for_rate(is_given_up)
            response = self._reach(signed_anew, auth, is_given_up)
            auth.note_answer_to_another(response)
            return response

    def _reach(self, request: httpx.Request, auth: Any, is_given_up: Callable[[], bool]) -> httpx.Response:
        """Send a request; once more if its connection turns out to have been closed while it was idle."""
        trace = Trace()
        request.extensions["trace"] = trace.note
        arguments = {"stream": True, "follow_redirects": False, **self._route.auth_arguments(auth)}
        try:
            response: httpx.Response = self._route.client.send(request, **arguments)
        except Exception as error:
            if not trace.is_stale(error):
                raise
            self._wait_for_rate(is_given_up)
            response = self._route.client.send(request, **arguments)
        return response

    def _close_http(self) -> None:
        if self._route.is_ours:
            self._route.client.close()


_MOST_LEFT_ALONE: Final = 5 * MAX_CONCURRENT_REQUESTS
"""Threads that still wait for what nobody else waits for: more of them would only hang in the same way."""
_TOO_MANY_LEFT_ALONE: Final = NoResponse(TimeoutError("too many former requests still hang"), is_networks=True)


def _raise_if_closed(outcome: Exception | None) -> None:
    """Of the outcomes of a refresh, only that there was none is an error of the call that waited for it."""
    if isinstance(outcome, ClientNotRunningError):
        raise outcome
