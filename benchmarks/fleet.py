"""The capacity of a service: latency of responses, polling clients, change streams; on SQLite and PostgreSQL.

Run `python -m benchmarks.fleet`, or with `--short` to check that it works. The processes of the service, the database
and the load generator run on one machine, and share the processors.
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
TARGETS = {(10_000, "304"): 3.0, (10_000, "200"): 15.0, (100_000, "304"): 3.0, (100_000, "200"): 150.0}
"""Milliseconds, by the number of rules and the status of the response."""


def create_settings(url: str, rules: int) -> None:
    """Create a hundred settings, with rules for many users."""
    database = Database(url)
    with database.begin() as connection:
        for feature in FEATURES:
            store.add_context_feature(connection, feature)
        for number in range(100):
            name = f"setting_{number:03}"
            declaration = Declaration(name, tuple(FEATURES), parse_setting_type("int"), 1, {}, "1.0")
            store.add_setting(connection, declaration)
        keys = [setting.id for setting in store.settings(connection)]
        same = {"metadata": {}, "in_effect": True}
        rows = [
            {"setting_id": keys[i % 100], "conditions": f'[["user", "u{i}"]]', "value": i, **same} for i in range(rules)
        ]
        connection.execute(insert(RULES), rows)
    database.close()


class Instance:
    """A process of the service."""

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

    def processor_seconds(self) -> float:
        """Return the processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Return the resident memory."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate()


@contextmanager
def run_instances(database: str, number: int = 1) -> Iterator[list[Instance]]:
    instances = [Instance(database) for _ in range(number)]
    try:
        yield instances
    finally:
        for instance in instances:
            instance.end()


