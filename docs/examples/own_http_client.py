"""An HTTP client that the program shares with the client."""

import sys

import httpx

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
with (
    httpx.Client(timeout=10) as http,
    ThreadHeksherClient(url, 60, ["environment", "user"], http_client=http),
):
    print(cache_size.get(environment="prod", user="jim"))
