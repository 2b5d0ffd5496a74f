"""Any bytes, any JSON, and any valid answer with a part replaced: a value or one of our errors, and nothing else."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heksher_client import HeksherError, Setting
from heksher_client._core.settings.setting import entry_of
from tests.core.refresh.test_protocol import BODIES, JSON
from tests.support.clients import Kind, Subject, running
from tests.support.service import DECLARE, QUERY, Answer, WatchedService

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
    """The ways to all parts of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(way for key, part in inner for way in paths(part, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(copy[key], tuple(rest), new)
    return copy


def refresh(client: Subject, setting: Setting[int], service: WatchedService, answers: dict[str, Answer]) -> None:
    """A refresh that gets these answers, and one that gets the service's own."""
    if DECLARE in answers:
        client.client._session._refresher.states.mark_missing(entry_of(setting))
    service.intercept = lambda asked: answers.get(str(asked))
    with suppress(HeksherError):
        client.reload()
    service.intercept = lambda asked: None
    for user in ("jim", "ann"):
        value = setting.get(environment="prod", user=user)
        assert type(value) is int
    assert (client.client.status().last_error or "").isprintable()
    service.intercept = lambda asked: Answer.of(VALID[QUERY]) if str(asked) == QUERY else None
    client.reload()
    assert [setting.get(environment=e, user="jim") for e in ("prod", "dev")] == [9, 8]


def test_any_bytes_in_any_answer(kind: Kind, service: WatchedService) -> None:
    """The last good values stay."""
    setting = Setting("s", int, ["environment", "user"], 7)
    with running(kind, service.url) as client:

        @given(st.sampled_from(sorted(VALID)), st.sampled_from([200, 201, 404, 409, 422, 500]), BODIES)
        @MANY
        def check(endpoint: str, status: int, body: bytes) -> None:
            refresh(client, setting, service, {endpoint: Answer(status, body)})

        check()


def test_any_valid_answer_with_a_part_replaced(kind: Kind, service: WatchedService) -> None:
    """What can be used of it is, and what cannot costs no more than it must."""
    setting = Setting("s", int, ["environment", "user"], 7)
    ways = [(endpoint, path) for endpoint, value in VALID.items() for path in paths(value)]
    with running(kind, service.url) as client:

        @given(st.sampled_from(ways), JSON)
        @MANY
        def check(way: tuple[str, tuple[Any, ...]], new: Any) -> None:
            endpoint, path = way
            body = json.dumps(replaced(VALID[endpoint], path, new)).encode()
            refresh(client, setting, service, {endpoint: Answer(409 if endpoint == DECLARE else 200, body)})

        check()
