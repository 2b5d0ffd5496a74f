"""Changes as they come: one reader of the database for all streams of an instance, whichever instance made them."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

import orjson
from anyio.to_thread import run_sync
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from heksher_client.service.changes import Change, changes
from heksher_client.service.database import Database
from heksher_client.service.metrics import Metrics
from heksher_client.service.query_cache import state
from heksher_client.service.tokens import Token

logger: Final = logging.getLogger(__name__)
_HEARTBEAT: Final = 15.0
"""Seconds without news after which a stream says that it is still there."""
_PAUSE: Final = 1.0
"""Seconds until a database is asked again that did not answer."""
_MOST_RECENT: Final = 1_000
"""Changes that are kept for those who come back. Older ones are read from the log."""
_AT_ONCE: Final = 50
"""So many programs may ask for their rules at the same moment."""
_PER_SECOND: Final = 500
"""So many an instance answers in a second, with something to spare."""


@dataclass(frozen=True, slots=True)
class _Event:
    """A change as a stream sends it."""

    revision: int
    settings: tuple[str, ...]
    is_of_all: bool
    at: datetime
    revoked: str | None
    """The name of the token that is not one any more."""

    @classmethod
    def of(cls, change: Change) -> "_Event":
        revoked = change.former["name"] if change.action == "token revoked" else None
        is_of_all = change.action.startswith("context feature")
        return cls(change.revision, tuple(change.settings), is_of_all, change.at, revoked)

    def encoded(self, streams: int) -> bytes:
        data = {"settings": self.settings, "all": self.is_of_all, "within": _spread(streams)}
        return format_sse_event(event="change", data_str=orjson.dumps(data).decode(), id=str(self.revision))


def _spread(streams: int) -> float:
    """Seconds over which programs should spread their queries after a change, as all of them hear of it at once."""
    return 0.0 if streams <= _AT_ONCE else streams / _PER_SECOND


class Feed:
    """The changes as they come."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics
        self._recent: deque[_Event] = deque(maxlen=_MOST_RECENT)
        """One revision after the other, up to the last one."""
        self._last: int | None = None
        """The revision up to which all is known here."""
        self._streams = 0
        self._watching: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        self._woken = asyncio.Event()
        self._news = asyncio.Event()
        """Set, and replaced by another one, when there is something new for the streams."""
        self.is_closed = False
        database.on_commit = self._wake

    async def stream(self, after: int | None, token: Token | None) -> AsyncIterator[bytes]:
        """The changes after a revision as server-sent events, and then each as it comes.

        Args:
            after: The revision; None for the current one.
            token: The stream ends when it is revoked or expires.
        """
        self._begin()
        self._count(1)
        try:
            yield KEEPALIVE_COMMENT
            while not (self.is_closed or (token and token.is_expired)):
                news = self._news
                if self._last is not None and (after is None or after > self._last):
                    # A revision that this database never had is another one's: whoever has seen it begins anew.
                    name, after = "hello" if after is None else "reset", self._last
                    yield format_sse_event(event=name, data_str="{}", id=str(after))
                for event in await self._after(after):
                    if token and event.revoked == token.name and event.at >= token.created_at:
                        return
                    after = event.revision
                    yield event.encoded(self._streams)
                if after is not None and self._last is not None and after < self._last and not self.is_closed:
                    continue  # Only some of them were read.
                try:
                    await asyncio.wait_for(news.wait(), _HEARTBEAT)
                except TimeoutError:
                    yield KEEPALIVE_COMMENT
        finally:
            self._count(-1)

    def close(self) -> None:
        """End all streams. From whatever thread."""
        self.is_closed = True
        self._wake()

    def _count(self, more: int) -> None:
        self._streams += more
        self._metrics.streams.set(self._streams)

    async def _after(self, revision: int | None) -> list[_Event]:
        if revision is None or revision == self._last:
            return []
        if self._recent and self._recent[0].revision <= revision + 1:
            return list(islice(self._recent, revision + 1 - self._recent[0].revision, None))
        try:
            found = await run_sync(self._read, revision)
        except SQLAlchemyError:  # which the log has from the watching
            await asyncio.sleep(_PAUSE)
            return []
        return [event for event in found if self._last is None or event.revision <= self._last]

    # -- watching the database -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """With the first stream, begin to watch."""
        if self._watching is None:
            task = asyncio.create_task(self._watch(), name="heksher-feed")
            self._watching = asyncio.get_running_loop(), task
            listening = threading.Thread(
                target=self._database.listen,
                args=[self._wake, lambda: self.is_closed],
                name="heksher-feed",
                daemon=True,
            )
            listening.start()

    def _wake(self) -> None:
        if self._watching is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._watching[0].call_soon_threadsafe(self._woken.set)

    async def _watch(self) -> None:
        is_well = True
        while not self.is_closed:
            self._woken.clear()
            try:
                self._publish(*await run_sync(self._look))
            except Exception as error:  # A thread may be lacking as well as the database: streams wait for either.
                if is_well:
                    words = (str(error) or repr(error)).splitlines()[0]
                    logger.warning("changes cannot be read, so streams have no news: %s", words)
                is_well = False
            else:
                is_well = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._database.patience if is_well else _PAUSE)
        self._tell()

    def _look(self) -> tuple[int, list[_Event]]:
        """The revision now, and the changes since the last look."""
        with self._database.begin(writes=False) as connection:
            revision = state(connection).revision
            if self._last is None or revision <= self._last:
                return revision, []
            found = changes(connection, after=self._last, most=_MOST_RECENT)
            return found[-1].revision, [_Event.of(change) for change in found]

    def _read(self, after: int) -> list[_Event]:
        with self._database.begin(writes=False) as connection:
            return [_Event.of(change) for change in changes(connection, after=after, most=_MOST_RECENT)]

    def _publish(self, revision: int, events: list[_Event]) -> None:
        if self._last is not None and revision < self._last:
            self._recent.clear()  # an older state of the database was restored
        if revision != self._last:
            self._last = revision
            self._recent.extend(events)
            self._tell()
        if len(events) == _MOST_RECENT:
            self._woken.set()  # there may be more

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
