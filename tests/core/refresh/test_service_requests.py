"""Single requests of a program: their limits, and the errors that they raise."""

import pytest

from heksher_client import ClientNotRunningError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client._core.refresh.effects import Exchange, Flow, Limits, NoResponse, Response
from heksher_client._core.refresh.options import Options
from heksher_client._core.refresh.positions import Positions
from heksher_client._core.refresh.protocol import HEALTH, SETTINGS
from heksher_client._core.refresh.service_requests import ServiceRequests


class OverloadedError(UnexpectedResponseError):
    """A class of errors that a program has chosen for a status."""


@pytest.fixture
def requests() -> ServiceRequests:
    options = {"update_interval": 60, "request_timeout": 5, "max_response_bytes": 1000}
    return ServiceRequests(
        "http://service/base/",
        Options.checked({**options, "error_classes": {503: OverloadedError}}, can_follow=True),
        Positions("http://service/base", lambda: 0.0),
    )


def flows(requests: ServiceRequests) -> list[tuple[Flow[object], Exchange]]:
    """Return all flows, each with the exchange that it begins with."""
    limits = Limits(5.0, max_bytes=1000)
    return [
        (requests.ping(), Exchange((HEALTH,), limits)),
        (requests.get_settings(), Exchange((SETTINGS,), limits)),
    ]


def test_each_request_has_the_limits_of_the_client(requests: ServiceRequests) -> None:
    """Its timeout, and the size of a response."""
    for flow, exchange in flows(requests):
        assert next(flow) == exchange


def test_an_error_has_the_whole_url_and_the_class_that_the_program_has_chosen(requests: ServiceRequests) -> None:
    """The slash at the end of the service's URL does not count."""
    for flow, exchange in flows(requests):
        next(flow)
        with pytest.raises(OverloadedError) as raised:
            flow.send((Response(503, b"busy"),))
        (request,) = exchange.requests
        assert str(raised.value) == f"{request}: the service responded with 503: 'busy'"
        assert (raised.value.method, raised.value.url) == ("GET", f"http://service/base{request.target}")
        assert (raised.value.status, raised.value.content) == (503, b"busy")


def test_the_cause_of_an_error_is_that_of_the_http_library(requests: ServiceRequests) -> None:
    """Programs may look at it."""
    refused = ConnectionError("connection refused")
    for flow, _ in flows(requests):
        next(flow)
        with pytest.raises(ServiceUnavailableError) as raised:
            flow.send((NoResponse(refused, is_network_error=True),))
        assert raised.value.__cause__ is refused


def test_a_closed_client_sends_nothing(requests: ServiceRequests) -> None:
    """The error says what to do."""
    requests.close()
    for flow, _ in flows(requests):
        with pytest.raises(ClientNotRunningError, match=r"^the client is closed: make a new one$"):
            next(flow)


def test_a_request_that_closing_the_client_has_ended_raises_the_error_of_a_closed_client(
    requests: ServiceRequests,
) -> None:
    """A response that was received is still returned."""
    (ping, _), (get_settings, _) = flows(requests)
    next(ping)
    next(get_settings)
    requests.close()
    with pytest.raises(ClientNotRunningError):
        ping.send((NoResponse(RuntimeError("closed")),))
    with pytest.raises(StopIteration) as end:
        get_settings.send((Response(200, b'{"settings":[]}'),))
    assert end.value.value == {}
