"""Both clients behind a real nginx. Skipped if nginx is not installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from heksher_client import Setting, State, UnexpectedResponseError
from tests.support.clients import FEATURES, Kind, Subject, eventually, running
from tests.support.http import http_request
from tests.support.nginx import NGINX, Nginx
from tests.support.service import QUERY, WatchedService

pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx on this machine")


@pytest.fixture
def nginx(service: WatchedService, tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path, service.url) as nginx:
        yield nginx


def is_state(client: Subject, state: State) -> bool:
    return eventually(lambda: client.client.status().state is state)


def is_read(setting: Setting[int], user: str, value: int) -> bool:
    return eventually(lambda: setting.get(user=user) == value)


def test_unchanged_responses_are_not_sent_again(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Although nginx compresses responses, and weakens their ETags."""
    setting = Setting("s", int, ["user"], 7)
    service.declare("s", "int", 7, ["user"], version="1.0")
    for i in range(100):
        service.add_rule("s", i, user=f"u{i}")
    with running(kind, nginx.url) as client:
        assert setting.get(user="u50") == 50
        client.reload()
        last = service.questions(QUERY)[-1]
        assert last.headers["if-none-match"].startswith("W/")
        assert last.headers["accept-encoding"] == "gzip"
        again = http_request(
            "GET",
            f"{nginx.url}/api/v1/query",
            params=last.query,
            headers={name: last.headers[name] for name in ("if-none-match", "accept-encoding")},
        )
        assert (again.status_code, again.content) == (304, b"")
        assert setting.get(user="u50") == 50


def test_nginx_is_stopped_and_started_again(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Values stay, and the client recovers."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, nginx.url, 0.02, max_backoff=0.1, request_timeout=1) as client:
        for value in range(3):
            service.add_rule("s", value, user=f"u{value}")
            assert is_read(setting, f"u{value}", value)
            nginx.end()
            assert is_state(client, State.FAILING)
            assert setting.get(user=f"u{value}") == value
            nginx.begin()
            assert is_state(client, State.FRESH)


def test_the_workers_of_nginx_are_replaced(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """No refresh fails, at a hundred refreshes per second."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, nginx.url, 0.01, max_backoff=0.1) as client:
        for value in range(10):
            nginx.renew()
            service.add_rule("s", value, user=f"u{value}")
            assert is_read(setting, f"u{value}", value)
        assert is_state(client, State.FRESH)


def test_the_service_behind_nginx_is_stopped_and_started_again(kind: Kind, tmp_path: Path) -> None:
    """Nginx responds with an error page in between, and the service has lost all data."""
    setting = Setting("s", int, ["user"], 7)
    behind = WatchedService(FEATURES)
    behind.start()
    with Nginx(tmp_path, behind.url) as nginx, running(kind, nginx.url, 0.02, max_backoff=0.1) as client:
        behind.add_rule("s", 8, user="jim")
        assert is_read(setting, "jim", 8)
        behind.stop()
        assert isinstance(client.reload_expecting(UnexpectedResponseError), UnexpectedResponseError)
        assert "502" in (client.client.status().last_error or "")
        assert setting.get(user="jim") == 8
        behind.start()
        assert is_read(setting, "jim", 7)
        behind.add_rule("s", 9, user="jim")
        assert is_read(setting, "jim", 9)
        assert is_state(client, State.FRESH)
    behind.stop()


def test_queries_that_are_too_long_for_nginx_are_split(kind: Kind, service: WatchedService, nginx: Nginx) -> None:
    """Its limit is 2 kB here, and that of the client is 4 kB."""
    settings = [Setting(f"a_setting_with_a_rather_long_name_{i:060}", int, ["user"], i) for i in range(40)]
    with running(kind, nginx.url) as client:
        service.add_rule(settings[39].name, 8, user="jim")
        client.reload()
        assert [setting.get(user="jim") for setting in settings] == [*range(39), 8]
        assert client.client.status().state is State.FRESH
        assert len(service.questions(QUERY)) > 2
