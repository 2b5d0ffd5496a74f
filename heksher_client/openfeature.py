"""A provider for OpenFeature: its flags are the settings that the program declares. Requires the extra `openfeature`.

    api.set_provider_and_wait(HeksherProvider(client, targeting_key="user"))
    api.get_client().get_integer_value("cache_size", 10, EvaluationContext("jim", {"environment": "prod"}))

The client is the client that the program uses for its settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

try:
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.event import ProviderEventDetails
    from openfeature.exception import (
        ErrorCode,
        FlagNotFoundError,
        InvalidContextError,
        ProviderFatalError,
        ProviderNotReadyError,
        TargetingKeyMissingError,
        TypeMismatchError,
    )
    from openfeature.flag_evaluation import FlagResolutionDetails
    from openfeature.flag_evaluation import Reason as FlagReason
    from openfeature.provider import AbstractProvider, Metadata
except ImportError as error:  # pragma: no cover - a test runs it in another process
    raise ImportError(
        "the OpenFeature provider requires an extra: pip install 'heksher_client[openfeature]'"
    ) from error

from heksher_client._clock import monotonic
from heksher_client._core.refresh.status import Refresh, State, Status
from heksher_client._core.settings.context import check_known
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rules import Reason, Resolution
from heksher_client._core.settings.setting import Change, Setting
from heksher_client._drivers.observable import Observable, check_observable
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client._resource import Resource
from heksher_client.exceptions import MissingContextError, UnknownContextError

__all__ = ["HeksherProvider"]

_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "string": (str,),
    "integer": (int,),
    "float": (float, int),
    "object": (list, tuple, dict),
}
"""For each flag type of OpenFeature, the types of JSON values that it accepts."""

_STATUS_INTERVAL: Final = 1.0
"""Seconds between two checks of the client's status during evaluations. A client can become stale between refreshes."""

_INITIALIZATION_SECONDS: Final = 1.0
"""Seconds after `initialize` within which OpenFeature may still emit the event for its result."""

_NOT_MAIN: Final = "another client is the main one, and settings are read from that"
_users: Final[WeakKeyDictionary[ThreadHeksherClient, int]] = WeakKeyDictionary()
"""The number of providers that use each client that a provider has started."""
_lock: Final = Lock()


