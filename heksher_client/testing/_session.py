"""StubSession: the state of a stub client, and the main client that the registry calls.

A stub holds a session as a client does. Methods for other parts of this package (the registry, the Django app) are
here, so that the public classes have only the public methods of a client.

Invariant: the session records the former rules of each setting before it replaces them, and `close` restores them
unless another client has replaced the session's own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from heksher_client._core.settings.context import Defaults, Tracking, check_feature_names, check_known
from heksher_client._core.settings.entry import Entry, PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._core.settings.setting import Setting, entry_of
from heksher_client.testing._stubbed_setting import StubbedSetting

T = TypeVar("T")


class StubSession:
    """The session of one stub."""

    service_url: Final = None
    """A stub has no service. The session of a client has a URL here."""

    def __init__(self, stub: Any, context_features: Sequence[str]) -> None:
        """Create a session that is not the main client yet.

        Args:
            stub: The stub itself, for callers that find the session in the registry.
            context_features: The context features in the order of the service; empty to accept any feature.
        """
        self.stub = stub
        self.defaults = Defaults()
        self.listeners = CallbackRegistry()
        self.is_active = self.is_closed = False
        self.context_features = check_feature_names(context_features)
        self._tracking = Tracking()
        self._stubbed: dict[Setting[Any], StubbedSetting[Any]] = {}
        """One object for each setting: every holder of it sees and restores the same rules."""
        self._former: WeakKeyDictionary[Entry[Any], PublishedRules[Any]] = WeakKeyDictionary()
        """The rules that each setting had before."""

    @property
    def is_main(self) -> bool:
        """True if this is the main client now."""
        return registry.main is self

    def activate(self) -> None:
        """Become the main client.

        Raises:
            RuntimeError: The stub is active already.
        """
        if self.is_active:
            raise RuntimeError("the client was set as main before")
        self.is_active = True
        registry.activate(self)

    def close(self) -> None:
        """Restore all settings, and the former main client."""
        self.is_active, self.is_closed = False, True
        # Rules first: the former main client may publish newer ones as soon as it is the main one again. Rules with
        # other defaults were published by a client that started after this stub, and stay.
        for entry, former in self._former.items():
            if entry.published.defaults is self.defaults:
                entry.publish(former)
        self._former.clear()
        self._stubbed.clear()
        self.listeners.close()
        registry.deactivate(self)

    def adopt(self, entry: Entry[Any]) -> None:
        """Take over a setting: the registry calls this. A setting that the stub already has keeps its rules."""
        if entry.published.defaults is self.defaults:
            return
        self._former.setdefault(entry, entry.published)
        declared = RuleSet(entry.declaration.default_value, Reason.DECLARED_DEFAULT)
        entry.publish(PublishedRules(declared, self.defaults))

    def refresh_soon(self) -> None:
        """Do nothing: the registry calls this, and a stub has no service to refresh from."""

    def stubbed(self, setting: Setting[T]) -> StubbedSetting[T]:
        """Return the stubbed setting of a setting."""
        entry = entry_of(setting)
        self._former.setdefault(entry, entry.published)
        if setting not in self._stubbed:
            self._stubbed[setting] = StubbedSetting(setting, self.context_features, self.defaults, self.listeners)
        return self._stubbed[setting]

    def set_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Set default context values.

        Raises:
            UnknownContextError: The stub was created with context features, and a name is not one of them.
        """
        self._check_features(values)
        self._defaults_changed(values)

    def add_known_defaults(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        """Set the default context values whose features the stub has, and ignore the others.

        For defaults that come from the program under test: the test may have created the stub with fewer features.
        """
        known = self.context_features or values
        self._defaults_changed({name: value for name, value in values.items() if name in known})

    def track_contexts(self, values: Mapping[str, str | Collection[str]]) -> None:
        """Check the values as a client does. A stub uses all rules that it is given."""
        self._check_features(values)
        self._tracking = self._tracking.with_values(values)

    def _check_features(self, names: Iterable[str]) -> None:
        if self.context_features:
            check_known(names, self.context_features, "this client")

    def _defaults_changed(self, values: Mapping[str, str | ContextVar[str]]) -> None:
        self.defaults.update(values)
        registry.defaults_changed(self.defaults)
