"""Publishing rules in the name of one client, and the record of what a refresh published."""

from collections.abc import Mapping
from typing import Any

import msgspec

from heksher_client._core.refresh.positions import Position
from heksher_client._core.settings.context import Defaults
from heksher_client._core.settings.entry import Entry, PublishedRules
from heksher_client._core.settings.listeners import CallbackRegistry
from heksher_client._core.settings.registry import MainClient, Registry
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.snapshot import publish, update_lock

AnyEntry = Entry[Any]


class RefreshResult(msgspec.Struct):
    """The result of one refresh: published rules, and failures."""

    failures: list[Exception] = []
    """Either the failure of the whole refresh, or those of single settings, while all others are refreshed."""
    is_failed: bool = False
    """True if the refresh failed for all settings. Otherwise failures do not affect when the next one is due."""
    problems: list[Exception] = []
    """Problems that remain although everything that was due was done: a refused declaration, until it is due again."""
    order_problem: Exception | None = None
    """Why the order of the context features is not known, or may be an old one."""
    is_recovered: bool = False
    """True if a retry of single settings succeeded for any of them."""
    replaced: dict[AnyEntry, RuleSet[Any]] = {}
    """The rules before this refresh, of the settings that have listeners."""
    changed: dict[str, None] = {}
    """The names of the settings for which something was published."""
    is_applied: bool = False
    """True if the responses of the service were applied."""
    position: Position | None = None
    """The position in the history of the service's database that they are of together, if they say it."""
    is_inconsistent: bool = False
    """True if they may be of different positions, as the service changes all the time."""
    received_at: float | None = None
    """When the service confirmed the rules of all settings, by the client's clock; None if some are restored ones."""
    restored_age: float | None = None
    """Seconds since the service confirmed the oldest of the rules from the last known good; None if there are none."""
    is_restored: bool = False
    """True if this refresh published rules from the last known good."""


class Publisher:
    """Publishes rules, as long as a client is the main one. Called while the modification lock is held."""

    def __init__(self, registry: Registry, client: MainClient, defaults: Defaults, listeners: CallbackRegistry) -> None:
        """Create a publisher.

        Args:
            registry: The settings, and the main client.
            client: The client in whose name rules are published.
            defaults: The defaults that the reads of published rules use.
            listeners: The receivers of all changes of this client.
        """
        self._registry, self._client = registry, client
        self._defaults, self._listeners = defaults, listeners

    @property
    def is_main(self) -> bool:
        """True if the client is the main one."""
        return self._registry.main is self._client

    def entries(self) -> list[AnyEntry]:
        """Return all settings of the program."""
        return self._registry.entries()

    def publish(self, rule_sets: Mapping[AnyEntry, RuleSet[Any]], result: RefreshResult) -> bool:
        """Replace the rules of settings, if the client is the main one.

        Returns:
            True if it is. Another client may have taken over while this one waited.
        """
        with update_lock():  # Otherwise another client could adopt the settings in between.
            if not self.is_main:
                return False
            for entry in rule_sets:
                if entry.listeners or self._listeners:
                    result.replaced.setdefault(entry, entry.published.rule_set)
            publish({entry: PublishedRules(rule_set, self._defaults) for entry, rule_set in rule_sets.items()})
        result.changed.update(dict.fromkeys(entry.name for entry in rule_sets))
        return True
