"""The stream of changes as server-sent events. One reader of the database serves all subscribers of an instance."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from os import getpid
from typing import Final

import orjson
from anyio.to_thread import run_sync
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from heksher_client._logging import escape_arguments
from heksher_client.service.changes import Change, changes
from heksher_client.service.database import Database
from heksher_client.service.history import Epochs, State, is_continued, read_epochs
from heksher_client.service.metrics import Metrics
from heksher_client.service.tokens import Token, token_exists

logger: Final = escape_arguments(logging.getLogger(__name__))
_HEARTBEAT: Final = 15.0
"""Seconds without events after which a comment is sent, so that proxies keep the connection open."""
_MAX_WAIT: Final = 60.0
"""Seconds until the clock is read again, if a rule begins or ends later: the clock may be set."""
_RETRY_DELAY: Final = 1.0
"""Seconds before the next attempt if the database is not available."""
_MAX_RECENT: Final = 1_000
"""Events that are kept in memory for subscribers that reconnect. Older ones are read from the change log."""
_MAX_SIMULTANEOUS_QUERIES: Final = 50
"""With more subscribers, their queries after a change are spread over time."""
_QUERIES_PER_SECOND: Final = 500
"""Queries that an instance can answer, with a reserve."""


@dataclass(frozen=True, slots=True)
class _Event:
    """A change as subscribers receive it."""

    revision: int
    settings: tuple[str, ...]
    affects_all: bool
    revoked_token: Mapping[str, str] | None
    """The token, if the change revoked one."""

    @classmethod
    def from_change(cls, change: Change) -> "_Event":
        revoked_token = change.former if change.action == "token revoked" else None
        affects_all = change.action.startswith("context feature")
        return cls(change.revision, tuple(change.settings), affects_all, revoked_token)

    def revokes(self, token: Token | None) -> bool:
        """Return True if the change has revoked a token."""
        return token is not None and self.revoked_token is not None and self.revoked_token == token.as_json()

    def encode(self, subscribers: int, label: str | None) -> bytes:
        spread = 0.0 if subscribers <= _MAX_SIMULTANEOUS_QUERIES else subscribers / _QUERIES_PER_SECOND
        data = {"settings": self.settings, "all": self.affects_all, "within": spread, "database": label}
        return format_sse_event(event="change", data_str=orjson.dumps(data).decode(), id=str(self.revision))


@dataclass(frozen=True, slots=True)
class _Reader:
    """The task that reads changes."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None]
    process: int = field(default_factory=getpid)

    @property
    def is_alive(self) -> bool:
        """False if the task belongs to a closed event loop, or to the process that this one was forked from."""
        return self.process == getpid() and not self.loop.is_closed()


