"""The flow of one HTTP exchange, driven by hand: without a network, threads or an event loop."""

import asyncio
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import httpx
import pytest

from heksher_client import CredentialError, UnexpectedResponseError
from heksher_client._auth.token_refresh import AwaitToken, Credential, Token
from heksher_client._core.refresh.effects import Limits, NoResponse, OpenStream, Oversized, Reply, Request, Response
from heksher_client._core.refresh.responses import json_object, parse_response
from heksher_client._drivers.flow_runner import run
from heksher_client._http.endpoint import Endpoint
from heksher_client._http.exchange import AwaitTurn, Close, HttpFlow, Read, Send, open_stream, send_request
from heksher_client._http.rate_limit import RateLimit
from heksher_client.credentials import StaticToken

SIMPLE = ["AwaitTurn", "Send", "Read"]
"""The driver closes the response when the exchange ends."""
"""The effects of an exchange in which nothing special happens."""


class ManualCredential(Credential):
    """A credential whose refreshes end when a test says so."""

    def __init__(self, token: Token | None = None) -> None:
        self.refreshes: list[Future[Token]] = []
        super().__init__(token)

    def _run_refresh(self, refresh: "Future[Token]") -> None:
        self.refreshes.append(refresh)

    def end_refresh(self, outcome: Token | Exception) -> None:
        def fetch() -> Token:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self._complete_refresh(self.refreshes[-1], fetch)


