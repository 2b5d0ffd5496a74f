"""What has changed: the difference between two rule sets, and those who want to hear of it."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakMethod, ref

from heksher_client._core.settings.context import check_known
from heksher_client._core.settings.cooperative import Work
from heksher_client._core.settings.rule_index import RuleIndex
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT, Rule

if TYPE_CHECKING:
    from heksher_client._core.settings.setting import Setting

T = TypeVar("T")
CallbackT = TypeVar("CallbackT", bound=Callable[[Any], object])
ChangeCallbackT = TypeVar("ChangeCallbackT", bound=Callable[["Change[Any]"], object])

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
    former = {frozenset(shape.features): shape for shape in before.indexes}
    for shape in after.indexes:
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


def _by_conditions(shape: RuleIndex[T] | None) -> Work[dict[frozenset[tuple[str, str]], Rule[T]]]:
    rules: dict[frozenset[tuple[str, str]], Rule[T]] = {}
    for rule in () if shape is None else shape.rules():
        rules[frozenset(rule.match_conditions.items())] = rule
        if not len(rules) % _AT_A_TIME:
            yield _AT_A_TIME
    return rules


class WeakRefs(Generic[T]):
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


class Callback:
    """One who wants to be called. Of a bound method, it is held weakly to whom it is bound: it goes with its owner."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._reference: Callable[[], Callable[[Any], object] | None] = lambda: function
        if inspect.ismethod(function):
            with suppress(TypeError):  # It is bound to something that cannot be referred to weakly.
                self._reference = WeakMethod(function)
        self.is_wanted = True
        """Until it is taken out."""

    @property
    def function(self) -> Callable[[Any], object] | None:
        """What to call; None if that was taken out, or is gone."""
        return self._reference() if self.is_wanted else None


class CallbackRegistry:
    """Those who want to hear of changes: of one setting, or of all that one client puts in place."""

    def __init__(self) -> None:
        self.callbacks: tuple[Callback, ...] = ()
        """One for each time that one was added."""
        self.iterators: WeakRefs[Changes] = WeakRefs()

    def __bool__(self) -> bool:
        return bool(self.iterators) or any(True for _ in self._there())

    def add(self, function: CallbackT) -> CallbackT:
        """Call something with each change.

        Raises:
            TypeError: It cannot be called, or would have to be awaited.
        """
        if not callable(function):
            raise TypeError(f"a callback must be a function, not {type(function).__name__}")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            raise TypeError("a callback is called, and not awaited: iterate over the client's changes() instead")
        self.callbacks = (*self._there(), Callback(function))
        return function

    def remove(self, function: Callable[[Any], object]) -> None:
        """Call it no more; once, if it was added more than once. Nothing happens if it is not there."""
        for callback in self.callbacks:
            if callback.function == function:
                callback.is_wanted = False
                break
        self.callbacks = tuple(self._there())

    def functions(self) -> Iterator[Callable[[Any], object]]:
        """What to call; looked for one by one, as one may take out another."""
        for callback in self.callbacks:
            if (function := callback.function) is not None:
                yield function

    def _there(self) -> Iterator[Callback]:
        return (callback for callback in self.callbacks if callback.function is not None)

    def end(self) -> None:
        """Call nobody any more, and have iterators end."""
        for callback in self.callbacks:
            callback.is_wanted = False
        self.callbacks = ()
        for iterator in self.iterators:
            iterator.close()


def callbacks_for(change: Change[Any], everybody: Iterable[CallbackRegistry | None]) -> list[Callback]:
    """Hand a change to all iterators, and give those who are to be called with it."""
    callbacks: list[Callback] = []
    for listeners in everybody:
        if listeners is not None:
            for iterator in listeners.iterators:
                iterator.put(change)
            callbacks += listeners.callbacks
    return callbacks


