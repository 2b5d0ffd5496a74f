"""Random bytes and random JSON over HTTP: a few examples, as `tests/core` has hundreds without HTTP."""

from contextlib import suppress

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from heksher_client import HeksherError, Setting
from tests.core.refresh.test_protocol import BODIES
from tests.support.clients import Kind, running
from tests.support.service import CONTEXT_FEATURES, QUERY, CannedResponse, WatchedService


def test_any_body_of_any_response(kind: Kind, service: WatchedService) -> None:
    """Reads return a valid value, and the next refresh succeeds."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        service.add_rule("s", 8, user="jim")

        @given(st.sampled_from([QUERY, CONTEXT_FEATURES]), st.sampled_from([200, 201, 404, 409, 422, 500]), BODIES)
        @settings(max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
        def check(endpoint: str, status: int, body: bytes) -> None:
            service.respond_with(endpoint, CannedResponse(status, body))
            with suppress(HeksherError):
                client.reload()
            assert type(setting.get(user="jim")) is int
            assert (client.client.status().last_error or "").isprintable()

            service.intercept = lambda request: None
            client.reload()
            assert setting.get(user="jim") == 8

        check()