class Stream(httpx.SyncByteStream):
    """A body that has not been read."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def response(status: int = 200, *chunks: bytes | Exception, location: str = "", **headers: str) -> httpx.Response:
    """A response of which only the head has been read, with the request of a redirect as httpx makes it."""
    made = httpx.Response(status, headers=headers, stream=Stream(*chunks))
    if location:
        made.next_request = httpx.Request("GET", location)
    return made


class Driver:
    """Performs the effects of exchanges with an endpoint, and records them."""

    def __init__(self, auth: Any = None, *, limit: int | None = None, http_client_class: Any = httpx.Client) -> None:
        self.endpoint = Endpoint({"service_url": "http://host", "auth": auth}, http_client_class)
        self.now = 0.0
        self.rate_limit = None if limit is None else RateLimit(limit, 10.0, lambda: self.now)
        self.effects: list[Any] = []
        self.on_await_token: Callable[[], object] = lambda: None
        self.on_await_turn: Callable[[], object] = lambda: None
        self.open_responses: set[httpx.Response] = set()

    @property
    def names(self) -> list[str]:
        return [type(effect).__name__ for effect in self.effects]

    @property
    def sent(self) -> list[httpx.Request]:
        return [effect.request for effect in self.effects if isinstance(effect, Send)]

    def send(self, *answers: httpx.Response | Exception, max_bytes: int = 1000) -> Reply:
        """Send a request, which gets these answers one after the other."""
        limits = Limits(seconds=30, max_bytes=max_bytes)
        return self.drive(send_request(self.endpoint, self.rate_limit, Request("GET", "/path"), limits), *answers)

    def drive(self, flow: HttpFlow[Reply], *answers: httpx.Response | Exception) -> Reply:
        self.effects.clear()
        remaining = iter(answers)

        def perform(effect: Any) -> Any:
            self.effects.append(effect)
            return self.perform(effect, remaining)

        reply = run(flow, dict.fromkeys([AwaitToken, AwaitTurn, Send, Read, Close], perform))
        self.open_responses.clear()
        assert next(remaining, None) is None
        return reply

    def perform(self, effect: Any, answers: Iterator[httpx.Response | Exception]) -> Any:  # noqa: C901 - one case an effect
        match effect:
            case AwaitToken():
                assert not self.open_responses
                self.on_await_token()
            case AwaitTurn():
                assert not self.open_responses
                self.on_await_turn()
                self.now += effect.seconds
            case Send():
                answer = next(answers)
                if isinstance(answer, Exception):
                    raise answer
                answer.request = effect.request
                self.open_responses.add(answer)
                return answer
            case Read():
                for chunk in effect.response.iter_raw():
                    if not effect.feed(chunk):
                        break
            case Close():
                self.open_responses.clear()
        return None


# -- requests and bodies -----------------------------------------------------------------------------------------------


def test_a_request_takes_its_turn_and_is_sent_and_its_response_is_read() -> None:
    """The time limit of the exchange starts after its turn."""
    driver = Driver()
    reply = driver.send(response(200, b"on", b"e", ETag="x"))
    assert isinstance(reply, Response)
    assert (reply.status, reply.content, reply.headers["etag"]) == (200, b"one", "x")
    assert driver.names == SIMPLE
    assert driver.effects[0].restarts_timeout


def test_a_body_that_was_read_by_user_code_is_not_read_again() -> None:
    """A transport or an event hook may have read it."""
    driver = Driver()
    reply = driver.send(httpx.Response(200, content=b"one"))
    assert isinstance(reply, Response)
    assert reply.content == b"one"
    assert driver.names == ["AwaitTurn", "Send"]


def test_an_oversized_body_is_not_read_to_its_end() -> None:
    """Its limit holds for the decompressed body."""
    driver = Driver()
    body = gzip.compress(bytes(100_000))
    reply = driver.send(response(200, body, AssertionError("read"), **{"Content-Encoding": "gzip"}), max_bytes=99_999)
    assert isinstance(reply, Oversized)
    assert (reply.status, reply.limit) == (200, 99_999)
    reply = driver.send(response(200, body, **{"Content-Encoding": "gzip"}), max_bytes=100_000)
    assert isinstance(reply, Response)
    assert reply.content == bytes(100_000)


@pytest.mark.parametrize(
    ("encoding", "body", "problem"),
    [
        ("gzip", gzip.compress(b"{}" * 50)[:-12], "with compressed data that ends too early"),
        ("gzip", gzip.compress(b"{}")[:5], "with compressed data that ends too early"),
        ("gzip", gzip.compress(b"{}") + b"\x1f\x8b", "with compressed data that ends too early"),
        ("gzip", gzip.compress(b"{}") + b"\x1f\x8bxxx", "with compressed data that is not valid"),
        ("gzip", b"not compressed", "with compressed data that is not valid"),
        ("deflate", b"not compressed", "with compressed data that is not valid"),
        ("gzip, deflate", zlib.compress(b"not compressed"), "with compressed data that is not valid"),
        ("gzip, deflate", zlib.compress(gzip.compress(b"{}")[:-12]), "with compressed data that ends too early"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"") * 500_000), "with data that is compressed too much"),
        ("br", b"{}", "with the unsupported encoding 'br'"),
        ("gzip, Br,identity, zstd", b"{}", "with the unsupported encoding 'br, zstd'"),
        ("gzip,gzip,gzip,gzip", b"{}", "with the unsupported encoding 'gzip,gzip,gzip,gzip'"),
        ("gzip," * 50, b"{}", f"with the unsupported encoding '{'gzip,' * 19}gzip…'"),
    ],
    ids=range(13),  # The bodies have the time of their compression, and all workers must find the same tests.
)
@pytest.mark.parametrize("status", [200, 503])
def test_p19_a_body_that_cannot_be_decoded_is_an_invalid_response(
    status: int, encoding: str, body: bytes, problem: str
) -> None:
    """The response has its status and headers, which are enough for the meaning of an error, and no content."""
    reply = Driver().send(response(status, body, **{"Content-Encoding": encoding, "Retry-After": "7"}))
    assert isinstance(reply, Response)
    assert (reply.status, reply.content, reply.problem) == (status, b"", problem)
    request = Request("GET", "/path")
    with pytest.raises(UnexpectedResponseError) as raised:
        json_object(request, reply)
    assert str(raised.value) == f"GET /path: the service responded with {status}, but {problem}"
    assert raised.value.retry_after == 7


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("", bytes),
        ("identity", bytes),
        (" Identity ,, identity", bytes),
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        (" X-GZip ", gzip.compress),
        ("gzip, identity", gzip.compress),
        ("identity,gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("DEFLATE,", zlib.compress),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("gzip, identity, x-gzip, deflate", lambda body: zlib.compress(gzip.compress(gzip.compress(body)))),
        ("none", bytes),
        ("utf-8", bytes),
        ("binary", bytes),
        ("aws-chunked", bytes),
        ("gzip, aws-chunked", gzip.compress),
    ],
)
def test_p19_encodings_of_a_body(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """They are decoded from the last one, whatever their case, and however the header is written."""
    body = bytes(range(256)) * 2000
    for chunks in ([encode(body)], [encode(body)[i : i + 1000] for i in range(0, len(encode(body)), 1000)]):
        reply = Driver().send(response(200, *chunks, **{"Content-Encoding": encoding}), max_bytes=len(body))
        assert isinstance(reply, Response)
        assert (reply.content, reply.problem) == (body, "")
    reply = Driver().send(response(200, encode(body), **{"Content-Encoding": encoding}), max_bytes=1000)
    assert isinstance(reply, Oversized)
    assert (reply.status, reply.limit) == (200, 1000)
    for empty in (b"", encode(b"")):
        reply = Driver().send(response(200, empty, **{"Content-Encoding": encoding}))
        assert isinstance(reply, Response)
        assert (reply.content, reply.problem) == (b"", "")


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("encoding", "compress", "after"),
    [
        ("gzip", gzip.compress, bytes(1000)),
        ("gzip", gzip.compress, b"\r\n"),
        ("gzip", gzip.compress, b"\x1f"),
        ("gzip", gzip.compress, b"\x1fx"),
        ("gzip", gzip.compress, b"x" + gzip.compress(b"no")),
        ("deflate", zlib.compress, bytes(1000)),
        ("deflate", zlib.compress, b"\x78"),
        ("deflate", zlib.compress, b"\x78\x02" + zlib.compress(b"no")),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body) + b"x"), b"x"),
    ],
    ids=range(9),  # as above
)
def test_p19_bytes_that_follow_compressed_data_are_ignored(
    encoding: str, compress: Callable[[bytes], bytes], after: bytes, size: int
) -> None:
    """As HTTP clients and the program gzip do it. They are no way around the limit of a body."""
    body = bytes(range(256)) * 20
    encoded = compress(body) + after
    chunks = [encoded[i : i + size] for i in range(0, len(encoded), size)]
    reply = Driver().send(
        response(200, *chunks, **{"Content-Encoding": encoding}), max_bytes=len(body) + len(after) + 1
    )
    assert isinstance(reply, Response)
    assert (reply.content, reply.problem) == (body, "")
    reply = Driver().send(response(200, *chunks, **{"Content-Encoding": encoding}), max_bytes=len(body))
    assert isinstance(reply, Oversized)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_p19_members_of_compressed_data_may_have_zeros_in_between(size: int) -> None:
    """Each member may arrive in parts."""
    encoded = bytes(7).join(gzip.compress(part) for part in (b"one", b"", b"two"))
    chunks = [encoded[i : i + size] for i in range(0, len(encoded), size)]
    reply = Driver().send(response(200, *chunks, **{"Content-Encoding": "gzip"}))
    assert isinstance(reply, Response)
    assert (reply.content, reply.problem) == (b"onetwo", "")


def test_a_body_that_cannot_be_read_is_an_error_of_the_network() -> None:
    """There is no response then; the runner of the flow closes it."""
    reply = Driver().send(response(200, b"{", httpx.ReadError("reset")))
    assert isinstance(reply, NoResponse)
    assert "reset" in str(reply.error)
    assert reply.is_network_error


def test_p19_a_body_that_a_transport_cannot_decode_is_an_invalid_response() -> None:
    """The HTTP client decodes a body that a transport or an event hook reads. Its status is unknown."""
    reply = Driver().send(httpx.DecodingError("Error -3 while decompressing data"))
    with pytest.raises(UnexpectedResponseError) as raised:
        parse_response(Request("GET", "/path"), reply)
    expected = "GET /path: the response cannot be decoded (DecodingError: Error -3 while decompressing data)"
    assert (str(raised.value), raised.value.status) == (expected, 0)


def test_an_error_of_user_code_is_an_error_of_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared HTTP client that builds a request, or in a transport that sends it."""
    error = ArithmeticError("no")
    driver = Driver()
    reply = driver.send(error)
    assert isinstance(reply, NoResponse)
    assert (reply.error, reply.is_network_error, reply.is_timeout) == (error, False, False)

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(driver.endpoint.client, "build_request", fail)
    assert driver.send() == NoResponse(error)
    assert driver.names == []


