"""Callbacks and queues that receive changes, held weakly where their owner decides how long they live."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakMethod, ref

from heksher_client._core.settings.user_functions import check_function

T = TypeVar("T")
CallbackT = TypeVar("CallbackT", bound=Callable[[Any], object])


class WeakRefs(Generic[T]):
    """Objects in the order in which they were added, for as long as something else refers to them. Safe to use from any
    thread: each change is one operation on a dict."""

    def __init__(self) -> None:
        self._references: dict[ref[T], None] = {}

    def add(self, thing: T) -> None:
        self._references[ref(thing, self._forget)] = None

    def __iter__(self) -> Iterator[T]:
        # Copying the dict cannot be interrupted by another thread or the garbage collector; iterating over it can.
        return iter([thing for reference in self._references.copy() if (thing := reference()) is not None])

    def __bool__(self) -> bool:
        return bool(self._references)

    def _forget(self, reference: "ref[T]") -> None:
        self._references.pop(reference, None)


class WeakCallback:
    """A function to call. A bound method is held weakly: it goes with its object."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._reference: Callable[[], Callable[[Any], object] | None] = lambda: function
        if inspect.ismethod(function):
            with suppress(TypeError):  # The object does not support weak references.
                self._reference = WeakMethod(function)
        self.is_removed = False

    @property
    def function(self) -> Callable[[Any], object] | None:
        """The function; None if it was removed, or its object is gone."""
        return None if self.is_removed else self._reference()


class Iterated(Protocol):
    """The source of the items of an iterator of the program."""

    name: str | None
    is_closed: bool

    @property
    def pending(self) -> int: ...  # pragma: no cover - a protocol


class Queue(Iterated, Protocol):
    """A receiver of changes that are taken later."""

    def push(self, change: Any, /) -> None: ...  # pragma: no cover - a protocol
    def close(self) -> None: ...  # pragma: no cover - a protocol


class CallbackRegistry:
    """The receivers of changes: of one setting, or of all settings of a client."""

    def __init__(self) -> None:
        self.callbacks: tuple[WeakCallback, ...] = ()
        """One for each call of `add`."""
        self.queues: WeakRefs[Queue] = WeakRefs()
        self.is_closed = False

    def __bool__(self) -> bool:
        return bool(self.queues) or any(True for _ in self._alive())

    def add(self, function: CallbackT) -> CallbackT:
        """Add a callback.

        Raises:
            TypeError: It is not callable, or is a coroutine function.
        """
        check_function(function, "callback", "; iterate over the client's changes() instead")
        self.callbacks = (*self._alive(), WeakCallback(function))
        return function

    def add_queue(self, queue: Queue) -> None:
        """Add a queue, which is held weakly."""
        self.queues.add(queue)
        if self.is_closed:
            queue.close()

    def remove(self, function: Callable[[Any], object]) -> None:
        """Remove a callback once, even if it was added several times. An unknown one is ignored."""
        for callback in self.callbacks:
            if callback.function == function:
                callback.is_removed = True
                break
        self.callbacks = tuple(self._alive())

    def functions(self) -> Iterator[Callable[[Any], object]]:
        """Iterate over the functions to call. One of them may remove another."""
        for callback in self.callbacks:
            if (function := callback.function) is not None:
                yield function

    def close(self) -> None:
        """Remove all callbacks, and close all queues, including those that are added later."""
        self.is_closed = True
        for callback in self.callbacks:
            callback.is_removed = True
        self.callbacks = ()
        for queue in self.queues:
            queue.close()

    def _alive(self) -> Iterator[WeakCallback]:
        return (callback for callback in self.callbacks if callback.function is not None)


def pending_by_name(sources: Iterable[Iterated]) -> dict[str, int]:
    """Return the numbers of items that iterators with a name have not taken yet."""
    pending: dict[str, int] = {}
    for source in sources:
        if source.name is not None and not source.is_closed:
            pending[source.name] = pending.get(source.name, 0) + source.pending
    return pending


def deliver(change: Any, registries: Iterable[CallbackRegistry | None]) -> list[WeakCallback]:
    """Push a change to all queues, and return the callbacks that are to be called with it."""
    callbacks: list[WeakCallback] = []
    for registry in registries:
        if registry is not None:
            for queue in registry.queues:
                queue.push(change)
            callbacks += registry.callbacks
    return callbacks
