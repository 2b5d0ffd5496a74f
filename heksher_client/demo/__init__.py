"""The demo: a service, the settings of a shop with about fifty rules, and two workers that read them.

The settings are declared in `shop`, as in a program. This module does the rest: it creates the rules of `shop.json`,
shows the values that result from them, changes some rules while the workers run, and waits until both workers have
read each change.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from multiprocessing.connection import Connection
from typing import Any, Final

import httpx

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table
except ImportError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError("the demo requires extra packages: pip install 'heksher_client[cli,service]'") from error

from heksher_client import HeksherError, Reason, Resolution
from heksher_client._auth.http_clients import create_client
from heksher_client.demo import shop
from heksher_client.demo.workers import ReadValue, run_asyncio_worker, run_thread_worker_process
from heksher_client.service import LocalService

_TIMEOUT: Final = 60.0
"""Seconds within which a worker must read a change."""
_REQUEST_TIMEOUT: Final = 60.0
"""The timeout of each step of a request. The demo also runs on busy machines."""
_ASYNCIO_WORKER: Final = "asyncio worker"
_THREAD_WORKER: Final = "thread worker"


class DemoError(Exception):
    """The demo cannot continue; the message says why."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one rule, and the value that one visitor gets as a result."""

    description: str
    setting: str
    conditions: Mapping[str, str]
    value: Any
    """None to remove the rule."""
    visitor: shop.Visitor
    expected: str


_GUEST, _JIM, _PARTNER = shop.VISITORS
_CHANGES: Final = (
    _Change("Give jim a larger cache", "shop.cache_size", {"environment": "prod", "user": "jim"}, 8000, _JIM, "8000"),
    _Change("Enable the new checkout in prod", "shop.new_checkout", {"environment": "prod"}, True, _GUEST, "True"),
    _Change("Let partners pay by card as well", "shop.payment_methods", {"user": "partner"},
            ["CARD", "INVOICE", "TRANSFER"], _PARTNER, "card transfer invoice"),
    _Change("Remove the greeting for partners", "shop.greeting", {"user": "partner", "theme": "compact"}, None,
            _PARTNER, "Hi"),
)  # fmt: skip


@dataclass(slots=True)
class _ReadValues:
    """The latest values that the workers have read."""

    values: dict[tuple[str, str, str], str] = field(default_factory=dict)
    updated: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def record(self, worker: str, read: ReadValue) -> None:
        visitor, setting, value = read
        async with self.updated:
            self.values[worker, visitor, setting] = value
            self.updated.notify_all()

    async def wait_for(self, worker: str, visitor: shop.Visitor, setting: str, value: str | None) -> None:
        """Wait until a worker has read this value, or any value if None is given."""
        key = (worker, str(visitor), setting)

        def is_read() -> bool:
            return key in self.values if value is None else self.values.get(key) == value

        async with self.updated:
            try:
                await asyncio.wait_for(self.updated.wait_for(is_read), _TIMEOUT)
            except TimeoutError:
                raise DemoError(f"the {worker} did not read {setting} = {value} within {_TIMEOUT:g} seconds") from None


