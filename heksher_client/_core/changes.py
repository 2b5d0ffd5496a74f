"""What has changed: the difference between two rule sets, and those who want to hear of it."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar
from weakref import WeakMethod, ref

from heksher_client._core.contexts import check_known
from heksher_client._core.rules import ABSENT, Rule, RuleSet, Shape, Work, finished

if TYPE_CHECKING:
    from heksher_client._core.settings import Setting

T = TypeVar("T")
CallbackT = TypeVar("CallbackT", bound=Callable[[Any], object])
ChangeCallbackT = TypeVar("ChangeCallbackT", bound=Callable[["Change[Any]"], object])

Reference: TypeAlias = Callable[[], Callable[[Any], object] | None]
"""Gives a callback, as long as it is there; one for each time that one was added."""

_AT_A_TIME: Final = 2000
"""Rules compared in one step."""


class Changed(NamedTuple, Generic[T]):
    """What something was, and what it is."""

    before: T
    after: T


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """How the rules of a setting differ from what they were. Rules are told apart by their conditions."""

    setting: "Setting[T]"
    added: tuple[Rule[T], ...] = ()
    removed: tuple[Rule[T], ...] = ()
    changed: tuple[Changed[Rule[T]], ...] = ()
    """The rules that have another value."""
    default: Changed[T] | None = None
    """The value where no rule matches, if that has changed."""
    missed: int = 0
    """How many changes of this setting an iterator that was behind has left out; what they did is in this one."""

    def __bool__(self) -> bool:
        """Whether anything differs: after missed changes, it may be as it was."""
        return bool(self.added or self.removed or self.changed or self.default)


def difference(setting: "Setting[T]", before: RuleSet[T], after: RuleSet[T]) -> Work[Change[T]]:
    """Compare two rule sets of a setting."""
    added: list[Rule[T]] = []
    removed: list[Rule[T]] = []
    changed: list[Changed[Rule[T]]] = []
    former = {frozenset(shape.features): shape for shape in before.shapes}
    for shape in after.shapes:
        other = former.pop(frozenset(shape.features), None)
        if other is not None and other.levels == shape.levels and other.tree == shape.tree:
            continue
        known = yield from _by_conditions(other)
        now = yield from _by_conditions(shape)
        for conditions, rule in now.items():
            was = known.pop(conditions, None)
            if was is None:
                added.append(rule)
            elif was.value != rule.value:
                changed.append(Changed(was, rule))
        removed += known.values()
    for shape in former.values():
        gone = yield from _by_conditions(shape)
        removed += gone.values()
    default = None if before.default == after.default else Changed(before.default, after.default)
    return Change(setting, tuple(added), tuple(removed), tuple(changed), default)


def _by_conditions(shape: Shape[T] | None) -> Work[dict[frozenset[tuple[str, str]], Rule[T]]]:
    rules: dict[frozenset[tuple[str, str]], Rule[T]] = {}
    for rule in () if shape is None else shape.rules():
        rules[frozenset(rule.match_conditions.items())] = rule
        if not len(rules) % _AT_A_TIME:
            yield _AT_A_TIME
    return rules


class Weakly(Generic[T]):
    """Things that are kept for as long as somebody else has them. Each change to it is one step."""

    def __init__(self) -> None:
        self._things: dict[ref[T], None] = {}

    def add(self, thing: T) -> None:
        self._things[ref(thing, self._forget)] = None

    def __iter__(self) -> Iterator[T]:
        return iter([thing for reference in self._things.copy() if (thing := reference()) is not None])

    def __bool__(self) -> bool:
        return bool(self._things)

    def _forget(self, reference: "ref[T]") -> None:
        self._things.pop(reference, None)


class Listeners:
    """Those who want to hear of changes: of one setting, or of all that one client puts in place."""

    def __init__(self) -> None:
        self.references: tuple[Reference, ...] = ()
        """References to them. Of a bound method, to whom it is bound as well: it goes with its owner."""
        self.iterators: Weakly[Changes] = Weakly()

    def __bool__(self) -> bool:
        return bool(self.iterators or self.callbacks())

    def add(self, callback: CallbackT) -> CallbackT:
        """Call something with each change.

        Raises:
            TypeError: It cannot be called, or would have to be awaited.
        """
        if not callable(callback):
            raise TypeError(f"a callback must be a function, not {type(callback).__name__}")
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__):
            raise TypeError("a callback is called, and not awaited: iterate over the client's changes() instead")
        self.references = (*self.references, _reference(callback))
        return callback

    def remove(self, callback: Callable[[Any], object]) -> None:
        """Call it no more; once, if it was added more than once. Nothing happens if it is not there."""
        kept = list(self.references)
        for reference in self.references:
            if reference() == callback:
                kept.remove(reference)
                break
        self.references = tuple(reference for reference in kept if reference() is not None)

    def callbacks(self) -> list[Callable[[Any], object]]:
        return [callback for reference in self.references if (callback := reference()) is not None]

    def end(self) -> None:
        """Call nobody any more, and have iterators end."""
        self.references = ()
        for iterator in self.iterators:
            iterator.close()


def _reference(callback: Callable[[Any], object]) -> Reference:
    if inspect.ismethod(callback):
        with suppress(TypeError):  # It is bound to something that cannot be referred to weakly.
            return WeakMethod(callback)
    return lambda: callback


def callbacks_for(
    change: Change[Any], before: RuleSet[Any], after: RuleSet[Any], everybody: Iterable[Listeners | None]
) -> list[Reference]:
    """Hand a change to all iterators, and give references to the callbacks that are to be called with it."""
    references: list[Reference] = []
    for listeners in everybody:
        if listeners is not None:
            for iterator in listeners.iterators:
                iterator.put(change, before, after)
            references += listeners.references
    return references


class Bell(Protocol):
    """What the core cannot do itself: wait until it is rung, also when that was before. From any thread."""

    def ring(self) -> None: ...  # pragma: no cover - a protocol
    def wait(self) -> None: ...  # pragma: no cover - a protocol
    async def wait_async(self) -> None: ...  # pragma: no cover - a protocol


class Feed(Generic[T]):
    """What can be iterated over with `for`, which blocks, and with `async for`; it ends when it is closed.

    Whoever iterates leaves it whenever he likes: there is nothing to be cleaned up.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._is_closed = False

    def close(self) -> None:
        """Have the iteration end, from any thread."""
        self._is_closed = True
        self._bell.ring()

    def ring(self) -> None:
        """Have the consumer look whether there is something new."""
        self._bell.ring()

    def __iter__(self) -> "Feed[T]":
        return self

    def __next__(self) -> T:
        while True:
            is_closed = self._is_closed  # before it is looked for what is new: the last of it comes before the end
            if (item := self._take()) is not ABSENT:
                return item
            if is_closed:
                self._bell.ring()  # for others who wait for the same
                raise StopIteration
            self._bell.wait()

    def __aiter__(self) -> "Feed[T]":
        return self

    async def __anext__(self) -> T:
        while True:
            is_closed = self._is_closed
            if (item := self._take()) is not ABSENT:
                return item
            if is_closed:
                self._bell.ring()
                raise StopAsyncIteration
            await self._bell.wait_async()

    def _take(self) -> T:
        """What is new; `ABSENT` if nothing is."""
        raise NotImplementedError  # pragma: no cover - abstract


