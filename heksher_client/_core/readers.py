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

from heksher_client._core.contexts import Defaults, check_known, complete
from heksher_client._core.read_code import GLOBALS, Form, parameters, read_code
from heksher_client._core.rules import ABSENT, Resolution, RuleSet
from heksher_client._core.trees import Tree

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
class Planted:
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
        self._globals = {**GLOBALS, "_owner": owner}
        self._live: deque[Reading[T]] = deque()
        """The reading in place. More than one only while another takes its place."""
        self.given: set[str] = set()
        """The features that callers were seen to give."""
        self._written = (form := Form(features)), read_code(form)
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
        self._view = view
        self.renew()

    def renew(self) -> None:
        """Read with the view's defaults as they are now."""
        while True:
            view, defaults = self._view, self._default_values()
            reading = Reading(self, view, defaults)
            self._live.append(reading)
            while len(self._live) > 1:
                with suppress(IndexError):  # Another thread does the same.
                    self._live.popleft().retire()
            # The one assignment after which reads see the new view. The former reading was retired before, so that no
            # read goes back to it.
            self._globals["_reading"] = reading
            if self._view is view and self._default_values() is defaults and not reading.is_retired:
                return  # Else another thread has changed something meanwhile, and may have been overtaken here.

    def explain(self, given: Mapping[str, str]) -> Resolution[T]:
        """Read with the reason."""
        reading: Reading[T] = self._globals["_reading"]
        return reading.view.rule_set.explain(reading.context(given))

    def go_by(self, planted: Planted) -> None:
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

    def _default_values(self) -> DefaultValues | None:
        return None if self._view.defaults is None else self._view.defaults.values


@lru_cache(maxsize=16)
def _signature(method: Callable[..., Any]) -> Signature:
    """Of a method that is bound."""
    whole = signature(method)
    return whole.replace(parameters=[p for p in whole.parameters.values() if p.kind is p.VAR_KEYWORD])


class Reading(Generic[T]):
    """What reads look into, as long as neither the view nor its defaults change."""

    _planted: Planted | None = None

    def __init__(self, reader: Reader[T], view: View[T], defaults: DefaultValues | None) -> None:
        """Make a reading of a view; without defaults there is nothing to complete a context with, nor to resolve."""
        self.view = view
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

    def _plant(self, defaults: DefaultValues) -> Planted:
        """Make the tree, and the plan for the code that goes down it."""
        features, rule_set = self._reader.features, self.view.rule_set
        levels = list(rule_set.demanded)
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
            shares_last=rule_set.shares_last,
        )
        planted = Planted(tree, tree.root, rule_set.demanded, defaults, form)
        last_values = [rule_set.last_values] if rule_set.shares_last else []
        last = [default for default in map(defaults.get, levels[-1:]) if isinstance(default, str)]
        variables = [default.get for default in map(defaults.get, features) if isinstance(default, ContextVar)]
        planted.plan[:] = [planted, tree.grow(constants), *last_values, *last, *variables]
        # One step: of two threads that come here at once, both go on with what the first of them has made.
        first: Planted = vars(self).setdefault("_planted", planted)
        if self.is_retired:
            first.plan.clear()  # It was retired meanwhile, maybe before there was a plan.
        return first
