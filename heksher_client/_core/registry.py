"""Which settings exist, and which client is the main one.

Settings are held weakly and never handed around: they stay here from their construction to their end, and whichever
client is the main one works for all of them. So a client that fails to start, or closes, leaves nothing behind that
the next one would have to find.
"""

from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

if TYPE_CHECKING:
    from heksher_client._core.contexts import Defaults
    from heksher_client._core.settings import Setting


class MainClient(Protocol):
    """What a client must be able to do to become the main one."""

    def adopt(self, setting: "Setting[Any]") -> None:
        """Take a setting over: from now on its reads use this client's defaults, and its rules are this client's."""

    def refresh_soon(self) -> None:
        """Do not wait for the next interval: there is something new to declare, to load or to convert."""


class Registry:
    """Settings and main clients. Safe to call from any thread: each change is one operation on a dict or list."""

    def __init__(self) -> None:
        self._settings: dict[ref[Setting[Any]], None] = {}
        self._clients: list[MainClient] = []

    def add(self, setting: "Setting[Any]") -> None:
        """Register a new setting, and give it to the main client."""
        self._settings[ref(setting, self._forget)] = None
        if (main := self.main) is not None:
            main.adopt(setting)
            main.refresh_soon()

    def changed(self) -> None:
        """Tell the main client that a setting converts values differently from now on."""
        if (main := self.main) is not None:
            main.refresh_soon()

    def renew(self, defaults: "Defaults") -> None:
        """Have the settings that use these defaults use them as they are now."""
        for setting in self.settings():
            if setting._reader.view.defaults is defaults:
                setting._reader.renew()

    def settings(self) -> "list[Setting[Any]]":
        """All settings that the program still holds, in the order of their construction."""
        # The copy is one step that no other thread and no collection can interrupt; iterating the dict is not.
        return [setting for reference in self._settings.copy() if (setting := reference()) is not None]

    @property
    def main(self) -> MainClient | None:
        """The main client: the one that was activated last, of those that are still active."""
        return self._clients[-1] if self._clients else None

    def activate(self, client: MainClient) -> MainClient | None:
        """Make a client the main one.

        Returns:
            The client that was the main one until now.
        """
        former = self.main
        self._clients.append(client)
        for setting in self.settings():
            client.adopt(setting)
        return former

    def deactivate(self, client: MainClient) -> None:
        """Take a client out, if it is in. If it was the main one, the one before it is the main one again."""
        was_main = client is self.main
        try:
            self._clients.remove(client)
        except ValueError:
            return
        if was_main and (main := self.main) is not None:
            for setting in self.settings():
                main.adopt(setting)
            main.refresh_soon()

    def _forget(self, reference: "ref[Setting[Any]]") -> None:
        self._settings.pop(reference, None)


registry = Registry()
"""The one registry of the process: a setting at module level cannot know its client."""
