"""What type checkers make of the clients and the stubs. Checked by mypy and pyright, never run."""

import asyncio
import threading
from contextvars import ContextVar
from typing import assert_type

from heksher_client import TRACK_ALL, AsyncHeksherClient, Setting, SettingData, ThreadHeksherClient
from heksher_client.testing import AsyncStubHeksherClient, Rule, SyncStubHeksherClient

user: ContextVar[str] = ContextVar("user")
number: ContextVar[int] = ContextVar("number")


class Counting(ThreadHeksherClient):
    def on_update_ok(self) -> None: ...
    def on_update_error(self, exc: Exception, /) -> None: ...


def threaded() -> None:
    with ThreadHeksherClient("http://host", 60, ["user"], http_client_args={"timeout": 3}) as client:
        assert_type(client, ThreadHeksherClient)
        assert_type(client.get_settings(), dict[str, SettingData])
        assert_type(client.modification_lock, threading.Lock)
        client.set_defaults(user=user)
        client.set_defaults(user=number)  # type: ignore[arg-type]
        client.track_contexts(user=["a", "b"], theme=TRACK_ALL)
        client.track_contexts(user=5)  # type: ignore[arg-type]
    with Counting("http://host", 0.5, ["user"]) as counting:
        assert_type(counting, Counting)


async def asynchronous() -> None:
    async with AsyncHeksherClient("http://host", 60, ("user",)) as client:
        assert_type(client, AsyncHeksherClient)
        assert_type(await client.get_settings(), dict[str, SettingData])
        assert_type(client.modification_lock, asyncio.Lock)
        await client.reload()


def stubs(setting: Setting[int]) -> None:
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = 5
        stub[setting].rules = [Rule({"user": "jim"}, 5)]
        stub[setting].rules = "nonsense"  # type: ignore[assignment]
        assert_type(stub.modification_lock, threading.Lock)


async def async_stubs() -> None:
    async with AsyncStubHeksherClient() as stub:
        assert_type(stub, AsyncStubHeksherClient)
        assert_type(await stub.get_settings(), dict[str, SettingData])
