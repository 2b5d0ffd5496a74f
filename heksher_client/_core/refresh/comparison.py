"""Comparison of two contexts by the client, for services that cannot do it, and the settings for copies of rules."""

from collections.abc import Iterable, Mapping

from heksher_client._core.refresh.records import ComparedValues, ResolvedValue, ServiceState, SettingRecord
from heksher_client._core.settings.context_comparison import (
    ComparedRule,
    ComparedSetting,
    ContextValue,
    compare_contexts,
)


def compared_settings(records: Iterable[SettingRecord]) -> list[ComparedSetting]:
    """Return settings with their rules in the form that can be compared."""
    return [
        ComparedSetting(
            record.data.name,
            record.data.default_value,
            record.data.configurable_features,
            [
                ComparedRule(rule.rule_id, rule.conditions, rule.value, rule.period, rule.in_effect)
                for rule in record.rules
            ],
        )
        for record in records
    ]


def compare_state(
    state: ServiceState, first: Mapping[str, str], second: Mapping[str, str], *, include_equal: bool
) -> tuple[ComparedValues, ...]:
    """Return the values of all settings in two contexts, sorted by setting: those that differ, or all."""
    settings = compared_settings(state.settings[name] for name in sorted(state.settings))
    pairs = (
        ComparedValues(pair.setting, pair.further, _resolved(pair.first), _resolved(pair.second), pair.is_different)
        for pair in compare_contexts(settings, state.context_features, first, second)
    )
    return tuple(pair for pair in pairs if include_equal or pair.is_different)


def _resolved(value: ContextValue) -> ResolvedValue:
    if value.rule is None:
        return ResolvedValue(value.value)
    return ResolvedValue(value.value, value.rule.rule_id, value.rule.conditions)
