"""Metrics and spans for OpenTelemetry. Needs the extra `telemetry`, and an SDK that the program sets up.

    with instrumented(client, reads=0.01):
        ...

The reference of the documentation has all instruments. Those of several clients are told apart by `server.address` and
`server.port`, where the service is: two clients of one service are one in the metrics.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, Final, TypedDict, Unpack
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
    from opentelemetry.trace import Status as SpanStatus
except ImportError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError("metrics and spans need an extra: pip install 'heksher_client[telemetry]'") from error

from heksher_client._core.refresh.status import Refresh, Status
from heksher_client._core.settings.observers import ReadObserver
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import Setting, entry_of
from heksher_client._drivers.client import Observable, check_observable
from heksher_client._drivers.options import check_names
from heksher_client._logging import escaped
from heksher_client._version import __version__
from heksher_client.exceptions import HeksherError

__all__ = ["Instrumentation", "TelemetryOptions", "instrument", "instrumented"]

_NAME: Final = "heksher_client"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds."""


class TelemetryOptions(TypedDict, total=False):
    """The choices of `instrument`."""

    meter_provider: MeterProvider | None
    """What metrics go to; the global one unless given."""
    tracer_provider: TracerProvider | None
    """What spans go to; the global one unless given."""
    reads: float
    """The share of all reads that is looked at, from 0 to 1, to count reads by setting and reason. With 0, the default,
    reads are not looked at, and cost what they do without telemetry. A read while another client is the main one counts
    for that."""


