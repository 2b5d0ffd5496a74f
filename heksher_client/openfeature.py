"""A provider for OpenFeature: flags are the settings that the program declares. Needs the extra `openfeature`.

    api.set_provider_and_wait(HeksherProvider(client, targeting_key="user"))
    api.get_client().get_integer_value("cache_size", 10, EvaluationContext("jim", {"environment": "prod"}))

The client is the one that the program has for its settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from time import monotonic
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
    raise ImportError("flags by way of OpenFeature need an extra: pip install 'heksher_client[openfeature]'") from error

from heksher_client._core.refresh.status import Refresh, State, Status
from heksher_client._core.settings.context import check_known
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rules import Reason, Resolution
from heksher_client._core.settings.setting import Change, Setting
from heksher_client._drivers.client import Observable, check_observable
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client.exceptions import MissingContextError, UnknownContextError

__all__ = ["HeksherProvider"]

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "string": (str,),
    "integer": (int,),
    "float": (float, int),
    "object": (list, tuple, dict),
}
"""What a setting's JSON values may be for the types of OpenFeature."""


_BETWEEN_LOOKS: Final = 1.0
"""Seconds between two looks at how the client fares: it may become stale while no refresh ends."""


_UNTIL_TOLD: Final = 1.0
"""Seconds after which OpenFeature has told how an initialization has ended."""


_ANOTHER_IS_MAIN: Final = "another client is the main one, which settings are read from"
_users: Final[WeakKeyDictionary[ThreadHeksherClient, int]] = WeakKeyDictionary()
"""How many providers use a client that one of them has started."""
_lock: Final = Lock()