class _News(NamedTuple):
    before: RuleSet[Any]
    after: RuleSet[Any]
    change: Change[Any] | None
    """None where it is the last of several, which are to be compared as one."""
    missed: int


class Changes(Feed[Change[Any]]):
    """The changes that a client puts in place, as they come. Of several changes of one setting that nobody took, it
    gives one, from the first to the last."""

    def __init__(self, bell: Bell) -> None:
        super().__init__(bell)
        self._news: OrderedDict[Setting[Any], _News] = OrderedDict()

    def put(self, change: Change[Any], before: RuleSet[Any], after: RuleSet[Any]) -> None:
        """Have the consumer get a change. Called by one thread at a time."""
        untaken = self._news.pop(change.setting, None)
        if untaken is None:
            self._news[change.setting] = _News(before, after, change, 0)
        else:
            self._news[change.setting] = _News(untaken.before, after, None, untaken.missed + 1)
        self.ring()

    @property
    def is_any(self) -> bool:
        """Whether there is one to be taken."""
        return bool(self._news)

    def _take(self) -> Change[Any]:
        try:
            setting, news = self._news.popitem(last=False)
        except KeyError:
            nothing: Change[Any] = ABSENT
            return nothing
        if news.change is not None:
            return news.change
        return replace(finished(difference(setting, news.before, news.after)), missed=news.missed)


class Watch(Feed[T]):
    """The value of a setting in one context: what it is, and then whatever it becomes. Values in between that nobody
    took are left out. It ends when the main client closes."""

    def __init__(self, setting: "Setting[T]", contexts: dict[str, str], bell: Bell) -> None:
        check_known(contexts, setting.configurable_features, f"setting {setting.name}")
        super().__init__(bell)
        self._setting, self._contexts = setting, contexts
        self._last: Any = ABSENT

    def _take(self) -> T:
        value = self._setting.get(**self._contexts)
        if self._last is not ABSENT and value == self._last:
            nothing: T = ABSENT
            return nothing
        self._last = value
        return value
