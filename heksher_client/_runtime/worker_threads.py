"""Daemon threads: the only module of the clients that starts one.

Nothing waits for such a thread for longer than it wants to. A thread that looks up a host name, waits for a disk, or
runs user code cannot be interrupted, and a daemon thread does not delay the end of the program. So blocking calls are
made in daemon threads, and are abandoned if they take too long.
"""

import _thread
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any, Final, Generic, TypeAlias, TypeVar

from heksher_client._clock import monotonic
from heksher_client._logging import logger
from heksher_client._runtime.simple_queue import SimpleQueue, current_identity
from heksher_client._runtime.wakeup import Flag

T = TypeVar("T")


def start_daemon_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        RuntimeError: The machine has no thread left, or the program is ending.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def start_daemon_thread_elsewhere(
    name: str, target: Callable[[], object], on_error: Callable[[Exception], object]
) -> None:
    """Start a daemon thread where no signal handler interrupts that.

    `Thread.start` waits for the thread, with locks that are not reentrant. Interrupted by Ctrl-C, it may leave a thread
    that hangs. So another thread calls it: the handlers run in the main thread.

    Args:
        name: The name of the thread.
        target: The function to call in it.
        on_error: Called with the error if the thread cannot be started.

    Raises:
        RuntimeError: The machine has no thread left, or the program is ending.
    """

    def start() -> None:  # pragma: no cover - coverage does not follow threads of `_thread`
        try:
            start_daemon_thread(name, target)
        except RuntimeError as error:
            on_error(error)

    _thread.start_new_thread(start, ())


def run_in_daemon_threads(name: str, target: Callable[[], object], count: int = 1) -> int:
    """Run a function in several daemon threads at once, or in the calling thread if not even one can be started.

    Returns:
        The number of threads: at least 1.
    """
    started = 0
    with suppress(RuntimeError):
        for _ in range(count):
            start_daemon_thread(name, target)
            started += 1
    if not started:
        target()
    return max(started, 1)


def holds_shared_lock(*locks: Any) -> bool:
    """Return True if the calling thread holds a lock that other threads need to go on: it must not wait for them.

    That is so in a signal handler that interrupts the thread while it uses one of these locks, logs a record, or starts
    a thread.

    Args:
        *locks: Reentrant locks of the package.
    """
    shared = [*locks, getattr(threading, "_active_limbo_lock", None), getattr(logging, "_lock", None)]
    current: logging.Logger | None = logger.logger
    while current is not None:
        shared += [handler.lock for handler in current.handlers]
        current = current.parent if current.propagate else None
    # Conditions need this method of a reentrant lock, which is not public.
    return any(getattr(lock, "_is_owned", bool)() for lock in shared)


def join(thread: threading.Thread, seconds: float) -> None:
    """Wait for the end of a thread, but not in a signal handler that interrupts the same wait: it holds a lock."""
    pair = current_identity(), thread
    if pair not in _joining:
        try:
            _joining.add(pair)
            thread.join(seconds)
        finally:
            _joining.discard(pair)


def join_all(seconds: float) -> None:
    """Wait until all threads of clients have ended, but at most so many seconds."""
    until = monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith("heksher-client") and thread is not threading.current_thread():
            thread.join(max(0.0, until - monotonic()))


_joining: Final[set[tuple[tuple[int, int], threading.Thread]]] = set()
"""Threads and greenlets, with the threads that they wait for."""


class DetachedCall:
    """Calls of one kind, each in a daemon thread: one at a time, and none while the previous one has not returned."""

    def __init__(self) -> None:
        self._is_running = False
        self._identity: tuple[int, int] | None = None
        """The thread of the call that is running."""

    @property
    def is_current_thread(self) -> bool:
        """True if the calling thread is running such a call."""
        return self._identity == current_identity()

    def start(self, call: Callable[[], Any], on_result: Callable[[Any], None]) -> bool:
        """Start a call.

        Args:
            call: The function to call.
            on_result: Called in the same thread with its result, or with None if it raised.

        Returns:
            False if the previous call has not returned, so that this one was not started.
        """
        if self._is_running:
            return False
        self._is_running = True

        def work() -> None:
            self._identity = current_identity()
            result = None
            try:
                with suppress(SystemExit):  # It would end this thread only.
                    result = call()
            finally:
                self._identity, self._is_running = None, False
                on_result(result)

        run_in_daemon_threads("heksher-client-call", work)
        return True

    def call(self, call: Callable[[], Any], seconds: float) -> Any:
        """Start a call and wait for its result.

        Returns:
            The result, or None if it takes longer than so many seconds, or if the previous call has not returned.
        """
        results: SimpleQueue[Any] = SimpleQueue()
        if not self.start(call, results.put):
            return None
        try:
            return results.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except Empty:
            return None


