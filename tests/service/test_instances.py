"""Several instances with one database, which receive simultaneous requests."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import Setting, State
from heksher_client.service import LocalService
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.http import http_client
from tests.support.nginx import NGINX, Nginx
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.unmeasured
REPEATS = 8
"""Simultaneous requests to each instance."""


def send_simultaneously(
    instances: list[httpx.Client], *requests: Callable[[httpx.Client], httpx.Response]
) -> list[httpx.Response]:
    """Send each request to all instances, several times at the same time."""
    responses: list[httpx.Response] = []
    barrier = threading.Barrier(len(instances) * len(requests) * REPEATS)

    def send(request: Callable[[httpx.Client], httpx.Response], http: httpx.Client) -> None:
        barrier.wait()
        responses.append(request(http))

    threads = [
        threading.Thread(target=send, args=[request, http])
        for _ in range(REPEATS)
        for http in instances
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return responses


def declaration(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "int", "default_value": 1, "configurable_features": ["user"], **more}


def test_simultaneous_first_declarations_of_a_setting(instances: list[httpx.Client]) -> None:
    """One creates it, and the others find it up to date."""
    responses = send_simultaneously(instances, lambda http: http.post("/settings/declare", json=declaration("new")))
    assert Counter(response.json()["outcome"] for response in responses) == {"created": 1, "uptodate": 2 * REPEATS - 1}


def test_simultaneous_rules_with_the_same_conditions(instances: list[httpx.Client]) -> None:
    """One is added, and the others are refused."""
    rule = {"setting": "s", "feature_values": {"user": "ann"}, "value": 9}
    responses = send_simultaneously(instances, lambda http: http.post("/rules", json=rule))
    assert Counter(response.status_code for response in responses) == {201: 1, 409: 2 * REPEATS - 1}
    assert len(instances[0].get("/query").json()["settings"]["s"]["rules"]) == 2


def test_a_rename_during_declarations_of_the_setting(instances: list[httpx.Client]) -> None:
    """By programs that use the former name. There is one setting at any time."""
    features = {"configurable_features": ["environment", "user"], "default_value": 7}
    responses = send_simultaneously(
        instances,
        lambda http: http.put("/settings/s/name", json={"name": "t", "version": "1.1"}),
        lambda http: http.post("/settings/declare", json=declaration("s", **features)),
    )
    seen = Counter(
        (response.status_code, response.json()["outcome"] if response.request.method == "POST" else "")
        for response in responses
    )
    assert seen[204, ""] == 2 * REPEATS  # The others find the setting renamed already.
    log = instances[0].get("/change_log", params={"setting": "t"}).json()["changes"]
    assert [change["action"] for change in log] == ["setting declared", "rule added", "setting changed"]
    assert seen[200, "uptodate"] + seen[200, "outdated"] == 2 * REPEATS
    settings = instances[1].get("/settings", params={"include_additional_data": True}).json()["settings"]
    assert [(setting["name"], setting["aliases"]) for setting in settings] == [("t", ["s"])]


def test_an_upgrade_while_rules_are_added(instances: list[httpx.Client]) -> None:
    """A rule never has a condition on a removed feature: either the rule or the upgrade is refused."""
    conditions = iter(f"u{i}" for i in range(1000))
    upgraded = declaration("s", default_value=7, configurable_features=["environment"], version="2.0")
    responses = send_simultaneously(
        instances,
        lambda http: http.post("/settings/declare", json=upgraded),
        lambda http: http.post(
            "/rules", json={"setting": "s", "feature_values": {"user": next(conditions)}, "value": 1}
        ),
    )
    assert not [response for response in responses if response.status_code >= 500]
    setting = instances[0].get("/settings/s").json()
    rules = instances[0].get("/query").json()["settings"]["s"]["rules"]
    assert {feature for rule in rules for feature, _ in rule["context_features"]} <= set(
        setting["configurable_features"]
    )


def test_each_change_has_its_own_revision(instances: list[httpx.Client]) -> None:
    """With changes by several instances."""
    numbers = iter(range(1000))

    def add(http: httpx.Client) -> httpx.Response:
        number = next(numbers)
        return http.post("/rules", json={"setting": "s", "feature_values": {"user": f"u{number}"}, "value": number})

    responses = send_simultaneously(instances, add)
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["rule_id"] for response in responses}) == 2 * REPEATS
    assert len({http.get("/query").headers["etag"] for http in instances}) == 1


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_one_of_three_instances_behind_nginx_stops_under_load(
    kind: Kind, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Clients and operators continue, and no change is lost."""
    setting = Setting("s", int, ["user"], 7)
    url = postgresql.new_database()
    with ExitStack() as stack:
        services = [stack.enter_context(LocalService(FEATURES, database=url, access_control=False)) for _ in range(3)]
        nginx = stack.enter_context(Nginx(tmp_path, *(service.url for service in services)))
        client = stack.enter_context(running(kind, nginx.url, 0.02, max_backoff=0.1))
        http = stack.enter_context(http_client(nginx.url))

        def is_added(value: int) -> bool:
            # nginx does not repeat requests with other methods than GET, so the test does.
            rule = {"setting": "s", "feature_values": {"user": f"u{value}"}, "value": value}
            return eventually(lambda: http.post("/api/v1/rules", json=rule).status_code in (201, 409))

        def is_read(value: int) -> bool:
            return eventually(lambda: setting.get(user=f"u{value}") == value)

        for value in range(30):
            if value == 10:
                services[1].stop()
            if value == 20:
                services[1].start()
            assert is_added(value)
            assert is_read(value)
        assert [setting.get(user=f"u{value}") for value in range(30)] == list(range(30))
        assert eventually(lambda: client.client.status().state is State.FRESH)
