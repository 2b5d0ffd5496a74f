"""From the service's answer for one setting to its rule set: what can be used is, and what cannot is logged.

All of it is done in columns, and where possible to a whole column at once. A column that has anything in it to be
judged is gone through value by value.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from heksher_client._core.refresh.protocol import QueriedSetting
from heksher_client._core.refresh.status import RejectedRule
from heksher_client._core.settings.context import Tracking, order_with
from heksher_client._core.settings.cooperative import Work
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.rule_index import RuleColumns
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger

_LISTED_AT_MOST: Final = 20
"""Rules listed in one log record, or in the status of one setting."""


@dataclass(frozen=True, slots=True)
class DecodedRules:
    """What was made of the service's answer for one setting."""

    rule_set: RuleSet[Any]
    rejected: int = 0
    """How many rules could not be used."""
    first_rejected: tuple[RejectedRule, ...] = ()


def to_rule_set(
    setting: Entry[Any], queried: QueriedSetting, *, tracking: Tracking, order: Sequence[str]
) -> Work[DecodedRules]:
    """Convert and index what the service holds for a setting.

    Args:
        setting: Its type, `on_coerce` and validators convert and judge the values.
        queried: What the service holds.
        tracking: Rules that it does not admit are left out.
        order: The context features in the service's order.
    """
    default, reason = to_default(setting, queried.default_value)
    findings = _Findings()
    groups = []
    for group in (yield from _grouped(queried, findings)):
        admitted = _admitted(group, setting, tracking, findings)
        values = setting.convert_many(admitted.values) if admitted else None
        if values is None:
            converted = yield from _converted_one_by_one(admitted, setting, findings)
        else:
            converted = replace(admitted, values=values)
            yield len(converted)
        if converted:
            groups.append(converted)
    findings.log(setting)
    order = order_with(order, setting.declaration.configurable_features)
    rule_set, outdone = yield from RuleSet.build_in_steps(groups, order, default, reason)
    if outdone:
        logger.warning(
            "setting %s: %d rules have the same conditions as another one; of each two the higher id is used",
            setting.name,
            len(outdone),
            extra={"setting": setting.name, "unused_rules": [rule.rule_id for rule in outdone[:_LISTED_AT_MOST]]},
        )
        findings.rejected += [RejectedRule(rule.rule_id, "another rule has the same conditions") for rule in outdone]
    return DecodedRules(rule_set, len(findings.rejected), tuple(findings.rejected[:_LISTED_AT_MOST]))


def to_default(setting: Entry[Any], raw: Any) -> tuple[Any, Reason]:
    """Convert the service's default value; where it cannot be used, the setting keeps the default that it has."""
    try:
        conversion = setting.convert(raw, lambda: None)
    except Exception as error:  # Whatever a program's validator may raise, it costs this value alone.
        logger.warning(
            "setting %s: the service's default value was rejected: %s",
            setting.name,
            error,
            extra={"setting": setting.name, "default_value": raw},
        )
        rule_set = setting.rule_set
        return rule_set.default, rule_set.default_reason
    if conversion.coercions:
        logger.warning(
            "setting %s: the service's default value was coerced: %s",
            setting.name,
            "; ".join(conversion.coercions),
            extra={"setting": setting.name, "default_value": raw, "coercions": list(conversion.coercions)},
        )
    return conversion.value, Reason.SERVER_DEFAULT


@dataclass(slots=True)
class _Findings:
    """What somebody should know of the rules of a setting, in one log record of each kind."""

    rejected: list[RejectedRule] = field(default_factory=list)
    coerced: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)
    """The ids of rules of whose value a part is not used, and which."""

    def log(self, setting: Entry[Any]) -> None:
        self._log(logging.WARNING, setting, "rejected", self.rejected)
        self._log(logging.INFO, setting, "coerced", self.coerced)

    def _log(self, level: int, setting: Entry[Any], what: str, rules: Sequence[tuple[Any, Any]]) -> None:
        if rules:
            logger.log(
                level,
                "setting %s: %d rules were %s, the first of them: %s",
                setting.name,
                len(rules),
                what,
                tuple(rules[0]),
                extra={"setting": setting.name, f"{what}_rules": [tuple(rule) for rule in rules[:_LISTED_AT_MOST]]},
            )


def _grouped(queried: QueriedSetting, findings: _Findings) -> Work[list[RuleColumns[Any]]]:
    """The rules by the features of their conditions."""
    by_features: dict[Any, tuple[list[Any], list[Any], list[Any]]] = {}
    for rules, faults in queried.batches():
        findings.rejected += [RejectedRule(*fault) for fault in faults]
        for rule in rules:
            conditions: Any = rule.context_features
            # The busiest lines of a refresh: a lone condition, the commonest case, is kept without a tuple around it.
            if len(conditions) == 1:
                ((features, key),) = conditions
            else:
                features, key = zip(*conditions) if conditions else ((), ())  # noqa: B905 - they are pairs
            try:
                keys, values, rule_ids = by_features[features]
            except KeyError:
                keys, values, rule_ids = by_features[features] = [], [], []
            keys.append(key)
            values.append(rule.value)
            rule_ids.append(rule.rule_id)
        yield len(rules)
    groups = []
    for features in list(by_features):
        keys, values, rule_ids = by_features.pop(features)
        demanded = {features: keys} if isinstance(features, str) else _columns(features, keys)
        if demanded is None:
            findings.rejected += [
                RejectedRule(rule_id, "it has two conditions on one context feature") for rule_id in rule_ids
            ]
        else:
            groups.append(RuleColumns(demanded, values, rule_ids))
        yield len(rule_ids)
    return groups


def _columns(features: tuple[str, ...], keys: list[tuple[str, ...]]) -> dict[str, list[str]] | None:
    """The values by feature; None if a feature is there twice."""
    demanded = {feature: [key[i] for key in keys] for i, feature in enumerate(features)}
    return demanded if len(demanded) == len(features) else None


def _admitted(
    group: RuleColumns[Any], setting: Entry[Any], tracking: Tracking, findings: _Findings
) -> RuleColumns[Any]:
    """Those of the rules that can ever matter to the setting."""
    if unknown := sorted(group.conditions.keys() - setting.declaration.configurable_features):
        problem = f"it has conditions on {unknown}, which the declaration does not name"
        findings.rejected += [RejectedRule(rule_id, problem) for rule_id in group.rule_ids]
        return group.select([])
    if tracking.admits_all(group.conditions):
        return group
    return group.select([row for row in range(len(group)) if tracking.admits(group.conditions_of(row))])


def _converted_one_by_one(group: RuleColumns[Any], setting: Entry[Any], findings: _Findings) -> Work[RuleColumns[Any]]:
    """Those of the rules whose values can be used."""
    rows, values = [], []
    for row, raw in enumerate(group.values):
        try:
            conversion = setting.convert(raw, partial(group.rule, row))
        except Exception as error:  # As above: a validator may raise anything.
            findings.rejected.append(RejectedRule(group.rule_ids[row], str(error)))
            continue
        finally:
            if row % 1000 == 999:
                yield 1000
        if conversion.coercions:
            findings.coerced.append((group.rule_ids[row], conversion.coercions))
        values.append(conversion.value)
        rows.append(row)
    return replace(group.select(rows), values=values)
