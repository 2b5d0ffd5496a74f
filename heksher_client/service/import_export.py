"""All that a database holds as one document, and what it takes to make a database hold what a document says."""

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
from heksher_client.service.schema import LARGEST_KEY
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule, StoredSetting

FORMAT: Final = 1
_MAX_VALUE_LENGTH: Final = 60
"""Characters of a value in the text of a step."""


class DocumentError(ValueError):
    """A document that is none, or that a database cannot be made to hold."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rule_id: Annotated[int, Field(ge=1, le=LARGEST_KEY)] | None = None
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}


class _Setting(DeclaredSetting):
    model_config = ConfigDict(extra="forbid")
    aliases: Annotated[list[SettingName], Field(default_factory=list)]
    rules: Annotated[list[_Rule], Field(default_factory=list)]

    @model_validator(mode="after")
    def _has_fitting_rules(self) -> "_Setting":
        type_ = parse_setting_type(self.type)
        seen: set[frozenset[tuple[str, str]]] = set()
        for rule in self.rules:
            conditions = frozenset(rule.feature_values.items())
            if conditions in seen:
                raise ValueError(f"two rules have the conditions {_conditions(rule.feature_values)}")
            seen.add(conditions)
            if not type_.accepts(rule.value):
                raise ValueError(f"the rule for {_conditions(rule.feature_values)} has no value of the type {type_}")
            if unknown := rule.feature_values.keys() - set(self.configurable_features):
                raise ValueError(f"a rule has a condition on {min(unknown)}, by which it is not configurable")
        return self


def _check_format(number: Any) -> Any:
    if number != FORMAT:
        raise ValueError(f"this is a document of the format {number!r}; this version of the service knows {FORMAT}")
    return number


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    heksher: Annotated[Literal[1], BeforeValidator(_check_format)]
    context_features: list[ContextName]
    settings: list[_Setting]

    @model_validator(mode="after")
    def _fits_together(self) -> "_Document":
        _check_distinct("context feature", self.context_features)
        names = [name for setting in self.settings for name in (setting.name, *setting.aliases)]
        _check_distinct("name of a setting", names)
        _check_distinct("rule_id", [r.rule_id for s in self.settings for r in s.rules if r.rule_id is not None])
        for setting in self.settings:
            if unknown := set(setting.configurable_features) - set(self.context_features):
                raise ValueError(f"the setting {setting.name} depends on {min(unknown)}, which is no context feature")
        return self


def _check_distinct(what: str, values: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"the {what} {value} is there twice")
        seen.add(value)


def export(connection: Connection) -> dict[str, Any]:
    """All context features, settings and rules, in JSON values."""
    order = store.context_features(connection)
    rules: dict[int, list[dict[str, Any]]] = {}
    for rule in store.rules(connection):
        conditions = {feature: value for feature, value in rule.conditions_in(order)}  # noqa: C416 - of lists
        described = store.noted(rule) | {"feature_values": conditions}
        rules.setdefault(rule.setting_id, []).append(described)
    return {
        "heksher": FORMAT,
        "context_features": order,
        "settings": [
            store.described(held.declaration) | {"aliases": list(held.aliases), "rules": rules.get(held.id, [])}
            for held in store.settings(connection)
        ],
    }


@dataclass(frozen=True, slots=True)
class Step:
    """One change on the way to what a document says."""

    text: str
    apply: Callable[[Connection], None]


def plan(connection: Connection, document: Any, *, exact: bool) -> list[Step]:
    """What has to be changed for a database to hold what a document says.

    Args:
        connection: Of a transaction.
        document: As `export` gives it.
        exact: Whether the database shall hold nothing else.

    Raises:
        DocumentError: The document is none, or the database holds what it does not go together with.
    """
    try:
        read = _Document.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DocumentError(f"{where or 'the document'}: {problem['msg'].removeprefix('Value error, ')}") from None
    return list(_Plan(connection, read, exact=exact).steps())


class _Plan:
    def __init__(self, connection: Connection, document: _Document, *, exact: bool) -> None:
        self._document, self._exact = document, exact
        self._features = store.context_features(connection)
        self._held = {held.declaration.name: held for held in store.settings(connection)}
        self._rules: dict[int, list[StoredRule]] = {}
        for rule in store.rules(connection):
            self._rules.setdefault(rule.setting_id, []).append(rule)
        self._taken = {rule.id for rules in self._rules.values() for rule in rules}
        self._unnumbered: list[Step] = []
        """Rules that get new ids: after all others, which keep theirs."""

    def steps(self) -> Iterator[Step]:
        """In an order in which each can be made."""
        yield from self._new_features()
        pairs = [(setting, self._held_as(setting)) for setting in self._document.settings]
        if self._exact:
            yield from self._settings_to_delete({held.id for _, held in pairs if held is not None})
            yield from self._aliases_to_delete(pairs)
        for setting, held in pairs:
            rules = [] if held is None else self._rules.get(held.id, [])
            yield from self._rules_to_delete(setting, rules)
            yield from self._setting(setting, held, rules)
            yield from self._rules_to_keep(setting, rules)
        yield from self._unnumbered
        yield from self._last_features()

    def _new_features(self) -> Iterator[Step]:
        for name in self._document.context_features:
            if name not in self._features:
                yield Step(f"add context feature {name}", partial(store.add_context_feature, name=name))

    def _last_features(self) -> Iterator[Step]:
        wanted = self._document.context_features
        others = [name for name in self._features if name not in wanted]
        if self._exact:
            for name in others:
                yield Step(f"delete context feature {name}", partial(store.delete_context_feature, name=name))
            others = []
        now = [name for name in self._features if name in wanted or name in others]
        now += [name for name in wanted if name not in self._features]
        order = [*wanted, *others]
        if now != order:
            text = f"put the context features in the order {', '.join(order)}"
            yield Step(text, partial(store.order_context_features, names=order))

    def _held_as(self, setting: _Setting) -> StoredSetting | None:
        """The setting that the database has under the name of one, or else under an alias of it."""
        names = (setting.name, *setting.aliases)
        held = {name: found for name in names if (found := self._held.get(name))}
        if not self._exact:
            if len(held) > 1:
                raise DocumentError(
                    f"{' and '.join(held)} are one setting in the document, and several in the database"
                )
            for other in self._held.values():
                if (shared := set(names) & set(other.aliases)) and other.declaration.name not in names:
                    raise DocumentError(f"{min(shared)} is an alias of {other.declaration.name} in the database")
        return next(iter(held.values()), None)

    def _settings_to_delete(self, kept: set[int]) -> Iterator[Step]:
        for name, held in self._held.items():
            if held.id not in kept:
                text = f"delete setting {name} and its {len(self._rules.get(held.id, []))} rules"
                yield Step(text, partial(store.delete_setting, held=held))

    def _aliases_to_delete(self, pairs: Iterable[tuple[_Setting, StoredSetting | None]]) -> Iterator[Step]:
        """Before any other setting may get them."""
        for setting, held in pairs:
            if held is None:
                continue
            for alias in sorted(set(held.aliases) - set(setting.aliases)):
                name = held.declaration.name
                yield Step(f"delete alias {alias} of setting {name}", partial(_delete_alias, name=name, alias=alias))

    def _setting(self, setting: _Setting, held: StoredSetting | None, rules: Sequence[StoredRule]) -> Iterator[Step]:
        declaration = replace(setting.declaration(), configurable_features=self._in_order(setting))
        if held is None:
            yield Step(f"add setting {setting.name}", partial(store.add_setting, declaration=declaration))
        elif differing := _differing(held.declaration, declaration):
            self._check_others(setting, declaration, rules)
            text = f"change setting {held.declaration.name}: {', '.join(differing)}"
            yield Step(text, partial(store.update_setting, held=held, declaration=declaration))
        known = set() if held is None else {held.declaration.name, *held.aliases}
        for alias in sorted(set(setting.aliases) - known):
            text = f"add alias {alias} of setting {setting.name}"
            yield Step(text, partial(_add_alias, name=setting.name, alias=alias))

    def _in_order(self, setting: _Setting) -> tuple[str, ...]:
        return tuple(name for name in self._document.context_features if name in setting.configurable_features)

    def _check_others(self, setting: _Setting, declaration: Declaration, rules: Iterable[StoredRule]) -> None:
        """The rules that stay, and are not in the document, must go together with what the setting becomes."""
        wanted = {_key(rule.feature_values) for rule in setting.rules}
        for rule in () if self._exact else rules:
            if _key(dict(rule.conditions)) in wanted:
                continue
            features = [feature for feature, _ in rule.conditions]
            if not declaration.type.accepts(rule.value) or not set(features) <= set(declaration.configurable_features):
                raise DocumentError(
                    f"rule {rule.id} of setting {setting.name} is not in the document, and does not go together with "
                    "the setting that is; delete it first, or import exactly"
                )

    def _rules_to_delete(self, setting: _Setting, rules: Iterable[StoredRule]) -> Iterator[Step]:
        wanted = {_key(rule.feature_values) for rule in setting.rules}
        for rule in rules:
            if self._exact and _key(dict(rule.conditions)) not in wanted:
                text = f"delete rule {rule.id} of setting {setting.name}: {_conditions(dict(rule.conditions))}"
                yield Step(text, partial(_delete_rule, rule=rule))

    def _rules_to_keep(self, setting: _Setting, rules: Iterable[StoredRule]) -> Iterator[Step]:
        held = {_key(dict(rule.conditions)): rule for rule in rules}
        for wanted in setting.rules:
            rule = held.get(_key(wanted.feature_values))
            conditions = _conditions(wanted.feature_values)
            if rule is None:
                text = f"add rule to setting {setting.name}: {conditions} is {_shorten(wanted.value)}"
                if wanted.rule_id is None or wanted.rule_id in self._taken:
                    add = partial(_add_rule, name=setting.name, rule=wanted, rule_id=None)
                    self._unnumbered.append(Step(text, add))
                else:
                    yield Step(text, partial(_add_rule, name=setting.name, rule=wanted, rule_id=wanted.rule_id))
            elif not is_identical([rule.value, rule.metadata], [wanted.value, wanted.metadata]):
                values = f"from {_shorten(rule.value)} to {_shorten(wanted.value)}"
                text = f"change rule {rule.id} of setting {setting.name}: {conditions} {values}"
                yield Step(text, partial(_change_rule, rule=rule, wanted=wanted))


def _add_alias(connection: Connection, name: str, alias: str) -> None:
    store.add_alias(connection, require_setting(connection, name), alias)


def _delete_alias(connection: Connection, name: str, alias: str) -> None:
    store.delete_alias(connection, require_setting(connection, name), alias)


def _add_rule(connection: Connection, name: str, rule: _Rule, rule_id: int | None) -> None:
    held = require_setting(connection, name)
    store.add_rule(connection, held, rule.feature_values, rule.value, rule.metadata, rule_id=rule_id)


def _change_rule(connection: Connection, rule: StoredRule, wanted: _Rule) -> None:
    held = store.setting_of(connection, rule)
    store.change_rule(connection, held, rule, value=wanted.value, metadata=wanted.metadata)


def _delete_rule(connection: Connection, rule: StoredRule) -> None:
    store.delete_rule(connection, store.setting_of(connection, rule), rule)


def _differing(held: Declaration, wanted: Declaration) -> list[str]:
    """The attributes that differ, with what they were and become."""
    pairs = {
        "name": (held.name, wanted.name),
        "type": (str(held.type), str(wanted.type)),
        "default_value": (held.default_value, wanted.default_value),
        "configurable_features": (sorted(held.configurable_features), sorted(wanted.configurable_features)),
        "metadata": (dict(held.metadata), dict(wanted.metadata)),
        "version": (held.version, wanted.version),
    }
    return [f"{name} from {_shorten(a)} to {_shorten(b)}" for name, (a, b) in pairs.items() if not is_identical(a, b)]


def _key(conditions: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(conditions.items())


def _shorten(value: Any) -> str:
    return shorten(value, _MAX_VALUE_LENGTH)


def _conditions(conditions: Mapping[str, str]) -> str:
    return ", ".join(f"{feature}={value}" for feature, value in conditions.items())
