"""Both clients for a long time, in bad weather: `python -m benchmarks.soak --minutes 60`.

Each client runs in a program of its own (`benchmarks.soak_program`). Between it and a local service stands a server
that stalls, trickles, truncates, resets, redirects, inflates and lies, one at a time and at random, while operators
change, rename and delete what the settings depend on. Every read is compared with what the service held. What each
program has of threads, tasks, sockets, files and memory is counted in calm weather at the beginning and at the end.

Exits with 1 if any read was wrong, if a client is not well again when the weather is, if closing took too long, or if
anything was left over.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from heksher_client.service import LocalService
from tests.support import faults
from tests.support.faults import Connection, Fault, FaultServer

ROOT = Path(__file__).parents[1]
FEATURES = ("environment", "user", "theme")
KINDS = ("thread", "async")
CALM = 8.0
"""Seconds without faults, after which everything has settled."""


def unasked_304(connection: Connection) -> None:
    """To a question that names nothing that could be unchanged."""
    connection.write(connection.pass_on() if "if-none-match" in connection.headers else faults.answer(b"", 304))


WEATHER: dict[str, Fault] = {
    "stall": faults.stall,
    "trickle": faults.trickle,
    "trickle in the head": faults.trickle_head,
    "truncate": faults.truncate,
    "reset": faults.reset,
    "hang up": lambda connection: connection.raw.close(),
    "redirect elsewhere": faults.redirects("http://127.0.0.1:9{path}"),
    "redirect in circles": faults.redirects("{path}"),
    "gzip bomb": faults.inflates(50),
    "proxy's page": faults.says(b"<html>All is well.</html>", headers="Content-Type: text/html\r\n"),
    "empty body": faults.says(b""),
    "null": faults.says(b"null"),
    "no settings": faults.says(b'{"settings": {}}'),
    "nesting": faults.says(b"[" * 200_000),
    "unasked 304": unasked_304,
    **{f"status {status}": faults.says(b"no", status) for status in (204, 400, 401, 403, 404, 413, 422, 500, 502, 503)},
    "status 429": faults.says(b"", 429, "Retry-After: 1\r\n"),
}
"""What may happen to a request."""
STRUCK = ("", "", "/query", "/declare", "/context_features")
"""What it happens to: requests with this in their path."""


class Weather:
    """Breaks a server in random ways, for random times."""

    def __init__(self, server: FaultServer, source: random.Random) -> None:
        self._server, self._random = server, source
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._change, daemon=True)
        self.seen: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._server.break_(None)
        self._server.cut()

    def _change(self) -> None:
        while not self._ended.wait(self._random.uniform(0.2, 2)):
            name = self._random.choice(list(WEATHER))
            self.seen[name] += 1
            self._server.break_(WEATHER[name], self._random.choice(STRUCK))
            self._ended.wait(self._random.uniform(0.1, 2))
            self._server.break_(None)
            if self._random.random() < 0.3:
                self.seen["all connections cut"] += 1
                self._server.cut()


class Program:
    """A program under test, in a process of its own."""

    def __init__(self, kind: str, service_url: str, seed: int) -> None:
        self.kind = kind
        self.server = FaultServer(service_url)
        self.source = random.Random(seed)
        self.server.__enter__()
        command = [sys.executable, "-m", "benchmarks.soak_program", kind, self.server.url, service_url, str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, question: str) -> dict[str, Any]:
        stdin, stdout = _pipes(self._process)
        stdin.write(f"{question}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"the program with the {self.kind} client has ended")
        result: dict[str, Any] = json.loads(answer)
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
    """Run both programs, print what was seen; tells whether all is as it should be."""
    with LocalService(FEATURES) as service:
        programs = [Program(kind, service.url, seed + number) for number, kind in enumerate(KINDS)]
        try:
            warm_up = min(60.0, seconds / 5)
            storm(programs, warm_up)
            before = count(programs)
            weathers = storm(programs, seconds - warm_up)
            after = count(programs)
            ends = [program.ask("close") for program in programs]
        finally:
            for program in programs:
                program.end()
    print(f"Python {platform.python_version()}, {seconds / 60:.0f} minutes, seed {seed}\n")
    return report(before, after, ends, weathers)


def storm(programs: Sequence[Program], seconds: float) -> list[Weather]:
    """Bad weather for so long."""
    weathers = [Weather(program.server, program.source) for program in programs]
    with ExitStack() as stack:
        for weather in weathers:
            stack.enter_context(weather)
        time.sleep(seconds)
    return weathers


def count(programs: Sequence[Program]) -> list[dict[str, Any]]:
    """What the programs have when all has settled: no faults, no operators, and the same client for a while."""
    for program in programs:
        program.ask("rest")
    time.sleep(CALM)
    counts = [program.ask("count") for program in programs]
    for program in programs:
        program.ask("go on")
    return counts


MOST_GROWTH = {
    "threads": 0, "tasks": 0, "sockets": 10, "other files": 1, "Python objects": 2_000, "resident memory, kB": 20_000
}  # fmt: skip
"""By how much these may be more at the end than at the beginning. A client may keep ten connections for its next
requests, and be writing its file; the program itself remembers what its settings were, and Python does not give all
memory back."""
CLOSE = "slowest close, seconds"
LONGEST_CLOSE = 1.0
"""Seconds."""


def report(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    ends: Sequence[dict[str, Any]],
    weathers: Sequence[Weather],
) -> bool:
    """Print a table with a column for each program."""
    rows = [(name, [f"{end['counts'][name]:,}" for end in ends]) for name in ends[0]["counts"]]
    rows.append(("faults", [f"{weather.seen.total():,}" for weather in weathers]))
    for name in before[0]["resources"]:
        now = [(b["resources"][name], a["resources"][name]) for b, a in zip(before, after, strict=True)]
        rows.append((f"{name}, at the beginning and the end", [f"{b:,} / {a:,}" for b, a in now]))
    rows.append(("state at the end", [a["state"] for a in after]))
    print(f"| | {' | '.join(f'{kind} client' for kind in KINDS)} |\n| --- |{' --- |' * len(KINDS)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")
    problems = [
        *(f"{kind} client: {wrong}" for kind, end in zip(KINDS, ends, strict=True) for wrong in end["wrong"]),
        *(
            f"{kind} client: it is {one['state']}"
            for counts in (before, after)
            for kind, one in zip(KINDS, counts, strict=True)
            if one["state"] != "fresh"
        ),
        *(
            f"{kind} client: {name} left over"
            for kind, b, a in zip(KINDS, before, after, strict=True)
            for name, most in MOST_GROWTH.items()
            if a["resources"][name] > b["resources"][name] + most
        ),
        *(
            f"{kind} client: no {what}"
            for kind, end in zip(KINDS, ends, strict=True)
            for what in ("reads", "refreshes")
            if not end["counts"][what]
        ),
        *(
            f"{kind} client: closing took {end['counts'][CLOSE]} seconds"
            for kind, end in zip(KINDS, ends, strict=True)
            if end["counts"][CLOSE] > LONGEST_CLOSE
        ),
    ]
    print("\n" + ("\n".join(problems) or "Nothing was wrong, and nothing is left over."))
    return not problems


def main() -> None:
    parser = argparse.ArgumentParser(description="Both clients for a long time, in bad weather.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    arguments = parser.parse_args()
    if not Path("/proc/self/fd").exists():
        raise SystemExit("the soak counts in /proc, which this system has not")
    raise SystemExit(0 if soak(arguments.minutes * 60, arguments.seed) else 1)


if __name__ == "__main__":
    main()
