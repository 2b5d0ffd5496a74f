"""The documented configuration of nginx as a caching proxy in front of the service."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from heksher_client import Setting
from heksher_client.service import LocalService
from heksher_client.service.database import Database
from heksher_client.service.tokens import Role, add_token, revoke_token
from tests.support.clients import FEATURES, Kind, eventually, running
from tests.support.http import http_client, http_request
from tests.support.nginx import NGINX, Nginx

pytestmark = [pytest.mark.skipif(NGINX is None, reason="nginx is not installed"), pytest.mark.unmeasured]
QUERY = "/api/v1/query?settings=s"


class Site:
    """Two instances behind nginx, with the setting `s` and a token for programs."""

    def __init__(self, stack: ExitStack, folder: Path, cached_for: str = "1s") -> None:
        self.database = Database(f"sqlite:///{folder}/s.db")
        stack.callback(self.database.close)
        with self.database.begin() as connection:
            token, self.admin = (add_token(connection, role, Role(role)) for role in ("declare", "admin"))
        self.headers = {"Authorization": f"Bearer {token}"}
        self.services = [
            stack.enter_context(LocalService(FEATURES, database=folder / "s.db", access_control=True)) for _ in range(2)
        ]
        urls = [service.url for service in self.services]
        self.nginx = stack.enter_context(Nginx(folder, *urls, is_caching=True, cached_for=cached_for))
        self.http = stack.enter_context(http_client(self.nginx.url, headers=self.headers))
        declaration = {"name": "s", "type": "int", "default_value": 7, "configurable_features": FEATURES}
        self.http.post("/api/v1/settings/declare", json=declaration).raise_for_status()

    def add_rule(self, value: int, **conditions: str) -> None:
        rule = {"setting": "s", "feature_values": conditions, "value": value}
        headers = {"Authorization": f"Bearer {self.admin}"}
        self.http.post("/api/v1/rules", json=rule, headers=headers).raise_for_status()

    def queries(self) -> float:
        """Return the number of queries that the instances have received."""
        texts = [http_request("GET", f"{service.url}/metrics", headers=self.headers).text for service in self.services]
        lines = [line for text in texts for line in text.splitlines() if line.startswith("heksher_requests_total")]
        return sum(float(line.split()[-1]) for line in lines if 'route="/api/v1/query"' in line)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, tmp_path)


def test_repeated_queries_are_answered_from_the_cache(tmp_path: Path) -> None:
    """The proxy also answers conditional requests by itself. Here it caches a response longer than a test takes."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path, cached_for="1h")
        first = site.http.get(QUERY)
        before = site.queries()
        for _ in range(50):
            assert site.http.get(QUERY).status_code == 200
            assert site.http.get(QUERY, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        assert site.queries() == before == 1


@pytest.mark.slow
def test_clients_receive_a_change_at_once(site: Site, kind: Kind) -> None:
    """The proxy does not delay the event stream, and clients repeat a query whose result is older than the change."""
    setting = Setting("s", int, FEATURES, 7)
    with running(kind, site.nginx.url, http_client_args={"headers": site.headers}) as client:
        assert eventually(lambda: client.client.status().is_following)
        for value in range(2):
            site.add_rule(value, user=f"u{value}")
            assert eventually(lambda value=value: setting.get(user=f"u{value}") == value)  # type: ignore[misc]


def test_the_last_result_is_served_while_no_instance_is_available(site: Site, kind: Kind) -> None:
    body = site.http.get(QUERY).json()
    for service in site.services:
        service.stop()
    assert eventually(lambda: site.http.get(QUERY).status_code == 200)
    assert site.http.get(QUERY).json() == body


@pytest.mark.slow
def test_cached_results_are_served_to_the_same_token_only(site: Site) -> None:
    """A revoked token is refused once its cached results have expired."""
    assert site.http.get(QUERY).status_code == 200
    for headers in ({"Authorization": "Bearer heksher_other"}, {"Authorization": ""}):
        assert site.http.get(QUERY, headers=headers).status_code == 401
    with site.database.begin() as connection:
        revoke_token(connection, "declare")
    assert eventually(lambda: site.http.get(QUERY).status_code == 401)
