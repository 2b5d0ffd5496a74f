"""The internal interface of the clients, for other modules of this package."""

from collections.abc import Callable, Mapping
from typing import Any

from heksher_client._core.refresh import effects
from heksher_client._core.refresh.session import Session
from heksher_client._drivers.flow_runner import ResultT, run, run_async
from heksher_client._runtime.worker_threads import StreamThread


class Internals:
    """The parts of a client for threads that other modules may use."""

    def __init__(self, session: Session, stream: StreamThread, performers: Mapping[type, Callable[[Any], Any]]) -> None:
        self.session = session
        self.stream = stream
        """The thread that reads streams. End it before the client is closed."""
        self._performers = performers

    def run(self, flow: effects.Flow[ResultT]) -> ResultT:
        """Run a flow in the calling thread, and return its result."""
        return run(flow, self._performers)


class AsyncInternals:
    """The parts of a client for asyncio that other modules may use."""

    def __init__(self, session: Session, performers: Mapping[type, Callable[[Any], Any]]) -> None:
        self.session = session
        self._performers = performers

    async def run(self, flow: effects.Flow[ResultT]) -> ResultT:
        """Run a flow in the running task, and return its result."""
        return await run_async(flow, self._performers)
