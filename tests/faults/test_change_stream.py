"""Faults of the change stream, by the ids of the table in the documentation."""

import gzip
import logging
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from heksher_client import Setting, State
from tests.support.clients import Kind, eventually, running
from tests.support.fake_service import FakeService
from tests.support.faults import Connection, Fault, FaultServer, canned_response, disconnect, redirect_to, stall

EVENTS = "Content-Type: text/event-stream\r\n"
Encode = Callable[[bytes], bytes]


@pytest.fixture
def service() -> FakeService:
    """A service in memory that announces the change stream to clients."""
    service = FakeService()
    service.offers_changes = True
    return service


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a stream that was refused again at once."""
    monkeypatch.setattr("heksher_client._core.refresh.change_stream._REFUSED_RETRY", 0.05)


def event_stream(
    service: FakeService, headers: str = EVENTS, encoder: Callable[[], Encode] = lambda: bytes, beginning: bytes = b""
) -> Fault:
    """Return a fault that sends the changes of a service as a stream, in another form."""

    def fault(connection: Connection) -> None:
        encode = encoder()
        # No change is lost: the client may follow as soon as the first bytes are sent.
        service.announce = lambda event: connection.write(encode(event))
        connection.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + encode(b": hello\n\n" + beginning))
        stall(connection)

    return fault


def compressed(window_bits: int | None) -> Encode:
    """Return a function that compresses the parts of a stream, if it is to be compressed."""
    if window_bits is None:
        return bytes
    if window_bits == MEMBERS:
        return gzip.compress
    compressor = zlib.compressobj(wbits=window_bits)
    return lambda part: compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)


GZIP, ZLIB, RAW, MEMBERS = 31, 15, -15, 0


@pytest.mark.parametrize(
    ("headers", "window_bits"),
    [
        (f"{EVENTS}Content-Encoding: gzip\r\n", GZIP),
        (f"{EVENTS}Content-Encoding: X-GZIP\r\n", GZIP),
        (f"{EVENTS}Content-Encoding:  GZip , identity,\r\n", GZIP),
        (f"{EVENTS}Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", GZIP),
        (f"{EVENTS}Content-Encoding: deflate\r\n", ZLIB),
        (f"{EVENTS}Content-Encoding: deflate\r\n", RAW),
        (f"{EVENTS}Content-Encoding: gzip\r\n", MEMBERS),
        ("Content-Type: Text/Event-Stream; charset=utf-8\r\nContent-Encoding: identity\r\n", None),
        (f"{EVENTS}Content-Encoding: none\r\n", None),
    ],
)
def test_p19_compressed_stream(
    kind: Kind, proxy: FaultServer, service: FakeService, setting: Setting[int], headers: str, window_bits: int | None
) -> None:
    """It was not requested, but a change is loaded at once."""
    proxy.inject(event_stream(service, headers, lambda: compressed(window_bits)), "/changes")
    with running(kind, proxy.url, max_backoff=0.05) as client:
        assert eventually(lambda: client.client.status().is_following)
        for value in (8, 9):
            service.add_rule("s", value, user="jim")
            assert eventually(lambda value=value: setting.get(user="jim") == value)  # type: ignore[misc]
        assert client.client.status().change_stream_problem is None


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (
            canned_response(b": hello\n\n" * 10, headers=f"{EVENTS}Content-Encoding: br\r\n"),
            "the service responded with 200, but with the unsupported encoding 'br'",
        ),
        (
            canned_response(compressed(GZIP)(b": hello\n\n"), headers=EVENTS),
            "the service ended it before the first event",
        ),
        (
            canned_response(b": hello\n\n", headers=f"{EVENTS}Content-Encoding: gzip\r\n"),
            "the service responded with 200, but with compressed data that is not valid",
        ),
        (
            canned_response(
                zlib.compress((b"x" * 1000 + b"\n") * 8000, wbits=GZIP), headers=f"{EVENTS}Content-Encoding: gzip\r\n"
            ),
            "the service responded with 200, but with data that is compressed too much",
        ),
    ],
    ids=["br", "without-header", "not-compressed", "bomb"],
)
def test_p19_stream_that_cannot_be_decompressed(
    kind: Kind, proxy: FaultServer, setting: Setting[int], fault: Fault, problem: str
) -> None:
    """The status has the reason, and the client does not count as following changes."""
    proxy.inject(fault, "/changes")
    tracemalloc.start()
    try:
        with running(kind, proxy.url, max_backoff=0.05) as client:
            assert eventually(lambda: problem in str(client.client.status().change_stream_problem))
            assert client.client.status().state is State.FRESH
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (canned_response(b"denied", 403), "the service responded with 403: 'denied' (the credentials are missing"),
        (canned_response(b"", 500), "the service responded with 500"),
        (canned_response(b"<html>"), "200, but with no content type instead of 'text/event-stream': an HTML page"),
        (canned_response(b"<html>", headers="Content-Type: text/html\r\n"), "content type 'text/html' instead of"),
        (redirect_to("http://elsewhere/{path}", 302), "the service responded with 302"),
    ],
    ids=["403", "500", "no-type", "page", "redirect"],
)
def test_p20_stream_that_is_refused(
    kind: Kind,
    proxy: FaultServer,
    service: FakeService,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    problem: str,
) -> None:
    """It is requested again, and logged once when that begins and ends. Refreshes are not concerned."""
    caplog.set_level("INFO", "heksher_client")
    proxy.inject(fault, "/changes")
    with running(kind, proxy.url, max_backoff=0.05) as client:
        assert eventually(lambda: proxy.requests.count("GET /api/v1/changes") > 3)
        status = client.client.status()
        assert (status.state, status.is_following) == (State.FRESH, False)
        assert problem in status.change_stream_problem
        proxy.inject(event_stream(service), "/changes")
        assert eventually(lambda: client.client.status().is_following)
        assert client.client.status().change_stream_problem is None

        def records() -> list[logging.LogRecord]:
            return [record for record in caplog.records if "follow" in record.getMessage()]

        assert eventually(lambda: len(records()) > 1)  # The status is set first.
    refused, following = records()
    assert (refused.levelname, following.levelname) == ("WARNING", "INFO")
    assert problem in refused.getMessage()
    assert setting.get(user="jim") == 7


def held_back(connection: Connection) -> None:
    """Send the head of a stream and no byte of its body, as a proxy that buffers it."""
    connection.write(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode())
    stall(connection)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [(held_back, "no event or comment for 0.05 seconds"), (stall, "no event or comment"), (disconnect, "no response")],
)
def test_p20_stream_that_a_proxy_holds_back_or_drops(
    kind: Kind,
    proxy: FaultServer,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    problem: str,
) -> None:
    """A warning says so once it has failed again after a refresh that succeeded."""
    monkeypatch.setattr("heksher_client._core.refresh.session.STREAM_TIMEOUT", 0.05)
    caplog.set_level("INFO", "heksher_client")
    proxy.inject(fault, "/changes")

    def levels() -> list[str]:
        # On a busy machine, the HTTP client's own timeout may be another problem, which is logged as well.
        messages = [(record.levelname, record.getMessage()) for record in caplog.records]
        return [level for level, text in messages if "cannot be followed" in text and "ConnectTimeout" not in text]

    with running(kind, proxy.url, max_backoff=0.05) as client:
        assert eventually(levels)
        assert levels() == ["INFO"]
        assert eventually(lambda: problem in (client.client.status().change_stream_problem or ""))
        client.reload()
        assert eventually(lambda: "WARNING" in levels())
        requests = proxy.requests.count("GET /api/v1/changes")
        client.reload()
        assert eventually(lambda: proxy.requests.count("GET /api/v1/changes") > requests + 2)
    assert levels() == ["INFO", "WARNING"]
    assert setting.get(user="jim") == 7


def test_p20_refusal_whose_body_never_arrives(kind: Kind, proxy: FaultServer, setting: Setting[int]) -> None:
    """The reason is known without it."""

    def refuse(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        stall(connection)

    proxy.inject(refuse, "/changes")
    with running(kind, proxy.url) as client:
        assert eventually(lambda: "responded with 403" in str(client.client.status().change_stream_problem))
    assert setting.get(user="jim") == 7


@pytest.mark.slow
@pytest.mark.unmeasured
def test_p21_events_about_unknown_settings(
    kind: Kind, proxy: FaultServer, service: FakeService, setting: Setting[int]
) -> None:
    """Many large ones take little memory. A later change is loaded."""
    names = ",".join(f'"{number:x}"' for number in range(110_000))

    def large_events(connection: Connection) -> None:
        connection.write(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode())
        for revision in range(service.revision + 1, service.revision + 11):
            connection.write(f'event: change\ndata: {{"settings":[{names}]}}\nid: {revision}\n\n'.encode())
        connection.write(f'event: change\ndata: {{"settings":["s"]}}\nid: {service.revision + 11}\n\n'.encode())
        stall(connection)

    with running(kind, proxy.url, max_backoff=0.05) as client:
        proxy.inject(canned_response(b"", 500), "/changes")
        assert eventually(lambda: client.client.status().change_stream_problem)
        service.add_rule("s", 8, user="jim")
        tracemalloc.start()
        try:
            proxy.inject(large_events, "/changes")
            assert eventually(lambda: setting.get(user="jim") == 8)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 40 << 20


@pytest.mark.parametrize("beginning", [b"data: ", b"id: ", b"event: ", b": ", b"unknown: ", b""])
def test_p21_line_without_an_end(
    kind: Kind, proxy: FaultServer, service: FakeService, setting: Setting[int], beginning: bytes
) -> None:
    """The stream is ended, and opened again."""

    def endless(connection: Connection) -> None:
        connection.write(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode() + beginning)
        while not connection.server.is_ended:
            connection.write(b"x" * 65_536)

    proxy.inject(endless, "/changes")
    tracemalloc.start()
    try:
        with running(kind, proxy.url, max_backoff=0.05) as client:
            assert eventually(lambda: "more than 1,048,576" in str(client.client.status().change_stream_problem))
            _, peak = tracemalloc.get_traced_memory()
            assert peak < 16 << 20
            proxy.inject(event_stream(service), "/changes")
            assert eventually(lambda: client.client.status().is_following)
    finally:
        tracemalloc.stop()
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_p22_event_with_several_lines(
    kind: Kind, proxy: FaultServer, service: FakeService, setting: Setting[int], line_end: bytes
) -> None:
    """With a byte order mark before it, and with each kind of line end, it is a change like any other."""

    def encode(part: bytes) -> bytes:
        indented = part.replace(b'"settings": ', b'"settings":\ndata: ').replace(b', "all"', b',\ndata: "all"')
        return indented.replace(b"\n", line_end)

    def with_mark(connection: Connection) -> None:
        connection.write(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\n".encode() + b"\xef\xbb\xbf")
        service.announce = lambda event: connection.write(encode(event))
        service.announce(b": hello\n\n")
        stall(connection)

    proxy.inject(with_mark, "/changes")
    with running(kind, proxy.url, max_backoff=0.05) as client:
        assert eventually(lambda: client.client.status().is_following)
        service.add_rule("s", 8, user="jim")
        assert eventually(lambda: setting.get(user="jim") == 8)
