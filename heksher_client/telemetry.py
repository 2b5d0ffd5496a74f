"""Metrics and spans for OpenTelemetry. Requires the extra `telemetry`, and an SDK that the program configures.

    with instrumented(client, reads=0.01):
        ...

The attributes `server.address` and `server.port` identify the service, and so distinguish several clients. Clients of
the same service share their metrics.
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
    raise ImportError("metrics and spans require an extra: pip install 'heksher_client[telemetry]'") from error

from heksher_client._core.refresh.status import Refresh, Status
from heksher_client._core.settings.observers import ReadObserver
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import Setting, entry_of
from heksher_client._drivers.observable import Observable, check_observable
from heksher_client._drivers.options import check_option_names
from heksher_client._logging import escaped
from heksher_client._resource import Resource
from heksher_client._version import __version__
from heksher_client.exceptions import HeksherError

__all__ = ["Instrumentation", "TelemetryOptions", "instrument", "instrumented"]

_NAME: Final = "heksher_client"
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Seconds."""


class TelemetryOptions(TypedDict, total=False):
    """The options of `instrument`."""

    meter_provider: MeterProvider | None
    """The provider that receives the metrics; by default the global one."""
    tracer_provider: TracerProvider | None
    """The provider that receives the spans; by default the global one."""
    reads: float
    """The fraction of reads to sample, from 0 to 1, for the counter of reads by setting and reason. With 0, the
    default, reads are not counted, and cost the same as without telemetry. Reads are counted for the main client."""


