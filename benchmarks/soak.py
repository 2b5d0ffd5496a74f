"""A soak test of both clients with fault injection: `python -m benchmarks.soak --minutes 60`.

Each client runs in a program of its own (`benchmarks.soak_program`). A server between it and a local service injects
random faults, one at a time: stalled, slow, truncated, reset, redirected, oversized, former and invalid responses. At
the same time, rules are changed, and settings are renamed and deleted. The result of each read is compared with the
values that the service had. The threads, tasks, sockets, files and memory of each program are counted at the beginning
and at the end, without faults.

Exits with status 1 if a read was wrong, if a client did not recover after the faults, if closing it took too long, or
if resources leaked.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from heksher_client.service import LocalService
from tests.support import faults
from tests.support.faults import Connection, Fault, FaultServer

ROOT = Path(__file__).parents[1]
FEATURES = ("environment", "user", "theme")
KINDS = ("thread", "async")
LAG_SECONDS = 2.0
"""The largest lag of the replica."""
RECOVERY_SECONDS = 8.0
"""Seconds without faults before resources are counted."""


def unexpected_304(connection: Connection) -> None:
    """Respond 304 to a request without an ETag."""
    connection.write(connection.forward() if "if-none-match" in connection.headers else faults.http_response(b"", 304))


class LaggingReplica:
    """A fault: half of the requests of one kind are answered by an instance of the service whose database lags behind.

    The other requests of a refresh are forwarded, as they would be if a load balancer alternated between both.
    """

    def __init__(self) -> None:
        self._responses: dict[str, deque[tuple[float, bytes]]] = {}
        """The last responses to each request, with their times, the oldest first."""
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> None:
        with self._lock:
            since = time.monotonic() - LAG_SECONDS
            recent = [response for at, response in self._responses.get(connection.path, ()) if at > since]
        if recent and random.random() < 0.5:
            connection.write(recent[0])
            return
        response = connection.forward()
        if response.startswith(b"HTTP/1.1 200"):
            with self._lock:
                self._responses.setdefault(connection.path, deque(maxlen=20)).append((time.monotonic(), response))
        connection.write(response)


def refuse_some(connection: Connection) -> None:
    """Refuse the declarations of every third setting."""
    name = json.loads(connection.request.partition(b"\r\n\r\n")[2] or b"{}").get("name", "")
    is_refused = name[-1:] in "0369"
    connection.write(faults.http_response(b"refused", 422) if is_refused else connection.forward())


FAULTS: dict[str, Fault] = {
    "stall": faults.stall,
    "trickle": faults.trickle,
    "trickle in the head": faults.trickle_head,
    "truncate": faults.truncate,
    "reset": faults.reset,
    "close": lambda connection: connection.raw.close(),
    "redirect to another server": faults.redirect_to("http://127.0.0.1:9{path}"),
    "redirect loop": faults.redirect_to("{path}"),
    "gzip bomb": faults.gzip_bomb(50),
    "web page": faults.canned_response(b"<html>Welcome</html>", headers="Content-Type: text/html\r\n"),
    "empty body": faults.canned_response(b""),
    "null": faults.canned_response(b"null"),
    "no settings": faults.canned_response(b'{"settings": {}}'),
    "nesting": faults.canned_response(b"[" * 200_000),
    "unexpected 304": unexpected_304,
    **{
        f"status {status}": faults.canned_response(b"no", status)
        for status in (204, 400, 401, 403, 404, 413, 422, 500, 502, 503)
    },
    "status 429": faults.canned_response(b"", 429, "Retry-After: 1\r\n"),
}
"""The faults, by name."""
PATHS = ("", "", "/query", "/declare", "/context_features", "/changes")
"""Parts of paths. A fault affects the requests whose path contains one of them; most affect all."""
LAG = "lagging replica"
LAG_OF_ORDER = "lagging replica, for the order of the features"
LAGS = (LAG, LAG_OF_ORDER)
COMPRESSED_STREAM = "compressed stream"
FAULTS_OF_PATHS: dict[str, tuple[Callable[[], Fault], str]] = {
    LAG: (LaggingReplica, "/query"),
    LAG_OF_ORDER: (LaggingReplica, "/context_features"),
    COMPRESSED_STREAM: (lambda: lambda connection: connection.relay(compress=True), "/changes"),
    "refused declarations": (lambda: refuse_some, "/declare"),
}
"""Faults of one kind of request, with the path of that request."""


class FaultInjector:
    """Injects random faults into the server of a program, each for a random time."""

    def __init__(self, program: "Program") -> None:
        self._program, self._server, self._random = program, program.server, program.source
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._inject, daemon=True)
        self.injected: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._server.inject(None)
        self._server.disconnect_all()

    def _inject(self) -> None:
        while not self._ended.wait(self._random.uniform(0.2, 2)):
            name = self._random.choice([*FAULTS, *FAULTS_OF_PATHS])
            self.injected[name] += 1
            if name in FAULTS:
                self._server.inject(FAULTS[name], self._random.choice(PATHS))
            else:
                make_fault, path = FAULTS_OF_PATHS[name]
                if name in LAGS:
                    self._program.call("lag")
                self._server.inject(make_fault(), path)
                if name == COMPRESSED_STREAM:
                    self._server.disconnect_all()  # so that the next stream is compressed
            self._ended.wait(self._random.uniform(0.1, 2))
            self._server.inject(None)
            if name in LAGS:
                self._program.call("no lag")
            if self._random.random() < 0.3:
                self.injected["cut all connections"] += 1
                self._server.disconnect_all()


class Program:
    """A program under test, in a process, with the server that injects its faults."""

    def __init__(self, kind: str, service_url: str, seed: int) -> None:
        self.kind = kind
        self.server = FaultServer(service_url)
        self.source = random.Random(seed)
        self.server.__enter__()
        command = [sys.executable, "-m", "benchmarks.soak_program", kind, self.server.url, service_url, str(seed)]
        # glibc has arenas for threads, and returns the free end of the first arena only, so there is no other one.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
        self._lock = threading.Lock()

    def call(self, command: str) -> dict[str, Any]:
        """Send a command to the program, and return its result."""
        stdin, stdout = _pipes(self._process)
        with self._lock:
            stdin.write(f"{command}\n")
            stdin.flush()
            line = stdout.readline()
        if not line:
            raise SystemExit(f"the program with the {self.kind} client has exited")
        result: dict[str, Any] = json.loads(line)
        return result

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self.server.__exit__(None, None, None)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def soak(seconds: float, seed: int) -> bool:
    """Run both programs, and print the results. Returns True if there are no problems."""
    with LocalService(FEATURES) as service:
        programs = [Program(kind, service.url, seed + number) for number, kind in enumerate(KINDS)]
        try:
            warm_up = min(60.0, seconds / 5)
            inject_faults(programs, warm_up)
            before = measure(programs)
            injectors = inject_faults(programs, seconds - warm_up)
            after = measure(programs)
            results = [program.call("close") for program in programs]
        finally:
            for program in programs:
                program.end()
    print(f"Python {platform.python_version()}, {seconds / 60:.0f} minutes, seed {seed}\n")
    return report(before, after, results, injectors)


def inject_faults(programs: Sequence[Program], seconds: float) -> list[FaultInjector]:
    """Inject faults for some seconds."""
    injectors = [FaultInjector(program) for program in programs]
    with ExitStack() as stack:
        for injector in injectors:
            stack.enter_context(injector)
        time.sleep(seconds)
    return injectors


def measure(programs: Sequence[Program]) -> list[dict[str, Any]]:
    """Return the state and the resources of each program, after a time without faults, changes or a new client."""
    for program in programs:
        program.call("pause")
    time.sleep(RECOVERY_SECONDS)
    measured = [program.call("count") for program in programs]
    for program in programs:
        program.call("resume")
    return measured


MAX_GROWTH = {
    "threads": 0, "tasks": 0, "sockets": 10, "other files": 1, "Python objects": 2_000, "resident memory, kB": 20_000
}  # fmt: skip
"""The growth from beginning to end that is not a leak. A client may keep ten connections open, and be writing its file;
the program stores the history of its settings, and Python does not return all memory to the system."""
CLOSE = "slowest close, seconds"
MAX_CLOSE_SECONDS = 1.0


def report(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    injectors: Sequence[FaultInjector],
) -> bool:
    """Print a table with a column for each program, and the problems. Returns True if there are none."""
    rows = [(name, [f"{result['counts'][name]:,}" for result in results]) for name in results[0]["counts"]]
    rows.append(("faults", [f"{injector.injected.total():,}" for injector in injectors]))
    for name in before[0]["resources"]:
        pairs = [(b["resources"][name], a["resources"][name]) for b, a in zip(before, after, strict=True)]
        rows.append((f"{name}, at the beginning and the end", [f"{b:,} / {a:,}" for b, a in pairs]))
    rows.append(("state at the end", [a["state"] for a in after]))
    print(f"| | {' | '.join(f'{kind} client' for kind in KINDS)} |\n| --- |{' --- |' * len(KINDS)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")
    problems = [
        *(f"{kind} client: {wrong}" for kind, result in zip(KINDS, results, strict=True) for wrong in result["wrong"]),
        *(
            f"{kind} client: its state is {program['state']}"
            for measured in (before, after)
            for kind, program in zip(KINDS, measured, strict=True)
            if program["state"] != "fresh"
        ),
        *(
            f"{kind} client: {name} leaked"
            for kind, b, a in zip(KINDS, before, after, strict=True)
            for name, limit in MAX_GROWTH.items()
            if a["resources"][name] > b["resources"][name] + limit
        ),
        *(
            f"{kind} client: no {name}"
            for kind, result in zip(KINDS, results, strict=True)
            for name in ("reads", "refreshes")
            if not result["counts"][name]
        ),
        *(
            f"{kind} client: closing took {result['counts'][CLOSE]} seconds"
            for kind, result in zip(KINDS, results, strict=True)
            if result["counts"][CLOSE] > MAX_CLOSE_SECONDS
        ),
    ]
    print("\n" + ("\n".join(problems) or "No problems: every read was correct, and no resources leaked."))
    return not problems


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak test of both clients with fault injection.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    arguments = parser.parse_args()
    if not Path("/proc/self/fd").exists():
        raise SystemExit("the soak test requires /proc, which this system does not have")
    raise SystemExit(0 if soak(arguments.minutes * 60, arguments.seed) else 1)


if __name__ == "__main__":
    main()
