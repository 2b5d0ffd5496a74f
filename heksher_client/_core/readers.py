"""Reads: how `Setting.get` does what `RuleSet.resolve` says, at the cost of a few lookups in dicts.

What is read is put in place by one assignment. Code and tree for it are made by the first read that needs them.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
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
        self._setting, self._features, self._view = setting, features, view
        self._globals = {**GLOBALS, "_owner": owner}
        self._live: deque[Reading[T]] = deque()
        """The reading in place. More than one only while another takes its place."""
        self._given: set[str] = set()
        get = FunctionType(read_code(Form(features)).code, self._globals)
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
            reading = Reading(self.get, self._setting, self._features, view, defaults, self._given)
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

    def _default_values(self) -> DefaultValues | None:
        return None if self._view.defaults is None else self._view.defaults.values


@lru_cache(maxsize=16)
def _signature(method: Callable[..., Any]) -> Signature:
    """Of a method that is bound."""
    whole = signature(method)
    return whole.replace(parameters=[p for p in whole.parameters.values() if p.kind is p.VAR_KEYWORD])


class Reading(Generic[T]):
    """What reads look into, as long as neither the view nor its defaults change."""

    root: Any
    """The node at which a read starts that overrides constants."""
    demanded: Mapping[str, frozenset[str]]
    """The values that rules demand."""

    def __init__(
        self,
        function: Callable[..., T],
        setting: str,
        features: tuple[str, ...],
        view: View[T],
        defaults: DefaultValues | None,
        given: set[str],
    ) -> None:
        """Make a reading.

        Args:
            function: What is called to read.
            setting: The setting's name.
            features: Its configurable features.
            view: What is read.
            defaults: The defaults to complete a context with; None if there is nothing to complete.
            given: The features that callers were seen to give; added to here.
        """
        self.view = view
        self.defaults = defaults or {}
        self._function, self._setting, self._features = function, setting, features
        self._given = given
        self._is_bound = defaults is not None
        self._tree: Tree | None = None
        self._form: Form
        self._plan: list[Any] = []
        self.is_retired = False

    def retire(self) -> None:
        """Have no read go down the tree any more: another reading is about to take this one's place."""
        self.is_retired = True
        self._plan.clear()

    def plainly(self, values: Mapping[str, Any]) -> T:
        """Read as the specification says, and make the next read of such a context a fast one.

        Args:
            values: What was given, by name; `ABSENT` for what was not given after all.
        """
        given = {name: value for name, value in values.items() if value is not ABSENT}
        context = self.context(given)
        if self._is_bound:
            self._given.update(given)
            self._prepare(context)
        return self.view.rule_set.resolve(context)

    def context(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The context of a read.

        Raises:
            UnknownContextError, MissingContextError, TypeError: As `Setting.get` says.
        """
        check_known(given, self._features, f"setting {self._setting}")
        return complete(self._features, given, self.defaults) if self._is_bound else given

    def _prepare(self, context: Mapping[str, str]) -> None:
        """Have the next read of such a context go down the tree."""
        tree = self._tree or self._plant()
        if tree.has_room:
            tree.node(context)
        if len(self._given) != len(self._form.given) or tree.open_levels != self._form.open_levels:
            self._form = replace(self._form, given=frozenset(self._given), open_levels=tree.open_levels)
        names, code = self._function.__globals__, read_code(self._form)
        # A copy of the code for each function: the interpreter notes in it what it found, and that in other globals.
        own_code = names.get(code.name) or names.setdefault(code.name, code.code.replace())
        names[code.plan] = self._plan
        if self._function.__code__ is not own_code:  # This reading is new, or a former one was read a moment ago.
            self._function.__code__ = own_code

    def _plant(self) -> Tree:
        """Make the tree, and the plan for the code that goes down it."""
        rule_set = self.view.rule_set
        levels = list(rule_set.demanded)
        # Constants first: a read that overrides none of them starts below them. But never before the last feature,
        # which is for the leaves.
        constants = {level: self.defaults[level] for level in levels[:-1] if isinstance(self.defaults.get(level), str)}
        few = sorted(levels[:-1], key=lambda level: level not in constants)
        tree = Tree(rule_set, few)
        self._form = Form(
            self._features,
            frozenset(self._given),
            tuple(type(self.defaults.get(feature)) for feature in self._features),
            levels=(*few, *levels[-1:]),
            constants=len(constants),
            open_levels=tree.open_levels,
            shares_last=rule_set.shares_last,
        )
        last_values = [rule_set.last_values] if rule_set.shares_last else []
        last = [default for default in map(self.defaults.get, levels[-1:]) if isinstance(default, str)]
        defaults = map(self.defaults.get, self._features)
        variables = [default.get for default in defaults if isinstance(default, ContextVar)]
        self.root, self.demanded = tree.root, rule_set.demanded
        self._plan[:] = [self, tree.node(constants), *last_values, *last, *variables]
        if self.is_retired:
            self._plan.clear()  # It was retired meanwhile, maybe before there was a plan.
        self._tree = tree
        return tree
