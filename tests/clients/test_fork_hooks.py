"""Locks of Python that another thread holds during a fork."""

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.clients import TIMEOUT_SECONDS, Gate, in_thread
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


def test_a_missing_module_is_missing_in_the_child() -> None:
    """Even if another thread was just looking for it, as each request of an async client looks for an optional one."""

    def is_missing() -> bool:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("a_missing_module")
        return True

    with held_by_another_thread(vars(importlib)["_bootstrap"]._get_module_lock("a_missing_module")):
        assert exited_successfully(fork_and_check(is_missing))


def test_a_module_that_another_thread_is_executing_is_imported_again_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """The child has the whole module, and not the part that was executed before the fork."""
    parent = os.getpid()
    middle = ModuleType("middle_of_a_slow_module")
    middle.__dict__["hold"] = lambda: gate.hold() if os.getpid() == parent else None
    monkeypatch.setitem(sys.modules, middle.__name__, middle)
    (tmp_path / "slow_module.py").write_text(
        "import middle_of_a_slow_module as middle\nmiddle.hold()\nis_whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importing = in_thread(lambda: importlib.import_module("slow_module"))
    gate.wait_until_reached()
    assert exited_successfully(fork_and_check(lambda: importlib.import_module("slow_module").is_whole is True))
    gate.open()
    assert importing.result(TIMEOUT_SECONDS).is_whole
    del sys.modules["slow_module"]
