"""The HTTP exchanges of the client for asyncio: their effects are performed in a task."""

import asyncio
from contextlib import AsyncExitStack, aclosing, suppress

import httpx

from heksher_client._auth.token_refresh import AwaitToken, wait_async
from heksher_client._drivers.event_loop import wait_for
from heksher_client._drivers.timeout import Timeout
from heksher_client._http import exchange
from heksher_client._http.endpoint import Endpoint
from heksher_client.exceptions import ClientNotRunningError


class AsyncPerformer(exchange.Performer):
    """Performs the effects of one HTTP exchange in a task."""

    def __init__(self, endpoint: Endpoint, closed: asyncio.Event, timeout: Timeout) -> None:
        self._endpoint, self._closed, self._timeout = endpoint, closed, timeout
        self._responses = AsyncExitStack()

    async def __aenter__(self) -> exchange.Performers:
        return self.performers

    async def __aexit__(self, *_: object) -> None:
        with suppress(Exception):  # The transport of a program may raise anything. The exchange is over.
            await self._responses.aclose()

    async def await_token(self, effect: AwaitToken) -> None:
        await wait_async(effect)

    async def await_turn(self, effect: exchange.AwaitTurn) -> None:
        if effect.restarts_timeout:
            self._timeout.stop()
        if effect.seconds > 0:
            await wait_for(self._closed, effect.seconds)
        if self._closed.is_set():
            raise ClientNotRunningError("the client is closed")
        if effect.restarts_timeout:
            self._timeout.restart()

    async def send(self, effect: exchange.Send) -> httpx.Response:
        response = aclosing(await self._endpoint.client.send(effect.request, **effect.arguments))
        return await self._responses.enter_async_context(response)

    async def read(self, effect: exchange.Read) -> None:
        async for chunk in effect.response.aiter_raw():
            if not effect.feed(chunk):
                break

    async def close(self, _: exchange.Close) -> None:
        await self._responses.aclose()
