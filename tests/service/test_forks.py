"""An application that is created before the process forks, as by a server that preloads it: workers share nothing."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from heksher_client.service import create_app, store
from heksher_client.service.database import Database
from heksher_client.service.event_stream import EventStream
from heksher_client.service.history import read_state
from heksher_client.service.metrics import Metrics
from heksher_client.service.processes import PerProcess
from heksher_client.service.query_cache import QueryCache, QueryParameters
from tests.support.clients import eventually
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.http import http_client
from tests.support.ports import reserved_port
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.unmeasured


@pytest.fixture(params=["file", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"sqlite:///{tmp_path}/service.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


def backend(database: Database) -> int:
    """Return the process of PostgreSQL that a connection of this process talks to."""
    with database.begin(writes=False) as connection:
        return int(connection.scalar(text("SELECT pg_backend_pid()")))


def add_feature(database: Database, name: str) -> bool:
    with database.begin() as connection:
        store.add_context_feature(connection, name)
        return True


def features(database: Database) -> list[str]:
    with database.begin(writes=False) as connection:
        return store.context_features(connection)


def test_l1_forked_processes_have_their_own_connections(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The connection of the parent stays open, even if a child closes the database."""
    database = create_app(postgresql.new_database()).state.database
    own = backend(database)

    def write_backend() -> bool:
        (tmp_path / str(os.getpid())).write_text(str(backend(database)))
        database.close()
        return True

    children = [fork_and_check(write_backend) for _ in range(2)]
    assert {exited_successfully(child) for child in children} == {True}
    seen = {int((tmp_path / str(child)).read_text()) for child in children}
    assert len(seen | {own}) == 3
    assert backend(database) == own
    database.close()


def test_l1_forked_processes_write_to_one_database(url: str) -> None:
    """At the same time as their parent."""
    database = create_app(url, ["a"]).state.database
    children = [fork_and_check(lambda name=name: add_feature(database, name)) for name in "bcd"]  # type: ignore[misc]
    add_feature(database, "e")
    assert {exited_successfully(child) for child in children} == {True}
    assert set(features(database)) == set("abcde")
    database.close()


def test_l1_a_fork_during_a_transaction_leaves_no_lock_behind(url: str) -> None:
    """In the child, the thread that would release it does not run."""
    database = create_app(url, ["a"]).state.database

    def use_and_close() -> bool:
        was_read = features(database) == ["a"]
        database.close()  # would wait for the transaction of the parent
        return was_read

    with database.begin() as connection:
        child = fork_and_check(use_and_close)
        assert exited_successfully(child)
        store.add_context_feature(connection, "b")
    assert features(database) == ["a", "b"]
    database.close()


def test_l1_in_memory_a_forked_process_has_a_copy_of_the_data() -> None:
    """Data in memory belong to one process."""
    database = create_app("sqlite://", ["a"]).state.database
    child = fork_and_check(lambda: add_feature(database, "b") and features(database) == ["a", "b"])
    assert exited_successfully(child)
    assert features(database) == ["a"]
    database.close()


def test_l1_the_cache_of_queries_is_not_locked_in_a_forked_process() -> None:
    cache, parameters = QueryCache(), QueryParameters(None, "*", False)
    database = create_app("sqlite://").state.database
    with database.begin(writes=False) as connection:
        state = read_state(connection)
    database.close()
    with cache._locks.get():
        child = fork_and_check(lambda: cache.etag(parameters, state) is None)
    assert exited_successfully(child)


def test_l1_a_forked_process_and_a_second_event_loop_have_their_own_event_streams(url: str) -> None:
    """The reader of the changes belongs to one event loop."""
    database = create_app(url, ["a"]).state.database
    stream, others = EventStream(database, Metrics()), set(threading.enumerate())

    def follow(new: str) -> bool:
        async def run() -> bool:
            events = stream.subscribe(None, None, None)
            await anext(events)
            assert b"event: hello" in await anext(events)
            add = asyncio.get_running_loop().run_in_executor(None, add_feature, database, new)
            event = await anext(events)
            await add
            await events.aclose()  # type: ignore[attr-defined]
            return b"event: change" in event and stream._subscribers == 0

        return asyncio.run(run())

    assert follow("b")
    assert follow("c")
    # The thread that was reading the database might hold a lock of SQLite.
    assert eventually(lambda: not any("AnyIO" in thread.name for thread in set(threading.enumerate()) - others))
    child = fork_and_check(lambda: add_feature(database, "d") and follow("e"))
    assert exited_successfully(child)
    stream.close()
    database.close()


def test_l1_each_process_creates_an_object_once() -> None:
    created: list[int] = []
    objects = PerProcess(lambda: created.append(0) or object())  # type: ignore[func-returns-value]
    assert objects.get() is objects.get()
    assert len(created) == 1
    inherited = objects.get()
    assert exited_successfully(fork_and_check(lambda: objects.get() is not inherited))


@pytest.mark.slow
def test_l1_a_server_that_preloads_the_application_answers_all_requests(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """With several workers, which read and write at the same time."""
    pytest.importorskip("gunicorn.workers.gasgi", reason="this version of gunicorn has no worker for ASGI")
    (tmp_path / "preloaded.py").write_text(
        "import os\nfrom heksher_client.service import create_app\n"
        "app = create_app(os.environ['SERVICE_DATABASE'], ['user'], access_control=False)\n"
        "with app.state.database.begin(writes=False):\n    pass\n"
    )
    with reserved_port() as port:
        command = ["gunicorn", "--preload", "-k", "asgi", "-w", "3", "-b", f"127.0.0.1:{port}", "preloaded:app"]
        environment = {**os.environ, "SERVICE_DATABASE": postgresql.new_database()}
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=tmp_path, env=environment
        )
        try:
            with http_client(f"http://127.0.0.1:{port}") as http:
                assert eventually(lambda: _is_ready(http))

                def send(number: int) -> int:
                    with http_client(f"http://127.0.0.1:{port}") as own:  # any worker
                        if number % 4 == 0:
                            body = {"context_feature": f"f{number}"}
                            return own.post("/api/v1/context_features", json=body).status_code
                        return own.get("/api/v1/query").status_code

                with ThreadPoolExecutor(8) as threads:
                    statuses = list(threads.map(send, range(80)))
                assert set(statuses) == {200, 204}
                assert len(http.get("/api/v1/context_features").json()["context_features"]) == 21
        finally:
            process.terminate()
            process.wait()


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/api/ready").status_code == 200
    except httpx.TransportError:
        return False
