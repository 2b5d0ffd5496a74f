"""Export of a database to a document, and import of a document into a database.

An import is planned first: the plan is a list of steps, which can be shown before they are applied.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Connection

from heksher_client.service import store
from heksher_client.service.declarations import Declaration
from heksher_client.service.json_values import is_identical, shorten
from heksher_client.service.operations import require_setting
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.routing import Conditions, ContextName, JSONValue, MetadataKey, SettingName
from heksher_client.service.schema import MAX_ID
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule, StoredSetting

FORMAT: Final = 1
_MAX_VALUE_LENGTH: Final = 60
"""Characters of a value in the text of a step."""


class DocumentError(ValueError):
    """The document is invalid, or conflicts with the content of the database."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rule_id: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}


class _Setting(DeclaredSetting):
    model_config = ConfigDict(extra="forbid")
    aliases: Annotated[list[SettingName], Field(default_factory=list)]
    rules: Annotated[list[_Rule], Field(default_factory=list)]

    @model_validator(mode="after")
    def _has_valid_rules(self) -> "_Setting":
        type_ = parse_setting_type(self.type)
        seen: set[frozenset[tuple[str, str]]] = set()
        for rule in self.rules:
            conditions = _key(rule.feature_values)
            if conditions in seen:
                raise ValueError(f"two rules have the conditions {_conditions_text(rule.feature_values)}")
            seen.add(conditions)
            if not type_.accepts(rule.value):
                text = _conditions_text(rule.feature_values)
                raise ValueError(f"the value of the rule for {text} is not of the type {type_}")
            if unknown := rule.feature_values.keys() - set(self.configurable_features):
                raise ValueError(f"a rule has a condition on {min(unknown)}, which is not a configurable feature")
        return self


def _check_format(number: Any) -> Any:
    if number != FORMAT:
        raise ValueError(f"unsupported document format {number!r}; this version of the service supports {FORMAT}")
    return number


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    heksher: Annotated[Literal[1], BeforeValidator(_check_format)]
    context_features: list[ContextName]
    settings: list[_Setting]

    @model_validator(mode="after")
    def _is_consistent(self) -> "_Document":
        _check_distinct("context feature", self.context_features)
        names = [name for setting in self.settings for name in (setting.name, *setting.aliases)]
        _check_distinct("name of a setting", names)
        _check_distinct("rule_id", [r.rule_id for s in self.settings for r in s.rules if r.rule_id is not None])
        for setting in self.settings:
            if unknown := set(setting.configurable_features) - set(self.context_features):
                raise ValueError(
                    f"the setting {setting.name} depends on {min(unknown)}, which is not in context_features"
                )
        return self


def _check_distinct(what: str, values: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"the {what} {value} is repeated")
        seen.add(value)


def export(connection: Connection) -> dict[str, Any]:
    """Return all context features, settings and rules as a document of JSON values."""
    order = store.context_features(connection)
    rules: dict[int, list[dict[str, Any]]] = {}
    for rule in store.rules(connection):
        conditions = {feature: value for feature, value in rule.conditions_in(order)}  # noqa: C416 - of lists
        exported = store.rule_as_json(rule) | {"feature_values": conditions}
        rules.setdefault(rule.setting_id, []).append(exported)
    return {
        "heksher": FORMAT,
        "context_features": order,
        "settings": [
            store.declaration_as_json(setting.declaration)
            | {"aliases": list(setting.aliases), "rules": rules.get(setting.id, [])}
            for setting in store.settings(connection)
        ],
    }


@dataclass(frozen=True, slots=True)
class Step:
    """One change of an import."""

    text: str
    """A description of the change for people."""
    apply: Callable[[Connection], None]


def plan(connection: Connection, document: Any, *, exact: bool) -> list[Step]:
    """Return the changes that are needed to import a document.

    Args:
        connection: The connection of a transaction.
        document: A document as `export` returns it.
        exact: Whether to delete what is not in the document.

    Raises:
        DocumentError: The document is invalid, or conflicts with the content of the database.
    """
    try:
        valid = _Document.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        location = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise DocumentError(f"{location or 'the document'}: {message}") from None
    return list(_Planner(connection, valid, exact=exact).steps())


