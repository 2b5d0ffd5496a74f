"""Asking for the rules of many settings: in how many queries, and what "unchanged" is worth.

A URL has a longest length and an answer a largest size, so one question may take several queries. Each of them has an
ETag of its own; they are remembered together, and only when all that they brought has been put in place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS, Flow, Pause, Reply, Request, exchange
from heksher_client._core.refresh.responses import unexpected
from heksher_client.exceptions import UnexpectedResponseError

_MAX_TARGET: Final = 4000
"""The longest path and query that is sent, in characters. Common servers and proxies stop at 8 KiB with the headers."""
_NO_LIMIT: Final = 1_000_000
"""Settings in one query."""
_GOOD_ASKS_TO_GROW: Final = 60
"""How often all goes well before twice as many settings are asked for at once: the trouble may have passed."""
MAX_FILTER: Final = 1000
"""The part of it that context filters may take, in characters."""
_FEW_NAMES: Final = 50
"""So many are asked for in one query. More are shared out over as many queries as are sent at once anyway: no answer is
larger than need be, and where one setting changes, the others' answers are still good."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One query out of those that together ask for all settings."""

    names: tuple[str, ...]
    target: str


@dataclass(slots=True)
class Answers:
    """What the queries of one refresh brought."""

    settings: dict[str, msgspec.Raw] = field(default_factory=dict)
    """The answers, unread, by the names that the service answered under."""
    changed: list[str] = field(default_factory=list)
    """The names that were asked for in the queries that were not answered with "unchanged"."""
    missing: set[str] = field(default_factory=set)
    """The names that the service does not have."""
    too_large: dict[str, UnexpectedResponseError] = field(default_factory=dict)
    """What the service said of settings that are too much for one answer each by itself."""
    revisions: list[int | None] = field(default_factory=list)
    """Those of the answers."""
    _answered: set[str] = field(default_factory=set)
    _etags: dict[str, str] = field(default_factory=dict)

    @property
    def revision(self) -> int | None:
        """The revision up to which all answers know of all changes; None where one of them does not tell."""
        known = [revision for revision in self.revisions if revision is not None]
        return min(known) if known and len(known) == len(self.revisions) else None

    def is_open(self, name: str) -> bool:
        """Whether a name is still to be asked for."""
        return not (name in self._answered or name in self.missing or name in self.too_large)


class Queries:
    """Remembers how much the service can answer at once, and the ETags of what it answered."""

    def __init__(self) -> None:
        self._etags: dict[str, str] = {}
        self._most_names = _NO_LIMIT
        """In one query; the number that the service could answer, where it could not answer more."""
        self._asks_without_trouble = 0

    def ask(self, names: Iterable[str], context_filter: str, is_current: Callable[[str], bool]) -> Flow[Answers]:
        """Ask for settings, in as few queries as the service can answer.

        A query may be too much for it: too long, or (a 500) with too many rules. Then smaller ones are tried, and the
        size that worked is remembered. But a 500 may as well mean a service in trouble, so until the first answer there
        is one query at a time, and two single settings that it cannot answer are proof enough.

        Args:
            names: The settings to ask for.
            context_filter: As it goes into the query.
            is_current: Whether a setting still has what was made of the last answer, and would have the same made of it
                again. Only then "unchanged" means that there is nothing to do.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: There is no answer, or it is none.
        """
        answers = Answers()
        names = list(names)
        most = self._most_names
        is_probing = False
        while names:
            parts = _parts(names, context_filter, most)[: 1 if is_probing else None]
            requests = [protocol.query(part.target, self._usable_etag(part, is_current)) for part in parts]
            replies = yield from exchange(*requests)
            too_much = []
            for part, request, reply in zip(parts, requests, replies, strict=True):
                yield Pause()  # Taking a large answer apart is one step, of a few milliseconds for 10 MB.
                if missing := protocol.missing_names(reply, part.names):
                    answers.missing |= missing
                elif protocol.is_too_much(reply):
                    too_much.append(len(part.names))
                    if len(part.names) == 1:
                        answers.too_large[part.names[0]] = unexpected(request, reply)
                else:
                    _take(part, request, reply, answers)
            if len(answers.too_large) > 1 and not answers._answered:
                raise next(iter(answers.too_large.values()))
            names = list(filter(answers.is_open, names))
            if too_much and names:
                most = max(1, (max(too_much) if max(too_much) > 1 else len(names)) // 2)
            is_probing = bool(too_much) and not answers._answered
        self._learn(most)
        return answers

    def _learn(self, most: int) -> None:
        """Keep the size with which all was answered, and try a larger one after a while."""
        self._asks_without_trouble = self._asks_without_trouble + 1 if most == self._most_names else 0
        if self._asks_without_trouble >= _GOOD_ASKS_TO_GROW:
            self._asks_without_trouble = 0
            most = min(_NO_LIMIT, most * 2)
        self._most_names = most

    def remember(self, answers: Answers) -> None:
        """Keep the ETags. To be called when everything is in place: one that is kept too early hides its answer."""
        self._etags = answers._etags

    def _usable_etag(self, part: _Part, is_current: Callable[[str], bool]) -> str | None:
        etag = self._etags.get(part.target)
        return etag if etag is not None and all(map(is_current, part.names)) else None


def _parts(names: Iterable[str], context_filter: str, most: int) -> list[_Part]:
    names = list(names)
    shares = _shares(len(names))
    # By what a name is, not by where it stands: so a new name changes the questions of one share, and not all of those
    # behind it; and all processes of a program ask the same questions.
    shared: list[list[str]] = [[] for _ in range(shares)]
    for name in names:
        shared[crc32(name.encode()) % shares].append(name)
    room = _MAX_TARGET - len(protocol.query_target((), context_filter))
    parts = [part for share in shared for part in _fitting(share, room, most)]
    return [_Part(tuple(part), protocol.query_target(part, context_filter)) for part in parts]


def _shares(names: int) -> int:
    """How many questions to make of so many names, where their length does not demand more."""
    return next(
        n for n in (1, 2, 4, MAX_CONCURRENT_REQUESTS) if n == MAX_CONCURRENT_REQUESTS or names <= n * _FEW_NAMES
    )


def _fitting(names: Iterable[str], room: int, most: int) -> list[list[str]]:
    parts: list[list[str]] = []
    length = 0
    for name in names:
        length += len(name) + 1
        if not parts or length > room or len(parts[-1]) >= most:
            parts.append([])
            length = len(name)
        parts[-1].append(name)
    return parts


def _take(part: _Part, request: Request, reply: Reply, answers: Answers) -> None:
    answer = protocol.parse_query(request, reply)
    answers._answered.update(part.names)
    answers.revisions.append(protocol.revision(reply))
    etag: str | None
    if answer is None:
        etag = request.headers["If-None-Match"]
    else:
        etag = answer.etag
        answers.settings.update(answer.settings)
        answers.changed += part.names
    if etag is not None:
        answers._etags[part.target] = etag
