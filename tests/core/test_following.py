"""Hearing of changes: the stream taken apart, and what is made of it; driven by hand."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._core.refresh.change_stream import ChangeStream, Event, SSEParser
from heksher_client._core.refresh.effects import NoResponse, OpenStream, Pause, Reply, Response

STREAM = (
    b": ping\n\n"
    b'event: change\ndata: {"settings":["s"],"all":false,"within":0.0}\nid: 7\n\n'
    b"id: 8\r\nevent:hello\r\ndata: {}\r\n\r\n"
    b"retry: 1000\nunknown\n\n"
    b"data: a\ndata: b\n\n"
)
EVENTS = [Event("change", "7", '{"settings":["s"],"all":false,"within":0.0}'), Event("hello", "8", "{}")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_is_taken_apart_however_it_is_cut(cuts: list[int]) -> None:
    """Comments and unknown fields mean nothing."""
    places = [0, *sorted(cuts), len(STREAM)]
    events = SSEParser()
    taken = [event for a, b in pairwise(places) for event in events.take(STREAM[a:b])]
    assert taken == [*EVENTS, Event("message", None, "ab")]


@pytest.mark.parametrize("endless", [b"x" * 600_000, b"data: " + b"x" * 600_000 + b"\n"])
def test_an_event_without_an_end_is_an_error(endless: bytes) -> None:
    """It would fill the memory."""
    events = SSEParser()
    events.take(endless)
    with pytest.raises(ValueError, match="no end"):
        events.take(endless)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_a_stream(chunks: list[bytes]) -> None:
    """Of events that mean nothing here."""
    run = Run()
    run.following.note_answers(1)
    step = next(run.flow)
    assert isinstance(step, OpenStream)
    assert all(step.take(chunk) for chunk in chunks)


def test_a_change_of_a_setting_that_turns_out_to_be_ours_is_asked_about() -> None:
    """It was renamed a moment ago, and that is known only with the next answers; they may be older than the change."""
    run = Run()
    run.names = {"s"}
    run.following.note_answers(5)
    step = next(run.flow)
    assert isinstance(step, OpenStream)
    for number, name in ((6, "other"), (7, "t"), (8, "t"), (9, "other")):
        step.take(f'event: change\nid: {number}\ndata: {{"settings":["{name}"],"all":false}}\n\n'.encode())
    assert run.asked == []
    run.names.add("t")
    run.following.note_answers(7)
    assert run.asked == [0.0]
    assert run.following.is_behind
    run.following.note_answers(8)
    run.following.note_answers(None)
    assert run.asked == [0.0]
    assert not run.following.is_behind


class Run:
    """A client that follows, with a clock that stands."""

    def __init__(self, *, random: float = 1.0, is_wanted: bool = True) -> None:
        self.now = 100.0
        self.is_open = True
        self.asked: list[float] = []
        self.names = {"s", "t"}
        self.following = ChangeStream(
            is_wanted=is_wanted,
            max_backoff=60.0,
            names=lambda: self.names,
            refresh_within=self.asked.append,
            is_open=lambda: self.is_open,
            clock=lambda: self.now,
            random=lambda: random,
        )
        self.flow = self.following.follow()

    def open(self, after: int) -> Callable[[str], bool]:
        """Begin to listen."""
        step = next(self.flow)
        assert isinstance(step, OpenStream)
        assert step.request.headers["Last-Event-ID"] == str(after)

        def hear(text: str) -> bool:
            return step.take(text.encode())

        return hear

    def lose(self, reply: Reply | None = None) -> float:
        """End the stream; the seconds until the next attempt."""
        step = self.flow.send(reply or NoResponse(ConnectionError()))
        assert isinstance(step, Pause)
        return step.seconds


def change(revision: int, *settings: str, **more: Any) -> str:
    import json

    return f"event: change\ndata: {json.dumps({'settings': settings, **more})}\nid: {revision}\n\n"


def test_a_change_of_a_setting_asks_for_a_refresh() -> None:
    """One of others' settings does not, one of all does; so does one in a form that is not known."""
    run = Run()
    run.following.note_answers(5)
    hear = run.open(5)
    for text, asks in [
        (change(6, "other"), False),
        (change(7, "other", "s"), True),
        (change(8, all=True), True),
        ("event: change\ndata: [1]\nid: 9\n\n", True),
        ("event: hello\ndata: {}\nid: 9\n\n", False),
        ("event: reset\ndata: {}\nid: 2\n\n", True),
        ("event: change\ndata: {}\n\n", False),
        ("event: change\ndata: {}\nid: x\n\n", False),
        (": ping\n\n", False),
    ]:
        run.asked.clear()
        run.now += 60.0
        assert hear(text)
        assert bool(run.asked) is asks, text
    run.lose()
    run.open(2)


