"""What is between the core's values and httpx's, where no server is needed."""

import threading
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from heksher_client._core.refresh.effects import Exchange, Limits, Reply, Request, Response
from heksher_client._drivers.threaded_exchange import StreamThread, ThreadedExchange
from heksher_client._http.body import hang_up
from heksher_client._http.endpoint import Route
from heksher_client._http.rate_limit import RateLimit
from tests.support.clients import PATIENCE


def test_a_transport_of_the_program_may_have_no_connection_to_hang_up() -> None:
    """Its stream ends with the next byte then."""
    hang_up(httpx.Response(200))


def test_a_thread_that_has_its_reply_does_not_hang() -> None:
    """Even if it has not come to its end yet: else the requests that come next would be refused for nothing."""
    is_read = threading.Event()

    class HoldingBack(SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item)
            if threading.current_thread().name == "heksher-client-request":
                is_read.wait(PATIENCE)

    request, reply = Request("GET", "/"), Response(200, b"")

    def send(request: Request, limits: Limits, is_given_up: Any) -> Reply:
        return reply

    sending = ThreadedExchange(
        Exchange((request,), Limits(PATIENCE, PATIENCE, 1)), lambda: None, send, RateLimit(None, 1, lambda: 0.0)
    )
    sending._news = HoldingBack()
    assert (sending.replies(), sending.hanging()) == ((reply,), [])
    is_read.set()


def test_a_stream_that_opens_after_the_end_is_hung_up() -> None:
    """The thread that opens it was on its way when the client closed."""
    hung_up: list[bool] = []
    listening = StreamThread(lambda: None)
    listening.end()
    listening.connected(lambda: hung_up.append(True))
    assert hung_up == [True]


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_new_way_to_the_service_has_a_new_http_client_unless_it_is_the_programs(is_shared: bool) -> None:
    """In the child of a fork; what a program shares is the program's to make anew."""
    with httpx.Client() as http:
        route = Route({"service_url": "http://host", **({"http_client": http} if is_shared else {})}, httpx.Client)
        former = route.renew()
        assert (route.client is former) == is_shared
        assert not former.is_closed
        if not is_shared:
            former.close()
            route.client.close()
