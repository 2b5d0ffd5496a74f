"""The parser of server-sent events, compared with the algorithm of the HTML standard."""

import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._core.refresh.server_sent_events import MAX_EVENT_BYTES, Event, SSEParser, StreamError


def parsed_at_once(stream: bytes) -> list[Event]:
    """Return the events of a whole stream. This is the text of the standard, step by step."""
    text = stream.decode("utf-8", errors="replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\r|\n", text)
    events, data, event_type, last_event_id = [], "", "", ""
    for line in lines:
        if line == "":
            if data != "":
                events.append(Event(event_type or "message", last_event_id, data.removesuffix("\n")))
            data, event_type = "", ""
        elif line.startswith(":"):
            continue
        else:
            field, value = line.split(":", 1) if ":" in line else (line, "")
            value = value.removeprefix(" ")
            if field == "event":
                event_type = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_event_id = value
    return events


PARTS = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"data", b"event", b"id", b"retry", b"unknown", b":", b": ", b" ", b"a", b"7",
    b"\0", b"\xef\xbb\xbf", b"\xe2\x82\xac", b"\xff", b"\xe2\x82", b"data: a\n", b"id: 7\n", b"event: change\r\n",
]  # fmt: skip
"""Streams of these have all kinds of lines, unlike streams of random bytes."""


@given(st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_p22_any_stream_in_any_chunks_is_parsed_as_the_standard_says(stream: bytes, cuts: list[int]) -> None:
    """Line ends, a byte order mark and characters may be split between chunks, which may be empty."""
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = SSEParser()
    events = [event for start, end in pairwise(places) for event in parser.feed(stream[start:end])]
    assert events == parsed_at_once(stream)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"data: a", b"data: b", b"data:", b"data", b""], Event("message", "", "a\nb\n\n")),
        ([b"data", b""], Event("message", "", "")),
        ([b"data:  a", b""], Event("message", "", " a")),
        ([b"data:a:b", b""], Event("message", "", "a:b")),
        ([b"event: change", b"id: 7", b": x", b"retry: 5", b"other: x", b"data: a", b""], Event("change", "7", "a")),
        ([b"\xef\xbb\xbfdata: a", b""], Event("message", "", "a")),
        ([b"\xef\xbb\xbf\xef\xbb\xbfdata: a", b"", b"data: b", b""], Event("message", "", "b")),
        ([b"data: \xff", b"id: \xfe", b""], Event("message", "\ufffd", "\ufffd")),
        ([b"id: 7", b"", b"data: a", b""], Event("message", "7", "a")),
        ([b"id: 7", b"id", b"data: a", b""], Event("message", "", "a")),
        ([b"id: 7\0", b"data: a", b""], Event("message", "", "a")),
        ([b"event: other", b"", b"data: a", b""], Event("message", "", "a")),
    ],
)  # fmt: skip
def test_p22_fields(line_end: bytes, lines: list[bytes], expected: Event) -> None:
    """With each kind of line end, byte by byte."""
    parser = SSEParser()
    stream = line_end.join([*lines, b""])
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == [expected]


def test_the_last_id_is_that_of_a_complete_event() -> None:
    """An event without data has one as well: there is nothing before it that a new stream must have again."""
    parser = SSEParser()
    assert (parser.feed(b"id: 7\n"), parser.last_id) == ([], "")
    assert (parser.feed(b"\n"), parser.last_id) == ([], "7")


def test_p19_events_and_comments_are_counted() -> None:
    """Other lines are not: they may be those of a page, or of a stream that is compressed."""
    parser = SSEParser()
    for stream, count in [
        (b"<html>\n<body>\n\nretry: 1\n\nevent: change\n\n\x1f\x8b\r\r", 0),
        (b": comment\n", 1),
        (b":\n", 2),
        (b"data\n\n", 3),
        (b"id: 7\n\n", 4),
        (b"id: 7\n\n", 4),
    ]:
        parser.feed(stream)
        assert parser.count == count


@pytest.mark.parametrize("prefix", [b"", b":", b"id: ", b"event: ", b"unknown: ", b"data: "])
def test_p21_a_line_without_an_end_is_an_error(prefix: bytes) -> None:
    """Of any kind. The limit is exact, and does not depend on the chunks."""
    parser = SSEParser()
    half = b"x" * (MAX_EVENT_BYTES // 2)
    for chunk in (prefix, half[len(prefix) :], half):
        assert parser.feed(chunk) == []
    with pytest.raises(StreamError, match=r"^an event has more than 1,048,576 bytes$"):
        parser.feed(b"x")
    with pytest.raises(StreamError):
        SSEParser().feed(prefix + 2 * half + b"x\n\n")


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("line", [b"data:\n", b"data\r", b"data: 1234567890\r\n", b"data: x\nid: 7\nevent: x\n: x\n"])
def test_p21_an_event_without_an_end_is_an_error(line: bytes) -> None:
    """However short its lines are. It takes time in proportion to its length."""
    parser = SSEParser()

    def feed() -> None:
        for _ in range(MAX_EVENT_BYTES // 1000 + 1):
            parser.feed(line * 1000)

    with pytest.raises(StreamError):
        feed()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "lines", [b": comment\n", b"id: 7\n", b"event: x\n", b"unknown: x\n", b"\n", b"id: 7\n\n", b"data: x\n\n"]
)
def test_p21_lines_that_end_take_no_memory(lines: bytes) -> None:
    """There may be any number of them."""
    parser, chunk = SSEParser(), lines * (20_000 // len(lines))
    parser.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(20):
            parser.feed(chunk)
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 20_000