def test_many_changes_in_a_row_are_asked_about_once_a_second() -> None:
    """After the first three, each of which is heard of at once."""
    run = Run()
    run.following.note_answers(5)
    hear = run.open(5)
    for revision in range(6, 11):
        hear(change(revision, "s"))
    assert run.asked == [0.0, 0.0, 0.0, 1.0, 1.0]
    run.now += 1.0
    hear(change(11, "s"))
    hear(change(12, "s"))
    assert run.asked[-2:] == [0.0, 1.0]
    run.now += 60.0
    for revision in range(13, 17):
        hear(change(revision, "s"))
    assert run.asked[-4:] == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("within", "asked"), [(0.0, 0.0), (8.0, 4.0), (-1.0, 0.0), (1e9, 0.0)])
def test_a_fleet_spreads_its_queries(within: float, asked: float) -> None:
    """Over the seconds that the service says, unless those are nonsense."""
    run = Run(random=0.5)
    run.following.note_answers(5)
    run.open(5)(change(6, "s", within=within))
    assert run.asked == [asked]


def test_a_stream_is_resumed_after_what_was_heard_last() -> None:
    """Whatever the answers tell meanwhile; without a stream they tell where to begin."""
    run = Run()
    run.following.note_answers(5)
    hear = run.open(5)
    hear(change(9, "s"))
    run.following.note_answers(7)
    run.lose()
    run.following.note_answers(12)
    run.open(12)


def test_answers_that_are_older_than_what_was_heard_are_noticed() -> None:
    """Something on the way keeps them, or the database is a copy that is late."""
    run = Run()
    run.following.note_answers(5)
    hear = run.open(5)
    hear(change(9, "s"))
    for revision, is_behind in [(8, True), (9, False), (10, False)]:
        run.following.note_answers(revision)
        assert run.following.is_behind is is_behind
    hear(change(11, "others"))
    run.following.note_answers(10)
    assert not run.following.is_behind


def test_a_lost_stream_is_opened_again_ever_later() -> None:
    """After some part of 4 seconds, 8, 16 and so on, up to the longest; anew after one that has lasted."""
    run = Run()
    run.following.note_answers(5)
    waits = []
    for _ in range(6):
        run.open(5)
        waits.append(run.lose())
    assert waits == [4, 8, 16, 32, 60, 60]
    run.open(5)(": ping\n\n")
    assert run.lose() == 60
    run.open(5)(": ping\n\n")
    run.now += 31
    assert run.lose() == 4


def test_a_refusal_is_not_tried_again_soon() -> None:
    """It takes people to mend a proxy or credentials; a service that is just stopping is another matter."""
    run = Run()
    run.following.note_answers(5)
    for status, wait in [(404, 300), (401, 300), (302, 300), (503, 4), (200, 8)]:
        run.open(5)
        assert run.lose(Response(status)) == wait


def test_nothing_is_followed_that_is_not_offered_or_not_wanted() -> None:
    """And it ends when the service does not offer it any more, or the client is closed."""
    run = Run()
    assert (list(run.flow), run.following.is_offered) == ([], False)
    unwanted = Run(is_wanted=False)
    unwanted.following.note_answers(5)
    assert list(unwanted.flow) == []
    run = Run()
    run.following.note_answers(5)
    hear = run.open(5)
    run.following.note_answers(None)
    assert not hear(": ping\n\n")
    run.lose(Response(200))
    with pytest.raises(StopIteration):
        run.flow.send(None)
    closed = Run()
    closed.following.note_answers(5)
    hear = closed.open(5)
    closed.is_open = False
    assert not hear(": ping\n\n")
    with pytest.raises(StopIteration):
        closed.flow.send(Response(200))
