"""A program with settings, for `benchmarks.soak`: it reads all the time, and knows what each read may give.

The values of rules are numbers that are never used twice, so each says which setting, user and moment it is of. A read
is right if the service held what it gave at some moment since the last refresh that went well had begun. Whenever a
client is replaced its settings may be too, as in a new process: until the first refresh of the new client that goes
well they may give their declared defaults as well, where there is nothing of them in the file.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.soak import FEATURES
from heksher_client import AsyncHeksherClient, HeksherError, Setting, State, ThreadHeksherClient
from tests.support.clients import AsyncKind, Kind, Subject, ThreadKind

SETTINGS = 12
USERS = ("ann", "ben", "cem", "dora")
READERS = 2
REMEMBERED = 400
"""Values of a setting and user: many more than change within any outage."""
COUNTED = (
    "reads", "wrong reads", "changes by operators", "refreshes", "refreshes that failed", "clients started",
    "starts that failed", "starts from the file", "log records",
)  # fmt: skip
LISTED = 10
"""Wrong reads that are told in full, each once."""


class Slot:
    """What the service held for a setting and a user, one value after the other."""

    def __init__(self, default: int) -> None:
        self.default = default
        self.rule: int | None = None
        """The id of the rule there is."""
        self._held: deque[tuple[int, float]] = deque([(default, 0.0)], maxlen=REMEMBERED)
        """The values, each with the time until when the one before it may have been there."""
        self._lock = threading.Lock()

    @contextmanager
    def becomes(self, value: int) -> Iterator[None]:
        """While it is being changed it may be either; if that fails, it is what it was."""
        with self._lock:
            self._held.append((value, float("inf")))
        try:
            yield
        except BaseException:
            with self._lock:
                self._held.pop()
            raise
        with self._lock:
            self._held[-1] = (value, time.monotonic())

    def held_since(self, moment: float) -> list[int]:
        """All values that it had at that moment or later."""
        values = []
        with self._lock:
            for value, former_until in reversed(self._held):
                values.append(value)
                if former_until < moment:
                    break
        return values


class World:
    """The settings of the program, and what the service holds for them."""

    def __init__(self, name: str) -> None:
        self.defaults = {f"{name}{i}": -1 - i for i in range(SETTINGS)}
        self.slots = {(name, user): Slot(default) for name, default in self.defaults.items() for user in USERS}
        self.names = {name: name for name in self.defaults}
        """What the service calls them."""
        self.declare()
        self.well_since = 0.0
        """When the last refresh that went well had not begun yet."""
        self.is_new = True
        """Whether no refresh has gone well since the settings were declared."""
        self.subject: Subject
        """The client at present."""
        self.is_resting = False
        """Whether operators do nothing for the moment, and the client is not to be replaced."""
        self.counts = dict.fromkeys(COUNTED, 0)
        self.slowest_close = 0.0
        self.wrong: list[str] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def count(self, what: str, more: int = 1) -> None:
        with self._lock:
            self.counts[what] += more

    def declare(self) -> None:
        """Declare all settings, as a process does that has just begun."""
        self.is_new = True
        self.settings = {name: Setting(name, int, ["user"], default) for name, default in self.defaults.items()}
        gc.collect()  # A new process has no garbage of former ones: some hundred kilobytes each time.

    # -- readers -------------------------------------------------------------------------------------------------------

    def read(self, source: random.Random) -> None:
        """Read until the end."""
        slots = list(self.slots.items())
        while not self.ended.wait(0.01):
            for (name, user), slot in source.choices(slots, k=100):
                since, is_new = self.well_since, self.is_new
                try:
                    value = self.settings[name].get(user=user)
                except Exception as error:
                    self.note_wrong(f"{name} for {user} raised {error!r}")
                    continue
                may_be_default = is_new or self.is_new
                if value not in (held := slot.held_since(since)) and not (may_be_default and value == slot.default):
                    self.note_wrong(f"{name} for {user} is {value}, and may be {held}")
            self.count("reads", 100)

    def note_wrong(self, what: str) -> None:
        self.count("wrong reads")
        if what not in self.wrong:
            self.wrong = [*self.wrong, what][:LISTED]

    # -- operators -----------------------------------------------------------------------------------------------------

    def operate(self, service_url: str, source: random.Random) -> None:
        """Change what the service holds, until the end."""
        with httpx.Client(base_url=service_url, timeout=60) as http:
            while not self.ended.wait(source.expovariate(1 / 0.04)):
                if self.is_resting:
                    continue
                with suppress(httpx.HTTPStatusError):  # The program has not declared the setting (again) yet.
                    self._change(http, source)
                    self.count("changes by operators")

    def _change(self, http: httpx.Client, source: random.Random) -> None:
        name, user = source.choice(list(self.slots))
        slot, what = self.slots[name, user], source.random()
        if what < 0.02:
            self._delete(http, name)
        elif what < 0.05:
            self._rename(http, name)
        elif slot.rule is None:
            with slot.becomes(value := next(_VALUES)):
                rule = {"setting": self.names[name], "feature_values": {"user": user}, "value": value}
                slot.rule = _call(http, "POST", "/api/v1/rules", rule)["rule_id"]
        elif what < 0.3:
            with slot.becomes(slot.default):
                _call(http, "DELETE", f"/api/v1/rules/{slot.rule}")
            slot.rule = None
        else:
            with slot.becomes(value := next(_VALUES)):
                _call(http, "PUT", f"/api/v1/rules/{slot.rule}/value", {"value": value})

    def _delete(self, http: httpx.Client, name: str) -> None:
        """The program will declare it again; its rules are gone."""
        slots = [self.slots[name, user] for user in USERS]
        with ExitStack() as changes:
            for slot in slots:
                changes.enter_context(slot.becomes(slot.default))
            _call(http, "DELETE", f"/api/v1/settings/{self.names[name]}")
        for slot in slots:
            slot.rule = None
        self.names[name] = name

    def _rename(self, http: httpx.Client, name: str) -> None:
        """As a newer version of the program would; this one goes on with the old name."""
        if self.names[name] != name:
            return
        new = f"{name}_renamed"
        declaration = {"name": new, "type": "int", "default_value": self.defaults[name], "alias": name,
                       "configurable_features": ["user"], "version": "1.1"}  # fmt: skip
        _call(http, "POST", "/api/v1/settings/declare", declaration)
        self.names[name] = new

    # -- the client ----------------------------------------------------------------------------------------------------

    def run_clients(self, kind: Kind, url: str, folder: str, source: random.Random) -> None:
        """Start a client, reload now and then, close it and start another one, until the end."""
        while not self.ended.is_set():
            subject = Subject(
                kind, url, 0.2, FEATURES, jitter=0.1, start_timeout=4, request_timeout=1, max_backoff=1,
                max_response_bytes=1 << 22, last_known_good=Path(folder, "settings.json"),
            )  # fmt: skip
            subject.client.set_defaults(user="nobody")
            self.count("clients started")
            try:
                subject.start()
            except HeksherError:
                self.count("starts that failed")
                self.ended.wait(source.uniform(0.1, 1))
                continue
            self.subject = subject
            if subject.client.status().is_last_known_good:
                self.count("starts from the file")
            until = time.monotonic() + source.uniform(3, 15)
            while not self.ended.wait(source.uniform(0.5, 2)) and (self.is_resting or time.monotonic() < until):
                with suppress(HeksherError, TimeoutError):  # The latter on a machine that is busy with other things.
                    subject.reload()
            started = time.monotonic()
            subject.close()
            self.slowest_close = max(self.slowest_close, time.monotonic() - started)
            if source.random() < 0.5:
                self.declare()


class _Watching:
    """Hooks that note since when all is as the service has it."""

    world: World
    ended_at: float
    """When the last refresh had ended, so that the next one had not begun."""

    def on_update_ok(self) -> None:
        self.world.well_since, self.ended_at = self.ended_at, time.monotonic()
        self.world.is_new = False
        self.world.count("refreshes")

    def on_update_error(self, _: Exception, /) -> None:
        self.ended_at = time.monotonic()
        self.world.count("refreshes that failed")


class _WatchingThreadClient(_Watching, ThreadHeksherClient):
    pass


class _WatchingAsyncClient(_Watching, AsyncHeksherClient):
    pass


class _ThreadKind(ThreadKind):
    world: World

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return _watched(_WatchingThreadClient(*args, **kwargs), self.world)


class _AsyncKind(AsyncKind):
    world: World

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return _watched(_WatchingAsyncClient(*args, **kwargs), self.world)


def _watched(client: Any, world: World) -> Any:
    client.world, client.ended_at = world, time.monotonic()
    return client


class _Counting(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self._world.count("log records")


def resources(kind: Kind) -> dict[str, int]:
    """What the process has; the least within a second, as threads and connections come and go."""
    samples = []
    for _ in range(50):
        files = [_target(entry) for entry in Path("/proc/self/fd").iterdir()]
        sockets = sum(file.startswith("socket:") for file in files)
        samples.append(
            {
                "threads": threading.active_count(),
                "tasks": len(asyncio.all_tasks(kind.loop)) if isinstance(kind, AsyncKind) else 0,
                "sockets": sockets,
                "other files": len(files) - sockets,
            }
        )
        time.sleep(0.02)
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return {
        **{name: min(sample[name] for sample in samples) for name in samples[0]},
        "Python objects": len(gc.get_objects()),
        "resident memory, kB": int(status.split("VmRSS:")[1].split()[0]),
    }


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def counted(world: World, kind: Kind) -> dict[str, Any]:
    """In calm weather: how the client fares, and what the process has."""
    until = time.monotonic() + 20
    while (state := world.subject.client.status().state) is not State.FRESH and time.monotonic() < until:
        time.sleep(0.1)
    return {"state": state, "resources": resources(kind)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("thread", "async"))
    parser.add_argument("url", help="where the client finds the service")
    parser.add_argument("service_url", help="where operators find it")
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    world = World(arguments.kind)
    kind = _ThreadKind() if arguments.kind == "thread" else _AsyncKind()
    kind.world = world
    log = logging.getLogger("heksher_client")
    log.addHandler(_Counting(world))
    log.propagate = False

    def begin(work: Callable[..., None], *args: Any) -> threading.Thread:
        def watch() -> None:
            try:
                work(*args)
            except BaseException as error:
                world.note_wrong(f"{work.__name__} ended: {error!r}")
                raise

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread

    # In memory, so that nothing waits for a disk. A closed client may still be writing its file.
    with tempfile.TemporaryDirectory(dir=_memory(), ignore_cleanup_errors=True) as folder:
        sources = map(random.Random, count(arguments.seed * 1000))
        threads = [
            begin(world.run_clients, kind, arguments.url, folder, next(sources)),
            begin(world.operate, arguments.service_url, next(sources)),
            *(begin(world.read, next(sources)) for _ in range(READERS)),
        ]
        for question in map(str.strip, sys.stdin):
            if question == "close":
                break
            if question == "count":
                print(json.dumps(counted(world, kind)), flush=True)
                continue
            world.is_resting = question == "rest"
            print("{}", flush=True)
        world.ended.set()
        for thread in threads:
            thread.join()
    counts = {**world.counts, "slowest close, seconds": round(world.slowest_close, 2)}
    print(json.dumps({"counts": counts, "wrong": world.wrong}), flush=True)


def _memory() -> str | None:
    """A folder in memory, if the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


_VALUES = count()


def _call(http: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    response = http.request(method, path, json=body)
    response.raise_for_status()
    return response.json() if response.content else None


if __name__ == "__main__":
    main()
