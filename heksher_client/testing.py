"""Stub clients, for tests of programs that read settings: no service, no thread, no mocks.

A stub is set as main like a client, and has a client's methods. What settings give is said by the test:

    with SyncStubHeksherClient() as stub:
        stub[cache_size].rules = 100
        stub[color].rules = [Rule({"theme": "dark"}, "black"), Rule({}, "white")]

At the end of the block every setting has again what it had before.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar, Unpack
from warnings import warn
from weakref import WeakKeyDictionary

import orjson

if TYPE_CHECKING:
    from heksher_client.credentials import Credential

from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.status import Refresh, RefreshCallbackT, SettingStatus, State, Status
from heksher_client._core.settings.changes import Changes, diff_rules, subscribe
from heksher_client._core.settings.context import Defaults, Tracking, check_feature_names, check_known, order_with
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.entry import Entry, PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry, deliver
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._core.settings.setting import Change, ChangeCallbackT, Setting, entry_of
from heksher_client._drivers.options import AuthTypes, ClientOptions, check_names
from heksher_client._logging import logger

__all__ = [
    "AsyncStubHeksherClient",
    "Call",
    "Rule",
    "Rules",
    "StubbedSetting",
    "SyncStubHeksherClient",
    "UnstubbedSettingError",
]

T = TypeVar("T")


class UnstubbedSettingError(AssertionError):
    """A test has read a setting that it did not stub, and was not to."""


class Call(NamedTuple):
    """A call that a stub received."""

    method: str
    arguments: Mapping[str, Any] = {}
    """The keyword arguments."""


class Rules(tuple[Rule[T], ...]):
    """What reading `rules` gives. Assigning it puts the same rules in place again."""

    __slots__ = ()


class StubbedSetting(Generic[T]):
    """A setting in the hands of a stub."""

    _setting: Setting[T]
    _order: Sequence[str]
    _defaults: Defaults

    _listeners: CallbackRegistry
    is_assigned = False
    """Whether the test has assigned rules."""

    def __init__(
        self, setting: Setting[T], order: Sequence[str], defaults: Defaults, listeners: CallbackRegistry
    ) -> None:
        order = order_with(order, setting.configurable_features)
        # In the instance's own dict, where `unittest.mock` looks for what it has to put back.
        vars(self).update(_setting=setting, _order=order, _defaults=defaults, _listeners=listeners)
        vars(self)["rules"] = Rules(entry_of(setting).rule_set.rules())

    if not TYPE_CHECKING:  # to a type checker, no other attribute exists anyway

        def __setattr__(self, name: str, value: Any) -> None:
            if name != "rules":
                raise AttributeError(f"a stubbed setting has no attribute {name!r} to set, only rules")
            super().__setattr__(name, value)

    @property
    def rules(self) -> Rules[T]:
        """The rules of the setting, the strongest first.

        Assign a value, which then holds in all contexts, or a list of `Rule`. Restorable by whatever reads an
        attribute, sets it and sets it back, as `monkeypatch.setattr` and `unittest.mock.patch.object` do.
        """
        rules: Rules[T] = vars(self)["rules"]
        return rules

    @rules.setter
    def rules(self, value: T | Sequence[Rule[T]]) -> None:
        vars(self)["is_assigned"] = True
        setting = self._setting
        former = entry_of(setting).rule_set
        rules = _as_rules(setting, value)
        rule_set, duplicates = RuleSet.build(
            group_by_features(rules), self._order, former.default, former.default_reason
        )
        if duplicates:
            raise ValueError(f"setting {setting.name}: two rules have the same conditions as {duplicates[0]}")
        entry_of(setting).publish(PublishedRules(rule_set, self._defaults))
        self._announce(former, rule_set)
        vars(self)["rules"] = Rules(rule_set.rules())

    def _announce(self, before: RuleSet[T], after: RuleSet[T]) -> None:
        """Tell those who want to hear of changes, as a client does."""
        setting = self._setting
        change = run_to_end(diff_rules(setting, before, after))
        if not change:
            return
        for callback in deliver(change, (entry_of(setting).listeners, self._listeners)):
            if (function := callback.function) is None:
                continue
            try:
                function(change)
            except Exception:  # As with a client, it is the program's to see in its log.
                name = getattr(function, "__name__", repr(function))
                logger.exception("%s raised", name, extra={"hook": name})


class _Stub:
    """What both stubs share."""

    modification_lock: Any
    _make_lock: Callable[[], Any]

    def __init__(
        self,
        service_url: str = "http://stub",
        update_interval: float = 60,
        context_features: Sequence[str] = (),
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a stub. It takes a client's arguments, and needs none of them.

        Args:
            service_url: Not used.
            update_interval: Not used.
            context_features: The order of the context features, which the priority of rules depends on. Without them,
                each setting's own order is used, and defaults may be set for any name.
            **options: Not used.

        Raises:
            TypeError: One of them is none that a client has.
        """
        del service_url, update_interval
        check_names(options, ClientOptions, type(self).__name__)
        self.modification_lock = self._make_lock()
        self.calls: list[Call] = []
        """All calls of methods other than hooks, in their order."""
        self._context_features = check_feature_names(context_features)
        self._defaults = Defaults()
        self._tracking = Tracking()
        self._listeners = CallbackRegistry()
        self._is_main = self._is_closed = False
        self._stubbed: dict[Setting[Any], StubbedSetting[Any]] = {}
        """One for each setting, so that what one holder assigns is what another one sees and puts back."""
        self._former_views: WeakKeyDictionary[Setting[Any], PublishedRules[Any]] = WeakKeyDictionary()

    def __getitem__(self, setting: Setting[T]) -> StubbedSetting[T]:
        """Get hold of a setting's rules."""
        self._former_views.setdefault(setting, entry_of(setting).published)
        if setting not in self._stubbed:
            self._stubbed[setting] = StubbedSetting(setting, self._context_features, self._defaults, self._listeners)
        return self._stubbed[setting]

    def patch(self, setting: Setting[T], value: T | Sequence[Rule[T]]) -> "_Patch[T]":
        """Set the rules of a setting, until the end of a `with` block.

        Deprecated: assign `stub[setting].rules` instead, by `monkeypatch.setattr` where it must be undone.
        """
        warn("patch is deprecated: assign stub[setting].rules", DeprecationWarning, stacklevel=2)
        return _Patch(self[setting], value)

    def set_defaults(self, /, **values: str | ContextVar[str]) -> None:
        """Set defaults, as the clients do."""
        self.calls.append(Call("set_defaults", values))
        self._check_known(values)
        self._defaults.update(values)
        registry.defaults_changed(self._defaults)

    @property
    def defaults(self) -> Mapping[str, str | ContextVar[str]]:
        """What reads take for the context features that they do not give."""
        return self._defaults.values

    def supply_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Set defaults that the program under test brings along: no call of the test's, and only what it knows."""
        known = self._context_features or values
        self._defaults.update({name: value for name, value in values.items() if name in known})
        registry.defaults_changed(self._defaults)

    def track_contexts(self, /, **values: str | Collection[str]) -> None:
        """Check the arguments as the clients do. A stub uses all rules that it is given."""
        self.calls.append(Call("track_contexts", values))
        self._check_known(values)
        self._tracking = self._tracking.with_values(values)

    def on_change(self, callback: ChangeCallbackT) -> ChangeCallbackT:
        """Call something with the change whenever the test assigns other rules."""
        return self._listeners.add(callback)

    def off_change(self, callback: Callable[[Change[Any]], object]) -> None:
        """Call it no more."""
        self._listeners.remove(callback)

    def on_refresh(self, callback: RefreshCallbackT) -> RefreshCallbackT:
        """Check the callback as the clients do. A stub never calls it."""
        return CallbackRegistry().add(callback)

    def off_refresh(self, callback: Callable[[Refresh], object]) -> None:
        """Do nothing: a stub calls none."""

    def changes(self) -> Changes:
        """All changes that the test makes from now on."""
        changes = subscribe(self._listeners)
        if self._is_closed:
            changes.close()
        return changes

    def status(self) -> Status:
        """A status as of a client that has just received what the test has said."""
        self.calls.append(Call("status"))
        return Status(
            state=State.FRESH if self._is_main else State.STARTING,
            age=0.0 if self._is_main else None,
            last_success=None,
            last_error=None,
            last_error_at=None,
            failures=0,
            next_attempt=None,
            is_main=registry.main is self,
            is_following=False,
            is_last_known_good=False,
            last_known_good_problem=None,
            settings={
                entry.name: SettingStatus(None, None, entry.name, len(entry.rule_set), 0, ())
                for entry in registry.entries()
            },
        )

    def is_stubbed(self, setting: Setting[Any]) -> bool:
        """Whether the test has assigned rules to a setting."""
        return setting in self._stubbed and self._stubbed[setting].is_assigned

    @contextmanager
    def activated(self) -> Iterator[Self]:
        """Be the main client inside the block, of whichever kind the stub is."""
        self._start()
        try:
            yield self
        finally:
            self._stop("close")

    @property
    def closed(self) -> bool:
        """Whether the stub was closed."""
        return self._is_closed

    @property
    def credential(self) -> "Credential | None":
        """None: a stub asks nobody."""
        return None

    def use_credential(self, auth: AuthTypes) -> None:
        """Note the call."""
        self.calls.append(Call("use_credential", {"auth": auth}))

    def on_update_ok(self) -> None:
        """Override as in a client. A stub never calls it."""

    def on_update_error(self, exc: Exception, /) -> None:
        """Override as in a client. A stub never calls it."""

    def adopt(self, entry: Entry[Any]) -> None:
        """Take over a setting, as the registry requires of a main client. A setting that is stubbed keeps its rules."""
        if entry.published.defaults is self._defaults:
            return
        self._former_views.setdefault(entry.setting, entry.published)
        declared = RuleSet(entry.declaration.default_value, Reason.DECLARED_DEFAULT)
        entry.publish(PublishedRules(declared, self._defaults))

    def refresh_soon(self) -> None:
        """Do nothing, as the registry asks of a main client: there is nothing to refresh from."""

    def _check_known(self, values: Iterable[str]) -> None:
        if self._context_features:
            check_known(values, self._context_features, "this client")

    def _start(self) -> None:
        if self._is_main:
            raise RuntimeError("the client was set as main before")
        self._is_main = True
        self.calls.append(Call("set_as_main"))
        registry.activate(self)

    def _stop(self, method: str) -> None:
        self.calls.append(Call(method))
        self._is_main, self._is_closed = False, True
        # First the views, and then the main client, which may put newer rules in place at once. A view that is not of
        # this stub was put in place by a client that was started inside it, and stays.
        for setting, view in self._former_views.items():
            if entry_of(setting).published.defaults is self._defaults:
                entry_of(setting).publish(view)
        self._former_views.clear()
        self._stubbed.clear()
        self._listeners.close()
        registry.deactivate(self)

    def _settings(self) -> dict[str, SettingData]:
        self.calls.append(Call("get_settings"))
        return {entry.name: _data(entry) for entry in registry.entries()}


