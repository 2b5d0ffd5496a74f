"""The app: what holds the client, and where the context of a request comes from."""

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from heksher_client import HeksherError, ThreadHeksherClient, connect
from heksher_client._core.settings.registry import registry
from heksher_client.integrations._context import Values
from heksher_client.testing._session import StubSession

_KEYS: Final = ("PROFILE", "OPTIONS", "DEFAULTS", "CONTEXT", "PIN")


class HeksherConfig(AppConfig):
    """Holds the client of this process."""

    name = "heksher_client.integrations.django"
    label = "heksher_client"
    verbose_name = "Heksher"

    def ready(self) -> None:
        """Check `HEKSHER`, before anything needs it."""
        self._lock = threading.Lock()
        self._client: ThreadHeksherClient | None = None
        self._options = _table("HEKSHER", getattr(settings, "HEKSHER", {}))
        if unknown := [key for key in self._options if key not in _KEYS]:
            raise ImproperlyConfigured(f"HEKSHER has no key {unknown[0]!r}; it has: {', '.join(_KEYS)}")
        context, options, self._of_project = (
            _table(f"HEKSHER: {key}", self._options.get(key, {})) for key in ("CONTEXT", "OPTIONS", "DEFAULTS")
        )
        for feature, default in self._of_project.items():
            if not isinstance(default, str | ContextVar):
                raise ImproperlyConfigured(
                    f"HEKSHER: the default of {feature} must be text or a context variable, not {default!r}"
                )
        self._finders = {feature: _function(feature, found) for feature, found in context.items()}
        if "defaults" in options:
            raise ImproperlyConfigured("HEKSHER: the client's defaults go into DEFAULTS, and not into OPTIONS")
        self._values, self._defaults = self._variables({})
        self._of_stubs: WeakKeyDictionary[StubSession, Values[Any]] = WeakKeyDictionary()
        self.pin = bool(self._options.get("PIN", False))

    def _variables(
        self, of_test: Mapping[str, str | ContextVar[str]]
    ) -> tuple[Values[Any], Mapping[str, str | ContextVar[str]]]:
        """Context variables for what is found in requests: with what finds it, and as a client's defaults.

        Args:
            of_test: What a test says that holds where nothing is found, before what the project says.

        Raises:
            ImproperlyConfigured: What is found for two context features would go into one variable.
        """
        values: dict[ContextVar[str], Callable[[Any], str | None]] = {}
        defaults = {**self._of_project, **of_test}
        for feature, find in self._finders.items():
            otherwise = defaults.get(feature)
            if isinstance(otherwise, ContextVar) and otherwise is not self._of_project.get(feature):
                continue  # a variable of the test's own is the test's to set
            variable = otherwise if isinstance(otherwise, ContextVar) else _variable(feature, otherwise)
            if variable in values:
                raise ImproperlyConfigured(f"HEKSHER: the variable {variable.name} is the default of two in CONTEXT")
            values[variable] = find
            defaults[feature] = variable
        return values, defaults

    @property
    def values(self) -> Values[Any]:
        """By context variable, what finds its value in a request."""
        session = registry.main
        return self._of_stubs.get(session, self._values) if isinstance(session, StubSession) else self._values

    def client(self) -> ThreadHeksherClient:
        """The client, started if it does not run yet; or the stub of a test, whose own defaults come first."""
        session = registry.main
        if isinstance(session, StubSession):
            if session not in self._of_stubs:
                self._of_stubs[session], defaults = self._variables(session.defaults.values)
                session.add_known_defaults(defaults)
            return cast("ThreadHeksherClient", session.stub)
        with self._lock:
            if self._client is None:
                options = {**self._options.get("OPTIONS", {}), "defaults": self._defaults}
                try:
                    self._client = connect(self._options.get("PROFILE"), **options)
                except (HeksherError, TypeError, ValueError) as error:
                    raise ImproperlyConfigured(f"HEKSHER: {error}") from error
            return self._client


def installed() -> HeksherConfig:
    """The app of this process."""
    return cast("HeksherConfig", apps.get_app_config(HeksherConfig.label))


def _table(what: str, found: object) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise ImproperlyConfigured(f"{what} must be a dict, not {type(found).__name__}")
    return found


def _variable(feature: str, otherwise: str | None) -> ContextVar[str]:
    name = f"heksher_{feature}"
    return ContextVar(name) if otherwise is None else ContextVar(name, default=otherwise)


def _function(feature: str, found: str | Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    try:
        function = import_string(found) if isinstance(found, str) else found
    except ImportError as error:
        raise ImproperlyConfigured(f"HEKSHER: the CONTEXT of {feature}: {error}") from error
    if not callable(function):
        raise ImproperlyConfigured(f"HEKSHER: the CONTEXT of {feature} is {found!r}, which is no function")
    return cast("Callable[[Any], str | None]", function)
