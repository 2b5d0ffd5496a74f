"""A client out of a profile."""

import asyncio

from heksher_client import Setting, connect_async

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


async def main() -> None:
    async with (
        connect_async() as client
    ):  # the default profile, or what the environment says
        print(cache_size.get(environment="prod", user="jim"))

    client = await connect_async(
        update_interval=10
    )  # arguments are stronger than the profile
    print(client.status().state)
    await client.aclose()


asyncio.run(main())
