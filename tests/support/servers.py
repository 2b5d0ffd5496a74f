"""Web servers in separate processes, which return the value of the setting `cache_size` for a user."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.clients import eventually
from tests.support.http import http_client
from tests.support.ports import reserved_port
from tests.support.service import WatchedService

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BIN = Path(sys.executable).parent


@contextmanager
def serving(*command: str, env: dict[str, str], directory: Path = EXAMPLES, **options: Any) -> Iterator[httpx.Client]:
    """Run a server in a separate process, and wait until it responds.

    Args:
        *command: The program and its arguments, in which `{port}` is replaced.
        env: The environment variables.
        directory: The working directory, with the application.
        **options: Options of the HTTP client.
    """
    with reserved_port() as port:
        program, *arguments = (argument.format(port=port) for argument in command)
        process = subprocess.Popen([str(BIN / program), *arguments], env=env, cwd=directory)
        try:
            with http_client(f"http://127.0.0.1:{port}", **options) as http:
                assert eventually(lambda: _responds(http))
                yield http
        finally:
            process.terminate()
            process.wait()


def _responds(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 200
    except httpx.TransportError:
        return False


def cache_size_of(http: httpx.Client, user: str | None) -> int:
    response = http.get("/", headers={} if user is None else {"X-User": user})
    size: int = response.raise_for_status().json()["cache_size"]
    return size


def check_server(http: httpx.Client, shop: WatchedService) -> None:
    """Check that each request returns the value of its user, and that the server receives a change while it runs."""
    assert [cache_size_of(http, user) for user in ("jim", "ann", None)] == [200, 10, 10]
    shop.add_rule("cache_size", 5, user="ann")
    # Several requests, as there may be several workers.
    assert eventually(lambda: [cache_size_of(http, "ann") for _ in range(6)] == [5] * 6)