class _ServiceAPI:
    """The HTTP interface of the service, as far as the demo changes settings and rules."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._created: list[str] = []
        """The settings to delete at the end."""

    async def load(self, data: Mapping[str, Any]) -> int:
        """Create context features, settings and rules.

        Returns:
            The number of rules.

        Raises:
            DemoError: Settings of the same names exist. They may be in use, so the demo does not change them.
        """
        names = {setting["name"] for setting in data["settings"]}
        existing = sorted(names & {setting["name"] for setting in await self._list("/api/v1/settings", "settings")})
        if existing:
            raise DemoError(f"these settings already exist in the service; delete them first: {', '.join(existing)}")
        features = await self.features()
        for feature in data["context_features"]:
            if feature not in features:
                await self._request("POST", "/api/v1/context_features", {"context_feature": feature})
        for setting in data["settings"]:
            declaration = {key: value for key, value in setting.items() if key != "rules"}
            await self._request("POST", "/api/v1/settings/declare", declaration)
            self._created.append(setting["name"])
            for rule in setting["rules"]:
                await self.put_rule(setting["name"], rule["feature_values"], rule["value"])
        return sum(len(setting["rules"]) for setting in data["settings"])

    async def features(self) -> list[str]:
        """Return the context features, in the order of the service."""
        return await self._list("/api/v1/context_features", "context_features")

    async def put_rule(self, setting: str, conditions: Mapping[str, str], value: Any) -> None:
        """Add a rule, or change the value of the one with these conditions."""
        rule_id = await self._find_rule(setting, conditions)
        if rule_id is None:
            body = {"setting": setting, "feature_values": conditions, "value": value}
            await self._request("POST", "/api/v1/rules", body)
        else:
            await self._request("PUT", f"/api/v1/rules/{rule_id}/value", {"value": value})

    async def remove_rule(self, setting: str, conditions: Mapping[str, str]) -> None:
        """Delete the rule with these conditions."""
        await self._request("DELETE", f"/api/v1/rules/{await self._find_rule(setting, conditions)}")

    async def delete_created_settings(self) -> None:
        """Delete the settings that `load` has created."""
        while self._created:
            await self._request("DELETE", f"/api/v1/settings/{self._created.pop()}")

    async def _find_rule(self, setting: str, conditions: Mapping[str, str]) -> int | None:
        text = ",".join(f"{feature}:{value}" for feature, value in conditions.items())
        response = await self._http.get("/api/v1/rules/search", params={"setting": setting, "feature_values": text})
        return None if response.status_code == 404 else int(response.raise_for_status().json()["rule_id"])

    async def _list(self, path: str, key: str) -> list[Any]:
        response = await self._request("GET", path)
        try:
            return list(response.json()[key])
        except (ValueError, KeyError, TypeError):
            raise self._not_heksher(response) from None

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        response = await self._http.request(method, path, json=body)
        if (
            response.status_code in (404, 405)
            or response.is_redirect
            or "text/html" in response.headers.get("content-type", "")
        ):
            raise self._not_heksher(response)
        if response.is_error:
            raise DemoError(f"the service refused {method} {path}: {response.status_code} {response.text[:200]!r}")
        return response

    def _not_heksher(self, response: httpx.Response) -> DemoError:
        return DemoError(f"{str(self._http.base_url).rstrip('/')} is not a Heksher service ({response.status_code})")


def run(url: str | None, console: Console) -> None:
    """Run the demo on a service of its own, or on the one at a URL.

    Raises:
        DemoError: The service cannot be used, or a worker did not read a change in time.
    """
    if url is None:
        with LocalService(shop.CONTEXT_FEATURES) as service:
            console.print(f"Started a local Heksher service at {service.url}")
            asyncio.run(_run_on(service.url, console))
    else:
        asyncio.run(_run_on(url, console))


async def _run_on(url: str, console: Console) -> None:
    data = json.loads(files(__package__).joinpath("shop.json").read_text(encoding="utf-8"))
    try:
        arguments = {"base_url": url, "timeout": _REQUEST_TIMEOUT}
        async with create_client(httpx.AsyncClient, url, arguments).client as http:
            api = _ServiceAPI(http)
            try:
                rules = await api.load(data)
                console.print(f"Added {rules} rules on {len(data['settings'])} settings of a shop")
                await _run_workers(url, console, api)
            finally:
                await api.delete_created_settings()
    except (httpx.HTTPError, httpx.InvalidURL, OverflowError, HeksherError, ExceptionGroup) as error:
        raise DemoError(f"the service cannot be used: {str(error) or type(error).__name__}") from error


async def _run_workers(url: str, console: Console, api: _ServiceAPI) -> None:
    """Run both workers, and show the values that they read before and after each change."""
    read_values, stop = _ReadValues(), asyncio.Event()
    features = await api.features()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_thread_worker_process, args=(url, features, theirs), daemon=True
    )
    process.start()
    theirs.close()
    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as tasks:

            def record(read: ReadValue) -> None:
                tasks.create_task(read_values.record(_ASYNCIO_WORKER, read))

            asyncio_reads = tasks.create_task(run_asyncio_worker(url, features, record, stop))
            thread_reads = tasks.create_task(_receive_values(ours, read_values))
            try:
                await _make_changes(read_values, console, api)
            finally:
                stop.set()
                with suppress(OSError):  # The process may have ended.
                    ours.send("stop")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # The first failure cancelled the other tasks.
    finally:
        process.join(_TIMEOUT)
        process.kill()
        process.join()
        ours.close()
    reads = asyncio_reads.result() + thread_reads.result()
    seconds = time.perf_counter() - started
    console.print(
        f"\nIn {seconds:.1f} seconds, the workers read settings {reads:,} times, none of them over the network"
    )


async def _receive_values(connection: Connection, read_values: _ReadValues) -> int:
    """Record the values that the worker in the other process reads, until it ends.

    Returns:
        The number of its reads.
    """
    try:
        while True:
            message = await asyncio.to_thread(connection.recv)
            if isinstance(message, int):
                return message
            await read_values.record(_THREAD_WORKER, message)
    except EOFError:
        raise DemoError("the thread worker ended early") from None


async def _make_changes(read_values: _ReadValues, console: Console, api: _ServiceAPI) -> None:
    for worker in (_ASYNCIO_WORKER, _THREAD_WORKER):
        await read_values.wait_for(worker, shop.VISITORS[-1], shop.SETTINGS[-1].name, None)
    console.print("Two programs read them: a worker on asyncio, and one with threads in its own process\n")
    console.print(_table_of_values(console))
    for change in _CHANGES:
        started = time.perf_counter()
        if change.value is None:
            await api.remove_rule(change.setting, change.conditions)
        else:
            await api.put_rule(change.setting, change.conditions, change.value)
        latencies = await asyncio.gather(
            *(_latency(worker, change, read_values, started) for worker in (_ASYNCIO_WORKER, _THREAD_WORKER))
        )
        conditions = _join_conditions(change.conditions)
        console.print(f"\n[bold]{change.description}[/bold]: {change.setting} for {conditions}")
        console.print(
            f"  {change.visitor} now gets [green]{change.expected}[/green]: {', '.join(latencies)}", highlight=False
        )


async def _latency(worker: str, change: _Change, read_values: _ReadValues, started: float) -> str:
    await read_values.wait_for(worker, change.visitor, change.setting, change.expected)
    return f"{worker} after {time.perf_counter() - started:.1f} s"


def _table_of_values(console: Console) -> Table:
    """Return a table of the values that each visitor gets, with the reasons."""
    table = Table(
        title="Values in prod, by user and theme, with reasons",
        box=box.ROUNDED if console.is_terminal else box.ASCII,
        show_lines=True,
    )
    table.add_column("shop.", overflow="fold")
    for visitor in shop.VISITORS:
        table.add_column(str(visitor), ratio=1, overflow="fold")
    for setting in shop.SETTINGS:
        cells = []
        for visitor in shop.VISITORS:
            with shop.request_of(visitor):
                resolution = setting.explain()
            cells.append(f"[bold]{shop.format_value(resolution.value)}[/bold]\n[dim]{_explain(resolution)}[/dim]")
        table.add_row(setting.name.removeprefix("shop."), *cells)
    return table


def _explain(resolution: Resolution[Any]) -> str:
    if resolution.reason is not Reason.RULE or resolution.rule is None:
        return f"no rule matches: {resolution.reason.value}"
    text = f"rule {resolution.rule.rule_id}: {_join_conditions(resolution.rule.match_conditions)}"
    if not resolution.outranked:
        return text
    return f"{text}, before {' and '.join(f'rule {rule.rule_id}' for rule in resolution.outranked)}"


def _join_conditions(conditions: Mapping[str, str]) -> str:
    return " and ".join(f"{feature} {value}" for feature, value in conditions.items())
