"""Servers that fork, patch or spawn their workers: each worker receives changed rules."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clients import eventually
from tests.support.servers import serving
from tests.support.service import WatchedService

pytestmark = pytest.mark.unmeasured

APPLICATION = """
import json, os
from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting("cache_size", int, ["user"], 10)
client = ThreadHeksherClient(
    os.environ["HEKSHER_URL"], 0.1, ["user"], jitter=0, stale_after=3600, timeout=60, request_timeout=60
)
client.set_as_main()

def content(path):
    if path == "/reload":
        client.reload()
    if path == "/status":
        return json.dumps([os.getpid(), client.status().problem]).encode()
    return json.dumps([os.getpid(), cache_size.get(user="ann")]).encode()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [content(environ["PATH_INFO"])]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content(scope["path"])})
"""


@contextmanager
def server(command: str, env: dict[str, str], directory: Path, shop: WatchedService) -> Iterator[httpx.Client]:
    """Run a server with the application. Each request has its own connection, and so reaches any worker."""
    (directory / "shop.py").write_text(APPLICATION)
    path = os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])
    one_request = httpx.Limits(max_keepalive_connections=0)
    with serving(*command.split(), env={**env, "PYTHONPATH": path}, directory=directory, limits=one_request) as http:
        yield http


def by_worker(http: httpx.Client, path: str = "/") -> dict[int, Any]:
    """Return the responses of all workers that respond to 20 requests."""
    return dict(http.get(path).json() for _ in range(20))


def check_workers(http: httpx.Client, shop: WatchedService, workers: int = 2) -> None:
    """Check that a changed rule reaches each worker, before and after a reload in some of them."""
    assert eventually(lambda: len(by_worker(http)) == workers)
    shop.add_rule("cache_size", 5, user="ann")
    assert eventually(lambda: list(by_worker(http).values()) == [5] * workers), by_worker(http)
    by_worker(http, "/reload")
    assert set(by_worker(http, "/status").values()) == {None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "-k sync",
        "-k sync --preload",
        "-k gthread --threads 2",
        "-k gthread --threads 2 --preload",
        pytest.param("-k gevent", marks=pytest.mark.frameworks("gevent")),
        pytest.param("-k gevent --preload", marks=pytest.mark.frameworks("gevent")),
    ],
)
def test_c18_gunicorn(shop: WatchedService, service_environment: dict[str, str], tmp_path: Path, options: str) -> None:
    """Each kind of worker, with an application that is loaded in the worker, or before the fork."""
    with server(f"gunicorn {options} -w 2 -b 127.0.0.1:{{port}} shop:app", service_environment, tmp_path, shop) as http:
        check_workers(http, shop)


UWSGI = (
    f"uwsgi --http-socket 127.0.0.1:{{port}} --master --processes 2 --die-on-term --virtualenv {sys.prefix} "
    "--wsgi-file shop.py --callable app --need-app --disable-logging"
)


@pytest.mark.slow
@pytest.mark.frameworks("pyuwsgi")
@pytest.mark.parametrize(
    "options",
    [
        "--enable-threads",
        "--threads 2 --lazy-apps",
    ],
)
def test_c18_uwsgi(shop: WatchedService, service_environment: dict[str, str], tmp_path: Path, options: str) -> None:
    """It does not call Python's hooks for forks by default."""
    with server(f"{UWSGI} {options}", service_environment, tmp_path, shop) as http:
        check_workers(http, shop)


@pytest.mark.slow
def test_c18_uvicorn(shop: WatchedService, service_environment: dict[str, str], tmp_path: Path) -> None:
    """Its workers are spawned."""
    command = "uvicorn --port {port} --workers 2 --no-access-log --log-level warning shop:asgi"
    with server(command, service_environment, tmp_path, shop) as http:
        check_workers(http, shop)


POOL = """
import multiprocessing, os, sys, warnings

def read(_):
    import shop
    from time import sleep
    while (value := shop.cache_size.get(user="ann")) != 5:
        sleep(0.01)
    return value

if __name__ == "__main__":
    import shop
    warnings.simplefilter("ignore")
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print("started", flush=True)
        print(pool.map(read, range(4)), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_c18_multiprocessing(
    shop: WatchedService, service_environment: dict[str, str], tmp_path: Path, method: str
) -> None:
    """With `fork`, a worker has the client of its parent. Otherwise it starts one when it imports the module."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, "pool.py", method]
    with subprocess.Popen(command, cwd=tmp_path, env=service_environment, stdout=subprocess.PIPE, text=True) as pool:
        assert pool.stdout is not None
        assert pool.stdout.readline() == "started\n"
        shop.add_rule("cache_size", 5, user="ann")
        assert pool.communicate()[0] == "[5, 5, 5, 5]\n"


PATCHED_LATER = """
import os, sys, threading
from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting("cache_size", int, ["user"], 10)
client = ThreadHeksherClient(os.environ["HEKSHER_URL"], 0.1, ["user"], jitter=0, timeout=60, request_timeout=60)
if sys.argv[1] == "started":
    client.set_as_main()
from gevent import monkey
monkey.patch_all()
import gevent
if sys.argv[1] != "started":
    client.set_as_main()

def other():
    while True:
        gevent.sleep(0.001)
        turns.append(1)

turns = []
others = gevent.spawn(other)
change = gevent.spawn(next, client.changes())
gevent.sleep(0)
print("ready", flush=True)
while cache_size.get(user="ann") != 5:
    gevent.sleep(0.01)
turns.clear()
client.reload()
client.ping()
client.reload()
print(bool(turns), client.status().state, client.status().problem, change.get().setting.name, flush=True)
client.close()
"""


@pytest.mark.slow
@pytest.mark.frameworks("gevent")
@pytest.mark.parametrize("moment", ["started", "imported"])
def test_c18_gevent_patches_a_program_with_a_client(
    shop: WatchedService, service_environment: Mapping[str, str], moment: str
) -> None:
    """Refreshes go on, calls return, and do not stop other greenlets."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PATCHED_LATER), moment]
    with subprocess.Popen(command, env=service_environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        shop.add_rule("cache_size", 5, user="ann")
        assert program.communicate()[0] == "True fresh None cache_size\n"
        assert program.returncode == 0
