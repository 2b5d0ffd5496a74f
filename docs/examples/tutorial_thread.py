"""Print the value of a setting for one user, and each new value."""

import logging

from heksher_client import Setting, connect

logging.basicConfig(format="%(levelname)s %(message)s")
logging.getLogger("heksher_client").setLevel(logging.INFO)

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)

with connect(update_interval=5, max_backoff=5) as client:
    client.set_defaults(environment="prod")
    for size in cache_size.watch(user="jim"):  # until Ctrl-C
        print(size)
