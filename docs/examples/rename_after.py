"""The setting with its new name: it keeps its rules.

Older programs continue to read it by its former name.
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
