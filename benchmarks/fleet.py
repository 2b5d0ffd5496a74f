"""What one service carries: the cost of an answer, a fleet that polls, streams of changes; on SQLite and PostgreSQL.

`python -m benchmarks.fleet`; `--short` to see that it works. The service's processes, the database and the load are on
one machine, and share its processors.
"""

import argparse
import asyncio
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from sqlalchemy import insert

from heksher_client import Setting, ThreadHeksherClient
from heksher_client.service import store
from heksher_client.service.database import Database
from heksher_client.service.declarations import Declaration
from heksher_client.service.schema import RULES
from heksher_client.service.setting_types import parse_setting_type
from tests.support.nginx import NGINX, Nginx
from tests.support.postgresql import PostgreSQL

FEATURES = ["environment", "user", "theme"]
BARS = {(10_000, "304"): 3.0, (10_000, "200"): 15.0, (100_000, "304"): 3.0, (100_000, "200"): 150.0}
"""Milliseconds, by the number of rules."""


def fill(url: str, rules: int) -> None:
    """A hundred settings, and rules for many users on them."""
    database = Database(url)
    with database.begin() as connection:
        for feature in FEATURES:
            store.add_context_feature(connection, feature)
        for number in range(100):
            name = f"setting_{number:03}"
            declared = Declaration(name, tuple(FEATURES), parse_setting_type("int"), 1, {}, "1.0")
            store.add_setting(connection, declared)
        keys = [held.id for held in store.settings(connection)]
        rows = [
            {"setting_id": keys[i % 100], "conditions": f'[["user", "u{i}"]]', "value": i, "metadata": {}}
            for i in range(rules)
        ]
        connection.execute(insert(RULES), rows)
    database.close()


class Instance:
    """A process that serves a database."""

    def __init__(self, database: str) -> None:
        command = [
            sys.executable,
            "-m",
            "heksher_client.cli",
            "serve",
            "--port",
            "0",
            "--no-access-log",
            "--no-access-control",
        ]
        self.process = subprocess.Popen(
            [*command, "--database", database], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        with httpx.Client(base_url=self.url) as http:
            while True:
                try:
                    http.get("/api/ready")
                    return
                except httpx.HTTPError:
                    time.sleep(0.05)

    def seconds(self) -> float:
        """Of the processor, so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Of resident memory."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate()


@contextmanager
def serving(database: str, number: int = 1) -> Iterator[list[Instance]]:
    instances = [Instance(database) for _ in range(number)]
    try:
        yield instances
    finally:
        for instance in instances:
            instance.end()


def answers(url: str, times: int) -> dict[str, tuple[float, float]]:
    """Milliseconds for an answer, seen from a client with one connection: the median, and the 99th percentile."""
    with httpx.Client(base_url=url) as http:
        first = http.get("/api/v1/query")
        etag = {"If-None-Match": first.headers["etag"]}
        return {
            "304": _milliseconds(lambda: http.get("/api/v1/query", headers=etag), 304, times),
            "200": _milliseconds(lambda: http.get("/api/v1/query"), 200, max(10, times // 10)),
        }


def _milliseconds(ask: Callable[[], httpx.Response], status: int, times: int) -> tuple[float, float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        assert ask().status_code == status
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)]


async def poll(port: int, request: bytes, times: int) -> list[float]:
    """One client with a connection that is kept; the milliseconds of its requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 304 " in head.partition(b"\r\n")[0], head
        taken.append((time.perf_counter() - began) * 1000)
    writer.close()
    return taken


def conditional(url: str) -> bytes:
    """A question whose answer has not changed."""
    etag = httpx.get(f"{url}/api/v1/query").headers["etag"]
    return f"GET /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {etag}\r\n\r\n".encode()


def capacity(urls: Sequence[str], each: int) -> float:
    """Requests a second that are answered with 304, asked by 50 connections as fast as the answers come."""
    request = conditional(urls[0])
    ports = [int(url.rpartition(":")[2]) for url in urls]

    async def all_of_them() -> int:
        found = await asyncio.gather(*(poll(ports[i % len(ports)], request, each) for i in range(50)))
        return sum(map(len, found))

    began = time.perf_counter()
    number = asyncio.run(all_of_them())
    return number / (time.perf_counter() - began)


def fleet(instances: Sequence[Instance], clients: int, interval: float) -> tuple[int, float, float, int]:
    """Clients that each ask once in the interval, each over a connection of its own.

    Returns:
        Requests, the median and the 99th percentile in milliseconds, and failures.
    """
    request = conditional(instances[0].url)
    taken: list[float] = []
    failures = 0

    async def one(number: int) -> None:
        nonlocal failures
        await asyncio.sleep(interval * number / clients)
        began = time.perf_counter()
        try:
            await poll(instances[number % len(instances)].port, request, 1)
        except (OSError, AssertionError, asyncio.IncompleteReadError):
            failures += 1
        taken.append((time.perf_counter() - began) * 1000)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(clients)))

    asyncio.run(all_of_them())
    return len(taken), statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)], failures


