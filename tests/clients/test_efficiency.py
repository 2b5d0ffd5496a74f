"""What a start and a refresh cost: as much as has changed, for both clients."""

import threading

import anyio
import anyio.lowlevel
import httpx
import pytest

from heksher_client import AsyncHeksherClient, Rule, Setting, ThreadHeksherClient
from heksher_client._core.refresh.effects import MAX_CONCURRENT_REQUESTS
from tests.support.clients import FEATURES, PATIENCE, Kind, running
from tests.support.service import DECLARE, Answer, WatchedService

LIST = "GET /api/v1/settings"
NO_LIMIT = 1e9
"""The longest time in seconds that the options of a client accept."""


def settings(count: int) -> list[Setting[int]]:
    return [Setting(f"s{i}", int, ["user"], i) for i in range(count)]


def test_settings_that_the_service_has_are_not_declared_again(kind: Kind, service: WatchedService) -> None:
    """A restart of the program costs a listing and the queries; the settings are as good as declared ones."""
    first = settings(30)
    with running(kind, service.url):
        assert len(service.questions(DECLARE)) == 30
    service.add_rule("s7", 70, user="jim")
    del first
    service.asked.clear()

    restarted = settings(30)
    with running(kind, service.url):
        assert len(service.questions(DECLARE)) == 0
        assert len(service.asked) == 3  # context features, listing, query
        assert [setting.get(user="jim") for setting in restarted] == [70 if i == 7 else i for i in range(30)]


def test_of_many_settings_those_that_differ_are_declared(kind: Kind, service: WatchedService) -> None:
    """A new one, and one with a newer version."""
    first = settings(30)
    with running(kind, service.url):
        pass
    del first
    service.asked.clear()

    changed = [*settings(29), Setting("s29", int, ["user"], 100, version="1.1"), Setting("new", int, ["user"], 1)]
    with running(kind, service.url):
        assert {asked.json["name"] for asked in service.questions(DECLARE)} == {"s29", "new"}
        assert changed[29].get() == 100


def test_a_few_settings_are_declared_without_asking_first(kind: Kind, service: WatchedService) -> None:
    """They can all be declared in the time that the listing would take."""
    few = settings(MAX_CONCURRENT_REQUESTS)
    with running(kind, service.url):
        assert len(service.questions(LIST)) == 0
        assert len(service.questions(DECLARE)) == len(few)


def test_a_listing_that_gets_no_answer_is_no_condition(kind: Kind, service: WatchedService) -> None:
    """It may take too long where a service has very many settings."""
    all_of_them = settings(30)

    def lose(request: httpx.Request) -> None:
        if request.url.path == "/api/v1/settings":
            raise httpx.ReadTimeout("too long")

    async def lose_async(request: httpx.Request) -> None:
        lose(request)

    hook = lose_async if kind.raises_at_start else lose
    with running(kind, service.url, http_client_args={"event_hooks": {"request": [hook]}}):
        assert len(service.questions(DECLARE)) == 30
        assert all_of_them[3].get() == 3


@pytest.mark.parametrize("answer", [Answer(500), Answer(404), Answer.of({"settings": [{"name": "s0"}]})])
def test_where_the_service_does_not_say_what_it_has_all_are_declared(
    kind: Kind, service: WatchedService, answer: Answer
) -> None:
    """The listing saves time and nothing else depends on it."""
    service.answering(LIST, answer)
    all_of_them = settings(30)
    with running(kind, service.url):
        assert len(service.questions(DECLARE)) == 30
        assert all_of_them[3].get() == 3


def test_only_what_has_changed_is_converted_again(kind: Kind, service: WatchedService) -> None:
    """An answer with one changed setting in it costs no more than that one; a new validator goes through all values."""
    calm, changing = Setting("calm", int, ["user"], 1), Setting("changing", int, ["user"], 1)
    converted: list[str] = []

    def note(value: int, _: Rule[int] | None, setting: Setting[int]) -> int:
        converted.append(setting.name)
        return value

    for setting in (calm, changing):
        setting.add_validator(note)
    with running(kind, service.url) as client:
        service.add_rule("changing", 2, user="jim")
        converted.clear()
        client.reload()
        assert converted == ["changing"] * 2  # its default and its rule
        assert changing.get(user="jim") == 2

        calm.add_validator(lambda value, *_: -value)
        client.reload()
        assert (calm.get(), changing.get()) == (-1, 1)


