"""From the service's answer for one setting to its rule set: what can be used is, and what cannot is logged."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from heksher_client._core import protocol
from heksher_client._core.contexts import Tracking, order_with
from heksher_client._core.rules import Reason, Rule, RuleSet
from heksher_client._core.settings import Setting

logger = logging.getLogger("heksher_client")

_LOGGED_AT_MOST: Final = 20
"""Rules listed in one log record."""


def to_rule_set(
    setting: Setting[Any], default: Any, rules: Iterable[Any], *, tracking: Tracking, order: Sequence[str]
) -> RuleSet[Any]:
    """Convert and index what the service holds for a setting.

    Args:
        setting: Its type, `on_coerce` and validators convert and judge the values.
        default: The service's default value, as JSON.
        rules: The service's rules, as JSON.
        tracking: Rules that it does not admit are left out.
        order: The context features in the service's order.
    """
    value, reason = to_default(setting, default)
    order = order_with(order, setting.configurable_features)
    rule_set, duplicates = RuleSet.index(_to_rules(setting, rules, tracking), order, value, reason)
    if duplicates:
        logger.warning(
            "setting %s: %d rules have the same conditions as another one; of each two the higher id is used",
            setting.name,
            len(duplicates),
            extra={"setting": setting.name, "unused_rules": [rule.rule_id for rule in duplicates[:_LOGGED_AT_MOST]]},
        )
    return rule_set


def to_default(setting: Setting[Any], raw: Any) -> tuple[Any, Reason]:
    """Convert the service's default value; where it cannot be used, the setting keeps the default that it has."""
    try:
        conversion = setting._convert(raw, None)
    except Exception as error:  # Whatever a program's validator may raise, it costs this value alone.
        logger.warning(
            "setting %s: the service's default value was rejected: %s",
            setting.name,
            error,
            extra={"setting": setting.name, "default_value": raw},
        )
        return setting._view.rule_set.default, setting._view.rule_set.default_reason
    if conversion.coercions:
        logger.warning(
            "setting %s: the service's default value was coerced: %s",
            setting.name,
            "; ".join(conversion.coercions),
            extra={"setting": setting.name, "default_value": raw, "coercions": list(conversion.coercions)},
        )
    return conversion.value, Reason.SERVER_DEFAULT


def _to_rules(setting: Setting[Any], raw_rules: Iterable[Any], tracking: Tracking) -> list[Rule[Any]]:
    """The rules that can be used. The others are logged, all of a setting's in one record."""
    rules: list[Rule[Any]] = []
    rejected: list[tuple[Any, str]] = []
    coerced: list[tuple[int, tuple[str, ...]]] = []
    for raw in raw_rules:
        try:
            parsed = protocol.parse_rule(raw)
            unknown = parsed.conditions.keys() - setting.configurable_features
            if unknown:
                raise ValueError(f"it has conditions on {sorted(unknown)}, which the declaration does not name")
            if not tracking.admits(parsed.conditions):
                continue
            conversion = setting._convert(parsed.value, Rule(parsed.conditions, parsed.value, parsed.rule_id))
        except Exception as error:  # As above: a validator may raise anything.
            rejected.append((raw.get("rule_id") if isinstance(raw, dict) else None, str(error)))
            continue
        if conversion.coercions:
            coerced.append((parsed.rule_id, conversion.coercions))
        rules.append(Rule(parsed.conditions, conversion.value, parsed.rule_id))
    _log(logging.WARNING, setting, "rejected", rejected)
    _log(logging.INFO, setting, "coerced", coerced)
    return rules


def _log(level: int, setting: Setting[Any], what: str, rules: Sequence[tuple[Any, Any]]) -> None:
    if rules:
        logger.log(
            level,
            "setting %s: %d rules were %s, the first of them: %s",
            setting.name,
            len(rules),
            what,
            rules[0],
            extra={"setting": setting.name, f"{what}_rules": list(rules[:_LOGGED_AT_MOST])},
        )
