"""The code of `Setting.get`: a function written for the features of a setting, and for where their defaults come from.

It completes the context and goes down a tree. Whatever it is not made for, it leaves to `GetterState.plainly`: a
context for the first time, and all errors. So there is one place that says what is wrong with a context.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from keyword import iskeyword
from sys import intern
from types import CodeType
from typing import Any, Final

from heksher_client._core.settings.lookup_tree import OTHERS
from heksher_client._core.settings.rules import ABSENT

GLOBALS: Final[Mapping[str, Any]] = {
    "_ABSENT": ABSENT,
    "_OTHERS": OTHERS,
    "_errors": (TypeError, LookupError, NameError, ValueError),
    "_str": str,
    "_type": type,
}
"""What all functions look up by name, besides the plan and the `_reading` in place: names that no parameter has."""


@dataclass(frozen=True)
class Form:
    """What a function is written for."""

    features: tuple[str, ...]
    """The configurable features."""
    given: frozenset[str] = frozenset()
    """Those that callers give. Only these are parameters: each one that a caller leaves out costs a read something. One
    that is given nevertheless is found among the unknown names, and from then on in here."""
    sources: tuple[type, ...] | None = None
    """Where the default of each feature comes from: `str` for a constant, `ContextVar`, or `NoneType` if it has none.
    None as a whole if the context does not matter yet: then the function only reads plainly."""
    levels: tuple[str, ...] = ()
    """The features that rules have conditions on, in the order of the tree."""
    constants: int = 0
    """How many of them a read starts below: the tree begins with features that have constant defaults."""
    open_levels: frozenset[str] = frozenset()
    """Those at which a node has one branch for all further values that no rule demands."""
    shares_last: bool = False
    """Whether rules of several shapes have a condition on the last level."""
    is_held: bool = False
    """Whether a caller may have pinned what was read before."""
    is_observed: bool = False
    """Whether somebody wants to hear of reads."""


@dataclass(frozen=True, slots=True)
class ReadCode:
    """The code of a function that reads."""

    code: CodeType
    name: str
    """The name among a function's globals of its own copy of this code."""
    plan: str
    """The name among the function's globals of the plan for this code, and for no other."""


_numbers: Final = count(1)


@lru_cache(maxsize=4096)
def read_code(form: Form) -> ReadCode:
    """Write and compile a function, once for all settings that are alike."""
    plan = f"_plan_{next(_numbers)}"
    namespace = dict(GLOBALS)
    exec(compile(source(form, plan), f"<get with {plan}>", "exec"), namespace)  # noqa: S102 - the names in it are checked
    return ReadCode(namespace["get"].__code__, f"_code{plan}", plan)


def parameters(features: Iterable[str]) -> list[str]:
    """The features that can be parameters: their names can stand in code. Those with a leading underscore are its own.

    They are interned, as the names in code are: so the interpreter finds them by what they are, without comparing.
    """
    return [intern(name) for name in features if name.isidentifier() and name[0] != "_" and not iskeyword(name)]


def source(form: Form, plan: str) -> str:
    """Write a function.

    The plan, which it finds under the name that is given here, has in this order: what was planted for the reading; the
    node that a read starts at; the last values, if they are shared; the default of the last level, if that is a
    constant; and the `get` of each context variable, in the order of the features. The plan of a reading that is no
    longer in place is empty.
    """
    own = parameters(form.features)
    names = {feature: feature if feature in own else f"_{i}_{feature}" for i, feature in enumerate(form.features)}
    given = [feature for feature in form.features if feature in form.given]
    values = "".join(f'"{feature}": {names[feature]}, ' for feature in given)
    plainly = f"return _reading.plainly({{{values}**_unknown}})"
    lines = [f'{names[feature]} = _unknown.pop("{feature}", _ABSENT)' for feature in given if feature not in own]
    if form.is_observed:
        lines += ["if _draw() < _share:", f"    _observed(_owner, {{{values}**_unknown}}, _share)"]
    if form.sources is not None:
        if form.is_held:
            lines += [
                "_mine = _pin()",
                "if _mine is not None and _reader in _mine.views:",
                f"    {plainly}",
            ]
        lines += ["if _unknown:", f"    {plainly}"]
        fast = _fast(form, plan, names, dict(zip(form.features, form.sources, strict=True)), plainly)
        lines += ["try:", *_indented(fast), "except _errors:"]
        lines += ["    pass  # no branch, an unset context variable, a value that is no key, or no plan"]
    lines += [plainly]
    own_given = "".join(f"{feature}=_ABSENT, " for feature in given if feature in own)
    return "\n".join([f"def get({'*, ' if own_given else ''}{own_given}**_unknown):", *_indented(lines), ""])


def _fast(form: Form, plan: str, names: Mapping[str, str], kinds: Mapping[str, type], plainly: str) -> list[str]:
    """The way down the tree."""
    levels, constants = form.levels, form.levels[: form.constants]
    last = levels[-1] if levels else None
    filled = [feature for feature in (last,) if feature and kinds[feature] is str]
    variable = [feature for feature, kind in kinds.items() if kind is ContextVar]

    def check(feature: str) -> list[str]:
        given = f"{names[feature]} is not _ABSENT and " if kinds[feature] is str else ""
        return [f"if {given}_type({names[feature]}) is not _str:", f"    {plainly}"]

    def step(feature: str) -> list[str]:
        name = names[feature]
        if feature not in form.open_levels:
            return [f"_node = _node[{name}]"]
        return [
            f"_branch = _node.get({name})",
            "if _branch is None:",
            f'    if _type({name}) is not _str or {name} in _here.demanded["{feature}"]:',
            f"        {plainly}",
            "    _branch = _node[_OTHERS]",
            "_node = _branch",
        ]

    def fill(feature: str, default: str) -> list[str]:
        if feature in form.given:
            return [f"if {names[feature]} is _ABSENT:", f"    {names[feature]} = {default}"]
        return [f"{names[feature]} = {default}"]

    unpacked = ["_here", "_node", *(["_last_values"] if form.shares_last else [])]
    unpacked += [f"_default_{names[feature]}" for feature in (*filled, *variable)]
    lines = [f"{', '.join(unpacked)} = {plan}"]
    for feature in variable:
        lines += fill(feature, f"_default_{names[feature]}()")
    for feature in filled:
        lines += fill(feature, f"_default_{names[feature]}")
    for feature in kinds:
        if feature not in levels and (feature in form.given or kinds[feature] is ContextVar):
            lines += check(feature)
    if overridden := [names[feature] for feature in constants if feature in form.given]:
        lines += [f"if {' or '.join(f'{name} is not _ABSENT' for name in overridden)}:"]
        lines += ["    _node = _here.root"]
        for feature in constants:
            if len(overridden) > 1 or feature not in form.given:
                lines += _indented(fill(feature, f'_here.defaults["{feature}"]'))
            lines += _indented(step(feature))
    for feature in levels[form.constants : -1]:
        lines += step(feature)
    if last is None:
        return [*lines, "return _node[1]"]
    lines += ["_lookup, _otherwise, _find = _node", f"_value = _lookup({names[last]}, _ABSENT)"]
    lines += ["if _value is not _ABSENT:", "    return _value"]
    if form.shares_last:
        lines += [f"if _find is not None and {names[last]} in _last_values:", f"    return _find({names[last]})"]
    return [*lines, *check(last), "return _otherwise"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
