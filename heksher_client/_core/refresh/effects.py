"""The effects that flows yield, and how a flow is driven.

A flow is a generator. It yields an effect, is sent the result, and returns its own result. A driver performs the
effects: it sends, waits, locks, and calls the program's code. Everything else is decided in the flows, so they can be
driven by hand in tests, without threads, sockets or time.
"""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from heksher_client._logging import shown_seconds

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True):
    """An HTTP request, relative to the service's URL."""

    method: str
    target: str
    """Path and query, encoded."""
    headers: Mapping[str, str] = {}
    content: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


class SentRequest(msgspec.Struct, frozen=True):
    """A request as it was sent, without secrets."""

    url: str
    headers: Mapping[str, str]
    """Names in lower case."""


class Response(msgspec.Struct, frozen=True):
    """An HTTP response of any status."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = {}
    """Names in lower case."""
    redact: Callable[[bytes], bytes] = bytes
    """Redacts part of the content: a server may repeat the secrets of the request."""
    problem: str = ""
    """Why the body could not be decoded, as a part of a sentence; the content is empty then."""
    sent: Callable[[], SentRequest] | None = None
    """Describes the request as it was sent, for an error."""


class NoResponse(msgspec.Struct, frozen=True):
    """The lack of a response. A value and not an exception, so that a flow decides what it means."""

    error: Exception
    is_network_error: bool = False
    """True if the network caused the error, and not the program's authentication, transport or headers."""
    is_untrusted: bool = False
    """True if there was no secure connection to the right service."""
    limit: str = ""
    """For a message: the option that limited the time, if that is the reason."""
    is_invalid: bool = False
    """True if there was a response, which the HTTP client could not decode."""
    is_timeout: bool = False
    """True if there was no response in time."""
    sent: Callable[[], SentRequest] | None = None
    """Describes the request, if it was built."""
    remedy: str = ""
    """For a message: what to do about the reason, if that is known."""


class Oversized(msgspec.Struct, frozen=True):
    """A response with more content than is accepted."""

    status: int
    limit: int
    """Bytes."""
    sent: Callable[[], SentRequest] | None = None


class Outdated(msgspec.Struct, frozen=True):
    """A response that is not used, as it is older than what was applied."""

    status: int
    reason: str
    sent: Callable[[], SentRequest] | None = None


Reply: TypeAlias = Response | NoResponse | Oversized | Outdated


MAX_CONCURRENT_REQUESTS: Final = 10
"""Requests of one client that the service receives at the same time."""


class Limits(msgspec.Struct, frozen=True):
    """The limits of an exchange."""

    seconds: float = math.inf
    """For each request, from the lookup of the host to the last byte of the body. After one that took longer, requests
    that are not sent yet are not sent at all."""
    total_seconds: float = math.inf
    """For all requests of an exchange together."""
    max_bytes: int = 1 << 62
    """Of the body of a response, decompressed."""
    total_reason: str = "by the option start_timeout"
    """What limits `total_seconds`, for the error."""

    @property
    def shortest(self) -> tuple[float, str]:
        """The shorter of the two limits of a request, and what limits it, for the error."""
        if self.seconds < self.total_seconds:
            return self.seconds, "by the option request_timeout"
        return max(self.total_seconds, 0.0), self.total_reason


class Exchange(msgspec.Struct, frozen=True):
    """Send requests, at most `MAX_CONCURRENT_REQUESTS` at once; the result is their replies, in the same order."""

    requests: tuple[Request, ...]
    limits: Limits = Limits()


class Pause(msgspec.Struct, frozen=True):
    """Wait, and let others run."""

    seconds: float = 0.0


class ApplyLocked(msgspec.Struct, frozen=True):
    """Call a function while holding the modification lock."""

    apply: Callable[[], None]


class RunBlocking(msgspec.Struct, frozen=True):
    """Call a function where it may wait for a disk. The result is what it returns, or None if that takes too long, or
    if the previous call has not returned yet."""

    call: Callable[[], Any]
    seconds: float = math.inf


class CallUserCode(msgspec.Struct, frozen=True):
    """Call a function of the program where it may take its time. It is not called if the previous one has not returned
    yet."""

    call: Callable[[], Any]
    seconds: float


class OpenStream(msgspec.Struct, frozen=True):
    """Send a request, and pass on the body of a stream of events as it arrives, decoded. The result is the reply that
    says how the stream ended, or another response with the beginning of its body."""

    request: Request
    take: Callable[[bytes], bool]
    """Called with each chunk; returns whether to go on."""
    seconds: float
    """The longest time without a byte."""


Effect: TypeAlias = Exchange | Pause | ApplyLocked | RunBlocking | CallUserCode | OpenStream
Flow: TypeAlias = Generator[Effect, Any, T]


def timed_out(limits: Limits) -> NoResponse:
    """Return the reply to a request that took too long, or was not sent for lack of time."""
    seconds, reason = limits.shortest
    text = "no time was left for a response"
    if seconds > 0:
        text = f"no complete response within {shown_seconds(seconds, 3)}"
    error = TimeoutError(text)
    return NoResponse(error, is_network_error=True, limit=f"limited {reason}", is_timeout=True)


def perform_by(perform: Callable[[Effect], Flow[Any]], flow: Flow[T]) -> Flow[T]:
    """Return the same flow, whose effects are performed by another flow for each of them."""
    with closing(flow):
        try:
            effect = next(flow)
            while True:
                effect = flow.send((yield from perform(effect)))
        except StopIteration as end:
            result: T = end.value
            return result


def limited(flow: Flow[T], limits: Limits, clock: Callable[[], float], until: float = math.inf) -> Flow[T]:
    """Return the same flow, with limits for its exchanges and for waiting for a disk.

    Args:
        flow: The flow.
        limits: The limits of each exchange.
        clock: The clock that `until` is measured by, in seconds.
        until: The end of the time for all exchanges together. An exchange that would begin later is not sent.
    """

    def perform(effect: Effect) -> Flow[Any]:
        if isinstance(effect, RunBlocking):
            effect = replace(effect, seconds=limits.seconds)
        if not isinstance(effect, Exchange):
            return (yield effect)
        left = replace(limits, total_seconds=min(limits.total_seconds, until - clock()))
        if left.total_seconds <= 0:
            return (timed_out(left),) * len(effect.requests)
        return (yield replace(effect, limits=left))

    return perform_by(perform, flow)


def run_blocking(call: Callable[[], T]) -> Flow[T]:
    """Call a function that may wait for a disk.

    Raises:
        TimeoutError: It took too long, or the previous call has not returned yet.
        Exception: The error that it raised.
    """

    def attempt() -> tuple[list[T], Exception | None]:
        try:
            return [call()], None
        except Exception as error:  # The flow decides what it means.
            return [], error

    outcome = yield RunBlocking(attempt)
    if outcome is None:
        raise TimeoutError("the disk takes too long")
    results, error = outcome
    if error is not None:
        raise error
    result: T = results[0]
    return result
