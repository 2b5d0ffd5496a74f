"""An HTTP client that the program and its settings share."""

import httpx

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with httpx.Client(timeout=10) as http, connect(http_client=http):
    print(cache_size.get(environment="prod", user="jim"))
