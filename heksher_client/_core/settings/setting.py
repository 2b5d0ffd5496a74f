"""`Setting`, the handle that programs hold, and `Change`, which refers to it. What the package does is in `entry`."""

import builtins
from collections.abc import (
    Callable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, NoReturn, Protocol, SupportsIndex, TypeAlias, TypeVar, overload

from heksher_client._core.settings.context import check_known
from heksher_client._core.settings.declaration import declare
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.observers import read_observers
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rules import Resolution, Rule
from heksher_client._core.settings.streams import Watch, WatchedValue
from heksher_client._core.settings.types import SettingType
from heksher_client._core.settings.user_functions import check_function

T = TypeVar("T")
V = TypeVar("V")
ReturnT = TypeVar("ReturnT")
EnumT = TypeVar("EnumT", bound=Enum)
ChangeCallbackT = TypeVar("ChangeCallbackT", bound=Callable[["Change[Any]"], object])

Validator: TypeAlias = Callable[[T, Rule[T] | None, "Setting[T]"], T]
"""Called with a value, its rule (None for the service's default) and the setting. Returns the value to use, or raises
to reject it."""

OnCoerce: TypeAlias = Callable[[T, Any, Sequence[str], Rule[T] | None, "Setting[T]"], T]
"""Called with the coerced value, the service's JSON value, the coercions, the rule (None for the service's default) and
the setting. Returns the value to use, or raises to reject it."""


# A parameter `type: type[int]` would accept `bool` as well, and infer the join of the type and the default. These
# protocols describe each class by something that only it has, so that type checkers report a wrong default.
class _IntClass(Protocol):
    def __call__(self, x: str, /, base: SupportsIndex) -> int: ...  # pragma: no cover - for type checkers


class _FloatClass(Protocol):
    def fromhex(self, string: str, /) -> float: ...  # pragma: no cover - for type checkers


class _StrClass(Protocol):
    def __call__(self, object: bytes, /, encoding: str, errors: str) -> str: ...  # pragma: no cover - for type checkers


class _SequenceClass(Protocol[V]):
    def index(self, obj: Sequence[V], value: object, /) -> int: ...  # pragma: no cover - for type checkers
    def __reversed__(self, obj: Sequence[V], /) -> Iterator[V]: ...  # pragma: no cover - for type checkers


class _MappingClass(Protocol[V]):
    def keys(self, obj: Mapping[str, V], /) -> KeysView[str]: ...  # pragma: no cover - for type checkers
    def values(self, obj: Mapping[str, V], /) -> ValuesView[V]: ...  # pragma: no cover - for type checkers


def keep_coerced(value: T, *_: object) -> T:
    """Return a coerced value unchanged: the default of `Setting(on_coerce=...)`."""
    return value


class Changed(NamedTuple, Generic[T]):
    """Something before and after a change."""

    before: T
    after: T


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """The difference between the rules of a setting before and after an update. Rules are identified by their
    conditions.

    It can be copied, also deeply, but not pickled or converted by `dataclasses.asdict`, as it refers to the setting.
    """

    setting: "Setting[T]"
    added: tuple[Rule[T], ...] = ()
    removed: tuple[Rule[T], ...] = ()
    changed: tuple[Changed[Rule[T]], ...] = ()
    """The rules that have another value."""
    default: Changed[T] | None = None
    """The value if no rule matches, if that has changed."""
    missed: int = 0
    """How many earlier changes of this setting are merged into this one, because an iterator did not take them."""

    def __deepcopy__(self, memo: object) -> "Change[T]":
        return self  # It is immutable, and a setting cannot be copied.

    def __bool__(self) -> bool:
        """True if anything differs. Merged changes may cancel each other out."""
        return bool(self.added or self.removed or self.changed or self.default)


class Setting(Generic[T]):
    """A named value that may depend on the context.

    A setting registers itself when it is constructed. The main client declares it to the service, and keeps its rules
    up to date. It is held weakly: once the program refers neither to it nor to its `get`, and the garbage collector has
    found it, it is no longer updated. Settings are compared by identity, so a subclass must not define equality. They
    cannot be copied or pickled (`TypeError`): other modules and processes import them.
    """

    @overload
    def __init__(
        self: "Setting[bool]",
        name: str,
        type: builtins.type[bool],
        configurable_features: Sequence[str],
        default_value: bool,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[bool] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[int]",
        name: str,
        type: _IntClass,
        configurable_features: Sequence[str],
        default_value: int,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[int] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[float]",
        name: str,
        type: _FloatClass,
        configurable_features: Sequence[str],
        default_value: float,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[float] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[str]",
        name: str,
        type: _StrClass,
        configurable_features: Sequence[str],
        default_value: str,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[str] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[EnumT]",
        name: str,
        type: builtins.type[EnumT],
        configurable_features: Sequence[str],
        default_value: EnumT,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[EnumT] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[Sequence[V]]",
        name: str,
        type: _SequenceClass[V],
        configurable_features: Sequence[str],
        default_value: Sequence[V],
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[Sequence[V]] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self: "Setting[Mapping[str, V]]",
        name: str,
        type: _MappingClass[V],
        configurable_features: Sequence[str],
        default_value: Mapping[str, V],
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[Mapping[str, V]] | None = keep_coerced,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        type: SettingType[T],
        configurable_features: Sequence[str],
        default_value: T,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[T] | None = keep_coerced,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        type: Any,
        configurable_features: Sequence[str],
        default_value: Any,
        metadata: Mapping[str, Any] | None = None,
        alias: str | None = None,
        version: str = "1.0",
        on_coerce: OnCoerce[Any] | None = keep_coerced,
    ) -> None:
        """Declare a setting.

        Args:
            name: Letters, digits, underscores and dots.
            type: A type that `setting_type` supports.
            configurable_features: The context features that the value may depend on; at least one.
            default_value: The value if the service has none; it must be of the type, and is made immutable.
            metadata: JSON values by keys of letters, digits, underscores and dashes, for the operators of the service.
            alias: A former name of the setting. If the service does not have it, it gets the setting under both names.
            version: `major.minor`. A new setting starts with `1.0`; a changed declaration needs a higher version. A
                service that has never seen the setting gets it as `1.0` first, and then with this version.
            on_coerce: Called when part of a value from the service had to be dropped; returns the value to use. None
                rejects such values.

        Raises:
            ValueError: A name, a version or a key that the service would refuse.
            TypeError: An unknown type, a default that is not of the type, a value without a JSON form, or `on_coerce`
                is not a plain function.
        """
        if on_coerce is not None and on_coerce is not keep_coerced:
            check_function(on_coerce, "on_coerce")
        declaration = declare(name, type, configurable_features, default_value, metadata, alias, version)
        # A getter in the instance saves the call of the method below, unless a subclass overrides it.
        self._entry: Entry[T] = Entry(self, declaration, on_coerce, _get if self.__class__.get is _get else None)
        registry.add(self._entry)

    def __repr__(self) -> str:
        return f"<Setting {self.name}: {self.type.heksher_string()}, version {self.version}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"setting {self.name} cannot be copied or pickled, as no client would update the copy: import it from the "
            "module that declares it, or pass its value or its name"
        )

    @property
    def name(self) -> str:
        """The declared name."""
        return self._entry.declaration.name

    @property
    def type(self) -> SettingType[T]:
        """The `SettingType` of the declared type."""
        return self._entry.declaration.type

    @property
    def configurable_features(self) -> tuple[str, ...]:
        """The context features that the value may depend on."""
        return self._entry.declaration.configurable_features

    @property
    def default_value(self) -> T:
        """The declared default, converted to the type, and immutable."""
        return self._entry.declaration.default_value

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The declared metadata, read-only."""
        return self._entry.declaration.metadata

    @property
    def alias(self) -> str | None:
        """A former name of the setting."""
        return self._entry.declaration.alias

    @property
    def version(self) -> str:
        """The version of the declaration, as `major.minor`."""
        return self._entry.declaration.version

    @property
    def on_coerce(self) -> OnCoerce[T] | None:
        """Called when part of a value from the service had to be dropped; None rejects such values."""
        return self._entry.on_coerce

    @on_coerce.setter
    def on_coerce(self, on_coerce: OnCoerce[T] | None) -> None:
        if on_coerce is not None:
            check_function(on_coerce, "on_coerce")
        self._entry.on_coerce = on_coerce

    def get(self, /, **contexts: str) -> T:
        """Read the value for a context.

        Never waits, and never uses the network: it looks into the rules that the main client last received.

        Args:
            **contexts: Values of context features. The client's defaults complete them.

        Raises:
            UnknownContextError: A name that is not a configurable feature of the setting.
            MissingContextError: A configurable feature has no value, neither here nor by default. (Not before the
                first client is set as main: until then the value is the declared default in every context.)
            TypeError: The value of a context feature is not a string: pass `str(user_id)`. (One that is equal to a
                string and has its hash, such as `collections.UserString`, may be accepted. Not before the first client
                is set as main, either.)
        """
        return self._entry.get(contexts)

    def explain(self, /, **contexts: str) -> Resolution[T]:
        """Read the value as `get` does, with the reason for it: the rule that won, and those that it outranked.

        Raises:
            UnknownContextError, MissingContextError: As `get`.
        """
        read_observers.notify(self, contexts)
        return self._entry.explain(contexts)

    def on_change(self, callback: Callable[[Change[T]], ReturnT]) -> Callable[[Change[T]], ReturnT]:
        """Call a function with a `Change` whenever a client has applied other rules, or another default.

        It is called after all settings of the update have their rules, without any lock: in the thread of the client's
        hooks, or in its event loop, which it must not block. Its errors are logged. A bound method is held weakly, and
        goes with its object.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: It is not callable, or is a coroutine function.
        """
        return self._entry.get_listeners().add(callback)

    def off_change(self, callback: Callable[[Change[T]], object]) -> None:
        """Remove a callback of `on_change`. It is not called again, even for pending changes."""
        if self._entry.listeners is not None:
            self._entry.listeners.remove(callback)

    def watch(self, /, *, name: str | None = None, **contexts: str) -> Watch[T]:
        """Follow the value in one context: iterate with `for`, which blocks, or with `async for`.

        Yields the current value, and then each new one, as rules, defaults or the main client change. Values that were
        replaced before the next one is taken are skipped. The context is completed as in `get`, each time that a value
        is taken. Ends when the main client closes, or when `close` of the result is called. If no client is the main
        one, the next one is followed.

        Args:
            name: A name for `status().iterators`. If the setting has a context feature `name`, this is its value.
            **contexts: By context feature: its value.

        Raises:
            UnknownContextError: A name that is not a configurable feature of the setting. The iteration raises other
                errors of `get`.
            TypeError: The name of the iterator is not a string.
        """
        if name is not None and "name" in self.configurable_features:
            contexts["name"], name = name, None
        check_known(contexts, self.configurable_features, f"setting {self.name}")
        value = WatchedValue(lambda: self.get(**contexts), name)
        self._entry.watch(value)
        return Watch(value)

    def add_validator(self, validator: Validator[T]) -> Validator[T]:
        """Add a function that checks or changes every value from the service before it is used.

        Validators are called in the order in which they were added, in the client's task or thread. An error rejects
        only that value: the rule is left out, and logged. Values that were received before are validated shortly
        after.

        Returns:
            The validator, so that this can be used as a decorator.

        Raises:
            TypeError: It is not callable, or is a coroutine function.
        """
        check_function(validator, "validator")
        self._entry.validators = (*self._entry.validators, validator)
        registry.validators_changed()
        return validator


_get: Final = Setting.get
"""The method itself, even while a test patches the class."""


def entry_of(setting: Setting[T]) -> Entry[T]:
    """Return the package's side of a setting."""
    return setting._entry  # noqa: SLF001 - this is the one way from a handle to its entry
