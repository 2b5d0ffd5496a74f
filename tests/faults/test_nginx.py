"""Both clients behind a real nginx. Skipped if nginx is not installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from heksher_client import Setting, State, UnexpectedResponseError
from tests.support.clients import FEATURES, Kind, Subject, eventually, running
from tests.support.http import http_request
from tests.support.nginx import NGINX, Nginx
from tests.support.service import QUERY, WatchedService

pytestmark = [pytest.mark.skipif(NGINX is None, reason="nginx is not installed"), pytest.mark.unmeasured]


@pytest.fixture
def nginx(service: WatchedService, tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path, service.url) as nginx:
        yield nginx


def reaches_state(client: Subject, state: State) -> bool:
    return eventually(lambda: client.client.status().state is state)


def returns(setting: Setting[int], user: str, value: int) -> bool:
    return eventually(lambda: setting.get(user=user) == value)


@pytest.mark.slow
def test_unchanged_responses_are_not_sent_again(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Although nginx compresses responses and makes their ETags weak."""
    setting = Setting("s", int, ["user"], 7)
    service.declare("s", "int", 7, ["user"], version="1.0")
    for i in range(100):
        service.add_rule("s", i, user=f"u{i}")
    with running(kind, nginx.url) as client:
        assert setting.get(user="u50") == 50
        client.reload()
        request = service.requests_to(QUERY)[-1]
        assert request.headers["if-none-match"].startswith("W/")
        assert request.headers["accept-encoding"] == "gzip"
        response = http_request(
            "GET",
            f"{nginx.url}/api/v1/query",
            params=request.query,
            headers={name: request.headers[name] for name in ("if-none-match", "accept-encoding")},
        )
        assert (response.status_code, response.content) == (304, b"")
        assert setting.get(user="u50") == 50


def test_a_restart_of_nginx(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Values stay, and the client recovers."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, nginx.url, 0.02, max_backoff=0.1, stale_after=3600) as client:
        for value in range(2):
            service.add_rule("s", value, user=f"u{value}")
            assert returns(setting, f"u{value}", value)
            nginx.end()
            assert reaches_state(client, State.FAILING)
            assert setting.get(user=f"u{value}") == value
            nginx.begin()
            assert reaches_state(client, State.FRESH)


def test_a_reload_of_nginx(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Its workers are replaced, and no refresh fails, at a hundred refreshes per second."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, nginx.url, 0.01, max_backoff=0.1, stale_after=3600) as client:
        for value in range(4):
            nginx.renew()
            service.add_rule("s", value, user=f"u{value}")
            assert returns(setting, f"u{value}", value)
        assert reaches_state(client, State.FRESH)


def test_a_restart_of_the_service_behind_nginx(kind: Kind, tmp_path: Path) -> None:
    """In the meantime, nginx responds with an error page. The service loses all data."""
    setting = Setting("s", int, ["user"], 7)
    upstream = WatchedService(FEATURES)
    upstream.start()
    with (
        Nginx(tmp_path, upstream.url) as nginx,
        running(kind, nginx.url, 0.02, max_backoff=0.1, stale_after=3600) as client,
    ):
        upstream.add_rule("s", 8, user="jim")
        assert returns(setting, "jim", 8)
        upstream.stop()
        assert isinstance(client.reload_expecting(UnexpectedResponseError), UnexpectedResponseError)
        assert "502" in (client.client.status().last_error or "")
        assert setting.get(user="jim") == 8
        upstream.start()
        assert returns(setting, "jim", 7)
        upstream.add_rule("s", 9, user="jim")
        assert returns(setting, "jim", 9)
        assert reaches_state(client, State.FRESH)
    upstream.stop()


def test_queries_that_are_too_long_for_nginx_are_split(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """The limit of nginx is 2 kB here, and that of the client is 4 kB."""
    settings = [Setting(f"a_setting_with_a_rather_long_name_{i:060}", int, ["user"], i) for i in range(40)]
    with running(kind, nginx.url) as client:
        service.add_rule(settings[39].name, 8, user="jim")
        client.reload()
        assert [setting.get(user="jim") for setting in settings] == [*range(39), 8]
        assert client.client.status().state is State.FRESH
        assert len(service.requests_to(QUERY)) > 2
