"""FastAPI: run it with `uvicorn fastapi_app:app`.

Starlette takes the same lifespan and the same middleware.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from fastapi import FastAPI

from heksher_client import Setting, connect_async
from heksher_client.integrations.asgi import ContextMiddleware, header

current_user: ContextVar[str] = ContextVar("current_user", default="nobody")
cache_size = Setting(
    "cache_size",
    type=int,
    configurable_features=["environment", "user"],
    default_value=10,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    defaults = {"environment": "prod", "user": current_user}
    async with connect_async(defaults=defaults) as client:
        app.state.heksher = client
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    ContextMiddleware, values={current_user: header("x-user")}, pin=True
)


@app.get("/")
async def index() -> dict[str, int]:
    return {"cache_size": cache_size.get()}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"settings": app.state.heksher.status().state}
