"""Metrics of a client for Prometheus, with OpenTelemetry."""

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from heksher_client import Setting, connect
from heksher_client.telemetry import instrumented

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
# In production, sample a small share of the reads, such as 0.01, or none.
with connect() as client, instrumented(client, reads=1.0):
    cache_size.get(environment="prod", user="jim")
    samples = [one for metric in REGISTRY.collect() for one in metric.samples]
    for sample in samples:
        if sample.name in ("heksher_reads_total", "heksher_rules"):
            reason = sample.labels.get("heksher_reason", "")
            print(sample.name, reason, f"{sample.value:g}")
