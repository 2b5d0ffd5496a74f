"""The stream of changes: requesting refreshes, and opening it again; driven by hand."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._core.refresh.change_stream import ChangeStream
from heksher_client._core.refresh.effects import NoResponse, Reply, Response
from heksher_client._core.refresh.positions import Position
from heksher_client._core.refresh.server_sent_events import StreamError
from heksher_client.exceptions import CredentialError
from tests.support.log_records import summaries


class Run:
    """A stream of a client that has the settings s and t, with a clock that a test moves."""

    def __init__(self, revision: int | None = 5, *, random: float = 1.0) -> None:
        self.now = 100.0
        self.names = {"s", "t"}
        self.stream = ChangeStream(max_backoff=60.0, clock=lambda: self.now, random=lambda: random)
        assert not self.record(revision)

    def record(self, revision: int | None, database: str = "", epoch: int = 0) -> bool:
        position = None if revision is None else Position(database, epoch, revision)
        return self.stream.record_position(position, self.names)

    def open(self, after: int) -> None:
        assert self.stream.open().headers["Last-Event-ID"] == str(after)

    def feed(self, text: str | bytes) -> float | None:
        return self.stream.feed(text.encode() if isinstance(text, str) else text, self.names)

    def lose(self, reply: Reply | None = None) -> float:
        """End the stream, and return the seconds until it is opened again."""
        return self.stream.close(reply or NoResponse(ConnectionError()), is_expected=False)


def change(revision: int, *settings: str, **more: Any) -> str:
    return f"event: change\ndata: {json.dumps({'settings': settings, **more})}\nid: {revision}\n\n"


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_accepted(chunks: list[bytes]) -> None:
    """They contain no event that requests a refresh."""
    run = Run()
    run.open(5)
    assert [run.feed(chunk) for chunk in chunks] == [None] * len(chunks)


def test_a_change_of_a_setting_requests_a_refresh() -> None:
    """A change of another program's setting does not. One of all settings does, and one in an unknown form."""
    run = Run()
    run.open(5)
    for text, is_requested in [
        (change(6, "other"), False),
        (change(7, "other", "s"), True),
        (change(8, all=True), True),
        ("event: change\ndata: [1]\nid: 9\n\n", True),
        ("event: hello\ndata: {}\nid: 9\n\n", False),
        ("event: reset\ndata: {}\nid: 2\n\n", True),
        ("event: change\ndata: {}\n\n", False),
        ("event: change\ndata: {}\nid: x\n\n", False),
        (change(10**18, "s"), False),
        (change(10**18 - 1, "s"), True),
        ("event: reset\ndata: {}\nid: 2\n\n", True),
        (": ping\n\n", False),
    ]:
        run.now += 60.0
        assert (run.feed(text) is not None) is is_requested, text
    run.lose()
    run.open(2)


def test_a_change_of_an_unknown_setting_counts_once_its_name_is_known() -> None:
    """It was renamed a moment ago, which only the next responses say; they may be older than the change."""
    run = Run()
    run.names = {"s"}
    run.open(5)
    for number, name in ((6, "other"), (7, "t"), (8, "t"), (9, "other")):
        assert run.feed(change(number, name)) is None
    run.names.add("t")
    assert run.record(7)
    assert run.stream.is_behind
    assert not run.record(8)
    assert not run.record(None)
    assert not run.stream.is_behind


def test_many_changes_in_a_row_request_a_refresh_once_a_second() -> None:
    """After the first three, which request one at once."""
    run = Run()
    run.open(5)
    assert [run.feed(change(revision, "s")) for revision in range(6, 11)] == [0.0, 0.0, 0.0, 1.0, 1.0]
    run.now += 0.9
    assert run.feed(change(11, "s")) == pytest.approx(0.1)
    run.now += 0.2  # The delayed refresh was a moment ago.
    assert [run.feed(change(revision, "s")) for revision in (12, 13)] == pytest.approx([0.9, 0.9])
    run.now += 60.0
    assert [run.feed(change(revision, "s")) for revision in range(14, 18)] == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_p22_a_change_may_have_several_lines(line_end: str) -> None:
    """As JSON that is indented. They are joined with line feeds."""
    run = Run()
    run.open(5)
    lines = ["event: change", "id: 6", *(f"data: {line}" for line in ('{"settings": [', '"s"]', "}")), "", ": x", ""]
    delays = [run.feed(character) for character in line_end.join(lines)]
    assert [delay for delay in delays if delay is not None] == [0.0]
    run.lose()
    run.open(6)


