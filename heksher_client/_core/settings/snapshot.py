"""One consistent view of all settings: what reads inside `pinned()` see while updates go on.

Reads outside pay nothing for it, nor do reads inside until something is published. Only then the published rules that
are about to be replaced are retained for the open snapshots, and only the settings concerned look there. All scopes
that begin between two updates share one snapshot, so that what they retain is retained once.
"""

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from threading import RLock
from types import TracebackType
from typing import Any, Final, Protocol

from heksher_client._resource import Resource


class Member(Protocol):
    """A setting's entry, as a snapshot uses it."""

    @property
    def published(self) -> Any:
        """The published rules."""

    def replace_published(self, published: Any) -> None:
        """Publish other rules."""

    def retain(self, snapshot: "Snapshot") -> None:
        """Look for retained rules in each read, from the next update on."""

    def release(self, snapshot: "Snapshot") -> None:
        """Stop looking for those of a snapshot."""


class Snapshot:
    """The published rules of all settings between two updates."""

    def __init__(self) -> None:
        self.retained: dict[Member, Any] = {}
        """The rules at the time of the snapshot, of the settings that have others now."""
        self.scopes: set[SnapshotScope] = set()

    def retain(self, member: Member) -> None:
        """Retain the rules of a setting that are about to be replaced, unless earlier ones are retained already."""
        if member not in self.retained:
            self.retained[member] = member.published
            member.retain(self)

    def close(self) -> None:
        """Release everything."""
        _open.discard(self)
        former, self.retained = self.retained, {}
        for member in former:
            member.release(self)


class SnapshotScope:
    """One block that reads from a snapshot."""

    def __init__(self, outer: "SnapshotScope | None") -> None:
        """Begin a scope, in the snapshot of an outer scope that is still open, or in a new one."""
        self.outer = outer
        with update_lock():
            is_outer_open = outer is not None and outer in outer.snapshot.scopes
            self.snapshot: Snapshot = outer.snapshot if outer is not None and is_outer_open else _current()
            self.snapshot.scopes.add(self)
        self.retained = self.snapshot.retained
        """Where reads look first."""

    def close(self) -> None:
        """Detach from the snapshot, which the last scope closes."""
        with update_lock():
            self.retained = {}
            self.snapshot.scopes.discard(self)
            if not self.snapshot.scopes:
                self.snapshot.close()


SCOPE: Final[ContextVar[SnapshotScope | None]] = ContextVar("heksher_client.pin", default=None)
_open: Final[set[Snapshot]] = set()
"""The snapshots that have scopes."""
_latest: list[Snapshot] = []
"""The snapshot since which nothing was published, if it has scopes."""
_update_lock = RLock()
_publications = 0
"""How often the rules of a setting were replaced, by any client or stub."""


def update_lock() -> Any:
    """Return the lock for whatever changes what reads see. Reads never wait for it.

    It is reentrant, because a finalizer that runs at any moment may close a scope.
    """
    return _update_lock


def _current() -> Snapshot:
    if not _latest or _latest[0] not in _open:
        _latest[:] = [Snapshot()]
        _open.add(_latest[0])
    return _latest[0]


def publish(updates: Mapping[Any, Any]) -> None:
    """Replace the published rules of entries. A snapshot sees all of an update or nothing of it."""
    global _publications
    with update_lock():
        for snapshot in list(_open):
            for member in updates:
                snapshot.retain(member)
        for member, published in updates.items():
            member.replace_published(published)
        _latest.clear()
        _publications += len(updates)


def publications() -> int:
    """Return how often the rules of a setting were replaced, by any client or stub."""
    return _publications


def detach() -> None:
    """Read the latest rules in the current context from now on, even if it was copied inside a scope."""
    SCOPE.set(None)


def after_fork() -> None:  # in the child of a fork
    """Close the scopes of other threads, which do not exist in the child of a fork."""
    global _update_lock
    _update_lock = RLock()
    scope, own = SCOPE.get(), set[SnapshotScope]()
    while scope is not None:
        own.add(scope)
        scope = scope.outer
    for other in [scope for snapshot in _open for scope in snapshot.scopes if scope not in own]:
        other.close()


class pinned(Resource):  # noqa: N801 - it is called like a function
    """Inside this block, every `get` uses the rules of the moment at which the block began.

        with heksher_client.pinned():
            ...  # all settings, across awaits and calls, and in tasks that begin here

    It belongs to the context, like a context variable: other tasks and threads read the latest rules. Nothing is
    locked, and updates go on. Defaults, context variables and arguments are those of each read. A block inside another
    one uses the moment of the outer one. A task that outlives the block reads the latest rules.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[SnapshotScope, Token[SnapshotScope | None]]] = []

    def __enter__(self) -> None:
        scope = SnapshotScope(SCOPE.get())
        self._entered.append((scope, SCOPE.set(scope)))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Several threads may share this object: close the scope that was entered here. A block in a generator may end
        # in another context than it began in: then close the last one.
        entered = next((entered for entered in self._entered if entered[0] is SCOPE.get()), self._entered[-1])
        self._entered.remove(entered)
        scope, token = entered
        scope.close()
        with suppress(ValueError):  # It ends in another context.
            SCOPE.reset(token)
