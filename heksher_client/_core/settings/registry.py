"""The registry of the process: all settings, and the main client.

Settings are held weakly, from their construction to their end, and whichever client is the main one works for all of
them. So a client that fails to start, or closes, leaves nothing behind that the next one would have to find.
"""

from contextlib import suppress
from itertools import count
from typing import Any, Final, Protocol
from weakref import ref

from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.observers import ReadObserver, read_observers


class MainClient(Protocol):
    """A client, as the registry uses it."""

    def adopt(self, entry: Entry[Any]) -> None:
        """Take over a setting: from now on its reads use this client's defaults, and this client updates its rules. No
        effect if it did so before."""

    def refresh_soon(self) -> None:
        """Refresh before the interval ends: there is something new to declare, to load or to convert."""


class Registry:
    """Settings and main clients. Safe to use from any thread: each change is one operation on a dict or list."""

    def __init__(self) -> None:
        self._entries: dict[ref[Entry[Any]], None] = {}
        self._clients: list[MainClient] = []
        self._adopter: object = None
        """The client that has adopted all settings."""
        self._generations = count(1)
        self.generation = 0
        """Changes whenever a setting is added or has another validator, so that what was computed from all settings can
        be kept up to date."""

    def add(self, entry: Entry[Any]) -> None:
        """Register a new setting, which the main client adopts."""
        self._entries[ref(entry, self._forget)] = None
        self.generation = next(self._generations)
        if (main := self.main) is not None:
            main.adopt(entry)
            main.refresh_soon()

    def entries(self) -> list[Entry[Any]]:
        """Return all settings that the program still refers to, in the order of their construction."""
        # Copying the dict cannot be interrupted by another thread or the garbage collector; iterating over it can.
        return [entry for reference in self._entries.copy() if (entry := reference()) is not None]

    def validators_changed(self) -> None:
        """Request a refresh, which converts values again: a setting has another validator."""
        self.generation = next(self._generations)
        if (main := self.main) is not None:
            main.refresh_soon()

    def defaults_changed(self, defaults: Defaults) -> None:
        """Update the reads of the settings that use these defaults."""
        for entry in self.entries():
            if entry.published.defaults is defaults:
                entry.renew_state()

    def add_observer(self, observer: ReadObserver) -> None:
        """Notify an observer of the reads of all settings, present and future."""
        read_observers.add(observer)
        self._recompile_for_observers()

    def remove_observer(self, observer: ReadObserver) -> None:
        """Remove an observer. An unknown one is ignored."""
        read_observers.remove(observer)
        self._recompile_for_observers()

    def _recompile_for_observers(self) -> None:
        for entry in self.entries():
            entry.renew_state()

    @property
    def main(self) -> MainClient | None:
        """The main client: the one that was activated last, of those that are still active."""
        return next(iter(self._clients[-1:]), None)

    def activate(self, client: MainClient) -> MainClient | None:
        """Make a client the main one, and return the former main client."""
        former = self.main
        self._clients.append(client)
        self._settle()
        return former

    def deactivate(self, client: MainClient, *, ends_watches: bool = True) -> None:
        """Remove a client, if it is active. If it was the main one, the client activated before it takes its place.

        Args:
            client: The client.
            ends_watches: Whether watches end if there is no other client. Otherwise they follow the next one.
        """
        with suppress(ValueError):
            self._clients.remove(client)
        if self._settle(ends_watches=ends_watches) and (main := self.main) is not None:
            main.refresh_soon()

    def _settle(self, *, ends_watches: bool = False) -> bool:
        """Assign all settings to the main client, unless that was done. Return True if it was not.

        Another thread, or a signal handler that interrupts this, may make another client the main one: then this starts
        over. If an exception interrupts it, the next call starts over.
        """
        is_changed = False
        while (main := self.main) is not self._adopter:
            is_changed = True
            try:
                self._adopter = _NOBODY
                for entry in self.entries():
                    if self.main is not main:
                        break
                    if main is not None:
                        main.adopt(entry)
                    elif ends_watches:
                        entry.end_watches()
                self._adopter = main
            except BaseException:
                self._adopter = _NOBODY
                raise
        return is_changed

    def _forget(self, reference: "ref[Entry[Any]]") -> None:
        self._entries.pop(reference, None)


_NOBODY: Final = object()

registry = Registry()
"""The one registry of the process: a setting at module level cannot know its client."""
