"""Metrics and spans, as OpenTelemetry's own SDK receives them, from both clients on a real service."""

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
from heksher_client._core.settings import observers
from heksher_client.telemetry import _instruments, instrument, instrumented
from heksher_client.testing import Rule, SyncStubHeksherClient
from tests.support.clients import Kind, eventually, running
from tests.support.service import QUERY, Answer, WatchedService


class Sdk:
    """What receives metrics and spans."""

    def __init__(self) -> None:
        self._reader, self._exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.servers: set[tuple[Any, Any]] = set()
        """Host and port of the services that metrics were of."""
        self.meters = MeterProvider([self._reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.providers: dict[str, Any] = {"meter_provider": self.meters, "tracer_provider": self.tracers}

    def metrics(self) -> dict[str, dict[tuple[tuple[str, Any], ...], Any]]:
        """By name and attributes."""
        data = self._reader.get_metrics_data()
        found: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "heksher_client"
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        value: Any = point
                        value = value.count if hasattr(point, "count") else value.value
                        attributes = dict(point.attributes or {})
                        server = attributes.pop("server.address", None), attributes.pop("server.port", None)
                        self.servers.add(server)
                        points[tuple(sorted(attributes.items()))] = value
        return found

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


def server_of(service: WatchedService) -> tuple[str, int]:
    """Host and port."""
    url = httpx.URL(service.url)
    return url.host, url.port or 80


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    sdk = Sdk()
    yield sdk
    sdk.meters.shutdown()
    sdk.tracers.shutdown()


def test_metrics_tell_how_a_client_fares(kind: Kind, service: WatchedService, sdk: Sdk) -> None:
    """Its rules and their age, its refreshes and their errors; nothing any more after the end."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client, instrumented(client.client, **sdk.providers):
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert eventually(lambda: bool(sdk.spans()))
        metrics = sdk.metrics()
        assert 0 <= metrics["heksher.data.age"][()] < 60
        assert metrics["heksher.rules"] == {(): 1}
        assert metrics["heksher.rules.rejected"] == {(): 0}
        assert metrics["heksher.settings"] == {(): 1}
        assert metrics["heksher.healthy"] == {(("heksher.state", "fresh"),): 1}
        assert metrics["heksher.refresh.duration"] == {(): 1}
        assert metrics["heksher.refresh.changed"] == {(): 1}
        assert "heksher.reads" not in metrics
        assert sdk.servers == {server_of(service)}
        service.answering(QUERY, Answer(503))
        client.state_after_reload()
        failed = (("error.type", "UnexpectedResponseError"),)
        assert eventually(lambda: sdk.metrics().get("heksher.refresh.errors") == {failed: 1})
        assert sdk.metrics()["heksher.refresh.duration"] == {(): 1, failed: 1}
        assert sdk.metrics()["heksher.healthy"] == {(("heksher.state", "failing"),): 1}
    assert "heksher.rules" not in sdk.metrics() or sdk.metrics()["heksher.rules"] == {}
    assert setting.default_value == 7


def test_each_refresh_is_a_span(kind: Kind, service: WatchedService, sdk: Sdk) -> None:
    """With its times, and its errors where it has some."""
    _setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client, instrumented(client.client, **sdk.providers):
        client.reload()
        service.answering(QUERY, Answer(503))
        client.state_after_reload()
        assert eventually(lambda: len(sdk.spans()) == 2)
    good, failed = sdk.spans()
    assert (good.name, good.kind, good.parent) == ("heksher.refresh", SpanKind.CLIENT, None)
    assert good.status.status_code is StatusCode.UNSET
    assert (good.start_time or 0) < (good.end_time or 0) <= (failed.start_time or 0)
    assert dict(good.attributes or {}) == {
        "heksher.changed": 0, "heksher.errors": 0, "server.address": "127.0.0.1", "server.port": server_of(service)[1],
    }  # fmt: skip
    assert (failed.status.status_code, "503" in str(failed.status.description)) == (StatusCode.ERROR, True)
    assert (failed.attributes or {})["error.type"] == "UnexpectedResponseError"
    (event,) = failed.events
    assert event.name == "exception"
    told = dict(event.attributes or {})
    assert told.pop("exception.type") == "heksher_client.exceptions.UnexpectedResponseError"
    assert told == {"exception.message": failed.status.description}  # no traceback, which has the causes as well


def test_reads_are_counted_by_setting_and_reason(sdk: Sdk) -> None:
    """Those that fail as well; and not at all once the measuring has ended."""
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
    assert observers.most_frequent() is None


def test_clients_are_measured_one_after_the_other_and_side_by_side(service: WatchedService, sdk: Sdk) -> None:
    """Though an SDK makes each instrument once; also where nobody keeps what measures; reads count for the main one."""
    setting = Setting("s", int, ["user"], 7)
    with SyncStubHeksherClient() as first:
        instrument(first, reads=1, **sdk.providers).end()
        assert "heksher.settings" not in sdk.metrics()
        instrument(first, reads=1, **sdk.providers)
        gc.collect()
        assert sdk.metrics()["heksher.settings"] == {(): 1}
        with ThreadHeksherClient(service.url, 60, ["environment", "user", "theme"]) as second:
            ended = instrument(second, reads=1, **sdk.providers)
            second.reload()
            assert eventually(lambda: len(sdk.spans()) == 1)
            sdk.servers.clear()
            for _ in range(10):
                setting.get(user="jim")
            assert sum(sdk.metrics()["heksher.reads"].values()) == 10
            assert sdk.servers == {server_of(service), (None, None)}
            for _ in range(2):
                ended.end()
        for one in tuple(instruments_of(sdk).measured):
            one.end()
    assert observers.most_frequent() is None


def instruments_of(sdk: Sdk) -> Any:
    return _instruments[sdk.meters]


def test_clients_that_are_measured_before_and_after_the_program_sets_its_sdk_are_all_reported() -> None:
    """In a process of its own, as that can be set once."""
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
print(sorted((at.attributes["server.address"], at.attributes["server.port"]) for at in gauge.data.data_points))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[('first', 80), ('second', 443)]\n"


def test_a_sample_of_reads_stands_for_all_of_them(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that was looked at counts for those that were not."""
    setting = Setting("s", int, ["user"], 7)
    numbers = iter([0.1, 0.9, 0.7, 0.2] * 25)
    monkeypatch.setattr("random.random", lambda: next(numbers))
    with SyncStubHeksherClient() as stub, instrumented(stub, reads=0.5, **sdk.providers):
        for _ in range(100):
            setting.get(user="jim")
        assert sum(sdk.metrics()["heksher.reads"].values()) == 100


def test_before_the_first_answer_there_is_no_age(sdk: Sdk) -> None:
    """And the client is not healthy yet."""
    client = ThreadHeksherClient("http://host", 60, ["user"])
    with instrumented(client, **sdk.providers):
        metrics = sdk.metrics()
    assert "heksher.data.age" not in metrics
    assert metrics["heksher.healthy"] == {(("heksher.state", "starting"),): 0}
    client.close()


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "half", float("nan")])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    """Before anything is measured."""
    with SyncStubHeksherClient() as stub, pytest.raises(ValueError, match="reads must be a share from 0 to 1"):
        instrument(stub, reads=share)


