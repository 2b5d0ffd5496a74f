"""Settings that depend on the context: the client of the Heksher service."""

import importlib as _importlib
import typing as _typing

from heksher_client._core.contexts import TRACK_ALL
from heksher_client._core.protocol import SettingData
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
from heksher_client._core.status import RejectedRule, SettingStatus, State, Status
from heksher_client._version import __version__
from heksher_client.exceptions import (
    ClientNotRunningError,
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
    from heksher_client._thread_client import ThreadHeksherClient

__all__ = [
    "TRACK_ALL",
    "AsyncHeksherClient",
    "ClientNotRunningError",
    "Conversion",
    "DeclarationError",
    "HeksherEnum",
    "HeksherError",
    "HeksherFlags",
    "HeksherMapping",
    "HeksherSequence",
    "MissingContextError",
    "NoMatchError",
    "Reason",
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
    "__version__",
    "setting_type",
]

# A module that declares settings needs no client, and a program has one kind of them: asyncio and httpx take longer to
# import than all the rest.
_CLIENTS: _typing.Final = {"AsyncHeksherClient": "_async_client", "ThreadHeksherClient": "_thread_client"}


def __getattr__(name: str) -> _typing.Any:
    if name not in _CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    client = getattr(_importlib.import_module(f"{__name__}.{_CLIENTS[name]}"), name)
    globals()[name] = client
    return client


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLIENTS})
