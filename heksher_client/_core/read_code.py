"""The code of `Setting.get`: a function written for the features of a setting, and for where their defaults come from.

It completes the context and goes down a tree. Whatever it is not made for, it leaves to `Reading.plainly`: a context
for the first time, and all errors. So there is one place that says what is wrong with a context.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from keyword import iskeyword
from sys import intern
from types import CodeType
from typing import Any, Final

from heksher_client._core.rules import ABSENT
from heksher_client._core.trees import OTHERS

GLOBALS: Final[Mapping[str, Any]] = {
    "_ABSENT": ABSENT,
    "_OTHERS": OTHERS,
    "_errors": (TypeError, LookupError, NameError, ValueError),
    "_str": str,
    "_type": type,
}
"""What all functions look up by name, besides the plan and the `_reading` in place: names that no parameter has."""


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
def read_code(
    features: tuple[str, ...],
    sources: tuple[type, ...] | None,
    levels: tuple[str, ...] = (),
    constants: int = 0,
    shares_last: bool = False,
) -> ReadCode:
    """Write and compile a function, once for all settings that are alike. For the arguments see `source`."""
    plan = f"_plan_{next(_numbers)}"
    namespace = dict(GLOBALS)
    text = source(plan, features, sources, levels, constants, shares_last)
    exec(compile(text, f"<get with {plan}>", "exec"), namespace)  # noqa: S102 - the names in it are checked
    return ReadCode(namespace["get"].__code__, f"_code{plan}", plan)


def parameters(features: Sequence[str]) -> list[str]:
    """The features that are parameters: their names can stand in code. Those with a leading underscore are its own.

    They are interned, as the names in code are: so the interpreter finds them by what they are, without comparing.
    """
    return [intern(name) for name in features if name.isidentifier() and name[0] != "_" and not iskeyword(name)]


def source(
    plan: str,
    features: Sequence[str],
    sources: Sequence[type] | None,
    levels: Sequence[str],
    constants: int,
    shares_last: bool,
) -> str:
    """Write a function.

    The plan has, in this order: the reading that it is of; the tree's node that a read starts at; the last values, if
    they are shared; the default of the last level, if that is a constant; and the `get` of each context variable, in
    the order of the features. The plan of a reading that is no longer in place is empty.

    Args:
        plan: The name of the plan.
        features: The configurable features.
        sources: Where the default of each feature comes from: `str` for a constant, `ContextVar`, or `NoneType` if it
            has none. None as a whole if the context does not matter yet: then the function only reads plainly.
        levels: The features that rules have conditions on, in the order of the tree.
        constants: How many of them a read starts below: the tree begins with features that have constant defaults.
        shares_last: Whether rules of several shapes have a condition on the last level.
    """
    own = parameters(features)
    names = {feature: feature if feature in own else f"_{i}" for i, feature in enumerate(features)}
    values = ", ".join(names.values()) + ("," if len(names) == 1 else "")
    plainly = f"return _reading.plainly(({values}), _unknown)"
    lines = [f"{name} = _unknown.pop({feature!r}, _ABSENT)" for feature, name in names.items() if feature != name]
    if sources is not None:
        fast = _fast(plan, names, dict(zip(features, sources, strict=True)), levels, constants, shares_last, plainly)
        lines += ["try:", *_indented(fast), "except _errors:"]
        lines += ["    pass  # an unset context variable, a value that is no key, or no plan"]
    lines += [plainly]
    given = "".join(f"{name}=_ABSENT, " for name in own)
    return "\n".join([f"def get({'*, ' if given else ''}{given}**_unknown):", *_indented(lines), ""])


def _fast(
    plan: str,
    names: Mapping[str, str],
    kinds: Mapping[str, type],
    levels: Sequence[str],
    constants: int,
    shares_last: bool,
    plainly: str,
) -> list[str]:
    last = levels[-1] if levels else None
    filled = [feature for feature in (last,) if feature and kinds[feature] is str]
    variable = [feature for feature, kind in kinds.items() if kind is ContextVar]

    def check(feature: str) -> list[str]:
        given = f"{names[feature]} is not _ABSENT and " if kinds[feature] is str else ""
        return [f"if {given}_type({names[feature]}) is not _str:", f"    {plainly}"]

    def step(feature: str, node: str) -> list[str]:
        name = names[feature]
        return [
            f"_below_{name} = {node}({name})",
            f"if _below_{name} is None:",
            f"    _below_{name} = {node}(_OTHERS)",
            f"    if _below_{name} is None or _type({name}) is not _str or {name} in _here.demanded[{feature!r}]:",
            f"        {plainly}",
        ]

    unpacked = ["_here", "_node", *(["_last_values"] if shares_last else [])]
    unpacked += [f"_default_{names[feature]}" for feature in (*filled, *variable)]
    lines = [f"{', '.join(unpacked)} = {plan}"]
    lines += ["if _unknown:", f"    {plainly}"]
    for feature, call in (*((feature, "()") for feature in variable), *((feature, "") for feature in filled)):
        lines += [f"if {names[feature]} is _ABSENT:", f"    {names[feature]} = _default_{names[feature]}{call}"]
    for feature in [feature for feature in kinds if feature not in levels]:
        lines += check(feature)
    if constants:
        overridden = " or ".join(f"{names[feature]} is not _ABSENT" for feature in levels[:constants])
        lines += [f"if {overridden}:"]
        node = "_here.root"
        for feature in levels[:constants]:
            if constants > 1:
                lines += [f"    if {names[feature]} is _ABSENT:"]
                lines += [f"        {names[feature]} = _here.defaults[{feature!r}]"]
            lines += _indented(step(feature, node))
            node = f"_below_{names[feature]}"
        lines += [f"    _node = {node}"]
    node = "_node"
    for feature in levels[constants:-1]:
        lines += step(feature, node)
        node = f"_below_{names[feature]}"
    if last is None:
        return [*lines, "return _node[1]"]
    lines += [f"_lookup, _otherwise, _find = {node}", f"_value = _lookup({names[last]}, _ABSENT)"]
    lines += ["if _value is not _ABSENT:", "    return _value"]
    if shares_last:
        lines += [f"if _find is not None and {names[last]} in _last_values:", f"    return _find({names[last]})"]
    return [*lines, *check(last), "return _otherwise"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
