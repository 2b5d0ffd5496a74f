"""The cache of query results: ETags change when they must, and no result is stale."""

import gc
import tracemalloc
from typing import Any

import httpx
import pytest

from heksher_client.service.history import State
from heksher_client.service.query_cache import QueryCache, QueryParameters, fragment_keys

Operation = tuple[str, str, Any]

CHANGES: list[Operation] = [
    ("POST", "rules", {"setting": "s", "feature_values": {"user": "ann"}, "value": 9}),
    ("PUT", "rules/1/value", {"value": 10}),
    ("PUT", "settings/s/name", {"name": "t", "version": "1.1"}),
    ("PATCH", "context_features/user/index", {"to_before": "environment"}),
    ("DELETE", "rules/1", None),
    ("POST", "rules/2/metadata", {"metadata": {"a": 1}}),
]
CHANGES_OF_OTHER_SETTING: list[Operation] = [
    ("POST", "settings/declare", {"name": "o", "type": "int", "default_value": 1, "configurable_features": ["user"]}),
    ("POST", "rules", {"setting": "o", "feature_values": {"user": "ann"}, "value": 9}),
    ("DELETE", "settings/o", None),
]


def query(http: httpx.Client, settings: str | None, etag: str = "") -> httpx.Response:
    params = {"include_metadata": "true"} | ({} if settings is None else {"settings": settings})
    return http.get("/query", params=params, headers={"if-none-match": etag})


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["s", None])
def test_each_change_changes_the_etag_and_the_result_of_all_instances(
    instances: list[httpx.Client], settings: str | None
) -> None:
    """Although each instance has cached results."""
    one, other = instances
    former = query(other, settings)
    for method, path, body in CHANGES:
        assert query(other, settings, former.headers["etag"]).status_code == 304
        assert one.request(method, f"/{path}", json=body).is_success
        responses = [query(http, settings, former.headers["etag"]) for http in instances]
        assert responses[0].text == responses[1].text != former.text
        assert responses[0].headers["etag"] == responses[1].headers["etag"] != former.headers["etag"]
        former = responses[0]


def test_a_change_of_another_setting_does_not_change_the_etag(instances: list[httpx.Client]) -> None:
    """A result depends on the queried settings only."""
    one, other = instances
    etag = query(other, "s").headers["etag"]
    for method, path, body in CHANGES_OF_OTHER_SETTING:
        assert one.request(method, f"/{path}", json=body).is_success
        assert query(other, "s", etag).status_code == 304


def test_a_setting_that_is_deleted_and_declared_again_has_another_etag(instances: list[httpx.Client]) -> None:
    """Although its content is the same."""
    one, other = instances
    etag = query(other, "s").headers["etag"]
    one.delete("/settings/s")
    assert query(other, "s", etag).status_code == 404
    one.post(
        "/settings/declare",
        json={"name": "s", "type": "int", "default_value": 7, "configurable_features": ["environment", "user"]},
    )
    assert query(other, "s", etag).status_code == 200


STATE = State(1, "tag", "d", 1)


def test_the_least_recently_used_entries_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heksher_client.service.query_cache._MAX_FRAGMENT_BYTES", 1625)
    monkeypatch.setattr("heksher_client.service.query_cache._MAX_ETAG_BYTES", 1625)
    cache = QueryCache()
    parameters = QueryParameters(None, "*", include_metadata=False)
    keys = list(fragment_keys(STATE, parameters, {tag: tag for tag in "abc"}).values())
    for key in keys[:2]:
        cache.store_fragment(key, b"0123456789")
    assert cache.fragment(keys[0]) is not None
    cache.store_fragment(keys[2], b"0123456789")
    assert [cache.fragment(key) is None for key in keys] == [False, True, False]
    cache.store_fragment(keys[2], b"01234567890123456789")
    assert [cache.fragment(key) is None for key in keys] == [True, True, False]

    queries = [QueryParameters(name, "*", include_metadata=False) for name in "abc"]
    for query in queries:
        cache.store_etag(query, STATE, "etag")
    assert [cache.etag(query, STATE) for query in queries] == [None, "etag", "etag"]
    assert cache.etag(queries[2], State(2, "tag", "d", 1)) is None


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 49_000])
def test_l12_the_memory_of_the_cache_includes_its_keys(monkeypatch: pytest.MonkeyPatch, padding: int) -> None:
    """A token with the role `read` can send any number of queries, with long parameters or with short results."""
    limit = 500_000
    monkeypatch.setattr("heksher_client.service.query_cache._MAX_FRAGMENT_BYTES", limit)
    monkeypatch.setattr("heksher_client.service.query_cache._MAX_ETAG_BYTES", limit)
    cache = QueryCache()

    def send_queries(numbers: range) -> None:
        for number in numbers:
            filters = f"user:(u{number},{'x' * padding})"
            parameters = QueryParameters(f"s{number},{'x' * padding}", filters, include_metadata=False)
            state = State(1000 + number, f"tag {number}", f"database {number}", 1)
            cache.store_etag(parameters, state, f"etag {number}")
            (key,) = fragment_keys(state, parameters, {"s": f"tag of s {number}"}).values()
            cache.store_fragment(key, b'{"default_value":1}')

    send_queries(range(700))
    gc.collect()
    tracemalloc.start()
    try:
        send_queries(range(700, 3200))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 3 * limit
    finally:
        tracemalloc.stop()
