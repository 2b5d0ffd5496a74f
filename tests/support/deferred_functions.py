"""Functions whose calls only return something that would have to be awaited or iterated over."""

from collections.abc import AsyncIterator, Generator
from typing import Any


async def coroutine_function(*_: Any, **__: Any) -> Any:
    """Return nothing, after it is awaited."""


async def async_generator_function(*_: Any) -> AsyncIterator[None]:
    yield


def generator_function(*_: Any) -> Generator[None, None, None]:
    yield


class AsyncCallable:
    async def __call__(self, *_: Any) -> Any: ...

    async def method(self, *_: Any) -> Any: ...


class Deferred:
    def __await__(self) -> Generator[None, None, None]:
        yield
