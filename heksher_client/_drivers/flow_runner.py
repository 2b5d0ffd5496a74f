"""Running a flow, of the core or of an HTTP exchange, in a thread or in a task.

Each result is sent to the flow, and each error is thrown into it. If an effect ends otherwise, by the cancellation of a
task for example, the flow is closed.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import closing
from typing import Any, TypeVar

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
    """Run a flow in a task: see `run`."""
    with closing(flow):
        try:
            effect = next(flow)
            while True:
                try:
                    result = await performers[type(effect)](effect)
                except Exception as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as end:
            value: ResultT = end.value
            return value
