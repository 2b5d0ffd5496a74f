"""Search for a text in all settings: in their names, aliases, metadata and default values, and in their rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, or_, select, union

from heksher_client.service import store
from heksher_client.service.matcher import Matcher
from heksher_client.service.schema import ALIASES, RULES, SETTINGS
from heksher_client.service.store import StoredRule, StoredSetting
from heksher_client.service.text_criteria import conditions_contain, is_searchable, json_contains, name_contains

MAX_RULES: Final = 5
"""Rules of each setting in a result."""


@dataclass(frozen=True, slots=True)
class FoundRule:
    """A rule that contains the text."""

    rule: StoredRule
    matches: Sequence[str]
    """The parts that contain the text: `conditions`, `value`, `metadata`."""


@dataclass(frozen=True, slots=True)
class FoundSetting:
    """A setting that contains the text, or has rules that do."""

    setting: StoredSetting
    matches: Sequence[str]
    """The parts that contain the text: `name`, `alias`, `metadata`, `default_value`."""
    rules: Sequence[FoundRule]
    """The first rules that contain the text."""
    rule_count: int
    """The number of all of them."""


class Search:
    """A search, and the settings that it has found: first those whose names contain the text, then the others."""

    def __init__(self, connection: Connection, text: str) -> None:
        """Search in all settings.

        Args:
            connection: The connection of the transaction.
            text: The text, as in `Matcher`.
        """
        self._connection = connection
        self.matcher = Matcher(text, store.context_features(connection))
        self._rule_ids: dict[int, list[int]] = {}
        self._ids: Sequence[int] = []
        if is_searchable(self.matcher.text):
            query = select(RULES.c.setting_id, RULES.c.id).where(_rule_criterion(self.matcher)).order_by(RULES.c.id)
            for setting_id, rule_id in connection.execute(query):
                self._rule_ids.setdefault(setting_id, []).append(rule_id)
            ids = self._rule_ids.keys() | _matching_settings(connection, self.matcher)
            self._ids = _sort(connection, ids, self.matcher.text.lower())

    @property
    def total(self) -> int:
        """The number of settings that were found."""
        return len(self._ids)

    @property
    def rule_total(self) -> int:
        """The number of rules that contain the text."""
        return sum(map(len, self._rule_ids.values()))

    def page(self, limit: int, offset: int) -> list[FoundSetting]:
        """Return some of the settings, with the first rules of each."""
        ids = self._ids[offset : offset + limit]
        settings = {setting.id: setting for setting in store.settings(self._connection, ids)}
        found = [self._found(settings[setting_id], self._rule_ids.get(setting_id, ())) for setting_id in ids]
        # The database also finds letters in the escapes of JSON.
        return [each for each in found if each.matches or each.rules]

    def _found(self, setting: StoredSetting, rule_ids: Sequence[int]) -> FoundSetting:
        query = select(RULES).where(RULES.c.id.in_(rule_ids[:MAX_RULES])).order_by(RULES.c.id)
        rules = map(store.rule_from_row, self._connection.execute(query) if rule_ids else ())
        found = [FoundRule(rule, matches) for rule in rules if (matches := _rule_matches(rule, self.matcher))]
        return FoundSetting(setting, _setting_matches(setting, self.matcher), found, len(rule_ids))


def _rule_criterion(matcher: Matcher) -> ColumnElement[bool]:
    if matcher.feature is not None:
        return conditions_contain(matcher.text, whole=True)
    columns = (json_contains(column, matcher.text) for column in (RULES.c.value, RULES.c.metadata))
    return or_(conditions_contain(matcher.text), *columns)


def _matching_settings(connection: Connection, matcher: Matcher) -> set[int]:
    """Return the ids of the settings that contain the text themselves."""
    if matcher.feature is not None:
        return set()
    text = matcher.text
    by_setting = select(SETTINGS.c.id).where(
        or_(
            name_contains(SETTINGS.c.name, text),
            json_contains(SETTINGS.c.metadata, text),
            json_contains(SETTINGS.c.default_value, text),
        )
    )
    by_alias = select(ALIASES.c.setting_id).where(name_contains(ALIASES.c.alias, text))
    return set(connection.scalars(union(by_setting, by_alias)))


def _sort(connection: Connection, ids: set[int], text: str) -> list[int]:
    """Return the ids of settings, sorted by name: first the setting of this name, then those whose names contain it."""
    names: dict[int, str] = dict(map(tuple, connection.execute(select(SETTINGS.c.id, SETTINGS.c.name))))
    return sorted(ids, key=lambda each: (names[each].lower() != text, text not in names[each].lower(), names[each]))


def _rule_matches(rule: StoredRule, matcher: Matcher) -> list[str]:
    parts = {
        "conditions": matcher.matches_conditions(rule.conditions),
        "value": matcher.matches_value(rule.value),
        "metadata": matcher.matches_metadata(rule.metadata),
    }
    return [part for part, is_match in parts.items() if is_match]


def _setting_matches(setting: StoredSetting, matcher: Matcher) -> list[str]:
    declaration = setting.declaration
    parts = {
        "name": len(matcher.split(declaration.name)) > 1,
        "alias": any(len(matcher.split(alias)) > 1 for alias in setting.aliases),
        "metadata": matcher.matches_metadata(declaration.metadata),
        "default_value": matcher.matches_value(declaration.default_value),
    }
    return [part for part, is_match in parts.items() if is_match]
