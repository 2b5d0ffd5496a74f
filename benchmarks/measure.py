"""One measurement in one process: `python -m benchmarks.measure CLIENT TASK URL ...` prints its figures as JSON.

It runs with either client, `heksher_client` or the older `heksher`, in the environment of that client. The tasks are
the functions in `TASKS`. The URL is that of a `canned_service`; the arguments of the task follow it. All times are in
seconds.
"""

import asyncio
import gc
import importlib
import json
import random
import statistics
import sys
import time
import timeit
import tracemalloc
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import workload
from benchmarks.canned_service import Service
from benchmarks.pauses import pauses_during, run_plain_python

Figures = dict[str, float]


class Library:
    """The common interface of the two clients."""

    def __init__(self, name: str) -> None:
        self._root = importlib.import_module(name)
        self.setting = self._root.Setting

    def async_client(self, service: Service) -> Any:
        # The declaration of thousands of settings takes longer than most programs would wait at their start.
        options = {"start_timeout": 600} if self._root.__name__ == "heksher_client" else {}
        return self._tracking(self._root.AsyncHeksherClient(service.url, 3600, workload.FEATURES, **options))

    def thread_client(self, service: Service) -> Any:
        return self._tracking(self._root.ThreadHeksherClient(service.url, 3600, workload.FEATURES))

    def _tracking(self, client: Any) -> Any:
        # The older client tracks nothing by default, and logs a warning for each read with an untracked context.
        client.track_contexts(**dict.fromkeys(workload.FEATURES, self._root.TRACK_ALL))
        return client

    def settings(self, count: int) -> list[Any]:
        return [self.setting(workload.setting_name(i), int, workload.FEATURES, 10) for i in range(count)]


# -- reads -------------------------------------------------------------------------------------------------------------

theme: ContextVar[str] = ContextVar("theme")


_current_theme = theme.get
_values: dict[tuple[str, str], int] = {}


class Baseline:
    """The minimum work of a read: a method call, a context variable, and a lookup in a dict."""

    def __init__(self, values: dict[tuple[str, str], int]) -> None:
        _values.clear()
        _values.update(values)

    def get(self, *, user: str, environment: str) -> int:  # noqa: ARG002
        return _values[user, _current_theme()]


def reads(library: Library, service: Service, kind: str, count: int, rounds: int) -> Figures:
    """Measure a read and the baseline, in alternation in one process.

    One of the three features has a constant default, one a context variable, and `user` is an argument. In the second
    phase, some callers pass all three; in the third, `setting.get` was kept before an update. Each phase measures the
    baseline again.
    """
    service.fill(1, count, kind)
    (setting,) = library.settings(1)
    client = library.thread_client(service)
    client.set_as_main()
    client.set_defaults(environment="prod", theme=theme)
    theme.set("theme_1")
    values = {dict(rule["context_features"]).get("user"): rule["value"] for rule in workload.rules(count, kind, 0)}
    many = [user for user in values if user][: workload.USERS]
    # As many different values as in a client, and keys that equal the looked-up strings but are other objects.
    baseline = Baseline({(user.encode().decode(), "theme_1"): values[user] for user in many})
    random.Random(1).shuffle(many)
    for user in many:  # The setting caches equal strings, not the objects that are read later.
        setting.get(user=user.encode().decode())
    few, walk = [{"user": user} for user in many[:5]], [{"users": many}]
    # The interpreter and the setting adapt to the arguments of callers, so calls with more arguments are measured last.
    phases: list[dict[str, tuple[str, list[dict[str, Any]]]]] = [
        {
            "baseline": ("baseline.get(user=user, environment='prod')", few),
            "known user": ("s.get(user=user)", few),
            "unknown user": ("s.get(user='nobody')", few),
            "random users: baseline": ("for user in users: baseline.get(user=user, environment='prod')", walk),
            "random users": ("for user in users: s.get(user=user)", walk),
        },
        {
            "afterwards: baseline": ("baseline.get(user=user, environment='prod')", few),
            "all arguments": ("s.get(user=user, environment='prod', theme='theme_1')", few),
            "known user, others give all": ("s.get(user=user)", few),
        },
        {
            "updated: baseline": ("baseline.get(user=user, environment='prod')", few),
            "function kept before an update": ("kept(user=user)", few),
        },
    ]
    names: dict[str, Any] = {"baseline": baseline, "s": setting, "kept": setting.get}
    figures: Figures = {}
    for number, phase in enumerate(phases):
        if number == len(phases) - 1:
            service.fill(1, count, kind, 1)
            client.reload()
        timers = {
            name: [timeit.Timer(statement, globals=names | variant) for variant in variants]
            for name, (statement, variants) in phase.items()
        }
        figures |= _alternately(timers, rounds)
    client.close()
    return {name: value / len(many) if name.startswith("random") else value for name, value in figures.items()}


