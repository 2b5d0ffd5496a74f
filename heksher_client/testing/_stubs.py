"""The stub clients: a client's public methods, without a service behind them."""

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, Unpack
from warnings import warn

import orjson

from heksher_client._core.refresh.options import checked_timeout
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.status import Refresh, RefreshCallbackT, SettingStatus, State, Status
from heksher_client._core.settings.changes import Changes, subscribe
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.listeners import CallbackRegistry, pending_by_name
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rules import Rule
from heksher_client._core.settings.setting import Change, ChangeCallbackT, Setting
from heksher_client._core.settings.user_functions import HookOwner
from heksher_client._drivers.effective_options import EffectiveOptions
from heksher_client._drivers.options import AuthTypes, ClientOptions, checked_own_arguments
from heksher_client._resource import Resource
from heksher_client.testing._session import StubSession
from heksher_client.testing._stubbed_setting import StubbedSetting

if TYPE_CHECKING:
    from heksher_client.credentials import Credential

T = TypeVar("T")


class UnstubbedSettingError(AssertionError):
    """A strict test read a setting that it did not stub."""


class Call(NamedTuple):
    """A call that a stub received."""

    method: str
    arguments: Mapping[str, Any] = {}
    """The keyword arguments."""


class _Stub(HookOwner, Resource):
    """The common part of both stubs."""

    modification_lock: Any
    _make_lock: Callable[[], Any]

    def __init__(
        self,
        service_url: str = "http://stub",
        update_interval: float = 60,
        context_features: Sequence[str] | None = None,
        *args: Any,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Create a stub. It accepts the arguments of a client; all of them are optional.

        Args:
            service_url: Not used, except in `options`.
            update_interval: Likewise.
            context_features: The context features in the order of the service, which determines the priority of rules.
                If None or empty, each setting's own order is used, and defaults can be set for any name.
            *args: Further arguments, for the `__post_init__` of a subclass.
            **options: Not used, except by `__post_init__`.

        Raises:
            TypeError: A client has no such option, or a hook is a coroutine function.
        """
        self._check_hooks()
        given_options = dict[str, Any](options)
        own_arguments = checked_own_arguments(type(self), args, given_options)
        self.modification_lock = self._make_lock()
        self._options = EffectiveOptions(service_url, update_interval, tuple(context_features or ()))
        self.calls: list[Call] = []
        """All calls of methods other than hooks, in order."""
        self._session = StubSession(self, context_features or ())
        post_init: Callable[..., None] = self.__post_init__
        post_init(*args, **own_arguments)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "main" if self._session.is_main else "starting"
        return f"<{type(self).__name__} {self._options.service_url}: {state}>"

    def __getitem__(self, setting: Setting[T]) -> StubbedSetting[T]:
        """Return the stubbed setting, to read and assign its rules."""
        return self._session.stubbed(setting)

    def patch(self, setting: Setting[T], value: T | Sequence[Rule[T]]) -> "_Patch[T]":
        """Set the rules of a setting until the end of a `with` block.

        Deprecated: assign `stub[setting].rules` instead, with `monkeypatch.setattr` if it must be undone.
        """
        warn("patch is deprecated: assign stub[setting].rules", DeprecationWarning, stacklevel=2)
        return _Patch(self[setting], value)

    def set_defaults(self, /, **values: str | ContextVar[str]) -> None:
        """Set default context values, as in a client."""
        self.calls.append(Call("set_defaults", values))
        self._session.set_defaults(values)

    def track_contexts(self, /, **values: str | Collection[str]) -> None:
        """Check the arguments as a client does. A stub uses all rules that it is given."""
        self.calls.append(Call("track_contexts", values))
        self._session.track_contexts(values)

    def on_change(self, callback: ChangeCallbackT) -> ChangeCallbackT:
        """Call a function with each `Change` that the test makes by assigning rules."""
        return self._session.listeners.add(callback)

    def off_change(self, callback: Callable[[Change[Any]], object]) -> None:
        """Remove a callback."""
        self._session.listeners.remove(callback)

    def on_refresh(self, callback: RefreshCallbackT) -> RefreshCallbackT:
        """Check the callback as a client does. A stub never calls it."""
        return CallbackRegistry().add(callback)

    def off_refresh(self, callback: Callable[[Refresh], object]) -> None:
        """Do nothing: a stub has no refreshes."""

    def changes(self, *, name: str | None = None) -> Changes:
        """Return an iterator over the changes that the test makes from now on."""
        return subscribe(self._session.listeners, name)

    def status(self) -> Status:
        """Return the status of a client that has just received the rules that the test assigned."""
        self.calls.append(Call("status"))
        watched = (entry.watched_values or () for entry in registry.entries())
        is_active = self._session.is_active
        return Status(
            state=State.FRESH if is_active else State.STARTING,
            age=0.0 if is_active else None,
            last_success=None,
            last_error=None,
            last_error_at=None,
            failures=0,
            next_attempt=None,
            is_main=self._session.is_main,
            is_following=False,
            change_stream_problem=None,
            is_last_known_good=False,
            last_known_good_problem=None,
            settings={
                entry.name: SettingStatus(None, None, entry.name, len(entry.published.rule_set), 0, ())
                for entry in registry.entries()
            },
            iterators=pending_by_name(chain(self._session.listeners.queues, *watched)),
        )

    @property
    def options(self) -> EffectiveOptions:
        """The first three arguments, and otherwise the defaults of a client."""
        return self._options

    @property
    def closed(self) -> bool:
        """True if the stub was closed."""
        return self._session.is_closed

    @property
    def credential(self) -> "Credential | None":
        """None: a stub sends no requests."""
        return None

    def use_credential(self, auth: AuthTypes) -> None:
        """Record the call."""
        self.calls.append(Call("use_credential", {"auth": auth}))

    def on_update_ok(self) -> None:
        """Override as in a client. A stub never calls it."""

    def on_update_error(self, exc: Exception) -> None:
        """Override as in a client. A stub never calls it."""

    def _record(self, method: str, timeout: float | None) -> None:
        """Record a call, after checking its timeout as a client does."""
        checked_timeout(timeout)
        self.calls.append(Call(method, {} if timeout is None else {"timeout": timeout}))

    def _get_settings(self, timeout: float | None) -> dict[str, SettingData]:
        self._record("get_settings", timeout)
        return {entry.name: _setting_data(entry) for entry in registry.entries()}


class SyncStubHeksherClient(_Stub):
    """A stub of `ThreadHeksherClient`."""

    modification_lock: threading.Lock
    _make_lock = threading.Lock

    def set_as_main(self, *, timeout: float | None = None) -> None:
        """Become the main client."""
        self._session.activate()
        self._record("set_as_main", timeout)

    def close(self) -> None:
        """Restore the former rules of all settings, and the former main client."""
        self.calls.append(Call("close"))
        self._session.close()

    def reload(self, *, timeout: float | None = None) -> None:
        """Record the call."""
        self._record("reload", timeout)

    def ping(self, *, timeout: float | None = None) -> None:
        """Record the call."""
        self._record("ping", timeout)

    def get_settings(self, *, timeout: float | None = None) -> dict[str, SettingData]:
        """Return the settings of this program as a service has them after their declaration."""
        return self._get_settings(timeout)

    def __enter__(self) -> Self:
        self.set_as_main()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStubHeksherClient(_Stub):
    """A stub of `AsyncHeksherClient`. Its coroutines never suspend."""

    modification_lock: asyncio.Lock
    _make_lock = asyncio.Lock

    async def set_as_main(self, *, timeout: float | None = None) -> None:
        """Become the main client."""
        self._session.activate()
        self._record("set_as_main", timeout)

    async def aclose(self) -> None:
        """Restore the former rules of all settings, and the former main client."""
        self.calls.append(Call("aclose"))
        self._session.close()

    async def close(self) -> None:
        """Close the stub. Deprecated: call `aclose` instead."""
        warn("AsyncStubHeksherClient.close is deprecated, use aclose", DeprecationWarning, stacklevel=2)
        await self.aclose()

    async def reload(self, *, timeout: float | None = None) -> None:
        """Record the call."""
        self._record("reload", timeout)

    async def ping(self, *, timeout: float | None = None) -> None:
        """Record the call."""
        self._record("ping", timeout)

    async def get_settings(self, *, timeout: float | None = None) -> dict[str, SettingData]:
        """Return the settings of this program as a service has them after their declaration."""
        return self._get_settings(timeout)

    async def __aenter__(self) -> Self:
        await self.set_as_main()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Patch(Generic[T]):
    """Rules that apply from construction to the end of a block."""

    def __init__(self, stubbed: StubbedSetting[T], value: T | Sequence[Rule[T]]) -> None:
        self._stubbed, self._former = stubbed, stubbed.rules
        stubbed.rules = value

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._stubbed.rules = self._former


def _setting_data(entry: Entry[Any]) -> SettingData:
    declaration = orjson.loads(entry.declaration.body)
    alias = declaration.pop("alias", None)
    return SettingData(**declaration, aliases=[] if alias is None else [alias])
