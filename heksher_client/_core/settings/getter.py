"""The code of `Setting.get`: a function generated for the features of a setting and the sources of their defaults.

A generated function completes the context and walks the lookup tree. Everything else it leaves to `GetterState`: a
context that is read for the first time, rules that were replaced, and all errors, so that one place says what is wrong
with a context.

Code is generated because it is the fastest way: a loop over the tree takes 1.7 to 2.4 times the interpreter's minimum
for such a read, a memo of whole contexts about 4, `RuleSet.resolve` about 10, and generated code 1.2 to 1.3. Each state
gets a closure of its own over its plan. Replacing `get.__code__` of one function, as an earlier version did, takes the
same time, and needs a copy of the code and private globals for each setting.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from keyword import iskeyword
from typing import Any, Final

import msgspec

from heksher_client._core.settings.lookup_tree import UNLISTED
from heksher_client._core.settings.observers import read_observers
from heksher_client._core.settings.rules import ABSENT
from heksher_client._core.settings.snapshot import SCOPE

_GLOBALS: Final[Mapping[str, Any]] = {
    "_ABSENT": ABSENT,
    "_UNLISTED": UNLISTED,
    "_errors": (TypeError, LookupError),
    "_notify": read_observers.notify,
    "_scope": SCOPE.get,
    "_str": str,
    "_type": type,
}
"""The names that generated functions look up: no parameter begins with an underscore."""


class Form(msgspec.Struct, frozen=True):
    """The properties that a function is generated for. Settings with equal forms share the code."""

    features: tuple[str, ...]
    """The configurable features."""
    given: frozenset[str]
    """The features that callers pass. Only these are parameters, as each one that a caller leaves out makes a read
    slower. Another one is found among the unknown names, and included in the next form."""
    sources: tuple[type, ...]
    """The source of each feature's default: `str` for a constant, `ContextVar`, or `NoneType` if it has none."""
    levels: tuple[str, ...]
    """The features that rules have conditions on, in the order of the tree."""
    constants: int
    """The number of levels that a read skips: the tree begins with features that have constant defaults."""
    overflow_levels: frozenset[str]
    """The levels at which a node has one branch for all further values that no rule requires."""
    shares_last_feature: bool
    """True if several indexes have conditions on the last level."""
    is_retained: bool
    """True if a snapshot may retain earlier rules."""
    is_observed: bool
    """True if reads have observers."""


GetterFactory = Callable[..., Callable[..., Any]]
"""Called with the state, its plan, and the random function and sample rate of the observers. Returns the getter.

The plan is a list with one tuple: the compiled getter; the node at which a read begins; the values of the last feature,
if shared; the default of the last level, if constant; and the `get` of each context variable, in the order of the
features. It is empty once the getter is replaced: an IndexError is the cheapest way to notice that, and costs nothing
before.
"""


@lru_cache(maxsize=4096)
def getter_factory(form: Form) -> GetterFactory:
    """Generate and compile the code, once for all settings of the same form."""
    namespace = dict(_GLOBALS)
    name = f"<getter of {', '.join(form.features)}>"
    exec(compile(source(form), name, "exec"), namespace)  # noqa: S102 - all names in it are checked identifiers
    factory: GetterFactory = namespace["make_getter"]
    return factory


def parameters(features: Iterable[str]) -> list[str]:
    """Return the features that can be parameters: those with names that are valid in code, and not reserved here."""
    return [name for name in features if name.isidentifier() and name[0] != "_" and not iskeyword(name)]


