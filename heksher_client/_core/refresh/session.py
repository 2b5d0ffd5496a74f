"""One client: it starts and ends, refreshes when the schedule says so, and reports how that went.

A session decides and never waits. A driver asks it how long to wait, runs its flows, and performs their effects.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from itertools import chain
from typing import Final, TypeVar

from msgspec.structs import replace

from heksher_client._core.refresh.backoff import Backoff
from heksher_client._core.refresh.change_stream import STREAM_TIMEOUT, ChangeStream
from heksher_client._core.refresh.effects import Flow, OpenStream, Pause, limited
from heksher_client._core.refresh.health import Health
from heksher_client._core.refresh.hooks import Hooks, Notifier
from heksher_client._core.refresh.last_known_good import LastKnownGoodStore
from heksher_client._core.refresh.lifecycle import Lifecycle, Phase
from heksher_client._core.refresh.options import Environment, Options, checked_timeout
from heksher_client._core.refresh.positions import Positions, monotonic
from heksher_client._core.refresh.publisher import AnyEntry, RefreshResult
from heksher_client._core.refresh.refresher import Refresher
from heksher_client._core.refresh.schedule import Schedule
from heksher_client._core.refresh.service_requests import ServiceRequests
from heksher_client._core.refresh.status import Refresh, State, Status
from heksher_client._core.refresh.waiters import Waiter, Waiters
from heksher_client._core.settings.changes import Changes, subscribe
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry, pending_by_name
from heksher_client._core.settings.registry import Registry
from heksher_client._core.settings.snapshot import update_lock
from heksher_client._logging import logger, text_of
from heksher_client.exceptions import ClientNotRunningError, DeclarationError, HeksherError

T = TypeVar("T")

_MIN_RETRY_TIME: Final = 1.0
"""Seconds that a retry of single settings may take, even if the next refresh is due earlier."""


class Session:
    """A client without its I/O."""

    def __init__(
        self,
        context_features: Iterable[str] | None,
        options: Options,
        *,
        service_url: str,
        hooks: Hooks,
        registry: Registry,
        environment: Environment,
        wake: Callable[[], None],
        store: LastKnownGoodStore | None,
        raises_at_start: bool,
    ) -> None:
        """Create a session that has yet to start.

        Args:
            context_features: The service's context features, in its order; None to use what the service says.
            options: The options of the client.
            service_url: The URL of the service for errors, without user name and password.
            hooks: Called at the end of each refresh.
            registry: The settings, and the main client.
            environment: The clocks, and the random source.
            wake: Lets the driver stop waiting. Called from any thread.
            store: Stores responses, for a start without the service.
            raises_at_start: Whether the driver raises the error of the first refresh, which is not logged then.
        """
        clock, random = environment.clock, environment.random
        self._options, self._registry, self._environment, self._clock = options, registry, environment, clock
        self._wake, self._raises_at_start = wake, raises_at_start
        self._lifecycle = Lifecycle()
        positions = Positions(service_url.rstrip("/"), clock)
        self.requests = ServiceRequests(service_url, options, positions)
        self.service_url = self.requests.service_url
        self.listeners = CallbackRegistry()
        """The receivers of all changes that this client applies."""
        self._refresher = Refresher(
            context_features,
            self,
            registry,
            listeners=self.listeners,
            store=store,
            backoff=Backoff(options.jitter, options.max_backoff),
            clock=clock,
            random=random,
            positions=positions,
        )
        self._tracked: dict[str, set[str]] = {}
        """All tracked values by context feature. Each change is one operation on a dict or set."""
        self._notifier = Notifier(hooks, self.listeners, self._refresher.budget)
        self.refresh_listeners = self._notifier.refresh_listeners
        self._waiters = Waiters()
        self._health = Health(options.stale_after, clock, environment.wall_clock)
        self._schedule = Schedule(
            options.update_interval, jitter=options.jitter, max_backoff=options.max_backoff, clock=clock, random=random
        )
        self._stream = ChangeStream(max_backoff=options.max_backoff, clock=clock, random=random)
        self._refreshes = 0
        self._start_until = math.inf
        self._is_refreshing = False
        self.is_suspended = False
        """True while nothing runs the client, so that another thread can do it."""
        self._has_started = False
        """True from the end of the first refresh, unless the start raises its error. Watches end with the client."""

    # -- calls that never wait; from any thread ------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self._lifecycle.phase

    @property
    def is_open(self) -> bool:
        """True from the start to the end."""
        return self._lifecycle.is_open

    @property
    def is_closed(self) -> bool:
        return self._lifecycle.is_closed

    @property
    def is_main(self) -> bool:
        return self._registry.main is self

    @property
    def state(self) -> State:
        return self._health.state(is_closed=self.is_closed)

    @property
    def context_features(self) -> tuple[str, ...] | None:
        """The context features that the program may use; None without a list, until the service has sent its own."""
        return self._refresher.order.known

    @property
    def defaults(self) -> Mapping[str, str | ContextVar[str]]:
        """The defaults of the context features."""
        return self._refresher.defaults.values

    def set_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        self._refresher.order.check(values)
        self._refresher.defaults.update(values)
        self._registry.defaults_changed(self._refresher.defaults)

    def track_contexts(self, values: Mapping[str, str | Collection[str]]) -> None:
        self._refresher.order.check(values)
        for feature, added in Tracking().with_values(values).options.items():
            self._tracked.setdefault(feature, set()).update(added)
        # Again if another thread, or a signal handler that interrupts this, tracks other values.
        while (
            tracked := {f: frozenset(v) for f, v in self._tracked.copy().items()}
        ) != self._refresher.tracking.options:
            self._refresher.tracking = Tracking(tracked)
        self.refresh_soon()

    def adopt(self, entry: AnyEntry) -> None:
        """Use this client's defaults for the reads of a setting, which keeps its rules until new ones arrive."""
        with update_lock():  # Otherwise another client could publish other rules in between.
            if entry.published.defaults is not self._refresher.defaults:
                entry.publish(PublishedRules(entry.published.rule_set, self._refresher.defaults))

    def refresh_soon(self, within: float = 0.0) -> None:
        """Refresh within some seconds, whatever the interval."""
        self._schedule.request(within)
        if self.is_open:
            self._wake()

    def add_waiter(self, waiter: Waiter) -> None:
        """Refresh at once, and call a function with the outcome of the next refresh to begin.

        Raises:
            ClientNotRunningError: There will be no such refresh.
        """
        if not self.is_open:
            raise ClientNotRunningError("the client is not running: it was not set as main, or it is closed")
        self._waiters.add(waiter)
        self.refresh_soon()
        if not self.is_open:
            self.close()  # Another thread closed it in between, and may not have seen this waiter.

    def changes(self, name: str | None = None) -> Changes:
        """Return an iterator over all changes from now on."""
        return subscribe(self.listeners, name)

    def status(self, problem_of_process: str | None = None) -> Status:
        entries, error = self._registry.entries(), self._health.last_error
        next_attempt = None
        if self.is_open:
            next_attempt = 0.0 if self._is_refreshing else self._schedule.wait_for_refresh()
        return Status(
            state=self.state,
            age=self._health.age,
            last_success=self._health.last_success,
            last_error=error[0] if error else None,
            last_error_at=error[1] if error else None,
            failures=self._health.failures,
            next_attempt=next_attempt,
            is_main=self.is_main,
            last_known_good_problem=self._refresher.last_known_good.problem
            if self._refresher.last_known_good
            else None,
            is_following=self._stream.is_connected,
            change_stream_problem=self._stream.problem,
            is_last_known_good=any(map(self._refresher.states.is_restored, entries)),
            settings={entry.name: self._refresher.states.status(entry, next_attempt) for entry in entries},
            problem=problem_of_process,
            iterators=pending_by_name(chain(self.listeners.queues, *(entry.watched_values or () for entry in entries))),
        )

    def within(self, flow: Flow[T], timeout: float | None) -> Flow[T]:
        """Return the same flow, with a time limit for all of its requests together: the argument of a call.

        Raises:
            TypeError, ValueError: It is not a positive number of seconds.
        """
        until = self._clock() + checked_timeout(timeout)
        waits = "" if self._options.rate_limit is None else ", which includes waits for rate_limit"
        limits = replace(self.requests.limits, total_reason=f"by the argument timeout{waits}")
        return limited(flow, limits, self._clock, until)

    def wait(self) -> float:
        """Return the seconds until there is something to do."""
        return self._schedule.wait() if self.is_open and not self.is_suspended else 0.0

    # -- start and end -------------------------------------------------------------------------------------------------

    def start(self, starter: object = None, waiter: Waiter | None = None) -> None:
        """Become the main client.

        Args:
            starter: Identifies the call that starts the client; see `is_started_by`.
            waiter: Called with the outcome of the first refresh.

        Raises:
            RuntimeError: It is the main client already.
            ClientNotRunningError: It is closed, or was closed during this call.
        """
        self.requests.check_not_closed()
        if not self.is_started_by(starter or object()):
            raise RuntimeError("the client was set as main before")
        self._start_until = self._clock() + self._options.start_timeout
        if waiter is not None:
            self._waiters.add(waiter)
        former = self._registry.activate(self)
        if self.is_closed:  # By another thread, or a signal handler, which may not have seen that it is active.
            self.close()
            self.requests.check_not_closed()
        if isinstance(former, Session):
            logger.warning(
                "another client is the main client now; the former one stops updating settings until that is closed",
                extra={"service_url": self.service_url, "former_service_url": former.service_url},
            )

    def is_started_by(self, starter: object) -> bool:
        """Return True if this call started the client, now or before. If none did, this one does."""
        return self._lifecycle.enter(Phase.STARTING, starter)

    def is_run_by(self, runner: object) -> bool:
        """Return True if this thread or task runs the client, from now on or already: see `Lifecycle.enter`."""
        return self._lifecycle.enter(Phase.RUNNING, runner)

    def close(self, reason: object = "the client was closed before the refresh was done") -> None:
        """Stop being the main client. Settings keep their last values, and the next client adopts them.

        Args:
            reason: The text of the error for callers that wait for a refresh.
        """
        try:
            self._close(reason)
        except BaseException:  # An interrupt. Each step can be repeated.
            self._close(reason)
            raise

    def _close(self, reason: object) -> None:
        self._lifecycle.enter(Phase.CLOSED, self)
        self.requests.close()
        self._registry.deactivate(self, ends_watches=self._has_started)
        self.listeners.close()
        self._waiters.resolve_all(ClientNotRunningError(str(reason)))

    def after_fork(self) -> None:  # in the child of a fork
        """Begin again in the child of a fork, with the values and the state of the parent."""
        self.resume()
        self._waiters.after_fork()
        self._schedule.restart(self._health.age or 0.0)

    def suspend(self) -> None:
        """End the thread that runs the client after the refresh in progress."""
        self.is_suspended = True
        self._wake()

    def resume(self) -> None:
        """Let another thread run the client. The former one has ended."""
        self._lifecycle.after_fork()
        self._is_refreshing = self.is_suspended = False
        self._stream.after_fork()

    # -- refreshes -----------------------------------------------------------------------------------------------------

    def refresh(self) -> Flow[None]:
        """Refresh once, and report the outcome to the log, the hooks and the waiters.

        Or try only the single settings again that failed, if that is due before the next refresh.
        """
        began, result = self._clock(), RefreshResult()
        try:
            if self.is_main and self._schedule.is_retry_next:
                yield from self._retry(result)
            else:
                yield from self._refresh_all(result)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):  # The driver ends, and closes the client.
            raise
        except BaseException as error:  # A defect of this package, or of a part of the program that it calls.
            yield from self._fail(error, began, result)
        finally:
            self._is_refreshing = False
            if self.is_closed:
                self.close()  # It may have missed waiters that this refresh has just begun to serve.

    def _fail(self, error: BaseException, began: float, result: RefreshResult) -> Flow[None]:
        """Count a refresh as failed that ended by an error, whatever it is: the next one is tried as after others.

        What it has published before is reported as in any refresh.
        """
        logger.exception("a refresh failed in an unforeseen way", extra={"error": error})
        failure = HeksherError(f"the refresh failed in an unforeseen way: {type(error).__name__}: {text_of(error)}")
        failure.__cause__ = error
        self._schedule.failed([failure])
        yield from self._report(began, [failure], result, is_logged=True, is_reported=True)
        self._resolve(failure)

    def _refresh_all(self, result: RefreshResult) -> Flow[None]:
        self._is_refreshing = True
        self._schedule.begin()
        is_awaited = self._waiters.begin()
        self._refreshes += 1
        if self.is_main:
            yield from self._refresh(result, is_awaited=is_awaited)
        else:
            # The main client refreshes the settings. When it has closed, this one is woken.
            self._schedule.succeeded()
            self._waiters.resolve(ClientNotRunningError("another client is the main one, so this one updates nothing"))

    def _refresh(self, result: RefreshResult, *, is_awaited: bool) -> Flow[None]:
        began, is_start = self._clock(), self._refreshes == 1
        # During the start there is also a limit for all requests together.
        until = self._start_until if is_start else math.inf
        load = monotonic(self._load(result, is_awaited=is_awaited), self.requests.positions)
        yield from limited(load, self.requests.limits, self._clock, until)
        problems = self.requests.configured(result.failures or result.problems)
        failures = problems if result.failures else []
        is_restored = bool(failures) and (yield from limited(self._restore(result), self.requests.limits, self._clock))
        self._schedule.plan(
            failures if result.is_failed else [],
            is_behind=self._stream.is_behind,
            is_inconsistent=result.is_inconsistent,
            problem=result.order_problem,
            retry=self._refresher.next_retry(),
        )
        is_served = is_restored and not any(isinstance(failure, DeclarationError) for failure in failures)
        error = failures[0] if failures and not (is_start and is_served) else None
        is_logged = error is None or not (self._raises_at_start and is_start)
        is_reported = result.is_failed or is_awaited
        yield from self._report(began, problems, result, is_logged=is_logged, is_reported=is_reported)
        self._resolve(error)

    def _resolve(self, error: Exception | None) -> None:
        """Call the waiters for the refresh that has ended."""
        if self.is_open:  # Otherwise they were called.
            self._has_started |= error is None or not self._raises_at_start
            self._waiters.resolve(error)

    def _retry(self, result: RefreshResult) -> Flow[None]:
        """Try single settings again that failed. It does not affect when the next refresh is due, and ends before."""
        began = self._clock()
        until = max(self._schedule.refresh_due, began + _MIN_RETRY_TIME)
        retry = monotonic(self._refresher.retry(result), self.requests.positions)
        limits = replace(self.requests.limits, total_reason="until the next refresh is due")
        yield from limited(retry, limits, self._clock, until)
        self._schedule.plan_retry(self._refresher.next_retry())
        problems = self.requests.configured(result.failures or result.problems)
        if result.is_recovered:
            yield from self._report(began, problems, result, is_logged=True, is_reported=False)
        elif self.is_open and problems:
            self._health.log(problems)
            yield from self._notifier.call_hook(problems, self._configured_problems(result), is_reported=False)

    def _configured_problems(self, result: RefreshResult) -> list[Exception]:
        return self.requests.configured(result.problems)

    def _report(
        self,
        began: float,
        problems: Sequence[Exception],
        result: RefreshResult,
        *,
        is_logged: bool,
        is_reported: bool,
    ) -> Flow[None]:
        """Report a refresh to callbacks, the status, the log and the hooks."""
        yield from self._notifier.dispatch_changes(result)
        self._health.record_outcome(problems)
        if not self.is_open:
            return  # It was closed in between.
        if is_logged:
            self._health.log(problems)
        seconds = max(0.0, self._clock() - began)
        refresh = Refresh(self._environment.wall_clock() - seconds, seconds, tuple(problems), tuple(result.changed))
        yield from self._notifier.dispatch_refresh(refresh, self._configured_problems(result), is_reported=is_reported)

    def _load(self, result: RefreshResult, *, is_awaited: bool) -> Flow[None]:
        """Refresh from the service."""
        responses = yield from self._refresher.refresh(result, is_awaited=is_awaited, announced=self._stream.announced)
        # Recorded before the responses are saved: the disk may be slow.
        if result.received_at is not None:
            self._health.record_received(result.received_at)
        is_followed = result.is_applied and self._options.follow_changes
        if is_followed:
            names = self._names() if self._stream.has_unknown_changes else frozenset[str]()
            if self._stream.record_position(result.position, names):
                self.refresh_soon()
        if responses is not None:
            yield from self._refresher.save(responses, result)
        # A caller that waits gets it each time, as that of a refused declaration. The settings are up to date.
        if is_awaited and not result.is_failed and (error := self._refresher.order.lacking) is not None:
            result.failures.append(error)

    def _restore(self, result: RefreshResult) -> Flow[bool]:
        """Restore the last known good. Return True if there was any."""
        is_stored = yield from self._refresher.restore(result, is_age_known=self._health.age is not None)
        if result.restored_age is not None:
            self._health.record_restored(result.restored_age, is_new=result.is_restored)
        return is_stored

    # -- the stream of changes -----------------------------------------------------------------------------------------

    @property
    def wants_to_follow(self) -> bool:
        """True if there is a stream of changes to follow."""
        return self._options.follow_changes and self._stream.is_offered and self.is_main and not self.is_suspended

    def follow(self) -> Flow[None]:
        """Follow the stream of changes, as long as there is one."""
        while self.wants_to_follow:
            reply = yield OpenStream(self._stream.open(), self._receive, STREAM_TIMEOUT)
            seconds = self._stream.close(reply, is_expected=not self.is_main)
            if self.is_main:
                yield Pause(seconds)

    def _receive(self, chunk: bytes) -> bool:
        """Process some bytes of the stream. Return True to go on."""
        within = self._stream.feed(chunk, self._names())
        if within is not None:
            self.refresh_soon(within)
        return self.wants_to_follow

    def _names(self) -> frozenset[str]:
        return self._refresher.states.names(self._registry.entries())
