"""Settings that depend on the context: the client of the Heksher service."""

import importlib as _importlib
import typing as _typing

from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.status import Refresh, RejectedRule, SettingStatus, State, Status
from heksher_client._core.settings.changes import Changes
from heksher_client._core.settings.context import TRACK_ALL
from heksher_client._core.settings.rules import Reason, Resolution, Rule
from heksher_client._core.settings.setting import Change, Changed, Setting
from heksher_client._core.settings.snapshot import pinned
from heksher_client._core.settings.streams import Watch
from heksher_client._core.settings.types import (
    Conversion,
    HeksherEnum,
    HeksherFlags,
    HeksherMapping,
    HeksherSequence,
    SettingType,
    setting_type,
)
from heksher_client._version import __version__
from heksher_client.exceptions import (
    ClientNotRunningError,
    ConfigError,
    CredentialError,
    CredentialTimeoutError,
    DeclarationError,
    HeksherError,
    MissingContextError,
    NoMatchError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UnknownContextError,
    UntrustedServiceError,
)

if _typing.TYPE_CHECKING:
    from heksher_client._drivers.async_client import AsyncHeksherClient
    from heksher_client._drivers.effective_options import EffectiveOptions
    from heksher_client._drivers.options import ClientOptions
    from heksher_client._drivers.thread_client import ThreadHeksherClient
    from heksher_client.profiles._connect import connect, connect_async
    from heksher_client.profiles._login_flows import DeviceCode
    from heksher_client.profiles._oauth_login import login, login_headless, login_with_token, logout
    from heksher_client.profiles._oauth_login_async import login_async, login_headless_async

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
    "CredentialTimeoutError",
    "DeclarationError",
    "DeviceCode",
    "EffectiveOptions",
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
    "ServiceTimeoutError",
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
    "login_async",
    "login_headless",
    "login_headless_async",
    "login_with_token",
    "logout",
    "pinned",
    "setting_type",
]

# A module that declares settings needs no client, and a program has one kind of them: asyncio and httpx take longer to
# import than all the rest.
_LATER: _typing.Final = {
    "AsyncHeksherClient": "_drivers.async_client",
    "ClientOptions": "_drivers.options",
    "EffectiveOptions": "_drivers.effective_options",
    "ThreadHeksherClient": "_drivers.thread_client",
    "DeviceCode": "profiles._login_flows",
    "connect": "profiles._connect",
    "connect_async": "profiles._connect",
    "login": "profiles._oauth_login",
    "login_async": "profiles._oauth_login_async",
    "login_headless": "profiles._oauth_login",
    "login_headless_async": "profiles._oauth_login_async",
    "login_with_token": "profiles._oauth_login",
    "logout": "profiles._oauth_login",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
