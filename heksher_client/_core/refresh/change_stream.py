"""The service's stream of changes, if it offers one. Refreshes at intervals go on in addition.

Responses to queries say their position in the history of the service's database, and the stream has all changes after a
position. A change only requests a refresh: so a stream that is lost, duplicated or late costs time at most.

Only an event or a comment shows that a stream works. A proxy may respond instead of the service, or send bytes that
have no end.
"""

import logging
import math
from collections.abc import Callable, Container
from typing import Final

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import NoResponse, Reply, Request, Response
from heksher_client._core.refresh.health import REMIND_AFTER
from heksher_client._core.refresh.positions import Position
from heksher_client._core.refresh.responses import parse_response, unexpected_response
from heksher_client._core.refresh.server_sent_events import Event, SSEParser, StreamError, silence
from heksher_client._logging import escaped, logger
from heksher_client.exceptions import HeksherError

STREAM_TIMEOUT: Final = 45.0
"""Seconds without an event or a comment after which a stream is lost: the service sends something every 15."""
_FIRST_RETRY: Final = 4.0
"""Seconds. A random part of it passes before a lost stream is opened again; doubled with each further loss."""
_REFUSED_RETRY: Final = 300.0
"""Seconds, if the service, or a proxy, has refused to open a stream."""
_BURST: Final = 3.0
"""Changes that request a refresh at once; of more in a row, one each second."""
_STABLE: Final = 30.0
"""Seconds after which a stream counts as a success."""
_SHORT_STREAMS: Final = 3
"""Streams in a row that end before that. One that ends after them is a problem, and not a restart of the service."""
_MAX_UNKNOWN: Final = 10_000
"""Names of unknown settings whose changes are remembered; after that, the latest half of them is."""
_MAX_NAME: Final = 1000
"""Characters of a name that is remembered."""
_NOT_FOUND: Final = 404
"""The status of a service, or of a gateway, without a stream."""
_MAX_DIGITS: Final = 18
"""Of a revision."""


class _EventData(msgspec.Struct):
    settings: list[str] = []
    all: bool = False
    within: float = 0.0
    database: str | None = None