class HeksherProvider(AbstractProvider):
    """Evaluates flags by reading settings: in the process, without waiting, in both kinds of programs.

    Settings belong to the process and are read from its main client: have one client per process. While another client
    than the provider's is the main one, the provider is not ready.

    A flag's key is the name or the alias of a setting. Its variant is the id of the rule that gave the value, or
    `"default"`; its metadata tell the setting's name and version, and the rule's conditions. Values are as the service
    has them: the value of an enum's member, the names of flags in a list.
    """

    def __init__(
        self, client: Observable, *, targeting_key: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Make a provider.

        Args:
            client: Keeps the settings up to date. A `ThreadHeksherClient` that has not started yet is started with the
                provider, and ended with the last provider that uses it; an `AsyncHeksherClient` has to run already.
            targeting_key: The context feature that the targeting key is the value of. Without one, it is not used.
            attributes: The context features by the names of the attributes that are their values. Without it, each
                attribute is the value of the context feature of its name. Attributes that belong to none are left out,
                and the client's defaults stand for context features without an attribute.

        Raises:
            TypeError: Any of them is nothing of the kind.
        """
        super().__init__()
        _check(client, targeting_key, attributes)
        self._client, self._targeting_key = client, targeting_key
        self._main = getattr(client, "_session", client)
        """What the registry knows the client as, while it is the main one."""
        self._attributes = None if attributes is None else {feature: name for name, feature in attributes.items()}
        self._known: tuple[int, Mapping[str, ref[Setting[Any]]]] = (0, {})
        """The registry's generation, and what settings there were by name and alias: one value, as threads that
        evaluate must never see the one without the other."""
        self._changed: dict[str, None] = {}
        """The settings that have changed since the last event."""
        self._is_stale = False
        self._told: State | None = None
        """How the client fares, as far as OpenFeature was told; None where that is not certain."""
        self._initialized_at = monotonic()
        self._looked_at = monotonic()
        self._used: ThreadHeksherClient | None = None
        """The client, if it is to end with the last of its providers, of which this is one."""

    def get_metadata(self) -> Metadata:
        """Say what the provider is called."""
        return Metadata(name="heksher")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Start the client, if it does not run.

        Raises:
            ProviderFatalError: The client has no such context features as the provider was made for. Or it is closed,
                which is for good: a provider that has started its client can be used once.
            ProviderNotReadyError: There is nothing to evaluate flags by yet, or another client is the main one. The
                event `PROVIDER_READY` tells when that has changed.
        """
        self._check_features()
        if self._client.status().state is State.CLOSED:
            raise ProviderFatalError("the client is closed, with a former provider perhaps: make another provider")
        self._start()
        self._stop_listening()  # after a start that failed
        self._client.on_change(self._note_change)
        self._client.on_refresh(self._note_refresh)
        status = self._note(self._client.status())
        # OpenFeature itself tells how this ends: ready, or an error. Whatever else the client is, the next look tells.
        self._initialized_at = monotonic()
        is_ready = status.is_main and status.age is not None
        self._told = State.FRESH if is_ready else State.FAILING
        if not is_ready:
            raise ProviderNotReadyError(_words(State.FAILING, status))

    def shutdown(self) -> None:
        """End the client, if a provider has started it and this is the last one that uses it."""
        self._stop_listening()
        with _lock:
            client, self._used = self._used, None
            if client is None:
                return
            _users[client] -= 1
            if not _users[client]:
                del _users[client]
                client.close()

    def _check_features(self) -> None:
        named = [*(self._attributes or ()), *(() if self._targeting_key is None else (self._targeting_key,))]
        # A stub that was made without context features takes all names.
        if known := getattr(self._main, "_context_features", ()):
            try:
                check_known(named, known, "the client")
            except UnknownContextError as error:
                raise ProviderFatalError(str(error)) from None

    def _start(self) -> None:
        """Start the client, if it does not run yet.

        Raises:
            ProviderNotReadyError: It does not, and nobody here could wait for it.
        """
        with _lock:
            status = self._client.status()
            runs = status.next_attempt is not None or status.state is not State.STARTING
            if not isinstance(self._client, ThreadHeksherClient):
                if not runs:
                    raise ProviderNotReadyError("the client does not run: start it before it is given to the provider")
                return
            users = _users.get(self._client, 0)
            if self._used is not None or (runs and not users):
                return  # it is counted already, or the program's own to end
            _users[self._client] = users + 1
            self._used = self._client
        if not users:
            self._client.set_as_main()  # which may take a while: other providers need not wait

    def _stop_listening(self) -> None:
        self._client.off_change(self._note_change)
        self._client.off_refresh(self._note_refresh)

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Read a setting of the type `bool`."""
        return self._resolve("boolean", flag_key, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Read a setting of text, or of an enum with texts."""
        return self._resolve("string", flag_key, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Read a setting of the type `int`, or of an enum with such values."""
        return self._resolve("integer", flag_key, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Read a setting of the type `float` or `int`."""
        details = self._resolve("float", flag_key, evaluation_context)
        details.value = float(details.value)
        return details

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """Read a setting of a sequence, a mapping or flags."""
        details = self._resolve("object", flag_key, evaluation_context)
        details.value = _mutable(details.value)
        return details

    def _resolve(self, kind: str, key: str, context: EvaluationContext | None) -> FlagResolutionDetails[Any]:
        """Read a setting.

        Raises:
            FlagNotFoundError, TypeMismatchError, InvalidContextError, TargetingKeyMissingError: As they say.
            ProviderNotReadyError: Another client is the main one, and values would be of that.
        """
        if monotonic() - self._looked_at >= _BETWEEN_LOOKS:
            self._look()
        if (main := registry.main) is not None and main is not self._main:
            raise ProviderNotReadyError(_ANOTHER_IS_MAIN)
        setting = self._setting(key)
        given = dict(self._context(setting, context or EvaluationContext()))
        try:
            resolution = setting.explain(**given)
        except MissingContextError as error:
            if self._targeting_key in error.features:
                raise TargetingKeyMissingError(str(error)) from None
            raise InvalidContextError(str(error)) from None
        value = setting.type.convert_to_heksher(resolution.value)
        if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise TypeMismatchError(
                f"setting {setting.name} is of the type {setting.type.heksher_string()}, not {kind}"
            )
        return FlagResolutionDetails(
            value,
            reason=self._reason(resolution),
            variant=_variant(resolution),
            flag_metadata=_metadata(setting, resolution),
        )

    def _setting(self, key: str) -> Setting[Any]:
        generation, settings = self._known
        reference = settings.get(key)
        setting = None if reference is None else reference()
        # A flag that nobody declares is looked for once, as it may be evaluated as often as others. But the name of a
        # setting that is gone may be the alias of one that is still there.
        if generation != registry.generation or (reference is not None and setting is None):
            reference = self._look_up().get(key)
            setting = None if reference is None else reference()
        if setting is None:
            raise FlagNotFoundError(f"no setting {key} is declared in this program")
        return setting

    def _look_up(self) -> Mapping[str, ref[Setting[Any]]]:
        """Find the settings anew."""
        generation = registry.generation  # before the settings: one that is added meanwhile is found the next time
        known = [entry.setting for entry in registry.entries()]
        settings = {one.alias: ref(one) for one in known if one.alias is not None}
        # A name is a setting's own, whatever other one was called so before.
        settings |= {one.name: ref(one) for one in reversed(known)}
        self._known = (generation, settings)
        return settings

    def _context(self, setting: Setting[Any], context: EvaluationContext) -> Iterator[tuple[str, str]]:
        """The values of a setting's context features that an evaluation context has."""
        for feature in setting.configurable_features:
            name = feature if self._attributes is None else self._attributes.get(feature)
            if feature == self._targeting_key and context.targeting_key is not None:
                yield feature, _as_text("targeting_key", context.targeting_key)
            elif name is not None and (value := context.attributes.get(name)) is not None:
                yield feature, _as_text(name, value)

    def _reason(self, resolution: Resolution[Any]) -> FlagReason:
        if self._is_stale:
            return FlagReason.STALE
        if resolution.reason is Reason.RULE:
            return FlagReason.TARGETING_MATCH
        return FlagReason.DEFAULT

    def _note_change(self, change: Change[Any]) -> None:
        self._changed |= dict.fromkeys(filter(None, (change.setting.name, change.setting.alias)))

    def _note_refresh(self, refresh: Refresh) -> None:
        """Tell what a refresh has changed, and how the client fares."""
        changed, self._changed = list(self._changed), {}
        if changed:
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=changed))
        self._look()

    def _look(self) -> None:
        """Tell how the client fares, where that is news."""
        status = self._note(self._client.status())
        state = _state(status)
        if state is self._told:
            return
        # What is told before OpenFeature tells how the initialization has ended would be lost: it is told again then.
        is_certain = monotonic() - self._initialized_at >= _UNTIL_TOLD
        self._told = state if is_certain else None
        if state is State.FRESH:
            self.emit_provider_ready(ProviderEventDetails())
        elif state is State.STALE:
            self.emit_provider_stale(ProviderEventDetails(message=_words(state, status)))
        else:
            self.emit_provider_error(ProviderEventDetails(message=_words(state, status), error_code=ErrorCode.GENERAL))

    def _note(self, status: Status) -> Status:
        self._looked_at = monotonic()
        self._is_stale = status.state in (State.STALE, State.CLOSED)
        return status


