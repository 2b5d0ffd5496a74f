"""A parser of server-sent events, as the HTML standard defines them. It never takes more memory than its limits.

Libraries for this have no limits: they collect an event, or a line, however long it is.
"""

import re
from typing import Final

import msgspec

MAX_EVENT_BYTES: Final = 1 << 20
"""The size of the data of an event, and of a line of any kind."""
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class StreamError(Exception):
    """A stream that cannot be used; the message gives the reason."""


def silence(seconds: float) -> StreamError:
    """Return the error of a stream without an event or a comment for some seconds."""
    return StreamError(f"no event or comment for {seconds:g} seconds")


class Event(msgspec.Struct, frozen=True):
    """One event."""

    name: str
    id: str
    """The last id so far, which is that of an earlier event if this one has none."""
    data: str


class SSEParser:
    """Parses a stream of server-sent events. The field `retry` is ignored, as the client has its own back-off."""

    def __init__(self) -> None:
        self._line = bytearray()
        """The beginning of a line that has no end yet."""
        self._is_first_line = True
        self._skips_line_feed = False
        """True if the last byte was a CR: a LF after it belongs to the same line end."""
        self._name, self._id = "", ""
        self._data: list[str] = []
        self._size = 0
        """The size of the data so far."""
        self.last_id = ""
        """The last id of a complete event, also if that had no data."""
        self.count = 0
        """The number of events and comments so far. Other bytes do not show that the stream works."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete with some more bytes.

        Raises:
            StreamError: An event or a line is too long.
        """
        if self._skips_line_feed and chunk:
            chunk, self._skips_line_feed = chunk.removeprefix(b"\n"), False
        *ends, rest = _LINE_END.split(chunk)
        self._skips_line_feed = self._skips_line_feed or chunk.endswith(b"\r")
        events = []
        for end in ends:
            self._extend_line(end)
            line = bytes(self._line)
            self._line.clear()
            if self._is_first_line:
                line, self._is_first_line = line.removeprefix(_BYTE_ORDER_MARK), False
            if (event := self._feed_line(line.decode(errors="replace"))) is not None:
                events.append(event)
        self._extend_line(rest)
        return events

    def _extend_line(self, part: bytes) -> None:
        self._line += part
        if self._size + len(self._line) > MAX_EVENT_BYTES:
            raise StreamError(f"an event has more than {MAX_EVENT_BYTES:,} bytes")

    def _feed_line(self, line: str) -> Event | None:
        if not line:
            return self._end_event()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.count += 1  # a comment
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
                self._size += len(value) + 1
            case "id" if "\0" not in value:
                self._id = value
        return None

    def _end_event(self) -> Event | None:
        name, data = self._name or "message", self._data
        self.count += bool(data) or self._id != self.last_id
        self.last_id = self._id
        self._name, self._data, self._size = "", [], 0
        return Event(name, self.last_id, "\n".join(data)) if data else None
