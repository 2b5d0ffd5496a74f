"""Print the value of a setting for one user, and each new value."""

import asyncio
import logging

from heksher_client import Setting, connect_async

logging.basicConfig(format="%(levelname)s %(message)s")
logging.getLogger("heksher_client").setLevel(logging.INFO)

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


async def main() -> None:
    async with connect_async(update_interval=5, max_backoff=5) as client:
        client.set_defaults(environment="prod")
        async for size in cache_size.watch(user="jim"):  # until Ctrl-C
            print(size)


asyncio.run(main())
