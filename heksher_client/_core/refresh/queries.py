"""Queries for the rules of many settings: how many to send, and when an unmodified response (304) counts.

A URL has a maximum length and a response a maximum size, so it may take several queries. Each has an ETag of its own;
the ETags are stored together, and only when everything that the responses brought was applied.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import (
    MAX_CONCURRENT_REQUESTS,
    Exchange,
    Flow,
    Pause,
    Reply,
    Request,
    Response,
)
from heksher_client._core.refresh.positions import Position, Validity, position
from heksher_client._core.refresh.protocol import QueryBody
from heksher_client._core.refresh.responses import unexpected_response
from heksher_client.exceptions import HeksherError, UnexpectedResponseError

_MAX_TARGET: Final = 4000
"""Characters of path and query. Common servers and proxies accept 8 KiB, including the headers."""
MAX_FILTER: Final = 1000
"""Characters of it that context filters may take."""
_UNLIMITED: Final = 1_000_000
"""Settings in one query."""
_SUCCESSES_TO_GROW: Final = 60
"""Successful rounds before twice as many settings go into one query: the service may have recovered."""
_TOO_MANY_REQUESTS: Final = 429
_LARGE: Final = 1 << 20
"""Bytes of a response. Parsing one of 10 MB takes a few milliseconds, while other work waits."""
_FEW_NAMES: Final = 50
"""Up to this many settings go into one query. More are split into as many queries as are sent at once anyway: so
responses are small, and if one setting changes, most of the other responses are still valid."""


class _Query(msgspec.Struct, frozen=True):
    """One of the queries that together cover all settings."""

    names: tuple[str, ...]
    target: str


class _Part(msgspec.Struct):
    """The successful response to one query."""

    query: _Query
    names: Collection[str]
    """The names in the response; none if nothing was modified."""
    etag: str | None
    validity: Validity


class QueryResults(msgspec.Struct):
    """The results of all queries of one refresh."""

    settings: dict[str, msgspec.Raw] = {}
    """The responses, not decoded yet, by the names that the service used."""
    modified: list[str] = []
    """The names in the queries that were not answered with 304."""
    missing: set[str] = set()
    """The names that the service does not have."""
    failed: dict[str, HeksherError] = {}
    """The errors of settings whose query failed, and cannot or need not be split now."""
    parts: dict[str, _Part] = {}
    """The responses, by the target of the query."""
    answered: set[str] = set()
    """The names that a successful query contained."""

    @property
    def etags(self) -> dict[str, str]:
        """By the target of the query."""
        return {target: part.etag for target, part in self.parts.items() if part.etag is not None}

    @property
    def has_responses(self) -> bool:
        """True if a query was successful."""
        return bool(self.answered)

    @property
    def is_refused(self) -> bool:
        """True if all queries were refused, which takes no time, and not because there are too many."""
        return not self.has_responses and all(map(_is_refusal, self.failed.values()))

    def is_open(self, name: str) -> bool:
        """True if there is no result for a name yet."""
        return not (name in self.answered or name in self.missing or name in self.failed)

    def add(self, query: _Query, request: Request, reply: Reply) -> bool:
        """Add the reply to a query. Return False if the query was too large."""
        if missing := protocol.missing_names(reply, query.names):
            self.missing |= missing
            return True
        if protocol.is_too_large(reply):
            if len(query.names) == 1:
                self.failed[query.names[0]] = unexpected_response(request, reply)
            return False
        try:
            body, until = protocol.parse_query(request, reply), position(reply)
        except HeksherError as error:
            self.failed.update(dict.fromkeys(query.names, error))
            return True
        self.answered.update(query.names)
        if body is None:
            etag: str | None = request.headers["If-None-Match"]
            self.parts[query.target] = _Part(query, (), etag, Validity(None, until))
        else:
            self._add_body(query, body, until)
        return True

    def repeat(self, part: _Part, request: Request, reply: Reply) -> None:
        """Add the reply to a query that was sent again. One that is not a usable response changes nothing."""
        try:
            body, until = protocol.parse_query(request, reply), position(reply)
        except HeksherError:
            return
        if body is None:
            part.validity = part.validity._replace(until=until)
        else:
            for name in part.names:
                self.settings.pop(name, None)
            self.modified = [name for name in self.modified if name not in part.query.names]
            self._add_body(part.query, body, until)

    def _add_body(self, query: _Query, body: QueryBody, received: Position | None) -> None:
        self.settings.update(body.settings)
        self.modified += query.names
        self.parts[query.target] = _Part(query, tuple(body.settings), body.etag, Validity(received, received))


class Queries:
    """Sends queries, and remembers how much the service can respond with at once, and the ETags of its responses."""

    def __init__(self) -> None:
        self.etags: dict[str, str] = {}
        """The ETags of results that were applied. An ETag that is stored earlier would hide its response."""
        self._max_names = _UNLIMITED
        """In one query. Lower once the service could not answer a larger one."""
        self._successes = 0
        self._suspects: frozenset[str] = frozenset()
        """The settings whose last query failed, while there were responses to others. They have queries of their own,
        which are sent last."""
        self._failures = 0
        """How often in a row all queries failed."""
        self._is_split = False
        """True to send many queries once: one of the settings may be the reason that all failed together."""

    def run(
        self,
        names: Iterable[str],
        context_filter: str,
        current: frozenset[str],
        *,
        is_retry: bool,
        is_working: bool,
    ) -> Flow[QueryResults]:
        """Query settings, with as few queries as the service can answer.

        A query may be too large for it: too long, or (a 500) with too many rules. Then smaller ones are tried, and the
        size that worked is remembered. But a 500 may also mean that the service is failing. So until the first success
        one query is sent at a time, and two settings that fail are enough to give up.

        A query that fails in any other way, for example without a response in time, is not split at once, as that could
        take as long again. If there are responses to others, its settings have up to ten queries of their own from then
        on, until each of them has had a response. If there are none, but the service has responded to another request,
        the queries of the next refresh are split into ten, or at once if all were refused (400 to 499), which takes no
        time. This finds a single setting that prevents the response for all. It is of no use if the service fails, so
        it is done after the first, second, fourth, eighth such refresh only.

        Args:
            names: The settings to query.
            context_filter: The value of the query parameter.
            current: The settings with published rules that their last response would be decoded to again. Only for
                these an unmodified response means that there is nothing to do.
            is_retry: Whether these are single settings that failed. Then the size that works is not remembered.
            is_working: Whether the service has responded to another request of this refresh.

        Raises:
            HeksherError: All queries failed, and it is not a retry.
        """
        names = sorted(names)
        limit = _tenth(names) if self._is_split else _UNLIMITED
        results, max_names = yield from self._run(names, context_filter, current, limit, is_retry=is_retry)
        is_due = is_working and not is_retry and _is_power_of_two(self._failures + 1)
        if is_due and results.is_refused and len(results.failed) > 1:
            results, max_names = yield from self._run(names, context_filter, current, _tenth(names))
        if not is_retry:
            self._record(results, max_names, is_working=is_working)
        return results

    def _run(
        self,
        names: Sequence[str],
        context_filter: str,
        current: frozenset[str],
        limit: int,
        *,
        is_retry: bool = False,
    ) -> Flow[tuple[QueryResults, int]]:
        """Query settings, with at most so many in one query, and return the results and the number that worked."""
        results = QueryResults()
        max_names = self._max_names
        is_probing = False
        while names:
            queries = self._split(names, context_filter, min(max_names, limit))[: 1 if is_probing else None]
            too_large = yield from self._send(queries, current, results)
            if len(results.failed) > 1 and not results.has_responses:
                break
            names = list(filter(results.is_open, names))
            if too_large and names:
                max_names = max(1, (max(too_large) if max(too_large) > 1 else len(names)) // 2)
            is_probing = bool(too_large) and not results.has_responses
        given_up = list(filter(results.is_open, names))
        if results.has_responses or given_up or is_retry:
            self._suspects = self._suspects.difference(results.answered, results.missing).union(results.failed)
        if given_up:
            results.failed.update(dict.fromkeys(given_up, next(iter(results.failed.values()))))
        return results, max_names

    def _send(self, queries: Sequence[_Query], current: frozenset[str], results: QueryResults) -> Flow[list[int]]:
        """Send queries, and add the replies to the results. Return the sizes of those that were too large."""
        requests = [
            protocol.query(query.target, self.etags.get(query.target) if current.issuperset(query.names) else None)
            for query in queries
        ]
        replies = yield Exchange(tuple(requests))
        too_large = []
        for query, request, reply in zip(queries, requests, replies, strict=True):
            if isinstance(reply, Response) and len(reply.content) > _LARGE:
                yield Pause()
            if not results.add(query, request, reply):
                too_large.append(len(query.names))
        return too_large

    def _record(self, results: QueryResults, max_names: int, *, is_working: bool) -> None:
        """Record how the queries of a refresh ended.

        Raises:
            HeksherError: All failed.
        """
        if results.has_responses or not results.failed:
            self._failures, self._is_split = 0, False
            self._adapt(max_names)
            return
        error = next(iter(results.failed.values()))
        self._failures += 1
        has_limit = isinstance(error, UnexpectedResponseError) and error.status == _TOO_MANY_REQUESTS
        self._is_split = is_working and not has_limit and not results.is_refused and _is_power_of_two(self._failures)
        raise error

    def _split(self, names: Sequence[str], context_filter: str, max_names: int) -> list[_Query]:
        """Split names into queries, those that are suspect apart."""
        suspects = [name for name in names if name in self._suspects]
        others = [name for name in names if name not in self._suspects]
        apart = _split(tuple(suspects), context_filter, min(max_names, _tenth(suspects)))
        return [*_split(tuple(others), context_filter, max_names), *apart]

    def repeat(self, results: QueryResults, targets: Collection[str]) -> Flow[None]:
        """Send queries again whose responses are older than those to others."""
        parts = [part for target, part in results.parts.items() if target in targets]
        requests = tuple(protocol.query(part.query.target, part.etag) for part in parts)
        replies = yield Exchange(requests)
        for part, request, reply in zip(parts, requests, replies, strict=True):
            if isinstance(reply, Response) and len(reply.content) > _LARGE:
                yield Pause()
            results.repeat(part, request, reply)

    def count_success(self) -> None:
        """Count a refresh that needed no query: the service works."""
        self._adapt(self._max_names)

    def _adapt(self, max_names: int) -> None:
        """Keep the size that worked, and try a larger one after many successes."""
        self._successes = self._successes + 1 if max_names == self._max_names else 0
        if self._successes >= _SUCCESSES_TO_GROW:
            self._successes = 0
            max_names = min(_UNLIMITED, max_names * 2)
        self._max_names = max_names


def _is_refusal(error: HeksherError) -> bool:
    """Return True if a request was refused for what it is, and not because there are too many."""
    status = error.status if isinstance(error, UnexpectedResponseError) else None
    return status is not None and 400 <= status < 500 and status != _TOO_MANY_REQUESTS


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _tenth(names: Sequence[str]) -> int:
    """Return how many names each of as many queries has as are sent at once."""
    return max(1, -(-len(names) // MAX_CONCURRENT_REQUESTS))


@lru_cache(maxsize=4)  # It takes a while for thousands of names, which are the same in most refreshes.
def _split(names: tuple[str, ...], context_filter: str, max_names: int) -> tuple[_Query, ...]:
    """Split names into queries.

    A name goes into a query by its hash, and not by its position: so a new name changes one query and not all that
    follow, and all processes of a program send the same queries.
    """
    count = next(
        n for n in (1, 2, 4, MAX_CONCURRENT_REQUESTS) if n == MAX_CONCURRENT_REQUESTS or len(names) <= n * _FEW_NAMES
    )
    shares: list[list[str]] = [[] for _ in range(count)]
    for name in names:
        shares[crc32(name.encode()) % count].append(name)
    max_length = _MAX_TARGET - len(protocol.query_target((), context_filter))
    parts = [part for share in shares for part in _split_by_length(share, max_length, max_names)]
    return tuple(_Query(tuple(part), protocol.query_target(part, context_filter)) for part in parts)


def _split_by_length(names: Iterable[str], max_length: int, max_names: int) -> list[list[str]]:
    parts: list[list[str]] = []
    length = 0
    for name in names:
        length += len(name) + 1
        if not parts or length > max_length or len(parts[-1]) >= max_names:
            parts.append([])
            length = len(name)
        parts[-1].append(name)
    return parts
