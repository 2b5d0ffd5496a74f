"""Metrics of a client, for Prometheus by way of OpenTelemetry."""

import sys

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from heksher_client import Setting, ThreadHeksherClient
from heksher_client.telemetry import instrumented

cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
client = ThreadHeksherClient(url, update_interval=60, context_features=["environment", "user"])
with client, instrumented(client, reads=1.0):  # in production rather a share like 0.01, or no reads at all
    cache_size.get(environment="prod", user="jim")
    for sample in (sample for metric in REGISTRY.collect() for sample in metric.samples):
        if sample.name in ("heksher_reads_total", "heksher_rules"):
            print(sample.name, sample.labels.get("heksher_reason", ""), f"{sample.value:g}")
