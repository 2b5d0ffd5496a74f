"""What both clients share: the public calls that never wait, and the hooks."""

import inspect
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar, Final, Protocol, Unpack
from weakref import WeakSet

from heksher_client._auth.token_refresh import Credential
from heksher_client._core.refresh.options import Environment, Options
from heksher_client._core.refresh.session import Session
from heksher_client._core.refresh.status import Refresh, RefreshCallbackT, Status
from heksher_client._core.settings import snapshot
from heksher_client._core.settings.changes import Changes
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import Change, ChangeCallbackT
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from heksher_client._drivers.options import AuthTypes, ClassOptions, ClientOptions, check_names, merged
from heksher_client._http.endpoint import Route
from heksher_client._http.rate_limit import RateLimit
from heksher_client._logging import logger
from heksher_client._runtime import fork


class Observable(Protocol):
    """What can be followed from outside: a client, or a stub in its place."""

    def status(self) -> Status: ...  # pragma: no cover - a protocol
    def on_change(self, callback: ChangeCallbackT, /) -> ChangeCallbackT: ...  # pragma: no cover - a protocol
    def off_change(self, callback: Callable[[Change[Any]], object], /) -> None: ...  # pragma: no cover - a protocol
    def on_refresh(self, callback: RefreshCallbackT, /) -> RefreshCallbackT: ...  # pragma: no cover - a protocol
    def off_refresh(self, callback: Callable[[Refresh], object], /) -> None: ...  # pragma: no cover - a protocol


def check_observable(client: object) -> None:
    """Refuse what can be no client, nor a stub.

    Raises:
        TypeError: With what it is.
    """
    if isinstance(client, type) or not callable(getattr(client, "on_refresh", None)):
        raise TypeError(f"client must be a client or a stub, not {client!r}")


class Client(ABC):
    """The part of a client that is the same whether it waits in a task or in a thread."""

    _raises_at_start: bool
    """Whether `set_as_main` raises the errors of the first refresh."""
    _make_http: ClassVar[Callable[..., Any]]
    """Makes an HTTP client out of its arguments."""
    _class_options: ClassVar[Mapping[str, Any]] = {}
    """What the class and those it is derived from choose for all its clients."""
    _own_options: ClassVar[Mapping[str, Any]] = {}
    """What the class itself chooses."""

    def __init_subclass__(cls, **options: Unpack[ClassOptions]) -> None:
        """Choose for all clients of a class: each argument of a client may be a keyword of its class."""
        super().__init_subclass__()
        check_names(options, ClassOptions, cls.__name__)
        cls._own_options = dict(options)
        cls._class_options = {}
        for base in reversed(cls.__mro__):
            cls._class_options = merged(cls._class_options, vars(base).get("_own_options", {}))

    def __init__(
        self,
        service_url: str | None = None,
        update_interval: float | None = None,
        context_features: Sequence[str] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a client, which does nothing yet. All times are in seconds.

        Whatever is not given is what the class chooses: `class ShopClient(ThreadHeksherClient, service_url=...)`.

        Args:
            service_url: Where the service is; may have a path, which all requests are then below.
            update_interval: From the end of one refresh to the next.
            context_features: All context features of the service, in its order.
            **options: What `ClientOptions` has.

        Raises:
            TypeError, ValueError: Any of them is impossible, or one of the first three is missing.
        """
        for hook in (self.on_update_ok, self.on_update_error):
            if inspect.iscoroutinefunction(hook):
                raise TypeError(f"{hook.__name__} is called, and not awaited: it must be a plain method")
        check_names(options, ClientOptions, type(self).__name__)
        needed = {"service_url": service_url, "update_interval": update_interval, "context_features": context_features}
        chosen = merged(self._class_options, {**needed, **options})
        if missing := [name for name in needed if name not in chosen]:
            raise TypeError(f"{type(self).__name__} needs {' and '.join(missing)}: as arguments, or as class keywords")
        route = Route(chosen, type(self)._make_http)
        checked = Options.checked(chosen, can_follow=route.has_room_for_a_stream)
        store = None
        if "last_known_good" in chosen:
            store = LastKnownGoodFile(chosen["last_known_good"], checked.max_age, str(route.url))
        self._route = route
        self._session = Session(
            chosen["context_features"],
            checked,
            service_url=str(route.url),
            hooks=self,
            registry=registry,
            environment=Environment(_clock, time.time, random.random),
            wake=self._wake_up,
            store=store,
            raises_at_start=self._raises_at_start,
        )
        self._make_rate_limit = partial(RateLimit, checked.rate_limit, checked.rate_limit_interval, _clock)
        self._set_up()
        _clients.add(self)

    @property
    def closed(self) -> bool:
        """Whether the client was closed: it updates nothing any more, and cannot be started again."""
        return self._session.is_closed

    @property
    def credential(self) -> Credential | None:
        """What shows that the program may ask, if it is of `heksher_client.credentials`: to renew it at will, say."""
        auth = self._route.auth
        return auth if isinstance(auth, Credential) else None

    def use_credential(self, auth: AuthTypes) -> None:
        """Show from now on by something else that the program may ask, and ask at once. From any thread.

        Args:
            auth: A credential of `heksher_client.credentials`, or what the HTTP client takes as `auth`. None leaves it
                to the HTTP client.

        Raises:
            TypeError: It is nothing of that kind.
        """
        self._route.use(auth)
        self._session.refresh_soon()

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

    def on_change(self, callback: ChangeCallbackT) -> ChangeCallbackT:
        """Call something with a `Change` whenever this client has put other rules of a setting in place.

        As `Setting.on_change`, for all settings, until the client closes.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: It cannot be called, or is a coroutine function.
        """
        return self._session.listeners.add(callback)

    def off_change(self, callback: Callable[[Change[Any]], object]) -> None:
        """Call it no more."""
        self._session.listeners.remove(callback)

    def on_refresh(self, callback: RefreshCallbackT) -> RefreshCallbackT:
        """Call something with a `Refresh` after each refresh, successful or not, after the hooks: to measure them, say.

        Called where hooks are called; an error in it is logged, and nothing else. A bound method is held weakly.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: It cannot be called, or is a coroutine function.
        """
        return self._session.refresh_listeners.add(callback)

    def off_refresh(self, callback: Callable[[Refresh], object]) -> None:
        """Call it no more."""
        self._session.refresh_listeners.remove(callback)

    def changes(self) -> Changes:
        """All changes that this client puts in place from now on: iterate with `for`, which blocks, or `async for`.

        One who is behind gets the changes of each setting as one, with a count of those that it stands for. It ends
        when the client closes. Whoever leaves the loop need not clean up.
        """
        return self._session.changes()

    def status(self) -> Status:
        """How the client fares. May be called at any time, from any thread."""
        return self._session.status()

    def on_update_ok(self) -> None:
        """Override to be called after each refresh that succeeded, also when nothing had changed."""

    def on_update_error(self, exc: Exception, /) -> None:
        """Override to be called after each refresh that failed, wholly or for some settings, with the first error."""

    def _set_up(self) -> None:
        """Make what the client waits and locks with."""
        self._rate_limit = self._make_rate_limit()

    @abstractmethod
    def _wake_up(self) -> None:
        """Begin the next refresh now. Called from any thread."""

    @abstractmethod
    def _set_up_again(self) -> None:
        """Make all that anew in the child of a fork, and go on updating there if the parent does.

        What the parent had is shared with it, and must not be closed.
        """


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


fork.call_in_child(fork.Stage.SNAPSHOTS, snapshot.after_fork)
fork.call_in_child(fork.Stage.CLIENTS, _go_on_after_fork)
