"""The HTTP exchanges of the client for threads: their effects are performed in a thread."""

from concurrent.futures import wait
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Final

import httpx

from heksher_client._auth.token_refresh import AwaitToken
from heksher_client._core.refresh.effects import NoResponse
from heksher_client._core.settings.user_functions import plain_result
from heksher_client._http import exchange
from heksher_client._http.connections import shut_down_stream
from heksher_client._http.endpoint import Endpoint
from heksher_client._runtime.worker_threads import Job, StreamThread
from heksher_client.exceptions import ClientNotRunningError

CLOSED: Final = NoResponse(ClientNotRunningError("the client was closed"))
ENDED: Final = NoResponse(RuntimeError("the thread that was to send the request has ended"))
EXHAUSTED: Final = NoResponse(
    TimeoutError("too many previous requests still hang"), is_network_error=True, is_timeout=True
)


class ThreadPerformer(exchange.Performer):
    """Performs the effects of one HTTP exchange in a thread."""

    def __init__(self, endpoint: Endpoint, job: Job) -> None:
        self._endpoint, self._job = endpoint, job
        self._responses = ExitStack()

    def __enter__(self) -> exchange.Performers:
        return self.performers

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # The transport of a program may raise anything. The exchange is over.
            self._responses.close()

    def await_token(self, effect: AwaitToken) -> None:
        wait([effect.refresh], effect.seconds)

    def await_turn(self, effect: exchange.AwaitTurn) -> None:
        if self._job.sleep(effect.seconds, restarts_timer=effect.restarts_timeout):
            raise ClientNotRunningError("no thread waits for the response any more")

    def send(self, effect: exchange.Send) -> httpx.Response:
        send = self._endpoint.client.send
        response: httpx.Response = plain_result(send, send(effect.request, **effect.arguments), role="http_client")
        return self._responses.enter_context(closing(response))

    def read(self, effect: exchange.Read) -> None:
        for chunk in effect.response.iter_raw():
            if self._job.abandoned.is_set() or not effect.feed(chunk):
                break

    def close(self, _: exchange.Close) -> None:
        self._responses.close()


class StreamPerformer(ThreadPerformer):
    """Performs an exchange with a stream, which must be shut down when the client is closed."""

    def __init__(self, endpoint: Endpoint, stream: StreamThread) -> None:
        super().__init__(endpoint, stream)
        self._stream = stream

    def send(self, effect: exchange.Send) -> httpx.Response:
        response = super().send(effect)
        self._stream.connected(partial(shut_down_stream, response.extensions.get("network_stream")))
        return response