class HeksherProvider(Resource, AbstractProvider):
    """A provider that evaluates flags by reading settings: in the process, without blocking, with either client.

    Settings belong to the process and are read from its main client, so use one client per process. While another
    client is the main one, the provider is not ready.

    The key of a flag is the name or the alias of a setting. Its variant is the ID of the rule that matched, or
    `"default"`; its metadata are the name and version of the setting and the conditions of the rule. Values are the
    JSON values of the service: an enum member as its value, flags as a list of names.
    """

    def __init__(
        self, client: Observable, *, targeting_key: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Create a provider.

        Args:
            client: The client, or a stub. A `ThreadHeksherClient` that is not running is started with the provider, and
                closed with the last provider that uses it. An `AsyncHeksherClient` must be running.
            targeting_key: The context feature whose value is the targeting key. If None, the targeting key is ignored.
            attributes: Context features by attribute name. If None, each attribute is the value of the context feature
                with the same name. Other attributes are ignored, and the client's defaults apply to context features
                without an attribute.

        Raises:
            TypeError: An argument has the wrong type.
        """
        super().__init__()
        _check_arguments(client, targeting_key, attributes)
        self._client, self._targeting_key = client, targeting_key
        self._session = getattr(client, "_session", client)
        """The object that is `registry.main` while the client is the main one."""
        self._attributes = None if attributes is None else {feature: name for name, feature in attributes.items()}
        self._lookup: tuple[int, Mapping[str, ref[Setting[Any]]]] = (0, {})
        """The registry's generation, and its settings by name and alias. One tuple, so that threads that evaluate flags
        always see a matching pair."""
        self._changed: dict[str, None] = {}
        """The names and aliases of settings that changed since the last event, in order."""
        self._is_stale = False
        self._emitted_state: State | None = None
        """The state of the last event; None if OpenFeature may have emitted another event in the meantime."""
        self._initialized_at = monotonic()
        self._checked_at = monotonic()
        self._shared_client: ThreadHeksherClient | None = None
        """The client, if it is closed with its last provider and this provider is counted."""

    def get_metadata(self) -> Metadata:
        """Return the name of the provider."""
        return Metadata(name="heksher")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Start the client if it is not running.

        Raises:
            ProviderFatalError: The client does not have the context features in the arguments of the provider. Or the
                client is closed: it cannot be started again, so a provider that started its client can be used once.
            ProviderNotReadyError: No rules have been received yet, or another client is the main one. The event
                `PROVIDER_READY` follows when this has changed.
        """
        self._check_features()
        if self._client.status().state is State.CLOSED:
            raise ProviderFatalError("the client is closed, possibly by another provider: create a new one")
        self._start_client()
        self._remove_callbacks()  # A former call of this method may have failed after it added them.
        self._client.on_change(self._record_change)
        self._client.on_refresh(self._emit_changes)
        status = self._get_status()
        # OpenFeature emits the event for the result of this method: ready or error. The next check of the status emits
        # any other state.
        self._initialized_at = monotonic()
        is_ready = status.is_main and status.age is not None
        self._emitted_state = State.FRESH if is_ready else State.FAILING
        if not is_ready:
            raise ProviderNotReadyError(_message(State.FAILING, status))

    def shutdown(self) -> None:
        """Close the client if a provider started it and this is the last provider that uses it."""
        self._remove_callbacks()
        with _lock:
            client, self._shared_client = self._shared_client, None
            if client is None:
                return
            _users[client] -= 1
            if not _users[client]:
                del _users[client]
                client.close()

    def _check_features(self) -> None:
        features = [*(self._attributes or ()), *(() if self._targeting_key is None else (self._targeting_key,))]
        # A stub that was created without context features accepts any name.
        if known := getattr(self._session, "context_features", ()):
            try:
                check_known(features, known, "the client")
            except UnknownContextError as error:
                raise ProviderFatalError(str(error)) from None

    def _start_client(self) -> None:
        """Start a thread client that is not running, and count this provider as its user.

        A client that the program itself has started is not counted, and so never closed by a provider.

        Raises:
            ProviderNotReadyError: Another kind of client is not running. This method cannot await its start.
        """
        with _lock:
            status = self._client.status()
            is_running = status.next_attempt is not None or status.state is not State.STARTING
            if not isinstance(self._client, ThreadHeksherClient):
                if not is_running:
                    raise ProviderNotReadyError("the client is not running: start it before you set the provider")
                return
            users = _users.get(self._client, 0)
            if self._shared_client is not None or (is_running and not users):
                return
            _users[self._client] = users + 1
            self._shared_client = self._client
        if not users:
            self._client.set_as_main()  # Outside the lock: this may block, and other providers need not wait for it.

    def _remove_callbacks(self) -> None:
        self._client.off_change(self._record_change)
        self._client.off_refresh(self._emit_changes)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Evaluate a flag whose setting has the type `bool`."""
        return self._resolve("boolean", flag_key, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Evaluate a flag whose setting has the type `str` or an enum of strings."""
        return self._resolve("string", flag_key, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Evaluate a flag whose setting has the type `int` or an enum of integers."""
        return self._resolve("integer", flag_key, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Evaluate a flag whose setting has the type `float` or `int`."""
        details = self._resolve("float", flag_key, evaluation_context)
        details.value = float(details.value)
        return details

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """Evaluate a flag whose setting is a sequence, a mapping or flags."""
        details = self._resolve("object", flag_key, evaluation_context)
        details.value = _to_mutable(details.value)
        return details

    def _resolve(self, flag_type: str, key: str, context: EvaluationContext | None) -> FlagResolutionDetails[Any]:
        """Read a setting.

        Raises:
            FlagNotFoundError: No setting has this name or alias.
            TypeMismatchError: The value does not have the type of the flag.
            InvalidContextError: A context feature has no value, or an attribute cannot be converted to one.
            TargetingKeyMissingError: The context feature without a value is that of the targeting key.
            ProviderNotReadyError: Another client is the main one, so the value would be that client's.
        """
        if monotonic() - self._checked_at >= _STATUS_INTERVAL:
            self._check_status()
        if (main := registry.main) is not None and main is not self._session:
            raise ProviderNotReadyError(_NOT_MAIN)
        setting = self._find_setting(key)
        given = dict(self._context_values(setting, context or EvaluationContext()))
        try:
            resolution = setting.explain(**given)
        except MissingContextError as error:
            if self._targeting_key in error.features:
                raise TargetingKeyMissingError(str(error)) from None
            raise InvalidContextError(str(error)) from None
        value = setting.type.convert_to_heksher(resolution.value)
        if not isinstance(value, _JSON_TYPES[flag_type]) or (isinstance(value, bool) and flag_type != "boolean"):
            raise TypeMismatchError(
                f"setting {setting.name} has the type {setting.type.heksher_string()}, not {flag_type}"
            )
        if self._is_stale:
            reason = FlagReason.STALE
        else:
            reason = FlagReason.TARGETING_MATCH if resolution.reason is Reason.RULE else FlagReason.DEFAULT
        return FlagResolutionDetails(
            value, reason=reason, variant=_variant(resolution), flag_metadata=_metadata(setting, resolution)
        )

    def _find_setting(self, key: str) -> Setting[Any]:
        """Return the setting with a name or alias.

        The lookup is rebuilt only if a setting was added or the one it has for the key is gone: evaluations of a flag
        that no setting declares may be frequent. In the second case the key may be the alias of a setting that remains.

        Raises:
            FlagNotFoundError: There is no such setting.
        """
        generation, settings = self._lookup
        reference = settings.get(key)
        setting = None if reference is None else reference()
        if generation != registry.generation or (reference is not None and setting is None):
            reference = self._rebuild_lookup().get(key)
            setting = None if reference is None else reference()
        if setting is None:
            raise FlagNotFoundError(f"no setting {key} is declared in this program")
        return setting

    def _rebuild_lookup(self) -> Mapping[str, ref[Setting[Any]]]:
        # The generation first: a setting that is added after this line causes the next rebuild.
        generation = registry.generation
        declared = [entry.setting for entry in registry.entries()]
        settings = {setting.alias: ref(setting) for setting in declared if setting.alias is not None}
        # A name takes precedence over an alias, and the first setting with a name over later ones.
        settings |= {setting.name: ref(setting) for setting in reversed(declared)}
        self._lookup = (generation, settings)
        return settings

    def _context_values(self, setting: Setting[Any], context: EvaluationContext) -> Iterator[tuple[str, str]]:
        """Yield the context features of a setting that have a value in an evaluation context, with their values."""
        for feature in setting.configurable_features:
            name = feature if self._attributes is None else self._attributes.get(feature)
            if feature == self._targeting_key and context.targeting_key is not None:
                yield feature, _to_string("targeting_key", context.targeting_key)
            elif name is not None and (value := context.attributes.get(name)) is not None:
                yield feature, _to_string(name, value)

    def _record_change(self, change: Change[Any]) -> None:
        self._changed |= dict.fromkeys(filter(None, (change.setting.name, change.setting.alias)))

    def _emit_changes(self, refresh: Refresh) -> None:
        """Emit events for the changes of a refresh, and for a new state of the client."""
        changed, self._changed = list(self._changed), {}
        if changed:
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=changed))
        self._check_status()

    def _check_status(self) -> None:
        """Emit an event if the state of the client has changed."""
        status = self._get_status()
        state = _state(status)
        if state is self._emitted_state:
            return
        # OpenFeature sets the provider's status when `initialize` has returned, and overwrites that of an event emitted
        # just before. An event this early is emitted again at the next check.
        is_settled = monotonic() - self._initialized_at >= _INITIALIZATION_SECONDS
        self._emitted_state = state if is_settled else None
        message = _message(state, status)
        if state is State.FRESH:
            self.emit_provider_ready(ProviderEventDetails())
        elif state is State.STALE:
            self.emit_provider_stale(ProviderEventDetails(message=message))
        else:
            self.emit_provider_error(ProviderEventDetails(message=message, error_code=ErrorCode.GENERAL))

    def _get_status(self) -> Status:
        status = self._client.status()
        self._checked_at = monotonic()
        self._is_stale = status.state in (State.STALE, State.CLOSED)
        return status


