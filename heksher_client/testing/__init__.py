"""Stub clients for tests of programs that read settings: no service, no threads, no mocks.

A stub has the methods of a client and is set as the main client like one. The test assigns the rules of each setting:

    with SyncStubHeksherClient() as stub:
        stub[cache_size].rules = 100
        stub[color].rules = [Rule({"theme": "dark"}, "black"), Rule({}, "white")]

At the end of the block every setting has the rules that it had before.
"""

from heksher_client._core.settings.rules import Rule
from heksher_client.testing._stubbed_setting import Rules, StubbedSetting
from heksher_client.testing._stubs import AsyncStubHeksherClient, Call, SyncStubHeksherClient, UnstubbedSettingError

__all__ = [
    "AsyncStubHeksherClient",
    "Call",
    "Rule",
    "Rules",
    "StubbedSetting",
    "SyncStubHeksherClient",
    "UnstubbedSettingError",
]
