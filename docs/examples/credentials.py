"""Tokens for a service behind a gateway."""

import sys

from heksher_client import Setting, ThreadHeksherClient
from heksher_client.credentials import StaticToken, TokenFrom

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


def token_of_the_machine() -> str:
    return "from-wherever-the-platform-keeps-it"


url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
client = ThreadHeksherClient(
    url,
    update_interval=60,
    context_features=["environment", "user"],
    auth=TokenFrom(token_of_the_machine),
)
with client:
    print(cache_size.get(environment="prod", user="jim"))
    client.use_credential(StaticToken("another-one"))  # while it runs
