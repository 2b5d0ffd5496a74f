"""A client that was started before a fork goes on in the child."""

import os
import sys

from heksher_client import Setting, ThreadHeksherClient

cache_size = Setting("cache_size", type=int, configurable_features=["environment", "user"], default_value=10)

with ThreadHeksherClient(sys.argv[1], update_interval=60, context_features=["environment", "user"]) as client:
    child = os.fork()
    if child == 0:
        client.reload()  # over connections of its own
        print(cache_size.get(environment="prod", user="jim"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