def test_a_new_setting_changes_one_question_of_many(kind: Kind) -> None:
    """Settings are assigned to queries by name, not by position, so the responses to the other queries remain valid.

    The service is in memory, and requests have no time limit. Over sockets, 120 declarations take so long on a busy
    machine that requests time out, and a refresh that fails does not send the queries that this test compares.
    """
    many = settings(120)
    asked: list[tuple[str, bool]] = []
    """The names in each query, and whether it was sent with an ETag."""

    def answer(request: httpx.Request) -> httpx.Response:
        response = declared(request)
        if request.url.path.endswith("/query"):
            has_etag = "if-none-match" in request.headers
            asked.append((request.url.params["settings"], has_etag))
            response = httpx.Response(304) if has_etag else response
            response.headers["ETag"] = '"1"'
        return response

    in_memory = {"transport": httpx.MockTransport(answer)}
    with running(
        kind, "http://service", http_client_args=in_memory, start_timeout=NO_LIMIT, request_timeout=NO_LIMIT
    ) as client:
        before = {names for names, _ in asked}
        asked.clear()
        many.append(Setting("s50_more", int, ["user"], 1))  # sorted into the middle
        client.reload()
        asked_in_full = {names for names, has_etag in asked if not has_etag}
        asked.clear()
        client.reload()
        after = {names for names, _ in asked}

        assert len(before) == len(after) == 4
        assert len(before & after) == 3
        assert asked_in_full == after - before
        assert all(has_etag for _, has_etag in asked)


# -- several at once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def many() -> list[Setting[int]]:
    return settings(3 * MAX_CONCURRENT_REQUESTS)


def declared(request: httpx.Request) -> httpx.Response:
    """A service that accepts every declaration, and has no rules."""
    if request.url.path.endswith("/context_features"):
        return httpx.Response(200, json={"context_features": list(FEATURES)})
    if request.url.path.endswith("/declare"):
        return httpx.Response(200, json={"outcome": "created"})
    if request.url.path.endswith("/settings"):
        return httpx.Response(200, json={"settings": []})
    names = request.url.params["settings"].split(",")
    return httpx.Response(200, json={"settings": {name: {"default_value": 5, "rules": []} for name in names}})


def test_the_thread_client_sends_several_requests_at_once_and_no_more(many: list[Setting[int]]) -> None:
    """Each of the first declarations is answered only when as many as are allowed are under way."""
    under_way, most = 0, 0
    counting = threading.Lock()
    gathered = threading.Barrier(MAX_CONCURRENT_REQUESTS)

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        if request.url.path.endswith("/declare"):
            gathered.wait(PATIENCE)
        with counting:
            under_way -= 1
        return declared(request)

    with ThreadHeksherClient(
        "http://service", 3600, FEATURES, http_client_args={"transport": httpx.MockTransport(answer)}
    ):
        assert many[3].get(user="jim") == 5
    assert most == MAX_CONCURRENT_REQUESTS


def test_a_thread_client_that_gets_no_more_threads_sends_one_request_after_the_other(
    many: list[Setting[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the machine's limit, and while the interpreter shuts down."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "heksher-client-request":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    transport = httpx.MockTransport(declared)
    with ThreadHeksherClient("http://service", 3600, FEATURES, http_client_args={"transport": transport}):
        assert many[3].get(user="jim") == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_request_whose_thread_ends_is_one_that_was_not_sent(many: list[Setting[int]]) -> None:
    """An authentication that ends its thread costs the requests of that thread, and not the client."""
    names = set()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/declare") and threading.current_thread().name != "heksher-client":
            names.add(threading.current_thread().name)
            raise SystemExit
        return declared(request)

    client = ThreadHeksherClient(
        "http://service", 3600, FEATURES, http_client_args={"transport": httpx.MockTransport(answer)}
    )
    client.set_as_main()
    client.close()
    for thread in threading.enumerate():
        if thread.name == "heksher-client-request":
            thread.join(PATIENCE)
    assert names == {"heksher-client-request"}
    assert many[3].get(user="jim") == 3


@pytest.mark.anyio
async def test_the_async_client_sends_several_requests_at_once_and_no_more(many: list[Setting[int]]) -> None:
    """As the thread client does."""
    under_way, most = 0, 0

    class Counting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            under_way -= 1
            return declared(request)

    async with AsyncHeksherClient("http://service", 3600, FEATURES, http_client_args={"transport": Counting()}):
        assert many[3].get(user="jim") == 5
    assert most == MAX_CONCURRENT_REQUESTS


@pytest.mark.anyio
async def test_a_large_answer_lets_other_tasks_run(anyio_backend: str) -> None:
    """The event loop gets its turn again and again while 12,000 rules are decoded, converted and indexed."""
    setting = Setting("s", int, ["user"], 1)
    rules = [{"rule_id": i, "value": i, "context_features": [["user", f"u{i}"]]} for i in range(12_000)]
    answered = anyio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/query"):
            return declared(request)
        answered.set()
        return httpx.Response(200, json={"settings": {"s": {"default_value": 1, "rules": rules}}})

    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        await answered.wait()
        while setting.get(user="u11999") != 11_999:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(take_turns)
        transport = httpx.MockTransport(answer)
        async with AsyncHeksherClient("http://service", 3600, FEATURES, http_client_args={"transport": transport}):
            pass
    assert turns >= 8
