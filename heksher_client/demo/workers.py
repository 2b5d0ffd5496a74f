"""Two programs that read settings all the time: one on asyncio, one with threads in a process of its own."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from heksher_client import AsyncHeksherClient, ThreadHeksherClient
from heksher_client.demo import shop

UPDATE_INTERVAL: Final = 0.5
"""Seconds between two looks at the service; a minute is usual."""
_BREATH: Final = 0.02
"""Seconds between two rounds of reading."""

Seen = tuple[str, str, str]
"""A visitor, a setting, and the value that a worker read for them, all as they are shown."""


class Reading:
    """Reads every setting for every visitor, and tells what it had not read before."""

    def __init__(self, tell: Callable[[Seen], None]) -> None:
        self._tell = tell
        self._values: dict[tuple[str, str], Any] = {}
        self.reads = 0

    def go_round(self) -> None:
        """Serve each visitor once."""
        for visitor in shop.VISITORS:
            with shop.serving(visitor):
                for setting in shop.SETTINGS:
                    value = setting.get()
                    self.reads += 1
                    key = (str(visitor), setting.name)
                    if key not in self._values or self._values[key] != value:
                        self._values[key] = value
                        self._tell((*key, shop.shown(value)))


async def run_asyncio_worker(
    url: str, features: Sequence[str], tell: Callable[[Seen], None], stop: asyncio.Event
) -> int:
    """Read settings in a task, kept up to date by an `AsyncHeksherClient`, until told to stop.

    Returns:
        How often a setting was read.
    """
    async with AsyncHeksherClient(url, UPDATE_INTERVAL, features) as client:
        client.set_defaults(environment="prod", user=shop.user, theme=shop.theme)
        reading = Reading(tell)
        while not stop.is_set():
            reading.go_round()
            await asyncio.sleep(_BREATH)
        return reading.reads


def run_thread_worker(url: str, features: Sequence[str], connection: Connection) -> None:
    """Read settings, kept up to date by a `ThreadHeksherClient`.

    Sends what it sees until anything is received, or nobody is there any more; then how often a setting was read.
    """
    with connection, ThreadHeksherClient(url, UPDATE_INTERVAL, features) as client:
        client.set_defaults(environment="prod", user=shop.user, theme=shop.theme)
        reading = Reading(connection.send)
        with suppress(OSError):
            while not connection.poll():
                reading.go_round()
                time.sleep(_BREATH)
            connection.send(reading.reads)


def run_thread_worker_process(url: str, features: Sequence[str], connection: Connection) -> None:
    """Be a process with the thread worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; ours is told to stop
    run_thread_worker(url, features, connection)
