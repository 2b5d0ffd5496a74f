"""The base of both clients: public calls that never wait, hooks, and how a flow is run.

The drivers only perform effects. Decisions are made in `_core.refresh`, and those about HTTP in `_http.exchange`.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Unpack
from weakref import WeakSet

from heksher_client._auth.token_refresh import Credential
from heksher_client._core.refresh import effects
from heksher_client._core.refresh.options import Environment, Options
from heksher_client._core.refresh.session import Session
from heksher_client._core.refresh.status import Refresh, RefreshCallbackT, Status
from heksher_client._core.settings import snapshot
from heksher_client._core.settings.changes import Changes
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.setting import Change, ChangeCallbackT
from heksher_client._core.settings.user_functions import HookOwner
from heksher_client._drivers.clock import monotonic_clock, wall_clock
from heksher_client._drivers.effective_options import EffectiveOptions
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from heksher_client._drivers.last_known_good_store import FileStore
from heksher_client._drivers.options import (
    AuthTypes,
    ClassOptions,
    ClientOptions,
    check_option_names,
    checked_own_arguments,
    merge_options,
)
from heksher_client._http.endpoint import Endpoint, check_http_options
from heksher_client._http.errors import as_http_error
from heksher_client._http.rate_limit import RateLimit
from heksher_client._logging import logger
from heksher_client._resource import Resource
from heksher_client._runtime import fork
from heksher_client.exceptions import HeksherError


class Client(HookOwner, Resource, ABC):
    """The part of a client that does not depend on whether it uses tasks or threads."""

    _raises_at_start: bool
    """Whether `set_as_main` raises the errors of the first refresh."""
    _http_client_class: ClassVar[type[Any]]
    _close_timeout: ClassVar[float]
    """Seconds after which closing the client no longer waits for the refresh in progress."""
    _class_options: ClassVar[Mapping[str, Any]] = {}
    """The options of the class and its base classes, for all its clients."""
    _own_options: ClassVar[Mapping[str, Any]] = {}
    """The options of the class itself."""

    def __init_subclass__(cls, **options: Unpack[ClassOptions]) -> None:
        """Set options for all clients of a class: each argument of a client can be a keyword of its class."""
        super().__init_subclass__()
        check_option_names(options, ClassOptions, cls.__name__)
        cls._own_options = dict(options)
        cls._class_options = {}
        for base in reversed(cls.__mro__):
            cls._class_options = merge_options(cls._class_options, vars(base).get("_own_options", {}))
        if cls._own_options and hasattr(cls, "_http_client_class"):
            check_http_options(cls._class_options, cls._http_client_class)
            Options.checked({"update_interval": 1, **cls._class_options}, can_follow=True)

    def __init__(
        self,
        service_url: str | None = None,
        update_interval: float | None = None,
        context_features: Sequence[str] | None = None,
        *args: Any,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Create a client, which does nothing yet. All times are in seconds.

        Options of the class replace missing arguments: `class ShopClient(ThreadHeksherClient, service_url=...)`.

        Args:
            service_url: The URL of the service. It may have a path, to which the paths of all requests are appended.
            update_interval: The time from the end of one refresh to the next.
            context_features: All context features of the service, in its order; one that the service lacks is an error.
                None to use those of the service. Then names in `set_defaults` and `track_contexts` are checked when the
                service has sent them.
            *args: Further arguments, for the `__post_init__` of a subclass.
            **options: See `ClientOptions`. If a subclass has `__post_init__`, other keyword arguments are passed to it.

        Raises:
            TypeError, ValueError: An option is invalid, or one of the first two is missing.
        """
        self._check_hooks()
        given_options = dict[str, Any](options)
        own_arguments = checked_own_arguments(type(self), args, given_options)
        names = ("service_url", "update_interval", "context_features")
        given = zip(names, (service_url, update_interval, context_features), strict=True)
        chosen = merge_options(self._class_options, {**dict(given), **given_options})
        if missing := " and ".join(name for name in names[:2] if name not in chosen):
            raise TypeError(f"{type(self).__name__} needs {missing}: as arguments, or as class keywords")
        self._endpoint = endpoint = Endpoint(chosen, self._http_client_class)
        self._options = checked = Options.checked(chosen, can_follow=endpoint.can_stream)
        store = self._last_known_good = None
        if "last_known_good" in chosen:
            file = LastKnownGoodFile(chosen["last_known_good"], str(endpoint.url))
            store = FileStore(file, checked.max_age, wall_clock)
            self._last_known_good = str(file.path)
        self._own_session = Session(
            chosen.get("context_features"),
            checked,
            service_url=str(endpoint.url),
            hooks=self,
            registry=registry,
            environment=Environment(_clock, wall_clock, random.random),
            wake=self._wake_up,
            store=store,
            raises_at_start=self._raises_at_start,
        )
        self._set_up()
        _clients.add(self)
        post_init: Callable[..., None] = self.__post_init__
        post_init(*args, **own_arguments)

    def __repr__(self) -> str:
        session = vars(self).get("_own_session")  # A subclass can call this before `__init__` has ended.
        if session is None:
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {session.service_url}: {session.state}{', main' if session.is_main else ''}>"

    @property
    def _session(self) -> Session:
        """The session, which continues here first if this process was forked without Python's hooks."""
        fork.continue_if_forked()
        return self._own_session

    @property
    def options(self) -> EffectiveOptions:
        """The options that the client uses, from all sources, without secrets."""
        checked = {name: getattr(self._options, name) for name in Options.__struct_fields__}
        checked["error_classes"] = tuple(self._options.error_classes.items())
        return EffectiveOptions(
            **self._endpoint.describe(),
            **checked,
            context_features=self._session.context_features,
            last_known_good=self._last_known_good,
        )

    @property
    def closed(self) -> bool:
        """True if the client is closed: it does not refresh any settings, and cannot be started again."""
        return self._session.is_closed

    @property
    def credential(self) -> Credential | None:
        """The credential of `heksher_client.credentials` that the client uses, if any: to refresh its token, say."""
        auth = self._endpoint.auth
        return auth if isinstance(auth, Credential) else None

    def use_credential(self, auth: AuthTypes) -> None:
        """Authenticate with another credential from now on, and refresh at once. Can be called from any thread.

        Args:
            auth: A credential of `heksher_client.credentials`, or an `auth` argument of the HTTP client. None to use
                the authentication of the HTTP client.

        Raises:
            TypeError: It is neither.
        """
        self._endpoint.use_auth(auth)
        self._session.refresh_soon()

    def set_defaults(self, /, **values: str | ContextVar[str]) -> None:
        """Set the values of context features that callers of `Setting.get` do not pass.

        A later call adds to an earlier one, and replaces the defaults that it names.

        Args:
            **values: By context feature: a string, or a context variable, which is looked up at each read.

        Raises:
            UnknownContextError: A name is not a context feature of the client.
            TypeError: A default is neither a string nor a context variable.
        """
        self._session.set_defaults(values)

    def track_contexts(self, /, **values: str | Collection[str]) -> None:
        """Load only the rules whose conditions are all on these values.

        As long as nothing is tracked, all rules are loaded. After that, a rule with a condition on a value or a context
        feature that is not tracked is not used. A later call adds to an earlier one.

        Args:
            **values: By context feature: one value, several, or `TRACK_ALL` for all values.

        Raises:
            UnknownContextError: A name is not a context feature of the client.
            ValueError: No rule can have this value.
        """
        self._session.track_contexts(values)

    def on_change(self, callback: ChangeCallbackT) -> ChangeCallbackT:
        """Call a function with a `Change` whenever this client has applied new rules to a setting.

        Like `Setting.on_change`, for all settings, until the client is closed.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: The callback is not callable, or is a coroutine function.
        """
        return self._session.listeners.add(callback)

    def off_change(self, callback: Callable[[Change[Any]], object]) -> None:
        """Stop calling a callback."""
        self._session.listeners.remove(callback)

    def on_refresh(self, callback: RefreshCallbackT) -> RefreshCallbackT:
        """Call a function with a `Refresh` after each refresh, successful or not, after the hooks: for metrics, say.

        It is called where hooks are called; an error in it is logged, and has no other effect. A bound method is held
        weakly.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: The callback is not callable, or is a coroutine function.
        """
        return self._session.refresh_listeners.add(callback)

    def off_refresh(self, callback: Callable[[Refresh], object]) -> None:
        """Stop calling a callback."""
        self._session.refresh_listeners.remove(callback)

    def changes(self, *, name: str | None = None) -> Changes:
        """Return all changes that this client applies from now on: iterate with `for`, which blocks, or `async for`.

        A slow loop receives the changes of each setting merged into one, with a count. The iterator ends when the
        client is closed. A loop that is left early needs no cleanup.

        Args:
            name: A name for `status().iterators`, and for a log record when changes are merged.

        Raises:
            TypeError: The name is not a string.
        """
        return self._session.changes(name)

    def status(self) -> Status:
        """Return the health of the client. Can be called at any time, from any thread."""
        return self._session.status(fork.problem_of_process())

    def on_update_ok(self) -> None:
        """Override to be called after each refresh that succeeded for all settings, including those without changes.

        It is also called after a retry of single settings, if all are up to date then, but not while one of them fails.
        Callbacks of `on_refresh` are called after each refresh.
        """

    def on_update_error(self, exc: Exception) -> None:
        """Override to be called with the error of a refresh that failed; further ones are in its `__notes__`.

        A failure of all settings is reported by each refresh, and so is any failure of a refresh that a caller of
        `reload` waits for. A failure of some settings, while the others are refreshed, is reported when it begins, and
        when the error of one of them changes; `status()` shows it as long as it lasts.

        Args:
            exc: The first error that was not reported before.
        """

    # -- for the drivers -----------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """Create locks, events and threads, of which the child of a fork needs its own."""
        limit, interval = self._options.rate_limit, self._options.rate_limit_interval
        self._rate_limit = None if limit is None else RateLimit(limit, interval, _clock)
        self._performers: Mapping[type, Callable[[Any], Any]] = {
            effects.Exchange: self._send,
            effects.RunBlocking: self._run_blocking,
            effects.CallUserCode: self._call_user_code,
            effects.ApplyLocked: self._apply_locked,
            effects.OpenStream: self._open_stream,
            effects.Pause: self._pause,
        }
        """The methods that perform effects, by the type of the effect. Those of the async client return awaitables."""

    @abstractmethod
    def _wake_up(self) -> None:
        """Start the next refresh now. Called from any thread."""

    @abstractmethod
    def _restart_in_child(self) -> None:
        """Continue to refresh in the child of a fork, as the parent does."""

    def _continue_in_child(self) -> None:  # in the child of a fork
        self._session.after_fork()
        try:
            self._endpoint.replace_client()  # The parent shares its connections, which must not be closed.
            self._set_up()
            if self._session.is_open:
                self._restart_in_child()
        except Exception:  # The machine has no thread or file descriptor left.
            logger.exception("a client cannot continue in the child of a fork")
            self._session.close()

    def _ping(self) -> effects.Flow[None]:
        try:
            yield from self._session.requests.ping()
        except HeksherError as error:
            raise as_http_error(error) from error.__cause__

    @abstractmethod
    def _send(self, effect: effects.Exchange) -> Any:
        """Send requests."""

    @abstractmethod
    def _run_blocking(self, effect: effects.RunBlocking) -> Any:
        """Make a blocking call."""

    @abstractmethod
    def _call_user_code(self, effect: effects.CallUserCode) -> Any:
        """Call a hook or a validator."""

    @abstractmethod
    def _apply_locked(self, effect: effects.ApplyLocked) -> Any:
        """Make a call while holding the modification lock."""

    @abstractmethod
    def _open_stream(self, effect: effects.OpenStream) -> Any:
        """Read a stream until it ends."""

    @abstractmethod
    def _pause(self, effect: effects.Pause) -> Any:
        """Let other tasks or threads run."""


def class_options_of(client_class: type[Client]) -> Mapping[str, Any]:
    """Return the options that a class of clients, and its base classes, set."""
    return client_class._class_options  # noqa: SLF001 - not public, as programs have no use for it


_clock: Final = monotonic_clock()
_clients: Final[WeakSet[Client]] = WeakSet()


def _continue_all_in_child() -> None:  # in the child of a fork
    for client in list(_clients):
        client._continue_in_child()  # noqa: SLF001 - same module


fork.call_in_child(fork.Stage.SNAPSHOTS, snapshot.after_fork)
fork.call_in_child(fork.Stage.CLIENTS, _continue_all_in_child)
