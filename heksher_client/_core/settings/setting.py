"""A setting: its declaration, its validators, and the reading of its value."""

import json
import re
from collections.abc import (
    Callable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, SupportsIndex, TypeAlias, TypeVar, overload

import orjson

from heksher_client._core.settings.changes import CallbackRegistry, Change, Watch
from heksher_client._core.settings.context import check_feature_names
from heksher_client._core.settings.entry import Reader, View
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Resolution, Rule
from heksher_client._core.settings.types import Conversion, SettingType, setting_type

T = TypeVar("T")
V = TypeVar("V")
ReturnT = TypeVar("ReturnT")
EnumT = TypeVar("EnumT", bound=Enum)

Validator: TypeAlias = Callable[[T, Rule[T] | None, "Setting[T]"], T]
"""Called with a value, the rule that it came with (None for the service's default) and the setting; returns the value
to use, or raises to reject it."""

OnCoerce: TypeAlias = Callable[[T, Any, Sequence[str], Rule[T] | None, "Setting[T]"], T]
"""Called with the coerced value, the service's JSON value, the coercions, the rule (None for the service's default) and
the setting; returns the value to use, or raises to reject it."""

_SETTING_NAME: Final = re.compile(r"[a-zA-Z_0-9.]+")
_METADATA_KEY: Final = re.compile(r"[a-zA-Z0-9_-]+")
_VERSION: Final = re.compile(r"([0-9]+)\.([0-9]+)")


# A parameter `type: type[int]` would take `bool` as well, and infer the join of the type and the default. These
# protocols describe each class by something that only itself has, so that a wrong default is an error to type checkers.
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
    """Use a coerced value as it is: what settings do unless told otherwise."""
    return value


class Setting(Generic[T]):
    """A named value that may depend on the context.

    A setting registers itself when it is constructed, is declared to the service by the main client, and from then on
    has the rules that the service holds for it. It is held weakly: one that the program drops, and of which it keeps no
    `get` either, is no longer updated once the garbage collector has found it. Settings are told apart by identity, so
    a subclass must not define equality.
    """

    # What the rest of the package works with, and a program does not.
    _declaration: bytes
    """The body of the request that declares the setting."""
    _validators: "tuple[Validator[T], ...]"
    """Replaced as a whole when one is added, so that a client can tell that it has to convert again."""
    _reader: Reader[T]
    """What reads go through. A client puts new rules in place by assigning its view."""
    _listeners: CallbackRegistry | None = None
    """Those who want to hear of its changes, once there is one."""

    @overload
    def __init__(
        self: "Setting[bool]",
        name: str,
        type: type[bool],
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
        type: type[EnumT],
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
            type: What `setting_type` understands.
            configurable_features: The context features that the value may depend on; at least one.
            default_value: The value where the service has none; of the type, and made immutable.
            metadata: JSON values by keys of letters, digits, underscores and dashes, for the service's users.
            alias: A former name of the setting, which the service then knows it by as well.
            version: `major.minor`. A new setting starts with `1.0`; a change to a declaration needs a higher one.
            on_coerce: Called when part of a value from the service had to be dropped; returns the value to use. None
                rejects such values.

        Raises:
            ValueError: A name, a version or a key that the service would refuse.
            TypeError: The type is none, or the default is not of it, or something has no JSON form.
        """
        self.name = _check_name(name, "name")
        self.alias = None if alias is None else _check_name(alias, "alias")
        if alias == name:
            raise ValueError(f"setting {name}: the alias must differ from the name")
        self.type: SettingType[T] = setting_type(type)
        self.configurable_features = check_feature_names(configurable_features)
        if not self.configurable_features:
            raise ValueError(f"setting {name}: it must be configurable by one context feature at least")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ValueError(f"setting {name}: the version must be like '1.0', not {version!r}")
        self.version = version
        self.metadata: Mapping[str, Any] = MappingProxyType(dict(metadata or {}))
        for key in self.metadata:
            if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
                raise ValueError(f"setting {name}: {key!r} is no metadata key: letters, digits, _ and - only")
        self.on_coerce = on_coerce
        try:
            # Stricter than orjson, which turns NaN into null and dates into strings.
            json.dumps(dict(self.metadata), allow_nan=False)
            wire_default = self.type.convert_to_heksher(default_value)
            self.default_value: T = self.type.convert_from_heksher(wire_default).value
            self._declaration = self._wire_declaration(wire_default)
        except TypeError as error:
            raise TypeError(f"setting {name}: {error}") from None
        except ValueError as error:
            raise ValueError(f"setting {name}: {error}") from None
        self._validators = ()
        view = View(RuleSet(self.default_value, Reason.DECLARED_DEFAULT))
        self._reader = Reader(self, name, self.configurable_features, view, like=_get)
        if self.__class__.get is _get:
            vars(self)["get"] = self._reader.get  # without the detour that the method below takes
        registry.add(self)

    def __repr__(self) -> str:
        return f"<Setting {self.name}: {self.type.heksher_string()}, version {self.version}>"

    def get(self, /, **contexts: str) -> T:
        """Read the value for a context.

        Never waits and never touches the network: it looks into what the main client last received.

        Args:
            **contexts: Values of context features. The client's defaults fill in the others.

        Raises:
            UnknownContextError: A name that is none of the setting's configurable features.
            MissingContextError: A configurable feature has no value, neither here nor by default. (Not before the
                first client is set as main: then the value is the declared default whatever the context.)
            TypeError: The value of a context feature is no string. (One that is equal to a string and has its hash, as
                `collections.UserString`, may be taken for it.)
        """
        return self._reader.get(**contexts)

    def explain(self, /, **contexts: str) -> Resolution[T]:
        """Read the value as `get` does, with the reason for it: the rule that won, and those that it outranked.

        Raises:
            UnknownContextError, MissingContextError: As `get` does.
        """
        registry.observed(self, contexts)
        return self._reader.explain(contexts)

    def on_change(self, callback: Callable[[Change[T]], ReturnT]) -> Callable[[Change[T]], ReturnT]:
        """Call something with a `Change` whenever a client has put other rules, or another default, in place.

        It is called after all settings of the update have their rules, outside any lock: in the thread of the client's
        hooks, or in its event loop, where it must not block. An error in it is logged, and nothing else. A bound method
        is held weakly, and goes with its object.

        Returns:
            The callback, so that this can be used as a decorator.

        Raises:
            TypeError: It cannot be called, or is a coroutine function.
        """
        listeners: CallbackRegistry = vars(self).setdefault("_listeners", CallbackRegistry())
        return listeners.add(callback)

    def off_change(self, callback: Callable[[Change[T]], object]) -> None:
        """Call it no more."""
        if self._listeners is not None:
            self._listeners.remove(callback)

    def watch(self, /, **contexts: str) -> Watch[T]:
        """Follow the value in one context: iterate with `for`, which blocks, or with `async for`.

        Gives the value as it is, and then each time that it is another one: as rules, defaults or the main client
        change. Of values that follow one another before the next one is asked for, it gives the last. What is left out
        of the context is filled in as in `get`, when the next value is asked for. It ends when the main client closes,
        or when its `close` is called.

        Raises:
            UnknownContextError: A name that is none of the setting's configurable features. Other errors of `get` are
                raised by the iteration.
        """
        watch = Watch(self, contexts, registry.make_bell())
        self._reader.watch(watch)
        return watch

    def add_validator(self, validator: Validator[T]) -> Validator[T]:
        """Have every value that comes from the service checked or changed before it is used.

        Validators are called in the order in which they were added, in the client's task or thread. One that raises
        rejects that value alone: the rule is left out, and logged. Values already received pass through it shortly
        after.

        Returns:
            The validator, so that this can be used as a decorator.
        """
        self._validators = (*self._validators, validator)
        registry.changed()
        return validator

    def _convert_many(self, raws: Sequence[Any]) -> Sequence[T] | None:
        """Do what `_convert` does to many values at once; None if they have to be looked at one by one."""
        return None if self._validators else self.type._convert_many(raws)

    def _convert(self, raw: Any, rule_of: Callable[[], Rule[Any] | None]) -> Conversion[T]:
        """Turn a JSON value from the service into the value to use: coercions judged, validators passed.

        Args:
            raw: The JSON value.
            rule_of: Gives the rule that it came with; called only if somebody wants it.

        Raises:
            Exception: Whatever the conversion, `on_coerce` or a validator raised to reject the value.
        """
        conversion = self.type.convert_from_heksher(raw)
        value = conversion.value
        rule = rule_of() if conversion.coercions or self._validators else None
        if conversion.coercions:
            if self.on_coerce is None:
                raise TypeError(f"coercions are disabled for this setting: {'; '.join(conversion.coercions)}")
            value = self.on_coerce(value, raw, conversion.coercions, rule, self)
        for validator in self._validators:
            value = validator(value, rule, self)
        return Conversion(value, conversion.coercions)

    def _wire_declaration(self, wire_default: Any) -> bytes:
        declaration = {
            "name": self.name,
            "type": self.type.heksher_string(),
            "default_value": wire_default,
            "configurable_features": self.configurable_features,
            "metadata": dict(self.metadata),
            "version": self.version,
        }
        return orjson.dumps(declaration if self.alias is None else declaration | {"alias": self.alias})


_get: Final = Setting.get
"""What it is, whatever a test puts in its place."""


def _check_name(name: str, what: str) -> str:
    if not isinstance(name, str) or not _SETTING_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no {what} of a setting: letters, digits, underscores and dots only")
    return name
