"""Settings that depend on the context: the client of the Heksher service."""

from heksher_client._async_client import AsyncHeksherClient
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
from heksher_client._thread_client import ThreadHeksherClient
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
)

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
    "Resolution",
    "Rule",
    "ServiceUnavailableError",
    "Setting",
    "SettingData",
    "SettingType",
    "ThreadHeksherClient",
    "UnexpectedResponseError",
    "UnknownContextError",
    "__version__",
    "setting_type",
]
