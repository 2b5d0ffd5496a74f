"""Locks of Python that another thread holds during a fork."""

import asyncio
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.clients import TIMEOUT_SECONDS
from tests.support.forks import exited_successfully, fork_and_check


@contextmanager
def held_by_another_thread(lock: Any) -> Iterator[None]:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lock.acquire).result(TIMEOUT_SECONDS)
        try:
            yield
        finally:
            thread.submit(lock.release).result(TIMEOUT_SECONDS)


def test_events_and_locks_of_asyncio_work_in_the_child() -> None:
    """Even if the fork happens while another thread takes asyncio's lock, which is one for all loops."""

    async def waits_for_an_event() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        return await event.wait()

    lock = asyncio.mixins._global_lock
    with held_by_another_thread(lock):
        assert exited_successfully(fork_and_check(lambda: asyncio.run(waits_for_an_event())))
    assert not lock.locked()


def test_a_module_can_be_imported_in_the_child() -> None:
    """Even if another thread was just importing it. Each request of an async client looks for an optional module."""

    def is_missing() -> bool:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("a_missing_module")
        return True

    with held_by_another_thread(vars(importlib)["_bootstrap"]._get_module_lock("a_missing_module")):
        assert exited_successfully(fork_and_check(is_missing))
