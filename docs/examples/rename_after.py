"""The setting under its new name: its rules come along.

Older programs go on reading it by the former name.
"""

from heksher_client import Setting, connect

size = Setting(
    "shop.cache_size",
    alias="size",
    version="1.1",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect():
    print(size.get(environment="prod", user="jim"))