def test_each_reply_describes_the_request_that_was_sent_last() -> None:
    """With a token that is not shown, and where a redirect led to."""
    driver = Driver(StaticToken("s3cr3t"))
    answers: list[list[httpx.Response | Exception]] = [
        [response(200)], [response(200, bytes(2000))], [httpx.ReadTimeout("late")],
        [response(307, location="http://jim:s3cr3t@host/path?s=1#s3cr3t"), httpx.ReadError("reset")],
    ]  # fmt: skip
    for one in answers:
        reply = driver.send(*one)
        assert reply.sent is not None
        sent = reply.sent()
        assert sent.headers["authorization"] == "***"
        assert sent.url == ("http://host/path?s=1" if len(one) > 1 else "http://host/path")
    credential = Driver(ManualCredential(Token("one", 0.0)))
    credential.on_await_token = partial(credential.endpoint.auth.end_refresh, CredentialError("no"))
    reply = credential.send()
    assert reply.sent is not None
    assert "authorization" not in reply.sent().headers


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_a_valid_token_is_sent_without_waiting() -> None:
    """It is in the header of the request, and httpx does not authenticate again."""
    driver = Driver(StaticToken("one"))
    driver.send(response())
    assert driver.names == SIMPLE
    assert driver.sent[0].headers["Authorization"] == "Bearer one"


