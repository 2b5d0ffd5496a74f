"""The service's stream of changes, if it offers one. Refreshes at intervals go on in addition.

Responses to queries say their revision of the service's database, and the stream has all changes after a revision. A
change only requests a refresh: so a stream that is lost, duplicated or late costs time at most.
"""

import math
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import NoResponse, Reply, Request
from heksher_client._logging import logger

STREAM_TIMEOUT: Final = 45.0
"""Seconds without a byte after which a stream is lost: the service sends something every 15."""
_FIRST_RETRY: Final = 4.0
"""Seconds. A random part of it passes before a lost stream is opened again; doubled with each further loss."""
_REFUSED_RETRY: Final = 300.0
"""Seconds, if the service, or a proxy, has refused to open a stream."""
_BURST: Final = 3.0
"""Changes that request a refresh at once; of more in a row, one each second."""
_STABLE: Final = 30.0
"""Seconds after which a stream counts as a success."""
_MAX_UNKNOWN: Final = 1000
"""Changes of unknown settings that are remembered."""
_MAX_DIGITS: Final = 18
"""Of a revision."""
_MAX_EVENT: Final = 1 << 20
"""Bytes."""


class _ChangeData(msgspec.Struct):
    settings: list[str] = []
    all: bool = False
    within: float = 0.0


_CHANGE: Final = msgspec.json.Decoder(_ChangeData)


@dataclass(slots=True)
class Event:
    """One server-sent event."""

    name: str = "message"
    id: str | None = None
    data: str = ""


class SSEParser:
    """Parses a stream of server-sent events."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = Event()

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete with some more bytes.

        Raises:
            ValueError: An event is too long.
        """
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        events = [event for line in lines if (event := self._feed_line(line.decode(errors="replace"))) is not None]
        if len(self._rest) + len(self._event.data) > _MAX_EVENT:
            raise ValueError("an event of the stream has no end")
        return events

    def _feed_line(self, line: str) -> Event | None:
        if not line:
            event, self._event = self._event, Event()
            return event if event.id is not None or event.data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event.name = value
            case "id":
                self._event.id = value
            case "data":
                self._event.data += value
        return None


class ChangeStream:
    """The state of one client's stream of changes. It neither opens the stream nor refreshes: its owner does."""

    def __init__(self, *, max_backoff: float, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Create the state of a stream that is not open.

        Args:
            max_backoff: The longest wait before a lost stream is opened again, in seconds.
            clock: In seconds.
            random: Returns numbers from 0 to 1.
        """
        self._max_backoff, self._clock, self._random = max_backoff, clock, random
        self._revision: int | None = None
        """The revision up to which all changes are applied or announced; None while the service offers no stream."""
        self._announced = -1
        """The revision of the last announced change of a setting of this program."""
        self._unknown: deque[tuple[int, list[str]]] = deque(maxlen=_MAX_UNKNOWN)
        """Changes of unknown settings that are newer than the responses: revision, and names."""
        self.is_behind = False
        """True if responses are older than an announced change: a cache in between is stale."""
        self._parser = SSEParser()
        self._connected_at: float | None = None
        self._losses = 0
        """In a row."""
        self._burst, self._burst_at = _BURST, clock()
        """How many changes may still request a refresh at once, and when that was computed."""
        self._delayed_until = -math.inf
        """When the refresh is due that was delayed because of many changes."""

    @property
    def is_connected(self) -> bool:
        """True while changes are announced as they are made."""
        return self._connected_at is not None

    @property
    def is_offered(self) -> bool:
        """True if there is a stream to open."""
        return self._revision is not None

    def record_revision(self, revision: int | None, names: Container[str]) -> bool:
        """Record the revision up to which all changes are applied; None if the service does not say.

        Args:
            revision: The revision of the responses.
            names: The names of this program's settings in the service.

        Returns:
            True if another refresh is needed: a setting may have another name now than when a change was announced.
        """
        if revision is None or not self.is_connected:
            self._revision = revision
        applied = -1 if revision is None else revision
        unknown, self._unknown = self._unknown, deque[tuple[int, list[str]]](maxlen=_MAX_UNKNOWN)
        is_needed = False
        for number, settings in unknown:
            if number > applied and any(name in names for name in settings):
                self._announced, is_needed = number, True
            elif number > applied:
                self._unknown.append((number, settings))
        self.is_behind = revision is not None and self.is_connected and revision < self._announced
        return is_needed

    def open(self) -> Request:
        """Begin a new stream, and return the request for it."""
        self._parser = SSEParser()
        return protocol.changes(self._revision)

    def feed(self, chunk: bytes, names: Container[str]) -> float | None:
        """Process some bytes of the stream.

        Args:
            chunk: The bytes.
            names: The names of this program's settings in the service.

        Returns:
            The seconds within which to refresh; None if no setting of this program has changed.

        Raises:
            ValueError: An event is too long.
        """
        if self._connected_at is None:
            self._connected_at = self._clock()
            logger.info("following changes as they are made")
        delays = [self._process(event, names) for event in self._parser.feed(chunk)]
        return min((delay for delay in delays if delay is not None), default=None)

    def _process(self, event: Event, names: Container[str]) -> float | None:
        if event.id is None or not event.id.isdecimal() or len(event.id) > _MAX_DIGITS:
            return None
        self._revision = int(event.id)
        if event.name == "reset":
            self._announced = self._revision
            return 0.0
        if event.name != "change":
            return None
        try:
            change = _CHANGE.decode(event.data)
        except msgspec.DecodeError:
            change = _ChangeData(all=True)  # It may be of a later version of the service.
        if change.all or any(name in names for name in change.settings):
            self._announced = self._revision
            within = change.within if 0 <= change.within < _REFUSED_RETRY else 0.0
            return max(within * self._random(), self._throttle())
        self._unknown.append((self._revision, change.settings))
        return None

    def _throttle(self) -> float:
        """Return the seconds to wait, so that many changes in a row do not cost a refresh each."""
        now = self._clock()
        if now < self._delayed_until:
            return self._delayed_until - now  # That refresh loads this change as well.
        self._burst = min(_BURST, self._burst + now - self._burst_at)
        self._burst_at = now
        delay = max(0.0, 1 - self._burst)
        # A delayed refresh counts as well: otherwise there would be another one at once with the next change after it.
        self._burst -= 1
        self._delayed_until = now + delay
        return delay

    def close(self, reply: Reply, *, is_expected: bool) -> float:
        """Record that the stream ended, or could not be opened.

        Args:
            reply: How it ended.
            is_expected: Whether the client has ended it.

        Returns:
            The seconds to wait before it is opened again.
        """
        connected_at, self._connected_at = self._connected_at, None
        if connected_at is not None:
            if not is_expected:
                reason = type(reply.error).__name__ if isinstance(reply, NoResponse) else "the service ended it"
                logger.info("the stream of changes has ended (%s); changes arrive at intervals", reason)
            self._losses = 0 if self._clock() - connected_at > _STABLE else self._losses
        elif not isinstance(reply, NoResponse) and 300 <= reply.status < 500:
            return _REFUSED_RETRY * (1 + self._random()) / 2
        self._losses += 1
        return min(self._max_backoff, _FIRST_RETRY * 2.0 ** min(self._losses - 1, 30)) * self._random()

    def after_fork(self) -> None:  # in the child of a fork
        """Begin again: the open stream belongs to the parent."""
        self._connected_at, self._losses = None, 0
