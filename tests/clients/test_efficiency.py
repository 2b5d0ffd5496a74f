"""Efficiency of starts and refreshes, for both clients: few requests, sent concurrently, and work only for changes."""

import threading

import anyio
import anyio.lowlevel
import httpx
import pytest

from heksher_client import AsyncHeksherClient, Rule, Setting, ThreadHeksherClient
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, running
from tests.support.service import DECLARE, CannedResponse, WatchedService

LIST = "GET /api/v1/settings"
NO_LIMIT = 1e9
"""The longest time in seconds that the options of a client accept."""


def make_settings(count: int) -> list[Setting[int]]:
    return [Setting(f"s{i}", int, ["user"], i) for i in range(count)]


def test_settings_that_the_service_has_are_not_declared_again(kind: Kind, service: WatchedService) -> None:
    """After a restart, a program sends one request for the list of settings and the queries."""
    former = make_settings(30)
    with running(kind, service.url):
        assert len(service.requests_to(DECLARE)) == 30
    service.add_rule("s7", 70, user="jim")
    del former
    service.requests.clear()

    current = make_settings(30)
    with running(kind, service.url):
        assert len(service.requests_to(DECLARE)) == 0
        assert len(service.requests) == 3  # context features, list of settings, query
        assert [setting.get(user="jim") for setting in current] == [70 if i == 7 else i for i in range(30)]


def test_only_new_and_changed_settings_are_declared(kind: Kind, service: WatchedService) -> None:
    """The others are in the service's list with the same declaration."""
    former = make_settings(30)
    with running(kind, service.url):
        pass
    del former
    service.requests.clear()

    changed = [*make_settings(29), Setting("s29", int, ["user"], 100, version="1.1"), Setting("new", int, ["user"], 1)]
    with running(kind, service.url):
        assert {request.json["name"] for request in service.requests_to(DECLARE)} == {"s29", "new"}
        assert changed[29].get() == 100


def test_a_few_settings_are_declared_without_a_request_for_the_list(kind: Kind, service: WatchedService) -> None:
    """All can be declared concurrently, in the time that the request for the list would take."""
    few = make_settings(MAX_CONCURRENT_REQUESTS)
    with running(kind, service.url):
        assert len(service.requests_to(LIST)) == 0
        assert len(service.requests_to(DECLARE)) == len(few)


def test_all_settings_are_declared_if_the_request_for_the_list_times_out(kind: Kind, service: WatchedService) -> None:
    """It may time out if the service has very many settings."""
    settings = make_settings(30)

    def time_out(request: httpx.Request) -> None:
        if request.url.path == "/api/v1/settings":
            raise httpx.ReadTimeout("too long")

    async def time_out_async(request: httpx.Request) -> None:
        time_out(request)

    hook = time_out_async if kind.raises_at_start else time_out
    with running(kind, service.url, http_client_args={"event_hooks": {"request": [hook]}}):
        assert len(service.requests_to(DECLARE)) == 30
        assert settings[3].get() == 3


@pytest.mark.parametrize(
    "response", [CannedResponse(500), CannedResponse(404), CannedResponse.of({"settings": [{"name": "s0"}]})]
)
def test_all_settings_are_declared_if_the_list_is_unavailable(
    kind: Kind, service: WatchedService, response: CannedResponse
) -> None:
    """The list only saves requests; the start does not depend on it."""
    service.respond_with(LIST, response)
    settings = make_settings(30)
    with running(kind, service.url):
        assert len(service.requests_to(DECLARE)) == 30
        assert settings[3].get() == 3


def test_only_changed_settings_are_converted_again(kind: Kind, service: WatchedService) -> None:
    """A new validator is applied to all values of its setting."""
    stable, changing = Setting("stable", int, ["user"], 1), Setting("changing", int, ["user"], 1)
    converted: list[str] = []

    def record(value: int, _: Rule[int] | None, setting: Setting[int]) -> int:
        converted.append(setting.name)
        return value

    for setting in (stable, changing):
        setting.add_validator(record)
    with running(kind, service.url) as client:
        service.add_rule("changing", 2, user="jim")
        converted.clear()
        client.reload()
        assert converted == ["changing"] * 2  # its default and its rule
        assert changing.get(user="jim") == 2

        stable.add_validator(lambda value, *_: -value)
        client.reload()
        assert (stable.get(), changing.get()) == (-1, 1)


def test_a_new_setting_changes_only_one_of_many_queries(kind: Kind) -> None:
    """Settings are assigned to queries by name, not by position, so the responses to the other queries remain valid.

    The service is in memory, and requests have no time limit. Over sockets, 120 declarations take so long on a busy
    machine that requests time out, and a refresh that fails does not send the queries that this test compares.
    """
    many = make_settings(120)
    queries: list[tuple[str, bool]] = []
    """The names in each query, and whether it was sent with an ETag."""

    def respond(request: httpx.Request) -> httpx.Response:
        response = accept_declarations(request)
        if request.url.path.endswith("/query"):
            has_etag = "if-none-match" in request.headers
            queries.append((request.url.params["settings"], has_etag))
            response = httpx.Response(304) if has_etag else response
            response.headers["ETag"] = '"1"'
        return response

    in_memory = {"transport": httpx.MockTransport(respond)}
    with running(
        kind, "http://service", http_client_args=in_memory, start_timeout=NO_LIMIT, request_timeout=NO_LIMIT
    ) as client:
        before = {names for names, _ in queries}
        queries.clear()
        many.append(Setting("s50_more", int, ["user"], 1))  # sorted into the middle
        client.reload()
        without_etag = {names for names, has_etag in queries if not has_etag}
        queries.clear()
        client.reload()
        after = {names for names, _ in queries}

        assert len(before) == len(after) == 4
        assert len(before & after) == 3
        assert without_etag == after - before
        assert all(has_etag for _, has_etag in queries)


# -- concurrency -------------------------------------------------------------------------------------------------------


@pytest.fixture
def many() -> list[Setting[int]]:
    return make_settings(3 * MAX_CONCURRENT_REQUESTS)


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
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "heksher-client-request":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
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
    for thread in threading.enumerate():
        if thread.name == "heksher-client-request":
            thread.join(TIMEOUT_SECONDS)
    assert names == {"heksher-client-request"}
    assert many[3].get(user="jim") == 3


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
