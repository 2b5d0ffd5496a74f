"""From the service's response for one setting to its rule set: what can be used is used, what cannot is logged.

All of it is done in columns, and if possible on a whole column at once. A column with a value that has to be looked at
is processed value by value. Other work runs in between, as a setting may have 100,000 rules.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Flow
from heksher_client._core.refresh.protocol import QueriedSetting
from heksher_client._core.refresh.status import RejectedRule
from heksher_client._core.refresh.work_budget import BYTES_PER_RULE, WorkBudget
from heksher_client._core.settings.context import Tracking, order_with
from heksher_client._core.settings.cooperative import Work
from heksher_client._core.settings.entry import Entry
from heksher_client._core.settings.rule_index import RuleColumns
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason
from heksher_client._logging import logger, text_of

_BATCH_SIZE: Final = 1000
"""Rules grouped in one step."""
_RULES_PER_SETTING: Final = 20
"""Decoding a setting counts as processing so many rules, in addition to its own: there may be thousands without any."""
_MAX_LISTED: Final = 20
"""Rules listed in one log record, or in the status of one setting."""


class DecodedRules(msgspec.Struct, frozen=True):
    """The rules that the service sent for one setting."""

    rule_set: RuleSet[Any]
    rejected: int = 0
    """The number of rules that cannot be used."""
    first_rejected: tuple[RejectedRule, ...] = ()


class AppliedUpdate(msgspec.Struct, frozen=True):
    """The rules of one setting, and the conditions under which they were decoded."""

    decoded: DecodedRules
    validators: tuple[Any, ...]
    tracking: Tracking
    order: tuple[str, ...]
    digest: bytes
    """Of the response: the same digest means the same rules."""


class PreparedUpdate(NamedTuple):
    """An update that is ready to be applied to a setting."""

    entry: Entry[Any]
    applied: AppliedUpdate
    content: msgspec.Raw | None
    """The response that it was decoded from, if that is to be stored."""


class ResponseDecoder:
    """Decodes the responses of one refresh."""

    def __init__(
        self, tracking: Tracking, order: tuple[str, ...], budget: WorkBudget, *, keeps_content: bool = False
    ) -> None:
        """Create a decoder.

        Args:
            tracking: Rules that it does not admit are dropped.
            order: The context features in the service's order.
            budget: Limits how long decoding runs before others do.
            keeps_content: Whether updates refer to the responses that they were decoded from.
        """
        self.tracking, self.order = tracking, order
        self._budget, self._keeps_content = budget, keeps_content

    def digest(self, content: msgspec.Raw) -> Flow[bytes]:
        """Return the digest of a response."""
        if work := len(content) // BYTES_PER_RULE:
            yield from self._budget.spend(work)
        return sha256(content).digest()

    def decode(
        self, name: str, content: msgspec.Raw, digest: bytes, entries: Iterable[Entry[Any]]
    ) -> Flow[list[PreparedUpdate]]:
        """Decode the response for one name, for all settings that have it.

        Args:
            name: The name.
            content: The response.
            digest: Its digest; empty if it will not be compared with a later response.
            entries: The settings.

        Raises:
            UnexpectedResponseError: It has no default value or no list of rules.
        """
        prepared = []
        # Parsing it takes as long as hashing it, which may be done already.
        yield from self._budget.spend(_RULES_PER_SETTING + len(content) // BYTES_PER_RULE)
        queried = protocol.parse_queried_setting(name, content)
        spent = len(queried.rules)
        for entry in entries:
            validators = entry.validators
            steps = decode_rules(entry, queried, tracking=self.tracking, order=self.order)
            decoded = yield from self._budget.cooperatively(steps, spent)
            spent = 0  # The response was parsed once for all of them.
            applied = AppliedUpdate(decoded, validators, self.tracking, self.order, digest)
            prepared.append(PreparedUpdate(entry, applied, content if self._keeps_content else None))
        return prepared


def decode_rules(
    entry: Entry[Any], queried: QueriedSetting, *, tracking: Tracking, order: Sequence[str]
) -> Work[DecodedRules]:
    """Convert, validate and index the rules of a setting.

    Args:
        entry: The setting, whose type, `on_coerce` and validators convert and check the values.
        queried: What the service sent.
        tracking: Rules that it does not admit are dropped.
        order: The context features in the service's order.
    """
    default, reason = decode_default(entry, queried.default_value)
    report = _Report()
    groups = []
    for group in (yield from _group(queried, report)):
        admitted = _admit(group, entry, tracking, report)
        values = entry.convert_many(admitted.values)
        if values is None:
            converted = yield from _convert_one_by_one(admitted, entry, report)
        else:
            converted = replace(admitted, values=values)
            yield len(values)
        if converted.values:
            groups.append(converted)
    report.log(entry)
    order = order_with(order, entry.declaration.configurable_features)
    rule_set, duplicates = yield from RuleSet.build_in_steps(groups, order, default, reason)
    if duplicates:
        logger.warning(
            "setting %s: %d rules have the same conditions as another rule; the one with the highest id is used",
            entry.name,
            len(duplicates),
            extra={"setting": entry.name, "unused_rules": [rule.rule_id for rule in duplicates[:_MAX_LISTED]]},
        )
        report.rejected += [RejectedRule(rule.rule_id, "another rule has the same conditions") for rule in duplicates]
    return DecodedRules(rule_set, len(report.rejected), tuple(report.rejected[:_MAX_LISTED]))


def decode_default(entry: Entry[Any], raw: Any, *, is_logged: bool = True) -> tuple[Any, Reason]:
    """Convert the service's default value. If it cannot be used, the setting keeps the default that it has.

    Args:
        entry: The setting.
        raw: The value in the response.
        is_logged: Whether to log that it cannot be used, or not as a whole.
    """
    try:
        conversion = entry.convert(raw, lambda: None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Code of the program may raise anything: this value is rejected.
        if is_logged:
            logger.warning(
                "setting %s: the service's default value was rejected: %s",
                entry.name,
                text_of(error) or type(error).__name__,
                extra={"setting": entry.name, "default_value": raw},
            )
        return entry.published.rule_set.default, entry.published.rule_set.default_reason
    if conversion.coercions and is_logged:
        logger.warning(
            "setting %s: the service's default value was coerced: %s",
            entry.name,
            "; ".join(conversion.coercions),
            extra={"setting": entry.name, "default_value": raw, "coercions": list(conversion.coercions)},
        )
    return conversion.value, Reason.SERVER_DEFAULT


class _Report(msgspec.Struct):
    """The rules of a setting that were rejected or coerced, for one log record of each kind."""

    rejected: list[RejectedRule] = []
    coerced: list[tuple[Any, tuple[str, ...]]] = []
    """The ids of rules, and the parts of their values that were dropped."""

    def log(self, entry: Entry[Any]) -> None:
        self._log(logging.WARNING, entry, "rejected", self.rejected)
        self._log(logging.INFO, entry, "coerced", self.coerced)

    def _log(self, level: int, entry: Entry[Any], what: str, rules: Sequence[tuple[Any, Any]]) -> None:
        if rules:
            logger.log(
                level,
                "setting %s: %d rules were %s, the first of them: %s",
                entry.name,
                len(rules),
                what,
                tuple(rules[0]),
                extra={"setting": entry.name, f"{what}_rules": [tuple(rule) for rule in rules[:_MAX_LISTED]]},
            )


def _group(queried: QueriedSetting, report: _Report) -> Work[list[RuleColumns[Any]]]:
    """Group the rules by the features of their conditions."""
    by_features: dict[Any, tuple[list[Any], list[Any], list[Any]]] = {}
    for start in range(0, max(len(queried.rules), len(queried.undecoded)), _BATCH_SIZE):
        rules = queried.rules[start : start + _BATCH_SIZE]
        if queried.undecoded:
            rules, invalid = protocol.decode_rules(queried.undecoded[start : start + _BATCH_SIZE])
            report.rejected += [RejectedRule(*rule) for rule in invalid]
        for rule in rules:
            conditions: Any = rule.context_features
            # The hottest lines of a refresh: a single condition, the most common case, is kept without a tuple.
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
        conditions = {features: keys} if isinstance(features, str) else _columns(features, keys)
        if conditions is None:
            report.rejected += [
                RejectedRule(rule_id, "it has two conditions on one context feature") for rule_id in rule_ids
            ]
        else:
            groups.append(RuleColumns(conditions, values, rule_ids))
        yield len(rule_ids)
    return groups


def _columns(features: tuple[str, ...], keys: list[tuple[str, ...]]) -> dict[str, list[str]] | None:
    """Return the values by feature; None if a feature occurs twice."""
    conditions = {feature: [key[i] for key in keys] for i, feature in enumerate(features)}
    return conditions if len(conditions) == len(features) else None


def _admit(group: RuleColumns[Any], entry: Entry[Any], tracking: Tracking, report: _Report) -> RuleColumns[Any]:
    """Return the rules that can match a context of the setting."""
    known = entry.declaration.configurable_features
    if unknown := [feature for feature in group.conditions if feature not in known]:
        problem = f"it has conditions on {sorted(unknown)}, which the declaration does not name"
        report.rejected += [RejectedRule(rule_id, problem) for rule_id in group.rule_ids]
        return group.select([])
    if tracking.admits_all(group.conditions):
        return group
    return group.select([row for row in range(len(group)) if tracking.admits(group.conditions_of(row))])


def _convert_one_by_one(group: RuleColumns[Any], entry: Entry[Any], report: _Report) -> Work[RuleColumns[Any]]:
    """Return the rules with values that can be used."""
    rows, values = [], []
    for row, raw in enumerate(group.values):
        try:
            conversion = entry.convert(raw, partial(group.rule, row))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # As above.
            report.rejected.append(RejectedRule(group.rule_ids[row], text_of(error) or type(error).__name__))
            continue
        finally:
            if row % 1000 == 999:
                yield 1000
        if conversion.coercions:
            report.coerced.append((group.rule_ids[row], conversion.coercions))
        values.append(conversion.value)
        rows.append(row)
    return replace(group.select(rows), values=values)