class Job:
    """A blocking operation in a worker thread. This one has no time limit."""

    def __init__(self, abandoned: Flag) -> None:
        self.abandoned = abandoned
        """Set once no thread waits for the result any more. The operation should check it wherever it can stop."""

    def sleep(self, seconds: float, *, restarts_timer: bool) -> bool:  # noqa: ARG002
        """Sleep in the thread of the operation.

        Args:
            seconds: The seconds to sleep.
            restarts_timer: Whether the operation has its whole time limit again after that, and none until then.

        Returns:
            True if the operation is abandoned.
        """
        return self.abandoned.wait(seconds)


class JobBatch(Job, Generic[T]):
    """Functions that run in worker threads, with a time limit for each job and one for all together."""

    def __init__(
        self,
        jobs: "Sequence[JobFunction[T]]",
        *,
        seconds: float,
        total_seconds: float,
        max_threads: int,
        timed_out: Callable[[], T],
        ended: T,
    ) -> None:
        """Prepare a batch.

        Args:
            jobs: The functions. Each is called with this batch as its argument.
            seconds: The time limit of each job. Once a job exceeds it, the whole batch is abandoned.
            total_seconds: The time limit of all jobs together.
            max_threads: The largest number of threads.
            timed_out: Returns the result of a job that did not return in time.
            ended: The result of a job whose thread ended before it returned, by `SystemExit` for example.
        """
        super().__init__(Flag())
        self._jobs, self._seconds, self._total_seconds = jobs, seconds, total_seconds
        self._max_threads, self._timed_out, self._ended = max_threads, timed_out, ended
        self._waiting = deque(enumerate(jobs))
        self._started_at: dict[threading.Thread, float] = {}
        """The start of the timer of each thread whose timer is running, by the monotonic clock."""
        self._events: SimpleQueue[tuple[int, T] | None] = SimpleQueue()
        """The results as they arrive, and None for each thread that has ended and when the batch is abandoned."""
        self._substitute: T | None = None
        """The result of all jobs that have none, once the batch is abandoned."""

    def run(self) -> tuple[T, ...]:
        """Run all jobs, and return their results in the same order, within the time limits."""
        until = monotonic() + self._total_seconds
        threads = run_in_daemon_threads("heksher-client-request", self._work, min(self._max_threads, len(self._jobs)))
        results: dict[int, T] = {}
        while self._substitute is None and threads and len(results) < len(self._jobs):
            remaining = self._remaining(until)
            if remaining <= 0:
                self.abandon(self._timed_out())
                break
            try:
                event = self._events.get(timeout=remaining)
            except Empty:
                continue
            if event is None:
                threads -= 1
            else:
                results[event[0]] = event[1]
        substitute = self._ended if self._substitute is None else self._substitute
        self.abandon(substitute)
        return tuple(results.get(index, substitute) for index in range(len(self._jobs)))

    def abandon(self, substitute: T) -> None:
        """Stop waiting for results. Can be called from any thread.

        Args:
            substitute: The result of all jobs that have none yet.
        """
        if self._substitute is None:
            self._substitute = substitute
        self.abandoned.set()
        self._events.put(None)

    def sleep(self, seconds: float, *, restarts_timer: bool) -> bool:
        thread = threading.current_thread()
        if restarts_timer:
            del self._started_at[thread]
        is_abandoned = self.abandoned.wait(seconds)
        if restarts_timer:
            self._started_at[thread] = monotonic()
        return is_abandoned

    def hanging_threads(self) -> list[threading.Thread]:
        """Return the threads whose jobs have not returned."""
        return list(self._started_at.copy())

    def _remaining(self, until: float) -> float:
        """Return the seconds until the first time limit is exceeded."""
        now = monotonic()
        first = min(self._started_at.copy().values(), default=now)
        return max(0.0, min(first + self._seconds, until, now + threading.TIMEOUT_MAX) - now)

    def _work(self) -> None:
        thread = threading.current_thread()
        try:
            while not self.abandoned.is_set():
                try:
                    index, job = self._waiting.popleft()
                except IndexError:
                    break
                self._started_at[thread] = monotonic()
                try:
                    result = job(self)
                finally:
                    del self._started_at[thread]  # before the result is visible: a thread with a result does not hang
                self._events.put((index, result))
        except SystemExit:
            pass  # It would end this thread only.
        finally:
            self._events.put(None)


