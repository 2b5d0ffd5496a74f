"""Several instances on one database: whatever they are asked at the same moment, all ends well."""

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

EACH = 8
"""Requests to each instance at the same moment."""


def at_once(instances: list[httpx.Client], *requests: Callable[[httpx.Client], httpx.Response]) -> list[httpx.Response]:
    """Send each of the requests to all instances, several times at the same moment."""
    answers: list[httpx.Response] = []
    gate = threading.Barrier(len(instances) * len(requests) * EACH)

    def send(request: Callable[[httpx.Client], httpx.Response], http: httpx.Client) -> None:
        gate.wait()
        answers.append(request(http))

    threads = [
        threading.Thread(target=send, args=[request, http])
        for _ in range(EACH)
        for http in instances
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def declaration(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "int", "default_value": 1, "configurable_features": ["user"], **more}


def test_first_declarations_of_one_setting(instances: list[httpx.Client]) -> None:
    """One makes it, and the others find it."""
    answers = at_once(instances, lambda http: http.post("/settings/declare", json=declaration("new")))
    assert Counter(answer.json()["outcome"] for answer in answers) == {"created": 1, "uptodate": 2 * EACH - 1}


def test_rules_with_the_same_conditions(instances: list[httpx.Client]) -> None:
    """One is added, and the others are in conflict with it."""
    rule = {"setting": "s", "feature_values": {"user": "ann"}, "value": 9}
    answers = at_once(instances, lambda http: http.post("/rules", json=rule))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 2 * EACH - 1}
    assert len(instances[0].get("/query").json()["settings"]["s"]["rules"]) == 2


def test_a_rename_while_the_setting_is_declared(instances: list[httpx.Client]) -> None:
    """Under its former name, by programs that know no other: it is one setting before, meanwhile and after."""
    features = {"configurable_features": ["environment", "user"], "default_value": 7}
    answers = at_once(
        instances,
        lambda http: http.put("/settings/s/name", json={"name": "t", "version": "1.1"}),
        lambda http: http.post("/settings/declare", json=declaration("s", **features)),
    )
    seen = Counter(
        (answer.status_code, answer.json()["outcome"] if answer.request.method == "POST" else "") for answer in answers
    )
    assert seen[204, ""] == 1
    assert seen[409, ""] == 2 * EACH - 1
    assert seen[200, "uptodate"] + seen[200, "outdated"] == 2 * EACH
    settings = instances[1].get("/settings", params={"include_additional_data": True}).json()["settings"]
    assert [(setting["name"], setting["aliases"]) for setting in settings] == [("t", ["s"])]


def test_an_upgrade_while_rules_are_added(instances: list[httpx.Client]) -> None:
    """A feature that rules are on is never lost: either they are refused, or the upgrade is."""
    conditions = iter(f"u{i}" for i in range(1000))
    upgraded = declaration("s", default_value=7, configurable_features=["environment"], version="2.0")
    answers = at_once(
        instances,
        lambda http: http.post("/settings/declare", json=upgraded),
        lambda http: http.post(
            "/rules", json={"setting": "s", "feature_values": {"user": next(conditions)}, "value": 1}
        ),
    )
    assert not [answer for answer in answers if answer.status_code >= 500]
    setting = instances[0].get("/settings/s").json()
    rules = instances[0].get("/query").json()["settings"]["s"]["rules"]
    assert {feature for rule in rules for feature, _ in rule["context_features"]} <= set(
        setting["configurable_features"]
    )


def test_each_change_has_a_revision_of_its_own(instances: list[httpx.Client]) -> None:
    """Whichever instance makes it."""
    numbers = iter(range(1000))

    def add(http: httpx.Client) -> httpx.Response:
        number = next(numbers)
        return http.post("/rules", json={"setting": "s", "feature_values": {"user": f"u{number}"}, "value": number})

    answers = at_once(instances, add)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["rule_id"] for answer in answers}) == 2 * EACH
    assert len({http.get("/query").headers["etag"] for http in instances}) == 1


@pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")
def test_three_instances_behind_nginx_of_which_one_stops_under_load(
    kind: Kind, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """Clients go on polling, operators go on changing rules, and nothing is lost or wrong."""
    setting = Setting("s", int, ["user"], 7)
    url = postgresql.empty()
    with ExitStack() as stack:
        services = [stack.enter_context(LocalService(FEATURES, database=url, access_control=False)) for _ in range(3)]
        nginx = stack.enter_context(Nginx(tmp_path, *(service.url for service in services)))
        client = stack.enter_context(running(kind, nginx.url, 0.02, max_backoff=0.1))
        http = stack.enter_context(http_client(nginx.url))

        def is_added(value: int) -> bool:
            # A request that changes something is not sent to a second instance by itself; here it is sent again.
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
