"""The fake service of tests that drive clients by hand responds as the local service does.

Both share the code that compares declarations and parses context filters, so an error in it is not a difference here.
The recorded exchanges with the reference service check it (`tests/service/test_recorded.py`).
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from httpx import Client, TransportError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heksher_client._core.refresh.effects import Request, Response
from tests.support.clients import FEATURES
from tests.support.fake_service import FakeService
from tests.support.http import http_client
from tests.support.in_memory import LoopbackService
from tests.support.service import WatchedService

NAMES = st.sampled_from(["a", "b", "c"])
SUBSETS = st.lists(st.sampled_from(FEATURES), min_size=1, unique=True)
DECLARATION = st.fixed_dictionaries(
    {
        "name": NAMES,
        "type": st.sampled_from(["int", "float"]),
        "default_value": st.integers(0, 2),
        "configurable_features": SUBSETS,
        "version": st.sampled_from(["1.0", "1.0", "1.1", "2.0"]),
        "metadata": st.sampled_from([{}, {"owner": "jane"}]),
    },
    optional={"alias": NAMES},
)
OPERATIONS = st.one_of(
    st.tuples(st.just("declare"), DECLARATION.filter(lambda body: body["name"] != body.get("alias"))),
    st.tuples(st.just("rule"), NAMES, st.integers(0, 9), st.dictionaries(st.sampled_from(FEATURES), NAMES, min_size=1)),
    st.tuples(
        st.just("query"), st.lists(NAMES, min_size=1, unique=True), st.sampled_from(["*", "", "user:(a,b)", "user:*"])
    ),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("move"), st.permutations(FEATURES)),
)
JSON = {"Content-Type": "application/json"}


class Both:
    """Both services, to which the same requests are sent."""

    def __init__(self, real: WatchedService, http: Client) -> None:
        real.reset()
        self.real, self.fake, self.http = real, FakeService(), http

    def request(self, method: str, target: str, body: Any = None, etags: tuple[str, str] | None = None) -> Response:
        """Send a request to both, compare the responses, and return that of the fake.

        Args:
            method: Of the request.
            target: Path and query.
            body: JSON.
            etags: The ETags that the fake and the real service have sent before.
        """
        content = None if body is None else json.dumps(body).encode()
        fake_headers, real_headers = ({"If-None-Match": etag} for etag in etags) if etags else ({}, {})
        fake = self.fake.respond(Request(method, target, fake_headers, content))
        real = self.http.request(method, target, content=content, headers=JSON | real_headers)
        assert isinstance(fake, Response)
        assert fake.status == real.status_code, real.text
        if fake.status in (200, 409):
            assert json.loads(fake.content) == real.json()
        if fake.status == 200 and "etag" in fake.headers:
            assert self.request(method, target, etags=(fake.headers["etag"], real.headers["etag"])).status == 304
        return fake

    def perform(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("declare", body):
                self.request("POST", "/api/v1/settings/declare", body)
            case ("query", names, filters):
                target = f"/api/v1/query?settings={','.join(names)}&context_filters={filters}&include_metadata=false"
                self.request("GET", target)
            case (action, *arguments) if action == "move" or arguments[0] in self.fake.settings:
                getattr(self, action)(*arguments)

    def rule(self, name: str, value: int, conditions: dict[str, str]) -> None:
        setting = self.fake.settings[name]
        is_new = conditions not in [dict(rule.conditions) for rule in setting.rules.values()]
        if is_new and conditions.keys() <= set(setting.declaration.configurable_features):
            self.real.add_rule(name, value, **conditions)
            self.fake.add_rule(name, value, **conditions)

    def rename(self, name: str, new_name: str) -> None:
        owner = self.fake._find(new_name)
        if owner is None:
            version = f"{int(self.fake.settings[name].declaration.version.partition('.')[0]) + 1}.0"
            self.real.call("PUT", f"/api/v1/settings/{name}/name", {"name": new_name, "version": version})
            self.fake.rename(name, new_name, version)

    def delete(self, name: str) -> None:
        self.real.call("DELETE", f"/api/v1/settings/{name}")
        self.fake.delete(name)

    def move(self, order: list[str]) -> None:
        for before, feature in pairwise(order):
            self.real.call("PATCH", f"/api/v1/context_features/{feature}/index", {"to_after": before})
            self.fake.move_feature(feature, to_after=before)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_both_services_respond_alike(service: WatchedService) -> None:
    """With the same status, and the same JSON if it is not an error."""

    @settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
    @given(st.lists(OPERATIONS, min_size=5, max_size=20))
    def check(operations: list[tuple[Any, ...]]) -> None:
        with http_client(service.url) as http:
            both = Both(service, http)
            for operation in operations:
                both.perform(operation)
                both.request("GET", "/api/v1/settings?include_additional_data=true")
            for target in ("/api/v1/context_features", "/api/v1/settings/a"):
                both.request("GET", target)

    check()


def test_a_fake_service_that_is_not_running_closes_connections() -> None:
    """It continues to accept them, and responds when it is running again."""
    with LoopbackService() as service, http_client(service.url) as http:
        service.is_running = False
        with pytest.raises(TransportError):
            http.get("/api/health")
        service.is_running = True
        assert http.get("/api/health").status_code == 200
