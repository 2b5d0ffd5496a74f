"""Requests sent from threads that nobody has to wait for longer than allowed.

A thread that is looking up a name, or whose server sends a byte now and then, cannot be interrupted. So the thread that
wants the replies sends nothing itself: it waits for others to do so, and leaves those that take too long to themselves.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, TypeVar

from heksher_client._core.refresh.effects import (
    MAX_CONCURRENT_REQUESTS,
    Exchange,
    Limits,
    NoResponse,
    Reply,
    Request,
    timed_out,
)
from heksher_client._http.rate_limit import RateLimit
from heksher_client._runtime.worker_threads import run_in_daemon_threads, start_daemon_thread
from heksher_client.exceptions import ClientNotRunningError

T = TypeVar("T")

Send = Callable[[Request, Limits, Callable[[], bool]], Reply]
"""Sends a request; the last argument tells whether nobody waits any more."""


class ThreadedExchange:
    """The sending of one exchange."""

    def __init__(
        self, exchange: Exchange, get_ready: Callable[[], Reply | None], send: Send, rate_limit: RateLimit
    ) -> None:
        """Prepare it.

        Args:
            exchange: What to send.
            get_ready: Gets what a request is sent with, before its time; gives a reply if that is not to be had.
            send: How.
            rate_limit: Says when each may be sent.
        """
        self._requests, self._limits = exchange.requests, exchange.limits
        self._get_ready, self._send = get_ready, send
        self._rate_limit = rate_limit
        self._is_left = threading.Event()
        self._waiting = deque(enumerate(exchange.requests))
        self._under_way: dict[threading.Thread, float] = {}
        """When the threads that send a request right now have begun with it."""
        self._news: SimpleQueue[tuple[int, Reply] | None] = SimpleQueue()
        """Replies as they come, and None for each thread that has ended, or when all is to be given up."""
        self._left: Reply | None = None
        """The reply to all requests that have none, once nobody waits for them any more."""

    def replies(self) -> tuple[Reply, ...]:
        """Send all requests; wait for their replies, as long as the limits allow."""
        until = monotonic() + self._limits.total_seconds
        count = min(MAX_CONCURRENT_REQUESTS, len(self._requests))
        working = run_in_daemon_threads("heksher-client-request", self._work, count)
        replies: dict[int, Reply] = {}
        while self._left is None and working and len(replies) < len(self._requests):
            patience = self._patience(until)
            if patience <= 0:
                self.give_up(timed_out(self._limits))
                break
            try:
                news = self._news.get(timeout=patience)
            except Empty:
                continue
            if news is None:
                working -= 1
            else:
                replies[news[0]] = news[1]
        left = self._left or _NOT_SENT
        self.give_up(left)
        return tuple(replies.get(index, left) for index in range(len(self._requests)))

    def give_up(self, reply: Reply) -> None:
        """Wait no longer. To be called from any thread."""
        self._left = self._left or reply
        self._is_left.set()
        self._news.put(None)

    def hanging(self) -> list[threading.Thread]:
        """The threads that still send what nobody waits for any more."""
        return list(self._under_way.copy())

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for the replies any more."""
        return self._left is not None

    def _patience(self, until: float) -> float:
        """Seconds until the request that is under way for the longest has taken too long."""
        now = monotonic()
        first = min(self._under_way.copy().values(), default=now)
        return max(0.0, min(first + self._limits.seconds, until, now + threading.TIMEOUT_MAX) - now)

    def _work(self) -> None:
        try:
            while self._left is None:
                index, request = self._waiting.popleft()
                reply = self._timed(self._get_ready) or self._send_in_time(request)
                if reply is None:
                    break
                self._news.put((index, reply))
        except IndexError:
            pass  # none is left
        finally:  # also when an authentication or a transport of the program ends the thread
            self._news.put(None)

    def _send_in_time(self, request: Request) -> Reply | None:
        """Send a request when it may be sent; None if nobody waits for it any more by then."""
        place = self._rate_limit.take()
        if self._is_left.wait(self._rate_limit.wait(place)):
            self._rate_limit.give_back(place)
            return None
        return self._timed(lambda: self._send(request, self._limits, lambda: self.is_given_up))

    def _timed(self, call: Callable[[], T]) -> T:
        """Do what may take as long as a request may."""
        self._under_way[threading.current_thread()] = monotonic()
        try:
            return call()
        finally:
            del self._under_way[threading.current_thread()]


class StreamThread:
    """The thread that reads a stream: it does not notice that its connection is closed, only that it is shut down."""

    def __init__(self, close: Callable[[], None]) -> None:
        """Make one that has no thread yet.

        Args:
            close: Closes what it reads from, when that may be done.
        """
        self._close = close
        self._hang_up: Callable[[], None] = lambda: None
        self._is_running = self._is_ended = False
        self._lock = threading.Lock()

    def begin(self, listen: Callable[[], None]) -> None:
        """Listen in a thread, unless there is one, or it is ended."""
        with self._lock:
            if self._is_running or self._is_ended:
                return
            with suppress(RuntimeError):
                start_daemon_thread("heksher-client-changes", lambda: self._listen(listen))
                self._is_running = True

    def connected(self, hang_up: Callable[[], None]) -> None:
        """Say how the connection is ended that is read from now on."""
        with self._lock:
            self._hang_up = hang_up
        if self._is_ended:
            hang_up()

    def end(self) -> None:
        """End the connection; everything is closed now, or when the thread has noticed."""
        with self._lock:
            self._is_ended = True
            self._hang_up()
            if not self._is_running:
                self._close()

    def _listen(self, listen: Callable[[], None]) -> None:
        try:
            listen()
        finally:
            with self._lock:
                self._is_running = False
                self._hang_up = lambda: None
                if self._is_ended:
                    self._close()


_NOT_SENT: Final = NoResponse(RuntimeError("the thread that was to send it has ended"))
CLOSED: Final = NoResponse(ClientNotRunningError("the client was closed"))
"""The reply to what a closed client does not wait for."""
