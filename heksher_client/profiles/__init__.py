"""Clients configured by profiles, and sign-in to the servers that issue their access tokens.

A profile is a table of the configuration file, such as `[profiles.prod]`. `connect` and `connect_async` create a client
from a profile, environment variables and arguments. `login`, `login_headless` and `login_with_token` store the tokens
that clients of a profile use, and `logout` removes them. `login_async` and `login_headless_async` are for tasks. These
names can be imported from `heksher_client` as well. `config_path` returns the path of the configuration file.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from heksher_client.profiles._config import config_path
    from heksher_client.profiles._connect import connect, connect_async
    from heksher_client.profiles._login_flows import DeviceCode
    from heksher_client.profiles._oauth_login import login, login_headless, login_with_token, logout
    from heksher_client.profiles._oauth_login_async import login_async, login_headless_async

__all__ = [
    "DeviceCode",
    "config_path",
    "connect",
    "connect_async",
    "login",
    "login_async",
    "login_headless",
    "login_headless_async",
    "login_with_token",
    "logout",
]

# Imported on first use: asyncio and httpx take longer to import than the rest of the package.
_MODULES: _typing.Final = {
    "DeviceCode": "_login_flows",
    "config_path": "_config",
    "connect": "_connect",
    "connect_async": "_connect",
    "login": "_oauth_login",
    "login_async": "_oauth_login_async",
    "login_headless": "_oauth_login",
    "login_headless_async": "_oauth_login_async",
    "login_with_token": "_oauth_login",
    "logout": "_oauth_login",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
