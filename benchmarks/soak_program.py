"""The program that `benchmarks.soak` tests: it reads settings continuously, and checks the result of each read.

No value of a rule is used twice, so a value identifies its setting, user and time. A read is correct if the service had
the value at some time after the start of the last successful refresh, or up to `LAG_SECONDS` earlier if an instance of
the service lagged. No client returns a value that is older than one that it has returned before. When a client is
replaced, its settings may be declared again, as in a new process. Until the first successful refresh, such settings may
return their declared defaults as well, if the last-known-good file does not contain them.
"""

import argparse
import asyncio
import ctypes
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

from benchmarks.soak import FEATURES, LAG_SECONDS
from heksher_client import AsyncHeksherClient, HeksherError, Setting, State, ThreadHeksherClient
from tests.support.clients import AsyncKind, Kind, Subject, ThreadKind

SETTINGS = 12
USERS = ("ann", "ben", "cem", "dora")
READERS = 2
MAX_HISTORY = 400
"""Values kept for a setting and user: many more than change during an outage."""
COUNTED = (
    "reads", "wrong reads", "changes by operators", "refreshes", "refreshes that failed", "clients started",
    "starts that failed", "starts from the file", "log records",
)  # fmt: skip
MAX_LISTED = 10
"""Different wrong reads that are listed."""


class ValueHistory:
    """The values that the service had for a setting and a user, in order."""

    def __init__(self, default: int) -> None:
        self.default = default
        self.rule: int | None = None
        """The id of the current rule; None if the default applies."""
        self._values: deque[tuple[int, float]] = deque([(default, 0.0)], maxlen=MAX_HISTORY)
        """Each value, with the latest time at which the service may still have had the previous one."""
        self._lock = threading.Lock()

    @contextmanager
    def change_to(self, value: int) -> Iterator[None]:
        """Record a change made in the block. Both values are valid until it ends; only the old one if it fails."""
        with self._lock:
            self._values.append((value, float("inf")))
        try:
            yield
        except BaseException:
            with self._lock:
                self._values.pop()
            raise
        with self._lock:
            self._values[-1] = (value, time.monotonic())

    def values_since(self, start: float) -> list[int]:
        """Return all values at that time or later."""
        values = []
        with self._lock:
            for value, previous_until in reversed(self._values):
                values.append(value)
                if previous_until < start:
                    break
        return values


