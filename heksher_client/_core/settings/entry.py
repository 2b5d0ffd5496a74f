"""Reads: how `Setting.get` does what `RuleSet.resolve` says, at the cost of a few lookups in dicts.

What is read is put in place by one assignment. Code and tree for it are made by the first read that needs them.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from inspect import Signature, signature
from types import FunctionType
from typing import Any, Generic, TypeVar

from heksher_client._core.settings.changes import Watch, WeakRefs
from heksher_client._core.settings.context import Defaults, check_known, complete
from heksher_client._core.settings.getter import GLOBALS, Form, parameters, read_code
from heksher_client._core.settings.lookup_tree import Tree
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import ABSENT, Resolution
from heksher_client._core.settings.snapshot import PIN, Snapshot, publish

T = TypeVar("T")

DefaultValues = Mapping[str, str | ContextVar[str]]


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """All that a read needs. It is replaced as a whole, so a read never sees the rules of one update and the defaults
    of another."""

    rule_set: RuleSet[T]
    defaults: Defaults | None = None
    """None before any client was the main one: then there is nothing to complete a context with, nor to resolve."""


@dataclass(slots=True, eq=False)
class CompiledGetter:
    """What makes reads of one reading fast. The code of `get` looks into it."""

    tree: Tree
    root: Any
    """The node at which a read starts that overrides constants."""
    demanded: Mapping[str, frozenset[str]]
    """The values that rules demand."""
    defaults: DefaultValues
    form: Form
    plan: list[Any] = field(default_factory=list)


class Reader(Generic[T]):
    """The reads of one setting."""

    get: Callable[..., T]
    """Reads the value; takes the values of context features as keyword arguments. It is the same object for ever, so
    that it can be kept: what changes is what it looks into, and with that its code."""

    def __init__(
        self, owner: object, setting: str, features: tuple[str, ...], view: View[T], *, like: Callable[..., T]
    ) -> None:
        """Make a reader.

        Args:
            owner: What lives as long as `get` is kept.
            setting: The setting's name, for errors.
            features: The setting's configurable features.
            view: What is read at first.
            like: What `get` looks like to those who ask for its documentation.
        """
        self.setting, self.features, self._view = setting, features, view
        self._globals = {**GLOBALS, "_owner": owner, "_reader": self, "_pin": PIN.get, "_observed": _observed}
        self._choose_reads()
        self._live: deque[GetterState[T]] = deque()
        """The reading in place. More than one only while another takes its place."""
        self.given: set[str] = set()
        """The features that callers were seen to give."""
        self._written = (form := Form(features, is_observed=bool(registry.observations))), read_code(form)
        """What the code of `get` was last written for, and the code."""
        get = FunctionType(self._written[1].code, self._globals)
        get.__kwdefaults__ = dict.fromkeys(parameters(features), ABSENT)
        get.__doc__, get.__module__, get.__qualname__ = like.__doc__, like.__module__, like.__qualname__
        # Its code has a parameter for some features and not for others, which is nobody's business.
        get.__signature__ = _signature(like)  # type: ignore[attr-defined]
        self.get = get
        self.renew()

    @property
    def view(self) -> View[T]:
        """What is read. Assigning it takes effect at once for all reads that begin after that."""
        return self._view

    @view.setter
    def view(self, view: View[T]) -> None:
        publish({self: view})

    def place(self, view: View[T]) -> None:
        """Have something else read, whoever still needs what was read before: for `publish` alone."""
        self._view = view
        self.renew()

    def hold(self, moment: Snapshot) -> None:
        """From the next view on, have each read look whether its caller has pinned what was read before."""
        # Made when there is one: most readers never have any, and each of their sets would take room.
        vars(self).setdefault("_held_by", set()).add(moment)

    def release(self, moment: Snapshot) -> None:
        """Look for it no more."""
        held_by: set[Snapshot] = vars(self).get("_held_by", set())
        held_by.discard(moment)
        if not held_by:
            self.renew()

    @property
    def _is_held(self) -> bool:
        return bool(vars(self).get("_held_by"))

    def recompile_for_observers(self) -> None:
        """Have reads tell whoever wants to hear of them by now, the next one already; or nobody, at no cost."""
        self._choose_reads()
        form = Form(self.features, frozenset(self.given), is_observed=bool(registry.observations))
        self.renew()
        self.get.__code__ = read_code(form).code.replace()

    def _choose_reads(self) -> None:
        if (wanted := registry.max_sample_rate) is not None:
            self._globals.update(_draw=wanted.draw, _share=wanted.share)

    def watch(self, watch: Watch[T]) -> None:
        """Tell somebody when there may be another value, for as long as he is there."""
        watches: WeakRefs[Watch[T]] = vars(self).setdefault("_watches", WeakRefs())
        watches.add(watch)

    def end_watches(self) -> None:
        """Tell all of them that there will be no other value."""
        for watch in vars(self).get("_watches", ()):
            watch.close()

    def renew(self) -> None:
        """Read with the view's defaults as they are now."""
        while True:
            view, defaults, is_held = self._view, _default_values(self._view), self._is_held
            reading = GetterState(self, view, defaults, is_held=is_held)
            self._live.append(reading)
            while len(self._live) > 1:
                with suppress(IndexError):  # Another thread does the same.
                    self._live.popleft().retire()
            # The one assignment after which reads see the new view. The former reading was retired before, so that no
            # read goes back to it.
            self._globals["_reading"] = reading
            is_current = self._view is view and _default_values(view) is defaults
            if is_current and self._is_held == is_held and not reading.is_retired:
                break  # Else another thread has changed something meanwhile, and may have been overtaken here.
        for watch in vars(self).get("_watches", ()):
            watch.ring()

    def explain(self, given: Mapping[str, str]) -> Resolution[T]:
        """Read with the reason."""
        reading: GetterState[T] = self.pinned_reading() or self._globals["_reading"]
        return reading.view.rule_set.explain(reading.context(given))

    def pinned_reading(self) -> "GetterState[T] | None":
        """What the caller has pinned, if that was replaced."""
        pin = PIN.get()
        view = None if pin is None else pin.views.get(self)
        return None if view is None else GetterState(self, view, _default_values(view))

    def go_by(self, planted: CompiledGetter) -> None:
        """Have the next read go down a tree, by code for what callers give."""
        given, open_levels = self.given, planted.tree.open_levels
        # Features are only ever added to those that are given.
        if len(planted.form.given) < len(given) or planted.form.open_levels != open_levels:
            planted.form = replace(planted.form, given=frozenset(given), open_levels=open_levels)
        names, (form, former) = self._globals, self._written
        code = former if form is planted.form or form == planted.form else read_code(planted.form)
        self._written = planted.form, code
        # A copy of the code for each function: the interpreter notes in it what it found, and that in other globals.
        own_code = names.get(code.name) or names.setdefault(code.name, code.code.replace())
        names[code.plan] = planted.plan
        if self.get.__code__ is not own_code:  # This reading is new, or a former one was read a moment ago.
            self.get.__code__ = own_code
        if code is not former:  # A read that is still under way by it finds no plan, and reads plainly.
            names.pop(former.name, None)
            names.pop(former.plan, None)


