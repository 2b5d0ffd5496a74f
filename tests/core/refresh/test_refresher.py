"""One refresh: what is recorded of responses of different revisions, and of the order of the context features."""

import json

import pytest

from heksher_client import Setting, State
from tests.support.driven import driven
from tests.support.fake_service import FakeService
from tests.support.service import CHANGES, CONTEXT_FEATURES, QUERY, CannedResponse, RecordedRequest


@pytest.mark.parametrize(
    ("order", "rules", "expected"),
    [
        ("5", "7", ["5"]),
        ("7", "5", ["5"]),
        ("7", "7", ["7"]),
        ("0", "7", ["0"]),
        ("7", "0", ["0"]),
        ("0", "0", ["0"]),
        ("", "7", []),
        ("7", "", []),
        (None, "7", ["7"]),
    ],
)
def test_the_stream_begins_after_the_oldest_response(
    service: FakeService, order: str | None, rules: str, expected: list[str]
) -> None:
    """A feature may be moved between the two requests of a refresh. There is no stream if one has no revision. If there
    is no order yet, it is requested again soon, so the stream need not wait for it."""
    setting = Setting("s", int, ["user"], 0)
    body = json.dumps({"context_features": service.features, "settings": {"s": {"default_value": 1, "rules": []}}})
    responses = {
        CONTEXT_FEATURES: CannedResponse(403)
        if order is None
        else CannedResponse(200, body.encode(), {"heksher-revision": order}),
        QUERY: CannedResponse(200, body.encode(), {"heksher-revision": rules}),
    }

    def respond(request: RecordedRequest) -> CannedResponse | None:
        return responses.get(str(request))

    service.offers_changes, service.intercept = True, respond
    with driven(service, follow_changes=True):
        assert [request.headers["last-event-id"] for request in service.requests_to(CHANGES)[:1]] == expected
        assert setting.get(user="jim") == 1


@pytest.mark.parametrize("status", [500, 403, 200])
def test_d4_an_order_that_was_not_received_is_requested_again_soon(service: FakeService, status: int) -> None:
    """At the start, which succeeds nevertheless, and later. Changes are followed in between."""
    setting = Setting("s", int, ["user"], 0)
    service.offers_changes = True
    service.respond_with(CONTEXT_FEATURES, CannedResponse(status, b"x"), times=1)
    wait = 30 if status == 403 else 1
    with driven(service) as client:
        assert client.status().next_attempt == wait
        service.add_rule("s", 1, user="jim")
        client.advance(0)
        assert (setting.get(user="jim"), client.status().state) == (1, State.FRESH)

        service.respond_with(CONTEXT_FEATURES, CannedResponse(status, b"x"), times=1)
        client.reload()
        assert (client.status().next_attempt, client.status().state) == (wait, State.FAILING)
        client.advance(wait)
        assert (client.status().next_attempt, client.status().state) == (3600, State.FRESH)


def test_d4_the_settings_are_refreshed_each_interval_although_the_order_is_not_received(service: FakeService) -> None:
    """The waits after failures never exceed it."""
    _setting = Setting("s", int, ["user"], 0)
    service.respond_with(CONTEXT_FEATURES, CannedResponse(500))
    with driven(service, update_interval=10) as client:
        client.refresh(6)
        assert client.waits == [1, 2, 4, 8, 10, 10]