def test_p22_an_id_without_data_is_resumed_after() -> None:
    """It is not an event, but the id of the stream."""
    run = Run()
    run.open(5)
    for text in ("id: 7\n\n", "id: x\n\n", "id: 8\n"):
        assert run.feed(text) is None
    assert run.stream.is_connected
    run.lose()
    run.open(7)


def test_of_several_changes_in_one_chunk_the_most_urgent_counts() -> None:
    """A change that the fleet may spread does not delay one that it may not."""
    run = Run(random=0.5)
    run.open(5)
    assert run.feed(change(6, "other") + change(7, "s", within=8.0) + change(8, "t")) == 0.0


@pytest.mark.parametrize(
    ("within", "delay"), [(0.0, 0.0), (8.0, 4.0), (0.5, 0.25), (299.0, 149.5), (300.0, 0.0), (-1.0, 0.0), (1e9, 0.0)]
)
def test_a_fleet_spreads_its_queries(within: float, delay: float) -> None:
    """Over the seconds that the service says, unless they are out of range."""
    run = Run(random=0.5)
    run.open(5)
    assert run.feed(change(6, "s", within=within)) == delay


def test_a_stream_is_resumed_after_the_last_announced_change() -> None:
    """The revision of responses does not matter while it is open. Without a stream, it says where to begin."""
    run = Run()
    run.open(5)
    run.feed(change(9, "s"))
    run.record(7)
    run.lose()
    run.open(9)
    run.lose()
    run.record(12)
    run.open(12)


def test_responses_that_are_older_than_an_announced_change_are_noticed() -> None:
    """A cache in between is stale, or the database is a replica that lags."""
    run = Run()
    run.open(5)
    run.feed(change(9, "s"))
    for revision, is_behind in [(8, True), (9, False), (10, False)]:
        run.record(revision)
        assert run.stream.is_behind is is_behind
    run.feed(change(11, "others"))
    run.record(10)
    assert not run.stream.is_behind


def test_a_lost_stream_is_opened_again_with_growing_delays() -> None:
    """After a random part of 4 seconds, 8, 16 and so on, up to the limit; from the start after one that lasted."""
    run = Run()
    delays = []
    for _ in range(6):
        run.open(5)
        delays.append(run.lose())
    assert delays == [4, 8, 16, 32, 60, 60]
    run.open(5)
    run.feed(": ping\n\n")
    assert run.lose() == 60
    for seconds, delay in ((30.0, 60), (30.1, 4)):
        run.open(5)
        run.feed(": ping\n\n")
        run.now += seconds
        assert run.lose() == delay
    assert run.lose() == 8


def test_the_child_of_a_fork_has_no_stream_and_no_losses() -> None:
    """Both belong to the parent. The child resumes after the same revision."""
    run = Run()
    run.lose()
    run.open(5)
    run.feed(change(7, "s"))
    run.stream.after_fork()
    assert (run.stream.is_connected, run.stream.is_offered) == (False, True)
    run.open(7)
    assert run.lose() == 4


def test_a_refused_stream_is_not_opened_again_soon() -> None:
    """Somebody has to fix a proxy or credentials. A service that is just stopping is different."""
    run = Run()
    for status, delay in [(404, 300), (401, 300), (300, 300), (499, 300), (500, 4), (299, 8), (200, 16)]:
        run.open(5)
        assert run.lose(Response(status)) == delay
    run = Run(random=0.5)
    assert (run.lose(Response(404)), run.lose(Response(503)), run.lose(Response(503))) == (225, 2, 4)


