"""Hearing of changes as they are made, where the service offers that. The intervals go on beside it.

The answers to queries tell the revision that they are of, and all changes after it can be followed. Whatever is heard
only says that it is time to ask: so a stream that is lost, doubled or late costs time at the most.
"""

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Flow, NoResponse, OpenStream, Pause, Reply
from heksher_client._logging import logger

_PATIENCE: Final = 45.0
"""Seconds without a byte after which a stream is lost: the service sends something every 15."""
_FIRST_RETRY: Final = 4.0
"""Seconds, of which any part is waited before a lost stream is opened again; doubled with each further loss."""
_REFUSED_RETRY: Final = 300.0
"""Seconds, where the service, or what is in front of it, has refused to open one."""
_AT_ONCE: Final = 3.0
"""Changes that are asked about at once; of more in a row, one each second."""
_STABLE: Final = 30.0
"""Seconds after which a stream has been a success."""
_REMEMBERED: Final = 1000
"""Changes of settings that are not known here."""
_DIGITS: Final = 18
"""Of a revision, at the most."""
_LONGEST_EVENT: Final = 1 << 20
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
    """Takes a stream of server-sent events apart."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = Event()

    def take(self, chunk: bytes) -> list[Event]:
        """The events that are complete with some more bytes.

        Raises:
            ValueError: One of them has no end.
        """
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        events = [event for line in lines if (event := self._take_line(line.decode(errors="replace"))) is not None]
        if len(self._rest) + len(self._event.data) > _LONGEST_EVENT:
            raise ValueError("an event of the stream has no end")
        return events

    def _take_line(self, line: str) -> Event | None:
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
    """What one client knows of the service's stream of changes."""

    def __init__(
        self,
        *,
        is_wanted: bool,
        max_backoff: float,
        names: Callable[[], Container[str]],
        refresh_within: Callable[[float], None],
        is_open: Callable[[], bool],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """Make one that follows nothing yet.

        Args:
            is_wanted: Whether the program wants it.
            max_backoff: The longest wait before a lost stream is opened again, in seconds.
            names: The names of the settings that a change may touch.
            refresh_within: Told when a change has touched one: to refresh at some moment of so many seconds.
            is_open: Whether the client runs.
            clock: In seconds.
            random: Gives numbers from 0 to 1.
        """
        self._is_wanted, self._max_backoff = is_wanted, max_backoff
        self._names, self._refresh_within, self._is_open = names, refresh_within, is_open
        self._clock, self._random = clock, random
        self._revision: int | None = None
        """The revision up to which all is known, or was heard of; None as long as the service offers no stream."""
        self._heard = -1
        """The last revision that was heard to have touched a setting here."""
        self._others: deque[tuple[int, list[str]]] = deque(maxlen=_REMEMBERED)
        """Changes of settings that are not known here: their revision, and the settings. Newer than the answers."""
        self.is_behind = False
        """Whether answers are older than what was heard of: something on the way keeps them."""
        self._events = SSEParser()
        self._connected_at: float | None = None
        self._losses = 0
        """In a row."""
        self._at_once, self._paced_at = _AT_ONCE, clock()
        """How many changes are still asked about at once, and when that was found."""

    @property
    def is_following(self) -> bool:
        """Whether changes are heard of as they are made."""
        return self._connected_at is not None

    @property
    def is_offered(self) -> bool:
        """Whether there is something to follow."""
        return self._is_wanted and self._revision is not None

    def note_answers(self, revision: int | None) -> None:
        """Note the revision up to which all is in place; None where the service does not tell."""
        if revision is None or not self.is_following:
            self._revision = revision
        self._look_again_at_others(-1 if revision is None else revision)
        self.is_behind = revision is not None and self.is_following and revision < self._heard

    def _look_again_at_others(self, revision: int) -> None:
        """A setting may have another name by now than was known when a change of it was heard of."""
        others, self._others = self._others, deque[tuple[int, list[str]]](maxlen=_REMEMBERED)
        names = self._names()
        for number, settings in others:
            if number > revision and any(name in names for name in settings):
                self._heard = number
                self._refresh_within(0.0)
            elif number > revision:
                self._others.append((number, settings))

    def after_fork(self) -> None:  # in the child of a fork
        """Begin anew: the stream is the parent's."""
        self._connected_at, self._losses = None, 0

    def follow(self) -> Flow[None]:
        """Follow the changes as long as the client runs and the service offers it."""
        while self._is_open() and self.is_offered:
            self._events = SSEParser()
            reply = yield OpenStream(protocol.changes(self._revision), self._take, _PATIENCE)
            seconds = self._note_loss(reply)
            if self._is_open():
                yield Pause(seconds)

    def _take(self, chunk: bytes) -> bool:
        """Take some bytes of the stream; tells whether to go on."""
        if self._connected_at is None:
            self._connected_at = self._clock()
            logger.info("following changes as they are made")
        for event in self._events.take(chunk):
            self._hear(event)
        return self._is_open() and self.is_offered

    def _hear(self, event: Event) -> None:
        if event.id is None or not event.id.isdecimal() or len(event.id) > _DIGITS:
            return
        self._revision = int(event.id)
        if event.name == "reset":
            self._heard = self._revision
            self._refresh_within(0.0)
        elif event.name == "change":
            try:
                change = _CHANGE.decode(event.data)
            except msgspec.DecodeError:
                change = _ChangeData(all=True)  # of a later version of the service, perhaps
            names = self._names()
            if change.all or any(name in names for name in change.settings):
                self._heard = self._revision
                within = change.within if 0 <= change.within < _REFUSED_RETRY else 0.0
                self._refresh_within(max(within * self._random(), self._pace()))
            else:
                self._others.append((self._revision, change.settings))

    def _pace(self) -> float:
        """Seconds to wait so that many changes in a row do not cost a refresh each."""
        now = self._clock()
        self._at_once = min(_AT_ONCE, self._at_once + now - self._paced_at)
        self._paced_at = now
        if self._at_once < 1:
            return 1 - self._at_once
        self._at_once -= 1
        return 0.0

    def _note_loss(self, reply: Reply) -> float:
        """Note that a stream has ended, or was not to be had; gives the seconds to wait."""
        connected_at, self._connected_at = self._connected_at, None
        if connected_at is not None:
            if self._is_open():
                logger.info("the stream of changes has ended (%s); changes arrive at intervals", _why(reply))
            self._losses = 0 if self._clock() - connected_at > _STABLE else self._losses
        elif not isinstance(reply, NoResponse) and 300 <= reply.status < 500:
            return _REFUSED_RETRY * (1 + self._random()) / 2
        self._losses += 1
        return min(self._max_backoff, _FIRST_RETRY * 2.0 ** min(self._losses - 1, 30)) * self._random()


def _why(reply: Reply) -> str:
    return type(reply.error).__name__ if isinstance(reply, NoResponse) else "the service ended it"