class Program:
    """The settings and the client of the program, and the values that the service had."""

    def __init__(self, name: str) -> None:
        self.defaults = {f"{name}{i}": -1 - i for i in range(SETTINGS)}
        self.histories = {
            (name, user): ValueHistory(default) for name, default in self.defaults.items() for user in USERS
        }
        self.names = {name: name for name in self.defaults}
        """The current names of the settings in the service."""
        self.declare()
        self.fresh_since = 0.0
        """A time before the start of the last successful refresh."""
        self.lagging_until = 0.0
        """The time until which an instance of the service lagged: infinite while it does."""
        self.is_new = True
        """True until the first successful refresh after a declaration of the settings."""
        self.clients = 0
        """The number of clients so far."""
        self.subject: Subject
        """The current client."""
        self.is_paused = False
        """True while no changes are made, and the client is not replaced."""
        self.counts = dict.fromkeys(COUNTED, 0)
        self.slowest_close = 0.0
        self.wrong: list[str] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def declare(self) -> None:
        """Declare all settings, as in a new process."""
        self.is_new = True
        self.settings = {name: Setting(name, int, ["user"], default) for name, default in self.defaults.items()}
        gc.collect()  # A new process would not contain the previous settings, some hundred kilobytes.

    def obey(self, command: str) -> None:
        """Stop or continue changes, or record that an instance of the service lags or no longer does."""
        if command in ("pause", "resume"):
            self.is_paused = command == "pause"
        else:
            self.lagging_until = float("inf") if command == "lag" else time.monotonic()

    # -- readers -------------------------------------------------------------------------------------------------------

    def read(self, source: random.Random) -> None:
        """Read random settings until the end."""
        histories = list(self.histories.items())
        newest: dict[tuple[str, str], int] = {}
        """The newest value that the current client has returned, by setting and user. Values of rules increase."""
        clients = 0
        while not self.ended.wait(0.01):
            for (name, user), history in source.choices(histories, k=100):
                since, is_new = self.fresh_since, self.is_new
                if clients != self.clients:  # Another client, as in another process, may be served by the replica.
                    clients = self.clients
                    newest.clear()
                try:
                    value = self.settings[name].get(user=user)
                except Exception as error:
                    self.record_wrong(f"{name} for {user} raised {error!r}")
                    continue
                may_be_default = is_new or self.is_new
                valid = [*history.values_since(since), *([history.default] if may_be_default else [])]
                if value not in valid:
                    self.record_wrong(f"{name} for {user} is {value}; valid values are {valid}")
                last = newest.get((name, user), value)
                if 0 <= value < last and clients == self.clients:
                    self.record_wrong(f"{name} for {user} went back from {last} to {value}")
                newest[name, user] = max(value, last)
            self.count("reads", 100)

    def record_wrong(self, problem: str) -> None:
        self.count("wrong reads")
        if problem not in self.wrong:
            self.wrong = [*self.wrong, problem][:MAX_LISTED]

    # -- changes -------------------------------------------------------------------------------------------------------

    def change_service(self, service_url: str, source: random.Random) -> None:
        """Change random settings and rules of the service until the end."""
        with httpx.Client(base_url=service_url, timeout=60) as http:
            while not self.ended.wait(source.expovariate(1 / 0.04)):
                if self.is_paused:
                    continue
                with suppress(httpx.HTTPStatusError):  # The setting is not declared, or not declared again, yet.
                    self._change(http, source)
                    self.count("changes by operators")

    def _change(self, http: httpx.Client, source: random.Random) -> None:
        name, user = source.choice(list(self.histories))
        history, choice = self.histories[name, user], source.random()
        if choice < 0.02:
            self._delete(http, name)
        elif choice < 0.05:
            self._rename(http, name)
        elif history.rule is None:
            with history.change_to(value := next(_VALUES)):
                rule = {"setting": self.names[name], "feature_values": {"user": user}, "value": value}
                history.rule = _call(http, "POST", "/api/v1/rules", rule)["rule_id"]
        elif choice < 0.3:
            with history.change_to(history.default):
                _call(http, "DELETE", f"/api/v1/rules/{history.rule}")
            history.rule = None
        else:
            with history.change_to(value := next(_VALUES)):
                _call(http, "PUT", f"/api/v1/rules/{history.rule}/value", {"value": value})

    def _delete(self, http: httpx.Client, name: str) -> None:
        """Delete a setting with its rules. The program will declare it again."""
        histories = [self.histories[name, user] for user in USERS]
        with ExitStack() as changes:
            for history in histories:
                changes.enter_context(history.change_to(history.default))
            _call(http, "DELETE", f"/api/v1/settings/{self.names[name]}")
        for history in histories:
            history.rule = None
        self.names[name] = name

    def _rename(self, http: httpx.Client, name: str) -> None:
        """Rename a setting, as a newer version of the program would. The program continues to use the previous name."""
        if self.names[name] != name:
            return
        new = f"{name}_renamed"
        declaration = {"name": new, "type": "int", "default_value": self.defaults[name], "alias": name,
                       "configurable_features": ["user"], "version": "1.1"}  # fmt: skip
        _call(http, "POST", "/api/v1/settings/declare", declaration)
        self.names[name] = new

    # -- the client ----------------------------------------------------------------------------------------------------

    def run_clients(self, kind: Kind, url: str, folder: str, source: random.Random) -> None:
        """Run one client after the other, with occasional reloads, until the end."""
        while not self.ended.is_set():
            subject = Subject(
                kind, url, 0.2, FEATURES, jitter=0.1, start_timeout=4, request_timeout=1, max_backoff=1,
                max_response_bytes=1 << 22, last_known_good=Path(folder, "settings.json"),
            )  # fmt: skip
            subject.client.set_defaults(user="none")
            self.count("clients started")
            self.clients += 1
            try:
                subject.start()
            except HeksherError:
                self.count("starts that failed")
                self.ended.wait(source.uniform(0.1, 1))
                continue
            self.subject = subject
            if subject.client.status().is_last_known_good:
                self.count("starts from the file")
            deadline = time.monotonic() + source.uniform(3, 15)
            while not self.ended.wait(source.uniform(0.5, 2)) and (self.is_paused or time.monotonic() < deadline):
                with suppress(HeksherError, TimeoutError):  # Timeouts happen on a busy machine.
                    subject.reload()
            started = time.monotonic()
            subject.close()
            self.slowest_close = max(self.slowest_close, time.monotonic() - started)
            if source.random() < 0.5:
                self.declare()


