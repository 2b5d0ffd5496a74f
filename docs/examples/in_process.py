"""The async client calls an application in its own process, without a socket.

The application is the included service. In a test, it can be a fake one.
"""

import asyncio

import httpx

from heksher_client import AsyncHeksherClient, Setting
from heksher_client.service import create_app

greeting = Setting(
    "greeting", type=str, configurable_features=["user"], default_value="Hello"
)


async def main() -> None:
    app = create_app("sqlite://", ["user"])
    transport = httpx.ASGITransport(app)
    async with (
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost"
        ) as operator,
        AsyncHeksherClient(
            "http://localhost",
            60,
            ["user"],
            http_client_args={"transport": transport},
        ) as client,
    ):
        rule = {
            "setting": "greeting",
            "feature_values": {"user": "jim"},
            "value": "Hi",
        }
        (await operator.post("/api/v1/rules", json=rule)).raise_for_status()
        await client.reload()
        print(greeting.get(user="jim"), greeting.get(user="ann"))
    app.state.event_stream.close()
    app.state.database.close()


if __name__ == "__main__":
    asyncio.run(main())