def latencies(url: str, times: int) -> dict[str, tuple[float, float]]:
    """Measure the latency of responses over one connection: median and 99th percentile, in milliseconds, by status."""
    with httpx.Client(base_url=url) as http:
        first = http.get("/api/v1/query")
        etag = {"If-None-Match": first.headers["etag"]}
        return {
            "304": _milliseconds(lambda: http.get("/api/v1/query", headers=etag), 304, times),
            "200": _milliseconds(lambda: http.get("/api/v1/query"), 200, max(10, times // 10)),
        }


def _milliseconds(request: Callable[[], httpx.Response], status: int, times: int) -> tuple[float, float]:
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        assert request().status_code == status
        durations.append((time.perf_counter() - started) * 1000)
    return statistics.median(durations), sorted(durations)[int(len(durations) * 0.99)]


async def poll(port: int, request: bytes, times: int) -> list[float]:
    """Send conditional requests over one connection, and return their durations in milliseconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 304 " in head.partition(b"\r\n")[0], head
        durations.append((time.perf_counter() - started) * 1000)
    writer.close()
    return durations


def conditional(url: str) -> bytes:
    """Return a conditional request to which the response is 304."""
    etag = httpx.get(f"{url}/api/v1/query").headers["etag"]
    return f"GET /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {etag}\r\n\r\n".encode()


def capacity(urls: Sequence[str], each: int) -> float:
    """Measure the responses (304) per second over 50 connections, each of which sends its next request immediately."""
    request = conditional(urls[0])
    ports = [int(url.rpartition(":")[2]) for url in urls]

    async def all_connections() -> int:
        results = await asyncio.gather(*(poll(ports[i % len(ports)], request, each) for i in range(50)))
        return sum(map(len, results))

    started = time.perf_counter()
    number = asyncio.run(all_connections())
    return number / (time.perf_counter() - started)


def simulate_clients(instances: Sequence[Instance], clients: int, interval: float) -> tuple[int, float, float, int]:
    """Simulate clients that send one request each during the interval, each over a connection of its own.

    Returns:
        The number of requests, the median and 99th percentile of their durations in milliseconds, and failures.
    """
    request = conditional(instances[0].url)
    durations: list[float] = []
    failures = 0

    async def one_client(number: int) -> None:
        nonlocal failures
        await asyncio.sleep(interval * number / clients)
        started = time.perf_counter()
        try:
            await poll(instances[number % len(instances)].port, request, 1)
        except (OSError, AssertionError, asyncio.IncompleteReadError):
            failures += 1
        durations.append((time.perf_counter() - started) * 1000)

    async def all_clients() -> None:
        await asyncio.gather(*(one_client(number) for number in range(clients)))

    asyncio.run(all_clients())
    return len(durations), statistics.median(durations), sorted(durations)[int(len(durations) * 0.99)], failures


def measure_streams(instance: Instance, number: int, idle: float) -> dict[str, float]:
    """Measure the cost of idle change streams, and the time until the first and the last receive a change."""

    async def follow(ready: asyncio.Event, received: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
        writer.write(b"GET /api/v1/changes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"event: hello")
        ready.set()
        await reader.readuntil(b"event: change")
        received.append(time.perf_counter())
        writer.close()

    async def all_streams() -> dict[str, float]:
        memory = instance.megabytes()
        received: list[float] = []
        ready_events = [asyncio.Event() for _ in range(number)]
        tasks = [asyncio.create_task(follow(ready, received)) for ready in ready_events]
        for ready in ready_events:
            await ready.wait()
        grown, processor = instance.megabytes() - memory, instance.processor_seconds()
        await asyncio.sleep(idle)
        busy = (instance.processor_seconds() - processor) / idle
        loop = asyncio.get_running_loop()
        value = int(time.time())
        rule = {"setting": "setting_000", "feature_values": {"theme": f"t{value}"}, "value": 1}
        started = time.perf_counter()
        await loop.run_in_executor(None, lambda: http.post("/api/v1/rules", json=rule).raise_for_status())
        await asyncio.gather(*tasks)
        milliseconds = sorted((received_at - started) * 1000 for received_at in received)
        return {"kilobytes": grown * 1024 / number, "busy": busy, "first": milliseconds[0], "last": milliseconds[-1]}

    with httpx.Client(base_url=instance.url) as http:
        http.get("/api/ready")
        return asyncio.run(all_streams())


def change_latencies(instance: Instance, times: int) -> list[float]:
    """Measure the milliseconds from a change to the first read of the new value, in a client that polls hourly."""
    setting = Setting("setting_000", int, FEATURES, 1)
    durations = []
    with httpx.Client(base_url=instance.url) as http, ThreadHeksherClient(instance.url, 3600, FEATURES) as client:
        client.set_defaults(environment="none", user="none", theme="none")
        rule = {"setting": "setting_000", "feature_values": {"user": "jim"}, "value": -1}
        number = http.post("/api/v1/rules", json=rule).json()["rule_id"]
        while not client.status().is_following or setting.get(user="jim") != -1:
            time.sleep(0.01)
        for value in range(times):
            started = time.perf_counter()
            http.put(f"/api/v1/rules/{number}/value", json={"value": value}).raise_for_status()
            while setting.get(user="jim") != value:
                time.sleep(0.0005)
            durations.append((time.perf_counter() - started) * 1000)
            time.sleep(1.1)  # A client refreshes at most about once a second.
    return sorted(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="check that it works, without meaningful figures")
    short: bool = parser.parse_args().short
    sizes = [1_000] if short else [10_000, 100_000]
    print(f"CPython {platform.python_version()}, {os.cpu_count()} processors for all processes")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o711)  # PostgreSQL does not run as root, and must be able to enter the folder.
        (folder / "postgresql").mkdir()
        server = stack.enter_context(PostgreSQL(folder / "postgresql"))
        for rules in sizes:
            for name in ("SQLite", "PostgreSQL"):
                url = f"sqlite:///{folder}/{rules}.db" if name == "SQLite" else server.empty()
                create_settings(url, rules)
                report(name, url, rules, short=short)


def report(name: str, url: str, rules: int, *, short: bool) -> None:
    print(f"\n{name}, {rules:,} rules in 100 settings")
    with run_instances(url) as (instance,):
        for status, (median, p99) in latencies(instance.url, 30 if short else 300).items():
            limit = TARGETS.get((rules, status))
            target = f"; target: {limit:g} ms" if limit else ""
            print(f"  response {status}: median {median:.2f} ms, p99 {p99:.2f} ms{target}")
    if rules > 10_000:
        return
    for number in (3,) if short else (1, 3):
        with run_instances(url, number) as instances:
            rate = capacity([instance.url for instance in instances], 10 if short else 100)
            print(f"  {number} instances: {rate:,.0f} responses (304) per second")
            clients, interval = (200, 1.0) if short else (10_000, 60.0)
            requests, median, p99, failures = simulate_clients(instances, clients, interval)
            print(
                f"  {number} instances, {clients:,} clients that poll every {interval:g} s: {requests:,} requests, "
                f"median {median:.1f} ms, p99 {p99:.1f} ms, {failures} failures"
            )
    with run_instances(url) as (instance,), TemporaryDirectory() as folder:
        if NGINX is not None:
            with Nginx(Path(folder), instance.url, is_caching=True) as nginx:
                rate = capacity([nginx.url], 10 if short else 400)
                print(f"  1 instance behind a caching nginx: {rate:,.0f} responses (304) per second")
        number = 50 if short else 1_000
        figures = measure_streams(instance, number, 1.0 if short else 30.0)
        print(f"  {number:,} idle streams: {figures['kilobytes']:.0f} kB each, {figures['busy']:.1%} of a processor")
        print(f"  a change reaches the first after {figures['first']:.0f} ms, the last after {figures['last']:.0f} ms")
        durations = change_latencies(instance, 3 if short else 30)
        print(
            f"  from a change to a read of the new value: median {statistics.median(durations):.0f} ms, "
            f"maximum {durations[-1]:.0f} ms; target: 100 ms"
        )


if __name__ == "__main__":
    main()
