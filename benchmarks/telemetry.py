"""The cost of telemetry for reads: `python -m benchmarks.telemetry`.

The figures are ratios to a read in a process without telemetry, measured in alternating rounds. The setting has 1,000
rules on two features; one has a constant default, the other is an argument.
"""

import argparse
import statistics
from contextlib import nullcontext
from timeit import Timer

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from heksher_client import Setting
from heksher_client.telemetry import instrumented
from heksher_client.testing import Rule, SyncStubHeksherClient

_BASELINE = "without telemetry"
_SAMPLE_RATES = {"no reads measured": 0.0, "1 read in 1,000": 0.001, "1 read in 100": 0.01, "each read": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--short", action="store_true", help="check that it works, without meaningful figures")
    rounds, number = (2, 1000) if parser.parse_args().short else (21, 20_000)
    setting = Setting("setting", int, ["environment", "user"], 0)
    meters = MeterProvider([InMemoryMetricReader()])
    times: dict[str, list[float]] = {name: [] for name in (_BASELINE, *_SAMPLE_RATES, "after telemetry has ended")}
    timer = Timer("s.get(user='u7')", globals={"s": setting})
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod")
        stub[setting].rules = [Rule({"user": f"u{n}"}, n) for n in range(1000)]
        for _ in range(rounds):
            for name, measured in times.items():
                rate = _SAMPLE_RATES.get(name)
                with nullcontext() if rate is None else instrumented(stub, reads=rate, meter_provider=meters):
                    timer.timeit(20)  # The first reads after a change are slow.
                    measured.append(timer.timeit(number) / number)
    print(f"{_BASELINE}: {statistics.median(times[_BASELINE]) * 1e9:.0f} ns")
    for name in list(times)[1:]:
        ratios = [time / base for time, base in zip(times[name], times[_BASELINE], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
