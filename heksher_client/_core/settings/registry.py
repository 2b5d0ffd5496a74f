"""Which settings exist, and which client is the main one.

Settings are held weakly and never handed around: they stay here from their construction to their end, and whichever
client is the main one works for all of them. So a client that fails to start, or closes, leaves nothing behind that
the next one would have to find.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

if TYPE_CHECKING:
    from heksher_client._core.settings.changes import Wakeup
    from heksher_client._core.settings.context import Defaults
    from heksher_client._core.settings.setting import Setting


class MainClient(Protocol):
    """What a client must be able to do to become the main one."""

    def adopt(self, setting: "Setting[Any]") -> None:
        """Take a setting over: from now on its reads use this client's defaults, and its rules are this client's."""

    def refresh_soon(self) -> None:
        """Do not wait for the next interval: there is something new to declare, to load or to convert."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """Somebody who wants to hear of reads."""

    observer: "Callable[[Setting[Any], Mapping[str, str]], object]"
    """Called with a setting, and the context as its caller gave it, before the setting is read in the caller's thread.
    What it raises, the read raises."""
    share: float
    """Of all reads, those that it is called for: from 0 to 1."""
    draw: Callable[[], float]
    """Gives numbers from 0 to 1, by which those are chosen."""


class Registry:
    """Settings and main clients. Safe to call from any thread: each change is one operation on a dict or list."""

    make_bell: "Callable[[], Wakeup]"
    """Gives something to wait with, which the core is handed by the package."""

    def __init__(self) -> None:
        self._settings: dict[ref[Setting[Any]], None] = {}
        self._clients: list[MainClient] = []
        self._numbers = count(1)
        self.generation = 0
        """Another number as soon as a setting was added: whoever keeps settings by name looks for new ones then."""
        self.observations: list[Observation] = []
        """While there are none, reads do not even ask."""

    def add(self, setting: "Setting[Any]") -> None:
        """Register a new setting, and give it to the main client."""
        self._settings[ref(setting, self._forget)] = None
        self.generation = next(self._numbers)
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

    def observe(self, observation: Observation) -> None:
        """Have somebody hear of the reads of all settings, those there are and those to come."""
        self.observations.append(observation)
        self._tell_readers()

    def unobserve(self, observation: Observation) -> None:
        """Have him hear of no more; nothing happens if he does not."""
        with suppress(ValueError):
            self.observations.remove(observation)
        self._tell_readers()

    def _tell_readers(self) -> None:
        for setting in self.settings():
            setting._reader.recompile_for_observers()

    @property
    def max_sample_rate(self) -> Observation | None:
        """The observation with the largest share. Reads draw for it themselves, and tell when they are chosen."""
        return max(tuple(self.observations), key=lambda observation: observation.share, default=None)

    def observed(self, setting: "Setting[Any]", given: "Mapping[str, str]", chosen: float = 1.0) -> None:
        """Tell those who want to hear of it that a setting is read.

        Args:
            setting: It.
            given: The context as its caller gave it.
            chosen: The share of all reads that this is called for.
        """
        for observation in tuple(self.observations):
            if observation.share >= chosen or observation.draw() * chosen < observation.share:
                observation.observer(setting, given)

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
        elif was_main:
            for setting in self.settings():
                setting._reader.end_watches()

    def _forget(self, reference: "ref[Setting[Any]]") -> None:
        self._settings.pop(reference, None)


registry = Registry()
"""The one registry of the process: a setting at module level cannot know its client."""
