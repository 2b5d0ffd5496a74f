"""The client for asyncio: flows run in a task, which sends, waits and locks."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, closing, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from warnings import warn

import anyio
import httpx

from heksher_client._auth.token_refresh import Credential
from heksher_client._core.refresh.effects import (
    MAX_CONCURRENT_REQUESTS,
    ApplyLocked,
    CallUserCode,
    Effect,
    Exchange,
    Flow,
    Limits,
    NoResponse,
    OpenStream,
    Pause,
    Reply,
    Request,
    RunBlocking,
    timed_out,
)
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.settings.snapshot import detach
from heksher_client._drivers.client import LONGEST_SLEEP, Client
from heksher_client._http.body import (
    Body,
    StreamBody,
    Trace,
    as_http_error,
    no_response,
    redirected,
)
from heksher_client._runtime.worker_threads import DetachedCall, resolve_threadsafe, start_daemon_thread
from heksher_client.exceptions import ClientNotRunningError, HeksherError

T = TypeVar("T")


class AsyncHeksherClient(Client):
    """Keeps all settings up to date in an asyncio task.

    As an asynchronous context manager it is the main client inside the block.
    """

    modification_lock: asyncio.Lock
    """Held while settings get new rules. Acquire it, and no value changes until it is released; so awaiting `reload`
    meanwhile is a deadlock."""

    _raises_at_start = True
    _make_http = httpx.AsyncClient
    _close_within = 0.9
    """Seconds."""
    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task[None] | None = None
    _follower: asyncio.Task[None] | None = None
    _has_own_loop = False
    """Whether it is the child of a fork, where it runs in a thread and an event loop of its own."""

    async def set_as_main(self) -> None:
        """Become the main client: declare all settings, load their rules, and keep them up to date from then on.

        Raises:
            HeksherError: A declaration or the first update failed. The client is closed then, and the settings wait
                for the next client.
        """
        self._session.start()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._keep_updating(), name="heksher-client")
        try:
            await self.reload()
        except BaseException:  # cancellation included
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop updating. All settings keep their last values."""
        self._session.close()
        self._closed.set()
        with anyio.move_on_after(self._close_within, shield=True):
            if self._task is None:
                await self._close_http()
            elif self._loop is not asyncio.get_running_loop():
                with suppress(RuntimeError):  # the other loop is closed, and the task with it
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            else:
                if self._follower is not None:
                    # Now, as what it receives once the client is closed would have it leave its stream half read.
                    self._follower.cancel()
                self._task.cancel()
                await asyncio.wait([self._task])

    async def close(self) -> None:
        """Call `aclose`, which is the name to use."""
        warn("AsyncHeksherClient.close is deprecated, use aclose", DeprecationWarning, stacklevel=2)
        await self.aclose()

    async def reload(self) -> None:
        """Wait for a refresh that begins after this call. The next one is due a full interval later.

        Raises:
            HeksherError: It failed.
            ClientNotRunningError: The client was not set as main, or is closed, or it runs in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop) and not self._has_own_loop:
            raise ClientNotRunningError("the client runs in another event loop than this one, which cannot wait for it")
        outcome: asyncio.Future[Exception | None] = loop.create_future()
        self._session.add_waiter(partial(resolve_threadsafe, outcome))
        if (error := await outcome) is not None:
            raise error

    async def ping(self) -> None:
        """Ask the service whether it is well.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not; either is an `httpx.HTTPError` too.
            ClientNotRunningError: The client is closed.
        """
        try:
            await self._run(self._session.requests.ping())
        except HeksherError as error:
            raise as_http_error(error) from error.__cause__

    async def get_settings(self) -> dict[str, SettingData]:
        """Ask for all settings of the service, by name, whoever declared them.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It did not say.
            ClientNotRunningError: The client is closed.
        """
        return await self._run(self._session.requests.get_settings())

    async def __aenter__(self) -> Self:
        if not self._session.is_open:  # `connect_async` has started it
            await self.set_as_main()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _set_up(self) -> None:
        super()._set_up()
        self.modification_lock = asyncio.Lock()
        self._woken, self._closed = asyncio.Event(), asyncio.Event()
        self._disk = DetachedCall()

    def _wake_up(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody sleeps
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._woken.set)

    def _set_up_again(self) -> None:  # in the child of a fork
        # The loop of the parent does not go on here, and nobody knows whether there will be another one.
        was_main = self._session.is_open
        self._route.renew()
        self._set_up()
        self._loop = self._task = self._follower = None
        if was_main:
            self._has_own_loop = True
            start_daemon_thread("heksher-client", self._update_in_own_loop)

    def _update_in_own_loop(self) -> None:  # in the child of a fork
        async def update() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            await self._sleep()
            await self._keep_updating()

        with suppress(asyncio.CancelledError):
            asyncio.run(update())

    async def _keep_updating(self) -> None:
        detach()
        try:
            # In the child of a fork out of this very loop another one goes on.
            while self._session.is_open and self._task is asyncio.current_task():  # pragma: no branch - only there
                await self._run(self._session.refresh())
                self._begin_to_follow()
                await self._sleep()
        finally:  # also when it is not us who ends the task, but the loop's end
            if self._task is asyncio.current_task():  # pragma: no branch - only there
                self._session.close()
                with anyio.CancelScope(shield=True):
                    if self._follower is not None:
                        self._follower.cancel()
                        await asyncio.wait([self._follower])
                    await self._close_http()

    def _begin_to_follow(self) -> None:
        """Follow the changes in a task of its own, if there is a stream, and none is followed."""
        if self._session.wants_to_follow and (self._follower is None or self._follower.done()):
            self._follower = asyncio.create_task(self._run(self._session.follow()), name="heksher-client-changes")

    async def _sleep(self) -> None:
        """Until there is something to do."""
        while (seconds := self._session.wait()) > 0:
            with anyio.move_on_after(min(seconds, LONGEST_SLEEP)):
                await self._woken.wait()
            self._woken.clear()

    async def _run(self, flow: Flow[T]) -> T:
        with closing(flow):
            try:
                step = next(flow)
                while True:
                    step = flow.send(await self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    async def _take(self, step: Effect) -> Any:
        match step:
            case Exchange():
                return await self._send_all(step)
            case RunBlocking():
                return await self._call_apart(step)
            case CallUserCode():
                return step.call()  # A hook is the event loop's guest.
            case ApplyLocked():
                async with self.modification_lock:
                    step.apply()
            case OpenStream():
                return await self._listen(step)
            case Pause():  # pragma: no branch - there are no others
                await asyncio.sleep(step.seconds)
        return None

    async def _call_apart(self, step: RunBlocking) -> Any:
        """Not in the loop's executor: that is the program's, and the end of the loop waits for it."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._disk.start(step.call, partial(resolve_threadsafe, outcome)):
            return None
        with anyio.move_on_after(step.seconds):
            return await outcome

    async def _send_all(self, exchange: Exchange) -> tuple[Reply, ...]:
        replies: dict[int, Reply] = {}
        waiting = deque(enumerate(exchange.requests))

        async def send() -> None:
            while waiting:
                index, request = waiting.popleft()
                unready: Reply | None = None
                with anyio.move_on_after(exchange.limits.seconds) as scope:
                    unready = await self._get_ready()
                if unready is None and not scope.cancelled_caught:
                    await self._wait_for_rate()
                    if self._session.is_closed:
                        waiting.clear()
                        break
                    with anyio.move_on_after(exchange.limits.seconds) as scope:
                        replies[index] = await self._send(request, exchange.limits)
                elif unready is not None:
                    replies[index] = unready
                if scope.cancelled_caught:
                    waiting.clear()

        with anyio.move_on_after(exchange.limits.total_seconds):
            await asyncio.gather(*(send() for _ in exchange.requests[:MAX_CONCURRENT_REQUESTS]))
        return tuple(replies.get(index, timed_out(exchange.limits)) for index in range(len(exchange.requests)))

    async def _get_ready(self) -> NoResponse | None:
        """Wait until there is something to show that we may ask, before the time of a request comes."""
        try:
            if isinstance(auth := self._route.auth, Credential):
                await auth.aget_ready()
        except Exception as error:  # It is the program's, and may raise anything.
            return no_response(error)
        return None

    async def _send(self, request: Request, limits: Limits) -> Reply:
        try:
            following: httpx.Request | None = self._route.request(request, limits.seconds)
            while following is not None:
                reply, following = await self._receive(following, lambda response: Body(response, limits.max_bytes))
                if following is not None:
                    await self._wait_for_rate()
        except Exception as error:
            # Authentication, transports and event hooks are the program's, and may raise anything.
            return no_response(error)
        return reply

    async def _listen(self, step: OpenStream) -> Reply:
        await self._wait_for_rate()
        try:
            request = self._route.stream(step)
            reply, _ = await self._receive(request, lambda response: StreamBody(response, step.take))
        except Exception as error:  # As above.
            return no_response(error)
        return reply

    async def _receive(
        self, request: httpx.Request, body_of: Callable[[httpx.Response], Body]
    ) -> tuple[Reply, httpx.Request | None]:
        """The reply to a request, and the request that it asks for instead."""
        response = await self._open(request)
        try:
            body = body_of(response)
            if not body.is_read:
                async for chunk in response.aiter_raw():
                    if not body.add(chunk):
                        break
            return body.reply(), redirected(request, response)
        finally:
            await response.aclose()

    async def _wait_for_rate(self) -> None:
        """Until the next request may be sent, or the client is closed."""
        place = self._rate_limit.take()
        is_used = False
        try:
            while (seconds := self._rate_limit.wait(place)) > 0 and not self._closed.is_set():
                with anyio.move_on_after(seconds):
                    await self._closed.wait()
            is_used = not self._closed.is_set()
        finally:
            if not is_used:
                self._rate_limit.give_back(place)

    async def _open(self, request: httpx.Request) -> httpx.Response:
        """The head of the response to a request, sent with what shows that we may ask."""
        auth = self._route.auth
        if not isinstance(auth, Credential):
            return await self._reach(request, auth)
        async with aclosing(auth.async_auth_flow(request)) as flow:
            response = await self._reach(await anext(flow), auth)
            if not auth.is_refused(response):
                return response
            await response.aclose()  # before waiting for another token: others may need the connection
            signed_anew = await flow.asend(response)
            await self._wait_for_rate()
            response = await self._reach(signed_anew, auth)
            auth.note_answer_to_another(response)
            return response

    async def _reach(self, request: httpx.Request, auth: Any) -> httpx.Response:
        """Send a request; once more if its connection turns out to have been closed while it was idle."""
        trace = Trace()
        request.extensions["trace"] = trace.note_async
        arguments = {"stream": True, "follow_redirects": False, **self._route.auth_arguments(auth)}
        try:
            response: httpx.Response = await self._route.client.send(request, **arguments)
        except Exception as error:
            if not trace.is_stale(error):
                raise
            await self._wait_for_rate()
            response = await self._route.client.send(request, **arguments)
        return response

    async def _close_http(self) -> None:
        if self._route.is_ours:
            await self._route.client.aclose()