class _Planner:
    def __init__(self, connection: Connection, document: _Document, *, exact: bool) -> None:
        self._document, self._exact = document, exact
        self._features = store.context_features(connection)
        self._stored = {setting.declaration.name: setting for setting in store.settings(connection)}
        self._rules: dict[int, list[StoredRule]] = {}
        for rule in store.rules(connection):
            self._rules.setdefault(rule.setting_id, []).append(rule)
        self._used_ids = {rule.id for rules in self._rules.values() for rule in rules}
        self._rules_with_new_ids: list[Step] = []
        """Added after all other rules, so that they do not take the id of one."""

    def steps(self) -> Iterator[Step]:
        """Yield the steps in an order in which each of them is possible."""
        yield from self._add_features()
        pairs = [(setting, self._find_stored(setting)) for setting in self._document.settings]
        if self._exact:
            yield from self._delete_settings({stored.id for _, stored in pairs if stored is not None})
            yield from self._delete_aliases(pairs)
        for setting, stored in pairs:
            rules = [] if stored is None else self._rules.get(stored.id, [])
            yield from self._delete_rules(setting, rules)
            yield from self._add_or_change_setting(setting, stored, rules)
            yield from self._add_or_change_rules(setting, rules)
        yield from self._rules_with_new_ids
        yield from self._delete_and_order_features()

    def _add_features(self) -> Iterator[Step]:
        for name in self._document.context_features:
            if name not in self._features:
                yield Step(f"add context feature {name}", partial(store.add_context_feature, name=name))

    def _delete_and_order_features(self) -> Iterator[Step]:
        wanted = self._document.context_features
        others = [name for name in self._features if name not in wanted]
        if self._exact:
            for name in others:
                yield Step(f"delete context feature {name}", partial(store.delete_context_feature, name=name))
            others = []
        current = [name for name in self._features if name in wanted or name in others]
        current += [name for name in wanted if name not in self._features]
        order = [*wanted, *others]
        if current != order:
            text = f"change the order of context features to {', '.join(order)}"
            yield Step(text, partial(store.order_context_features, names=order))

    def _find_stored(self, setting: _Setting) -> StoredSetting | None:
        """Return the stored setting with the name of a setting in the document, or else with one of its aliases.

        Raises:
            DocumentError: The names belong to several stored settings.
        """
        names = (setting.name, *setting.aliases)
        found = {name: stored for name in names if (stored := self._stored.get(name))}
        if not self._exact:
            if len(found) > 1:
                raise DocumentError(
                    f"{' and '.join(found)} are one setting in the document, but several settings in the database"
                )
            for other in self._stored.values():
                if (shared := set(names) & set(other.aliases)) and other.declaration.name not in names:
                    raise DocumentError(f"{min(shared)} is an alias of {other.declaration.name} in the database")
        return next(iter(found.values()), None)

    def _delete_settings(self, kept: set[int]) -> Iterator[Step]:
        for name, stored in self._stored.items():
            if stored.id not in kept:
                text = f"delete setting {name} and its {len(self._rules.get(stored.id, []))} rules"
                yield Step(text, partial(store.delete_setting, setting=stored))

    def _delete_aliases(self, pairs: Iterable[tuple[_Setting, StoredSetting | None]]) -> Iterator[Step]:
        """Yield these steps before another setting can get one of the aliases."""
        for setting, stored in pairs:
            if stored is None:
                continue
            for alias in sorted(set(stored.aliases) - set(setting.aliases)):
                name = stored.declaration.name
                yield Step(f"delete alias {alias} of setting {name}", partial(_delete_alias, name=name, alias=alias))

    def _add_or_change_setting(
        self, setting: _Setting, stored: StoredSetting | None, rules: Sequence[StoredRule]
    ) -> Iterator[Step]:
        features = [name for name in self._document.context_features if name in setting.configurable_features]
        declaration = replace(setting.declaration(), configurable_features=tuple(features))
        if stored is None:
            yield Step(f"add setting {setting.name}", partial(store.add_setting, declaration=declaration))
        elif differences := _describe_differences(stored.declaration, declaration):
            self._check_other_rules(setting, declaration, rules)
            text = f"change setting {stored.declaration.name}: {', '.join(differences)}"
            yield Step(text, partial(store.update_setting, setting=stored, declaration=declaration))
        existing = set() if stored is None else {stored.declaration.name, *stored.aliases}
        for alias in sorted(set(setting.aliases) - existing):
            text = f"add alias {alias} of setting {setting.name}"
            yield Step(text, partial(_add_alias, name=setting.name, alias=alias))

    def _check_other_rules(self, setting: _Setting, declaration: Declaration, rules: Iterable[StoredRule]) -> None:
        """Check that the rules which are kept, but not in the document, fit the new declaration.

        Raises:
            DocumentError: A rule does not fit.
        """
        wanted = {_key(rule.feature_values) for rule in setting.rules}
        for rule in () if self._exact else rules:
            if _key(dict(rule.conditions)) in wanted:
                continue
            features = [feature for feature, _ in rule.conditions]
            if not declaration.type.accepts(rule.value) or not set(features) <= set(declaration.configurable_features):
                raise DocumentError(
                    f"rule {rule.id} of setting {setting.name} is not in the document, and does not fit the new "
                    "declaration of the setting; delete the rule first, or use --exact"
                )

    def _delete_rules(self, setting: _Setting, rules: Iterable[StoredRule]) -> Iterator[Step]:
        wanted = {_key(rule.feature_values) for rule in setting.rules}
        for rule in rules:
            if self._exact and _key(dict(rule.conditions)) not in wanted:
                text = f"delete rule {rule.id} of setting {setting.name}: {_conditions_text(dict(rule.conditions))}"
                yield Step(text, partial(_delete_rule, rule=rule))

    def _add_or_change_rules(self, setting: _Setting, rules: Iterable[StoredRule]) -> Iterator[Step]:
        stored = {_key(dict(rule.conditions)): rule for rule in rules}
        for wanted in setting.rules:
            rule = stored.get(_key(wanted.feature_values))
            conditions = _conditions_text(wanted.feature_values)
            if rule is None:
                text = f"add rule to setting {setting.name}: {conditions} is {_shorten(wanted.value)}"
                if wanted.rule_id is None or wanted.rule_id in self._used_ids:
                    add = partial(_add_rule, name=setting.name, rule=wanted, rule_id=None)
                    self._rules_with_new_ids.append(Step(text, add))
                else:
                    yield Step(text, partial(_add_rule, name=setting.name, rule=wanted, rule_id=wanted.rule_id))
            elif not is_identical([rule.value, rule.metadata], [wanted.value, wanted.metadata]):
                values = f"from {_shorten(rule.value)} to {_shorten(wanted.value)}"
                text = f"change rule {rule.id} of setting {setting.name}: {conditions} {values}"
                yield Step(text, partial(_change_rule, rule=rule, wanted=wanted))


