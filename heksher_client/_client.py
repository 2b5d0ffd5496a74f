"""What both clients share: the public calls that never wait, and the hooks."""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from heksher_client._core.registry import registry
from heksher_client._core.session import Session
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
    ) -> None:
        """Make a client, which does nothing yet.

        Args:
            service_url: Where the service is; may have a path, which all requests are then below.
            update_interval: Seconds from the end of one refresh to the next.
            context_features: All context features of the service, in its order.
            http_client_args: Arguments for the httpx client: headers, auth, timeout (seconds), verify, ... The thread
                client sends requests from several threads at once, so what a program hands in must bear that.

        Raises:
            ValueError: Any of them is impossible.
        """
        self._session = Session(
            context_features,
            update_interval,
            hooks=self,
            registry=registry,
            clock=time.monotonic,
            wake=self._wake_up,
            raises_at_start=self._raises_at_start,
        )
        self._set_up(client_arguments(service_url, http_client_args))

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