class _Instruments:
    """The instruments of one meter, which all clients that report to it share: an SDK makes each name once."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.measured: list[Instrumentation] = []
        """Those that report, in the order in which they began."""
        meter = metrics.get_meter(_NAME, __version__, provider)
        self.durations = meter.create_histogram(
            "heksher.refresh.duration", "s", "How long refreshes took.", explicit_bucket_boundaries_advisory=_BUCKETS
        )
        self.errors = meter.create_counter("heksher.refresh.errors", "{error}", "What failed in refreshes.")
        self.changed = meter.create_counter(
            "heksher.refresh.changed", "{setting}", "Settings for which refreshes put something in place."
        )
        self.reads = meter.create_counter(
            "heksher.reads", "{read}", "Reads by setting and reason, estimated from those that were looked at."
        )
        self._gauge(meter, "heksher.data.age", "s", "Since the rules were last confirmed.", lambda s: s.age)
        self._gauge(meter, "heksher.rules", "{rule}", "Rules in use.", lambda s: s.rules)
        self._gauge(meter, "heksher.rules.rejected", "{rule}", "Rules that are not used.", lambda s: s.rejected)
        self._gauge(meter, "heksher.settings", "{setting}", "Declared settings.", lambda s: len(s.settings))
        words = "1 if reads give what the service holds, or held a short while ago."
        self._gauge(meter, "heksher.healthy", "1", words, lambda s: int(s.is_healthy))

    def _gauge(
        self, meter: metrics.Meter, name: str, unit: str, words: str, get: Callable[[Status], float | None]
    ) -> None:
        def observe(options: CallbackOptions) -> Iterator[Observation]:  # noqa: ARG001
            for one in tuple(self.measured):
                status = one.client.status()
                state = {"heksher.state": status.state.value} if name == "heksher.healthy" else {}
                if (value := get(status)) is not None:
                    yield Observation(value, {**one.attributes, **state})

        meter.create_observable_gauge(name, [observe], unit, words)


_instruments: Final[WeakKeyDictionary[MeterProvider, _Instruments]] = WeakKeyDictionary()
_of_global: Final[list[_Instruments]] = []
"""Those of the global provider, which is another object before the program has set one, and stands for it later."""
_lock: Final = Lock()


def _instruments_of(provider: MeterProvider | None) -> _Instruments:
    with _lock:
        if provider is None:
            if not _of_global:
                _of_global.append(_Instruments(None))
            return _of_global[0]
        if provider not in _instruments:
            _instruments[provider] = _Instruments(provider)
        return _instruments[provider]


class Instrumentation:
    """What measures one client, until it is ended."""

    def __init__(
        self,
        client: Observable,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
        reads: float,
    ) -> None:
        """Begin, as `instrument` says."""
        self.client = client
        url = getattr(getattr(client, "_session", None), "service_url", None)
        self.attributes = {} if url is None else _server(url)
        """Of all that is reported, so that the clients of two services can be told apart."""
        self._instruments = _instruments_of(meter_provider)
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self._weight = 1 / reads if reads else 0.0
        self._observation = ReadObserver(self._note_read, reads, random.random)
        self._begin()
        if reads:
            registry.add_observer(self._observation)

    def _begin(self) -> None:
        """Report from now on.

        Raises:
            ValueError: Something reports of the client already.
        """
        with _lock:
            reporting = [one for instruments in (*_instruments.values(), *_of_global) for one in instruments.measured]
            if any(one.client is self.client for one in reporting):
                raise ValueError("the client is measured already, and would be counted twice: end that first")
            # A function, and no method, as clients hold those weakly.
            self._callback = self.client.on_refresh(lambda refresh: self._note_refresh(refresh))
            self._instruments.measured.append(self)  # which keeps it, also if nobody else does

    def end(self) -> None:
        """Measure no more. The instruments themselves belong to the SDK."""
        with suppress(ValueError):
            self._instruments.measured.remove(self)
        self.client.off_refresh(self._callback)
        registry.remove_observer(self._observation)

    def _note_refresh(self, refresh: Refresh) -> None:
        kinds = [type(error).__name__ for error in refresh.errors]
        outcome = {"error.type": kinds[0]} if kinds else {}
        self._instruments.durations.record(refresh.seconds, {**self.attributes, **outcome})
        self._instruments.changed.add(len(refresh.changed), self.attributes)
        for kind in kinds:
            self._instruments.errors.add(1, {**self.attributes, "error.type": kind})
        began = int(refresh.started_at * 1e9)
        ended = began + int(refresh.seconds * 1e9)
        counts = {"heksher.changed": len(refresh.changed), "heksher.errors": len(kinds)}
        # No child of whatever the client's thread or task was started in.
        span = self._tracer.start_span(
            "heksher.refresh",
            contexts.Context(),
            SpanKind.CLIENT,
            {**self.attributes, **counts, **outcome},
            start_time=began,
        )
        for error in refresh.errors:
            span.add_event("exception", _told(error), ended)
        if kinds:
            span.set_status(SpanStatus(StatusCode.ERROR, escaped(str(refresh.errors[0]))))
        span.end(ended)

    def _note_read(self, setting: Setting[Any], given: Mapping[str, str]) -> None:
        if registry.main is not getattr(self.client, "_session", self.client):
            return  # It is another client's.
        try:
            reason = entry_of(setting).explain(given).reason.name.lower()
        except (HeksherError, TypeError):  # which the read itself is about to raise
            reason = "error"
        attributes = {**self.attributes, "heksher.setting": setting.name, "heksher.reason": reason}
        self._instruments.reads.add(self._weight, attributes)


def _server(url: str) -> dict[str, str | int]:
    """Where a service is, by OpenTelemetry's names."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def _told(error: Exception) -> dict[str, str]:
    """What a span has of an error: what the log has, and no trace of its causes, which may quote what is secret."""
    kind = type(error)
    return {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.message": escaped(str(error))}


def instrument(client: Observable, **options: Unpack[TelemetryOptions]) -> Instrumentation:
    """Measure a client, and its refreshes, from now on until `end` is called.

    Args:
        client: Started or not; a stub will do.
        **options: What `TelemetryOptions` has.

    Raises:
        TypeError: It is no client, or there is no such option.
        ValueError: The share of reads is none, or the client is measured already.
    """
    check_observable(client)
    check_names(options, TelemetryOptions, "instrument")
    reads = options.get("reads", 0.0)
    if isinstance(reads, bool) or not isinstance(reads, int | float) or not 0 <= reads <= 1:
        raise ValueError(f"reads must be a share from 0 to 1, not {reads!r}")
    return Instrumentation(client, options.get("meter_provider"), options.get("tracer_provider"), reads)


@contextmanager
def instrumented(client: Observable, **options: Unpack[TelemetryOptions]) -> Iterator[Instrumentation]:
    """Measure a client inside a block. Arguments are those of `instrument`."""
    instrumentation = instrument(client, **options)
    try:
        yield instrumentation
    finally:
        instrumentation.end()