# These find their setting by name when they are applied: steps before may have added or changed it.


def _add_alias(connection: Connection, name: str, alias: str) -> None:
    store.add_alias(connection, require_setting(connection, name), alias)


def _delete_alias(connection: Connection, name: str, alias: str) -> None:
    store.delete_alias(connection, require_setting(connection, name), alias)


def _add_rule(connection: Connection, name: str, rule: _Rule, rule_id: int | None) -> None:
    setting = require_setting(connection, name)
    store.add_rule(connection, setting, rule.feature_values, rule.value, rule.metadata, rule_id=rule_id)


def _change_rule(connection: Connection, rule: StoredRule, wanted: _Rule) -> None:
    setting = store.setting_of(connection, rule)
    store.change_rule(connection, setting, rule, value=wanted.value, metadata=wanted.metadata)


def _delete_rule(connection: Connection, rule: StoredRule) -> None:
    store.delete_rule(connection, store.setting_of(connection, rule), rule)


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
    return [f"{name} from {_shorten(a)} to {_shorten(b)}" for name, (a, b) in pairs.items() if not is_identical(a, b)]


def _key(conditions: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(conditions.items())


def _shorten(value: Any) -> str:
    return shorten(value, _MAX_VALUE_LENGTH)


def _conditions_text(conditions: Mapping[str, str]) -> str:
    return ", ".join(f"{feature}={value}" for feature, value in conditions.items())
