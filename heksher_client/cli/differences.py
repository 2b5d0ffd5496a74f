"""How two states of a service differ: setting by setting, and rule by rule."""

from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

from heksher_client._core.refresh.protocol import SettingData
from heksher_client._drivers.admin import RuleRecord, ServiceState, SettingRecord
from heksher_client._logging import escaped
from heksher_client.cli.output import conditions_in_words, shown


class Difference(NamedTuple):
    """One thing that differs."""

    setting: str | None
    """Its name; None for what is no setting's."""
    what: str
    """`setting`, `rule`, `context_features`, or the attribute of the setting that differs: `name` if it was renamed."""
    conditions: Mapping[str, str] | None
    """Of a rule."""
    before: Any
    """The value, or None where there was nothing."""
    after: Any
    """The value, or None where there is nothing."""
    kind: str
    """`added`, `removed` or `changed`."""

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.kind]
        name = "" if self.setting is None else f"{escaped(self.setting)} "
        what = "" if self.what == "setting" else f"{self.what.replace('_', ' ')} "
        where = "" if self.conditions is None else f"{conditions_in_words(self.conditions)}: "
        if self.kind == "changed":
            return f"{sign} {name}{what}{where}{shown(self.before)} -> {shown(self.after)}"
        return f"{sign} {name}{what}{where}{shown(self.after if self.kind == 'added' else self.before)}"


_ATTRIBUTES = ("type", "default_value", "configurable_features", "version", "metadata", "aliases")


def differences(before: ServiceState, after: ServiceState) -> Iterator[Difference]:
    """All that differs, in the order of names."""
    if before.context_features != after.context_features:
        features = list(before.context_features), list(after.context_features)
        yield Difference(None, "context_features", None, *features, "changed")
    former_names = _former_names(before, after)
    for name in sorted({*before.settings, *after.settings} - set(former_names.values())):
        was, now = before.settings.get(former_names.get(name, name)), after.settings.get(name)
        if name in former_names:
            yield Difference(name, "name", None, former_names[name], name, "changed")
        if was is None or now is None:
            kind = "added" if was is None else "removed"
            yield Difference(name, "setting", None, was and was.data.type, now and now.data.type, kind)
        yield from _of_attributes(name, was, now)
        yield from _of_rules(name, was, now)


def _former_names(before: ServiceState, after: ServiceState) -> dict[str, str]:
    """What the settings were called before that are called otherwise now, by their names: those are aliases now."""
    return {
        name: alias
        for name, held in after.settings.items()
        for alias in held.data.aliases
        if name not in before.settings and alias in before.settings and alias not in after.settings
    }


def _of_attributes(name: str, was: SettingRecord | None, now: SettingRecord | None) -> Iterator[Difference]:
    if was is None or now is None:
        return
    names = {was.data.name, now.data.name}
    for attribute in _ATTRIBUTES:
        one, other = _attribute(was.data, attribute, names), _attribute(now.data, attribute, names)
        if not _same(one, other):
            yield Difference(name, attribute, None, one, other, "changed")


def _attribute(data: SettingData, attribute: str, names: Set[str]) -> Any:
    """An attribute of a setting that has these names, so that it can be compared."""
    value = getattr(data, attribute)
    match attribute:
        case "configurable_features":
            return sorted(value)
        case "aliases":  # which a rename changes as well
            return sorted(set(value) - names)
    return value


def _of_rules(name: str, was: SettingRecord | None, now: SettingRecord | None) -> Iterator[Difference]:
    former, latter = _by_conditions(was), _by_conditions(now)
    for conditions, rule in former.items():
        if conditions not in latter:
            yield Difference(name, "rule", rule.conditions, rule.value, None, "removed")
    for conditions, rule in latter.items():
        other = former.get(conditions)
        if other is None:
            yield Difference(name, "rule", rule.conditions, None, rule.value, "added")
            continue
        if not _same(other.value, rule.value):
            yield Difference(name, "rule", rule.conditions, other.value, rule.value, "changed")
        if not _same(dict(other.metadata), dict(rule.metadata)):
            metadata = dict(other.metadata), dict(rule.metadata)
            yield Difference(name, "rule_metadata", rule.conditions, *metadata, "changed")


def _by_conditions(held: SettingRecord | None) -> dict[frozenset[tuple[str, str]], RuleRecord]:
    return {} if held is None else {frozenset(rule.conditions.items()): rule for rule in held.rules}


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: `true` is not `1`, and `1` is `1.0`."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