def test_a_stream_is_offered_while_responses_have_revisions() -> None:
    """And not before the first one that has."""
    assert not Run(None).stream.is_offered
    run = Run()
    assert run.stream.is_offered
    run.record(None)
    assert not run.stream.is_offered


@pytest.mark.parametrize("is_expected", [False, True])
def test_the_end_of_a_stream_is_logged_unless_the_client_has_ended_it(
    caplog: pytest.LogCaptureFixture, is_expected: bool
) -> None:
    """Changes then arrive at intervals."""
    caplog.set_level("INFO")
    run = Run()
    run.open(5)
    run.feed(": ping\n\n")
    assert run.stream.is_connected
    run.stream.close(Response(200), is_expected=is_expected)
    assert not run.stream.is_connected
    assert (
        summaries(caplog.records)
        == [
            ("INFO", "following changes as they are made", {}),
            ("INFO", "the stream of changes has ended (the service ended it); changes arrive at intervals", {}),
        ][: 2 - is_expected]
    )


# -- streams that are refused ------------------------------------------------------------------------------------------

EVENTS = {"content-type": "text/event-stream"}
REFUSALS: list[tuple[Reply, str, str]] = [
    (
        Response(403, b"denied"),
        "WARNING",
        "the service responded with 403: 'denied' (the credentials are missing, wrong or insufficient)",
    ),
    (Response(500), "WARNING", "the service responded with 500"),
    (Response(302), "WARNING", "the service responded with 302"),
    (Response(204, b"", EVENTS), "WARNING", "the service responded with 204"),
    (
        Response(200, b"<html>", {"content-type": "text/html; charset=utf-8"}),
        "WARNING",
        "the service responded with 200, but with content type 'text/html' instead of 'text/event-stream': "
        "an HTML page",
    ),
    (
        Response(200, b"", {"content-type": "x" * 200}),
        "WARNING",
        f"the service responded with 200, but with content type '{'x' * 99}…' instead of 'text/event-stream'",
    ),
    (
        Response(200),
        "WARNING",
        "the service responded with 200, but with no content type instead of 'text/event-stream'",
    ),
    (
        Response(200, b"", {**EVENTS, "content-encoding": "br"}),
        "WARNING",
        "the service responded with 200, but with the unsupported encoding 'br'",
    ),
    (
        Response(200, b"", EVENTS, problem="with compressed data that is not valid"),
        "WARNING",
        "the service responded with 200, but with compressed data that is not valid",
    ),
    (
        NoResponse(ValueError("bad"), is_invalid=True),
        "WARNING",
        "the response cannot be decoded (ValueError: bad)",
    ),
    (NoResponse(CredentialError("not signed in")), "WARNING", "not signed in"),
    (NoResponse(ValueError("a secret")), "WARNING", "no response (ValueError)"),
    (
        NoResponse(ConnectionError("refused"), is_network_error=True),
        "INFO",
        "no response (ConnectionError: refused)",
    ),
]


def test_p19_a_stream_that_becomes_invalid() -> None:
    """The status says how it ended."""
    run = Run()
    run.open(5)
    run.feed(b": ping\n\n")
    run.lose(Response(200, b"", EVENTS, problem="with compressed data that is not valid"))
    assert run.stream.problem == "it continued with compressed data that is not valid"


@pytest.mark.parametrize(("reply", "level", "reason"), REFUSALS)
def test_p20_a_refused_stream_is_logged_once(
    caplog: pytest.LogCaptureFixture, reply: Reply, level: str, reason: str
) -> None:
    """The status has the reason, until a stream works. A refusal that comes back within minutes is not logged again."""
    caplog.set_level("INFO")
    run = Run()
    problem = f"GET /api/v1/changes: {reason}"
    refused = (level, f"the stream of changes cannot be followed ({problem}); changes arrive at intervals")
    following = ("INFO", "following changes as they are made")
    ended = ("INFO", "the stream of changes has ended (the service ended it); changes arrive at intervals")
    for is_logged in (True, False, True):
        for _ in range(3):
            run.open(5)
            run.lose(reply)
            assert run.stream.problem == problem
            run.now += 60
        run.open(5)
        run.feed(b": ping\n\n")
        assert run.stream.problem is None
        run.lose(Response(200, b"", EVENTS))
        assert run.stream.problem == "the service ended it"
        records = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert records == [*[refused] * is_logged, following, ended]
        caplog.clear()
        run.now += 0 if is_logged else 300