def _check(client: object, targeting_key: object, attributes: object) -> None:
    """Refuse arguments that nothing can be evaluated with.

    Raises:
        TypeError: With what one of them should be.
    """
    check_observable(client)
    if not isinstance(targeting_key, str | None):
        raise TypeError(f"targeting_key must be the name of a context feature, not {targeting_key!r}")
    texts = (*attributes, *attributes.values()) if isinstance(attributes, Mapping) else (None,)
    if attributes is not None and not all(isinstance(text, str) for text in texts):
        raise TypeError(f"attributes must be a dict of context features by names of attributes, not {attributes!r}")


def _state(status: Status) -> State:
    """How a client fares, to those who evaluate: before anything was received, there is nothing that could be stale."""
    is_of_use = status.is_main and status.age is not None
    return status.state if is_of_use or status.state is State.CLOSED else State.FAILING


def _words(state: State, status: Status) -> str | None:
    """Why a client is not ready, if that is known."""
    if state is State.CLOSED:
        return "the client is closed"
    if not status.is_main:
        return _ANOTHER_IS_MAIN
    if status.failures:
        return status.last_error
    return "the service has not answered yet" if status.age is None else None


def _as_text(name: str, value: object) -> str:
    """An attribute as the value of a context feature, which is text.

    Raises:
        InvalidContextError: It has no such form.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str.__str__(value) if isinstance(value, str) else str(int(value))  # of an enum, its value
    if isinstance(value, Mapping | Sequence) and not isinstance(value, bytes | bytearray):
        raise InvalidContextError(
            f"the attribute {name} is nested, and context features are text: give its parts as attributes of their own"
        )
    raise InvalidContextError(f"the attribute {name} is of {type(value).__name__}, and context features are text")


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


def _mutable(value: Any) -> Any:
    """JSON values in the lists and dicts that OpenFeature wants."""
    if isinstance(value, Mapping):
        return {name: _mutable(part) for name, part in value.items()}
    return [_mutable(part) for part in value] if isinstance(value, list | tuple) else value
