"""The store of last known good responses in a file: which are stored, kept, and restored.

Several processes, and several programs, can share a file. Each of them merges its responses into those of the others.
Programs that track different contexts store different responses for a setting, as one may lack rules of another one.
"""

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import Final

from heksher_client._core.refresh.last_known_good import NotStoredError, ResponseKey, StoredResponse, StoredResponses
from heksher_client._core.settings.context import Tracking
from heksher_client._drivers.last_known_good_file import (
    Content,
    LastKnownGoodFile,
    ReplaceableError,
    StatSignature,
    StoredRow,
)

_CONFIRM_INTERVAL: Final = 600.0
"""Seconds after which the time of an unchanged response is updated in the file."""
_MAX_RESPONSES: Final = 8
"""Per setting. The least recently confirmed ones are dropped."""
_RETENTION: Final = 30 * 24 * 3600.0
"""Seconds for which an unconfirmed response stays in the file: other programs may use it for longer than this one."""


class FileStore:
    """A `LastKnownGoodStore` in a file, for one client. It is used by one thread at a time."""

    def __init__(self, file: LastKnownGoodFile, max_age: float, wall_clock: Callable[[], float]) -> None:
        """Prepare to use a file, which is neither read nor written yet.

        Args:
            file: The file.
            max_age: Seconds for which a response can be restored after it was last confirmed.
            wall_clock: The seconds since 1970.
        """
        self._file, self._max_age, self._wall_clock = file, max_age, wall_clock
        self._confirm_interval = min(_CONFIRM_INTERVAL, max_age / 10)
        self._stored: Mapping[str, ResponseKey] = {}
        """What the settings of this client had when the file was last updated."""
        self._order: tuple[str, ...] = ()
        self._signature: StatSignature | None = None
        """The signature of the file after that update."""
        self._confirmed = 0.0
        """The time of that update, in seconds since 1970."""

    def load(self) -> StoredResponses:
        """See `LastKnownGoodStore.load`."""
        content, _ = self._file.read()
        now = self._wall_clock()
        responses = {
            name: [
                StoredResponse(
                    row.content, content.trackings[index], max(0.0, now - row.confirmed), position=row.position
                )
                for index, row in rows.items()
            ]
            for name, rows in content.settings.items()
        }
        ages = [response.age for several in responses.values() for response in several]
        if ages and min(ages) > self._max_age:
            raise NotStoredError(
                f"{self._file.path} is too old: {min(ages):.0f} seconds, the maximum is {self._max_age:.0f}"
            )
        valid = {name: [one for one in several if one.age <= self._max_age] for name, several in responses.items()}
        return StoredResponses(valid, content.order)

    def save(
        self, new: Mapping[str, StoredResponse], held: Mapping[str, ResponseKey], order: tuple[str, ...] | None
    ) -> Collection[str]:
        """See `LastKnownGoodStore.save`."""
        now = self._wall_clock()
        is_unchanged = not new and order in (None, self._order) and held.items() <= self._stored.items()
        is_confirmed = abs(now - self._confirmed) < self._confirm_interval
        if is_unchanged and is_confirmed and self._signature == self._file.signature() is not None:
            return ()
        try:
            content, signature = self._file.read()
        except (FileNotFoundError, ReplaceableError):
            content, signature = Content(), None
        merge = _Merge(content, now, last_confirmed=self._confirmed, confirm_interval=self._confirm_interval)
        if order not in (None, content.order):
            content.order, merge.is_changed = order or (), True
        for name, response in new.items():
            merge.store(name, response)
        missing = {name for name, one in held.items() if name not in new and not merge.confirm(name, one)}
        if merge.is_changed:
            merge.drop_older_than(max(self._max_age, _RETENTION))
            signature = self._file.write(content)
        self._stored = {name: one for name, one in held.items() if name not in missing}
        self._order, self._signature, self._confirmed = content.order, signature, now
        return missing


class _Merge:
    """The merge of one client's responses into the content of the file."""

    def __init__(self, content: Content, now: float, *, last_confirmed: float, confirm_interval: float) -> None:
        self._content, self._now = content, now
        self._last_confirmed, self._confirm_interval = last_confirmed, confirm_interval
        self._indexes: dict[int, int] = {}
        """The indexes of trackings by the `id` of the object: most settings share one, which may be large."""
        self.is_changed = False
        """Whether the file must be written."""

    def store(self, name: str, new: StoredResponse) -> None:
        """Store a response, and drop those that were received while less was tracked."""
        index, rows = self._index(new.tracking), self._content.settings.setdefault(name, {})
        former = rows.get(index)
        is_stored = former is not None and former.content == new.content
        if not (is_stored and self._is_confirmed(rows[index])):
            rows[index] = StoredRow(index, self._now, new.content, new.position)
            self.is_changed = True
        trackings = self._content.trackings
        for other in [i for i in rows if i != index and new.tracking.covers(trackings[i])]:
            del rows[other]
            self.is_changed = True
        while len(rows) > _MAX_RESPONSES:
            del rows[min(rows, key=lambda i: rows[i].confirmed)]

    def confirm(self, name: str, held: ResponseKey) -> bool:
        """Record that a response is still valid. Returns False if it is not stored, and should be."""
        index, rows = self._index(held.tracking), self._content.settings.get(name, {})
        row = rows.get(index)
        if row is None:
            return len(rows) >= _MAX_RESPONSES  # Other programs confirm theirs, so there is no room for it.
        if self._last_confirmed < row.confirmed <= self._now:
            return True  # Another process has confirmed or replaced it since this one last did.
        if sha256(row.content).digest() != held.digest:
            return False
        if not self._is_confirmed(row):
            rows[index] = StoredRow(index, self._now, row.content, row.position)
            self.is_changed = True
        return True

    def drop_older_than(self, max_age: float) -> None:
        """Drop responses that were not confirmed for so many seconds."""
        for name, rows in list(self._content.settings.items()):
            for index in [i for i, row in rows.items() if self._now - row.confirmed > max_age]:
                del rows[index]
            if not rows:
                del self._content.settings[name]

    def _is_confirmed(self, row: StoredRow) -> bool:
        """Return True if the time of a row is recent enough not to be updated."""
        return abs(self._now - row.confirmed) < self._confirm_interval

    def _index(self, tracking: Tracking) -> int:
        if id(tracking) not in self._indexes:
            trackings = self._content.trackings
            if tracking not in trackings:
                trackings.append(tracking)
            self._indexes[id(tracking)] = trackings.index(tracking)
        return self._indexes[id(tracking)]
