"""Settings that depend on the context: the client of the Heksher service."""

import importlib as _importlib
import threading as _threading
import typing as _typing

from heksher_client import _bell
from heksher_client._core import pinning as _pinning
from heksher_client._core.changes import Change, Changed, Changes, Watch
from heksher_client._core.contexts import TRACK_ALL
from heksher_client._core.pinning import pinned
from heksher_client._core.protocol import SettingData
from heksher_client._core.registry import registry as _registry
from heksher_client._core.rules import Reason, Resolution, Rule
from heksher_client._core.setting_types import (
    Conversion,
    HeksherEnum,
    HeksherFlags,
    HeksherMapping,
    HeksherSequence,
    SettingType,
    setting_type,
)
from heksher_client._core.settings import Setting
from heksher_client._core.status import Refresh, RejectedRule, SettingStatus, State, Status
from heksher_client._version import __version__
from heksher_client.exceptions import (
    ClientNotRunningError,
    ConfigError,
    CredentialError,
    DeclarationError,
    HeksherError,
    MissingContextError,
    NoMatchError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UnknownContextError,
    UntrustedServiceError,
)

if _typing.TYPE_CHECKING:
    from heksher_client._async_client import AsyncHeksherClient
    from heksher_client._client_options import ClientOptions
    from heksher_client._thread_client import ThreadHeksherClient
    from heksher_client.profiles.connect import connect, connect_async
    from heksher_client.profiles.sign_in import DeviceCode, login, login_headless, login_with_token, logout

__all__ = [
    "TRACK_ALL",
    "AsyncHeksherClient",
    "Change",
    "Changed",
    "Changes",
    "ClientNotRunningError",
    "ClientOptions",
    "ConfigError",
    "Conversion",
    "CredentialError",
    "DeclarationError",
    "DeviceCode",
    "HeksherEnum",
    "HeksherError",
    "HeksherFlags",
    "HeksherMapping",
    "HeksherSequence",
    "MissingContextError",
    "NoMatchError",
    "Reason",
    "Refresh",
    "RejectedRule",
    "Resolution",
    "Rule",
    "ServiceUnavailableError",
    "Setting",
    "SettingData",
    "SettingStatus",
    "SettingType",
    "State",
    "Status",
    "ThreadHeksherClient",
    "UnexpectedResponseError",
    "UnknownContextError",
    "UntrustedServiceError",
    "Watch",
    "__version__",
    "connect",
    "connect_async",
    "login",
    "login_headless",
    "login_with_token",
    "logout",
    "pinned",
    "setting_type",
]

# What the core is handed, which does no waiting itself.
_registry.make_bell = _bell.Bell
_pinning.hand_in(_threading.RLock)

# A module that declares settings needs no client, and a program has one kind of them: asyncio and httpx take longer to
# import than all the rest.
_LATER: _typing.Final = {
    "AsyncHeksherClient": "_async_client",
    "ClientOptions": "_client_options",
    "ThreadHeksherClient": "_thread_client",
    "DeviceCode": "profiles.sign_in",
    "connect": "profiles.connect",
    "connect_async": "profiles.connect",
    "login": "profiles.sign_in",
    "login_headless": "profiles.sign_in",
    "login_with_token": "profiles.sign_in",
    "logout": "profiles.sign_in",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