def test_a_request_waits_for_a_token_before_it_takes_its_turn() -> None:
    """Without a token it does not count for the rate limit, and requests that waited for one are sent in turn."""
    credential = ManualCredential()
    driver = Driver(credential, limit=1)
    driver.on_await_token = partial(credential.end_refresh, Token("one"))
    driver.send(response())
    assert driver.names == ["AwaitToken", *SIMPLE]
    assert driver.sent[0].headers["Authorization"] == "Bearer one"


def test_a_token_that_expires_during_the_wait_for_a_turn_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request keeps its turn while it waits for another token."""
    driver = Driver(credential := ManualCredential(), limit=1)
    monkeypatch.setattr("heksher_client._auth.token_refresh.time.time", lambda: driver.now)
    tokens = iter([Token("one", 5.0), Token("two", 15.0)])
    driver.on_await_token = lambda: credential.end_refresh(next(tokens))
    driver.send(response())
    driver.send(response())
    assert driver.names == ["AwaitTurn", "AwaitTurn", "AwaitToken", "Send", "Read"]
    assert driver.sent[0].headers["Authorization"] == "Bearer two"
    assert driver.rate_limit is not None
    assert driver.rate_limit.take() == 20


def test_a_turn_is_given_back_if_there_is_no_token_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the refresh fails after the wait, and if the exchange is closed during the refresh."""
    driver = Driver(credential := ManualCredential(Token("one", 5.0)), limit=1)
    monkeypatch.setattr("heksher_client._auth.token_refresh.time.time", lambda: driver.now)
    driver.on_await_token = lambda: credential.end_refresh(CredentialError("none"))
    driver.on_await_turn = lambda: setattr(driver, "now", 5.0)
    reply = driver.send()
    assert isinstance(reply, NoResponse)
    assert driver.names == ["AwaitTurn", "AwaitToken"]
    assert driver.rate_limit is not None
    driver.now = 0.0
    assert driver.rate_limit.take() == 0
    driver.rate_limit.give_back(0)
    flow = send_request(driver.endpoint, driver.rate_limit, Request("GET", "/"), Limits(30))
    assert isinstance(next(flow), AwaitTurn)
    driver.now = 5.0
    assert isinstance(flow.send(None), AwaitToken)
    flow.close()
    driver.now = 0.0
    assert driver.rate_limit.take() == 0


