"""Tokens for a service behind a gateway."""

from heksher_client import Setting, connect
from heksher_client.credentials import StaticToken, TokenFrom

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


def read_token() -> str:
    return "the-token-of-this-machine"


with connect(auth=TokenFrom(read_token)) as client:
    print(cache_size.get(environment="prod", user="jim"))
    client.use_credential(StaticToken("another-one"))  # while it runs