def _alternately(timers: Mapping[str, Sequence[timeit.Timer]], rounds: int) -> Figures:
    """Return the median seconds of one execution of each. Every round runs each of them for some milliseconds."""
    samples: dict[str, list[float]] = {name: [] for name in timers}
    all_timers = [timer for variants in timers.values() for timer in variants]
    numbers = {timer: max(1, int(0.005 / (timer.timeit(20) / 20))) for timer in all_timers}
    for _ in range(rounds):
        for name, variants in timers.items():
            samples[name] += [timer.timeit(numbers[timer]) / numbers[timer] for timer in variants]
    return {name: statistics.median(values) for name, values in samples.items()}


def features(library: Library, service: Service, size: int, given: int, count: int, rounds: int) -> Figures:
    """Measure a read and the baseline, for a setting with `size` features and many shapes.

    The first `given` features are arguments; half of the others have constant defaults, half have context variables.
    """
    del service
    from heksher_client.testing import Rule, SyncStubHeksherClient

    names = [f"feature{i}" for i in range(size)]
    rest = names[given:]
    source = random.Random(1)
    values = {name: [f"v{i}" for i in range(2 * count if name == names[0] else 4)] for name in names}
    rules: dict[tuple[tuple[str, str], ...], Rule[int]] = {}
    while len(rules) < count:
        chosen = [name for name in names if name == names[0] or source.random() < 0.3]
        conditions = {name: source.choice(values[name]) for name in chosen}
        rules[tuple(conditions.items())] = Rule(conditions, len(rules))
    defaults: dict[str, Any] = dict.fromkeys(rest[: len(rest) // 2], "v1")
    for name in rest[len(rest) // 2 :]:
        defaults[name] = variable = ContextVar[str](name)
        variable.set("v1")
    theme.set("theme_1")
    baseline = Baseline({("v1", "theme_1"): 1})
    setting = library.setting("s", int, names, 0)
    with SyncStubHeksherClient(context_features=names) as stub:
        stub.set_defaults(**defaults)
        stub[setting].rules = list(rules.values())
        baseline_timer = timeit.Timer("b.get(user='v1', environment='v1')", globals={"b": baseline})
        timers = {"baseline": [baseline_timer], "read": []}
        for conditions in [dict(rule) for rule in rules][:5]:
            arguments = ", ".join(f"{name}={conditions.get(name, 'v1')!r}" for name in names[:given])
            timers["read"].append(timeit.Timer(f"s.get({arguments})", globals={"s": setting}))
        return _alternately(timers, rounds)


# -- settings ----------------------------------------------------------------------------------------------------------


class PlainSetting:
    """The minimum of a setting: an object with a dict of its own, and a method that looks one key up."""

    def __init__(self, name: str, type: type, configurable_features: Sequence[str], default_value: int) -> None:
        self.name, self.type, self.default_value = name, type, default_value
        self.configurable_features = tuple(configurable_features)
        self.values: dict[str, int] = {}

    def get(self, *, user: str) -> int:
        return self.values.get(user, self.default_value)


def _construct(cls: Any, count: int) -> tuple[list[Any], float]:
    """Construct settings, and return them and the seconds for each."""
    gc.collect()
    started = time.perf_counter()
    made = [cls(workload.setting_name(i), int, workload.FEATURES, 10) for i in range(count)]
    return made, (time.perf_counter() - started) / count


def settings(library: Library, service: Service, count: int) -> Figures:
    """Measure one of many settings with a rule each.

    In bytes: what it takes when it is declared, loaded and read once. In seconds: constructing it, reading it first
    after an update, and reading it when all others were read in between. Each is compared with a plain object.
    """
    service.fill(count, count, "users")
    users = [next(workload.rules(1, "users", i))["context_features"][0][1] for i in range(count)]
    figures: Figures = {}

    client = library.thread_client(service)  # What a client of the process imports and caches is allocated before.
    client.ping()
    with suppress(AttributeError):  # The older client cannot be closed before it was started.
        client.close()

    def kept() -> float:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / count

    tracemalloc.start()
    before = kept()
    plain = _construct(PlainSetting, count)[0]
    for one, user in zip(plain, users, strict=True):
        one.values[user] = 5
    figures["memory: baseline"], before = kept() - before, kept()
    declared = library.settings(count)
    figures["declared"], before = kept() - before, kept()
    client = library.thread_client(service)
    client.set_as_main()
    client.set_defaults(environment="prod", theme="theme_1")
    figures["loaded"], before = kept() - before, kept()
    for setting, user in zip(declared, users, strict=True):
        setting.get(user=user)
    figures["read once"] = kept() - before
    tracemalloc.stop()

    def read_all(readers: Sequence[Any]) -> float:
        started = time.perf_counter()
        for reader, user in zip(readers, users, strict=True):
            reader.get(user=user)
        return (time.perf_counter() - started) / count

    order = random.Random(1).sample(range(count), count)  # not that of their memory
    declared, plain, users = ([every[i] for i in order] for every in (declared, plain, users))
    service.fill(count, count, "users", revision=1)
    client.reload()
    figures["first read"] = read_all(declared)
    for _ in range(20):
        read_all(declared)
    rounds = [(read_all(plain), read_all(declared)) for _ in range(21)]
    figures["in turn: baseline"], figures["in turn"] = (statistics.median(times) for times in zip(*rounds, strict=True))
    client.close()
    for what, cls in (("construct", library.setting), ("construct: baseline", PlainSetting)):
        figures[what] = statistics.median(_construct(cls, count)[1] for _ in range(3))
    return figures


# -- refreshes ---------------------------------------------------------------------------------------------------------


def loads(library: Library, service: Service, settings: int, rules: int) -> Figures:
    """Measure how long orjson takes to parse the whole payload, in a fresh process."""
    import orjson

    del library
    service.fill(settings, rules)
    names = ",".join(map(workload.setting_name, range(settings)))
    with urllib.request.urlopen(f"{service.url}/api/v1/query?settings={names}") as response:
        payload = response.read()
    started = time.perf_counter()
    decoded = orjson.loads(payload)
    seconds = time.perf_counter() - started
    assert len(decoded["settings"]) == settings
    return {"loads": seconds, "bytes": len(payload)}


@asynccontextmanager
async def _up_to_date(
    library: Library, service: Service, settings: int, rules: int
) -> AsyncIterator[tuple[Any, list[Any]]]:
    """Run an async client that has loaded the rules; yields it and the settings."""
    service.fill(settings, rules)
    declared = library.settings(settings)
    client = library.async_client(service)
    await client.set_as_main()
    yield client, declared
    await client.aclose()


def refresh(library: Library, service: Service, settings: int, rules: int) -> Figures:
    """Measure a refresh in which all settings, one, or none changed, including HTTP."""
    return asyncio.run(_refresh(library, service, settings, rules))


async def _refresh(library: Library, service: Service, settings: int, rules: int) -> Figures:
    async with _up_to_date(library, service, settings, 0) as (client, declared):
        figures = {}
        for name, changed, revision in (("all changed", 0, 1), ("one changed", 1, 2), ("none changed", 1, 2)):
            service.fill(settings, rules, revision=revision, changed=changed)
            started = time.perf_counter()
            await client.reload()
            figures[name] = time.perf_counter() - started
            assert declared[0].get(environment="nowhere", user="nobody", theme="none") == revision
    return figures


def stall(library: Library, service: Service, settings: int, rules: int) -> Figures:
    """Measure the longest time for which a refresh blocks other tasks of the event loop."""
    return asyncio.run(_stall(library, service, settings, rules))


async def _stall(library: Library, service: Service, settings: int, rules: int) -> Figures:
    async with _up_to_date(library, service, settings, 0) as (client, _):
        service.fill(settings, rules, revision=1)
        waits = []

        async def watch() -> None:
            while True:
                started = time.perf_counter()
                await asyncio.sleep(0)
                waits.append(time.perf_counter() - started)

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0.1)
        waits.clear()
        await client.reload()
        watcher.cancel()
    return {"stall": max(waits)}


def pauses(library: Library, service: Service, settings: int, rules: int) -> Figures:
    """Measure pauses of a thread that reads: during two refreshes, and for as long next to plain Python and at rest."""
    service.fill(settings, 0)
    declared = library.settings(settings)
    client = library.thread_client(service)
    client.set_as_main()
    client.set_defaults(environment="prod", theme="theme_1")
    figures: Figures = {}

    def measure(what: str, work: Callable[[], object]) -> None:
        figures.update({f"{what}, {name}": pause for name, pause in pauses_during(work, declared[0]).items()})

    for revision, what in enumerate(("first load", "replacement"), 1):
        service.fill(settings, rules, revision=revision)
        started = time.perf_counter()
        measure(what, client.reload)
        seconds = time.perf_counter() - started
        assert declared[0].get(environment="nowhere", user="nobody", theme="none") == revision
    measure("next to plain Python", partial(run_plain_python, seconds))
    measure("at rest", partial(time.sleep, seconds))
    client.close()
    return figures


def memory(library: Library, service: Service, settings: int, rules: int) -> Figures:
    """Measure the memory of a refresh in bytes per rule: the peak, except the payload, and the rest that is kept."""
    return asyncio.run(_memory(library, service, settings, rules))


async def _memory(library: Library, service: Service, settings: int, rules: int) -> Figures:
    async with _up_to_date(library, service, settings, 0) as (client, _):
        size = service.fill(settings, rules, revision=1)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _resident("VmRSS")
        await client.reload()
        peak = _resident("VmHWM")
        figures = {"resident peak": (peak - before - size) / rules}
        tracemalloc.start()
        service.fill(settings, rules, revision=2)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await client.reload()
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        # The second refresh allocates all rules again. The replaced ones were allocated before tracing began.
        figures |= {
            "kept": (tracemalloc.get_traced_memory()[0] - before) / rules,
            "peak": (peak - before - size) / rules,
        }
    return figures


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# -- starts and polls --------------------------------------------------------------------------------------------------


def start(library: Library, service: Service, kind: str, settings: int) -> Figures:
    """Measure the time and the requests until a client is up to date."""
    declared = library.settings(settings)
    service.take_counts()
    if kind == "thread":
        started = time.perf_counter()
        thread_client = library.thread_client(service)
        thread_client.set_as_main()
        seconds = time.perf_counter() - started
        thread_client.close()
    else:
        seconds = asyncio.run(_start(library, service))
    assert len(declared) == settings
    return {"seconds": seconds, "requests": service.take_counts()["requests"]}


async def _start(library: Library, service: Service) -> float:
    started = time.perf_counter()
    client = library.async_client(service)
    await client.set_as_main()
    seconds = time.perf_counter() - started
    await client.aclose()
    return seconds


_POLLS: Final = 10


def poll(library: Library, service: Service, settings: int) -> Figures:
    """Measure refreshes in which nothing changed, as means."""
    return asyncio.run(_poll(library, service, settings))


async def _poll(library: Library, service: Service, settings: int) -> Figures:
    async with _up_to_date(library, service, settings, 10 * settings) as (client, _):
        await client.reload()
        service.take_counts()
        used, started = time.process_time(), time.perf_counter()
        for _ in range(_POLLS):
            await client.reload()
        figures = {"seconds": time.perf_counter() - started, "processor seconds": time.process_time() - used}
    return {what: figure / _POLLS for what, figure in figures.items()} | {
        what: count / _POLLS for what, count in service.take_counts().items()
    }


# -- instructions ------------------------------------------------------------------------------------------------------


def spin(library: Library, service: Service, what: str, count: int, number: int) -> Figures:
    """Read `number` times, for a tool that counts instructions: the baseline, a known user or an unknown one."""
    del service
    from heksher_client.testing import Rule, SyncStubHeksherClient

    theme.set("theme_1")
    setting = library.setting("s", int, workload.FEATURES, 0)
    with SyncStubHeksherClient(context_features=workload.FEATURES) as stub:
        stub.set_defaults(environment="prod", theme=theme)
        stub[setting].rules = [Rule({"user": f"user_{i}"}, i) for i in range(count)]
        baseline = Baseline({(f"user_{i}", "theme_1"): i for i in range(count)})
        if what == "baseline":
            for _ in range(number):
                baseline.get(user="user_3", environment="prod")
        else:
            user = "user_3" if what == "known" else "nobody"
            for _ in range(number):
                setting.get(user=user)
    return {}


TASKS: dict[str, Callable[..., Figures]] = {
    task.__name__: task
    for task in (reads, features, settings, loads, refresh, stall, pauses, memory, start, poll, spin)
}


def main() -> None:
    name, task, url, *arguments = sys.argv[1:]
    service = Service(int(url.rpartition(":")[2]))
    parsed = [int(argument) if argument.isdigit() else argument for argument in arguments]
    print(json.dumps(TASKS[task](Library(name), service, *parsed)))


if __name__ == "__main__":
    main()