@pytest.mark.parametrize(
    ("former", "latter", "header"),
    [
        (StaticToken("one"), StaticToken("two"), "Bearer two"),
        (("jim", "x"), StaticToken("two"), "Bearer two"),
        (StaticToken("one"), ("jim", "x"), None),
    ],
)
def test_a_credential_that_is_replaced_during_the_wait_for_a_turn_is_not_sent(
    former: Any, latter: Any, header: str | None
) -> None:
    """The request is sent with the new credential, of whichever kind."""
    driver = Driver(former, limit=1)
    driver.on_await_turn = lambda: driver.endpoint.use_auth(latter)
    driver.send(response())
    (sent,) = [effect for effect in driver.effects if isinstance(effect, Send)]
    assert sent.request.headers.get("Authorization") == header
    assert sent.arguments["auth"] == (None if header else latter)


def test_a_redirect_is_followed_with_the_credential_of_its_own_turn() -> None:
    """It is another request, which may wait for its turn as long as the first."""
    driver = Driver(StaticToken("one"), limit=1)
    credentials = iter([StaticToken("two"), StaticToken("three"), StaticToken("four")])
    driver.on_await_turn = lambda: driver.endpoint.use_auth(next(credentials))
    driver.send(response(307, location="http://host/other"), response())
    assert driver.names == [*SIMPLE, "Close", "AwaitTurn", *SIMPLE]
    assert [sent.headers["Authorization"] for sent in driver.sent] == ["Bearer two", "Bearer four"]


@pytest.mark.parametrize("outcome", [CredentialError("none"), None])
def test_without_a_token_no_request_is_sent(outcome: Exception | None) -> None:
    """If the refresh fails, and if it does not end in time."""
    credential = ManualCredential()
    driver = Driver(credential, limit=1)
    if outcome is not None:
        driver.on_await_token = partial(credential.end_refresh, outcome)
    reply = driver.send()
    assert isinstance(reply, NoResponse)
    assert isinstance(reply.error, CredentialError)
    assert driver.names == ["AwaitToken"]
    assert driver.rate_limit is not None
    assert driver.rate_limit.take() == 0


def test_a_refused_token_is_refreshed_and_the_request_sent_again() -> None:
    """The response is closed before the exchange waits for the new token, and the second request takes a turn."""
    credential = ManualCredential(Token("one"))
    driver = Driver(credential, limit=2)
    driver.on_await_token = partial(credential.end_refresh, Token("two"))
    reply = driver.send(response(401), response(200, b"{}"))
    assert isinstance(reply, Response)
    assert reply.status == 200
    assert driver.names == ["AwaitTurn", "Send", "Close", "AwaitToken", *SIMPLE]
    assert driver.sent[1].headers["Authorization"] == "Bearer two"
    assert [effect.restarts_timeout for effect in driver.effects if isinstance(effect, AwaitTurn)] == [True, False]
    assert driver.rate_limit is not None
    assert driver.rate_limit.take() == 10


def test_a_new_token_that_is_refused_as_well_is_the_result() -> None:
    """The next request is not retried: if all tokens are refused, not each request may cost one."""
    credential = ManualCredential(Token("one"))
    driver = Driver(credential)
    driver.on_await_token = partial(credential.end_refresh, Token("two"))
    for answers in ([response(401), response(401)], [response(401)]):
        reply = driver.send(*answers)
        assert isinstance(reply, Response)
        assert reply.status == 401
    assert len(credential.refreshes) == 1


