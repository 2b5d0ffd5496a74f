"""Answers to queries that were given before, as long as they hold, and how it is told that they do."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

import orjson
from sqlalchemy import Connection, select

from heksher_client.service.schema import ALIASES, SETTINGS, STATE

_MOST_BYTES: Final = 1 << 26
"""Of all bodies together."""
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


class Missing(NamedTuple):
    """Names that are none of settings."""

    names: list[str]


def etag(connection: Connection, now: State, question: Question) -> str | Missing:
    """What an answer's ETag is: another one whenever the answer might be another one.

    It comes from the tags of the settings that are asked for, and not from the answer, which is then not needed.
    """
    tags = _tags(connection, question.settings)
    if isinstance(tags, Missing):
        return tags
    text = orjson.dumps([now.context_features_tag, sorted(tags.items()), list(question)])
    return f'"{sha256(text).hexdigest()[:32]}"'


def _tags(connection: Connection, settings: str | None) -> Mapping[str, str] | Missing:
    """The tags of the settings that are asked for, by the names that they are answered under."""
    query = select(SETTINGS.c.name, SETTINGS.c.tag)
    if settings is None:
        return dict(map(tuple, connection.execute(query)))
    asked = set(settings.split(",")) - {""}
    tags = dict(map(tuple, connection.execute(query.where(SETTINGS.c.name.in_(asked)))))
    if others := asked - tags.keys():
        known = (
            select(ALIASES.c.alias, SETTINGS.c.name, SETTINGS.c.tag)
            .join_from(ALIASES, SETTINGS)
            .where(ALIASES.c.alias.in_(others))
        )
        for alias, name, tag in connection.execute(known):
            tags[name] = tag
            others.discard(alias)
    if others:
        return Missing([name for name in dict.fromkeys(settings.split(",")) if name in others])
    return tags


class Answers:
    """The last answers of one instance, as bytes; the latest used of them stay. Used by many threads at once."""

    def __init__(self) -> None:
        self._etags: OrderedDict[Question, tuple[State, str]] = OrderedDict()
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def etag(self, question: Question, now: State) -> str | None:
        """The ETag of a question's answer, if nothing at all has changed since it was found out."""
        with self._lock:
            then, etag = self._etags.get(question, (None, None))
            return etag if then == now else None

    def remember(self, question: Question, now: State, etag: str) -> None:
        with self._lock:
            self._etags[question] = now, etag
            self._etags.move_to_end(question)
            if len(self._etags) > _MOST_QUESTIONS:
                self._etags.popitem(last=False)

    def body(self, etag: str) -> bytes | None:
        """The answer with an ETag, if it is still here."""
        with self._lock:
            if etag in self._bodies:
                self._bodies.move_to_end(etag)
            return self._bodies.get(etag)

    def keep(self, etag: str, body: bytes) -> None:
        with self._lock:
            self._bytes += len(body) - len(self._bodies.pop(etag, b""))
            self._bodies[etag] = body
            while self._bytes > _MOST_BYTES:
                self._bytes -= len(self._bodies.popitem(last=False)[1])
