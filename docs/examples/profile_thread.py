"""A client from a profile."""

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

# The default profile, or the URL in the environment:
with connect() as client:
    print(cache_size.get(environment="prod", user="jim"))

# Arguments override the profile:
with connect(update_interval=10) as client:
    print(client.status().state)