def test_a_token_that_cannot_be_refreshed_is_not_retried() -> None:
    """A static token is the only one."""
    driver = Driver(StaticToken("one"))
    reply = driver.send(response(401))
    assert isinstance(reply, Response)
    assert reply.status == 401
    assert driver.names == SIMPLE


def test_other_authentication_is_left_to_the_http_client() -> None:
    """A pair of user name and password, or none."""
    for auth in (("jim", "x"), None):
        driver = Driver(auth)
        driver.send(response(401))
        expected = {} if auth is None else {"auth": auth}
        (arguments,) = [effect.arguments for effect in driver.effects if isinstance(effect, Send)]
        assert arguments == {"stream": True, "follow_redirects": False, **expected}


def test_each_step_of_a_request_has_the_shortest_limit() -> None:
    """So a thread does not wait for much longer than its caller. The error names the limit."""
    driver = Driver()
    for limits, seconds, reason in (
        (Limits(30, total_seconds=2, total_reason="by the argument timeout"), 2, "by the argument timeout"),
        (Limits(3, total_seconds=60), 3, "by the option request_timeout"),
    ):
        flow = send_request(driver.endpoint, None, Request("GET", "/path"), limits)
        reply = driver.drive(flow, httpx.ReadTimeout("late"))
        assert isinstance(reply, NoResponse)
        assert (reply.is_timeout, reply.limit) == (True, f"limited to {seconds} seconds {reason}")
        assert driver.sent[0].extensions["timeout"] == dict.fromkeys(["connect", "read", "write", "pool"], seconds)


# -- connections -------------------------------------------------------------------------------------------------------


class Dropped:
    """A driver whose first connections fail, at a stage that httpx reports to the request."""

    def __init__(self, driver: Driver, *events: str) -> None:
        self.driver, self.events = driver, events

    def send(self, *answers: httpx.Response | Exception) -> Reply:
        perform = self.driver.perform

        def report(effect: Any, remaining: Iterator[httpx.Response | Exception]) -> Any:
            if isinstance(effect, Send):
                for event in self.events:
                    reported = effect.request.extensions["trace"](event, {})
                    if self.driver.endpoint.is_async:
                        asyncio.run(reported)
            return perform(effect, remaining)

        vars(self.driver)["perform"] = report
        return self.driver.send(*answers)


SENDING = "http11.send_request_headers.started"


@pytest.mark.parametrize("error", [httpx.ReadError(""), httpx.WriteError(""), httpx.RemoteProtocolError("")])
@pytest.mark.parametrize("http_client_class", [httpx.Client, httpx.AsyncClient])
def test_a_request_on_a_connection_that_was_closed_while_idle_is_sent_again(
    error: Exception, http_client_class: Any
) -> None:
    """Once. It takes a turn in the rate limit."""
    driver = Driver(http_client_class=http_client_class)
    reply = Dropped(driver, SENDING).send(error, response())
    assert isinstance(reply, Response)
    assert driver.names == ["AwaitTurn", "Send", *SIMPLE]
    driver = Driver(http_client_class=http_client_class)
    assert isinstance(Dropped(driver, SENDING).send(error, error), NoResponse)


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (["connection.connect_tcp.started", SENDING], httpx.ReadError("")),
        ([], httpx.ReadError("")),
        ([SENDING], httpx.ReadTimeout("")),
    ],
)
def test_any_other_failure_is_not_sent_again(events: list[str], error: Exception) -> None:
    """A new connection that fails, one that was never used, or a server that does not respond."""
    driver = Driver()
    assert isinstance(Dropped(driver, *events).send(error), NoResponse)
    assert driver.names == ["AwaitTurn", "Send"]


