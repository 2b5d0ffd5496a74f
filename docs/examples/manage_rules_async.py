"""Remove all rules for one user, in an asynchronous program."""

import asyncio

from heksher_client.admin import AsyncAdminClient


async def main() -> None:
    async with AsyncAdminClient.from_profile() as admin:
        for name in await admin.settings():
            for rule in await admin.rules(name, {"user": "jim"}):
                await admin.remove_rule(rule.rule_id)
                print(f"{name}: removed rule {rule.rule_id} with {rule.value}")


asyncio.run(main())
