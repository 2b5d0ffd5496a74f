"""Changes of rules: the difference between two rule sets, and the iterator over the changes of a client."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

from heksher_client._core.settings.cooperative import Work
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.rule_index import RuleIndex
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT, Rule
from heksher_client._core.settings.setting import Change, Changed, Setting
from heksher_client._core.settings.streams import Source, Stream
from heksher_client._logging import logger

T = TypeVar("T")

_Conditions = frozenset[tuple[str, str]]

_STEP_SIZE: Final = 2000
"""Rules compared in one step."""


def diff_rules(setting: Setting[T], before: RuleSet[T], after: RuleSet[T]) -> Work[Change[T]]:
    """Compare two rule sets of a setting."""
    added: list[Rule[T]] = []
    removed: list[Rule[T]] = []
    changed: list[Changed[Rule[T]]] = []
    former = {frozenset(index.features): index for index in before.indexes}
    for index in after.indexes:
        other = former.pop(frozenset(index.features), None)
        if other is not None and other.levels == index.levels and other.tree == index.tree:
            continue
        rules_before = yield from _by_conditions(other)
        rules_after = yield from _by_conditions(index)
        for conditions, rule in rules_after.items():
            rule_before = rules_before.pop(conditions, None)
            if rule_before is None:
                added.append(rule)
            elif rule_before.value != rule.value:
                changed.append(Changed(rule_before, rule))
        removed += rules_before.values()
    for index in former.values():
        rules = yield from _by_conditions(index)
        removed += rules.values()
    default = None if before.default == after.default else Changed(before.default, after.default)
    return Change(setting, tuple(added), tuple(removed), tuple(changed), default)


def _by_conditions(index: RuleIndex[T] | None) -> Work[dict[_Conditions, Rule[T]]]:
    rules: dict[_Conditions, Rule[T]] = {}
    for rule in () if index is None else index.rules():
        rules[frozenset(rule.match_conditions.items())] = rule
        if not len(rules) % _STEP_SIZE:
            yield _STEP_SIZE
    return rules


class _MergedChange:
    """The changes of one setting since the last one was taken, merged into one."""

    def __init__(self, change: Change[Any]) -> None:
        self._change = change
        self._missed = 0
        self._rules: dict[_Conditions, Changed[Rule[Any] | None]] = {}
        """By conditions, the rule before the first change and after the last; None if there was, or is, none."""

    def add(self, change: Change[Any]) -> None:
        if not self._missed:
            self._add_rules(self._change)
        self._missed += 1
        self._add_rules(change)
        former, default = self._change.default, change.default
        if former is not None and default is not None:
            default = Changed(former.before, default.after)
        self._change = replace(self._change, default=default or former)

    def _add_rules(self, change: Change[Any]) -> None:
        steps: Iterable[tuple[Rule[Any] | None, Rule[Any] | None]] = [
            *((None, rule) for rule in change.added),
            *((rule, None) for rule in change.removed),
            *change.changed,
        ]
        for before, after in steps:
            rule = after or before
            conditions = frozenset(() if rule is None else rule.match_conditions.items())
            known = self._rules.get(conditions)
            self._rules[conditions] = Changed(before if known is None else known.before, after)

    def merge(self) -> Change[Any]:
        """Return one change, without rules that have their former value again."""
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


class PendingChanges(Source[Change[Any]]):
    """Changes that were not taken yet: at most one for each setting, as several of one setting are merged."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._merged: OrderedDict[Setting[Any], _MergedChange] = OrderedDict()
        self._is_behind = False
        """True from the first change that is merged until all changes are taken."""

    def __bool__(self) -> bool:
        return bool(self._merged)

    @property
    def pending(self) -> int:
        return len(self._merged)

    def push(self, change: Change[Any]) -> None:
        """Add a change. Called by one thread at a time."""
        merged = self._merged.pop(change.setting, None)  # Popped, so that no other thread takes it while it is merged.
        if merged is None:
            merged = _MergedChange(change)
        else:
            merged.add(change)
            self._report_behind()
        self._merged[change.setting] = merged
        self.wakeup.set()

    def take(self) -> Change[Any]:
        try:
            _, merged = self._merged.popitem(last=False)
        except KeyError:
            nothing: Change[Any] = ABSENT
            return nothing
        if self._merged:
            self.wakeup.set()  # for another iteration over the same stream
        else:
            self._is_behind = False
        return merged.merge()

    def _report_behind(self) -> None:
        if self.name is not None and not self._is_behind:
            logger.info("the iterator %s is behind: changes are merged", self.name, extra={"iterator": self.name})
        self._is_behind = True


class Changes(Stream[Change[Any]]):
    """The changes that a client applies, as they come. If several changes of one setting were not taken yet, they are
    merged into one."""


def subscribe(receivers: CallbackRegistry, name: str | None = None) -> Changes:
    """Return an iterator over the changes from now on. It is held weakly."""
    pending = PendingChanges(name)
    receivers.add_queue(pending)
    return Changes(pending)
