"""One refresh: what is recorded of responses of different revisions, and of the order of the context features."""

import json

import pytest

from heksher_client import Setting
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
        (None, "7", []),
    ],
)
def test_the_stream_begins_after_the_oldest_response(
    service: FakeService, order: str | None, rules: str, expected: list[str]
) -> None:
    """A feature may be moved between the two requests of a refresh. There is no stream if one has no revision."""
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
