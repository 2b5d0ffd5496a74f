"""The last known good in memory, and what a new process begins with."""

from heksher_client import Reason
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.registry import registry
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._drivers.last_known_good_file import Content, LastKnownGoodFile, StatSignature


class MemoryFile(LastKnownGoodFile):
    """A last known good file without a disk."""

    def __init__(self) -> None:
        super().__init__("memory", "")
        self.content: Content | None = None
        """None if there is no file."""
        self.error: OSError | None = None
        """Raised when the file is read or written."""
        self.writes = 0

    def signature(self) -> StatSignature | None:
        return None if self.content is None else (self.writes,)

    def read(self) -> tuple[Content, StatSignature]:
        if self.error is not None:
            raise self.error
        if self.content is None:
            raise FileNotFoundError(2, "No such file or directory")
        return _copy(self.content), (self.writes,)

    def write(self, content: Content) -> StatSignature:
        if self.error is not None:
            raise self.error
        self.content = _copy(content)
        self.writes += 1
        return (self.writes,)

    def names(self) -> set[str]:
        """Return the names of the settings with stored responses."""
        return set(self.content.settings) if self.content else set()


def _copy(content: Content) -> Content:
    return Content(content.order, [*content.trackings], {name: {**rows} for name, rows in content.settings.items()})


def reset_settings() -> None:
    """Reset all settings to their declared defaults, as in a new process."""
    for entry in registry.entries():
        entry.publish(PublishedRules(RuleSet(entry.declaration.default_value, Reason.DECLARED_DEFAULT)))
