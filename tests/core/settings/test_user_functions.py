"""What is a plain function, and what is a plain result."""

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from heksher_client import Setting
from heksher_client._core.settings.user_functions import (
    DeferredResultError,
    HookOwner,
    InterruptedCodeError,
    awaitable_result,
    check_function,
    plain_result,
    refuse_deferred,
)
from tests.support.deferred_functions import (
    AsyncCallable,
    Deferred,
    async_generator_function,
    coroutine_function,
    generator_function,
)

DEFERRED = [
    coroutine_function,
    partial(coroutine_function, 1),
    partial(partial(coroutine_function, 1), 2),
    AsyncCallable(),
    partial(AsyncCallable(), 1),
    AsyncCallable().method,
    partial(AsyncCallable().method, 1),
    AsyncMock(),
    async_generator_function,
    partial(async_generator_function, 1),
    generator_function,
]
"""Functions whose calls only return something that would have to be awaited or iterated over."""

PLAIN: list[Any] = [len, print, lambda *_: None, MagicMock(), partial(print, 1), int, Setting, AsyncCallable, [].append]


@pytest.mark.parametrize("function", PLAIN)
def test_c20_a_plain_function_is_accepted(function: Any) -> None:
    """A function, a class, a callable object, a mock."""
    check_function(function, "callback")


@pytest.mark.parametrize("function", DEFERRED)
def test_c20_any_deferred_function_is_refused(function: Any) -> None:
    """It is found in a `partial`, in a method, and in the method `__call__` of an object."""
    with pytest.raises(TypeError, match=r"^callback must be a plain function, not a (coroutine|generator) function: "):
        check_function(function, "callback")


@pytest.mark.parametrize("make", [coroutine_function, async_generator_function, generator_function, Deferred])
def test_c20_a_deferred_result_is_an_error_of_the_function(make: Callable[[], object]) -> None:
    """A coroutine is closed, so that Python does not warn that it was never awaited."""
    function: Any = lambda: make()  # noqa: E731 - the function of a program
    for may_be_running in (False, True):
        with pytest.raises(TypeError, match=r"<lambda> returned an object of type .*, which is not awaited$"):
            plain_result(function, function(), may_be_running=may_be_running)


def test_c20_a_callback_may_start_a_task() -> None:
    """The result is a task, which continues by itself. As a value it is an error."""

    async def start() -> None:
        task = asyncio.ensure_future(coroutine_function())
        assert plain_result(len, task, may_be_running=True) is task
        with pytest.raises(TypeError, match="type Task, which is not awaited"):
            plain_result(len, task)
        await task

    asyncio.run(start())


def test_c20_a_deferred_result_is_closed() -> None:
    """A coroutine and a generator, so that nothing of them is left to run. Another object may be in use elsewhere."""
    coroutine, generator = coroutine_function(), generator_function()
    for value in (coroutine, generator):
        with pytest.raises(DeferredResultError, match=r"^it is an object of type \w+, which is not awaited$"):
            refuse_deferred(value, lambda: "it is")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED
    for other in (object(), [], asyncio, Deferred):
        refuse_deferred(other, lambda: "it is")


def test_c20_an_error_says_what_the_function_was_passed_as() -> None:
    """And the name of the function, or the class of an object."""
    for function, name in ((generator_function, "generator_function"), (AsyncCallable(), "AsyncCallable")):
        with pytest.raises(DeferredResultError, match=f"^hook: {name} returned an object of type generator, which is"):
            plain_result(function, generator_function(), role="hook")
        with pytest.raises(DeferredResultError, match=f"^{name} returned an object of type generator, which is"):
            plain_result(function, generator_function())


def test_c20_a_function_that_is_awaited_returns_an_awaitable() -> None:
    result = Deferred()
    assert awaitable_result(len, result, role="hook") is result
    with pytest.raises(
        DeferredResultError, match=r"^hook: len returned an object of type int, which cannot be awaited$"
    ):
        awaitable_result(len, 5, role="hook")


def test_c20_a_hook_is_a_plain_function() -> None:
    """The error names it."""

    class Client(HookOwner):
        on_update_ok = coroutine_function
        on_update_error = print

    with pytest.raises(TypeError, match=r"^on_update_ok must be a plain function"):
        Client()._check_hooks()


def test_an_interruption_by_code_of_the_program_has_its_cause() -> None:
    cause = asyncio.CancelledError("jim")
    error = InterruptedCodeError(cause)
    assert (str(error), error.__cause__) == ("code of the program raised CancelledError", cause)
