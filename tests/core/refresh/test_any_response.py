"""Random bytes, random JSON, and valid responses with a random part: each is used or raises a `HeksherError`."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heksher_client import HeksherError, Setting
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS
from heksher_client._core.settings.registry import registry
from tests.core.refresh.test_protocol import BODIES, JSON
from tests.support.driven import driven
from tests.support.fake_service import FakeService
from tests.support.service import CONTEXT_FEATURES, DECLARE, QUERY, CannedResponse

pytestmark = pytest.mark.unmeasured

HEALTH = "GET /api/health"
LIST = "GET /api/v1/settings"
SETTING = "GET /api/v1/settings/s"

VALID: dict[str, Any] = {
    HEALTH: {"version": "0.5.7"},
    CONTEXT_FEATURES: {"context_features": ["environment", "user", "theme"]},
    LIST: {
        "settings": [
            {
                "name": "new0",
                "configurable_features": ["user"],
                "type": "int",
                "default_value": 0,
                "metadata": {},
                "aliases": [],
                "version": "1.0",
            }
        ]
    },
    DECLARE: {
        "outcome": "outdated",
        "latest_version": "1.1",
        "differences": [
            {"level": "minor", "attribute": "name", "latest_value": "renamed"},
            {"level": "minor", "attribute": "default_value", "latest_value": 5},
        ],
    },
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
    SETTING: {
        "name": "renamed",
        "configurable_features": ["environment", "user"],
        "type": "int",
        "default_value": 7,
        "metadata": {"owner": "jane"},
        "aliases": ["s"],
        "version": "1.1",
    },
}
STATUSES = st.sampled_from([200, 201, 204, 302, 304, 400, 404, 409, 413, 422, 429, 500, 503])
HEADERS = st.dictionaries(
    st.sampled_from(["etag", "retry-after", "date", "heksher-revision", "location", "set-cookie", "content-type"]),
    st.text(st.characters(max_codepoint=255))
    | st.integers().map(str)
    | st.sampled_from(
        ["9" * 5000, "1e9", "Sun, 22 Nov 2026 10:02:00 GMT", "Sun, 22 Nov 2026 10:02:00 -0000", "http://["]
    ),
)


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


def check_refresh_with(endpoint: str, response: CannedResponse) -> None:
    """Send every kind of request, with one response for all those to an endpoint, and then with valid responses.

    Reads return values of the right type in between. Afterwards they return those that the service has.
    """
    registry._entries.clear()  # Settings of earlier examples that were not garbage collected yet.
    service = FakeService()
    setting = Setting("s", int, ["environment", "user"], 7)
    with driven(service) as client:
        service.rename("s", "renamed", "1.1")
        service.add_rule("renamed", 8, user="jim")
        service.add_rule("renamed", 9, environment="prod", user="jim")
        new = [Setting(f"new{i}", int, ["user"], i) for i in range(MAX_CONCURRENT_REQUESTS + 1)]
        service.requests.clear()
        service.respond_with(endpoint, response)
        for request in (client.reload, client.get_settings, client.ping):
            with suppress(HeksherError):
                request()

        assert endpoint in map(str, service.requests)
        assert {type(setting.get(environment="prod", user=user)) for user in ("jim", "ann")} == {int}
        status = client.status()
        assert (status.last_error or "").isprintable()
        assert status.next_attempt is not None
        assert 0 < status.next_attempt <= 3600

        service.intercept = lambda request: None
        client.reload()
        contexts = [("prod", "jim"), ("dev", "jim"), ("dev", "ann")]
        assert [setting.get(environment=environment, user=user) for environment, user in contexts] == [9, 8, 7]
        assert [one.get(user="jim") for one in new] == list(range(len(new)))


@pytest.mark.slow
@settings(max_examples=200)
@given(st.sampled_from(sorted(VALID)), STATUSES, BODIES, HEADERS)
def test_a_client_recovers_from_any_body_and_headers(
    endpoint: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    """Whichever request they respond to. The last good values stay."""
    check_refresh_with(endpoint, CannedResponse(status, body, headers))


@pytest.mark.slow
@settings(max_examples=200)
@given(st.sampled_from([(endpoint, path) for endpoint, value in VALID.items() for path in paths(value)]), JSON, HEADERS)
def test_a_client_recovers_from_any_part_of_a_valid_response(
    part: tuple[str, tuple[Any, ...]], new: Any, headers: dict[str, str]
) -> None:
    """Invalid parts do not affect the valid ones."""
    endpoint, path = part
    body = json.dumps(replace(VALID[endpoint], path, new)).encode()
    check_refresh_with(endpoint, CannedResponse(409 if endpoint == DECLARE else 200, body, headers))