def test_a_request_that_is_to_reach_another_replica_looks_the_host_up() -> None:
    """Replicas may have addresses of their own. Other requests use the known one."""
    driver = Driver()
    driver.endpoint.hosts._known["host", 80] = "10.0.0.1", math.inf
    for headers, address in (({}, "10.0.0.1"), ({"Connection": "close"}, "host")):
        request = Request("GET", "/path", headers)
        driver.drive(send_request(driver.endpoint, None, request, Limits(30)), response())
        assert driver.endpoint.hosts.address("host", 80) == address


# -- redirects ---------------------------------------------------------------------------------------------------------


def test_a_redirect_within_the_origin_is_followed() -> None:
    """The response is closed before the second request takes its turn, and cookies are kept."""
    driver = Driver()
    driver.endpoint._cookies = {"session": "s"}
    reply = driver.send(response(307, b"moved", location="http://host/other"), response(200, b"{}"))
    assert isinstance(reply, Response)
    assert (reply.status, reply.content) == (200, b"{}")
    assert driver.names == [*SIMPLE, "Close", *SIMPLE]
    assert driver.sent[1].url == "http://host/other"
    assert driver.sent[1].headers["Cookie"] == "session=s"


@pytest.mark.parametrize("location", ["http://other/path", "https://host/path", "http://host:81/path"])
def test_a_redirect_to_another_origin_is_the_result(location: str) -> None:
    """It would get the program's credentials."""
    driver = Driver()
    reply = driver.send(response(307, location=location))
    assert isinstance(reply, Response)
    assert reply.status == 307


def test_a_redirect_that_changes_the_method_is_the_result() -> None:
    """A declaration would be lost."""
    driver = Driver()
    flow = send_request(driver.endpoint, driver.rate_limit, Request("POST", "/path", content=b"{}"), Limits(30))
    reply = driver.drive(flow, response(302, location="http://host/other"))
    assert isinstance(reply, Response)
    assert reply.status == 302


def test_three_redirects_are_followed() -> None:
    """The next one is the result."""
    driver = Driver()
    reply = driver.send(*[response(307, location="http://host/again") for _ in range(4)])
    assert isinstance(reply, Response)
    assert reply.status == 307
    assert driver.names == [*[*SIMPLE, "Close"] * 3, *SIMPLE]


# -- the rate limit ----------------------------------------------------------------------------------------------------


def test_a_request_waits_until_the_rate_limit_allows_it() -> None:
    """It asks again after the wait, as clocks differ."""
    driver = Driver(limit=1)
    driver.send(response())
    driver.send(response())
    assert driver.names == ["AwaitTurn", *SIMPLE]
    assert [effect.seconds for effect in driver.effects if isinstance(effect, AwaitTurn)] == [10, 0]


def test_an_exchange_that_ends_while_it_waits_leaves_its_place() -> None:
    """If its task is cancelled, which closes the flow, and if no thread waits for it any more."""
    driver = Driver(limit=1)
    driver.send(response())
    flow = send_request(driver.endpoint, driver.rate_limit, Request("GET", "/"), Limits(30))
    assert isinstance(next(flow), AwaitTurn)
    flow.close()

    def end() -> None:
        raise TimeoutError

    driver.on_await_turn = end
    assert isinstance(driver.send(), NoResponse)
    assert driver.rate_limit is not None
    assert driver.rate_limit.take() == 10


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_is_passed_on_as_it_arrives_until_no_more_is_wanted() -> None:
    """Its time limit is not restarted: it has none."""
    taken: list[bytes] = []

    def take(chunk: bytes) -> bool:
        taken.append(chunk)
        return len(taken) < 2

    driver = Driver()
    flow = open_stream(driver.endpoint, driver.rate_limit, OpenStream(Request("GET", "/stream"), take, 45))
    events = response(200, b"one", b"two", AssertionError("read"), **{"Content-Type": "text/event-stream"})
    reply = driver.drive(flow, events)
    assert isinstance(reply, Response)
    assert (reply.status, reply.content, taken) == (200, b"", [b"one", b"two"])
    assert driver.names == SIMPLE
    assert not driver.effects[0].restarts_timeout
    assert driver.sent[0].extensions["timeout"]["read"] == 45


