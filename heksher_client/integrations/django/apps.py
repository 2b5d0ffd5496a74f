"""HeksherConfig: the Django app, which owns the client of the process and the context values of requests."""

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast
from weakref import WeakKeyDictionary

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from heksher_client import HeksherError, ThreadHeksherClient, connect
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.user_functions import check_function
from heksher_client.integrations._context import Extractors
from heksher_client.testing._session import StubSession

_KEYS: Final = ("PROFILE", "OPTIONS", "DEFAULTS", "CONTEXT", "PIN")

Defaults: TypeAlias = Mapping[str, str | ContextVar[str]]
Extractor: TypeAlias = Callable[[Any], str | None]


class HeksherConfig(AppConfig):
    """The app. It owns the client of this process."""

    name = "heksher_client.integrations.django"
    label = "heksher_client"
    verbose_name = "Heksher"

    def ready(self) -> None:
        """Check `HEKSHER` when Django is set up, and not at the first request."""
        self._lock = threading.Lock()
        self._client: ThreadHeksherClient | None = None
        self._configuration = _checked_dict("HEKSHER", getattr(settings, "HEKSHER", {}))
        if unknown := [key for key in self._configuration if key not in _KEYS]:
            raise ImproperlyConfigured(f"HEKSHER: unknown key {unknown[0]!r}; the keys are: {', '.join(_KEYS)}")
        context, options, self._project_defaults = (
            _checked_dict(f"HEKSHER: {key}", self._configuration.get(key, {}))
            for key in ("CONTEXT", "OPTIONS", "DEFAULTS")
        )
        for feature, default in self._project_defaults.items():
            if not isinstance(default, str | ContextVar):
                raise ImproperlyConfigured(
                    f"HEKSHER: the default of {feature} must be a string or a context variable, not {default!r}"
                )
        self._feature_extractors = {feature: _to_function(feature, value) for feature, value in context.items()}
        if "defaults" in options:
            raise ImproperlyConfigured("HEKSHER: put the client's defaults in DEFAULTS, not in OPTIONS")
        self._extractors, self._defaults = self._bind_features({})
        self._stub_extractors: WeakKeyDictionary[StubSession, Extractors[Any]] = WeakKeyDictionary()
        self.pin = bool(self._configuration.get("PIN", False))

    def _bind_features(self, test_defaults: Defaults) -> tuple[Extractors[Any], Defaults]:
        """Assign a context variable to each feature in `CONTEXT`.

        Args:
            test_defaults: The defaults of a test, which override the defaults of the project.

        Returns:
            The extractors by context variable, and the defaults that the client needs to read these variables.

        Raises:
            ImproperlyConfigured: Two features would use the same variable.
        """
        extractors: dict[ContextVar[str], Extractor] = {}
        defaults = {**self._project_defaults, **test_defaults}
        for feature, extract in self._feature_extractors.items():
            default = defaults.get(feature)
            if isinstance(default, ContextVar) and default is not self._project_defaults.get(feature):
                continue  # The test sets its own variable.
            variable = default if isinstance(default, ContextVar) else _new_variable(feature, default)
            if variable in extractors:
                raise ImproperlyConfigured(
                    f"HEKSHER: {variable.name} is the default of two features in CONTEXT; use a variable for each"
                )
            extractors[variable] = extract
            defaults[feature] = variable
        return extractors, defaults

    @property
    def extractors(self) -> Extractors[Any]:
        """For each context variable, the function that returns its value for a request."""
        session = registry.main
        if isinstance(session, StubSession):
            return self._stub_extractors.get(session, self._extractors)
        return self._extractors

    def client(self) -> ThreadHeksherClient:
        """Return the client, and start it if it is not running.

        While a stub is the main client, return the stub. Its own defaults override those of the project.
        """
        session = registry.main
        if isinstance(session, StubSession):
            if session not in self._stub_extractors:
                self._stub_extractors[session], defaults = self._bind_features(session.defaults.values)
                session.add_known_defaults(defaults)
            return cast("ThreadHeksherClient", session.stub)
        with self._lock:
            if self._client is None:
                options = {**self._configuration.get("OPTIONS", {}), "defaults": self._defaults}
                try:
                    self._client = connect(self._configuration.get("PROFILE"), **options)
                except (HeksherError, TypeError, ValueError) as error:
                    raise ImproperlyConfigured(f"HEKSHER: {error}") from error
            return self._client


def installed_app() -> HeksherConfig:
    """Return the app of this process.

    Raises:
        AppRegistryNotReady, LookupError: Django is not set up yet, or the app is not installed.
    """
    return cast("HeksherConfig", apps.get_app_config(HeksherConfig.label))


def _checked_dict(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"{name} must be a dict, not {type(value).__name__}")
    return value


def _new_variable(feature: str, default: str | None) -> ContextVar[str]:
    name = f"heksher_{feature}"
    return ContextVar(name) if default is None else ContextVar(name, default=default)


def _to_function(feature: str, value: str | Extractor) -> Extractor:
    try:
        function = import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        raise ImproperlyConfigured(f"HEKSHER: the CONTEXT of {feature}: {error}") from error
    try:
        check_function(function, f"the CONTEXT of {feature}")
    except TypeError as error:
        raise ImproperlyConfigured(f"HEKSHER: {error}") from None
    return cast("Extractor", function)
