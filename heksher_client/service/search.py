"""Search for a text in all settings: in their names, aliases, metadata and default values, and in their rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, or_, select, union

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


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of the settings that were found. Those whose names contain the text come first."""

    matcher: Matcher
    settings: Sequence[FoundSetting]
    total: int
    """The number of settings on all pages."""


def search(connection: Connection, text: str, *, limit: int, offset: int = 0) -> SearchResult:
    """Search in all settings.

    Args:
        connection: The connection of the transaction.
        text: The text, as in `Matcher`.
        limit: The maximum number of settings.
        offset: The number of settings before the page.
    """
    matcher = Matcher(text, store.context_features(connection))
    if not is_searchable(matcher.text):
        return SearchResult(matcher, [], 0)
    in_rules = _rule_criterion(matcher)
    query = select(RULES.c.setting_id, func.count()).where(in_rules).group_by(RULES.c.setting_id)
    rule_counts: dict[int, int] = dict(map(tuple, connection.execute(query)))
    ids = rule_counts.keys() | _matching_settings(connection, matcher)
    sorted_ids = _sort(connection, ids, matcher.text.lower())
    page = sorted_ids[offset : offset + limit]
    settings = {setting.id: setting for setting in store.settings(connection, page)}
    found = [
        FoundSetting(
            settings[setting_id],
            _setting_matches(settings[setting_id], matcher),
            _rules(connection, setting_id, in_rules, matcher) if setting_id in rule_counts else [],
            rule_counts.get(setting_id, 0),
        )
        for setting_id in page
    ]
    # The database also finds letters in the escapes of JSON.
    return SearchResult(matcher, [each for each in found if each.matches or each.rules], len(sorted_ids))


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


def _rules(
    connection: Connection, setting_id: int, criterion: ColumnElement[bool], matcher: Matcher
) -> list[FoundRule]:
    query = select(RULES).where(RULES.c.setting_id == setting_id, criterion).order_by(RULES.c.id).limit(MAX_RULES)
    rules = [store.rule_from_row(row) for row in connection.execute(query)]
    return [FoundRule(rule, matches) for rule in rules if (matches := _rule_matches(rule, matcher))]


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
