"""Run all measurements, print the table of figures, and write table and plots to the documentation."""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import canned_service
from benchmarks.pauses import PERCENTILES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
CACHE = ROOT / ".cache" / "benchmarks"
Figures = dict[str, float]
NEW, OLD = "heksher_client", "heksher"
OTHER = "heksher_client with another Python"
_PRINT_VERSION = "import platform; print(platform.python_version())"
READS = {
    "known user": "baseline",
    "unknown user": "baseline",
    "random users": "random users: baseline",
    "all arguments": "afterwards: baseline",
    "known user, others give all": "afterwards: baseline",
    "function kept before an update": "updated: baseline",
}
"""Kinds of reads, each with the baseline that is measured in alternation with it."""
OLD_SETTINGS = 1_000
"""The most settings of the older client: it sends all names in one URL, and does not send a longer one."""


@dataclass(frozen=True)
class Sizes:
    """The sizes and the numbers of repetitions of the measurements."""

    read_rules: Sequence[int] = (10, 1000, 100_000, 1_000_000)
    read_rounds: int = 15
    refresh_rules: Sequence[int] = (1000, 10_000, 100_000, 1_000_000)
    refresh_settings: int = 100
    start_settings: int = 300
    poll_settings: int = 10_000
    repeats: int = 3
    pause_repeats: Sequence[int] = (20, 3)
    """For each of the two largest numbers of rules."""
    imports: int = 21
    instructions: int = 50_000


SHORT = Sizes((10, 1000), 1, (1000, 2000), 10, 30, 50, 1, (2, 1), 2, 100)