JobFunction: TypeAlias = Callable[[Job], T]


class WorkerThreads(Generic[T]):
    """The batches of one client, and the threads that hang in jobs of abandoned batches."""

    def __init__(self, *, max_threads: int, max_hanging: int, exhausted: T, ended: T) -> None:
        """Prepare for batches.

        Args:
            max_threads: The largest number of threads of a batch.
            max_hanging: The number of hanging threads from which no more threads are started: they would hang as well.
            exhausted: The result of all jobs in that case.
            ended: The result of a job whose thread ended before it returned.
        """
        self.max_threads, self.max_hanging = max_threads, max_hanging
        self._exhausted, self._ended = exhausted, ended
        self._batches: set[JobBatch[T]] = set()
        self._closed: T | None = None
        """The result of all jobs after `close`."""
        self._hanging: list[threading.Thread] = []
        self._reported = 0
        """How many threads were hanging when `has_new_hanging_batch` last returned True."""

    def run(
        self, jobs: Sequence[JobFunction[T]], *, seconds: float, total_seconds: float, timed_out: Callable[[], T]
    ) -> tuple[T, ...]:
        """Run jobs in threads, and return their results in the same order.

        Args:
            jobs: See `JobBatch`, as for the other arguments.
            seconds: The time limit of each job.
            total_seconds: The time limit of all jobs together.
            timed_out: Returns the result of a job that did not return in time.
        """
        if len(self.hanging_threads()) >= self.max_hanging:
            return (self._exhausted,) * len(jobs)
        batch = JobBatch(
            jobs,
            seconds=seconds,
            total_seconds=total_seconds,
            max_threads=self.max_threads,
            timed_out=timed_out,
            ended=self._ended,
        )
        self._batches.add(batch)
        try:
            if self._closed is not None:
                batch.abandon(self._closed)  # `close` may have run before this batch was added
            return batch.run()
        finally:
            self._batches.discard(batch)
            self._hanging += batch.hanging_threads()

    def close(self, closed: T) -> None:
        """Abandon all batches, with this result for all jobs that have none. Can be called from any thread."""
        self._closed = closed
        for batch in self._batches.copy():
            batch.abandon(closed)

    def hanging_threads(self) -> list[threading.Thread]:
        """Return the threads that hang in jobs of abandoned batches."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        return self._hanging

    def has_new_hanging_batch(self) -> bool:
        """Return True if a whole batch of threads hangs in addition to those that did when this was last True.

        The connections of the hanging threads should be closed then, so that they get an error.
        """
        hanging = len(self.hanging_threads())
        self._reported = min(self._reported, hanging)
        if hanging < self._reported + self.max_threads:
            return False
        self._reported = hanging
        return True


class StreamThread(Job):
    """The thread that reads a stream. Closing a connection does not wake it up, shutting the socket down does."""

    def __init__(self, close: Callable[[], None], abandoned: Flag) -> None:
        """Prepare to read streams.

        Args:
            close: Closes the connections, once the thread does not use them any more.
            abandoned: See `Job`.
        """
        super().__init__(abandoned)
        self._close = close
        self._shut_down: Callable[[], None] = _do_nothing
        self._is_running = self._is_ended = False
        self._lock = threading.RLock()  # reentrant, for a signal handler that ends what it interrupts

    def start(self, read: Callable[[], None]) -> None:
        """Start the thread, unless it is running, or was ended, or no thread is left."""
        with self._lock, suppress(RuntimeError):
            if not self._is_running and not self._is_ended:
                start_daemon_thread("heksher-client-changes", lambda: self._run(read))
                self._is_running = True

    def connected(self, shut_down: Callable[[], None]) -> None:
        """Register the function that shuts down the connection that the thread reads from now on."""
        with self._lock:
            self._shut_down = shut_down
        if self._is_ended:
            shut_down()

    def end(self) -> None:
        """Shut the connection down, and close all connections now, or once the thread has ended."""
        with self._lock:
            self._is_ended = True
            self._shut_down()
            if not self._is_running:
                self._close()

    def _run(self, read: Callable[[], None]) -> None:
        try:
            read()
        finally:
            with self._lock:
                self._is_running = False
                self._shut_down = _do_nothing
                if self._is_ended:
                    self._close()


def _do_nothing() -> None:
    pass
