"""A client that is driven by hand: no threads, no sockets, and time that only passes when a test says so.

Its session is that of both real clients. The effects of its flows are performed at once, in place.

    with driven(service, update_interval=60) as client:
        service.is_running = False
        client.refresh(8)
        assert client.waits == [60, 1, 2, 4, 8, 16, 32, 60]
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from typing import Any, TypeVar

import pytest

from heksher_client import Change, HeksherError, Refresh, SettingData, State
from heksher_client._core.refresh import effects
from heksher_client._core.refresh.options import Environment, Options
from heksher_client._core.refresh.session import Session
from heksher_client._core.refresh.status import Status
from heksher_client._core.settings.changes import Changes
from heksher_client._core.settings.registry import registry
from heksher_client._drivers.flow_runner import run
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from heksher_client._drivers.last_known_good_store import FileStore
from tests.support.fake_service import EVENT_STREAM, UNREACHABLE, FakeService

T = TypeVar("T")

START = 1_000_000.0
"""The time by the first client's monotonic clock when it is made, in seconds."""
WALL_CLOCK_OFFSET = 1_000_000_000.0
"""The difference of the two clocks, so that code which uses the wrong one fails its test."""
MAX_REPETITIONS = 100
"""How often a client may be due at the same time. One that always is would never let time pass."""
URL = "http://service"
HANGING = effects.NoResponse(TimeoutError())
"""The reply of a service that does not respond in time: all of the time for the request passes."""


