"""Read a setting that depends on the environment and the user."""

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect() as client:
    client.set_defaults(environment="prod")
    print(cache_size.get(user="jim"))