_EVENT_DATA: Final = msgspec.json.Decoder(_EventData)


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
        self._position: Position | None = None
        """The position up to which all changes are applied or announced; None while the service offers no stream."""
        self.announced = Position("", 0, -1)
        """The position of the last announced change of a setting of this program."""
        self._unknown: dict[str, Position] = {}
        """Unknown settings with changes that are newer than the responses: the last position by name, in order."""
        self.is_behind = False
        """True if responses are older than an announced change: a cache in between is stale."""
        self._request = protocol.changes(None)
        self._parser = SSEParser()
        self._connected_at: float | None = None
        self._heard_at: float | None = None
        """When the last event or comment arrived, or the first byte."""
        self._losses = 0
        """In a row."""
        self._has_refreshed = False
        """True if a refresh has succeeded since the last loss."""
        self._problem: str | None = None
        self._logged_at: dict[tuple[int, str], float] = {}
        """When each kind of problem was last logged, by level."""
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
        return self._position is not None

    @property
    def problem(self) -> str | None:
        """Why the stream was refused or has ended; None while it is open, and if there is none to open."""
        return self._problem if self.is_offered else None

    @property
    def has_unknown_changes(self) -> bool:
        """True if settings have changed that this program did not have at that time."""
        return bool(self._unknown)

    def record_position(self, position: Position | None, names: Container[str]) -> bool:
        """Record the position up to which all changes are applied; None if the service does not say.

        Args:
            position: The position of the responses.
            names: The names of this program's settings in the service. Not used if there are no unknown changes.

        Returns:
            True if another refresh is needed: a setting may have another name now than when a change was announced.
        """
        self._has_refreshed = True
        if position is None or not self.is_connected:
            self._position = position
        unknown, self._unknown = self._unknown, {}  # Another thread may process an event at the same time.
        is_needed = False
        for name, announced in list(unknown.items()):
            if position is not None and not position.is_before(announced):
                continue  # It is applied, or was announced for another database.
            if name not in names:
                self._unknown.setdefault(name, announced)
                continue
            is_needed = True
            if not announced.is_before(self.announced):
                self.announced = announced
        self.is_behind = position is not None and self.is_connected and position.is_before(self.announced)
        return is_needed

    def open(self) -> Request:
        """Begin a new stream, and return the request for it."""
        self._parser, self._heard_at = SSEParser(), None
        after = self._position
        self._request = protocol.changes(None) if after is None else protocol.changes(after.revision, after.label)
        return self._request

    def feed(self, chunk: bytes, names: Container[str]) -> float | None:
        """Process some bytes of the stream.

        Args:
            chunk: The bytes.
            names: The names of this program's settings in the service.

        Returns:
            The seconds within which to refresh; None if no setting of this program has changed.

        Raises:
            StreamError: The stream must be ended.
        """
        count = self._parser.count
        events = self._parser.feed(chunk)
        now = self._clock()
        if self._parser.count > count:
            self._heard_at = now
            self._record_connected(now)
        elif self._heard_at is None:
            self._heard_at = now
        elif now - self._heard_at > STREAM_TIMEOUT:
            raise silence(STREAM_TIMEOUT)
        delays = [self._process(event, names) for event in events]
        self._record_id(self._parser.last_id)
        return min((delay for delay in delays if delay is not None), default=None)

    def _record_connected(self, now: float) -> None:
        if self._connected_at is None:
            self._connected_at, self._problem = now, None
            # A problem that comes back within minutes is not logged again.
            self._logged_at = {kind: at for kind, at in self._logged_at.items() if now - at < REMIND_AFTER}
            logger.info("following changes as they are made")

    def _record_id(self, event_id: str, database: str | None = None) -> Position | None:
        """Record the id of an event.

        Args:
            event_id: The revision.
            database: The identity and epoch of the database, as in the header; None for those of the last position.

        Returns:
            The position; None if the id is not a revision.
        """
        if not (event_id.isdecimal() and len(event_id) <= _MAX_DIGITS):
            return None
        label = database or (None if self._position is None else self._position.label)
        self._position = Position.from_label(label or "", int(event_id))
        return self._position

    def _process(self, event: Event, names: Container[str]) -> float | None:
        try:
            data = _EVENT_DATA.decode(event.data)
        except msgspec.DecodeError:
            data = _EventData(all=True)  # It may be of a later version of the service.
        position = self._record_id(event.id, data.database)
        if position is None:
            return None
        if event.name == "reset":
            self.announced, self._unknown = position, {}
            return self._throttle()
        if event.name != "change":
            return None
        if data.all or any(name in names for name in data.settings):
            self.announced = position
            within = data.within if 0 <= data.within < _REFUSED_RETRY else 0.0
            return max(within * self._random(), self._throttle())
        self._remember(position, data.settings)
        return None

    def _remember(self, position: Position, settings: list[str]) -> None:
        """Remember a change of unknown settings, in limited memory. If it is forgotten, the interval loads it."""
        for name in settings[-_MAX_UNKNOWN:]:
            if len(name) <= _MAX_NAME:
                self._unknown.pop(name, None)  # to the end
                self._unknown[name] = position
        if len(self._unknown) > _MAX_UNKNOWN:
            self._unknown = dict(list(self._unknown.items())[-_MAX_UNKNOWN // 2 :])

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
        if connected_at is not None and self._clock() - connected_at > _STABLE:
            self._losses = 0
        if not is_expected:
            self._record_problem(reply, has_ended=connected_at is not None)
        self._has_refreshed = False
        if connected_at is None and not isinstance(reply, NoResponse) and 300 <= reply.status < 500:
            return _REFUSED_RETRY * (1 + self._random()) / 2
        self._losses += 1
        return min(self._max_backoff, _FIRST_RETRY * 2.0 ** min(self._losses - 1, 30)) * self._random()

    def _record_problem(self, reply: Reply, *, has_ended: bool) -> None:
        self._problem = problem = escaped(self._describe(reply, has_ended=has_ended))
        # In an outage, refreshes fail as well, or will soon. If one has succeeded since the last loss, only the stream
        # fails: a proxy holds it back, or drops it.
        is_outage = not (self._has_refreshed and self._losses >= (_SHORT_STREAMS if has_ended else 1))
        if has_ended:
            is_new = not is_outage and self._is_new(logging.WARNING, "ended")
            level = logging.WARNING if is_new else logging.INFO
            logger.log(level, "the stream of changes has ended (%s); changes arrive at intervals", problem)
            return
        if isinstance(reply, NoResponse):
            kind, is_outage = type(reply.error).__name__, is_outage and reply.is_network_error
        else:  # Without its body, which may differ each time.
            kind, is_outage = str(reply.status), False
        level = logging.INFO if is_outage else logging.WARNING
        if kind != str(_NOT_FOUND) and self._is_new(level, kind):
            logger.log(level, "the stream of changes cannot be followed (%s); changes arrive at intervals", problem)

    def _is_new(self, level: int, kind: str) -> bool:
        """Return True if a kind of problem was not logged at this level yet, and record that it is now."""
        is_new = (level, kind) not in self._logged_at
        if is_new:
            self._logged_at[level, kind] = self._clock()
        return is_new

    def _describe(self, reply: Reply, *, has_ended: bool) -> str:
        """Return why a stream was refused, or has ended."""
        if isinstance(reply, NoResponse) and isinstance(reply.error, StreamError):
            return str(reply.error)
        if has_ended:
            if isinstance(reply, NoResponse):
                return type(reply.error).__name__
            problem = reply.problem if isinstance(reply, Response) else ""
            return f"it continued {problem}" if problem else "the service ended it"
        try:
            response = parse_response(self._request, reply)
        except HeksherError as error:
            return str(error)
        mismatch = protocol.stream_mismatch(response.status, response.headers)
        if mismatch is None and not response.problem:
            return "the service ended it before the first event"
        return str(unexpected_response(self._request, response, mismatch or ""))

    def after_fork(self) -> None:  # in the child of a fork
        """Begin again: the open stream belongs to the parent."""
        self._connected_at, self._losses = None, 0
