"""The event loop of the async client: which one is running, and waiting for an event or for the end of a task."""

import asyncio
import math
from contextlib import suppress
from typing import Any, TypeVar

import anyio

from heksher_client._clock import monotonic
from heksher_client._drivers.timeout import Timeout
from heksher_client._runtime import wakeup

T = TypeVar("T")


def running_loop_or_none() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop of asyncio; None if another library has one, or there is none."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop of asyncio.

    Raises:
        RuntimeError: There is none.
    """
    return wakeup.running_loop("AsyncHeksherClient", "a ThreadHeksherClient")


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, but at most so many seconds. Other tasks run in any case."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with Timeout(seconds):
        await event.wait()


async def result_of(future: asyncio.Future[T], seconds: float, late: Exception) -> T:
    """Return the result of a future.

    Args:
        future: The future. It is cancelled if the wait ends without a result.
        seconds: How long to wait.
        late: The error to raise if there is no result then.
    """
    if seconds == math.inf:
        return await future
    with Timeout(seconds):
        return await future
    raise late


async def wait_until_done(task: asyncio.Task[Any], seconds: float) -> None:
    """Wait until a task is done, but at most so many seconds.

    A cancellation does not end the wait, as the task would continue without it, and the program may end too early for
    that. It is raised at the end.
    """
    until, cancelled = monotonic() + seconds, None
    with anyio.CancelScope(shield=True):  # Otherwise anyio would cancel the wait again and again.
        while not task.done() and (left := until - monotonic()) > 0:
            try:
                with Timeout(left):
                    await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
