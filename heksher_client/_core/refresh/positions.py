"""Positions in the history of the service's database: no response is used that is older than what was applied.

A service may have replicas that lag, or caches in front of it, so a response can be older than a former one. It is
requested again, and refused if it stays older. A database that was restored from a backup has lower revisions as well,
but a later epoch. Without an epoch, it must have been restored if all responses are older for some minutes.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from heksher_client._core.refresh.effects import (
    Effect,
    Exchange,
    Flow,
    Outdated,
    Pause,
    Reply,
    Request,
    Response,
    perform_by,
)
from heksher_client._core.refresh.protocol import CONTEXT_FEATURES
from heksher_client._logging import logger

T = TypeVar("T")

_REPEATS: Final = (0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1)
"""Seconds before a request is sent again whose response was too old: so that another replica responds, or this one
catches up."""
_MAX_OLDER_SECONDS: Final = 300.0
"""Seconds of nothing but earlier epochs, or of older revisions without an epoch, after which they are used."""
_LABEL: Final = re.compile(r"([0-9A-Za-z_-]{1,64})\.([0-9]{1,18})")


class Position(NamedTuple):
    """A position in the history of a database."""

    database: str
    """The identity of the database; empty if the service does not say it."""
    epoch: int
    """Increased whenever revisions may have begun again; 0 if the service does not say it."""
    revision: int

    @classmethod
    def from_label(cls, label: str, revision: int) -> "Position":
        """Return a position of the database with this identity and epoch, or of one that the service does not say."""
        match = _LABEL.fullmatch(label)
        return cls(match[1], int(match[2]), revision) if match else cls("", 0, revision)

    @property
    def label(self) -> str | None:
        """The identity and the epoch, as in the header; None if the service does not say them."""
        return f"{self.database}.{self.epoch}" if self.database else None

    def __str__(self) -> str:
        epoch = f" of epoch {self.epoch}" if self.epoch else ""
        return f"revision {self.revision}{epoch} of the service's database"

    def is_before(self, other: "Position") -> bool:
        """Return True if this position is older than another one of the same database."""
        return self.database == other.database and self < other


class Validity(NamedTuple):
    """The positions that the content of a response is valid for."""

    since: Position | None
    """The first one; None for content that was applied before, or if a response does not say its position."""
    until: Position | None
    """The last one that is known; None if a response does not say it."""


def inconsistent(validities: Mapping[str, Validity]) -> list[str]:
    """Return the targets to send again, so that all responses of a refresh are valid for one position.

    Args:
        validities: By target.
    """
    last = {target: one.until for target, one in validities.items() if one.until is not None}
    if len({one.database for one in last.values()}) > 1:
        return list(last)
    newest = newest_position(validities)
    return [] if newest is None else [target for target, one in last.items() if one < newest]


def newest_position(validities: Mapping[str, Validity]) -> Position | None:
    """Return the first position that all responses of a refresh can be valid for.

    Returns:
        None if no response is of a known position, or if they are of several databases.
    """
    databases = {one.until.database for one in validities.values() if one.until is not None}
    first = [one.since for one in validities.values() if one.since is not None and one.since.database in databases]
    return max(first, default=None) if len(databases) == 1 else None


def position(reply: Reply) -> Position | None:
    """Return the position that a response is of, if it says its revision."""
    if not isinstance(reply, Response):
        return None
    revision = reply.headers.get("heksher-revision", "")
    if not re.fullmatch("[0-9]{1,18}", revision):
        return None
    return Position.from_label(reply.headers.get("heksher-database", ""), int(revision))


def oldest_position(positions: Iterable[Position | None]) -> Position | None:
    """Return the position that several responses are of together: the oldest one.

    Returns:
        None if a response does not say its position, or if they are of several databases.
    """
    known = set(positions)
    oldest = min((one for one in known if one is not None), default=None)
    is_comparable = oldest is not None and all(one is not None and one.database == oldest.database for one in known)
    return oldest if is_comparable else None


class _Newest(msgspec.Struct):
    """The newest positions of the responses of one service."""

    by_database: dict[str, Position] = {}
    by_target: Mapping[str, Position] = {}
    """Of the responses that were applied. Those of one refresh may differ, if the service changes all the time."""


class Positions:
    """The positions of the responses that one client has applied.

    The newest ones are shared by all clients of a service in a process: the values of a closed client are those that
    the next one begins with.
    """

    def __init__(self, service_url: str, clock: Callable[[], float]) -> None:
        """Create an empty record.

        Args:
            service_url: Identifies the service.
            clock: Monotonic, in seconds.
        """
        self._newest = newest_by_service.setdefault(service_url, _Newest())
        self._clock = clock
        self._declared: dict[str, Position] = {}
        """The newest response to a declaration, by database."""
        self._newest_of_refresh: Position | None = None
        self._older_since: float | None = None
        """When the first of the responses arrived that were too old, and not of the same epoch, without newer ones."""

    def observe(self, *positions: Position | None) -> None:
        """Refuse responses that are older than these from now on."""
        newest = self._newest.by_database
        for one in positions:
            if one is not None and one > newest.get(one.database, _FIRST):
                newest[one.database] = one

    def apply(self, positions: Mapping[str, Position]) -> None:
        """Record the applied responses of a refresh, by target."""
        self._newest.by_target = dict(positions)
        self.observe(*positions.values())

    def apply_single(self, *positions: Position | None) -> None:
        """Record the responses that were applied for single settings: no older response to any query is used."""
        self.observe(*positions)
        newest = {one.database: one for one in sorted(filter(None, positions))}
        self._newest.by_target = {
            target: one if target == CONTEXT_FEATURES.target else max(one, newest.get(one.database, one))
            for target, one in self._newest.by_target.items()
        }

    def apply_declared(self) -> None:
        """Record that a value of a response to a declaration was applied."""
        self.apply_single(*self._declared.values())

    def require(self, position: Position | None) -> None:
        """Refuse responses of the same database that are older than another one of this refresh, until the next call.

        Args:
            position: That of the other one; None to end this.
        """
        self._newest_of_refresh = position

    def is_outdated(self, target: str, reply: Reply) -> bool:
        """Return True if a response is older than what was applied from the same target, or from any for a new one."""
        received = position(reply)
        if received is None:
            return False
        required = self._required(target, reply, received.database)
        if not received.is_before(required):
            self._older_since = None
            return False
        if received.database and received.epoch == required.epoch:
            return True
        now = self._clock()
        self._older_since = now if self._older_since is None else self._older_since
        if now - self._older_since < _MAX_OLDER_SECONDS:
            return True
        logger.warning(
            "the service has sent older revisions for %.0f seconds: its database must have been restored",
            now - self._older_since,
        )
        for record in (self._newest.by_database, self._declared):
            record.pop(received.database, None)
        self._newest.by_target, self._older_since = {}, None
        return False

    def is_restored(self, target: str, reply: Reply) -> bool:
        """Return True if a response is of a later epoch, and of a lower revision: the database was restored.

        Or there are two copies of it, each with a service of its own: then the former one may respond next time.
        """
        received = position(reply)
        required = None if received is None else self._required(target, reply, received.database)
        return (
            received is not None
            and required is not None
            and received.epoch > required.epoch
            and received.revision < required.revision
        )

    def follow_restored(self, reply: Reply) -> None:
        """Refuse all responses of the time before a database was restored."""
        self._newest.by_target = {}
        self.observe(position(reply))

    def refuse(self, target: str, reply: Reply) -> Outdated:
        """Return the reply that replaces a response that is too old."""
        received = position(reply)
        assert isinstance(reply, Response) and received is not None  # noqa: S101, PT018 - otherwise it is not too old
        required = self._required(target, reply, received.database)
        reason = f"the response is of {received}, and one of {required} was received before"
        return Outdated(reply.status, reason, reply.sent)

    def record_declaration(self, reply: Reply) -> None:
        """Record the response to a declaration: the setting exists from then on."""
        declared = position(reply)
        if declared is not None:
            self._declared[declared.database] = max(declared, self._declared.get(declared.database, _FIRST))

    def is_older(self, reply: Reply) -> bool:
        """Return True if a response is older than the newest one, of any target."""
        received = position(reply)
        return received is not None and received.is_before(self._newest.by_database.get(received.database, _FIRST))

    def _required(self, target: str, reply: Reply, database: str) -> Position:
        """Return the oldest position that a response may be of."""
        newest = self._newest.by_database.get(database, _FIRST)
        applied = self._newest.by_target.get(target, _FIRST)
        required = applied if applied.database == database and applied is not _FIRST else newest
        if self._newest_of_refresh is not None and self._newest_of_refresh.database == database:
            required = max(required, self._newest_of_refresh)
        if isinstance(reply, Response) and reply.status == 404:  # A replica that lags lacks new settings.
            required = max(required, newest, self._declared.get(database, _FIRST))
        return required


newest_by_service: Final[dict[str, _Newest]] = {}
"""By the URL of the service."""
_FIRST: Final = Position("", 0, -1)


def monotonic(flow: Flow[T], positions: Positions) -> Flow[T]:
    """Return the same flow, in which requests are sent again whose responses are too old.

    If they stay too old, the replies are `Outdated`.
    """

    def perform(effect: Effect) -> Flow[Any]:
        return (yield from _exchange(effect, positions)) if isinstance(effect, Exchange) else (yield effect)

    return perform_by(perform, flow)


def _exchange(exchange: Exchange, positions: Positions) -> Flow[tuple[Reply, ...]]:
    replies: list[Reply] = list((yield exchange))
    targets = [request.target for request in exchange.requests]
    outdated: list[int] = []
    doubtful = list(range(len(replies)))
    for seconds in (*_REPEATS, None):  # pragma: no branch - the last one ends it
        outdated = [
            i
            for i in doubtful
            if positions.is_outdated(targets[i], replies[i]) and not _is_accepted(exchange.requests[i], replies[i])
        ]
        # A restored database is confirmed by the immediate repetitions only: all clients of a fleet ask at that time.
        restored = [i for i in doubtful if seconds == 0 and positions.is_restored(targets[i], replies[i])]
        doubtful = [*outdated, *restored]
        if not doubtful or seconds is None:
            break
        requests = tuple(exchange.requests[i] for i in doubtful)
        if seconds:
            yield Pause(seconds)
            # A load balancer may choose the replica by connection.
            requests = tuple(replace(one, headers={**one.headers, "Connection": "close"}) for one in requests)
        again = yield replace(exchange, requests=requests)
        for i, reply in zip(doubtful, again, strict=True):
            replies[i] = reply
    for i in outdated:
        replies[i] = positions.refuse(targets[i], replies[i])
    for target, reply in zip(targets, replies, strict=True):
        if positions.is_restored(target, reply):
            positions.follow_restored(reply)
    return tuple(replies)


def _is_accepted(request: Request, reply: Reply) -> bool:
    """True if the service has accepted a declaration. Another response could not say more than that.

    The response may be older, if a node of the service that lags has sent it. The values in it are not used then, and
    the query that follows has the newest ones. A refusal must not be older: the node may lack what the declaration
    refers to.
    """
    return request.method == "POST" and isinstance(reply, Response) and reply.status == 200
