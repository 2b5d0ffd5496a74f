"""A client that was started before a fork goes on in the child."""

import os
import sys

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
with ThreadHeksherClient(
    url, update_interval=60, context_features=["environment", "user"]
) as client:
    child = os.fork()
    if child == 0:
        client.reload()  # over connections of its own
        print(cache_size.get(environment="prod", user="jim"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
