"""A client from a profile."""

import asyncio

from heksher_client import Setting, connect_async

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


async def main() -> None:
    # The default profile, or the URL in the environment:
    async with connect_async() as client:
        print(cache_size.get(environment="prod", user="jim"))

    # Arguments override the profile. Without a block, close the client:
    client = await connect_async(update_interval=10)
    print(client.status().state)
    await client.aclose()


asyncio.run(main())
