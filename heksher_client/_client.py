"""What both clients share: the public calls that never wait, and the hooks."""

import inspect
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from heksher_client._core.logs import logger
from heksher_client._core.options import Options
from heksher_client._core.registry import registry
from heksher_client._core.session import Session
from heksher_client._core.status import Status
from heksher_client._last_known_good import LastKnownGood
from heksher_client._transport import client_arguments


class Client(ABC):
    """The part of a client that is the same whether it waits in a task or in a thread."""

    _raises_at_start: bool
    """Whether `set_as_main` raises the errors of the first refresh."""

    def __init__(
        self,
        service_url: str,
        update_interval: float,
        context_features: Sequence[str],
        *,
        http_client_args: Mapping[str, Any] | None = None,
        start_timeout: float = 60.0,
        request_timeout: float = 30.0,
        max_response_bytes: int = 1 << 28,
        jitter: float = 0.1,
        max_backoff: float = 60.0,
        stale_after: float | None = None,
        last_known_good: str | os.PathLike[str] | None = None,
        max_age: float = 7 * 24 * 3600.0,
        follow_changes: bool = True,
    ) -> None:
        """Make a client, which does nothing yet. All times are in seconds.

        Args:
            service_url: Where the service is; may have a path, which all requests are then below.
            update_interval: From the end of one refresh to the next.
            context_features: All context features of the service, in its order.
            http_client_args: Arguments for the httpx client: headers, auth, timeout (seconds), verify, ... The thread
                client sends requests from several threads at once, so what a program hands in must bear that.
            start_timeout: The longest that all requests of the first refresh may take together.
            request_timeout: The longest that a request may take, from looking the service up to the last byte. The
                time-outs of the httpx client (5 seconds, unless set) are for the single steps on the way.
            max_response_bytes: The most that is accepted of one answer, inflated. A query that brings more is split.
            jitter: The share of the interval by which each is longer or shorter, from 0 to 1, so that the processes of
                a fleet do not all ask at the same moment. Unless it is 0, the first interval ends at any moment of it,
                and waits after failures are up to a half shorter.
            max_backoff: The longest wait after failures. They begin with one second, and double.
            stale_after: The age from which `status()` calls the settings stale; three intervals if it is not given.
            last_known_good: A file to keep what was last received in. A start without the service serves from it, if it
                was confirmed within `max_age`. Its folder must exist. Several processes may share it.
            max_age: The age from which that file is not used any more; a week if it is not given.
            follow_changes: Whether to hear of changes as they are made, where the service offers that: over one more
                connection, which stays open. Refreshes at intervals go on beside it. Not where `http_client_args`
                allow one connection only, or have hooks for responses, which a stream would never come out of.

        Raises:
            TypeError, ValueError: Any of them is impossible.
        """
        for hook in (self.on_update_ok, self.on_update_error):
            if inspect.iscoroutinefunction(hook):
                raise TypeError(f"{hook.__name__} is called, and not awaited: it must be a plain method")
        http_arguments = client_arguments(service_url, http_client_args)
        options = Options.checked(
            update_interval,
            start_timeout=start_timeout,
            request_timeout=request_timeout,
            max_response_bytes=max_response_bytes,
            jitter=jitter,
            max_backoff=max_backoff,
            stale_after=stale_after,
            max_age=max_age,
            follow_changes=follow_changes and _has_room_for_a_stream(http_arguments),
        )
        keeper = None
        if last_known_good is not None:
            keeper = LastKnownGood(last_known_good, options.max_age, str(http_arguments["base_url"]))
        self._session = Session(
            context_features,
            options,
            hooks=self,
            registry=registry,
            clock=_clock,
            wall_clock=time.time,
            random=random.random,
            wake=self._wake_up,
            keeper=keeper,
            raises_at_start=self._raises_at_start,
        )
        self._set_up(http_arguments)
        _clients.add(self)

    def set_defaults(self, /, **values: str | ContextVar[str]) -> None:
        """Set what `Setting.get` takes for the context features that its caller leaves out.

        A later call adds to an earlier one, and replaces the defaults that it names.

        Args:
            **values: By context feature: a string, or a context variable, which is looked up at each read.

        Raises:
            UnknownContextError: A name that is none of the client's context features.
            TypeError: A default is neither a string nor a context variable.
        """
        self._session.set_defaults(values)

    def track_contexts(self, /, **values: str | Collection[str]) -> None:
        """Load only the rules whose conditions are all on these values.

        As long as nothing is tracked, all rules are loaded. After that, a rule with a condition on a value or a context
        feature that is not tracked is not used. A later call adds to an earlier one.

        Args:
            **values: By context feature: one value, several, or `TRACK_ALL` for all that there may be.

        Raises:
            UnknownContextError: A name that is none of the client's context features.
            ValueError: A value that no rule can have.
        """
        self._session.track_contexts(values)

    def status(self) -> Status:
        """How the client fares. May be called at any time, from any thread."""
        return self._session.status()

    def on_update_ok(self) -> None:
        """Override to be called after each refresh that succeeded, also when nothing had changed."""

    def on_update_error(self, exc: Exception, /) -> None:
        """Override to be called after each refresh that failed, wholly or for some settings, with the first error."""

    @abstractmethod
    def _set_up(self, http_arguments: dict[str, Any]) -> None:
        """Make what the client sends, waits and locks with."""

    @abstractmethod
    def _wake_up(self) -> None:
        """Begin the next refresh now. Called from any thread."""

    @abstractmethod
    def _set_up_again(self) -> None:
        """Make all that anew in the child of a fork, and go on updating there if the parent does.

        What the parent had is shared with it, and must not be closed.
        """


def _has_room_for_a_stream(http_arguments: Mapping[str, Any]) -> bool:
    """Whether another connection can be open while requests are sent, and no hook of the program waits for its end."""
    limits, hooks = http_arguments.get("limits"), http_arguments.get("event_hooks") or {}
    has_room = limits is None or limits.max_connections is None or limits.max_connections > 1
    return has_room and not hooks.get("response")


LONGEST_SLEEP: Final = 30.0
"""Seconds after which a client looks at the clock again: while a machine sleeps, no other wait ends."""


def _monotonic() -> Callable[[], float]:
    """A clock that no one sets, and that goes on while the machine sleeps, where there is one."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic
    return partial(time.clock_gettime, time.CLOCK_BOOTTIME)


_clock: Final = _monotonic()
_clients: Final[WeakSet[Client]] = WeakSet()


def _go_on_after_fork() -> None:  # in the child of a fork
    for client in list(_clients):
        client._session.after_fork()
        try:
            client._set_up_again()
        except Exception:  # The machine has no thread or file descriptor left to give.
            logger.exception("a client cannot go on in the child of a fork")
            client._session.close()


if hasattr(os, "register_at_fork"):  # pragma: no branch - some systems have no forks
    os.register_at_fork(after_in_child=_go_on_after_fork)