class SyncStubHeksherClient(_Stub):
    """Stands in for a `ThreadHeksherClient`."""

    modification_lock: threading.Lock
    _make_lock = threading.Lock

    def set_as_main(self) -> None:
        """Become the main client."""
        self._start()

    def close(self) -> None:
        """Give all settings back what they had, and the former main client its place."""
        self._stop("close")

    def reload(self) -> None:
        """Note the call."""
        self.calls.append(Call("reload"))

    def ping(self) -> None:
        """Note the call."""
        self.calls.append(Call("ping"))

    def get_settings(self) -> dict[str, SettingData]:
        """The settings of this program, as a service would have them that knows only their declarations."""
        return self._settings()

    def __enter__(self) -> Self:
        self.set_as_main()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStubHeksherClient(_Stub):
    """Stands in for an `AsyncHeksherClient`."""

    modification_lock: asyncio.Lock
    _make_lock = asyncio.Lock

    async def set_as_main(self) -> None:
        """Become the main client."""
        self._start()

    async def aclose(self) -> None:
        """Give all settings back what they had, and the former main client its place."""
        self._stop("aclose")

    async def close(self) -> None:
        """Call `aclose`, which is the name to use."""
        warn("AsyncStubHeksherClient.close is deprecated, use aclose", DeprecationWarning, stacklevel=2)
        await self.aclose()

    async def reload(self) -> None:
        """Note the call."""
        self.calls.append(Call("reload"))

    async def ping(self) -> None:
        """Note the call."""
        self.calls.append(Call("ping"))

    async def get_settings(self) -> dict[str, SettingData]:
        """The settings of this program, as a service would have them that knows only their declarations."""
        return self._settings()

    async def __aenter__(self) -> Self:
        await self.set_as_main()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class _Patch(Generic[T]):
    """Rules that are in place at once, and taken back at the end of a block."""

    def __init__(self, stubbed: StubbedSetting[T], value: T | Sequence[Rule[T]]) -> None:
        self._stubbed, self._former = stubbed, stubbed.rules
        stubbed.rules = value

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._stubbed.rules = self._former


