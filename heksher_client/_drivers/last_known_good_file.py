"""What goes into the file with what was last received, and what is taken from it.

Several processes may share it, and several programs. Each adds what it has to what the others have. Where they track
different contexts a setting has several answers, as one of them may lack rules that another one needs.
"""

import os
import time
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Final

from heksher_client._core.refresh.last_known_good import NotStoredError, ResponseKey, StoredResponse, StoredResponses
from heksher_client._core.settings.context import Tracking
from heksher_client._drivers.last_known_good_format import Answer, Content, LastKnownGoodFormat, Look, ReplaceableError

_CONFIRMED_EVERY: Final = 600.0
"""Seconds after which it is noted again that something still holds."""
_MOST_ANSWERS: Final = 8
"""For one setting; those that were confirmed last are kept."""
_KEPT_FOR: Final = 30 * 24 * 3600.0
"""Seconds for which an answer is kept that nobody confirms: others may use it for longer than this client."""


class LastKnownGoodFile:
    """What one client keeps in a file. It is used by one thread at a time."""

    def __init__(self, path: str | os.PathLike[str], max_age: float, service_url: str) -> None:
        """Take a path; nothing is read or written yet.

        Args:
            path: Of the file.
            max_age: Seconds after which what is in it is no longer used.
            service_url: Without user name and password.

        Raises:
            ValueError: No file can have that path.
        """
        self._file = LastKnownGoodFormat(path, service_url)
        self._max_age = max_age
        self._confirmed_every = min(_CONFIRMED_EVERY, max_age / 10)
        self._held: Mapping[str, ResponseKey] = {}
        """What was held when the file was last brought up to date."""
        self._order: tuple[str, ...] = ()
        self._look: Look = None
        """Of the file then."""
        self._confirmed = 0.0
        """When that was, in seconds since 1970."""

    def load(self) -> StoredResponses:
        """As `LastKnownGoodStore.load`."""
        content, _ = self._file.read()
        now = time.time()
        kept = {
            name: [
                StoredResponse(one.content, content.trackings[index], max(0.0, now - one.confirmed))
                for index, one in answers.items()
            ]
            for name, answers in content.settings.items()
        }
        ages = [one.age for several in kept.values() for one in several]
        if ages and min(ages) > self._max_age:
            raise NotStoredError(
                f"{self._file.path} is too old: {min(ages):.0f} seconds, and {self._max_age:.0f} are allowed"
            )
        young = {name: [one for one in several if one.age <= self._max_age] for name, several in kept.items()}
        return StoredResponses(young, content.order)

    def save(
        self, new: Mapping[str, StoredResponse], held: Mapping[str, ResponseKey], order: tuple[str, ...] | None
    ) -> Collection[str]:
        """As `LastKnownGoodStore.save`."""
        now = time.time()
        is_same = not new and order in (None, self._order) and held.items() <= self._held.items()
        is_confirmed = abs(now - self._confirmed) < self._confirmed_every
        if is_same and is_confirmed and self._look == self._file.look() is not None:
            return ()
        content, look = self._former()
        update = _Update(content, now, confirmed=self._confirmed, confirmed_every=self._confirmed_every)
        if order not in (None, content.order):
            content.order, update.is_any = order or (), True
        for name, one in new.items():
            update.put(name, one)
        lacking = {name for name, one in held.items() if name not in new and not update.confirm(name, one)}
        if update.is_any:
            update.drop(max(self._max_age, _KEPT_FOR))
            look = self._file.write(content)
        self._held = {name: one for name, one in held.items() if name not in lacking}
        self._order, self._look, self._confirmed = content.order, look, now
        return lacking

    def _former(self) -> tuple[Content, Look]:
        """What there is to be added to."""
        try:
            return self._file.read()
        except (FileNotFoundError, ReplaceableError):
            return Content(), None


class _Update:
    """What a client changes in the file."""

    def __init__(self, content: Content, now: float, *, confirmed: float, confirmed_every: float) -> None:
        self._content, self._now = content, now
        self._confirmed, self._confirmed_every = confirmed, confirmed_every
        self._indexes: dict[int, int] = {}
        """Of trackings, by what identifies the objects: most settings share one, and it may be large."""
        self.is_any = False
        """Whether anything has changed that is worth writing."""

    def put(self, name: str, new: StoredResponse) -> None:
        """Have an answer in it, instead of those that were received while less was tracked."""
        index, answers = self._index(new.tracking), self._content.settings.setdefault(name, {})
        former = answers.get(index)
        is_there = former is not None and former.content == new.content
        if not (is_there and self._is_confirmed(answers[index])):
            answers[index] = Answer(index, self._now, new.content)
            self.is_any = True
        trackings = self._content.trackings
        for other in [i for i in answers if i != index and new.tracking.covers(trackings[i])]:
            del answers[other]
            self.is_any = True
        while len(answers) > _MOST_ANSWERS:
            del answers[min(answers, key=lambda i: answers[i].confirmed)]

    def confirm(self, name: str, held: ResponseKey) -> bool:
        """Note that an answer holds now; tells whether it is there."""
        index, answers = self._index(held.tracking), self._content.settings.get(name, {})
        answer = answers.get(index)
        if answer is None:
            return len(answers) >= _MOST_ANSWERS  # There is no room for it, as long as the others are there.
        if self._confirmed < answer.confirmed <= self._now:
            return True  # Another process has seen to it since this one did.
        if sha256(answer.content).digest() != held.digest:
            return False
        if not self._is_confirmed(answer):
            answers[index] = Answer(index, self._now, answer.content)
            self.is_any = True
        return True

    def drop(self, max_age: float) -> None:
        """Remove what nobody has confirmed for too long."""
        for name, answers in list(self._content.settings.items()):
            for index in [i for i, answer in answers.items() if self._now - answer.confirmed > max_age]:
                del answers[index]
            if not answers:
                del self._content.settings[name]

    def _is_confirmed(self, answer: Answer) -> bool:
        """Whether it need not be noted yet that an answer still holds."""
        return abs(self._now - answer.confirmed) < self._confirmed_every

    def _index(self, tracking: Tracking) -> int:
        if id(tracking) not in self._indexes:
            trackings = self._content.trackings
            if tracking not in trackings:
                trackings.append(tracking)
            self._indexes[id(tracking)] = trackings.index(tracking)
        return self._indexes[id(tracking)]
