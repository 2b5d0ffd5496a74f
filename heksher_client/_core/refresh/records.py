"""Records of a service: the rules, settings and changes that it stores, as administration returns them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heksher_client._core.refresh.positions import Position
from heksher_client._core.refresh.protocol import SettingData


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """A rule as the service stores it."""

    rule_id: int
    """The ID of the rule; 0 in an exported file that does not have it."""
    conditions: Mapping[str, str]
    """The values of context features that the rule requires, in the order of the context features."""
    value: Any
    """A JSON value."""
    metadata: Mapping[str, Any]
    """In JSON values."""
    etag: str | None = None
    """The version of the rule: with it, a change is refused if somebody else has changed the rule since. None in lists,
    and if the service does not have it."""
    starts_at: str | None = None
    """The time at which the rule begins to apply, in ISO 8601 and UTC; None if it has always applied."""
    ends_at: str | None = None
    """The time from which on the rule does not apply any more, in ISO 8601 and UTC; None if there is none."""
    in_effect: bool = True
    """True if the rule applies at present, so that programs have it."""
    changed_at: str | None = None
    """The time of the last change of the rule, in ISO 8601 and UTC. Only in the results of `rules`."""
    changed_by: str | None = None
    """The name of the token that made it; None without access control. Only in the results of `rules`."""

    @property
    def period(self) -> dict[str, str]:
        """The limits of the time in which the rule applies: `starts_at` and `ends_at`, if it has them."""
        limits = {"starts_at": self.starts_at, "ends_at": self.ends_at}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class RulePage:
    """A page of the rules of a setting."""

    rules: tuple[RuleRecord, ...]
    """Without their ETags."""
    total: int
    """The number of rules on all pages."""


@dataclass(frozen=True, slots=True)
class FoundRule:
    """A rule that a search has found."""

    rule_id: int
    conditions: Mapping[str, str]
    """The values of context features that the rule requires, in the order of the context features."""
    value: Any
    """A JSON value."""
    metadata: Mapping[str, Any]
    """In JSON values."""
    matches: tuple[str, ...]
    """The parts that contain the text: `conditions`, `value`, `metadata`."""


@dataclass(frozen=True, slots=True)
class FoundSetting:
    """A setting that a search has found, itself or by its rules."""

    name: str
    matches: tuple[str, ...]
    """The parts that contain the text: `name`, `alias`, `metadata`, `default_value`."""
    rules: tuple[FoundRule, ...]
    """The first rules that contain the text."""
    rule_count: int
    """The number of all rules that contain the text."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of the settings that a search has found."""

    settings: tuple[FoundSetting, ...]
    """First those whose names contain the text."""
    total: int
    """The number of settings on all pages."""


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """A setting as the service stores it, with its rules."""

    data: SettingData
    rules: tuple[RuleRecord, ...]

    def with_rules(self, rules: Iterable[RuleRecord]) -> "SettingRecord":
        """Return the same setting with further rules, or with other records of those that it has, sorted by ID."""
        by_id = {rule.rule_id: rule for rule in (*self.rules, *rules)}
        return SettingRecord(self.data, tuple(by_id[rule_id] for rule_id in sorted(by_id)))

    def find_rule(self, conditions: Mapping[str, str]) -> RuleRecord | None:
        """Return the rule with exactly these conditions, or None."""
        return next((rule for rule in self.rules if dict(rule.conditions) == dict(conditions)), None)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Everything that a service stores. It is fetched by several requests, so it may mix two moments."""

    context_features: tuple[str, ...]
    """In the order of the service."""
    settings: Mapping[str, SettingRecord]
    """By name."""
    position: Position | None = None
    """The oldest position among the responses, to follow the changes after it; None if a response does not say it."""

    def document(self) -> dict[str, Any]:
        """Return all of it as a document of JSON values, as `heksher-client service export` writes it."""
        return {
            "heksher": 1,
            "context_features": list(self.context_features),
            "settings": [_setting_document(self.settings[name]) for name in sorted(self.settings)],
        }


def _setting_document(record: SettingRecord) -> dict[str, Any]:
    data = record.data
    rules = [
        {
            "rule_id": rule.rule_id,
            "feature_values": dict(rule.conditions),
            "value": rule.value,
            "metadata": dict(rule.metadata),
            "starts_at": rule.starts_at,
            "ends_at": rule.ends_at,
        }
        for rule in record.rules
    ]
    return {
        "name": data.name,
        "type": data.type,
        "default_value": data.default_value,
        "configurable_features": list(data.configurable_features),
        "metadata": dict(data.metadata),
        "version": data.version,
        "aliases": list(data.aliases),
        "rules": rules,
    }


@dataclass(frozen=True, slots=True)
class ResolvedValue:
    """The value of a setting in a context, and the rule that decides it."""

    value: Any
    """A JSON value."""
    rule_id: int | None = None
    """None if it is the default value."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """The conditions of the rule, in the order of the context features."""


@dataclass(frozen=True, slots=True)
class ComparedValues:
    """The values of a setting in two contexts."""

    setting: str
    """The name of the setting."""
    conditions: Mapping[str, str]
    """Values of other context features that both contexts have in addition, because a rule requires them."""
    first: ResolvedValue
    second: ResolvedValue
    is_different: bool
    """True if the values differ."""


@dataclass(frozen=True, slots=True)
class ImportedChange:
    """One change of an import."""

    action: str
    """The kind of change, as in the log of changes: `rule added`."""
    setting: str | None
    """The name of the affected setting; None if the change affects none, or all of them."""
    text: str
    """A description for people."""


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The changes that an import has made, or would make."""

    changes: tuple[ImportedChange, ...]
    revision: int
    """The revision of the service after the changes; after a dry run, the revision that it is for."""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One entry of the service's log of changes."""

    revision: int
    """The number of the change."""
    at: str
    """The time of the change, in ISO 8601 and UTC."""
    actor: str | None
    """The name of the token that made the change; None without access control."""
    action: str
    """A description, for example `rule changed`."""
    settings: tuple[str, ...]
    """The affected settings, with the names that they had before and after the change."""
    former: Any
    """The state before the change, in JSON values.

    None for a new object. Only the role `admin` can read the states of tokens: for others, `former` and `new` are None.
    """
    new: Any
    """The state after the change, in JSON values."""
    group: int | None = None
    """The first revision of the changes that were made together with this one, such as those of an import.

    None if it was made alone, or the service does not say.
    """


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An access token of the service, without its text, which only its owner has."""

    name: str
    role: str
    """`read`, `declare` or `admin`."""
    created_at: str
    """In ISO 8601 and UTC."""
    expires_at: str | None
    """In ISO 8601 and UTC; None if the token does not expire."""
    expired: bool
    """Whether the token had expired when it was listed."""