NETWORK_ERROR = NoResponse(ConnectionError("reset"), is_network_error=True)


def test_p20_a_stream_that_fails_while_refreshes_succeed_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A proxy holds it back, or drops it. In an outage refreshes fail as well, and after it the stream works again."""
    caplog.set_level("INFO")
    run = Run()
    for _ in range(3):
        run.lose(NETWORK_ERROR)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    run.record(5)
    run.open(5)
    run.feed(": ping\n\n")
    run.now += 31
    run.lose(NETWORK_ERROR)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    caplog.clear()
    for _ in range(3):
        run.record(5)
        run.lose(NETWORK_ERROR)
    problem = "GET /api/v1/changes: no response (ConnectionError: reset)"
    message = f"the stream of changes cannot be followed ({problem}); changes arrive at intervals"
    assert summaries(caplog.records) == [("WARNING", message, {})]


def test_p20_a_stream_that_ends_again_and_again_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Once, if refreshes succeed. A few times may be replicas of the service that restart."""
    caplog.set_level("INFO")
    for refreshes, expected in ((False, ["INFO"] * 6), (True, ["INFO"] * 3 + ["WARNING"] + ["INFO"] * 2)):
        run = Run()
        caplog.clear()
        for _ in range(6):
            if refreshes:
                run.record(5)
            run.open(5)
            run.feed(": ping\n\n")
            run.now += 10
            run.lose(NETWORK_ERROR)
        assert [record.levelname for record in caplog.records if "ended" in record.getMessage()] == expected


def test_p20_each_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A load balancer may alternate between them, and the body of a page may differ each time."""
    run = Run()
    for number in range(10):
        for status in (502, 503, 200):
            run.open(5)
            run.lose(Response(status, str(number).encode()))
    assert len(caplog.records) == 3


def test_p20_a_service_without_a_stream_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The status says it. There is nothing to tell if responses have no revision either."""
    run = Run()
    run.open(5)
    run.lose(Response(404))
    assert run.stream.problem == "GET /api/v1/changes: the service responded with 404"
    assert caplog.records == []
    run.record(None)
    assert run.stream.problem is None


def test_p20_a_stream_that_the_client_has_ended_is_not_a_problem() -> None:
    """Another client is the main one."""
    run = Run()
    run.open(5)
    run.stream.close(Response(200, b"", EVENTS), is_expected=True)
    assert run.stream.problem is None