class _Hooks:
    """Hooks of the clients, which record successful and failed refreshes."""

    program: Program
    ended_at: float
    """The end of the last refresh, which is before the start of the next one."""
    began_after: float
    """A time before the start of the last refresh of all settings. If it failed for some of them, only these are tried
    again, and a success then shows nothing new about the others."""

    def on_update_ok(self) -> None:
        lag = LAG_SECONDS if self.program.lagging_until >= self.began_after else 0.0
        self.program.fresh_since = max(self.program.fresh_since, self.began_after - lag)
        self.ended_at = self.began_after = time.monotonic()
        self.program.is_new = False
        self.program.count("refreshes")

    def on_update_error(self, _: Exception, /) -> None:
        self.began_after, self.ended_at = self.ended_at, time.monotonic()
        self.program.count("refreshes that failed")


class _HookedThreadClient(_Hooks, ThreadHeksherClient):
    pass


class _HookedAsyncClient(_Hooks, AsyncHeksherClient):
    pass


class _ThreadKind(ThreadKind):
    program: Program

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return _with_program(_HookedThreadClient(*args, **kwargs), self.program)


class _AsyncKind(AsyncKind):
    program: Program

    def make(self, *args: Any, **kwargs: Any) -> Any:
        return _with_program(_HookedAsyncClient(*args, **kwargs), self.program)


def _with_program(client: Any, program: Program) -> Any:
    client.program = program
    client.ended_at = client.began_after = time.monotonic()
    return client


class _CountingHandler(logging.Handler):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self._program.count("log records")


def resources(kind: Kind) -> dict[str, int]:
    """Count the resources of the process: the minimum within a second, because the numbers vary."""
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
    with suppress(OSError, AttributeError):  # glibc only, which keeps free memory
        ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return {
        **{name: min(sample[name] for sample in samples) for name in samples[0]},
        "Python objects": len(gc.get_objects()),
        "resident memory, kB": int(status.split("VmRSS:")[1].split()[0]),
    }


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # The file has been closed since it was listed.
        return ""


def measure(program: Program, kind: Kind) -> dict[str, Any]:
    """Return the state of the client, once it has recovered, and the resources of the process."""
    deadline = time.monotonic() + 20
    while (state := program.subject.client.status().state) is not State.FRESH and time.monotonic() < deadline:
        time.sleep(0.1)
    return {"state": state, "resources": resources(kind)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("thread", "async"))
    parser.add_argument("url", help="URL of the server that injects faults")
    parser.add_argument("service_url", help="URL of the service")
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    program = Program(arguments.kind)
    kind = _ThreadKind() if arguments.kind == "thread" else _AsyncKind()
    kind.program = program
    log = logging.getLogger("heksher_client")
    log.addHandler(_CountingHandler(program))
    log.propagate = False

    def start(work: Callable[..., None], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:
                program.record_wrong(f"{work.__name__} ended: {error!r}")
                raise

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    # In memory, so that no write waits for a disk. A closed client may still be writing its file.
    with tempfile.TemporaryDirectory(dir=_memory_folder(), ignore_cleanup_errors=True) as folder:
        sources = map(random.Random, count(arguments.seed * 1000))
        threads = [
            start(program.run_clients, kind, arguments.url, folder, next(sources)),
            start(program.change_service, arguments.service_url, next(sources)),
            *(start(program.read, next(sources)) for _ in range(READERS)),
        ]
        for command in map(str.strip, sys.stdin):
            if command == "close":
                break
            if command == "count":
                print(json.dumps(measure(program, kind)), flush=True)
                continue
            program.obey(command)
            print("{}", flush=True)
        program.ended.set()
        for thread in threads:
            thread.join()
    counts = {**program.counts, "slowest close, seconds": round(program.slowest_close, 2)}
    print(json.dumps({"counts": counts, "wrong": program.wrong}), flush=True)


def _memory_folder() -> str | None:
    """Return a folder in memory, if the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


_VALUES = count()


def _call(http: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    response = http.request(method, path, json=body)
    response.raise_for_status()
    return response.json() if response.content else None


if __name__ == "__main__":
    main()
