"""Read a setting that depends on the environment and the user."""

import asyncio

from heksher_client import Setting, connect_async

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


async def main() -> None:
    async with connect_async() as client:
        client.set_defaults(environment="prod")
        print(cache_size.get(user="jim"))


asyncio.run(main())