@pytest.mark.parametrize(
    ("client", "options", "words"),
    [
        (None, {}, "client must be a client or a stub, not None"),
        (ThreadHeksherClient, {}, "client must be a client or a stub, not <class"),
        (SyncStubHeksherClient(), {"read": 0.1}, "instrument got an unexpected keyword argument 'read'"),
        (SyncStubHeksherClient(), {"tracer_provider": "none"}, "get_tracer"),
    ],
)
def test_what_cannot_be_measured_leaves_nothing_behind(client: Any, options: Any, words: str, sdk: Sdk) -> None:
    """It is refused in words, and the metrics go on without it."""
    with pytest.raises((TypeError, AttributeError), match=words):
        instrument(client, reads=1, **{**sdk.providers, **options})
    assert sdk.metrics() == {}
    assert observers.most_frequent() is None


def test_a_client_is_measured_once(sdk: Sdk) -> None:
    """Or its refreshes and reads would be counted twice; after the end it may be measured again."""
    with SyncStubHeksherClient() as stub:
        with instrumented(stub, **sdk.providers), pytest.raises(ValueError, match="the client is measured already"):
            instrument(stub, reads=1, **sdk.providers)
        assert observers.most_frequent() is None
        with instrumented(stub, **sdk.providers):
            assert sdk.metrics()["heksher.settings"] == {(): 0}


def test_prometheus_gets_the_metrics(service: WatchedService, kind: Kind) -> None:
    """By way of OpenTelemetry's exporter, under the names that it makes of them."""
    _setting = Setting("s", int, ["user"], 7)
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader])
    try:
        with running(kind, service.url) as client, instrumented(client.client, meter_provider=meters):
            client.reload()
            lines = generate_latest(REGISTRY).decode().splitlines()
            told = {line.partition("{")[0].partition(" ")[0] for line in lines if line.startswith("heksher_")}
        assert {"heksher_data_age_seconds", "heksher_rules", "heksher_refresh_duration_seconds_count"} <= told
    finally:
        meters.shutdown()
