"""React to changes in a task."""

import asyncio
import os

from heksher_client import AsyncHeksherClient, Change, Changes, Setting

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


@cache_size.on_change
def resize(change: Change[int]) -> None:
    print(f"{len(change.added)} rules were added")


async def follow(changes: Changes) -> None:
    async for change in changes:  # until the client closes
        seen.append(change.setting.name)


async def main() -> None:
    client = AsyncHeksherClient(os.environ["HEKSHER_URL"], update_interval=60)
    task = asyncio.create_task(follow(client.changes()))
    async with client:
        await client.reload()
    await task
    print(f"the task has seen changes of {seen}")


seen: list[str] = []
asyncio.run(main())
