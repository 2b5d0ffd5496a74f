"""The client for asyncio: it runs the flows in a task."""

import asyncio
import math
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any, Self
from warnings import warn

import httpx

from heksher_client._core.refresh import effects
from heksher_client._core.refresh.options import checked_timeout
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.waiters import reload_timed_out, start_timed_out
from heksher_client._core.settings.snapshot import detach
from heksher_client._drivers.async_exchange import AsyncPerformer
from heksher_client._drivers.client import Client
from heksher_client._drivers.clock import MAX_SLEEP
from heksher_client._drivers.event_loop import (
    result_of,
    running_loop,
    running_loop_or_none,
    wait_for,
    wait_until_done,
)
from heksher_client._drivers.flow_runner import ResultT, run_async
from heksher_client._drivers.internals import AsyncInternals
from heksher_client._drivers.timeout import Timeout
from heksher_client._http import exchange
from heksher_client._runtime import fork, gevent_patch
from heksher_client._runtime.wakeup import resolve_threadsafe
from heksher_client._runtime.worker_threads import DetachedCall, start_daemon_thread
from heksher_client.exceptions import ClientNotRunningError


class AsyncHeksherClient(Client):
    """Keeps all settings up to date in an asyncio task.

    As an asynchronous context manager it is the main client inside the block.
    """

    modification_lock: asyncio.Lock
    """Held while new rules of settings are applied. While a program holds it, no value changes; so awaiting `reload`
    is a deadlock then."""

    _raises_at_start = True
    _http_client_class = httpx.AsyncClient
    _close_timeout = 0.9
    _loop: asyncio.AbstractEventLoop | None
    _task: asyncio.Task[None] | None
    _stream_task: asyncio.Task[None] | None
    _has_own_loop = False
    """Whether this is the child of a fork, where the client runs in an event loop of its own, in a thread."""

    async def set_as_main(self, *, timeout: float | None = None) -> None:
        """Become the main client: declare all settings, load their rules, and keep them up to date from then on.

        Args:
            timeout: The seconds to wait for that, in addition to the limits of the options.

        Raises:
            ServiceTimeoutError: The start has not ended in time. The client is closed then.
            HeksherError: A declaration or the first refresh failed. The client is closed then, and the settings wait
                for the next client.
        """
        start, seconds = object(), checked_timeout(timeout)
        try:
            self._loop = running_loop()
            outcome: asyncio.Future[Exception | None] = self._loop.create_future()
            self._session.start(start, partial(resolve_threadsafe, outcome))
            self._task = self._loop.create_task(self._keep_refreshing(), name="heksher-client")
            if (error := await result_of(outcome, seconds, start_timed_out(seconds))) is not None:
                raise error
        except BaseException as error:  # cancellation and Ctrl-C included
            if self._session.is_started_by(start):
                await self._close(can_wait=not isinstance(error, GeneratorExit))
            raise

    async def aclose(self) -> None:
        """Stop refreshing. All settings keep their last values. If this is cancelled, it raises that at its end."""
        await self._close(can_wait=True)

    async def close(self) -> None:
        """Deprecated alias of `aclose`."""
        warn("AsyncHeksherClient.close is deprecated, use aclose", DeprecationWarning, stacklevel=2)
        await self.aclose()

    async def reload(self, *, timeout: float | None = None) -> None:
        """Wait for a refresh that begins after this call. The next one is due a full interval later.

        Args:
            timeout: The seconds to wait.

        Raises:
            ServiceTimeoutError: The refresh has not ended in time. It goes on.
            HeksherError: The refresh failed.
            ClientNotRunningError: The client was not set as main, or is closed, or runs in another event loop.
        """
        session, loop, seconds = self._session, running_loop(), checked_timeout(timeout)
        if self._loop not in (None, loop) and not self._has_own_loop:
            raise ClientNotRunningError("the client runs in another event loop: call reload in that loop")
        outcome: asyncio.Future[Exception | None] = loop.create_future()
        session.add_waiter(partial(resolve_threadsafe, outcome))
        if (error := await result_of(outcome, seconds, reload_timed_out(seconds))) is not None:
            raise error

    async def ping(self, *, timeout: float | None = None) -> None:
        """Check that the service is healthy. `timeout` limits the seconds for that, in addition to the options.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not. The error is an `httpx.HTTPError` as well.
            ClientNotRunningError: The client is closed.
        """
        running_loop()
        await self._run(self._session.within(self._ping(), timeout))

    async def get_settings(self, *, timeout: float | None = None) -> dict[str, SettingData]:
        """Request all settings of the service, by name, including those of other programs. `timeout` is as for `ping`.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: The request failed.
            ClientNotRunningError: The client is closed.
        """
        running_loop()
        return await self._run(self._session.within(self._session.requests.get_settings(), timeout))

    async def __aenter__(self) -> Self:
        try:
            if not self._session.is_open:  # `connect_async` has started it
                await self.set_as_main()
            return self
        except BaseException as error:  # Ctrl-C after the start: the block is not entered, and so not left.
            await self._close(can_wait=not isinstance(error, GeneratorExit))
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- start and end -------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        super()._set_up()
        self._loop = self._task = self._stream_task = None
        self.modification_lock = asyncio.Lock()
        self._woken, self._closed = asyncio.Event(), asyncio.Event()
        self._disk = DetachedCall()

    def _wake_up(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no task sleeps
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._woken.set)

    def _restart_in_child(self) -> None:  # in the child of a fork
        # The parent's loop does not continue here, and there may never be another one.
        self._has_own_loop = True
        run = gevent_patch.recorded(lambda: asyncio.run(self._refresh_in_own_loop()))
        start_daemon_thread("heksher-client", run)

    async def _refresh_in_own_loop(self) -> None:  # in the child of a fork
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        with suppress(asyncio.CancelledError):
            await self._keep_refreshing()

    async def _keep_refreshing(self) -> None:
        self._task = asyncio.current_task()
        try:
            if not self._session.is_run_by(self._task):
                return
            detach()
            fork.report_problem()
            await self._sleep()
            # In the child of a fork in this loop, another loop takes over.
            while self._session.is_open and self._task is asyncio.current_task():  # pragma: no branch - only there
                await self._run(self._session.refresh())
                if self._session.wants_to_follow and (self._stream_task is None or self._stream_task.done()):
                    follow = self._run(self._session.follow())
                    self._stream_task = asyncio.create_task(follow, name="heksher-client-changes")
                await self._sleep()
        finally:  # also if the task is cancelled at the end of its loop
            if self._task is asyncio.current_task(self._loop) and self._session.is_run_by(self._task):
                self._session.close()
                # In a task of its own: this one may be cancelled again, by `aclose` and by the end of the loop.
                closing = asyncio.create_task(self._close_connections(), name="heksher-client-closing")
                with suppress(asyncio.CancelledError):
                    await wait_until_done(closing, self._close_timeout)
                    await asyncio.wait([closing])

    async def _close(self, *, can_wait: bool = True) -> None:
        """Close the client, and wait for the end of its task, unless nothing can be awaited."""
        self._session.close()
        self._closed.set()
        loop = running_loop_or_none()
        if self._session.is_run_by(self):  # no task ran, and none will
            if can_wait:
                await self._close_unused(loop)
        elif self._task is not None and self._task.get_loop() is not loop:
            with suppress(RuntimeError):  # that loop is closed, and the task with it
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif self._task is not None:  # pragma: no branch - it is the one that runs
            if self._stream_task is not None:
                self._stream_task.cancel()  # now, as an event that it receives later would end it in mid-stream
            self._task.cancel()
            if can_wait:
                await wait_until_done(self._task, self._close_timeout)
                if self._task.done():  # pragma: no branch - its own end may have been interrupted, or take longer
                    await self._close_unused(loop)

    async def _close_unused(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Close the connections that no task uses, if there are any."""
        if loop is not None:
            closing = loop.create_task(self._endpoint.aclose(), name="heksher-client-closing")
            await wait_until_done(closing, self._close_timeout)
        else:
            with suppress(RuntimeError):  # There is no event loop of any library, and so no connection.
                await self._endpoint.aclose()

    async def _close_connections(self) -> None:
        if self._stream_task is not None:
            self._stream_task.cancel()
            await asyncio.wait([self._stream_task])
        await self._endpoint.aclose()

    async def _sleep(self) -> None:
        """Sleep until a refresh is due."""
        while (seconds := self._session.wait()) > 0:
            await wait_for(self._woken, min(seconds, MAX_SLEEP))
            self._woken.clear()

    def _internals(self) -> AsyncInternals:
        return AsyncInternals(self._session, self._performers)

    # -- effects -------------------------------------------------------------------------------------------------------

    async def _run(self, flow: effects.Flow[ResultT]) -> ResultT:
        return await run_async(flow, self._performers)

    async def _send(self, effect: effects.Exchange) -> tuple[effects.Reply, ...]:
        replies: dict[int, effects.Reply] = {}
        waiting = deque(enumerate(effect.requests))

        async def send_waiting() -> None:
            while waiting:
                index, request = waiting.popleft()
                with Timeout(effect.limits.seconds) as timeout:
                    async with AsyncPerformer(self._endpoint, self._closed, timeout) as performers:
                        flow = exchange.send_request(self._endpoint, self._rate_limit, request, effect.limits)
                        replies[index] = await run_async(flow, performers)
                if timeout.is_exceeded:
                    waiting.clear()

        with Timeout(effect.limits.total_seconds):
            await asyncio.gather(*(send_waiting() for _ in effect.requests[: effects.MAX_CONCURRENT_REQUESTS]))
        substitute = exchange.timed_out(self._endpoint, effect.limits)
        return tuple(replies.get(index, substitute) for index in range(len(effect.requests)))

    async def _open_stream(self, effect: effects.OpenStream) -> effects.Reply:
        async with AsyncPerformer(self._endpoint, self._closed, Timeout(math.inf)) as performers:
            return await run_async(exchange.open_stream(self._endpoint, self._rate_limit, effect), performers)

    async def _run_blocking(self, effect: effects.RunBlocking) -> Any:
        # Not in the loop's executor: programs use that, and the end of the loop waits for it.
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._disk.start(effect.call, partial(resolve_threadsafe, result)):
            return None
        with Timeout(effect.seconds):
            return await result

    async def _call_user_code(self, effect: effects.CallUserCode) -> Any:
        return effect.call()  # in the event loop, where the program may expect it

    async def _apply_locked(self, effect: effects.ApplyLocked) -> None:
        async with self.modification_lock:
            effect.apply()

    async def _pause(self, effect: effects.Pause) -> None:
        await wait_for(self._closed, effect.seconds)


def internals(client: AsyncHeksherClient) -> AsyncInternals:
    """Return the internal interface of a client."""
    return client._internals()  # noqa: SLF001 - private, as it is not for users of the public class
