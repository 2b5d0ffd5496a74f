"""One view of all settings for a while: what reads inside `pinned()` see, whatever is put in place meanwhile.

Reads outside pay nothing for that, nor do reads inside until something is put in place: only then is what was there
before kept for the pins that there are, and only the settings concerned look for it, until these pins have ended. All
pins that begin between two updates share what is kept, so that however many there are, it is kept once.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Protocol


class Reader(Protocol):
    """The reads of one setting."""

    @property
    def view(self) -> Any:
        """What is read."""

    def place(self, view: Any) -> None:
        """Have something else read from now on."""

    def hold(self, moment: "Snapshot") -> None:
        """From the next view on, look for what was kept of a moment."""

    def release(self, moment: "Snapshot") -> None:
        """Look for it no more."""


class Snapshot:
    """What all settings had between two updates: for all pins that began between them."""

    def __init__(self) -> None:
        self.views: dict[Reader, Any] = {}
        """What settings had then, of those that have something else by now."""
        self.pins: set[SnapshotScope] = set()

    def keep(self, reader: Reader) -> None:
        """Keep what a setting has, which is about to be replaced, unless it has replaced something since the moment."""
        if reader not in self.views:
            self.views[reader] = reader.view
            reader.hold(self)

    def end(self) -> None:
        """Let everything go."""
        _moments.discard(self)
        former, self.views = self.views, {}
        for reader in former:
            reader.release(self)


class SnapshotScope:
    """One block that has the view of a moment."""

    def __init__(self, outer: "SnapshotScope | None") -> None:
        """Begin: with the moment of an outer block that has not ended, or with now."""
        self.outer = outer
        with _lock():
            self._moment: Snapshot = outer._moment if outer is not None and outer in outer._moment.pins else _now()
            self._moment.pins.add(self)
        self.views = self._moment.views
        """What reads look into."""

    def end(self) -> None:
        """Let go of the moment; the last one that does takes it along."""
        with _lock():
            self.views = {}
            self._moment.pins.discard(self)
            if not self._moment.pins:
                self._moment.end()


PIN: Final[ContextVar[SnapshotScope | None]] = ContextVar("heksher_client.pin", default=None)
_moments: Final[set[Snapshot]] = set()
"""Those that there are pins of."""
_latest: list[Snapshot] = []
"""The one since which nothing was put in place, if there are pins of it."""
_handed: dict[str, Any] = {}


def _now() -> Snapshot:
    if not _latest or _latest[0] not in _moments:
        _latest[:] = [Snapshot()]
        _moments.add(_latest[0])
    return _latest[0]


def _lock() -> AbstractContextManager[Any]:
    lock: AbstractContextManager[Any] = _handed["lock"]
    return lock


def hand_in(make_lock: Callable[[], AbstractContextManager[Any]]) -> None:
    """Give what the core cannot have itself: a lock for updates, and for the beginnings and ends of pins. No read takes
    it. It must be one that its holder can take again, as objects may be finalized at any moment."""
    _handed.update(make_lock=make_lock, lock=make_lock())


def publish(views: Mapping[Reader, Any]) -> None:
    """Have settings read something else from now on: all of it inside a pin, or none."""
    with _lock():
        for moment in list(_moments):
            for reader in views:
                moment.keep(reader)
        for reader, view in views.items():
            reader.place(view)
        _latest.clear()


def leave() -> None:
    """Have what runs in this context from now on see what is newest, though it was begun inside a pin."""
    PIN.set(None)


def after_fork() -> None:  # in the child of a fork
    """Forget what other threads had begun, which do not exist in the child of a fork."""
    _handed["lock"] = _handed["make_lock"]()
    pin, own = PIN.get(), set[SnapshotScope]()
    while pin is not None:
        own.add(pin)
        pin = pin.outer
    for other in [pin for moment in _moments for pin in moment.pins if pin not in own]:
        other.end()


class pinned:  # noqa: N801 - it is called like a function
    """Inside this block, every `get` sees the rules of one moment, that of its beginning.

        with heksher_client.pinned():
            ...  # all settings, across awaits and calls, and in tasks that begin here

    It is a matter of the context, as context variables are: other tasks and threads read what is newest. Nothing is
    locked, updates go on. Defaults, context variables and what callers give are those of each read. A block inside
    another one has the moment of that one. What outlives the block reads what is newest.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[SnapshotScope, Token[SnapshotScope | None]]] = []

    def __enter__(self) -> None:
        pin = SnapshotScope(PIN.get())
        self._entered.append((pin, PIN.set(pin)))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The one that was entered here, as several threads may share this; the last one, where a block ends in another
        # context than it began in, as those of generators may.
        entered = next((entered for entered in self._entered if entered[0] is PIN.get()), self._entered[-1])
        self._entered.remove(entered)
        pin, token = entered
        pin.end()
        with suppress(ValueError):  # It ends in another context.
            PIN.reset(token)
