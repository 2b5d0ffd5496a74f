"""Two programs that read settings continuously: one on asyncio, and one with threads, in a process of its own."""

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
"""Seconds between refreshes; a minute is more usual."""
_PAUSE: Final = 0.02
"""Seconds between two rounds of reads."""

ReadValue = tuple[str, str, str]
"""The names of a visitor and a setting, and the formatted value that a worker has read."""


class ValueReader:
    """Reads every setting for every visitor, and reports values that differ from the previous round."""

    def __init__(self, report: Callable[[ReadValue], None]) -> None:
        self._report = report
        self._values: dict[tuple[str, str], Any] = {}
        self.reads = 0
        """The number of reads so far."""

    def read_all(self) -> None:
        """Read every setting once for each visitor."""
        for visitor in shop.VISITORS:
            with shop.request_of(visitor):
                for setting in shop.SETTINGS:
                    value = setting.get()
                    self.reads += 1
                    key = (str(visitor), setting.name)
                    if key not in self._values or self._values[key] != value:
                        self._values[key] = value
                        self._report((*key, shop.format_value(value)))


async def run_asyncio_worker(
    url: str, features: Sequence[str], report: Callable[[ReadValue], None], stop: asyncio.Event
) -> int:
    """Read settings in a task, refreshed by an `AsyncHeksherClient`, until `stop` is set.

    Returns:
        The number of reads.
    """
    async with AsyncHeksherClient(url, UPDATE_INTERVAL, features) as client:
        client.set_defaults(environment="prod", user=shop.user, theme=shop.theme)
        reader = ValueReader(report)
        while not stop.is_set():
            reader.read_all()
            await asyncio.sleep(_PAUSE)
        return reader.reads


def run_thread_worker(url: str, features: Sequence[str], connection: Connection) -> None:
    """Read settings, refreshed by a `ThreadHeksherClient`, until a message arrives or the connection is closed.

    Sends each new value to the connection, and the number of reads at the end.
    """
    with connection, ThreadHeksherClient(url, UPDATE_INTERVAL, features) as client:
        client.set_defaults(environment="prod", user=shop.user, theme=shop.theme)
        reader = ValueReader(connection.send)
        with suppress(OSError):
            while not connection.poll():
                reader.read_all()
                time.sleep(_PAUSE)
            connection.send(reader.reads)


def run_thread_worker_process(url: str, features: Sequence[str], connection: Connection) -> None:
    """Run the thread worker as the main function of a process."""
    # Ctrl-C signals all processes of a terminal. This one ends with a message from the parent process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_thread_worker(url, features, connection)
