"""Answers to queries: how it is told that one still holds, and what is kept of those that were given.

Each setting has a tag, which is another one after each change. So an ETag comes from the tags of the settings that are
asked for, without their rules being read; and an answer is put together from what was said of each setting before, as
long as its tag is the same.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import orjson
from sqlalchemy import Connection, select

from heksher_client.service.schema import ALIASES, SETTINGS, STATE

_MOST_BYTES: Final = 1 << 26
"""Of all that is kept."""
_MOST_QUESTIONS: Final = 10_000


class Question(NamedTuple):
    """What a query asks for."""

    settings: str | None
    context_filters: str
    include_metadata: bool


class State(NamedTuple):
    """What every answer depends on."""

    revision: int
    context_features_tag: str


def state(connection: Connection) -> State:
    """The state at the beginning of the transaction: one small row."""
    return State(*connection.execute(select(STATE.c.revision, STATE.c.context_features_tag)).one())


class UnknownSettingsError(Exception):
    """Some of the names that are asked for are none of settings."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the following are not setting names: {list(names)}")


def tags(connection: Connection, settings: str | None) -> dict[str, str]:
    """The tags of the settings that are asked for, by the names that they are answered under, and in their order.

    Raises:
        UnknownSettingsError: There are not all of them.
    """
    query = select(SETTINGS.c.name, SETTINGS.c.tag)
    if settings is None:
        return dict(sorted(map(tuple, connection.execute(query))))
    asked = [name for name in dict.fromkeys(settings.split(",")) if name]
    found = dict(map(tuple, connection.execute(query.where(SETTINGS.c.name.in_(asked)))))
    if others := [name for name in asked if name not in found]:
        by_alias = select(ALIASES.c.alias, SETTINGS.c.name, SETTINGS.c.tag).join_from(ALIASES, SETTINGS)
        known = connection.execute(by_alias.where(ALIASES.c.alias.in_(others))).all()
        if unknown := set(others) - {alias for alias, _, _ in known}:
            raise UnknownSettingsError([name for name in others if name in unknown])
        found |= {name: tag for _, name, tag in known}
    return dict(sorted(found.items()))


def etag_of(now: State, question: Question, tags: Mapping[str, str]) -> str:
    """The ETag of a question's answer: another one whenever the answer might be another one."""
    text = orjson.dumps([now.context_features_tag, list(tags.items()), list(question)])
    return f'"{sha256(text).hexdigest()[:32]}"'


class Part(NamedTuple):
    """What tells one answer for a single setting from all others."""

    tag: str
    context_features_tag: str
    context_filters: str
    include_metadata: bool


class Answers:
    """What one instance has answered; what was used last stays. Used by many threads at once."""

    def __init__(self) -> None:
        self._etags: OrderedDict[Question, tuple[State, str]] = OrderedDict()
        self._parts: OrderedDict[Part, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def etag(self, question: Question, now: State) -> str | None:
        """The ETag of a question's answer, if nothing at all has changed since it was found out."""
        with self._lock:
            then, etag = self._etags.get(question, (None, None))
            return etag if then == now else None

    def remember(self, question: Question, now: State, etag: str) -> None:
        """Keep the ETag of a question's answer."""
        with self._lock:
            self._etags[question] = now, etag
            self._etags.move_to_end(question)
            if len(self._etags) > _MOST_QUESTIONS:
                self._etags.popitem(last=False)

    def part(self, part: Part) -> bytes | None:
        """What was answered for a setting, in JSON, if it is still here."""
        with self._lock:
            if part in self._parts:
                self._parts.move_to_end(part)
            return self._parts.get(part)

    def keep(self, part: Part, body: bytes) -> None:
        """Keep what is answered for a setting."""
        with self._lock:
            self._bytes += len(body) - len(self._parts.pop(part, b""))
            self._parts[part] = body
            while self._bytes > _MOST_BYTES:
                self._bytes -= len(self._parts.popitem(last=False)[1])