def _check_arguments(client: object, targeting_key: object, attributes: object) -> None:
    """Check the arguments of a provider.

    Raises:
        TypeError: An argument has the wrong type.
    """
    check_observable(client)
    if not isinstance(targeting_key, str | None):
        raise TypeError(f"targeting_key must be the name of a context feature, not {targeting_key!r}")
    names = (*attributes, *attributes.values()) if isinstance(attributes, Mapping) else (None,)
    if attributes is not None and not all(isinstance(name, str) for name in names):
        raise TypeError(f"attributes must be a dict of context features by attribute name, not {attributes!r}")


def _state(status: Status) -> State:
    """Return the state for OpenFeature: a client without rules, or that is not the main one, is failing."""
    is_usable = status.is_main and status.age is not None
    return status.state if is_usable or status.state is State.CLOSED else State.FAILING


def _message(state: State, status: Status) -> str | None:
    """Return the reason why a client is not ready; None if there is none."""
    if state is State.CLOSED:
        return "the client is closed"
    if not status.is_main:
        return _NOT_MAIN
    if status.failures:
        return status.last_error
    return "the service has not responded yet" if status.age is None else None


def _to_string(name: str, value: object) -> str:
    """Convert an attribute to the value of a context feature, which is a string.

    Raises:
        InvalidContextError: The attribute has another type than string, integer or boolean.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str.__str__(value) if isinstance(value, str) else str(int(value))  # The value of an enum's member.
    if isinstance(value, Mapping | Sequence) and not isinstance(value, bytes | bytearray):
        raise InvalidContextError(
            f"the attribute {name} is nested, and context features are strings: pass its parts as separate attributes"
        )
    raise InvalidContextError(f"the attribute {name} is of type {type(value).__name__}; context features are strings")


def _variant(resolution: Resolution[Any]) -> str | None:
    if resolution.rule is None:
        return "default"
    return None if resolution.rule.rule_id is None else str(resolution.rule.rule_id)


def _metadata(setting: Setting[Any], resolution: Resolution[Any]) -> Mapping[str, bool | int | float | str]:
    metadata = {"setting": setting.name, "version": setting.version, "source": resolution.reason.value}
    if resolution.rule is None:
        return metadata
    conditions = ",".join(f"{feature}:{value}" for feature, value in resolution.rule.match_conditions.items())
    return metadata | {"conditions": conditions}


def _to_mutable(value: Any) -> Any:
    """Convert a JSON value to the lists and dicts that OpenFeature requires."""
    if isinstance(value, Mapping):
        return {name: _to_mutable(part) for name, part in value.items()}
    return [_to_mutable(part) for part in value] if isinstance(value, list | tuple) else value
