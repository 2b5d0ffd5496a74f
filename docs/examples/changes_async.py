"""Hearing of changes in a task of its own."""

import asyncio
import sys

from heksher_client import AsyncHeksherClient, Change, Changes, Setting

cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


# [callbacks]
@cache_size.on_change
def resize(change: Change[int]) -> None:
    print(f"{len(change.added)} rules were added")


# [iterators]
async def follow(changes: Changes) -> None:
    async for change in changes:  # until the client closes
        seen.append(change.setting.name)


# [end]
async def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9999"
    client = AsyncHeksherClient(
        url, update_interval=60, context_features=["environment", "user"]
    )
    task = asyncio.create_task(follow(client.changes()))
    async with client:
        await client.reload()
    await task
    print(f"the task has seen changes of {seen}")


seen: list[str] = []
asyncio.run(main())
