"""Metrics and spans, as the OpenTelemetry SDK receives them, of both clients with a real service."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY, generate_latest

from heksher_client import MissingContextError, Setting, ThreadHeksherClient
from heksher_client._core.settings.observers import read_observers
from heksher_client.telemetry import _instruments, instrument, instrumented
from heksher_client.testing import Rule, SyncStubHeksherClient
from tests.support.clients import ClientClock, Kind, ThreadClient, eventually, running
from tests.support.service import QUERY, CannedResponse, WatchedService


class Sdk:
    """An SDK that collects metrics and spans in memory."""

    def __init__(self) -> None:
        self._reader, self._exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.servers: set[tuple[Any, Any]] = set()
        """Host and port of the services in the attributes of the metrics so far."""
        self.meters = MeterProvider([self._reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.providers: dict[str, Any] = {"meter_provider": self.meters, "tracer_provider": self.tracers}

    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """Return the value of each metric by name and attributes, without those of the server."""
        data = self._reader.get_metrics_data()
        metrics: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "heksher_client"
                for metric in scope.metrics:
                    points = metrics.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        value: Any = point
                        value = value.count if hasattr(point, "count") else value.value
                        attributes = dict(point.attributes or {})
                        server = attributes.pop("server.address", None), attributes.pop("server.port", None)
                        self.servers.add(server)
                        points[tuple(sorted(attributes.items()))] = value
        return metrics

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


def server_address(service: WatchedService) -> tuple[str, int]:
    """Return the host and port."""
    url = httpx.URL(service.url)
    return url.host, url.port or 80


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    sdk = Sdk()
    yield sdk
    sdk.meters.shutdown()
    sdk.tracers.shutdown()


def test_metrics_report_the_state_of_a_client(
    kind: Kind, service: WatchedService, sdk: Sdk, client_clock: ClientClock
) -> None:
    """They report its rules and their age, its refreshes and their errors, until the instrumentation ends."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client, instrumented(client.client, **sdk.providers):
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert eventually(lambda: bool(sdk.spans()))
        client_clock.now += 5
        metrics = sdk.metrics()
        assert metrics["heksher.data.age"] == {(): 5}
        assert metrics["heksher.rules"] == {(): 1}
        assert metrics["heksher.rules.rejected"] == {(): 0}
        assert metrics["heksher.settings"] == {(): 1}
        assert metrics["heksher.healthy"] == {(("heksher.state", "fresh"),): 1}
        assert metrics["heksher.refresh.duration"] == {(): 1}
        assert metrics["heksher.refresh.changed"] == {(): 1}
        assert "heksher.reads" not in metrics
        assert sdk.servers == {server_address(service)}
        service.respond_with(QUERY, CannedResponse(503))
        client.state_after_reload()
        failed = (("error.type", "UnexpectedResponseError"),)
        assert eventually(lambda: sdk.metrics().get("heksher.refresh.errors") == {failed: 1})
        assert sdk.metrics()["heksher.refresh.duration"] == {(): 1, failed: 1}
        assert sdk.metrics()["heksher.healthy"] == {(("heksher.state", "failing"),): 1}
    assert "heksher.rules" not in sdk.metrics() or sdk.metrics()["heksher.rules"] == {}
    assert setting.default_value == 7


