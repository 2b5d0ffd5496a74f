"""The types of the clients and the stubs. Checked by mypy and pyright, never run."""

import asyncio
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import assert_type

import httpx
from pydantic import SecretStr

from heksher_client import (
    TRACK_ALL,
    AsyncHeksherClient,
    Change,
    Changed,
    ClientOptions,
    DeviceCode,
    EffectiveOptions,
    Refresh,
    Rule,
    Setting,
    SettingData,
    ThreadHeksherClient,
    UnexpectedResponseError,
    connect,
    connect_async,
    login_async,
    login_headless_async,
    pinned,
)
from heksher_client.credentials import StaticToken, TokenFrom
from heksher_client.testing import AsyncStubHeksherClient, SyncStubHeksherClient

user: ContextVar[str] = ContextVar("user")
number: ContextVar[int] = ContextVar("number")


class Counting(ThreadHeksherClient):
    def on_update_ok(self) -> None: ...
    def on_update_error(self, exc: Exception) -> None: ...


def threaded() -> None:
    with ThreadHeksherClient("http://host", 60, ["user"], http_client_args={"timeout": 3}) as client:
        assert_type(client, ThreadHeksherClient)
        assert_type(client.get_settings(), dict[str, SettingData])
        assert_type(client.modification_lock, threading.Lock)
        client.set_defaults(user=user)
        client.set_defaults(user=number)  # type: ignore[arg-type]
        client.track_contexts(user=["a", "b"], theme=TRACK_ALL)
        client.track_contexts(user=5)  # type: ignore[arg-type]
    with Counting("http://host", 0.5) as counting:
        assert_type(counting, Counting)


async def asynchronous() -> None:
    async with AsyncHeksherClient("http://host", 60, ("user",)) as client:
        assert_type(client, AsyncHeksherClient)
        assert_type(await client.get_settings(), dict[str, SettingData])
        assert_type(client.modification_lock, asyncio.Lock)
        await client.reload()


class Maintenance(UnexpectedResponseError): ...  # noqa: N818


class Shop(ThreadHeksherClient, service_url="http://host", update_interval=60, headers={"X-Team": "shop"}): ...


class AsyncShop(AsyncHeksherClient, rate_limit=5): ...


class Wrong(ThreadHeksherClient, haeders={}): ...  # type: ignore[call-arg]


class Own(ThreadHeksherClient):
    def __post_init__(self, team: str, *, region: str = "eu") -> None: ...


def options() -> None:
    Own("http://host", 60, ["user"], "shop")
    Own("http://host", 60, region="us")  # type: ignore[call-arg]
    assert_type(Shop(context_features=["user"]), Shop)
    Shop(jitter="0.5")  # type: ignore[arg-type]
    Shop(jiter=0.5)  # type: ignore[call-arg]
    options: ClientOptions = {
        "timeout": httpx.Timeout(3),
        "error_classes": {503: Maintenance},
        "auth": StaticToken("t"),
    }
    client = ThreadHeksherClient("http://host", 60, ["user"], **options)
    Shop(token=SecretStr("t"), headers={"X-Key": SecretStr("k"), "X-Team": "shop"})
    AsyncShop(token="t")  # noqa: S106
    Shop(token=b"t")  # type: ignore[arg-type]
    StaticToken(SecretStr("t"))
    Shop(ca_file=Path("ca.pem"))
    AsyncShop(verify=ssl.create_default_context())
    Shop(verify="ca.pem")  # type: ignore[arg-type]
    connect(ca_file=Path("ca.pem"), verify=False)
    assert_type(client.closed, bool)
    assert_type(client.options, EffectiveOptions)
    client.options.jitter = 0.5  # type: ignore[misc]
    client.use_credential(TokenFrom(lambda: "t"))
    client.use_credential(("user", "password"))
    client.use_credential("token")  # type: ignore[arg-type]


async def profiles() -> None:
    assert_type(connect("prod", path="shop.toml", jitter=0, token=SecretStr("t")), ThreadHeksherClient)
    assert_type(connect(client_class=Shop), Shop)
    connect(interval=5)  # type: ignore[call-overload]
    connect(path=5)  # type: ignore[call-overload]
    async with connect_async() as client:
        assert_type(client, AsyncHeksherClient)
    assert_type(await connect_async(path=Path("shop"), client_class=AsyncShop), AsyncShop)

    async def show(code: DeviceCode) -> None: ...

    assert_type(await login_headless_async(show, timeout=60), str)
    await login_async(show)  # type: ignore[arg-type]
    credential = StaticToken("t")
    assert_type(credential.token(timeout=2), str)
    assert_type(await credential.atoken(), str)
    assert_type(credential.expires_at, float | None)


async def changes(setting: Setting[int], client: AsyncHeksherClient) -> None:
    @setting.on_change
    def note(change: Change[int]) -> None:
        assert_type(change.added, tuple[Rule[int], ...])
        assert_type(change.changed, tuple[Changed[Rule[int]], ...])
        assert_type(change.default, Changed[int] | None)

    assert_type(note(Change(setting)), None)
    setting.on_change(5)  # type: ignore[arg-type]

    def note_another(change: Change[str]) -> None: ...

    setting.on_change(note_another)  # type: ignore[arg-type]
    client.on_refresh(note_another)  # type: ignore[type-var]

    @client.on_refresh
    def note_refresh(refresh: Refresh) -> None: ...

    client.on_change(note_refresh)  # type: ignore[type-var]
    client.on_change(note)
    async for change in client.changes(name="billing"):
        assert_type(change.missed, int)
    async for value in setting.watch(user="jim"):
        assert_type(value, int)
    for value in setting.watch(name="billing", user="jim"):
        assert_type(value, int)
    with pinned():
        assert_type(setting.get(), int)


def stubs(setting: Setting[int]) -> None:
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = 5
        stub[setting].rules = [Rule({"user": "jim"}, 5)]
        stub[setting].rules = "nonsense"  # type: ignore[assignment]
        names: Setting[Sequence[str]] = Setting("names", Sequence[str], ["user"], ["a"])
        stub[names].rules = [Rule({"user": "jim"}, ["b"])]
        shares: Setting[Mapping[str, float]] = Setting("shares", Mapping[str, float], ["user"], {})
        stub[shares].rules = [Rule({}, {"a": 1})]
        counts: list[Rule[int]] = [Rule({}, 1)]
        ratio: Setting[float] = Setting("ratio", float, ["user"], 0.5)
        stub[ratio].rules = counts
        assert_type(stub.modification_lock, threading.Lock)


async def async_stubs() -> None:
    async with AsyncStubHeksherClient() as stub:
        assert_type(stub, AsyncStubHeksherClient)
        assert_type(await stub.get_settings(), dict[str, SettingData])
