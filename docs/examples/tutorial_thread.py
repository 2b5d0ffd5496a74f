"""Prints a setting's value for one user, and each value that it has afterwards."""

import sys
from contextlib import suppress

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
client = ThreadHeksherClient(
    url, update_interval=5, context_features=["environment", "user"]
)
with suppress(KeyboardInterrupt), client:  # until Ctrl-C
    client.set_defaults(environment="prod")
    for size in cache_size.watch(user="jim"):
        print(size, flush=True)
