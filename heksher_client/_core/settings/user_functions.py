"""Functions that a program passes to the package: each must be a plain function, as no result of it is awaited.

A coroutine function is refused when it is passed. A function that only returns a coroutine, such as a lambda, is
noticed when it is called: that is an error of the function, as if it had raised one.
"""

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeVar

T = TypeVar("T")

_PLAIN_TYPES: Final = frozenset([int, float, str, bool, tuple, type(None)])


def check_function(function: object, name: str, advice: str = "") -> None:
    """Check a function that a program passes.

    Args:
        function: The function.
        name: The name of the parameter, for the message.
        advice: The alternative to a coroutine function, if there is one.

    Raises:
        TypeError: It is not callable, or a call of it would only return a coroutine or a generator.
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {type(function).__name__}")
    if is_coroutine_function(function):
        raise TypeError(f"{name} must be a plain function, not a coroutine function: it is not awaited{advice}")
    if _has_kind(function, inspect.isasyncgenfunction) or _has_kind(function, inspect.isgeneratorfunction):
        raise TypeError(f"{name} must be a plain function, not a generator function: nothing iterates over its result")


def is_coroutine_function(function: object) -> bool:
    """Return True for a coroutine function, also if it is the method `__call__` of an object, or in a `partial`."""
    return _has_kind(function, inspect.iscoroutinefunction)


def plain_result(function: object, result: T, *, may_be_running: bool = False) -> T:
    """Return the result of a function that a program has passed.

    Args:
        function: The function.
        result: Its result.
        may_be_running: Whether the result may be an asyncio task or another future, which continues by itself.

    Raises:
        TypeError: The result would have to be awaited or iterated over. A coroutine is closed, as Python would warn
            about one that is neither awaited nor closed.
    """
    kind: Any = type(result)
    if kind in _PLAIN_TYPES:  # The rest takes longer than a validator.
        return result
    if not hasattr(kind, "__await__") and kind not in (GeneratorType, AsyncGeneratorType):
        return result
    if may_be_running and hasattr(kind, "add_done_callback"):
        return result
    if kind is GeneratorType or issubclass(kind, Coroutine):
        kind.close(result)
    name = getattr(function, "__qualname__", type(function).__name__)
    raise TypeError(f"{name} returned an object of type {kind.__name__}, which is not awaited")


def _has_kind(function: object, is_kind: Callable[[Any], bool]) -> bool:
    while isinstance(function, partial) or inspect.ismethod(function):
        function = function.func if isinstance(function, partial) else function.__func__
    return is_kind(function) or is_kind(type(function).__call__)
