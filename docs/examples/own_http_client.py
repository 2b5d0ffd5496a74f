"""An HTTP client that the program shares with the client."""

import sys

import httpx

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)

with (
    httpx.Client(timeout=10) as http,
    ThreadHeksherClient(sys.argv[1], 60, ["environment", "user"], http_client=http),
):
    print(cache_size.get(environment="prod", user="jim"))
