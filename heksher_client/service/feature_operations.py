"""Operations on context features that the API and the console share, and their use by settings and rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, not_, select

from heksher_client.service import store
from heksher_client.service.routing import RequestError
from heksher_client.service.rule_search import has_feature
from heksher_client.service.schema import CONFIGURABLE, RULES, SETTINGS
from heksher_client.service.store import StoredSetting


@dataclass(frozen=True, slots=True)
class FeatureUse:
    """The use of a context feature."""

    name: str
    settings: Sequence[str]
    """The names of the settings that are configurable by it, sorted."""
    rules: int
    """The number of rules with a condition on it."""


@dataclass(frozen=True, slots=True)
class AffectedSetting:
    """A setting whose values may depend on the order of two context features."""

    name: str
    rules: tuple[int, int]
    """The number of rules with a condition on the first of the two features only, and on the second one only."""


def add(connection: Connection, name: str) -> None:
    """Add a context feature after all others.

    Raises:
        RequestError: It exists.
    """
    if name in store.context_features(connection):
        raise RequestError(409, "context feature already exists")
    store.add_context_feature(connection, name)


def move(connection: Connection, name: str, other: str, *, is_after: bool) -> None:
    """Move a context feature before or after another one.

    Raises:
        RequestError: One of them does not exist.
    """
    features = store.context_features(connection)
    if name not in features or other not in features:
        raise RequestError(404)
    if other != name:
        features.remove(name)
        features.insert(features.index(other) + is_after, name)
        store.order_context_features(connection, features)


def delete(connection: Connection, name: str) -> None:
    """Delete a context feature.

    Raises:
        RequestError: It does not exist, or a setting is configurable by it.
    """
    if name not in store.context_features(connection):
        raise RequestError(404)
    if store.is_configured_by(connection, name):
        raise RequestError(409, "context feature can't be deleted, there is at least one setting configured by it")
    store.delete_context_feature(connection, name)


def feature_uses(connection: Connection) -> list[FeatureUse]:
    """Return the use of each context feature, in their order."""
    order = store.context_features(connection)
    settings: dict[str, list[str]] = {}
    query = select(CONFIGURABLE.c.feature, SETTINGS.c.name).join_from(CONFIGURABLE, SETTINGS)
    for feature, name in connection.execute(query):
        settings.setdefault(feature, []).append(name)
    counts = count_rules_by_feature(connection, order)
    return [FeatureUse(feature, sorted(settings.get(feature, ())), counts[feature]) for feature in order]


def count_rules_by_feature(
    connection: Connection, features: Sequence[str], setting: StoredSetting | None = None
) -> dict[str, int]:
    """Return the number of rules with a condition on each context feature: all rules, or those of a setting."""
    if not features:
        return {}
    query = select(*(_sum(has_feature(feature)) for feature in features)).select_from(RULES)
    if setting is not None:
        query = query.where(RULES.c.setting_id == setting.id)
    counts = connection.execute(query).one()
    return {feature: count or 0 for feature, count in zip(features, counts, strict=True)}  # null without any rules


def affected_settings(connection: Connection, feature: str, other: str) -> list[AffectedSetting]:
    """Return the settings whose values may change if two neighboring context features are exchanged, sorted by name.

    That needs two rules, each with a condition on one of the features and not on the other: then the order of the two
    may decide which of the rules wins.
    """
    first, second = (
        _sum(and_(has_feature(one), not_(has_feature(another))))
        for one, another in ((feature, other), (other, feature))
    )
    query = select(SETTINGS.c.name, first, second).join_from(RULES, SETTINGS).group_by(SETTINGS.c.name)
    rows = connection.execute(query.having(and_(first > 0, second > 0)))
    found = [AffectedSetting(name, (one, another)) for name, one, another in rows]
    return sorted(found, key=lambda setting: setting.name)  # The collations of databases differ.


def _sum(criterion: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((criterion, 1), else_=0))
