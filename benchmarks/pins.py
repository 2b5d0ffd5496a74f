"""The cost of `pinned()`: reads outside and inside it, and the block itself. Run `python -m benchmarks.pins`.

The figures are ratios to a read in a process without snapshots, measured in alternating rounds. The setting has 1,000
rules on two features; one has a constant default, the other is an argument.
"""

import argparse
import statistics
from collections.abc import Callable
from contextvars import Context, copy_context
from timeit import Timer

from heksher_client import Setting, pinned
from heksher_client.testing import Rule, SyncStubHeksherClient

_BASELINE = "a read, nothing pinned"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pins", description=__doc__)
    parser.add_argument("--short", action="store_true", help="check that it works, without meaningful figures")
    rounds, number = (2, 1000) if parser.parse_args().short else (41, 20_000)
    settings = {name: Setting(name, int, ["environment", "user"], 0) for name in ("plain", "same", "updated")}
    rules = [Rule({"user": f"u{n}"}, n) for n in range(1000)]
    outside = copy_context()
    pin, inside = pinned(), copy_context()
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(environment="prod")
        for setting in settings.values():
            stub[setting].rules = rules
        inside.run(pin.__enter__)
        stub[settings["updated"]].rules = [*rules[:-1], Rule({"user": "u999"}, -1)]

        def read(name: str, context: Context = outside) -> Callable[[], float]:
            timer = Timer("s.get(user='u7')", globals={"s": settings[name]})
            context.run(timer.timeit, 20)  # The first reads after a change are slow.
            return lambda: context.run(timer.timeit, number) / number

        def block() -> None:
            with pinned():
                pass

        measured: dict[str, Callable[[], float]] = {
            _BASELINE: read("plain"),
            "outside pinned(), setting not updated": read("same"),
            "outside pinned(), setting updated": read("updated"),
            "inside pinned(), setting not updated": read("same", inside),
            "inside pinned(), setting updated": read("updated", inside),
            "with pinned(): pass": lambda: Timer(block).timeit(number // 10) / (number // 10),
        }
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(rounds):
            for name, measure in measured.items():
                times[name].append(measure())
        inside.run(pin.__exit__, None, None, None)
        settings["updated"].get(user="u7")
        after = [read("updated")() / read("plain")() for _ in range(rounds)]
    plain = statistics.median(times[_BASELINE])
    print(f"{_BASELINE}: {plain * 1e9:.0f} ns")
    for name in list(times)[1:]:
        ratios = [time / base for time, base in zip(times[name], times[_BASELINE], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f}")
    print(f"after pinned(), setting updated during it: {statistics.median(after):.2f}")


if __name__ == "__main__":
    main()
