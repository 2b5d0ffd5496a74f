"""One client's state and policy: who is the main client, when it refreshes, who waits for it, what is said of it."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Final, TypeVar

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.change_stream import ChangeStream
from heksher_client._core.refresh.effects import Flow, Limits, NoResponse, Reply, Request, exchange, limited
from heksher_client._core.refresh.health import ErrorLog
from heksher_client._core.refresh.hooks import Hooks, Notifier
from heksher_client._core.refresh.last_known_good import LastKnownGoodStore
from heksher_client._core.refresh.options import Options
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.refresher import Refresher
from heksher_client._core.refresh.schedule import Schedule
from heksher_client._core.refresh.setting_state import AnyEntry
from heksher_client._core.refresh.status import Refresh, State, Status
from heksher_client._core.settings.changes import Changes
from heksher_client._core.settings.context import Defaults, check_feature_names, check_known
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.registry import Registry
from heksher_client._logging import escaped, logger
from heksher_client.exceptions import ClientNotRunningError, DeclarationError, HeksherError, UnexpectedResponseError

T = TypeVar("T")

_LASTING: Final = frozenset([401, 403, 404, 422])
"""Statuses that it takes people to mend."""
_CATCH_UP: Final = 1.0
"""Seconds until the next refresh, where answers are older than the changes that were heard of."""


Caller = Callable[[Exception | None], None]
"""Called with the outcome of the refresh that somebody waits for."""


class Session:
    """The client, but for sending, waiting and locking."""

    def __init__(
        self,
        context_features: Iterable[str],
        options: Options,
        *,
        service_url: str,
        hooks: Hooks,
        registry: Registry,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        random: Callable[[], float],
        wake: Callable[[], None],
        keeper: LastKnownGoodStore | None,
        raises_at_start: bool,
    ) -> None:
        """Make a session that has yet to start.

        Args:
            context_features: The service's context features, in its order.
            options: What a program may choose.
            service_url: Where the service is, for errors: without user name and password.
            hooks: Told how each refresh ended.
            registry: Knows the settings and the main client.
            clock: Monotonic, in seconds; goes on while the machine sleeps.
            wall_clock: The seconds since 1970.
            random: Gives numbers from 0 to 1.
            wake: Makes the driver stop waiting, from whatever thread it is called.
            keeper: Keeps what is received, for a start without the service.
            raises_at_start: Whether the driver raises the error of the first refresh, which then is not logged.
        """
        self._context_features = check_feature_names(context_features)
        self._options = options
        self._schedule = Schedule(
            options.update_interval, jitter=options.jitter, max_backoff=options.max_backoff, random=random
        )
        self._service_url = service_url.rstrip("/")
        self._registry = registry
        self._clock, self._wall_clock = clock, wall_clock
        self._wake = wake
        self._raises_at_start = raises_at_start
        self._rounds = 0
        self._start_until = math.inf
        self._defaults = Defaults()
        self._following = ChangeStream(
            is_wanted=options.follow_changes,
            max_backoff=options.max_backoff,
            names=self._names,
            refresh_within=self._refresh_within,
            is_open=self._is_main,
            clock=clock,
            random=random,
        )
        self.listeners = CallbackRegistry()
        """Those who want to hear of all changes that this client puts in place."""
        self._telling = Notifier(hooks, self.listeners)
        self._refresher = Refresher(
            self._context_features,
            settings=registry.entries,
            defaults=self._defaults,
            clock=clock,
            is_main=self._is_main,
            note_revision=self._following.note_answers,
            is_heard=lambda setting: bool(setting.listeners or self.listeners),
            keeper=keeper,
        )
        self._faults = ErrorLog()
        self._failures = 0
        """In a row."""
        self._last_success: float | None = None
        self._last_error: tuple[str, float] | None = None
        self._callers: list[Caller] = []
        """Those who wait for the next refresh to begin, and end."""
        self._served: list[Caller] = []
        """Those who wait for the one under way."""
        self._wanted_at = math.inf
        """When somebody wants a refresh, whatever the schedule says."""
        self._is_refreshing = False
        self._began = 0.0
        """When the last refresh began."""
        self._is_open = False
        self._is_closed = False

    # -- the calls that never wait; from any thread --------------------------------------------------------------------

    @property
    def service_url(self) -> str:
        """Where the service is, without user name and password."""
        return self._service_url

    @property
    def defaults(self) -> Mapping[str, str | ContextVar[str]]:
        """What reads take for the context features that they do not give."""
        return self._defaults.values

    def set_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Set what reads take for the context features that they do not give."""
        check_known(values, self._context_features, "this client")
        self._defaults.update(values)
        self._registry.defaults_changed(self._defaults)

    def track_contexts(self, values: Mapping[str, str | Collection[str]]) -> None:
        """Say which context values will be asked for."""
        check_known(values, self._context_features, "this client")
        self._refresher.tracking = self._refresher.tracking.with_values(values)
        self.refresh_soon()

    def adopt(self, entry: AnyEntry) -> None:
        """Let the reads of a setting use this client's defaults. It keeps its rules until new ones arrive."""
        entry.publish(PublishedRules(entry.rule_set, self._defaults))

    def refresh_soon(self) -> None:
        """Do not wait for the next interval."""
        self._refresh_within(0.0)

    def _refresh_within(self, seconds: float) -> None:
        self._wanted_at = min(self._wanted_at, self._clock() + seconds if seconds else -math.inf)
        if self._is_open:
            self._wake()

    def call_back(self, caller: Caller) -> None:
        """Have the outcome of the next refresh to begin reported, which begins at once.

        Raises:
            ClientNotRunningError: There will be no such refresh.
        """
        if not self._is_open:
            raise ClientNotRunningError("the client is not running: it was not set as main, or it is closed")
        self._callers.append(caller)
        self.refresh_soon()
        if not self._is_open:
            self.close()  # It was closed between the two, by another thread that may not have seen this caller.

    def status(self) -> Status:
        """How the client fares."""
        now, received_at, error = self._clock(), self._refresher.received_at, self._last_error
        age = None if received_at is None else max(0.0, now - received_at)
        settings = self._registry.entries()
        return Status(
            state=self._state(age),
            age=age,
            last_success=self._last_success,
            last_error=error[0] if error else None,
            last_error_at=error[1] if error else None,
            failures=self._failures,
            next_attempt=(0.0 if self._is_refreshing else self.wait()) if self._is_open else None,
            is_main=self._is_main(),
            last_known_good_problem=self._refresher.keeping_problem,
            is_following=self._following.is_following,
            is_last_known_good=any(map(self._refresher.is_recalled, settings)),
            settings={setting.name: self._refresher.standings.status(setting) for setting in settings},
        )

    def _names(self) -> frozenset[str]:
        """The names that a change may give to the settings of the program."""
        settings = self._registry.entries()
        return frozenset(self._refresher.standings.by_name(settings)) | {setting.name for setting in settings}

    def _state(self, age: float | None) -> State:
        if self._is_closed:
            return State.CLOSED
        if age is None:
            return State.STALE if self._failures else State.STARTING
        if age >= self._options.stale_after:
            return State.STALE
        return State.FAILING if self._failures else State.FRESH

    # -- start and end -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Become the main client.

        Raises:
            RuntimeError: It is already.
            ClientNotRunningError: It was closed.
        """
        self._check_not_closed()
        if self._is_open:
            raise RuntimeError("the client was set as main before")
        self._is_open = True
        self._start_until = self._clock() + self._options.start_timeout
        former = self._registry.activate(self)
        if isinstance(former, Session):
            logger.warning(
                "another client is the main client now; the former one stops updating settings until that is closed",
                extra={"main_client": self, "former_client": former},
            )

    def close(self) -> None:
        """Stop being the main client. Settings keep their last values, and the next client takes them over."""
        self._is_open, self._is_closed = False, True
        self._registry.deactivate(self)
        self.listeners.close()
        callers = self._served + self._callers
        self._served, self._callers = [], []
        for caller in callers:
            caller(ClientNotRunningError("the client was closed before the refresh was done"))

    def after_fork(self) -> None:  # in the child of a fork
        """Begin anew in the child of a fork, with the values and the knowledge of the parent.

        Those who wait for a refresh are threads of the parent, which do not exist here.
        """
        self._served, self._callers = [], []
        self._wanted_at, self._is_refreshing = math.inf, False
        self._following.after_fork()
        self._schedule.soon(self._clock())

    # -- the flows -----------------------------------------------------------------------------------------------------

    def round(self) -> Flow[None]:
        """Refresh once, and report the outcome to the log, the hooks and the callers that wait for it."""
        self._is_refreshing = True
        self._began = self._clock()
        self._wanted_at = math.inf  # before all else: what is asked for from now on takes another round
        self._served, self._callers = self._callers, []
        self._rounds += 1
        try:
            yield from self._round()
        finally:
            self._is_refreshing = False

    def _round(self) -> Flow[None]:
        if not self._is_main():
            # Another client serves the settings; this one will be woken when that has gone.
            self._schedule.succeeded(self._clock())
            self._tell(ClientNotRunningError("another client is the main one, so this one updates nothing"))
            return
        failures = yield from limited(self._refresh(), self._limits)
        is_served = bool(failures) and (yield from limited(self._recall(failures), self._request_limits))
        self._plan(failures)
        yield from self._telling.report(self._refresher.take_replaced())
        is_start = self._rounds == 1
        error = failures[0] if failures and not (is_start and is_served) else None
        # A declaration that was refused is still a fault when it is not yet time to send it again.
        problems = failures or [self._as_seen(problem) for problem in self._refresher.problems()]
        self._note(problems)
        if not self._is_open:
            return  # Closed meanwhile: those who waited have been told, and nobody else wants to know.
        if error is None or not (self._raises_at_start and is_start):
            self._faults.note(problems, self._clock())
        yield from self._telling.call_hooks(self._refresh_of(problems))
        self._tell(error)

    @property
    def is_open(self) -> bool:
        """Whether it has started, and is not closed."""
        return self._is_open

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._is_closed

    def wait(self) -> float:
        """Seconds until there is something to do."""
        if not self._is_open:
            return 0.0
        now = self._clock()
        return min(max(0.0, self._wanted_at - now), self._schedule.wait(now))

    @property
    def wants_to_follow(self) -> bool:
        """Whether there is a stream of changes to follow."""
        return self._following.is_offered and self._is_main()

    def follow(self) -> Flow[None]:
        """Hear of changes as they are made, for as long as there is a stream to follow."""
        yield from self._following.follow()

    def ping(self) -> Flow[None]:
        """Ask whether the service is well."""
        yield from self.ask(protocol.HEALTH, protocol.parse_health)

    def get_settings(self) -> Flow[dict[str, SettingData]]:
        """Ask for all settings of the service."""
        return (yield from self.ask(protocol.SETTINGS, protocol.parse_settings))

    def ask(self, request: Request, parse: Callable[[Reply], T]) -> Flow[T]:
        self._check_not_closed()
        (reply,) = yield from limited(exchange(request), self._request_limits)
        if isinstance(reply, NoResponse):
            self._check_not_closed()  # which may be why
        try:
            return parse(reply)
        except HeksherError as error:
            raise self._as_seen(error) from error.__cause__

    def _as_seen(self, error: Exception) -> Exception:
        """An error as the program sees it: with the whole URL, and of the class that it wants for the status."""
        if isinstance(error, HeksherError) and error.url is not None and error.url.startswith("/"):
            error.url = self._service_url + error.url
        kind = self._options.error_classes.get(getattr(error, "status", 0))
        if kind is None or not isinstance(error, UnexpectedResponseError) or isinstance(error, kind):
            return error
        wanted = kind.__new__(kind, *error.args)  # whatever arguments its own `__init__` wants
        vars(wanted).update(vars(error))
        return wanted

    # -- a refresh -----------------------------------------------------------------------------------------------------

    def _tell(self, error: Exception | None) -> None:
        served, self._served = self._served, []
        for caller in served:
            caller(error)

    def _refresh(self) -> Flow[list[Exception]]:
        """Refresh once; gives all that failed."""
        try:
            failures = yield from self._refresher.refresh(is_awaited=bool(self._served))
        except HeksherError as problem:
            failures = [problem]
        except Exception as defect:  # Ours, or a setting type's: it must not end all refreshes to come.
            logger.exception("a refresh failed in an unforeseen way", extra={"error": defect})
            return [defect]
        return [self._as_seen(failure) for failure in failures]

    def _recall(self, failures: Sequence[Exception]) -> Flow[bool]:
        """Have settings served from what was kept; tells whether that is as good as a start."""
        try:
            is_recalled = yield from self._refresher.recall()
        except Exception as defect:  # As above.
            logger.exception("the last known good cannot be used", extra={"error": defect})
            return False
        return is_recalled and not any(isinstance(failure, DeclarationError) for failure in failures)

    def _refresh_of(self, problems: Sequence[Exception]) -> Refresh:
        """What is told of the refresh that ends now."""
        seconds = max(0.0, self._clock() - self._began)
        return Refresh(self._wall_clock() - seconds, seconds, tuple(problems), self._refresher.take_renewed())

    def _request_limits(self) -> Limits:
        return Limits(self._options.request_timeout, math.inf, self._options.max_response_bytes)

    def _limits(self) -> Limits:
        """While it starts, there is also a limit to all requests together."""
        left = self._start_until - self._clock() if self._rounds == 1 else math.inf
        return replace(self._request_limits(), total_seconds=left)

    def _note(self, problems: Sequence[Exception]) -> None:
        """Note how a refresh ended."""
        if problems:
            self._failures += 1
            self._last_error = escaped(str(problems[0])), self._wall_clock()
        else:
            self._failures = 0
            self._last_success = self._wall_clock()

    def _plan(self, failures: Sequence[Exception]) -> None:
        """Say when the next refresh is due."""
        now = self._clock()
        if not failures:
            self._schedule.succeeded(now)
            if self._following.is_behind:
                self._wanted_at = min(self._wanted_at, now + _CATCH_UP)
            return
        answers = [failure for failure in failures if isinstance(failure, UnexpectedResponseError)]
        asked = [answer.retry_after for answer in answers if answer.retry_after is not None]
        first = failures[0]
        is_lasting = isinstance(first, DeclarationError) or (
            isinstance(first, UnexpectedResponseError) and first.status in _LASTING
        )
        self._schedule.failed(now, is_lasting=is_lasting, retry_after=max(asked, default=None))

    @property
    def refresh_listeners(self) -> CallbackRegistry:
        """Those who want to hear how each refresh ended."""
        return self._telling.refresh_listeners

    def changes(self) -> Changes:
        """All changes from now on."""
        changes = self._telling.changes()
        if self._is_closed:
            changes.close()
        return changes

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ClientNotRunningError("the client is closed: make a new one")

    def _is_main(self) -> bool:
        return self._registry.main is self