class EventStream:
    """The changes of a database, by any instance of the service."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics
        self._recent: deque[_Event] = deque(maxlen=_MAX_RECENT)
        """Consecutive revisions, up to the last one."""
        self._last: int | None = None
        """The last revision that was read; None before the first read."""
        self._state: State | None = None
        """The state that was read with it."""
        self._epochs: Epochs = ()
        self._subscribers = 0
        self._reader: _Reader | None = None
        self._wakeup = asyncio.Event()
        """Set if the database may have changed."""
        self._published = asyncio.Event()
        """Set, and replaced, when there are new events for the subscribers."""
        self.is_closed = False
        database.on_commit = self._wake

    async def subscribe(self, after: int | None, label: str | None, token: Token | None) -> AsyncIterator[bytes]:
        """Yield the changes after a revision as encoded events, first the past ones, then each new one.

        Args:
            after: The revision; None for the current one.
            label: The identity and epoch of the database that it is a revision of, as in the header of responses; None
                if that is not known.
            token: The token of the subscriber. The stream ends when it is revoked or expires.
        """
        self._start_reader()
        self._count_subscriber(1)
        try:
            yield KEEPALIVE_COMMENT
            unchecked = token
            while not (self.is_closed or (token and token.is_expired)):
                published, is_placed = self._published, self._state is not None
                if self._last is not None and self._state is not None:
                    if after is None or not self._is_known(after, label, self._state):
                        name, after, label = "hello" if after is None else "reset", self._last, None
                        data = orjson.dumps({"database": self._state.label}).decode()
                        yield format_sse_event(event=name, data_str=data, id=str(after))
                    label = label if _is_later(label, self._state) else self._state.label
                events = await self._events_after(after)
                allowed = list(takewhile(lambda event: not event.revokes(token), events))
                if allowed:
                    after = allowed[-1].revision
                    # At once: asyncio warns if one writes again and again to a connection that was just lost.
                    yield b"".join(event.encode(self._subscribers, label) for event in allowed)
                # Events before `after` are not received, so the token is looked up once `after` is known.
                if len(allowed) < len(events) or (is_placed and not await self._exists(unchecked)):
                    return
                unchecked = None if is_placed else unchecked
                if after is not None and self._last is not None and after < self._last and not self.is_closed:
                    continue  # The change log was read up to the limit only.
                try:
                    async with asyncio.timeout(_HEARTBEAT):
                        await published.wait()
                except TimeoutError:
                    yield KEEPALIVE_COMMENT
        finally:
            self._count_subscriber(-1)

    def close(self) -> None:
        """End all subscriptions. May be called from any thread."""
        self.is_closed = True
        self._wake()

    def _count_subscriber(self, difference: int) -> None:
        self._subscribers += difference
        self._metrics.streams.set(self._subscribers)

    def _is_known(self, after: int, label: str | None, state: State) -> bool:
        """Return True if all changes up to a revision are changes of this database.

        Otherwise the revision is of another database, or of this one before it was restored from a backup.
        """
        if label is None:
            return self._last is not None and after <= self._last
        database, _, epoch = label.partition(".")
        is_continuation = _is_later(label, state) or is_continued(self._epochs, int(epoch), after)
        return database == state.database and is_continuation

    async def _exists(self, token: Token | None) -> bool:
        """Return False if a token was revoked before the stream began, while the access control still accepted it."""
        try:
            return token is None or await run_sync(self._read_exists, token)
        except SQLAlchemyError:
            return False  # The subscriber opens another stream.

    async def _events_after(self, revision: int | None) -> list[_Event]:
        if revision is None or self._last is None or revision >= self._last:
            return []
        if self._recent and self._recent[0].revision <= revision + 1:
            return list(islice(self._recent, revision + 1 - self._recent[0].revision, None))
        try:
            events = await run_sync(self._read_events, revision)
        except SQLAlchemyError:  # The reader logs it.
            await asyncio.sleep(_RETRY_DELAY)
            return []
        return [event for event in events if event.revision <= self._last]

    # -- reading the database ------------------------------------------------------------------------------------------

    def _start_reader(self) -> None:
        """Start to read changes, with the first subscriber."""
        if self._reader is None or not self._reader.is_alive:
            self._subscribers, self._wakeup, self._published = 0, asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(self._read_until_closed(), name="heksher-event-stream")
            self._reader = reader = _Reader(asyncio.get_running_loop(), task)
            listener = threading.Thread(
                target=self._database.listen,
                args=[self._wake, lambda: self.is_closed or self._reader is not reader],
                name="heksher-event-stream",
                daemon=True,
            )
            listener.start()

    def _wake(self) -> None:
        if self._reader is not None and self._reader.is_alive:
            with suppress(RuntimeError):  # The event loop is closed.
                self._reader.loop.call_soon_threadsafe(self._wakeup.set)

    async def _read_until_closed(self) -> None:
        is_available = True
        while not self.is_closed:
            self._wakeup.clear()
            try:
                self._publish(*await run_sync(self._read_new))
            except Exception as error:  # The database may be unavailable, or no thread: try again in either case.
                if is_available:
                    reason = (str(error) or repr(error)).splitlines()[0]
                    logger.warning("cannot read changes, so event streams are delayed: %s", reason)
                is_available = False
            else:
                is_available = True
            with suppress(TimeoutError):
                # Not `wait_for`, which ignores a cancellation at the time of a change in Python 3.11.
                async with asyncio.timeout(self._seconds_to_next_read() if is_available else _RETRY_DELAY):
                    await self._wakeup.wait()
        self._notify_subscribers()

    def _seconds_to_next_read(self) -> float | None:
        """Return the longest time to wait for a change; None if there is no limit."""
        interval = self._database.poll_interval
        seconds = None if self._state is None else self._database.seconds_to_transition(self._state)
        return interval if seconds is None else min(seconds, interval or _MAX_WAIT)

    def _read_new(self) -> tuple[int, list[_Event], State, Epochs]:
        """Return the revision up to which events were read, the events since the last read up to the limit, the state,
        and the epochs."""
        with self._database.read() as (connection, state):
            epochs = self._epochs
            if self._state is None or state.label != self._state.label:
                epochs = read_epochs(connection)
            revision, found = state.revision, list[Change]()
            if self._last is not None and revision > self._last:
                found = changes(connection, after=self._last, limit=_MAX_RECENT)
                revision = found[-1].revision
        return revision, [_Event.from_change(change) for change in found], state, epochs

    def _read_exists(self, token: Token) -> bool:
        with self._database.begin(writes=False) as connection:
            return token_exists(connection, token)

    def _read_events(self, after: int) -> list[_Event]:
        with self._database.begin(writes=False) as connection:
            return [_Event.from_change(change) for change in changes(connection, after=after, limit=_MAX_RECENT)]

    def _publish(self, revision: int, events: list[_Event], state: State, epochs: Epochs) -> None:
        former, self._state, self._epochs = self._state, state, epochs
        if former is not None and self._last is not None:
            is_known = revision >= self._last and self._is_known(self._last, former.label, state)
            if not is_known:
                self._recent.clear()  # The database was restored from a backup.
        if revision != self._last or former is None or former.label != state.label:
            self._last = revision
            self._recent.extend(events)
            self._notify_subscribers()
        if len(events) == _MAX_RECENT:
            self._wakeup.set()  # There may be more.

    def _notify_subscribers(self) -> None:
        self._published.set()
        self._published = asyncio.Event()


def _is_later(label: str | None, state: State) -> bool:
    """Return True for a later epoch of the same database: the instance uses a replica that lags."""
    database, _, epoch = (label or "").partition(".")
    return database == state.database and int(epoch) > state.epoch
