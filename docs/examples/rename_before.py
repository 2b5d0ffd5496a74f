"""The setting before it is renamed."""

from heksher_client import Setting, connect

size = Setting(
    "size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect():
    print(size.get(environment="prod", user="jim"))
