"""Objects that each process has of its own: a server may create the application before it forks its workers.

They are recognized by the process id, and not created in a fork hook, which servers that fork in C do not call. What a
parent has is never closed by its children: they keep it, unused.
"""

from collections.abc import Callable
from os import getpid
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object that is created at its first use in a process."""

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._objects: dict[int, T] = {}

    def get(self) -> T:
        """Return the object of the current process. Thread-safe without a lock, which a fork could leave locked."""
        pid = getpid()
        if pid not in self._objects:
            self._objects.setdefault(pid, self._create())
        return self._objects[pid]

    def find(self) -> T | None:
        """Return the object of the current process if there is one."""
        return self._objects.get(getpid())

    def forget(self) -> None:
        """Forget the object of the current process. The next use creates another one."""
        self._objects.pop(getpid(), None)