@pytest.mark.parametrize(
    "refusal",
    [
        response(404, b"no", AssertionError("read"), **{"Content-Length": "5"}),
        response(200, b"no", **{"Content-Type": "text/html", "Transfer-Encoding": "chunked"}),
        response(500, gzip.compress(b"no"), **{"Content-Encoding": "gzip", "Content-Length": "22"}),
    ],
)
def test_p20_the_beginning_of_another_response_than_a_stream_is_read(refusal: httpx.Response) -> None:
    """It tells why."""
    driver = Driver()
    stream = OpenStream(Request("GET", "/stream"), lambda chunk: True, 45)
    reply = driver.drive(open_stream(driver.endpoint, driver.rate_limit, stream), refusal)
    assert isinstance(reply, Response)
    assert reply.content == b"no"


@pytest.mark.parametrize(
    "refusal",
    [
        response(403, AssertionError("read")),
        response(403, AssertionError("read"), **{"Content-Length": "0"}),
        response(403, AssertionError("read"), **{"Content-Encoding": "br", "Content-Length": "5"}),
        response(200, AssertionError("read"), **{"Content-Type": "text/event-stream", "Content-Encoding": "zstd"}),
    ],
)
def test_p20_a_body_that_may_never_arrive_is_not_read(refusal: httpx.Response) -> None:
    """Nor is one that cannot be decompressed: the reason is known without it."""
    driver = Driver()
    stream = OpenStream(Request("GET", "/stream"), lambda chunk: True, 45)
    reply = driver.drive(open_stream(driver.endpoint, driver.rate_limit, stream), refusal)
    assert isinstance(reply, Response)
    assert (reply.status, reply.content) == (refusal.status_code, b"")


@pytest.mark.parametrize("size", [1, 10, 1_000_000])
@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_p19_compressed_data_of_several_members(size: int, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """In any chunks, and however large their content is. A proxy may compress each part of a stream by itself."""
    parts = [b"a" * (1 << 18), b"b", b"", b"c" * (1 << 19)]
    body = b"".join(map(compress, parts))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    reply = Driver().send(response(200, *chunks, **{"Content-Encoding": encoding}), max_bytes=1 << 20)
    assert isinstance(reply, Response)
    assert reply.content == b"".join(parts)


@pytest.mark.parametrize("compress", [gzip.compress, lambda body: gzip.compress(gzip.compress(body) + b"x")])
def test_p19_bytes_after_the_end_of_a_compressed_stream_do_not_hide_its_silence(
    compress: Callable[[bytes], bytes],
) -> None:
    """They are ignored, but it is told with each of them that time has passed."""
    taken: list[bytes] = []

    def take(chunk: bytes) -> bool:
        taken.append(chunk)
        return len(taken) < 4

    driver = Driver()
    encoding = "gzip" if compress is gzip.compress else "gzip, gzip"
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": encoding}
    stream = response(200, compress(b": x\n"), *[b"\0"] * 5, AssertionError("read"), **headers)
    flow = open_stream(driver.endpoint, driver.rate_limit, OpenStream(Request("GET", "/stream"), take, 45))
    reply = driver.drive(flow, stream)
    assert isinstance(reply, Response)
    assert b"".join(taken) == b": x\n"
    assert len(taken) == 4


def test_a_stream_without_a_byte_says_so() -> None:
    """The error of the HTTP client names neither the reason nor the time."""
    driver = Driver()
    stream = OpenStream(Request("GET", "/stream"), lambda chunk: True, 45)
    events = response(200, httpx.ReadTimeout("timed out"), **{"Content-Type": "text/event-stream"})
    reply = driver.drive(open_stream(driver.endpoint, driver.rate_limit, stream), events)
    assert isinstance(reply, NoResponse)
    assert str(reply.error) == "no event or comment for 45 seconds"
    assert (reply.is_network_error, reply.is_timeout) == (True, True)