def test_each_refresh_is_a_span(kind: Kind, service: WatchedService, sdk: Sdk) -> None:
    """It has the times of the refresh, and its errors as events without a traceback."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client, instrumented(client.client, **sdk.providers):
        client.reload()
        service.respond_with(QUERY, CannedResponse(503))
        client.state_after_reload()
        assert eventually(lambda: len(sdk.spans()) == 2)
    good, failed = sdk.spans()
    assert (good.name, good.kind, good.parent) == ("heksher.refresh", SpanKind.CLIENT, None)
    assert good.status.status_code is StatusCode.UNSET
    assert (good.start_time or 0) < (good.end_time or 0) <= (failed.start_time or 0)
    _, port = server_address(service)
    assert dict(good.attributes or {}) == {
        "heksher.changed": 0, "heksher.errors": 0, "server.address": "127.0.0.1", "server.port": port,
    }  # fmt: skip
    assert (failed.status.status_code, "503" in str(failed.status.description)) == (StatusCode.ERROR, True)
    assert (failed.attributes or {})["error.type"] == "UnexpectedResponseError"
    (event,) = failed.events
    assert event.name == "exception"
    attributes = dict(event.attributes or {})
    assert attributes.pop("exception.type") == "heksher_client.exceptions.UnexpectedResponseError"
    assert attributes == {"exception.message": failed.status.description}


def test_reads_are_counted_by_setting_and_reason(sdk: Sdk) -> None:
    """Failed reads are counted too. After `end`, no reads are counted."""
    setting = Setting("s", int, ["user"], 7)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"user": "jim"}, 8)]
        instrumentation = instrument(stub, reads=1, **sdk.providers)
        assert [setting.get(user=user) for user in ("jim", "ann", "jim")] == [8, 7, 8]
        with pytest.raises(MissingContextError):
            setting.get()
        counted = {
            tuple(value for _, value in attributes): count
            for attributes, count in sdk.metrics()["heksher.reads"].items()
        }
        assert counted == {("rule", "s"): 2, ("declared_default", "s"): 1, ("error", "s"): 1}
        instrumentation.end()
        setting.get(user="jim")
        assert sum(sdk.metrics()["heksher.reads"].values()) == 4
    assert read_observers.most_frequent is None


def test_clients_can_be_instrumented_in_sequence_and_concurrently(service: WatchedService, sdk: Sdk) -> None:
    """They share their instruments. One without references stays active. Reads count for the main client."""
    setting = Setting("s", int, ["user"], 7)
    with SyncStubHeksherClient() as first:
        instrument(first, reads=1, **sdk.providers).end()
        assert "heksher.settings" not in sdk.metrics()
        instrument(first, reads=1, **sdk.providers)
        gc.collect()
        assert sdk.metrics()["heksher.settings"] == {(): 1}
        with ThreadClient(service.url, 60, ["environment", "user", "theme"]) as second:
            instrumentation = instrument(second, reads=1, **sdk.providers)
            second.reload()
            assert eventually(lambda: len(sdk.spans()) == 1)
            sdk.servers.clear()
            for _ in range(10):
                setting.get(user="jim")
            assert sum(sdk.metrics()["heksher.reads"].values()) == 10
            assert sdk.servers == {server_address(service), (None, None)}
            for _ in range(2):
                instrumentation.end()
        for active in tuple(_instruments[sdk.meters].instrumentations):
            active.end()
    assert read_observers.most_frequent is None


def test_clients_instrumented_before_the_sdk_is_set_are_reported_too() -> None:
    """The test needs a separate process, as the global SDK can be set once."""
    code = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from heksher_client import ThreadHeksherClient
from heksher_client.telemetry import instrument

instrument(ThreadHeksherClient("http://first", 60, ["user"]))
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
instrument(ThreadHeksherClient("https://second/below", 60, ["user"]))
(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
(gauge,) = (metric for metric in scope.metrics if metric.name == "heksher.rules")
print(sorted((p.attributes["server.address"], p.attributes["server.port"]) for p in gauge.data.data_points))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[('first', 80), ('second', 443)]\n"


def test_a_sampled_read_is_counted_for_the_others(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight is the inverse of the sampling rate."""
    setting = Setting("s", int, ["user"], 7)
    numbers = iter([0.1, 0.9, 0.7, 0.2] * 25)
    monkeypatch.setattr("random.random", lambda: next(numbers))
    with SyncStubHeksherClient() as stub, instrumented(stub, reads=0.5, **sdk.providers):
        for _ in range(100):
            setting.get(user="jim")
        assert sum(sdk.metrics()["heksher.reads"].values()) == 100


def test_before_the_first_response_there_is_no_age(sdk: Sdk) -> None:
    """The client is not healthy yet."""
    client = ThreadHeksherClient("http://host", 60, ["user"])
    with instrumented(client, **sdk.providers):
        metrics = sdk.metrics()
    assert "heksher.data.age" not in metrics
    assert metrics["heksher.healthy"] == {(("heksher.state", "starting"),): 0}
    client.close()


@pytest.mark.parametrize("reads", [-0.1, 1.1, True, "half", float("nan")])
def test_an_invalid_sampling_rate_is_refused(reads: Any) -> None:
    """It must be a number from 0 to 1."""
    with SyncStubHeksherClient() as stub, pytest.raises(ValueError, match="reads must be a number from 0 to 1"):
        instrument(stub, reads=reads)


@pytest.mark.parametrize(
    ("client", "options", "message"),
    [
        (None, {}, "client must be a client or a stub, not None"),
        (ThreadHeksherClient, {}, "client must be a client or a stub, not <class"),
        (SyncStubHeksherClient(), {"read": 0.1}, "instrument got an unexpected keyword argument 'read'"),
        (SyncStubHeksherClient(), {"tracer_provider": "none"}, "get_tracer"),
    ],
)
def test_a_refused_instrumentation_has_no_effect(client: Any, options: Any, message: str, sdk: Sdk) -> None:
    """The error names the argument, and no metrics or reads are recorded."""
    with pytest.raises((TypeError, AttributeError), match=message):
        instrument(client, reads=1, **{**sdk.providers, **options})
    assert sdk.metrics() == {}
    assert read_observers.most_frequent is None


def test_a_client_can_be_instrumented_once_at_a_time(sdk: Sdk) -> None:
    """Its refreshes and reads would be counted twice. After `end`, it can be instrumented again."""
    with SyncStubHeksherClient() as stub:
        with instrumented(stub, **sdk.providers), pytest.raises(ValueError, match="the client is instrumented already"):
            instrument(stub, reads=1, **sdk.providers)
        assert read_observers.most_frequent is None
        with instrumented(stub, **sdk.providers):
            assert sdk.metrics()["heksher.settings"] == {(): 0}


def test_prometheus_receives_the_metrics(service: WatchedService, kind: Kind) -> None:
    """The exporter of OpenTelemetry converts their names."""
    _setting = Setting("s", int, ["user"], 7)
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader])
    try:
        with running(kind, service.url) as client, instrumented(client.client, meter_provider=meters):
            client.reload()
            lines = generate_latest(REGISTRY).decode().splitlines()
            names = {line.partition("{")[0].partition(" ")[0] for line in lines if line.startswith("heksher_")}
        assert {"heksher_data_age_seconds", "heksher_rules", "heksher_refresh_duration_seconds_count"} <= names
    finally:
        meters.shutdown()
