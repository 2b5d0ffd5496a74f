"""Iterators on which user code waits, with `for` or `async for`: the part that all of them share, and `Watch`.

A stream is the public iterator; its source is the package's side of it, which gets new items from other threads. What
feeds a source refers to it weakly, so a stream that user code drops needs no clean-up.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from heksher_client._core.settings.rules import ABSENT
from heksher_client._resource import Resource
from heksher_client._runtime.wakeup import Wakeup

T = TypeVar("T")


class Source(ABC, Generic[T]):
    """The source of a stream's items."""

    def __init__(self, name: str | None = None) -> None:
        """Create a source.

        Args:
            name: A name for the status and for log records.

        Raises:
            TypeError: The name is not a string.
        """
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"the name of an iterator must be a str, not {name!r}")
        self.name = name
        self.wakeup = Wakeup()
        """Set when there may be a new item, and when the source is closed."""
        self.is_closed = False

    def close(self) -> None:
        """End the iteration, after the items that are left. May be called from any thread."""
        self.is_closed = True
        self.wakeup.set()

    @property
    @abstractmethod
    def pending(self) -> int:
        """The number of items that can be taken."""

    @abstractmethod
    def take(self) -> T:
        """Return the next item; `ABSENT` if there is none now."""


class Stream(Resource, Generic[T]):
    """An iterator for `for`, which blocks, and for `async for`. It ends when it is closed."""

    def __init__(self, source: Source[T]) -> None:
        self._source = source

    def __repr__(self) -> str:
        name = self._source.name
        return f"<{type(self).__name__}>" if name is None else f"<{type(self).__name__} {name!r}>"

    def close(self) -> None:
        """End the iteration. May be called from any thread."""
        self._source.close()

    def __iter__(self) -> "Stream[T]":
        return self

    def __next__(self) -> T:
        source = self._source
        while True:
            is_closed = source.is_closed  # Read before the item is taken, so that the last item comes before the end.
            if (item := source.take()) is not ABSENT:
                return item
            if is_closed:
                source.wakeup.set()  # for other iterations over the same stream
                raise StopIteration
            source.wakeup.wait()

    def __aiter__(self) -> "Stream[T]":
        return self

    async def __anext__(self) -> T:
        source = self._source
        while True:
            is_closed = source.is_closed
            if (item := source.take()) is not ABSENT:
                return item
            if is_closed:
                source.wakeup.set()
                raise StopAsyncIteration
            await source.wakeup.wait_async()


class WatchedValue(Source[T]):
    """The value of a setting in one context, each time that it is another one."""

    def __init__(self, read: Callable[[], T], name: str | None = None) -> None:
        super().__init__(name)
        self._read = read
        self._last: Any = ABSENT
        self._has_news = True

    @property
    def pending(self) -> int:
        return int(self._has_news)

    def notify(self) -> None:
        """Report that the value may be another one, so that the iteration reads it."""
        self._has_news = True
        self.wakeup.set()

    def take(self) -> T:
        self._has_news = False  # before the value is read, so that a later one counts
        value = self._read()
        # Identity first: NaN does not equal itself, and the same NaN is not a change.
        if value is self._last or (self._last is not ABSENT and value == self._last):
            unchanged: T = ABSENT
            return unchanged
        self._last = value
        return value


class Watch(Stream[T]):
    """The value of a setting in one context: the current one, and then each new one. Values that were replaced before
    they were taken are skipped. Ends when the main client closes; if there is none, the next one is followed."""
