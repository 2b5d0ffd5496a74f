"""Long computations in steps, so that an event loop or other threads can run in between."""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Work: TypeAlias = Generator[int, None, T]
"""A computation that yields from time to time the number of rules it has processed since, and returns its result."""


def run_to_end(work: Work[T]) -> T:
    """Run a computation without pauses, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
