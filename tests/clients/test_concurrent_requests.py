"""Requests that clients send at the same time, and other work that goes on meanwhile."""

import threading

import anyio
import anyio.lowlevel
import httpx
import pytest

from heksher_client import AsyncHeksherClient, Setting, ThreadHeksherClient
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, ThreadKind, eventually, running
from tests.support.service import WatchedService
from tests.support.threads import refuse_threads, threads_of_clients


@pytest.fixture
def many() -> list[Setting[int]]:
    return [Setting(f"s{i}", int, ["user"], i) for i in range(3 * MAX_CONCURRENT_REQUESTS)]


def accept_declarations(request: httpx.Request) -> httpx.Response:
    """Respond like a service that accepts every declaration and has no rules."""
    if request.url.path.endswith("/context_features"):
        return httpx.Response(200, json={"context_features": list(FEATURES)})
    if request.url.path.endswith("/declare"):
        return httpx.Response(200, json={"outcome": "created"})
    if request.url.path.endswith("/settings"):
        return httpx.Response(200, json={"settings": []})
    names = request.url.params["settings"].split(",")
    return httpx.Response(200, json={"settings": {name: {"default_value": 5, "rules": []} for name in names}})


def test_the_thread_client_sends_requests_concurrently_up_to_the_limit(many: list[Setting[int]]) -> None:
    """No declaration gets a response before the maximum number of concurrent requests is reached."""
    in_flight, peak = 0, 0
    lock = threading.Lock()
    limit_reached = threading.Barrier(MAX_CONCURRENT_REQUESTS)

    def respond(request: httpx.Request) -> httpx.Response:
        nonlocal in_flight, peak
        with lock:
            in_flight += 1
            peak = max(peak, in_flight)
        if request.url.path.endswith("/declare"):
            limit_reached.wait(TIMEOUT_SECONDS)
        with lock:
            in_flight -= 1
        return accept_declarations(request)

    with ThreadHeksherClient(
        "http://service", 3600, FEATURES, http_client_args={"transport": httpx.MockTransport(respond)}
    ):
        assert many[3].get(user="jim") == 5
    assert peak == MAX_CONCURRENT_REQUESTS


def test_a_thread_client_that_cannot_start_threads_sends_requests_sequentially(
    many: list[Setting[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started at the system's limit, or while the interpreter shuts down."""
    refuse_threads(monkeypatch, "heksher-client-request")
    transport = httpx.MockTransport(accept_declarations)
    with ThreadHeksherClient("http://service", 3600, FEATURES, http_client_args={"transport": transport}):
        assert many[3].get(user="jim") == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_request_whose_thread_exits_fails(many: list[Setting[int]]) -> None:
    """User code that raises `SystemExit` ends its request thread, but not the client."""
    names = set()

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/declare") and threading.current_thread().name != "heksher-client":
            names.add(threading.current_thread().name)
            raise SystemExit
        return accept_declarations(request)

    client = ThreadHeksherClient(
        "http://service", 3600, FEATURES, http_client_args={"transport": httpx.MockTransport(respond)}
    )
    client.set_as_main()
    client.close()
    for thread in threads_of_clients("heksher-client-request"):
        thread.join(TIMEOUT_SECONDS)
    assert names == {"heksher-client-request"}
    assert many[3].get(user="jim") == 3


def test_the_number_of_threads_does_not_grow_with_requests(service: WatchedService) -> None:
    """Threads that send requests end with them, or are reused."""
    setting = Setting("s", int, ["user"], 7)
    before = threads_of_clients()
    with running(ThreadKind(), service.url) as client:
        for _ in range(5):
            client.reload()
        assert eventually(lambda: 1 <= len(threads_of_clients() - before) <= 2)
    assert setting.get(user="jim") == 7


@pytest.mark.anyio
async def test_the_async_client_sends_requests_concurrently_up_to_the_limit(many: list[Setting[int]]) -> None:
    """The limit is the same as in the thread client."""
    in_flight, peak = 0, 0

    class CountingTransport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal in_flight, peak
            in_flight += 1
            peak = max(peak, in_flight)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            in_flight -= 1
            return accept_declarations(request)

    async with AsyncHeksherClient(
        "http://service", 3600, FEATURES, http_client_args={"transport": CountingTransport()}
    ):
        assert many[3].get(user="jim") == 5
    assert peak == MAX_CONCURRENT_REQUESTS


@pytest.mark.anyio
async def test_a_large_response_does_not_block_other_tasks(anyio_backend: str) -> None:
    """Other tasks run while 12,000 rules are decoded, converted and indexed."""
    setting = Setting("s", int, ["user"], 1)
    rules = [{"rule_id": i, "value": i, "context_features": [["user", f"u{i}"]]} for i in range(12_000)]
    responded = anyio.Event()

    def respond(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/query"):
            return accept_declarations(request)
        responded.set()
        return httpx.Response(200, json={"settings": {"s": {"default_value": 1, "rules": rules}}})

    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        await responded.wait()
        while setting.get(user="u11999") != 11_999:
            steps += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count_steps)
        transport = httpx.MockTransport(respond)
        async with AsyncHeksherClient("http://service", 3600, FEATURES, http_client_args={"transport": transport}):
            pass
    assert steps >= 8
