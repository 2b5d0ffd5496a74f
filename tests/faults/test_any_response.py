"""Random bytes, random JSON, and valid responses with a random part: each is used or raises a `HeksherError`."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heksher_client import HeksherError, Setting
from heksher_client._core.settings.setting import entry_of
from tests.core.refresh.test_protocol import BODIES, JSON
from tests.support.clients import Kind, Subject, running
from tests.support.service import DECLARE, QUERY, CannedResponse, WatchedService

LISTING = "GET /api/v1/context_features"
VALID: dict[str, Any] = {
    LISTING: {"context_features": ["environment", "user", "theme"]},
    DECLARE: {"outcome": "mismatch", "differences": [{"level": "major", "attribute": "type", "latest_value": "str"}]},
    QUERY: {
        "settings": {
            "s": {
                "default_value": 7,
                "rules": [
                    {"value": 8, "rule_id": 1, "context_features": [["user", "jim"]]},
                    {"value": 9, "rule_id": 2, "context_features": [["environment", "prod"], ["user", "jim"]]},
                ],
            }
        }
    },
}
MANY = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(longer for key, part in inner for longer in paths(part, (*path, key)))]


def replace(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a JSON value in which the part at a path is another one."""
    if not path:
        return new
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replace(copy[key], tuple(rest), new)
    return copy


def refresh(
    client: Subject, setting: Setting[int], service: WatchedService, responses: dict[str, CannedResponse]
) -> None:
    """Refresh with these responses, and then with valid ones."""
    if DECLARE in responses:
        client.client._session._refresher.states.mark_missing(entry_of(setting))
    service.intercept = lambda request: responses.get(str(request))
    with suppress(HeksherError):
        client.reload()
    service.intercept = lambda request: None
    for user in ("jim", "ann"):
        value = setting.get(environment="prod", user=user)
        assert type(value) is int
    assert (client.client.status().last_error or "").isprintable()
    service.intercept = lambda request: CannedResponse.of(VALID[QUERY]) if str(request) == QUERY else None
    client.reload()
    assert [setting.get(environment=e, user="jim") for e in ("prod", "dev")] == [9, 8]


def test_any_body_of_any_response(kind: Kind, service: WatchedService) -> None:
    """The last good values stay."""
    setting = Setting("s", int, ["environment", "user"], 7)
    with running(kind, service.url) as client:

        @given(st.sampled_from(sorted(VALID)), st.sampled_from([200, 201, 404, 409, 422, 500]), BODIES)
        @MANY
        def check(endpoint: str, status: int, body: bytes) -> None:
            refresh(client, setting, service, {endpoint: CannedResponse(status, body)})

        check()


def test_any_valid_response_with_a_replaced_part(kind: Kind, service: WatchedService) -> None:
    """Invalid parts of a response do not affect the valid ones."""
    setting = Setting("s", int, ["environment", "user"], 7)
    parts = [(endpoint, path) for endpoint, value in VALID.items() for path in paths(value)]
    with running(kind, service.url) as client:

        @given(st.sampled_from(parts), JSON)
        @MANY
        def check(part: tuple[str, tuple[Any, ...]], new: Any) -> None:
            endpoint, path = part
            body = json.dumps(replace(VALID[endpoint], path, new)).encode()
            refresh(client, setting, service, {endpoint: CannedResponse(409 if endpoint == DECLARE else 200, body)})

        check()