def _observed(owner: Any, values: Mapping[str, Any], share: float) -> None:
    """Tell that a setting is read, with what its caller gave; called for a share of all reads."""
    registry.observed(owner, {name: value for name, value in values.items() if value is not ABSENT}, share)


def _default_values(view: View[Any]) -> DefaultValues | None:
    return None if view.defaults is None else view.defaults.values


@lru_cache(maxsize=16)
def _signature(method: Callable[..., Any]) -> Signature:
    """Of a method that is bound."""
    whole = signature(method)
    return whole.replace(parameters=[p for p in whole.parameters.values() if p.kind is p.VAR_KEYWORD])


class GetterState(Generic[T]):
    """What reads look into, as long as neither the view nor its defaults change."""

    _planted: CompiledGetter | None = None

    def __init__(
        self, reader: Reader[T], view: View[T], defaults: DefaultValues | None, *, is_held: bool = False
    ) -> None:
        """Make a reading of a view; without defaults there is nothing to complete a context with, nor to resolve.

        Args:
            reader: Whose it is.
            view: What is read.
            defaults: As they are now.
            is_held: Whether somebody has pinned what was read before.
        """
        self.view, self._is_held, self._is_observed = view, is_held, bool(registry.observations)
        self._reader = reader
        self._defaults = defaults
        self.is_retired = False

    def retire(self) -> None:
        """Have no read go down the tree any more: another reading is about to take this one's place."""
        self.is_retired = True
        if self._planted is not None:
            self._planted.plan.clear()

    def plainly(self, values: Mapping[str, Any]) -> T:
        """Read as the specification says, and make the next read of such a context a fast one.

        Args:
            values: What was given, by name; `ABSENT` for what was not given after all.
        """
        given = {name: value for name, value in values.items() if value is not ABSENT}
        if self._is_held and (pinned := self._reader.pinned_reading()) is not None:
            return pinned.view.rule_set.resolve(pinned.context(given))
        context = self.context(given)
        if self._defaults is not None:
            self._reader.given.update(given)
            planted = self._planted or self._plant(self._defaults)
            if planted.tree.has_room:
                planted.tree.grow(context)
            self._reader.go_by(planted)
        return self.view.rule_set.resolve(context)

    def context(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The context of a read.

        Raises:
            UnknownContextError, MissingContextError, TypeError: As `Setting.get` says.
        """
        features = self._reader.features
        check_known(given, features, f"setting {self._reader.setting}")
        return given if self._defaults is None else complete(features, given, self._defaults)

    def _plant(self, defaults: DefaultValues) -> CompiledGetter:
        """Make the tree, and the plan for the code that goes down it."""
        features, rule_set = self._reader.features, self.view.rule_set
        levels = list(rule_set.condition_values)
        # Constants first: a read that overrides none of them starts below them. But never before the last feature,
        # which is for the leaves.
        constants = {level: defaults[level] for level in levels[:-1] if isinstance(defaults.get(level), str)}
        few = sorted(levels[:-1], key=lambda level: level not in constants)
        tree = Tree(rule_set, few)
        form = Form(
            features,
            sources=tuple(type(defaults.get(feature)) for feature in features),
            levels=(*few, *levels[-1:]),
            constants=len(constants),
            shares_last=rule_set.shares_last_feature,
            is_held=self._is_held,
            is_observed=self._is_observed,
        )
        planted = CompiledGetter(tree, tree.root, rule_set.condition_values, defaults, form)
        last_values = [rule_set.last_feature_values] if rule_set.shares_last_feature else []
        last = [default for default in map(defaults.get, levels[-1:]) if isinstance(default, str)]
        variables = [default.get for default in map(defaults.get, features) if isinstance(default, ContextVar)]
        planted.plan[:] = [planted, tree.grow(constants), *last_values, *last, *variables]
        # One step: of two threads that come here at once, both go on with what the first of them has made.
        first: CompiledGetter = vars(self).setdefault("_planted", planted)
        if self.is_retired:
            first.plan.clear()  # It was retired meanwhile, maybe before there was a plan.
        return first