@pytest.mark.parametrize("text", ["", "<html>\n\n", "\x1f\x8b\x08\n\n\n", "retry: 1\n\n", "data: x"])
def test_p19_only_events_and_comments_show_that_a_stream_works(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Other bytes may be those of a page, or compressed. The stream is ended if they go on."""
    caplog.set_level("INFO")
    run = Run()
    run.open(5)
    for _ in range(4):
        run.feed(text)
        assert not run.stream.is_connected
        run.now += 15
    with pytest.raises(StreamError, match=r"^no event or comment for 45 seconds$") as raised:
        run.feed(text)
    assert run.lose(NoResponse(raised.value)) == 4
    assert run.stream.problem == "no event or comment for 45 seconds"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    run.open(5)
    run.feed(": ping\n")
    assert run.stream.is_connected


def test_p19_a_stream_that_no_longer_has_events_or_comments_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    """An event may take long, as a request may, before the first byte."""
    caplog.set_level("INFO")
    run = Run()
    run.open(5)
    run.now += 1000
    run.feed(": ping\n")
    run.now += 45
    run.feed("data: x\n")
    run.now += 1
    with pytest.raises(StreamError) as raised:
        run.feed("data: x\n")
    run.lose(NoResponse(raised.value))
    assert [record.getMessage() for record in caplog.records] == [
        "following changes as they are made",
        "the stream of changes has ended (no event or comment for 45 seconds); changes arrive at intervals",
    ]


def test_a_stream_that_ends_before_its_first_event_is_a_problem() -> None:
    """A proxy may buffer it."""
    run = Run()
    run.open(5)
    run.lose(Response(200, b"", {"content-type": "TEXT/Event-Stream;charset=utf-8", "content-encoding": "GZip"}))
    assert run.stream.problem == "the service ended it before the first event"


def test_the_rest_of_a_lost_stream_is_not_part_of_the_next_one() -> None:
    """The next stream begins with a new event."""
    run = Run()
    run.open(5)
    run.feed(b"event: change\ndata: [1]\nid: 6")
    run.lose()
    run.open(5)
    assert run.feed(b"\n\n") is None
    assert run.feed(change(7, "s")) == 0.0


def test_the_waits_of_a_stream_depend_on_random_numbers() -> None:
    """So that the clients of a service that restarts do not all come back at once."""
    assert [Run(random=random).lose() for random in (0.0, 0.25, 1.0)] == [0.0, 1.0, 4.0]


def test_only_responses_to_a_connected_client_can_be_older_than_a_change() -> None:
    """After the end of the stream, its revisions may be those of a database that was replaced."""
    run = Run()
    run.open(5)
    run.feed(change(9, "s"))
    run.lose()
    assert not run.record(7)
    assert not run.stream.is_behind


def test_a_change_of_an_unknown_setting_that_the_responses_have_does_not_count() -> None:
    """Not later either, if older responses arrive."""
    run = Run()
    run.names = {"s"}
    run.open(5)
    run.feed(change(6, "t") + change(7, "u"))
    run.names.add("t")
    assert not run.record(6)
    assert not run.record(7)
    run.names.add("u")
    assert not run.record(6)


@pytest.mark.parametrize(("others", "is_remembered"), [(9_999, True), (10_000, False)])
@pytest.mark.parametrize("in_one_event", [True, False])
def test_p21_ten_thousand_unknown_settings_are_remembered(others: int, is_remembered: bool, in_one_event: bool) -> None:
    """Another program may have many. They are dropped with the next responses that have them."""
    run = Run()
    run.open(5)
    names = [f"other{number}" for number in range(others)]
    if in_one_event:
        run.feed(change(6, "first", *names))
    else:
        run.feed(change(6, "first") + "".join(change(7 + number, name) for number, name in enumerate(names)))
    run.names.add("first")
    assert run.record(5) is is_remembered


def test_p21_the_latest_changes_of_unknown_settings_are_remembered() -> None:
    """Of many. A setting that changes again is among them."""
    run = Run()
    run.open(5)
    run.feed(change(6, "first", "second"))
    run.feed(change(7, *(f"other{number}" for number in range(9_997))))
    run.feed(change(8, "first", "x" * 1001))
    run.feed(change(9, "last", "another"))
    for name, is_remembered in [("second", False), ("x" * 1001, False), ("first", True), ("last", True)]:
        run.names.add(name)
        assert run.record(5) is is_remembered


@pytest.mark.slow
@pytest.mark.unmeasured
def test_p21_many_events_about_unknown_settings_take_limited_memory() -> None:
    """However many names they have, and however long these are."""
    run = Run()
    run.open(5)
    for length in (5, 900, 100_000):
        tracemalloc.start()
        try:
            for revision in range(6, 10):
                run.feed(change(revision, *(f"{revision}{i:{length}}" for i in range(1_000_000 // (length + 6)))))
            current, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert current < 16 << 20


def test_the_unknown_settings_of_another_database_are_forgotten() -> None:
    """Its revisions begin again, so their revisions would never be reached."""
    run = Run()
    run.open(5)
    run.feed(change(6, "other"))
    run.feed("event: reset\ndata: {}\nid: 2\n\n")
    run.names.add("other")
    assert not run.record(2)
    assert not run.stream.is_behind


@pytest.mark.parametrize(("database", "epoch"), [("b", 1), ("a", 2)])
@pytest.mark.parametrize("is_open", [True, False])
def test_d9_what_was_announced_for_a_former_database_does_not_count(database: str, epoch: int, is_open: bool) -> None:
    """Its revisions would never be reached. The responses of the other one may come before the next stream."""
    run = Run()
    run.record(5, "a", 1)
    run.open(5)
    run.feed(change(499, "other") + change(500, "s"))
    run.record(500 if is_open else 4, "a", 1)
    if not is_open:
        run.lose()
        run.open(500)
    run.names.add("other")
    assert not run.record(10, database, epoch)
    run.feed(": ping\n\n")
    assert not run.record(10, database, epoch)
    assert not run.stream.is_behind


@pytest.mark.parametrize(
    ("database", "text"),
    [
        ("b", 'event: reset\ndata: {"database": "b.2"}\nid: 9\n\n'),
        ("a", change(9, "s", database="a.2")),
        ("a", change(9, "other", database="a.2")),
    ],
)
def test_d9_what_was_announced_before_the_first_response_of_another_epoch_counts(database: str, text: str) -> None:
    """The service was started again, and a replica lags."""
    run = Run()
    run.record(5, "a", 1)
    run.open(5)
    run.lose()
    run.open(5)
    run.feed(text)
    run.names.add("other")
    for revision in (8, None, 8):
        run.record(revision, database, 2)
        assert run.stream.is_behind is (revision is not None)
    run.record(9, database, 2)
    assert not run.stream.is_behind


def test_d9_a_stream_of_a_former_database_that_stays_open() -> None:
    """While a service is replaced by one with another database, both respond. Its changes request one refresh each."""
    run = Run()
    run.record(5, "a", 1)
    run.open(5)
    run.record(3, "b", 1)
    for revision in (8, 9):
        assert run.feed(change(revision, "s", "other", database="a.1")) == 0.0
        assert not run.record(3, "b", 1)
        assert not run.stream.is_behind
    run.lose()
    assert run.stream.open().headers["Heksher-Database"] == "a.1"
    assert run.feed('event: reset\ndata: {"database": "b.1"}\nid: 4\n\n') == 0.0
    run.record(3, "b", 1)
    assert run.stream.is_behind
    run.lose()
    request = run.stream.open()
    assert (request.headers["Heksher-Database"], request.headers["Last-Event-ID"]) == ("b.1", "4")


def test_responses_without_a_position_do_not_end_what_was_announced() -> None:
    """The responses of one refresh may be of two databases, if there are copies."""
    run = Run()
    run.record(5, "a", 1)
    run.open(5)
    run.feed(change(9, "s"))
    for revision in (8, None, 8):
        run.record(revision, "a", 1)
    assert run.stream.is_behind


def test_p21_endless_resets_request_a_refresh_once_a_second() -> None:
    """After the first three, as changes do."""
    run = Run()
    run.open(5)
    delays = [run.feed(f"event: reset\ndata: {{}}\nid: {revision}\n\n") for revision in range(6, 11)]
    assert delays == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_a_change_of_an_unknown_setting_does_not_hide_a_later_one() -> None:
    """Responses must still be as new as the latest announced change."""
    run = Run()
    run.open(5)
    run.feed(change(6, "other") + change(7, "s"))
    run.names.add("other")
    assert run.record(5)
    run.record(6)
    assert run.stream.is_behind


def test_the_first_revision_of_a_database_is_not_behind() -> None:
    """Nothing was announced before it."""
    run = Run(0)
    assert not run.stream.is_behind
    run.open(0)
    run.feed(": ping\n\n")
    run.record(0)
    assert not run.stream.is_behind


def test_a_new_database_is_loaded_at_once_and_its_responses_must_not_be_older() -> None:
    """Its revisions begin again."""
    run = Run()
    run.open(5)
    assert run.feed("event: reset\ndata: {}\nid: 2\n\n") == 0.0
    for revision, is_behind in [(1, True), (2, False)]:
        run.record(revision)
        assert run.stream.is_behind is is_behind
