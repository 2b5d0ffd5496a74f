"""The demo: a service, a shop's settings with some fifty rules on them, two workers, and an operator.

The shop's settings are declared in `shop`, as a program does it. This module plays the operator: it puts the rules of
`shop.json` on them, shows what follows from the rules, changes some while the workers run, and waits until both have
seen each change.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
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
    raise ImportError("the demo needs extras: pip install 'heksher_client[cli,service]'") from error

from heksher_client import HeksherError, Reason, Resolution
from heksher_client.demo import shop
from heksher_client.demo.workers import Seen, run_asyncio_worker, run_thread_worker_process
from heksher_client.service import LocalService

_PATIENCE: Final = 60.0
"""Seconds that a worker may take to see a change."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What the operator does, and what one visitor shall get of it."""

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
    _Change("Try the new checkout in prod", "shop.new_checkout", {"environment": "prod"}, True, _GUEST, "True"),
    _Change("Let partners pay by card as well", "shop.payment_methods", {"user": "partner"},
            ["CARD", "INVOICE", "TRANSFER"], _PARTNER, "card transfer invoice"),
    _Change("Take the partners' greeting back", "shop.greeting", {"user": "partner", "theme": "compact"}, None,
            _PARTNER, "Hi"),
)  # fmt: skip


@dataclass(slots=True)
class _Watch:
    """What the workers have seen so far."""

    values: dict[tuple[str, str, str], str] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self, worker: str, seen: Seen) -> None:
        visitor, setting, value = seen
        async with self.news:
            self.values[worker, visitor, setting] = value
            self.news.notify_all()

    async def until(self, worker: str, visitor: str, setting: str, value: str | None) -> None:
        """Wait until a worker has seen a value; any value, if None."""
        key = (worker, visitor, setting)

        def has_come() -> bool:
            return key in self.values if value is None else self.values.get(key) == value

        async with self.news:
            try:
                await asyncio.wait_for(self.news.wait_for(has_come), _PATIENCE)
            except TimeoutError:
                raise DemoError(f"the {worker} did not get {setting} = {value} in {_PATIENCE:g} seconds") from None


