"""A client that is started before a fork continues in the child."""

import os

from heksher_client import Setting, connect

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect() as client:
    child = os.fork()
    if child == 0:
        client.reload()  # with its own connections
        print(cache_size.get(environment="prod", user="jim"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
