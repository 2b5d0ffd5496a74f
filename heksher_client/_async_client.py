"""The client for asyncio: flows run in a task, which sends, waits and locks."""

import asyncio
from collections.abc import Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from warnings import warn

import anyio
import httpx

from heksher_client._client import Client
from heksher_client._core.protocol import (
    AT_ONCE,
    Exchange,
    Flow,
    Install,
    Reply,
    Request,
    SettingData,
    Step,
)
from heksher_client._transport import as_http_error, from_httpx, no_response, to_httpx
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
    _close_within = 0.9
    """Seconds."""
    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task[None] | None = None

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
        with anyio.move_on_after(self._close_within, shield=True):
            if self._task is None:
                await self._http.aclose()
            elif self._loop is not asyncio.get_running_loop():
                with suppress(RuntimeError):  # the other loop is closed, and the task with it
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            else:
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
        if self._loop not in (None, asyncio.get_running_loop()):
            raise ClientNotRunningError("the client runs in another event loop than this one, which cannot wait for it")
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(error: Exception | None) -> None:
            if outcome.done():
                return  # cancelled meanwhile
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(error)

        self._session.call_back(tell)
        await outcome

    async def ping(self) -> None:
        """Ask the service whether it is well.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It is not; either is an `httpx.HTTPError` too.
            ClientNotRunningError: The client is closed.
        """
        try:
            await self._run(self._session.ping())
        except HeksherError as error:
            raise as_http_error(error) from error.__cause__

    async def get_settings(self) -> dict[str, SettingData]:
        """Ask for all settings of the service, by name, whoever declared them.

        Raises:
            ServiceUnavailableError, UnexpectedResponseError: It did not say.
            ClientNotRunningError: The client is closed.
        """
        return await self._run(self._session.get_settings())

    async def __aenter__(self) -> Self:
        await self.set_as_main()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _set_up(self, http_arguments: dict[str, Any]) -> None:
        self.modification_lock = asyncio.Lock()
        self._http = httpx.AsyncClient(**http_arguments)
        self._woken = asyncio.Event()

    def _wake_up(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody sleeps
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _keep_updating(self) -> None:
        try:
            while True:
                await self._run(self._session.round())
                while (seconds := self._session.wait()) > 0:
                    with anyio.move_on_after(seconds):
                        await self._woken.wait()
                    self._woken.clear()
        finally:  # also when it is not us who ends the task, but the loop's end
            self._session.close()
            with anyio.CancelScope(shield=True):
                await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        with closing(flow):
            try:
                step = next(flow)
                while True:
                    step = flow.send(await self._take(step))
            except StopIteration as end:
                result: T = end.value
                return result

    async def _take(self, step: Step) -> tuple[Reply, ...]:
        if isinstance(step, Exchange):
            return await self._send_all(step.requests)
        if isinstance(step, Install):
            async with self.modification_lock:
                step.apply()
        else:
            await asyncio.sleep(step.seconds)
        return ()

    async def _send_all(self, requests: Sequence[Request]) -> tuple[Reply, ...]:
        replies: dict[int, Reply] = {}
        waiting = iter(enumerate(requests))

        async def send() -> None:
            for index, request in waiting:  # the next one that nobody has taken
                replies[index] = await self._send(request)

        await asyncio.gather(*(send() for _ in requests[:AT_ONCE]))
        return tuple(replies[index] for index in range(len(requests)))

    async def _send(self, request: Request) -> Reply:
        try:
            return from_httpx(await self._http.send(to_httpx(self._http, request)))
        except Exception as error:
            # Authentication, transports and event hooks are the program's, and may raise anything.
            return no_response(error)
