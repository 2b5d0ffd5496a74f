"""Running a flow, of the core or of an HTTP exchange, in a thread or in a task.

Each result is sent to the flow, and each error is thrown into it. If an effect ends otherwise, by the cancellation of a
task for example, the flow is closed.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import closing
from typing import Any, TypeVar

from heksher_client._core.settings.user_functions import InterruptedCodeError

ResultT = TypeVar("ResultT")


def run(flow: Generator[Any, Any, ResultT], performers: Mapping[type, Callable[[Any], Any]]) -> ResultT:
    """Run a flow, and return its result.

    Args:
        flow: The flow.
        performers: The functions that perform its effects, by the type of the effect.
    """
    with closing(flow):
        try:
            effect = next(flow)
            while True:
                try:
                    result = performers[type(effect)](effect)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            value: ResultT = end.value
            return value


async def run_async(
    flow: Generator[Any, Any, ResultT], performers: Mapping[type, Callable[[Any], Awaitable[Any]]]
) -> ResultT:
    """Run a flow in a task: see `run`.

    An effect may also end by a CancelledError of the program's code, which awaited something that was cancelled, or by
    another error that is not an `Exception`. The flow receives an error for it, unless this task is cancelled.
    """
    with closing(flow):
        try:
            effect = next(flow)
            while True:
                try:
                    result = await performers[type(effect)](effect)
                except BaseException as error:
                    effect = flow.throw(_error_of_program(error))
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            value: ResultT = end.value
            return value


def _error_of_program(error: BaseException) -> Exception:
    """Return an error of an effect for the flow, which handles those of the class `Exception`.

    Raises:
        BaseException: The error, if it is not for the flow.
    """
    import asyncio  # Any caller has imported it; programs without tasks should not have to.

    if isinstance(error, Exception):
        return error
    if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
        raise error
    if isinstance(error, asyncio.CancelledError) and ((task := asyncio.current_task()) is None or task.cancelling()):
        raise error
    return InterruptedCodeError(error)
