"""Functions that a program passes to the package: each must be a plain function, as no result of it is awaited.

A coroutine function is refused when it is passed. A function that only returns a coroutine, such as a lambda, is
noticed when it is called: that is an error of the function, as if it had raised one.
"""

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

T = TypeVar("T")

PLAIN_TYPES: Final = frozenset([int, float, str, bool, tuple, type(None)])
"""Types of results that need no check. The check of others takes longer than a validator."""


class DeferredResultError(TypeError):
    """A function of the program returned an object that would have to be awaited. The message contains no value."""


class InterruptedCodeError(RuntimeError):
    """Code of the program raised an error of another class than `Exception`, such as CancelledError. The message
    contains no value."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"code of the program raised {type(error).__name__}")
        self.__cause__ = error


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


def plain_result(function: object, result: T, *, role: str = "", may_be_running: bool = False) -> T:
    """Return the result of a function that a program has passed.

    Args:
        function: The function.
        result: Its result.
        role: The parameter that the function was passed as, for the message.
        may_be_running: Whether the result may be an asyncio task or another future, which continues by itself.

    Raises:
        DeferredResultError: The result would have to be awaited or iterated over. A coroutine is closed, as Python
            would warn about one that is neither awaited nor closed.
    """
    if type(result) not in PLAIN_TYPES and not (may_be_running and hasattr(type(result), "add_done_callback")):
        refuse_deferred(result, lambda: f"{_described(function, role)} returned")
    return result


def refuse_deferred(value: object, get_subject: Callable[[], str]) -> None:
    """Raise if a value would have to be awaited or iterated over.

    Args:
        value: The value.
        get_subject: Returns the beginning of the message.

    Raises:
        DeferredResultError: It would.
    """
    kind: Any = type(value)
    if not hasattr(kind, "__await__") and kind not in (GeneratorType, AsyncGeneratorType):
        return
    if kind is GeneratorType or issubclass(kind, Coroutine):
        kind.close(value)
    raise DeferredResultError(f"{get_subject()} an object of type {kind.__name__}, which is not awaited")


def awaitable_result(function: object, result: T, *, role: str) -> T:
    """Return the result of a function that a program has passed, and that is awaited.

    Raises:
        DeferredResultError: It cannot be awaited.
    """
    if not inspect.isawaitable(result):
        raise DeferredResultError(
            f"{_described(function, role)} returned an object of type {type(result).__name__}, which cannot be awaited"
        )
    return result


class HookOwner:
    """The owner of hooks: methods that a subclass overrides, or functions that a program assigns."""

    def _check_hooks(self) -> None:
        """Check the hooks of the class.

        Raises:
            TypeError: One of them is not a plain function.
        """
        for name in _HOOKS:
            check_function(getattr(self, name), name)

    def __post_init__(self) -> None:
        """Override to give a class arguments of its own: those that a client does not have, at the end of `__init__`.

        A class whose arguments type checkers should know overrides `__init__` instead.
        """

    if not TYPE_CHECKING:  # Type checkers would accept the assignment of any attribute.

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _HOOKS:
                check_function(value, name)
            super().__setattr__(name, value)


_HOOKS: Final = frozenset(["on_update_error", "on_update_ok", "__post_init__"])


def _described(function: object, role: str) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{role}: {name}" if role else str(name)


def _has_kind(function: object, is_kind: Callable[[Any], bool]) -> bool:
    while isinstance(function, partial) or inspect.ismethod(function):
        function = function.func if isinstance(function, partial) else function.__func__
    return is_kind(function) or is_kind(type(function).__call__)