def source(form: Form) -> str:
    """Return the code of a function that makes getters."""
    own = parameters(form.features)
    names = {feature: feature if feature in own else f"_{i}_{feature}" for i, feature in enumerate(form.features)}
    given = [feature for feature in form.features if feature in form.given]
    items = [f'"{feature}": {names[feature]}' for feature in given]
    values, all_values = ", ".join(items), ", ".join([*items, "**_unknown"])
    lines = [f'{names[feature]} = _unknown.pop("{feature}", _ABSENT)' for feature in given if feature not in own]
    lines += ["if _unknown:", f"    return _state.get_with_other_features({{{all_values}}})"]
    slow_path = f"return _state.get_slow_path({{{values}}}, _plan)"
    if form.is_observed:
        # Not if the getter was replaced: the one that takes over notifies the observers.
        lines += ["if _plan and _random() < _sample_rate:"]
        lines += [f"    _notify(_state.entry.setting, _state.given({{{values}}}), _sample_rate)"]
    if form.is_retained:
        lines += ["_current = _scope()", "if _current is not None and _state.entry in _current.retained:"]
        lines += [f"    {slow_path}"]
    lines += ["try:", *_indented(_fast_path(form, names, slow_path)), "except _errors:"]
    lines += ["    pass  # no branch, an unset context variable, a value that is not a key, or an empty plan"]
    if len(parameters(given)) == len(given):  # Otherwise `get_slow_path` hands over: not all of them can be keywords.
        arguments = ", ".join(f"{feature}={feature}" for feature in given)
        lines += ["if not _plan and (_compiled := _state.entry.state.compiled) is not None:"]
        lines += [f"    return _compiled.getter({arguments})"]
    lines += [slow_path]
    signature = "".join(f"{feature}=_ABSENT, " for feature in given if feature in own)
    lines = [f"def get({'*, ' if signature else ''}{signature}**_unknown):", *_indented(lines), "return get"]
    return "\n".join(["def make_getter(_state, _plan, _random, _sample_rate):", *_indented(lines), ""])


# One function, so that the order of the generated lines can be read from top to bottom: C901 counts its conditions.
def _fast_path(form: Form, names: Mapping[str, str], slow_path: str) -> list[str]:  # noqa: C901
    """Return the lines that walk the tree."""
    sources = dict(zip(form.features, form.sources, strict=True))
    levels, constants = form.levels, form.levels[: form.constants]
    last = levels[-1] if levels else None
    with_constant = [feature for feature in (last,) if feature and sources[feature] is str]
    with_variable = [feature for feature, source in sources.items() if source is ContextVar]

    def check_type(feature: str) -> list[str]:
        if_given = f"{names[feature]} is not _ABSENT and " if sources[feature] is str else ""
        return [f"if {if_given}_type({names[feature]}) is not _str:", f"    {slow_path}"]

    def descend(feature: str) -> list[str]:
        name = names[feature]
        if feature not in form.overflow_levels:
            return [f"_node = _node[{name}]"]
        return [
            f"_branch = _node.get({name})",
            "if _branch is None:",
            f'    if _type({name}) is not _str or {name} in _compiled.condition_values["{feature}"]:',
            f"        {slow_path}",
            "    _branch = _node[_UNLISTED]",
            "_node = _branch",
        ]

    def complete(feature: str, default: str) -> list[str]:
        if feature in form.given:
            return [f"if {names[feature]} is _ABSENT:", f"    {names[feature]} = {default}"]
        return [f"{names[feature]} = {default}"]

    unpacked = ["_compiled", "_node", *(["_last_values"] if form.shares_last_feature else [])]
    unpacked += [f"_default_{names[feature]}" for feature in (*with_constant, *with_variable)]
    lines = [f"{', '.join(unpacked)} = _plan[0]"]
    for feature in with_variable:
        lines += complete(feature, f"_default_{names[feature]}()")
    for feature in with_constant:
        lines += complete(feature, f"_default_{names[feature]}")
    for feature in form.features:
        if feature not in levels and (feature in form.given or sources[feature] is ContextVar):
            lines += check_type(feature)
    if overridden := [names[feature] for feature in constants if feature in form.given]:
        lines += [f"if {' or '.join(f'{name} is not _ABSENT' for name in overridden)}:"]
        lines += ["    _node = _compiled.root"]
        for feature in constants:
            if len(overridden) > 1 or feature not in form.given:
                lines += _indented(complete(feature, f'_compiled.defaults["{feature}"]'))
            lines += _indented(descend(feature))
    for feature in levels[form.constants : -1]:
        lines += descend(feature)
    if last is None:
        return [*lines, "return _node[1]"]
    lines += ["_lookup, _otherwise, _search = _node", f"_value = _lookup({names[last]}, _ABSENT)"]
    lines += ["if _value is not _ABSENT:", "    return _value"]
    if form.shares_last_feature:
        lines += [f"if _search is not None and {names[last]} in _last_values:", f"    return _search({names[last]})"]
    return [*lines, *check_type(last), "return _otherwise"]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