@dataclass
class Bench:
    """Runs each measurement in a process, each client in its environment, and collects the figures."""

    sizes: Sizes
    pythons: Mapping[str, str]
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    """What was measured, the figure of this client, that of the older one, and the target."""
    reads: dict[str, dict[int, float]] = field(default_factory=dict)
    """Time of a read in baselines, by the number of rules, by the kind of read."""
    refreshes: dict[str, dict[int, float]] = field(default_factory=dict)
    """Seconds of a refresh, by the number of rules, by the number of changed settings."""
    pauses: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds from one read to the next, by the percentile, by what another thread does."""

    def measure(self, client: str, *arguments: object, repeats: int = 1, **options: Any) -> Figures:
        """Run a task in several processes, and return the medians of its figures."""
        runs: list[Figures] = []
        for _ in range(repeats):
            with canned_service.running(**options) as service:
                runs.append(self.once(client, service, *arguments))
        return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

    def once(self, client: str, service: canned_service.Service, *arguments: object) -> Figures:
        task, *more = arguments
        library = NEW if client == OTHER else client
        command = [self.pythons[client], "-m", "benchmarks.measure", library, task, service.url, *more]
        result = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, cwd=ROOT, env=_environment()
        )
        if result.returncode:
            raise SystemExit(f"{' '.join(map(str, arguments))} with {client} failed:\n{result.stderr}")
        figures: Figures = json.loads(result.stdout.splitlines()[-1])
        return figures

    def add(self, what: str, ours: str, theirs: str = "", target: str = "") -> None:
        self.rows.append((what, ours, theirs, target))
        print(f"{what}: {ours}; heksher 0.2.2: {theirs or '-'}; target: {target or '-'}", flush=True)

    # -- measurements --------------------------------------------------------------------------------------------------

    def measure_reads(self) -> None:
        for kind in ("users", "many shapes"):
            for rules in self.sizes.read_rules:
                figures = {
                    client: self.measure(client, "reads", kind, rules, self.sizes.read_rounds) for client in (NEW, OLD)
                }
                for what, baseline in READS.items():
                    target = "6" if "kept" in what else "1.3" if what == "known user" else "1.6"
                    label = f"read, {rules:,} rules ({kind}), {what} (in baselines)"
                    times = [(figures[client][what], figures[client][baseline]) for client in (NEW, OLD)]
                    new, old = (_ratio(*pair) for pair in times)
                    self.add(label, new, old, target)
                    for prefix, (seconds, base) in zip(("", "heksher 0.2.2: "), times, strict=True):
                        self.reads.setdefault(f"{prefix}{kind}, {what}", {})[rules] = seconds / base
                self.add(f"the baseline itself, {rules:,} rules ({kind})", _time(figures[NEW]["baseline"]))

    def measure_features(self) -> None:
        for size in (1, 2, 4, 6):
            for given in sorted({0, (size + 1) // 2, size}):
                figures = self.measure(NEW, "features", size, given, 1000, self.sizes.read_rounds)
                label = f"read, 1,000 rules (many shapes), {size} features, {given} given (in baselines)"
                self.add(label, _ratio(figures["read"], figures["baseline"]), target="1.6")

    def measure_instructions(self) -> None:
        if shutil.which("valgrind") is None:
            self.add("instructions of a read", "not counted: valgrind is not installed")
            return
        counts = {what: self._instructions(what) for what in ("baseline", "known", "unknown")}
        for what in ("known", "unknown"):
            ratio = counts[what] / counts["baseline"]
            self.add(f"instructions of a read, {what} user (in baselines)", f"{counts[what]:.0f} ({ratio:.2f})")

    def _instructions(self, what: str) -> float:
        number = self.sizes.instructions
        totals = []
        for times in (number, 2 * number):
            command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", self.pythons[NEW]]
            command += ["-m", "benchmarks.measure", NEW, "spin", "http://none:0", what, "1000", str(times)]
            result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), check=True)
            totals.append(int(re.findall(r"Collected : (\d+)", result.stderr)[0]))
        return (totals[1] - totals[0]) / number

    def measure_settings(self) -> None:
        count, repeats = self.sizes.poll_settings, min(3, self.sizes.repeats)
        counts = {NEW: count, OLD: min(count, OLD_SETTINGS)}
        ours, theirs = (self.measure(client, "settings", n, repeats=repeats) for client, n in counts.items())
        stages = ("declared", "loaded", "read once")
        for what in stages:
            label = f"memory of a setting of {count:,}, with one rule, {what}, bytes"
            self.add(label, f"{ours[what]:.0f}", f"{theirs[what]:.0f}")
        whole = [(sum(one[what] for what in stages), one["memory: baseline"]) for one in (ours, theirs)]
        new, old = (f"{size:.0f} ({size / baseline:.1f})" for size, baseline in whole)
        self.add("the same, in all (in plain objects)", new, old, "3000 bytes")
        for what, baseline, label, target in (
            ("first read", "in turn: baseline", "first read of a setting after an update", "8 us"),
            ("construct", "construct: baseline", "constructing a setting", "12 us"),
            ("in turn", "in turn: baseline", f"one read each of {count:,} settings in turn", "500 ns, 2"),
        ):
            new, old = (_ratio(one[what], one[baseline]) for one in (ours, theirs))
            self.add(f"{label} (in plain objects)", new, old, target)

    def measure_refreshes(self) -> None:
        settings = self.sizes.refresh_settings
        for rules in self.sizes.refresh_rules:
            arguments = (settings, rules)
            repeats = self._repeats(rules)
            loads, ours, theirs = [], [], []
            for _ in range(repeats):
                # In alternation, so that a slow phase of the machine affects all of them.
                loads.append(self.measure(NEW, "loads", *arguments)["loads"])
                ours.append(self.measure(NEW, "refresh", *arguments))
                theirs.append(self.measure(OLD, "refresh", *arguments))
            baseline = statistics.median(loads)
            self.refreshes.setdefault("orjson.loads of the response", {})[rules] = baseline
            targets = ("8 ms", "", "") if rules == 1000 else ("", "", "") if rules < 100_000 else ("0.75", "0.15", "")
            for what, target in zip(("all changed", "one changed", "none changed"), targets, strict=True):
                new, old = (statistics.median(run[what] for run in runs) for runs in (ours, theirs))
                self.refreshes.setdefault(what, {})[rules] = new
                self.refreshes.setdefault(f"heksher 0.2.2: {what}", {})[rules] = old
                label = f"refresh, {rules:,} rules in {settings} settings, {what} (in `orjson.loads`)"
                self.add(label, _ratio(new, baseline), _ratio(old, baseline), target)

    def _repeats(self, rules: int) -> int:
        """Measure a million rules once: it takes minutes, and the figures are far from the targets."""
        return self.sizes.repeats if rules < 1_000_000 else 1

    def measure_memory_and_stalls(self) -> None:
        settings = self.sizes.refresh_settings
        large = self.sizes.refresh_rules[-2:]
        for rules in large:
            ours, theirs = (self.measure(client, "memory", settings, rules) for client in (NEW, OLD))
            for what, target in (("kept", "155"), ("peak", "150"), ("resident peak", "400")):
                label = f"memory, {rules:,} rules in {settings} settings, {what}, bytes a rule"
                self.add(label, f"{ours[what]:.0f}", f"{theirs[what]:.0f}", target)
        for count, rules in ((settings, large[0]), (settings, large[1]), (1, large[0])):
            repeats = self._repeats(rules)
            ours, theirs = (self.measure(client, "stall", count, rules, repeats=repeats) for client in (NEW, OLD))
            label = f"longest stall of the event loop, {rules:,} rules in {count} settings"
            self.add(label, _time(ours["stall"]), _time(theirs["stall"]), "20 ms")

    def measure_pauses(self) -> None:
        settings = self.sizes.refresh_settings
        sizes = zip(self.sizes.refresh_rules[-2:], self.sizes.pause_repeats, ("1.5", "4"), strict=True)
        for rules, repeats, goal in sizes:
            ours = self.measure(NEW, "pauses", settings, rules, repeats=repeats)
            theirs = self.measure(OLD, "pauses", settings, rules, repeats=self._repeats(rules))
            for what in ("at rest", "next to plain Python", "first load", "replacement"):
                target = goal if what in ("first load", "replacement") else ""
                where = f"{rules:,} rules in {settings} settings, {what}"
                curves = [{name: one[f"{what}, {name}"] for name in PERCENTILES} for one in (ours, theirs)]
                for prefix, curve in zip(("", "heksher 0.2.2: "), curves, strict=True):
                    self.pauses[prefix + (f"{rules:,} rules, {what}" if target else what)] = curve
                *names, longest = PERCENTILES
                new, old = (", ".join(_time(curve[name]) for name in names) for curve in curves)
                self.add(f"time between two reads of a thread, {where}, {', '.join(names)}", new, old)
                bases = [one[f"next to plain Python, {longest}"] for one in (ours, theirs)]
                new, old = (_ratio(curve[longest], base) for curve, base in zip(curves, bases, strict=True))
                self.add(f"longest pause of a reading thread, {where} (in that next to plain Python)", new, old, target)

    def measure_starts(self) -> None:
        for kind in ("thread", "async"):
            figures: dict[str, list[Figures]] = {}
            for client in (NEW, OLD):
                runs: list[list[Figures]] = []
                for _ in range(min(3, self.sizes.repeats)):
                    with canned_service.running(0.02) as service:
                        runs.append(
                            [self.once(client, service, "start", kind, self.sizes.start_settings) for _ in "ab"]
                        )
                figures[client] = [
                    {name: statistics.median(run[i][name] for run in runs) for name in ("seconds", "requests")}
                    for i in (0, 1)
                ]
            for i, (what, target) in enumerate((("all new", "1.5 s"), ("none new", "0.5 s, 20"))):
                ours, theirs = (
                    f"{x[i]['seconds']:.2f} s, {x[i]['requests']:.0f}" for x in (figures[NEW], figures[OLD])
                )
                label = (
                    f"start, {self.sizes.start_settings} settings, {what}, 20 ms a response, {kind} client; requests"
                )
                self.add(label, ours, theirs, target)

    def measure_polls(self) -> None:
        repeats = min(3, self.sizes.repeats)
        for count in (3, self.sizes.poll_settings):
            fewer = min(count, OLD_SETTINGS)
            theirs = _poll_figures(self.measure(OLD, "poll", fewer, repeats=repeats))
            theirs += f" with {fewer:,} settings" * (fewer < count)
            for says_revision in (True, False):
                ours = self.measure(NEW, "poll", count, repeats=repeats, says_revision=says_revision)
                label = f"refresh that changes nothing, {count:,} settings, " + (
                    "the service says its revision" if says_revision else "it does not"
                )
                target = "2 ms" if count == 3 else "1 request, 5 ms" if says_revision else "30 ms"
                self.add(label, _poll_figures(ours), theirs, target)

    def measure_imports(self) -> None:
        # In environments without other packages: httpx imports rich and click if they are installed.
        pythons = {NEW: self.pythons["clean"], OLD: self.pythons[OLD]}
        targets = {
            "import {}": "1.25",
            "from {} import ThreadHeksherClient": "1.3",
            "from {} import AsyncHeksherClient": "",
        }
        seconds: dict[tuple[str, str], list[float]]
        seconds = {(client, statement): [] for statement in ("import httpx", *targets) for client in pythons}
        for _ in range(self.sizes.imports):
            for (client, statement), times in seconds.items():
                code = "import time; t = time.perf_counter()\n{}\nprint(time.perf_counter() - t)"
                command = [pythons[client], "-c", code.format(statement.format(client))]
                times.append(float(subprocess.check_output(command, text=True, cwd=CACHE, env=_environment())))
        medians = {key: statistics.median(times) for key, times in seconds.items()}
        for statement, target in targets.items():
            new, old = (_ratio(medians[client, statement], medians[client, "import httpx"]) for client in pythons)
            self.add(f"`{statement.format(NEW)}` (in `import httpx`)", new, old, target)

    def measure_other_python(self) -> None:
        """Measure reads and refreshes with another version of Python, with which the older client may not work."""
        if OTHER not in self.pythons:
            return
        version = subprocess.check_output([self.pythons[OTHER], "-c", _PRINT_VERSION], text=True, cwd=ROOT).strip()
        for kind in ("users", "many shapes"):
            for rules in self.sizes.read_rules[1:-1]:
                figures = self.measure(OTHER, "reads", kind, rules, self.sizes.read_rounds)
                for what in ("known user", "unknown user", "all arguments"):
                    label = f"CPython {version}: read, {rules:,} rules ({kind}), {what} (in baselines)"
                    self.add(label, _ratio(figures[what], figures[READS[what]]))
        settings = self.sizes.refresh_settings
        for rules in self.sizes.refresh_rules[:-1]:
            runs = [
                (self.measure(OTHER, "loads", settings, rules), self.measure(OTHER, "refresh", settings, rules))
                for _ in range(self.sizes.repeats)
            ]
            baseline = statistics.median(loads["loads"] for loads, _ in runs)
            for what in ("all changed", "one changed", "none changed"):
                seconds = statistics.median(figures[what] for _, figures in runs)
                label = (
                    f"CPython {version}: refresh, {rules:,} rules in {settings} settings, {what} (in `orjson.loads`)"
                )
                self.add(label, _ratio(seconds, baseline))


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _ratio(seconds: float, baseline: float) -> str:
    """Return the time, and its ratio to that of the baseline."""
    ratio = seconds / baseline
    return f"{_time(seconds)} ({ratio:.{2 if ratio < 10 else 0}f})"


def _poll_figures(figures: Figures) -> str:
    requests, seconds, processor = (figures[what] for what in ("requests", "seconds", "processor seconds"))
    return f"{_time(seconds)} ({_time(processor)} of the processor), requests: {requests:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="check that everything works, without meaningful figures")
    parser.add_argument(
        "--only", help="run the measurements whose names contain this, and do not change the documentation"
    )
    parser.add_argument(
        "--other-python",
        metavar="PYTHON",
        help="measure reads and refreshes with this interpreter too; it has the package",
    )
    arguments = parser.parse_args()
    pythons = _pythons() | ({OTHER: arguments.other_python} if arguments.other_python else {})
    bench = Bench(SHORT if arguments.short else Sizes(), pythons)
    measurements: list[Callable[[], None]] = [
        bench.measure_reads, bench.measure_features, bench.measure_instructions, bench.measure_settings,
        bench.measure_refreshes, bench.measure_memory_and_stalls, bench.measure_pauses, bench.measure_starts,
        bench.measure_polls, bench.measure_imports, bench.measure_other_python,
    ]  # fmt: skip
    for measurement in measurements:
        if (arguments.only or "") in measurement.__name__:
            measurement()
    table = _table(bench.rows)
    print(f"\n{table}")
    if not arguments.only:
        from benchmarks import plots

        folder = CACHE if arguments.short else PAGE.parent
        plots.draw(bench.reads, bench.refreshes, bench.pauses, folder)
        if not arguments.short:
            text = PAGE.read_text()
            begin, end = "<!-- figures -->\n", "<!-- end of figures -->"
            PAGE.write_text(text[: text.index(begin) + len(begin)] + f"\n{table}\n" + text[text.index(end) :])


def _pythons() -> dict[str, str]:
    """Return the interpreters to measure with: the current one, and those of two environments."""
    requirements = {OLD: ["heksher==0.2.2", "pydantic<2", "httpx"], "clean": [str(ROOT)]}
    pythons = {NEW: sys.executable}
    for name, packages in requirements.items():
        folder = CACHE / name
        pythons[name] = str(folder / "bin" / "python")
        if name == "clean" or not folder.exists():
            venv.create(folder, with_pip=True, clear=True)
            command = [pythons[name], "-m", "pip", "install", "--quiet", "--no-cache-dir", *packages]
            subprocess.run(command, check=True)
    return pythons


def _environment() -> dict[str, str]:
    """Return the environment without variables of Python. Hashes differ between processes, as they do for users."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _table(rows: Sequence[tuple[str, str, str, str]]) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("httpx", "anyio", "orjson", "msgspec"))
    lines = [
        f"CPython {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} processors "
        f"({_processor()}); {packages}.",
        "",
        "| what | heksher_client | heksher 0.2.2 | target |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _processor() -> str:
    try:
        return str(re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0])
    except (OSError, IndexError):
        return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