class _Operator:
    """Somebody who puts rules on settings, through the service's HTTP interface."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.created: list[str] = []
        """The settings that the demo brought."""

    async def load(self, data: Mapping[str, Any]) -> int:
        """Bring context features, settings and rules into the service.

        Returns:
            The number of rules.

        Raises:
            DemoError: It has settings of the same names, which are not the demo's to change.
        """
        names = {setting["name"] for setting in data["settings"]}
        taken = sorted(names & {setting["name"] for setting in await self._list("/api/v1/settings", "settings")})
        if taken:
            raise DemoError(f"the service has settings of these names; delete them first: {', '.join(taken)}")
        there = await self.features()
        for feature in data["context_features"]:
            if feature not in there:
                await self._call("POST", "/api/v1/context_features", {"context_feature": feature})
        for setting in data["settings"]:
            declaration = {key: value for key, value in setting.items() if key != "rules"}
            await self._call("POST", "/api/v1/settings/declare", declaration)
            self.created.append(setting["name"])
            for rule in setting["rules"]:
                await self.put(setting["name"], rule["feature_values"], rule["value"])
        return sum(len(setting["rules"]) for setting in data["settings"])

    async def features(self) -> list[str]:
        """The context features of the service, in its order."""
        return await self._list("/api/v1/context_features", "context_features")

    async def put(self, setting: str, conditions: Mapping[str, str], value: Any) -> None:
        """Add a rule, or change the one that has these conditions."""
        rule_id = await self._find(setting, conditions)
        if rule_id is None:
            body = {"setting": setting, "feature_values": conditions, "value": value}
            await self._call("POST", "/api/v1/rules", body)
        else:
            await self._call("PUT", f"/api/v1/rules/{rule_id}/value", {"value": value})

    async def remove(self, setting: str, conditions: Mapping[str, str]) -> None:
        """Delete the rule that has these conditions."""
        await self._call("DELETE", f"/api/v1/rules/{await self._find(setting, conditions)}")

    async def clean_up(self) -> None:
        """Delete the settings that the demo brought."""
        while self.created:
            await self._call("DELETE", f"/api/v1/settings/{self.created.pop()}")

    async def _find(self, setting: str, conditions: Mapping[str, str]) -> int | None:
        text = ",".join(f"{feature}:{value}" for feature, value in conditions.items())
        answer = await self._http.get("/api/v1/rules/search", params={"setting": setting, "feature_values": text})
        return None if answer.status_code == 404 else int(answer.raise_for_status().json()["rule_id"])

    async def _list(self, path: str, key: str) -> list[Any]:
        answer = await self._call("GET", path)
        try:
            return list(answer.json()[key])
        except (ValueError, KeyError, TypeError):
            raise DemoError(f"what answers GET {path} is no Heksher service") from None

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        answer = await self._http.request(method, path, json=body)
        if answer.is_error:
            raise DemoError(f"the service refused {method} {path}: {answer.status_code} {answer.text[:200]!r}")
        return answer


def run(url: str | None, console: Console) -> None:
    """Run the demo, on a service of its own or on the one at a URL.

    Raises:
        DemoError: The service cannot be used, or a change did not arrive.
    """
    if url is None:
        with LocalService(shop.CONTEXT_FEATURES) as service:
            console.print(f"A local Heksher service answers at {service.url}")
            asyncio.run(_show(service.url, console))
    else:
        asyncio.run(_show(url, console))


async def _show(url: str, console: Console) -> None:
    data = json.loads(files(__package__).joinpath("shop.json").read_text(encoding="utf-8"))
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            operator = _Operator(http)
            try:
                rules = await operator.load(data)
                console.print(f"The operator has put {rules} rules on {len(data['settings'])} settings of a shop")
                await _follow(url, console, operator)
            finally:
                await operator.clean_up()
    except (httpx.HTTPError, httpx.InvalidURL, OverflowError, HeksherError, ExceptionGroup) as error:
        raise DemoError(f"the service cannot be used: {str(error) or type(error).__name__}") from error


async def _follow(url: str, console: Console, operator: _Operator) -> None:
    """Start both workers, show what they get, and change it."""
    watch, stop = _Watch(), asyncio.Event()
    features = await operator.features()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_thread_worker_process, args=(url, features, theirs), daemon=True
    )
    process.start()
    theirs.close()
    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as tasks:

            def tell(seen: Seen) -> None:
                tasks.create_task(watch.note("asyncio worker", seen))

            in_asyncio = tasks.create_task(run_asyncio_worker(url, features, tell, stop))
            in_threads = tasks.create_task(_listen(ours, watch))
            try:
                await _play(watch, console, operator)
            finally:
                stop.set()
                with suppress(OSError):  # it has ended already
                    ours.send("stop")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # whichever failed first ended the others
    finally:
        process.join(_PATIENCE)
        process.kill()
        process.join()
        ours.close()
    reads = await in_asyncio + await in_threads
    seconds = time.perf_counter() - started
    console.print(
        f"\nIn {seconds:.1f} seconds the workers read settings {reads:,} times, none of them over the network"
    )


async def _play(watch: _Watch, console: Console, operator: _Operator) -> None:
    for worker in ("asyncio worker", "thread worker"):
        await watch.until(worker, str(shop.VISITORS[-1]), shop.SETTINGS[-1].name, None)
    console.print("Two programs read them: a worker on asyncio, and one with threads in its own process\n")
    console.print(_values(console))
    for change in _CHANGES:
        await _make(change, operator, watch, console)


async def _listen(connection: Connection, watch: _Watch) -> int:
    """Note what the worker in the other process sees, to its end.

    Returns:
        How often it read a setting.
    """
    try:
        while True:
            message = await asyncio.to_thread(connection.recv)
            if isinstance(message, int):
                return message
            await watch.note("thread worker", message)
    except EOFError:
        raise DemoError("the thread worker ended early") from None


async def _make(change: _Change, operator: _Operator, watch: _Watch, console: Console) -> None:
    started = time.perf_counter()
    if change.value is None:
        await operator.remove(change.setting, change.conditions)
    else:
        await operator.put(change.setting, change.conditions, change.value)
    waits = [_arrival(worker, change, watch, started) for worker in ("asyncio worker", "thread worker")]
    times = await asyncio.gather(*waits)
    condition = " and ".join(f"{feature} {value}" for feature, value in change.conditions.items())
    console.print(f"\n[bold]{change.description}[/bold]: {change.setting} for {condition}")
    console.print(f"  {change.visitor} now gets [green]{change.expected}[/green]: {', '.join(times)}", highlight=False)


async def _arrival(worker: str, change: _Change, watch: _Watch, started: float) -> str:
    await watch.until(worker, str(change.visitor), change.setting, change.expected)
    return f"{worker} after {time.perf_counter() - started:.1f} s"


def _values(console: Console) -> Table:
    """What each visitor gets, and why."""
    table = Table(
        title="Values in prod, by user and theme, and why",
        box=box.ROUNDED if console.is_terminal else box.ASCII,
        show_lines=True,
    )
    table.add_column("shop.", overflow="fold")
    for visitor in shop.VISITORS:
        table.add_column(str(visitor), ratio=1, overflow="fold")
    for setting in shop.SETTINGS:
        cells = []
        for visitor in shop.VISITORS:
            with shop.serving(visitor):
                resolution = setting.explain()
            cells.append(f"[bold]{shop.shown(resolution.value)}[/bold]\n[dim]{_why(resolution)}[/dim]")
        table.add_row(setting.name.removeprefix("shop."), *cells)
    return table


def _why(resolution: Resolution[Any]) -> str:
    if resolution.reason is not Reason.RULE or resolution.rule is None:
        return f"no rule matches: {resolution.reason.value}"
    conditions = _joined([f"{feature} {value}" for feature, value in resolution.rule.match_conditions.items()])
    text = f"rule {resolution.rule.rule_id}: {conditions}"
    if not resolution.outranked:
        return text
    return f"{text}, before {_joined([f'rule {rule.rule_id}' for rule in resolution.outranked])}"


def _joined(words: Sequence[str]) -> str:
    return " and ".join(words)