class DrivenClient:
    """A session with a fake clock, random numbers that a test can set, and a fake service."""

    def __init__(
        self,
        service: FakeService,
        *,
        raises_at_start: bool = False,
        now: float = START,
        last_known_good: str | PathLike[str] | LastKnownGoodFile | None = None,
        **options: Any,
    ) -> None:
        """Make a client that is not started.

        Args:
            service: The service that it asks.
            raises_at_start: True to be like the async client.
            now: The time by its monotonic clock when it is made, which is later for a second client.
            last_known_good: The path of a file to store the last known good in, or a `MemoryFile`.
            **options: Those of real clients. The default is an interval of an hour without jitter.
        """
        self.service = service
        self.now = now
        """The time by the monotonic clock."""
        self.random = 0.5
        self.waits: list[float] = []
        """The seconds before each refresh that was due by itself."""
        self.outcomes: list[Exception | None] = []
        """The errors that the hooks were called with; None for a success."""
        self.is_calling_hooks = True
        """False as if an earlier hook did not return, so that no other one is called."""
        self.is_disk_available = True
        """False as if the disk did not respond in time."""
        self.wakes = 0
        """How often the session has let its driver stop waiting."""
        checked = Options.checked({"update_interval": 3600, "jitter": 0, **options}, can_follow=True)
        store = None
        if last_known_good is not None:
            if not isinstance(last_known_good, LastKnownGoodFile):
                last_known_good = LastKnownGoodFile(last_known_good, URL)
            store = FileStore(last_known_good, checked.max_age, self.wall_clock)
        self.session = Session(
            options.get("context_features", service.features),
            checked,
            service_url=URL,
            hooks=self,
            registry=registry,
            environment=Environment(lambda: self.now, self.wall_clock, lambda: self.random),
            wake=self._wake,
            store=store,
            raises_at_start=raises_at_start,
        )
        self._follow: effects.Flow[None] | None = None
        self._stream: effects.OpenStream | None = None
        self._reopens_at = 0.0
        self._performers: dict[type, Callable[[Any], Any]] = {
            effects.Exchange: self._exchange,
            effects.Pause: lambda effect: self._pass(effect.seconds),
            effects.ApplyLocked: lambda effect: effect.apply(),
            effects.RunBlocking: lambda effect: effect.call() if self.is_disk_available else None,
            effects.CallUserCode: lambda effect: effect.call() if self.is_calling_hooks else None,
        }

    # -- what a test does ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Become the main client, and refresh for the first time. The error of that refresh is raised."""
        self.session.start()
        self.reload()

    def close(self) -> None:
        self.session.close()

    def reload(self) -> None:
        """Refresh at once. The error is raised, as by the async client."""
        outcomes: list[Exception | None] = []
        self.session.add_waiter(outcomes.append)
        self._refresh()
        (outcome,) = outcomes
        if outcome is not None:
            raise outcome

    def reload_expecting(self, error: type[Exception]) -> Any:
        """Reload, and return the expected error, which the hook gets as well."""
        with pytest.raises(error) as raised:
            self.reload()
        assert raised.value is self.outcomes[-1]
        return raised.value

    def refresh(self, times: int = 1) -> None:
        """Let time pass until the next refresh is due, and refresh; several times."""
        for _ in range(times):
            wait = self.session.wait()
            self.waits.append(wait)
            self._pass(wait)
            self._refresh()

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that is due in it: refreshes, and attempts to open the change stream."""
        end, last, repetitions = self.now + seconds, self.now, 0
        while (due := min(self.now + self.session.wait(), self._reopening())) <= end:
            repetitions = repetitions + 1 if due == last else 0
            assert repetitions < MAX_REPETITIONS, f"the client is due again and again at {due}"
            last = due
            self._pass(due - self.now)
            if self._reopening() <= self.now:
                self._resume_following(None)
            else:
                self.refresh()
        self.now = end

    def wall_clock(self) -> float:
        """Return the seconds since 1970."""
        return self.now + WALL_CLOCK_OFFSET

    def lose_stream(self, reply: effects.Reply = UNREACHABLE) -> None:
        """End the change stream."""
        assert self._stream is not None
        self._resume_following(reply)

    def continue_in_child(self) -> None:
        """Continue as in the child of a fork, which has no stream."""
        self.session.after_fork()
        self._follow = self._stream = None
        self.service.announce = lambda event: None

    def run(self, flow: effects.Flow[T]) -> T:
        """Run a flow, and return its result."""
        return run(flow, self._performers)

    # -- what a client has ---------------------------------------------------------------------------------------------

    def set_defaults(self, **values: Any) -> None:
        self.session.set_defaults(values)

    def track_contexts(self, **values: Any) -> None:
        self.session.track_contexts(values)

    def on_change(self, callback: Callable[[Change[Any]], object]) -> None:
        self.session.listeners.add(callback)

    def off_change(self, callback: Callable[[Change[Any]], object]) -> None:
        self.session.listeners.remove(callback)

    def changes(self, name: str | None = None) -> Changes:
        return self.session.changes(name)

    def on_refresh(self, callback: Callable[[Refresh], object]) -> None:
        self.session.refresh_listeners.add(callback)

    def off_refresh(self, callback: Callable[[Refresh], object]) -> None:
        self.session.refresh_listeners.remove(callback)

    def status(self) -> Status:
        return self.session.status()

    def state_after_reload(self) -> State:
        with suppress(HeksherError):
            self.reload()
        return self.status().state

    def ping(self) -> None:
        self.run(self.session.requests.ping())

    def get_settings(self) -> dict[str, SettingData]:
        return self.run(self.session.requests.get_settings())

    def on_update_ok(self) -> None:
        self.outcomes.append(None)

    def on_update_error(self, exc: Exception) -> None:
        self.outcomes.append(exc)

    # -- requests, time and streams ------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self.wakes += 1  # A test looks at the schedule itself.

    def _exchange(self, exchange: effects.Exchange) -> tuple[effects.Reply, ...]:
        limits = exchange.limits
        replies = [self.service.respond(request, limits.max_bytes) for request in exchange.requests]
        if HANGING not in replies:
            return tuple(replies)
        self._pass(min(limits.seconds, limits.total_seconds))
        return tuple(effects.timed_out(limits) if reply is HANGING else reply for reply in replies)

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def _refresh(self) -> None:
        self.run(self.session.refresh())
        if self._follow is None and self.session.wants_to_follow:
            self._follow = self.session.follow()
            self._resume_following(None)

    def _reopening(self) -> float:
        return self._reopens_at if self._follow is not None and self._stream is None else float("inf")

    def _resume_following(self, result: effects.Reply | None) -> None:
        """Continue the flow that follows changes, until it has a stream, or waits."""
        assert self._follow is not None
        self._stream, self.service.announce = None, lambda event: None
        try:
            effect = self._follow.send(result)
            while isinstance(effect, effects.OpenStream):
                if (refusal := self._open(effect)) is None:
                    return
                effect = self._follow.send(refusal)
        except StopIteration:
            self._follow = None
        else:
            assert isinstance(effect, effects.Pause)
            self._reopens_at = self.now + effect.seconds

    def _open(self, effect: effects.OpenStream) -> effects.Reply | None:
        """Open a stream. Return the reply if there is none."""
        reply = self.service.respond(effect.request)
        if not isinstance(reply, effects.Response) or reply.headers.get("content-type") != EVENT_STREAM:
            return reply
        self._stream, self.service.announce = effect, self._receive
        self._receive(reply.content)
        return None

    def _receive(self, chunk: bytes) -> None:
        assert self._stream is not None
        if not self._stream.take(chunk):
            self._resume_following(effects.Response(200))


@contextmanager
def driven(service: FakeService, **options: Any) -> Iterator[DrivenClient]:
    """Run a client as the main one, with a default for each context feature. An error of the start is not raised."""
    client = DrivenClient(service, **options)
    client.set_defaults(**dict.fromkeys(client.session.context_features or (), "none"))
    try:
        with suppress(HeksherError):
            client.start()
        client.outcomes.clear()
        yield client
    finally:
        client.close()
