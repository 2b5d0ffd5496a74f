"""Reads at the cost of a few lookups in dicts: how `Setting.get` does what `RuleSet.resolve` says.

A read has two parts. It completes the context, which depends on the setting's features and on where their defaults come
from: for that a function is written and compiled, once for all settings that are alike in this. And it finds the value:
for that the function goes down a tree, one feature after the other, and ends at a leaf, which has what the rules leave
open: the values by the last feature, the one with the most values. The tree grows with the contexts that are read, so
putting new rules in place costs next to nothing here.

Whatever the function is not made for it leaves to `Reading.plainly`: a context for the first time, and all errors. So
there is one place that says what is wrong with a context.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from keyword import iskeyword
from types import CodeType, FunctionType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from heksher_client._core.contexts import Defaults, check_known, complete
from heksher_client._core.rules import ABSENT, Resolution, RuleSet

T = TypeVar("T")

_Lookup: TypeAlias = Callable[..., Any]
"""The `get` of a dict."""
DefaultValues: TypeAlias = Mapping[str, str | ContextVar[str]]

_SMALLEST_ROOM: Final = 1024
"""A tree grows to so many leaves and findings, or to as many as there are rules if that is more: it must not outgrow
them by much."""
_STRANGERS: Final = 64
"""So many of a feature's values that no rule demands get a branch of their own in a node, which is the fastest way. All
further ones share one: who knows how many there are."""


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
    that it can be kept: what changes is its code, and what that looks into."""

    def __init__(self, setting: str, features: tuple[str, ...], view: View[T], *, like: Callable[..., T]) -> None:
        """Make a reader.

        Args:
            setting: The setting's name, for errors.
            features: The setting's configurable features.
            view: What is read at first.
            like: What `get` looks like to those who ask for its documentation.
        """
        self._setting, self._features, self._view = setting, features, view
        self._globals = {"_ABSENT": ABSENT, "_errors": (TypeError, LookupError, NameError), "_str": str, "_type": type}
        get = FunctionType(_compiled(features, None, ()).code, self._globals)
        get.__kwdefaults__ = dict.fromkeys(filter(_can_be_parameter, features), ABSENT)
        get.__doc__, get.__module__, get.__qualname__ = like.__doc__, like.__module__, like.__qualname__
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
            reading = Reading(self._setting, self._features, view, defaults)
            code = reading.code
            # Each code has its plan under a name of its own, so a read never has the plan of other code. One of these
            # two assignments is the one that all reads see at once: the first, or, if the code changes, the second.
            self._globals[code.plan] = reading.plan()
            self.get.__code__ = code.code
            self._globals["_reading"] = reading
            for name in [name for name in self._globals if name.startswith("_plan") and name != code.plan]:
                self._globals.pop(name, None)
            if self._view is view and self._default_values() is defaults:
                return  # Else another thread has changed them meanwhile, and may have been overtaken here.

    def explain(self, given: Mapping[str, str]) -> Resolution[T]:
        """Read with the reason."""
        reading: Reading[T] = self._globals["_reading"]
        return reading.view.rule_set.explain(reading.context(given))

    def _default_values(self) -> DefaultValues | None:
        return None if self._view.defaults is None else self._view.defaults.values


