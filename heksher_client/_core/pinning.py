"""One view of all settings for a while: what reads inside `pinned()` see, whatever is put in place meanwhile.

Reads outside pay nothing for that, nor do reads inside until something is put in place: only then is what was there
before kept for the pins that there are, and only the settings concerned look for it, until these pins have ended.
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

    def hold(self, pin: "Pin") -> None:
        """From the next view on, look for what a pin has kept."""

    def release(self, pin: "Pin") -> None:
        """Look for it no more."""


class Pin:
    """A moment."""

    def __init__(self) -> None:
        self.views: dict[Reader, Any] = {}
        """What settings had then, of those that have something else by now."""

    def begin(self) -> None:
        """Keep what is replaced from now on."""
        with _lock():
            _pins[self] = None

    def keep(self, reader: Reader) -> None:
        """Keep what a setting has, which is about to be replaced, unless it has replaced something since the moment."""
        if reader not in self.views:
            self.views[reader] = reader.view
            reader.hold(self)

    def end(self) -> None:
        """Let everything go."""
        with _lock():
            _pins.pop(self, None)
            former, self.views = self.views, {}
            for reader in former:
                reader.release(self)


PIN: Final[ContextVar[Pin | None]] = ContextVar("heksher_client.pin", default=None)
_pins: Final[dict[Pin, None]] = {}
"""Those that have begun and not ended."""
_handed: dict[str, Any] = {}


def _lock() -> AbstractContextManager[Any]:
    lock: AbstractContextManager[Any] = _handed["lock"]
    return lock


def hand_in(make_lock: Callable[[], AbstractContextManager[Any]]) -> None:
    """Give what the core cannot have itself: a lock for updates, and for the beginnings and ends of pins. No read takes
    it. It must be one that its holder can take again, as objects may be finalized at any moment."""
    _handed.update(make_lock=make_lock, lock=make_lock())


def put_in_place(views: Mapping[Reader, Any]) -> None:
    """Have settings read something else from now on: all of it inside a pin, or none."""
    with _lock():
        for pin in list(_pins):
            for reader in views:
                pin.keep(reader)
        for reader, view in views.items():
            reader.place(view)


def after_fork() -> None:  # in the child of a fork
    """Forget what other threads had begun, which do not exist in the child of a fork."""
    _handed["lock"] = _handed["make_lock"]()
    for pin in list(_pins):
        if pin is not PIN.get():
            pin.end()


class pinned:  # noqa: N801 - it is called like a function
    """Inside this block, every `get` sees the rules of one moment, that of its beginning.

        with heksher_client.pinned():
            ...  # all settings, across awaits and calls, and in tasks that begin here

    It is a matter of the context, as context variables are: other tasks and threads read what is newest. Nothing is
    locked, updates go on. Defaults, context variables and what callers give are those of each read. A block inside
    another one has the moment of that one. What outlives the block reads what is newest.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[Pin, Token[Pin | None]] | None] = []

    def __enter__(self) -> None:
        outer = PIN.get()
        if outer is not None and outer in _pins:
            self._entered.append(None)
            return
        pin = Pin()
        pin.begin()
        self._entered.append((pin, PIN.set(pin)))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = self._entered.pop()
        if entered is not None:
            pin, token = entered
            pin.end()
            with suppress(ValueError):  # It ends in another context than it began in, as generators may.
                PIN.reset(token)
