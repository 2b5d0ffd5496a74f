"""What a flow asks of whoever runs it: steps, and what comes of them.

A flow is a generator. It yields a step, is sent what came of it, and returns its result. Whoever runs it sends, waits
and locks; everything else is decided in the flows.
"""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, relative to the service's URL."""

    method: str
    target: str
    """Path and query, encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response, of whatever status."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    to_show: Callable[[bytes], bytes] = bytes
    """Takes out of some of the content what is not to be shown: something may have repeated the request in it."""


@dataclass(frozen=True, slots=True)
class NoResponse:
    """There was no response; a value, so that a flow decides what that means for it."""

    error: Exception
    is_networks: bool = False
    """Whether the error is the network's, and not one of the program's authentication, transport or headers."""
    is_untrusted: bool = False
    """Whether there was no secure connection to the right service."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """There was a response, and more of it than is accepted."""

    status: int
    limit: int
    """Bytes."""


Reply: TypeAlias = Response | NoResponse | Oversized


MAX_CONCURRENT_REQUESTS: Final = 10
"""How many requests of one client the service may get at the same moment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an exchange may take."""

    seconds: float = math.inf
    """For each request, from looking the service up to the last byte of the body. Once one has taken longer, those that
    were not sent yet are not sent any more."""
    total_seconds: float = math.inf
    """For all requests of an exchange together."""
    max_bytes: int = 1 << 62
    """Of the body of a response, inflated."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send requests, at most `MAX_CONCURRENT_REQUESTS` at once; the result is their replies, in the same order."""

    requests: tuple[Request, ...]
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Pause:
    """Let others run, or wait."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ApplyLocked:
    """Call this while holding the modification lock."""

    apply: Callable[[], None]


@dataclass(frozen=True, slots=True)
class RunBlocking:
    """Call this where waiting for a disk keeps nobody from running; the flow is sent its result, or None if that takes
    too long, or if a former call has not come back yet."""

    call: Callable[[], Any]
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class CallUserCode:
    """Call this, which is the program's own, where it may take its time. It is not called if a former one has not come
    back yet."""

    call: Callable[[], Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Send a request, and hand on the body of a success as it comes; the flow is sent how it ended.

    The content of the reply to it is that of a refusal, or nothing.
    """

    request: Request
    take: Callable[[bytes], bool]
    """Tells whether it wants more."""
    seconds: float
    """The longest without a byte."""


Effect: TypeAlias = Exchange | Pause | ApplyLocked | RunBlocking | CallUserCode | OpenStream
Flow: TypeAlias = Generator[Effect, Any, T]


def limited(flow: Flow[T], limits: Callable[[], Limits]) -> Flow[T]:
    """The same flow, with limits for its exchanges and for waiting for a disk, as they are at the time of each.

    An exchange for which there is no time is not begun.
    """
    with closing(flow):
        try:
            step = next(flow)
            while True:
                now = limits()
                if isinstance(step, RunBlocking):
                    step = replace(step, seconds=now.seconds)
                if not isinstance(step, Exchange):
                    step = flow.send((yield step))
                elif now.total_seconds > 0:
                    step = flow.send((yield replace(step, limits=now)))
                else:
                    step = flow.send((timed_out(now),) * len(step.requests))
        except StopIteration as end:
            result: T = end.value
            return result


def timed_out(limits: Limits) -> NoResponse:
    """The reply to a request for which there was not enough time."""
    allowed = limits.seconds if limits.seconds < limits.total_seconds else max(limits.total_seconds, 0.0)
    return NoResponse(TimeoutError(f"not all of an answer within {allowed:.3g} seconds"), is_networks=True)


def exchange(*requests: Request) -> Flow[tuple[Reply, ...]]:
    """Send requests, several at once, and get their replies in the same order."""
    replies: tuple[Reply, ...] = (yield Exchange(requests)) if requests else ()
    return replies


def run_blocking(call: Callable[[], T]) -> Flow[T]:
    """Call something that may wait for a disk.

    Raises:
        TimeoutError: It took too long, or a former call still does.
        Exception: What it raised.
    """

    def attempt() -> tuple[list[T], Exception | None]:
        try:
            return [call()], None
        except Exception as error:  # The flow decides what that means.
            return [], error

    outcome = yield RunBlocking(attempt)
    if outcome is None:
        raise TimeoutError("the disk takes too long")
    results, error = outcome
    if error is not None:
        raise error
    result: T = results[0]
    return result