def streams(instance: Instance, number: int, idle: float) -> dict[str, float]:
    """Open streams; their cost while nothing happens, and how long it takes until all have heard of a change."""

    async def follow(ready: asyncio.Event, heard: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
        writer.write(b"GET /api/v1/changes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"event: hello")
        ready.set()
        await reader.readuntil(b"event: change")
        heard.append(time.perf_counter())
        writer.close()

    async def all_of_them() -> dict[str, float]:
        memory = instance.megabytes()
        heard: list[float] = []
        gates = [asyncio.Event() for _ in range(number)]
        tasks = [asyncio.create_task(follow(gate, heard)) for gate in gates]
        for gate in gates:
            await gate.wait()
        grown, processor = instance.megabytes() - memory, instance.seconds()
        await asyncio.sleep(idle)
        busy = (instance.seconds() - processor) / idle
        loop = asyncio.get_running_loop()
        value = int(time.time())
        rule = {"setting": "setting_000", "feature_values": {"theme": f"t{value}"}, "value": 1}
        began = time.perf_counter()
        await loop.run_in_executor(None, lambda: http.post("/api/v1/rules", json=rule).raise_for_status())
        await asyncio.gather(*tasks)
        milliseconds = sorted((moment - began) * 1000 for moment in heard)
        return {"kilobytes": grown * 1024 / number, "busy": busy, "first": milliseconds[0], "last": milliseconds[-1]}

    with httpx.Client(base_url=instance.url) as http:
        http.get("/api/ready")
        return asyncio.run(all_of_them())


def until_read(instance: Instance, times: int) -> list[float]:
    """Milliseconds from a rule's change to the first read that gives the new value, by a client that polls hourly."""
    setting = Setting("setting_000", int, FEATURES, 1)
    taken = []
    with httpx.Client(base_url=instance.url) as http, ThreadHeksherClient(instance.url, 3600, FEATURES) as client:
        client.set_defaults(environment="none", user="none", theme="none")
        rule = {"setting": "setting_000", "feature_values": {"user": "somebody"}, "value": -1}
        number = http.post("/api/v1/rules", json=rule).json()["rule_id"]
        while not client.status().is_following or setting.get(user="somebody") != -1:
            time.sleep(0.01)
        for value in range(times):
            began = time.perf_counter()
            http.put(f"/api/v1/rules/{number}/value", json={"value": value}).raise_for_status()
            while setting.get(user="somebody") != value:
                time.sleep(0.0005)
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(1.1)  # One change after the other; of many in a row, a client asks about one a second.
    return sorted(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only see that it works")
    short: bool = parser.parse_args().short
    sizes = [1_000] if short else [10_000, 100_000]
    print(f"CPython {platform.python_version()}, {os.cpu_count()} processors for all of it")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o711)  # PostgreSQL does not run as root, and has to come by.
        (folder / "postgresql").mkdir()
        server = stack.enter_context(PostgreSQL(folder / "postgresql"))
        for rules in sizes:
            for name in ("SQLite", "PostgreSQL"):
                url = f"sqlite:///{folder}/{rules}.db" if name == "SQLite" else server.empty()
                fill(url, rules)
                report(name, url, rules, short=short)


def report(name: str, url: str, rules: int, *, short: bool) -> None:
    print(f"\n{name}, {rules:,} rules on 100 settings")
    with serving(url) as (instance,):
        for status, (median, late) in answers(instance.url, 30 if short else 300).items():
            bar = BARS.get((rules, status))
            to_reach = f"; to reach: {bar:g} ms" if bar else ""
            print(f"  a {status}: {median:.2f} ms, 99 % within {late:.2f} ms{to_reach}")
    if rules > 10_000:
        return
    for number in (1, 3):
        with serving(url, number) as instances:
            answered = capacity([instance.url for instance in instances], 10 if short else 100)
            print(f"  {number} instances: {answered:,.0f} answers (304) a second")
            clients, interval = (200, 1.0) if short else (10_000, 60.0)
            asked, median, late, failures = fleet(instances, clients, interval)
            print(
                f"  {number} instances, {clients:,} clients that ask every {interval:g} s: {asked:,} answers, "
                f"{median:.1f} ms, 99 % within {late:.1f} ms, {failures} failures"
            )
    with serving(url) as (instance,), TemporaryDirectory() as folder:
        if NGINX is not None:
            with Nginx(Path(folder), instance.url, is_caching=True) as nginx:
                answered = capacity([nginx.url], 10 if short else 400)
                print(f"  1 instance behind nginx with its cache: {answered:,.0f} answers (304) a second")
        number = 50 if short else 1_000
        held = streams(instance, number, 1.0 if short else 30.0)
        print(f"  {number:,} idle streams: {held['kilobytes']:.0f} kB each, {held['busy']:.1%} of a processor")
        print(f"  a change is heard by the first after {held['first']:.0f} ms, by the last after {held['last']:.0f} ms")
        taken = until_read(instance, 3 if short else 30)
        print(
            f"  from a change to a read that gives it: {statistics.median(taken):.0f} ms, at most {taken[-1]:.0f} ms; "
            "to reach: 100 ms"
        )


if __name__ == "__main__":
    main()