class Reading(Generic[T]):
    """What reads look into, as long as neither the view nor its defaults change."""

    def __init__(self, setting: str, features: tuple[str, ...], view: View[T], defaults: DefaultValues | None) -> None:
        self.view = view
        self._setting, self._features, self.default_values = setting, features, defaults
        self.demanded = view.rule_set.demanded
        levels = list(self.demanded)
        # Constants first: a read that overrides none of them starts below them. But never before the last feature,
        # which is for the leaves.
        self._constants = [level for level in levels[:-1] if isinstance(self._default(level), str)]
        self._few = sorted(levels[:-1], key=lambda level: level not in self._constants)
        self._levels = (*self._few, *levels[-1:])
        self._room = _Room(max(_SMALLEST_ROOM, len(view.rule_set)))
        self.root: Any = {}.get if self._few else self._leaf({})
        self.code = _compiled(
            features,
            None if defaults is None else tuple(type(self._default(feature)) for feature in features),
            self._levels,
            len(self._constants),
            view.rule_set.shares_last,
        )

    def plan(self) -> tuple[Any, ...]:
        """What the code unpacks at the beginning of a read, in the order that `source` gives it."""
        start = self._node({feature: self._default(feature) for feature in self._constants})
        last_values = [self.view.rule_set.last_values] if self.view.rule_set.shares_last else []
        last = [default for default in map(self._default, self._levels[-1:]) if isinstance(default, str)]
        defaults = map(self._default, self._features)
        variables = [default.get for default in defaults if isinstance(default, ContextVar)]
        return (self, start, *last_values, *last, *variables)

    def plainly(self, values: Sequence[Any], unknown: Mapping[str, Any]) -> T:
        """Read as the specification says, and make the next read of such a context a fast one.

        Args:
            values: Of the features, in their order; `ABSENT` where none is given.
            unknown: Values that were given for names of no feature.
        """
        given = {feature: value for feature, value in zip(self._features, values, strict=True) if value is not ABSENT}
        context = self.context({**given, **unknown})
        if self.default_values is not None and self._room.left > 0:
            self._node(context)
        return self.view.rule_set.resolve(context)

    def context(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The context of a read.

        Raises:
            UnknownContextError, MissingContextError, TypeError: As `Setting.get` says.
        """
        check_known(given, self._features, f"setting {self._setting}")
        return given if self.default_values is None else complete(self._features, given, self.default_values)

    def _default(self, feature: str) -> str | ContextVar[str] | None:
        return None if self.default_values is None else self.default_values.get(feature)

    def _node(self, context: Mapping[str, Any]) -> Any:
        """Go down the tree as far as there are values for it, and grow what is not there yet.

        A node is the `get` of a dict, which has the next nodes by value, and at `ABSENT` the one for all other values.
        """
        node = self.root
        conditions: dict[str, str] = {}
        for feature in self._few:
            if feature not in context:
                return node
            branches = node.__self__
            branch = str.__str__(context[feature])
            if branch in self.demanded[feature]:
                conditions[feature] = branch
            elif branch not in branches and len(branches) - len(self.demanded[feature]) >= _STRANGERS:
                branch = ABSENT
            if branch not in branches:
                branches[branch] = self._leaf(conditions) if feature == self._few[-1] else {}.get
            node = branches[branch]
        return node

    def _leaf(self, conditions: Mapping[str, str]) -> tuple[_Lookup, Any, Callable[[str], Any] | None]:
        """What is left of the rules when all features but the last have values.

        Args:
            conditions: Those of the values that rules demand.

        Returns:
            Where to look the last feature's value up; what holds where it is not there; and, if rules of several shapes
            are left, what to call with a value that is not there and that rules demand somewhere.
        """
        self._room.left -= 1
        lookups: list[_Lookup] = []
        otherwise = self.view.rule_set.default
        for shape in self.view.rule_set.shapes:
            found = shape.tree
            for level in shape.levels:
                if level == self.view.rule_set.last:
                    lookups.append(found.get)
                    break
                found = found.get(conditions.get(level, ABSENT), ABSENT)
                if found is ABSENT:
                    break
            else:
                otherwise = found  # It matches whatever the last feature's value is: no weaker rule ever wins.
                break
        if len(lookups) > 1:
            if not self.view.rule_set.last_values:
                self.view.rule_set.find_last_values()
            findings: dict[str, Any] = {}
            return findings.get, otherwise, _finder(lookups, otherwise, findings, self._room)
        nowhere: dict[str, Any] = {}
        return lookups[0] if lookups else nowhere.get, otherwise, None


@dataclass(slots=True)
class _Room:
    left: int


def _finder(lookups: Sequence[_Lookup], otherwise: Any, findings: dict[str, Any], room: _Room) -> Callable[[str], Any]:
    """Look a value up in one place after the other, and note what was found, as long as there is room."""

    def find(value: str) -> Any:
        found = otherwise
        for lookup in lookups:
            if (candidate := lookup(value, ABSENT)) is not ABSENT:
                found = candidate
                break
        if room.left > 0:
            room.left -= 1
            findings[value] = found
        return found

    return find


# -- the code ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Code:
    code: CodeType
    plan: str
    """The name under which this code finds its plan, and no other code looks."""


_numbers: Final = count(1)


@lru_cache(maxsize=1024)
def _compiled(
    features: tuple[str, ...],
    sources: tuple[type, ...] | None,
    levels: tuple[str, ...],
    constants: int = 0,
    shares_last: bool = False,
) -> _Code:
    plan = f"_plan_{next(_numbers)}"
    namespace: dict[str, Any] = {"_ABSENT": ABSENT}
    text = source(plan, features, sources, levels, constants, shares_last)
    exec(compile(text, f"<get with {plan}>", "exec"), namespace)  # noqa: S102 - the names in it are checked
    return _Code(namespace["get"].__code__, plan)


def source(
    plan: str,
    features: Sequence[str],
    sources: Sequence[type] | None,
    levels: Sequence[str],
    constants: int,
    shares_last: bool,
) -> str:
    """Write the function that reads.

    Args:
        plan: The name of its plan.
        features: The configurable features.
        sources: Where the default of each feature comes from: `str` for a constant, `ContextVar`, or `NoneType` if it
            has none. None as a whole if the context does not matter yet.
        levels: The features that rules have conditions on, in the order of the tree.
        constants: How many of them the plan's node is below: the tree begins with features that have constant defaults.
        shares_last: Whether rules of several shapes have a condition on the last level.
    """
    names = {feature: feature if _can_be_parameter(feature) else f"_{i}" for i, feature in enumerate(features)}
    kinds = dict(zip(features, sources or (), strict=False))
    constant = [feature for feature, kind in kinds.items() if kind is str]
    variable = [feature for feature, kind in kinds.items() if kind is ContextVar]
    few, last = levels[:-1], levels[-1] if levels else None
    values = ", ".join(names.values()) + ("," if len(names) == 1 else "")
    plainly = f"return _here.plainly(({values}), _unknown)"

    def check(feature: str) -> list[str]:
        name = names[feature]
        given = f"{name} is not _ABSENT and " if feature in constant else ""
        return [f"if {given}_type({name}) is not _str:", f"    {plainly}"]

    def step(feature: str, node: str) -> list[str]:
        name = names[feature]
        return [
            f"_below_{name} = {node}({name})",
            f"if _below_{name} is None:",
            f"    _below_{name} = {node}(_ABSENT)",
            f"    if _below_{name} is None or _type({name}) is not _str or {name} in _here.demanded[{feature!r}]:",
            f"        {plainly}",
        ]

    unpacked = ["_here", "_node", *(["_last_values"] if shares_last else [])]
    last_constant = [level for level in levels[-1:] if level in constant]
    unpacked += [f"_default_{names[feature]}" for feature in (*last_constant, *variable)]
    lines = [f"{', '.join(unpacked)} = {plan}"]
    lines += [f"{name} = _unknown.pop({feature!r}, _ABSENT)" for feature, name in names.items() if feature != name]
    lines += ["if _unknown:", f"    {plainly}"]
    for feature in variable:
        lines += [f"if {names[feature]} is _ABSENT:", f"    {names[feature]} = _default_{names[feature]}()"]
    for feature in last_constant:
        lines += [f"if {names[feature]} is _ABSENT:", f"    {names[feature]} = _default_{names[feature]}"]
    for feature in [feature for feature in kinds if feature not in levels]:
        lines += check(feature)
    if constants:
        overridden = " or ".join(f"{names[feature]} is not _ABSENT" for feature in few[:constants])
        lines += [f"if {overridden}:"]
        node = "_here.root"
        for feature in few[:constants]:
            name = names[feature]
            filling = [f"if {name} is _ABSENT:", f"    {name} = _here.default_values[{feature!r}]"]
            lines += _indented([*(filling if constants > 1 else []), *step(feature, node)])
            node = f"_below_{names[feature]}"
        lines += [f"    _node = {node}"]
    node = "_node"
    for feature in few[constants:]:
        lines += step(feature, node)
        node = f"_below_{names[feature]}"
    if last is None:
        lines += ["return _node[1]"]
    else:
        name = names[last]
        lines += [f"_lookup, _otherwise, _find = {node}", f"_value = _lookup({name}, _ABSENT)"]
        lines += ["if _value is not _ABSENT:", "    return _value"]
        if shares_last:
            lines += [f"if _find is not None and {name} in _last_values:", f"    return _find({name})"]
        lines += [*check(last), "return _otherwise"]
    parameters = "".join(f"{feature}=_ABSENT, " for feature, name in names.items() if name == feature)
    return "\n".join(
        [
            f"def get({'*, ' if parameters else ''}{parameters}**_unknown):",
            "    try:",
            *_indented(_indented(lines)),
            "    except _errors:",
            "        pass  # a context variable without a value, a value that is no key, or other code's turn",
            f"    {plainly.replace('_here', '_reading')}",
            "",
        ]
    )


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _can_be_parameter(feature: str) -> bool:
    """Whether a feature's name can stand for itself in the code. Names with a leading underscore are the code's own."""
    return feature.isidentifier() and not iskeyword(feature) and not feature.startswith("_")
