"""A client out of a profile."""

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect() as client:  # the default profile, or what the environment says
    print(cache_size.get(environment="prod", user="jim"))

with connect(
    update_interval=10
) as client:  # arguments are stronger than the profile
    print(client.status().state)