def _as_rules(setting: Setting[T], value: Any) -> list[Rule[T]]:
    if _is_rules(setting, value):
        for rule in value:
            check_known(rule.match_conditions, setting.configurable_features, f"setting {setting.name}")
        return [Rule(rule.match_conditions, _checked(setting, rule.value), rule.rule_id) for rule in value]
    return [Rule({}, _checked(setting, value))]


def _is_rules(setting: Setting[Any], value: Any) -> bool:
    if isinstance(value, Rules):
        return True
    if not isinstance(value, list | tuple):
        return False
    if value:
        return all(isinstance(element, Rule) for element in value)
    # An empty list is a value to a sequence, and to all others a lack of rules.
    try:
        setting.type.convert_to_heksher(value)
    except TypeError:
        return True
    return False


def _checked(setting: Setting[T], value: T) -> T:
    """A value as the setting would have it from the service; a TypeError for what it could never have."""
    try:
        return setting.type.convert_from_heksher(setting.type.convert_to_heksher(value)).value
    except TypeError as error:
        raise TypeError(f"setting {setting.name}: {error}") from None


def _data(entry: Entry[Any]) -> SettingData:
    declaration = orjson.loads(entry.declaration.body)
    alias = declaration.pop("alias", None)
    return SettingData(**declaration, aliases=[] if alias is None else [alias])