class Wakeup(Protocol):
    """What the core cannot do itself: wait until it is rung, also when that was before. From any thread."""

    def ring(self) -> None: ...  # pragma: no cover - a protocol
    def wait(self) -> None: ...  # pragma: no cover - a protocol
    async def wait_async(self) -> None: ...  # pragma: no cover - a protocol


class Feed(Generic[T]):
    """What can be iterated over with `for`, which blocks, and with `async for`; it ends when it is closed.

    Whoever iterates leaves it whenever he likes: there is nothing to be cleaned up.
    """

    def __init__(self, bell: Wakeup) -> None:
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


class _News:
    """What nobody has taken yet of the changes of one setting: one of them, or what several did together."""

    def __init__(self, change: Change[Any]) -> None:
        self._change = change
        self._missed = 0
        self._rules: dict[frozenset[tuple[str, str]], Changed[Rule[Any] | None]] = {}
        """By their conditions, what rules were at first and are at last; None where there was, or is, none."""

    def add(self, change: Change[Any]) -> None:
        """Take another change along."""
        if not self._missed:
            self._note(self._change)
        self._missed += 1
        self._note(change)
        former, default = self._change.default, change.default
        if former is not None and default is not None:
            default = Changed(former.before, default.after)
        self._change = replace(self._change, default=default or former)

    def _note(self, change: Change[Any]) -> None:
        for rule in change.added:
            self._step(rule, None, rule)
        for rule in change.removed:
            self._step(rule, rule, None)
        for before, after in change.changed:
            self._step(after, before, after)

    def _step(self, like: Rule[Any], before: Rule[Any] | None, after: Rule[Any] | None) -> None:
        conditions = frozenset(like.match_conditions.items())
        known = self._rules.get(conditions)
        self._rules[conditions] = Changed(before if known is None else known.before, after)

    def whole(self) -> Change[Any]:
        """All of it as one change; without what is again as it was."""
        if not self._missed:
            return self._change
        pairs = self._rules.values()
        default = self._change.default
        return Change(
            self._change.setting,
            tuple(after for before, after in pairs if before is None and after is not None),
            tuple(before for before, after in pairs if before is not None and after is None),
            tuple(Changed(b, a) for b, a in pairs if b is not None and a is not None and b.value != a.value),
            None if default is None or default.before == default.after else default,
            self._missed,
        )


class Changes(Feed[Change[Any]]):
    """The changes that a client puts in place, as they come. Of several changes of one setting that nobody took, it
    gives one, from the first to the last."""

    def __init__(self, bell: Wakeup) -> None:
        super().__init__(bell)
        self._news: OrderedDict[Setting[Any], _News] = OrderedDict()

    def put(self, change: Change[Any]) -> None:
        """Have the consumer get a change. Called by one thread at a time."""
        news = self._news.pop(change.setting, None)  # so that nobody takes it meanwhile
        if news is None:
            news = _News(change)
        else:
            news.add(change)
        self._news[change.setting] = news
        self.ring()

    @property
    def is_any(self) -> bool:
        """Whether there is one to be taken."""
        return bool(self._news)

    def _take(self) -> Change[Any]:
        try:
            _, news = self._news.popitem(last=False)
        except KeyError:
            nothing: Change[Any] = ABSENT
            return nothing
        if self._news:
            self.ring()  # for another one who waits for the same
        return news.whole()


class Watch(Feed[T]):
    """The value of a setting in one context: what it is, and then whatever it becomes. Values in between that nobody
    took are left out. It ends when the main client closes."""

    def __init__(self, setting: "Setting[T]", contexts: dict[str, str], bell: Wakeup) -> None:
        check_known(contexts, setting.configurable_features, f"setting {setting.name}")
        super().__init__(bell)
        self._setting, self._contexts = setting, contexts
        self._last: Any = ABSENT

    def _take(self) -> T:
        value = self._setting.get(**self._contexts)
        if value is self._last or (self._last is not ABSENT and value == self._last):  # the same NaN is no other value
            nothing: T = ABSENT
            return nothing
        self._last = value
        return value
