"""What measuring reads costs them: `python -m benchmarks.telemetry`.

Ratios to a read in a process without telemetry, measured side by side: in rounds in which all of them take turns. The
setting has 1,000 rules on two features; one has a constant default, the other is given.
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

_PLAIN = "without telemetry"
_SHARES = {"reads are not looked at": 0.0, "1 read in 1,000": 0.001, "1 read in 100": 0.01, "each read": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--short", action="store_true", help="see that it works; the figures mean nothing")
    rounds, number = (2, 1000) if parser.parse_args().short else (21, 20_000)
    setting = Setting("setting", int, ["environment", "user"], 0)
    meters = MeterProvider([InMemoryMetricReader()])
    times: dict[str, list[float]] = {name: [] for name in (_PLAIN, *_SHARES, "after it has ended")}
    timer = Timer("get(user='u7')", globals={"get": setting.get})
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod")
        stub[setting].rules = [Rule({"user": f"u{n}"}, n) for n in range(1000)]
        for _ in range(rounds):
            for name, measured in times.items():
                share = _SHARES.get(name)
                with nullcontext() if share is None else instrumented(stub, reads=share, meter_provider=meters):
                    timer.timeit(10)  # the first read after a change is a slow one
                    measured.append(timer.timeit(number) / number)
    print(f"{_PLAIN}: {statistics.median(times[_PLAIN]) * 1e9:.0f} ns")
    for name in list(times)[1:]:
        ratios = [time / base for time, base in zip(times[name], times[_PLAIN], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
