"""The client for threads: it runs the flows in a daemon thread."""

import math
import threading
from functools import partial
from queue import Empty
from typing import Any, Self

import httpx

from heksher_client._core.refresh import effects
from heksher_client._core.refresh.lifecycle import Phase
from heksher_client._core.refresh.options import checked_timeout
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.waiters import reload_timed_out, start_timed_out
from heksher_client._core.settings.snapshot import detach, update_lock
from heksher_client._drivers.client import Client
from heksher_client._drivers.clock import MAX_SLEEP
from heksher_client._drivers.flow_runner import ResultT, run
from heksher_client._drivers.internals import Internals
from heksher_client._drivers.thread_exchange import CLOSED, ENDED, EXHAUSTED, StreamPerformer, ThreadPerformer
from heksher_client._http import exchange
from heksher_client._runtime import fork, gevent_patch, worker_threads
from heksher_client._runtime.simple_queue import SimpleQueue, current_identity, is_patched
from heksher_client._runtime.wakeup import Flag, Wakeup
from heksher_client._runtime.worker_threads import DetachedCall, Job, StreamThread, WorkerThreads
from heksher_client.exceptions import ClientNotRunningError


class ThreadHeksherClient(Client):
    """Keeps all settings up to date in a daemon thread. All methods may be called from any thread.

    As a context manager it is the main client inside the block.
    """

    modification_lock: threading.Lock
    """Held while new rules of settings are applied. While a program holds it, no value changes; so calling `reload` is
    a deadlock then."""

    _raises_at_start = False
    _http_client_class = httpx.Client
    _close_timeout = 0.5
    _thread: threading.Thread | None
    _identity: tuple[int, int]
    """The thread that refreshes, or the greenlet."""
    _starter: tuple[int, int]
    """The thread or greenlet that calls `set_as_main`."""

    def set_as_main(self, *, timeout: float | None = None) -> None:
        """Become the main client: declare all settings, load their rules, and keep them up to date from then on.

        Returns when the first attempt has ended, successful or not: an error is logged, and the refresh is retried.

        Args:
            timeout: The seconds to wait for that. Unlike after `start_timeout`, the client is closed then.

        Raises:
            ServiceTimeoutError: The first attempt has not ended in time.
            ClientNotRunningError: The client is closed, or was closed during this call, or no thread could be started.
            RuntimeError: It is the main client already.
        """
        seconds = checked_timeout(timeout)
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        gevent_patch.watch(self, ThreadHeksherClient._suspend, ThreadHeksherClient._resume)
        try:
            self._starter = current_identity()
            self._session.start(outcome, outcome.put)
            worker_threads.start_daemon_thread_elsewhere(
                "heksher-client", gevent_patch.recorded(self._keep_refreshing), self._session.close
            )
            if not worker_threads.holds_shared_lock(update_lock()):
                _await(outcome, seconds, start_timed_out(seconds))
        except BaseException:  # Ctrl-C, and any exception of a signal handler, included
            if self._session.is_started_by(outcome):
                self.close()
            raise

    def close(self) -> None:
        """Stop refreshing. All settings keep their last values. A signal handler can call this at any time."""
        try:
            self._close()
        except BaseException:  # An interrupt. Each step can be repeated.
            self._close()
            raise

    def reload(self, *, timeout: float | None = None) -> None:
        """Wait for a refresh that begins after this call. The next one is due a full interval later.

        An error of the refresh is logged. In a hook, which the refresh waits for, this only requests another refresh.
        So it does in a signal handler that interrupts `set_as_main`, or code with a lock that the refresh needs.

        Args:
            timeout: The seconds to wait.

        Raises:
            ServiceTimeoutError: The refresh has not ended in time. It goes on.
            ClientNotRunningError: The client was not set as main, or is closed.
        """
        seconds = checked_timeout(timeout)
        if self._is_own_thread():
            self._session.refresh_soon()
            return
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        self._session.add_waiter(outcome.put)
        is_starting = self._session.phase is Phase.STARTING and self._starter == current_identity()
        if not (is_starting or worker_threads.holds_shared_lock(update_lock())):
            late: Exception = reload_timed_out(seconds)
            if gevent_patch.has_unpatched_threads() and self._options.start_timeout < seconds:
                # It may never end in a thread of a patched process.
                seconds, late = self._options.start_timeout, ClientNotRunningError(gevent_patch.PROBLEM)
            _await(outcome, seconds, late)

    def ping(self, *, timeout: float | None = None) -> None:
        """Check that the service is healthy. `timeout` limits the seconds for that, in addition to the options.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not. The error is an `httpx.HTTPError` as well.
            ClientNotRunningError: The client is closed.
        """
        self._run(self._session.within(self._ping(), timeout))

    def get_settings(self, *, timeout: float | None = None) -> dict[str, SettingData]:
        """Request all settings of the service, by name, including those of other programs. `timeout` is as for `ping`.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: The request failed.
            ClientNotRunningError: The client is closed.
        """
        return self._run(self._session.within(self._session.requests.get_settings(), timeout))

    def __enter__(self) -> Self:
        try:
            if not self._session.is_open:  # `connect` has started it
                self.set_as_main()
            return self
        except BaseException:  # Ctrl-C after the start: the block is not entered, and so not left.
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- start and end -------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        super()._set_up()
        self._thread, self._identity, self._starter = None, (0, 0), (0, 0)
        self.modification_lock, self._woken, self._closed = threading.Lock(), Wakeup(), Flag()
        self._workers: WorkerThreads[effects.Reply] = WorkerThreads(
            max_threads=effects.MAX_CONCURRENT_REQUESTS,
            max_hanging=5 * effects.MAX_CONCURRENT_REQUESTS,
            exhausted=EXHAUSTED,
            ended=ENDED,
        )
        self._disk, self._hooks = DetachedCall(), DetachedCall()
        self._stream = StreamThread(self._endpoint.close, self._closed)

    def _close(self) -> None:
        self._session.close()
        self._closed.set()
        self._woken.set()
        self._workers.close(CLOSED)
        self._endpoint.shut_down_connections()
        if self._session.is_run_by(self):  # no thread ran, and none will
            self._endpoint.close()
        elif self._thread is not None and not (
            self._is_own_thread() or worker_threads.holds_shared_lock(update_lock())
        ):
            worker_threads.join(self._thread, self._close_timeout)

    def _is_own_thread(self) -> bool:
        """Return True in a hook or a validator, which the refresh waits for."""
        return self._identity == current_identity() or self._hooks.is_current_thread

    def _wake_up(self) -> None:
        self._woken.set()

    def _restart_in_child(self) -> None:  # in the child of a fork
        gevent_patch.watch(self, ThreadHeksherClient._suspend, ThreadHeksherClient._resume)
        run = gevent_patch.recorded(self._keep_refreshing)
        self._thread = worker_threads.start_daemon_thread("heksher-client", run)

    def _keep_refreshing(self) -> None:
        detach()
        self._thread = threading.current_thread()
        self._identity = current_identity()  # before a hook can run, which must know that this is its own thread
        if not self._session.is_run_by(self._identity):
            return
        try:
            was_patched = is_patched()
            fork.report_problem()
            self._sleep()
            # In the child of a fork in this thread (a hook may fork), another thread takes over.
            while self._session.is_open and not self._session.is_suspended and self._identity == current_identity():
                if is_patched() and not was_patched:
                    was_patched = True
                    self._endpoint.keep_no_connections()
                    gevent_patch.report_problem()
                self._run(self._session.refresh())
                if self._session.wants_to_follow and not fork.is_uwsgi_master():
                    self._stream.start(lambda: self._run(self._session.follow()))
                self._sleep()
        finally:  # also if a hook or a validator ends the thread, by SystemExit for example
            if self._identity == current_identity() and not self._session.is_suspended:
                self._session.close()
                self._stream.end()

    def _sleep(self) -> None:
        """Sleep until a refresh is due."""
        while (seconds := self._session.wait()) > 0:
            self._woken.wait(None if fork.is_uwsgi_master() else min(seconds, MAX_SLEEP))

    # -- before and after gevent patches the program -------------------------------------------------------------------

    def _suspend(self) -> None:
        """End the thread once its refresh has ended."""
        if self._thread is None or self._is_own_thread() or not self._session.is_open:
            return
        self._session.suspend()
        worker_threads.join(self._thread, gevent_patch.SUSPEND_TIMEOUT)
        if self._thread.is_alive():  # It is kept.
            self._session.is_suspended = False
            return
        self._closed.set()
        self._stream.end()
        self._endpoint.shut_down_connections()
        worker_threads.join_all(gevent_patch.SUSPEND_TIMEOUT)
        self._endpoint.close()

    def _resume(self) -> None:
        """Go on in a greenlet, with new locks and connections."""
        if not self._session.is_suspended:
            return
        try:
            self._session.resume()
            self._endpoint.renew_client()
            self._set_up()
            worker_threads.start_daemon_thread_elsewhere("heksher-client", self._keep_refreshing, self._session.close)
        except Exception as error:
            self._session.close(error)
            raise

    def _internals(self) -> Internals:
        return Internals(self._session, self._stream, self._performers)

    # -- effects -------------------------------------------------------------------------------------------------------

    def _run(self, flow: effects.Flow[ResultT]) -> ResultT:
        return run(flow, self._performers)

    def _send(self, effect: effects.Exchange) -> tuple[effects.Reply, ...]:
        limits = effect.limits
        jobs = [partial(self._send_one, request, limits) for request in effect.requests]
        if self._workers.has_new_hanging_batch():
            self._endpoint.drop_connections()
        return self._workers.run(
            jobs,
            seconds=limits.seconds,
            total_seconds=limits.total_seconds,
            timed_out=partial(exchange.timed_out, self._endpoint, limits),
        )

    def _send_one(self, request: effects.Request, limits: effects.Limits, job: Job) -> effects.Reply:
        with ThreadPerformer(self._endpoint, job) as performers:
            return run(exchange.send_request(self._endpoint, self._rate_limit, request, limits), performers)

    def _open_stream(self, effect: effects.OpenStream) -> effects.Reply:
        with StreamPerformer(self._endpoint, self._stream) as performers:
            return run(exchange.open_stream(self._endpoint, self._rate_limit, effect), performers)

    def _run_blocking(self, effect: effects.RunBlocking) -> Any:
        return self._disk.call(effect.call, effect.seconds)

    def _call_user_code(self, effect: effects.CallUserCode) -> Any:
        return self._hooks.call(effect.call, effect.seconds)

    def _apply_locked(self, effect: effects.ApplyLocked) -> None:
        with self.modification_lock:
            effect.apply()

    def _pause(self, effect: effects.Pause) -> None:
        self._closed.wait(effect.seconds)


def internals(client: ThreadHeksherClient) -> Internals:
    """Return the internal interface of a client."""
    return client._internals()  # noqa: SLF001 - private, as it is not for users of the public class


def _await(outcome: SimpleQueue[Exception | None], seconds: float, late: Exception) -> None:
    """Wait for the outcome of a refresh, and raise it if there was no refresh. Errors of a refresh are logged."""
    try:
        error = outcome.get(timeout=None if seconds == math.inf else seconds)
    except Empty:
        raise late from None
    if isinstance(error, ClientNotRunningError):
        raise error