class _Instruments:
    """The instruments of one meter, shared by all of its clients: an SDK creates one instrument for each name."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.instrumentations: list[Instrumentation] = []
        """The active instrumentations, oldest first."""
        meter = metrics.get_meter(_NAME, __version__, provider)
        self.durations = meter.create_histogram(
            "heksher.refresh.duration", "s", "The duration of refreshes.", explicit_bucket_boundaries_advisory=_BUCKETS
        )
        self.errors = meter.create_counter("heksher.refresh.errors", "{error}", "Errors in refreshes.")
        self.changed = meter.create_counter(
            "heksher.refresh.changed", "{setting}", "Settings whose rules or default changed in a refresh."
        )
        self.reads = meter.create_counter(
            "heksher.reads", "{read}", "Reads by setting and reason, estimated from a sample."
        )
        self._gauge(meter, "heksher.data.age", "s", "The time since the rules were last confirmed.", lambda s: s.age)
        self._gauge(meter, "heksher.rules", "{rule}", "Rules in use.", lambda s: s.rules)
        self._gauge(meter, "heksher.rules.rejected", "{rule}", "Rules that the client rejected.", lambda s: s.rejected)
        self._gauge(meter, "heksher.settings", "{setting}", "Declared settings.", lambda s: len(s.settings))
        description = "1 if the rules are up to date, or were a short time ago."
        self._gauge(meter, "heksher.healthy", "1", description, lambda s: int(s.is_healthy))

    def _gauge(
        self, meter: metrics.Meter, name: str, unit: str, description: str, get: Callable[[Status], float | None]
    ) -> None:
        def observe(options: CallbackOptions) -> Iterator[Observation]:  # noqa: ARG001
            for instrumentation in tuple(self.instrumentations):
                status = instrumentation.client.status()
                state = {"heksher.state": status.state.value} if name == "heksher.healthy" else {}
                if (value := get(status)) is not None:
                    yield Observation(value, {**instrumentation.attributes, **state})

        meter.create_observable_gauge(name, [observe], unit, description)


_instruments: Final[WeakKeyDictionary[MeterProvider, _Instruments]] = WeakKeyDictionary()
_global_instruments: Final[list[_Instruments]] = []
"""The instruments of the global provider, if they exist. They are not in `_instruments`, as that provider is a proxy
until the program has set one: its identity changes."""
_lock: Final = Lock()


def _instruments_of(provider: MeterProvider | None) -> _Instruments:
    with _lock:
        if provider is None:
            if not _global_instruments:
                _global_instruments.append(_Instruments(None))
            return _global_instruments[0]
        if provider not in _instruments:
            _instruments[provider] = _Instruments(provider)
        return _instruments[provider]


class Instrumentation(Resource):
    """The instrumentation of one client, from its construction to `end`."""

    def __init__(
        self,
        client: Observable,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
        reads: float,
    ) -> None:
        """Start measuring. Call `instrument` instead, which checks the arguments.

        Raises:
            ValueError: The client is instrumented already.
        """
        self.client = client
        url = getattr(getattr(client, "_session", None), "service_url", None)
        self.attributes = {} if url is None else _server_attributes(url)
        """The attributes of all metrics and spans: they identify the service."""
        self._instruments = _instruments_of(meter_provider)
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self._weight = 1 / reads if reads else 0.0
        self._observer = ReadObserver(self._record_read, reads, random.random)
        with _lock:
            for instruments in (*_instruments.values(), *_global_instruments):
                if any(active.client is self.client for active in instruments.instrumentations):
                    raise ValueError("the client is instrumented already: call `end` on its instrumentation first")
            # A function: clients hold bound methods weakly, and nobody may hold this object.
            self._callback = self.client.on_refresh(lambda refresh: self._record_refresh(refresh))
            self._instruments.instrumentations.append(self)
        if reads:
            registry.add_observer(self._observer)

    def end(self) -> None:
        """Stop measuring. A second call does nothing."""
        with suppress(ValueError):
            self._instruments.instrumentations.remove(self)
        self.client.off_refresh(self._callback)
        registry.remove_observer(self._observer)

    def _record_refresh(self, refresh: Refresh) -> None:
        error_types = [type(error).__name__ for error in refresh.errors]
        outcome = {"error.type": error_types[0]} if error_types else {}
        self._instruments.durations.record(refresh.seconds, {**self.attributes, **outcome})
        self._instruments.changed.add(len(refresh.changed), self.attributes)
        for error_type in error_types:
            self._instruments.errors.add(1, {**self.attributes, "error.type": error_type})
        start = int(refresh.started_at * 1e9)
        end = start + int(refresh.seconds * 1e9)
        counts = {"heksher.changed": len(refresh.changed), "heksher.errors": len(error_types)}
        # An empty context: the span must not be a child of the span in which the client was started.
        span = self._tracer.start_span(
            "heksher.refresh",
            contexts.Context(),
            SpanKind.CLIENT,
            {**self.attributes, **counts, **outcome},
            start_time=start,
        )
        for error in refresh.errors:
            span.add_event("exception", _exception_attributes(error), end)
        if error_types:
            span.set_status(SpanStatus(StatusCode.ERROR, escaped(str(refresh.errors[0]))))
        span.end(end)

    def _record_read(self, setting: Setting[Any], given: Mapping[str, str]) -> None:
        if registry.main is not getattr(self.client, "_session", self.client):
            return  # Another client is the main one.
        try:
            reason = entry_of(setting).explain(given).reason.name.lower()
        except (HeksherError, TypeError):  # The read itself raises the same error.
            reason = "error"
        attributes = {**self.attributes, "heksher.setting": setting.name, "heksher.reason": reason}
        self._instruments.reads.add(self._weight, attributes)


def _server_attributes(url: str) -> dict[str, str | int]:
    """Return the host and port of a URL as attributes of OpenTelemetry."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def _exception_attributes(error: Exception) -> dict[str, str]:
    """Return the type and message of an error, without a traceback: its causes may contain secrets."""
    cls = type(error)
    return {"exception.type": f"{cls.__module__}.{cls.__qualname__}", "exception.message": escaped(str(error))}


def instrument(client: Observable, **options: Unpack[TelemetryOptions]) -> Instrumentation:
    """Instrument a client until `end` is called.

    Args:
        client: A client or a stub, running or not.
        **options: The options in `TelemetryOptions`.

    Raises:
        TypeError: `client` is not a client, or an option does not exist.
        ValueError: `reads` is not between 0 and 1, or the client is instrumented already.
    """
    check_observable(client)
    check_option_names(options, TelemetryOptions, "instrument")
    reads = options.get("reads", 0.0)
    if isinstance(reads, bool) or not isinstance(reads, int | float) or not 0 <= reads <= 1:
        raise ValueError(f"reads must be a number from 0 to 1, not {reads!r}")
    return Instrumentation(client, options.get("meter_provider"), options.get("tracer_provider"), reads)


@contextmanager
def instrumented(client: Observable, **options: Unpack[TelemetryOptions]) -> Iterator[Instrumentation]:
    """Instrument a client inside a block. The arguments are those of `instrument`."""
    instrumentation = instrument(client, **options)
    try:
        yield instrumentation
    finally:
        instrumentation.end()
