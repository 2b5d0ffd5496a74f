"""The changes that an import of a document requires, as steps that can be shown before they are applied."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.declarations import Declaration
from heksher_client.service.document import (
    Document,
    DocumentError,
    DocumentRule,
    DocumentSetting,
    conditions_key,
    conditions_text,
    shorten,
)
from heksher_client.service.json_values import is_identical
from heksher_client.service.operations import require_setting
from heksher_client.service.rule_period import Period
from heksher_client.service.store import StoredRule, StoredSetting

_MAX_KEPT_ID: Final = 2_000_000_000
"""The largest id of a rule that an import keeps. Later rules get higher ones, for which it leaves 147 million."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of an import."""

    action: str
    """The kind of change, as in the change log."""
    setting: str | None
    """The name of the affected setting in the document, or of one that is deleted; None if it affects none."""
    text: str
    """A description of the change for people."""
    apply: Callable[[Connection], None]


class ImportPlanner:
    """The comparison of a document with a database."""

    def __init__(self, connection: Connection, document: Document, *, exact: bool) -> None:
        """Read the database.

        Args:
            connection: The connection of a transaction.
            document: The document.
            exact: Whether to delete what is not in the document.
        """
        self._document, self._exact = document, exact
        self._features = store.context_features(connection)
        self._stored = {setting.declaration.name: setting for setting in store.settings(connection)}
        self._rules: dict[int, list[StoredRule]] = {}
        for rule in store.rules(connection):
            self._rules.setdefault(rule.setting_id, []).append(rule)
        self._used_ids = {rule.id for rules in self._rules.values() for rule in rules}
        self._rules_with_new_ids: list[Step] = []
        """Added after all other rules, so that they do not take the id of one."""
        self._settings_with_rules: dict[str, StoredSetting] = {}
        """The settings whose rules were added or changed, by name."""

    def steps(self) -> Iterator[Step]:
        """Yield the steps in an order in which each of them is possible."""
        yield from self._add_features()
        pairs = [(setting, self._find_stored(setting, i)) for i, setting in enumerate(self._document.settings)]
        if self._exact:
            yield from self._delete_settings({stored.id for _, stored in pairs if stored is not None})
            yield from self._delete_aliases(pairs)
        for setting, stored in pairs:
            rules = [] if stored is None else self._rules.get(stored.id, [])
            if stored is not None:
                yield from self._delete_rules(setting, stored, rules)
            yield from self._add_or_change_setting(setting, stored, rules)
            yield from self._add_or_change_rules(setting, rules)
        yield from self._rules_with_new_ids
        yield from self._delete_and_order_features()

    def _add_features(self) -> Iterator[Step]:
        for name in self._document.context_features:
            if name not in self._features:
                add = partial(store.add_context_feature, name=name)
                yield Step("context feature added", None, f"add context feature {name}", add)

    def _delete_and_order_features(self) -> Iterator[Step]:
        wanted = self._document.context_features
        others = [name for name in self._features if name not in wanted]
        if self._exact:
            for name in others:
                delete = partial(store.delete_context_feature, name=name)
                yield Step("context feature deleted", None, f"delete context feature {name}", delete)
            others = []
        current = [name for name in self._features if name in wanted or name in others]
        current += [name for name in wanted if name not in self._features]
        order = [*wanted, *others]
        if current != order:
            text = f"change the order of context features to {', '.join(order)}"
            yield Step("context feature moved", None, text, partial(store.order_context_features, names=order))

    def _find_stored(self, setting: DocumentSetting, index: int) -> StoredSetting | None:
        """Return the stored setting with the name of a setting in the document, or else with one of its aliases.

        Args:
            setting: The setting in the document.
            index: Its index.

        Raises:
            DocumentError: The names belong to several stored settings.
        """
        names = (setting.name, *setting.aliases)
        found = {name: stored for name in names if (stored := self._stored.get(name))}
        if not self._exact:
            if len(found) > 1:
                raise DocumentError(
                    f"setting {setting.name}: {' and '.join(found)} are one setting in the document, but several "
                    "settings in the database",
                    ("settings", index),
                )
            for other, stored in self._stored.items():
                if (shared := set(names) & set(stored.aliases)) and other not in names:
                    message = f"setting {setting.name}: {min(shared)} is an alias of {other} in the database"
                    raise DocumentError(message, ("settings", index))
        return next(iter(found.values()), None)

    def _delete_settings(self, kept: set[int]) -> Iterator[Step]:
        for name, stored in self._stored.items():
            if stored.id not in kept:
                text = f"delete setting {name} and its {len(self._rules.get(stored.id, []))} rules"
                yield Step("setting deleted", name, text, partial(store.delete_setting, setting=stored))

    def _delete_aliases(self, pairs: Iterable[tuple[DocumentSetting, StoredSetting | None]]) -> Iterator[Step]:
        """Yield these steps before another setting can get one of the aliases."""
        for setting, stored in pairs:
            if stored is None:
                continue
            for alias in sorted(set(stored.aliases) - set(setting.aliases)):
                name = stored.declaration.name
                text = f"delete alias {alias} of setting {name}"
                yield Step("aliases changed", name, text, partial(_delete_alias, name=name, alias=alias))

    def _add_or_change_setting(
        self, setting: DocumentSetting, stored: StoredSetting | None, rules: Sequence[StoredRule]
    ) -> Iterator[Step]:
        features = [name for name in self._document.context_features if name in setting.configurable_features]
        declaration = replace(setting.declaration(), configurable_features=tuple(features))
        if stored is not None:
            declaration = replace(declaration, **self._kept(setting, stored.declaration, ("metadata",), ("version",)))
        if stored is None:
            add = partial(store.add_setting, declaration=declaration)
            yield Step("setting declared", setting.name, f"add setting {setting.name}", add)
        elif differences := _describe_differences(stored.declaration, declaration):
            self._check_other_rules(setting, declaration, rules)
            text = f"change setting {stored.declaration.name}: {', '.join(differences)}"
            update = partial(store.update_setting, setting=stored, declaration=declaration)
            yield Step("setting changed", setting.name, text, update)
        existing = set() if stored is None else {stored.declaration.name, *stored.aliases}
        for alias in sorted(set(setting.aliases) - existing):
            text = f"add alias {alias} of setting {setting.name}"
            yield Step("aliases changed", setting.name, text, partial(_add_alias, name=setting.name, alias=alias))

    def _check_other_rules(
        self, setting: DocumentSetting, declaration: Declaration, rules: Iterable[StoredRule]
    ) -> None:
        """Check that the rules which are kept, but not in the document, fit the new declaration.

        Raises:
            DocumentError: A rule does not fit.
        """
        wanted = {conditions_key(rule.feature_values) for rule in setting.rules}
        for rule in () if self._exact else rules:
            if conditions_key(dict(rule.conditions)) in wanted:
                continue
            features = [feature for feature, _ in rule.conditions]
            if not declaration.type.accepts(rule.value) or not set(features) <= set(declaration.configurable_features):
                raise DocumentError(
                    f"setting {setting.name}: rule {rule.id} is not in the document, and does not fit the new "
                    "declaration of the setting; delete the rule first, or use --exact",
                    ("settings", self._document.settings.index(setting)),
                )

    def _kept(
        self, given: DocumentSetting | DocumentRule, stored: Any, names: Iterable[str], always: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the attributes that the document leaves out, and that stay as they are.

        Args:
            given: The setting or the rule in the document.
            stored: The object with the present attributes.
            names: The attributes that an exact import removes.
            always: The attributes that an exact import does not remove.
        """
        kept = [*always, *(() if self._exact else names)]
        return {name: getattr(stored, name) for name in kept if name not in given.model_fields_set}

    def _delete_rules(
        self, setting: DocumentSetting, stored: StoredSetting, rules: Iterable[StoredRule]
    ) -> Iterator[Step]:
        wanted = {conditions_key(rule.feature_values) for rule in setting.rules}
        for rule in rules:
            if self._exact and conditions_key(dict(rule.conditions)) not in wanted:
                text = f"delete rule {rule.id} of setting {setting.name}: {conditions_text(dict(rule.conditions))}"
                yield Step("rule deleted", setting.name, text, partial(store.delete_rule, setting=stored, rule=rule))

    def _add_or_change_rules(self, setting: DocumentSetting, rules: Iterable[StoredRule]) -> Iterator[Step]:
        stored = {conditions_key(dict(rule.conditions)): rule for rule in rules}
        for index, given in enumerate(setting.rules):
            rule = stored.get(conditions_key(given.feature_values))
            conditions = conditions_text(given.feature_values)
            if rule is None:
                text = f"add rule to setting {setting.name}: {conditions} is {shorten(given.value)}"
                if given.rule_id is None or given.rule_id > _MAX_KEPT_ID or given.rule_id in self._used_ids:
                    add = partial(self._add_rule, name=setting.name, rule=given, rule_id=None)
                    self._rules_with_new_ids.append(Step("rule added", setting.name, text, add))
                else:
                    add = partial(self._add_rule, name=setting.name, rule=given, rule_id=given.rule_id)
                    yield Step("rule added", setting.name, text, add)
                continue
            wanted = self._wanted_rule(setting, index, rule)
            if differences := _describe_rule_differences(rule, wanted):
                text = f"change rule {rule.id} of setting {setting.name}: {conditions} {', '.join(differences)}"
                change = partial(self._change_rule, name=setting.name, rule=rule, wanted=wanted)
                yield Step("rule changed", setting.name, text, change)

    def _wanted_rule(self, setting: DocumentSetting, index: int, stored: StoredRule) -> StoredRule:
        """Return a stored rule as it is after the import.

        Args:
            setting: The setting in the document.
            index: The index of the rule in its rules.
            stored: The rule with its conditions.

        Raises:
            DocumentError: The rule would end before it begins, if the limit that the document leaves out is kept.
        """
        given = setting.rules[index]
        period = given.period._replace(**self._kept(given, stored.period, Period._fields))
        if period.is_empty:
            raise DocumentError(
                f"setting {setting.name}: rule {stored.id} would end before it begins: starts_at would be "
                f"{period.as_json()['starts_at']}, and ends_at {period.as_json()['ends_at']}",
                ("settings", self._document.settings.index(setting), "rules", index),
            )
        metadata = self._kept(given, stored, ("metadata",)).get("metadata", given.metadata)
        return replace(stored, value=given.value, metadata=metadata, period=period)

    def _add_rule(self, connection: Connection, name: str, rule: DocumentRule, rule_id: int | None) -> None:
        setting = self._setting(connection, name)
        store.add_rule(
            connection, setting, rule.feature_values, rule.value, rule.metadata, period=rule.period, rule_id=rule_id
        )

    def _change_rule(self, connection: Connection, name: str, rule: StoredRule, wanted: StoredRule) -> None:
        setting = self._setting(connection, name)
        attributes = {"value": wanted.value, "metadata": wanted.metadata, "period": wanted.period}
        store.change_rule(connection, setting, rule, **attributes)

    def _setting(self, connection: Connection, name: str) -> StoredSetting:
        """Return a setting after all steps that change its name or its aliases.

        To read it again for each of its rules would take most of the time of an import.
        """
        if name not in self._settings_with_rules:
            self._settings_with_rules[name] = require_setting(connection, name)
        return self._settings_with_rules[name]


# These find their setting by name when they are applied: steps before may have added or changed it.


def _add_alias(connection: Connection, name: str, alias: str) -> None:
    store.add_alias(connection, require_setting(connection, name), alias)


def _delete_alias(connection: Connection, name: str, alias: str) -> None:
    store.delete_alias(connection, require_setting(connection, name), alias)


def _describe_differences(stored: Declaration, wanted: Declaration) -> list[str]:
    """Return a text for each attribute that differs, with both values."""
    pairs = {
        "name": (stored.name, wanted.name),
        "type": (str(stored.type), str(wanted.type)),
        "default_value": (stored.default_value, wanted.default_value),
        "configurable_features": (sorted(stored.configurable_features), sorted(wanted.configurable_features)),
        "metadata": (dict(stored.metadata), dict(wanted.metadata)),
        "version": (stored.version, wanted.version),
    }
    return [f"{name} {_change_text(a, b)}" for name, (a, b) in pairs.items() if not is_identical(a, b)]


def _describe_rule_differences(stored: StoredRule, wanted: StoredRule) -> list[str]:
    """Return a text for the value, the metadata and the period, as far as they differ."""
    pairs = {
        "": (stored.value, wanted.value),
        "metadata ": (dict(stored.metadata), dict(wanted.metadata)),
        "period ": (stored.period.as_json(), wanted.period.as_json()),
    }
    return [f"{name}{_change_text(a, b)}" for name, (a, b) in pairs.items() if not is_identical(a, b)]


def _change_text(former: Any, new: Any) -> str:
    return f"from {shorten(former)} to {shorten(new)}"
