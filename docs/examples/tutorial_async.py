"""Prints a setting's value for one user, and each value that it has afterwards."""

import asyncio
import sys
from contextlib import suppress

from heksher_client import AsyncHeksherClient, Setting

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


async def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
    async with AsyncHeksherClient(
        url, update_interval=5, context_features=["environment", "user"]
    ) as client:
        client.set_defaults(environment="prod")
        async for size in cache_size.watch(user="jim"):
            print(size, flush=True)


with suppress(KeyboardInterrupt):  # until Ctrl-C
    asyncio.run(main())
