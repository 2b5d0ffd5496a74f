"""Differences between two states of a service, by setting and rule. `diff`, `copy` and `watch` print them."""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final, NamedTuple

from heksher_client._core.refresh.positions import Position
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._json_values import is_equal
from heksher_client._logging import escaped
from heksher_client.admin import RuleRecord, ServiceState, SettingRecord
from heksher_client.cli.json_values import format_value
from heksher_client.cli.output import console, format_conditions

_STYLES: Final = {"added": "green", "removed": "red", "changed": "yellow"}


class Difference(NamedTuple):
    """One difference. The names of the fields are those of the JSON output."""

    setting: str | None
    """The name of the setting; None if the difference does not belong to a setting."""
    what: str
    """`setting`, `rule`, `rule_metadata`, `rule_period`, `rule_in_effect`, `context_features`, or the attribute that
    differs; `name` after a rename."""
    conditions: Mapping[str, str] | None
    """The conditions of the rule."""
    before: Any
    """The former value, or None if the object is new."""
    after: Any
    """The present value, or None if the object was removed."""
    kind: str
    """`added`, `removed` or `changed`."""

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.kind]
        name = "" if self.setting is None else f"{escaped(self.setting)} "
        what = "" if self.what == "setting" else f"{self.what.replace('_', ' ')} "
        conditions = "" if self.conditions is None else f"{format_conditions(self.conditions)}: "
        if self.kind == "changed":
            value = f"{format_value(self.before)} -> {format_value(self.after)}"
        else:
            value = format_value(self.after if self.kind == "added" else self.before)
        return f"{sign} {name}{what}{conditions}{value}"


def print_differences(differences: Iterable[Difference]) -> None:
    """Print a line for each difference, in color on a terminal."""
    out = console()
    for difference in differences:
        out.print(str(difference), style=_STYLES[difference.kind], markup=False, soft_wrap=True)


_ATTRIBUTES = ("type", "default_value", "configurable_features", "version", "metadata", "aliases")


def compare(before: ServiceState, after: ServiceState, *, is_same_service: bool = False) -> Iterator[Difference]:
    """Yield all differences, ordered by the names of the settings.

    Args:
        before: The first state.
        after: The second state.
        is_same_service: The states are of one service, in which a rule keeps its id and its setting, unless another
            database or a restored one takes its place.
    """
    has_same_ids = is_same_service and not _is_other_database(before.position, after.position)
    if before.context_features != after.context_features:
        features = list(before.context_features), list(after.context_features)
        yield Difference(None, "context_features", None, *features, "changed")
    former_names = _former_names(before, after, has_same_ids=has_same_ids)
    unchanged = before.settings.keys() - former_names.values()
    for name in sorted({*before.settings, *after.settings}):
        former = former_names.get(name, name)
        if name in unchanged and (former != name or name not in after.settings):
            yield from _compare_settings(name, before.settings[name], None)
        if former != name:
            yield Difference(name, "name", None, former, name, "changed")
            yield from _compare_settings(name, before.settings[former], after.settings[name])
        elif name in after.settings:
            yield from _compare_settings(name, before.settings.get(name) if name in unchanged else None,
                                         after.settings[name])  # fmt: skip


def _compare_settings(name: str, old: SettingRecord | None, new: SettingRecord | None) -> Iterator[Difference]:
    if old is None or new is None:
        kind = "added" if old is None else "removed"
        yield Difference(name, "setting", None, old and old.data.type, new and new.data.type, kind)
    else:
        yield from _compare_attributes(name, old.data, new.data)
    yield from _compare_rules(name, old, new)


def _is_other_database(first: Position | None, second: Position | None) -> bool:
    """True if the positions say that they are of other databases, or that one was restored in between."""
    if first is None or second is None:
        return False
    return (first.database, first.epoch) != (second.database, second.epoch)


def _former_names(before: ServiceState, after: ServiceState, *, has_same_ids: bool) -> dict[str, str]:
    """Return the former names of renamed settings, by their present names.

    A rename makes the former name an alias. If a rule keeps its ID, rules are a better sign, as aliases can be deleted,
    and names be used again.
    """
    owners = {rule.rule_id: name for name, record in before.settings.items() for rule in record.rules}
    former_names: dict[str, str] = {}
    for name, record in after.settings.items():
        if has_same_ids and (known := [owners[r.rule_id] for r in record.rules if r.rule_id in owners]):
            former_names[name] = known[0]
    taken = set(former_names.values())
    for name, record in after.settings.items():
        gone = [alias for alias in record.data.aliases if alias in before.settings and alias not in after.settings]
        if gone and name not in former_names and name not in before.settings and gone[0] not in taken:
            former_names[name] = gone[0]
    return {name: former for name, former in former_names.items() if name != former}


def _compare_attributes(name: str, old: SettingData, new: SettingData) -> Iterator[Difference]:
    names = {old.name, new.name}
    for attribute in _ATTRIBUTES:
        first, second = _comparable(old, attribute, names), _comparable(new, attribute, names)
        if not is_equal(first, second):
            yield Difference(name, attribute, None, first, second, "changed")


def _comparable(data: SettingData, attribute: str, names: Set[str]) -> Any:
    """Return an attribute in a form that can be compared.

    Args:
        data: The setting.
        attribute: The name of the attribute.
        names: The former and the present name of the setting. A rename is reported as such, and not as a new alias.
    """
    value = getattr(data, attribute)
    match attribute:
        case "configurable_features":
            return sorted(value)
        case "aliases":
            return sorted(set(value) - names)
    return value


def _compare_rules(name: str, old: SettingRecord | None, new: SettingRecord | None) -> Iterator[Difference]:
    old_rules, new_rules = _by_conditions(old), _by_conditions(new)
    for conditions, rule in old_rules.items():
        if conditions not in new_rules:
            yield Difference(name, "rule", rule.conditions, rule.value, None, "removed")
    for conditions, rule in new_rules.items():
        former = old_rules.get(conditions)
        if former is None:
            yield Difference(name, "rule", rule.conditions, None, rule.value, "added")
        else:
            yield from _compare_rule(name, former, rule)


def _compare_rule(name: str, old: RuleRecord, new: RuleRecord) -> Iterator[Difference]:
    pairs = {
        "rule": (old.value, new.value),
        "rule_metadata": (dict(old.metadata), dict(new.metadata)),
        "rule_period": (old.period, new.period),
    }
    if old.period == new.period:
        pairs["rule_in_effect"] = old.in_effect, new.in_effect
    for what, (before, after) in pairs.items():
        if not is_equal(before, after):
            yield Difference(name, what, new.conditions, before, after, "changed")


def _by_conditions(record: SettingRecord | None) -> dict[frozenset[tuple[str, str]], RuleRecord]:
    return {} if record is None else {frozenset(rule.conditions.items()): rule for rule in record.rules}
