"""Administration of rules: the flows that list, search and change them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.admin_requests import (
    API,
    SettingOrName,
    checked_conditions,
    checked_type,
    conditions_query,
    json_request,
    json_value,
    metadata_body,
    metadata_key,
    page_end,
    setting_name,
    setting_path,
)
from heksher_client._core.refresh.admin_responses import (
    RuleListing,
    parse_created,
    parse_query,
    parse_rule,
    parse_rules,
    parse_search,
)
from heksher_client._core.refresh.effects import Flow, Request
from heksher_client._core.refresh.positions import Position, oldest_position
from heksher_client._core.refresh.records import FoundSetting, RulePage, RuleRecord, SearchResult
from heksher_client._core.refresh.setting_administration import SettingAdministration
from heksher_client._core.settings.context import check_known

MAX_LISTINGS: Final = 5
"""Attempts to list all settings and query their rules, without a change in between."""
_RULES_PER_REQUEST: Final = 1000
"""The most that the service allows."""
_SETTINGS_PER_SEARCH: Final = 100
"""The most that the service allows."""

TEMPORARY_RULES: Final = "rules?only_temporary=true"
_NO_TEMPORARY_RULES: Final = "this service does not have temporary rules"
_NO_RULE_LISTS: Final = "the setting does not exist, or this service cannot filter and sort rules"
_NO_RULE_CHANGES: Final = "this service cannot change the conditions and the period of a rule"
_SORTS: Final = ("rule", "priority", "value", "changed")
_LOCAL_SORTS: Final = _SORTS[:2]
"""The order of rules that the client knows as well, for services without lists of rules."""


class RuleAdministration(SettingAdministration):
    """The operations on rules, as flows. They raise the errors of its requests."""

    def rules(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str],
        criteria: Mapping[str, Any] | None = None,
        sort: str = "rule",
    ) -> Flow[tuple[RuleRecord, ...]]:
        page = yield from self.rule_page(setting, conditions, criteria or {}, sort, None, 0)
        return page.rules

    def rule_page(
        self,
        setting: SettingOrName,
        conditions: Mapping[str, str],
        criteria: Mapping[str, Any],
        sort: str,
        limit: int | None,
        offset: int,
    ) -> Flow[RulePage]:
        name, required = setting_name(setting), checked_conditions(conditions)
        query, is_possible = _rules_query(required, criteria, sort)
        problem = "" if sort.removeprefix("-") in _LOCAL_SORTS and not criteria else _NO_RULE_LISTS
        found = None
        if is_possible:
            found = yield from self._read_list(f"{setting_path(name)}/rules?{query}", problem, limit, offset)
        if found is None:
            page = yield from self._select_rules(name, required, sort, limit, offset)
        else:
            page = RulePage(tuple(rule for _, rule in found.rules), found.total)
        if required and not page.total:  # because of a misspelled feature?
            data = yield from self.setting(name)
            if data is not None:
                check_known(required, data.configurable_features, f"setting {name}")
        return page

    def _select_rules(
        self, name: str, required: Mapping[str, str], sort: str, limit: int | None, offset: int
    ) -> Flow[RulePage]:
        """Return a page of the rules of a setting, of which the service has no list."""
        request = protocol.query(protocol.query_target([name], "*", with_metadata=True), None)
        by_name, _ = yield from self._requests.send(request, partial(parse_query, request))
        # The response has them under the present name of the setting, if this is an alias.
        all_rules = (rule for rules in by_name.values() for rule in rules)
        matching = [rule for rule in all_rules if required.items() <= rule.conditions.items()]
        if sort.endswith("priority"):
            order = yield from self.context_features()
            matching.sort(key=partial(_weakness, order[::-1]))
        if sort.startswith("-"):
            matching.reverse()
        return RulePage(tuple(matching[offset : page_end(limit, offset)]), len(matching))

    def temporary_rules(self) -> Flow[dict[str, tuple[RuleRecord, ...]]]:
        found = yield from self._read_list(TEMPORARY_RULES, _NO_TEMPORARY_RULES)
        return by_setting(found)

    def search(self, text: str, limit: int, offset: int) -> Flow[SearchResult]:
        query = quote(checked_type(text, str, "text"), safe="")
        total = end = page_end(limit, offset)
        settings: list[FoundSetting] = []
        # A page may have fewer settings than requested.
        for start in range(offset, end, _SETTINGS_PER_SEARCH):
            size = min(_SETTINGS_PER_SEARCH, end - start)
            request = Request("GET", f"{API}search?q={query}&limit={size}&offset={start}")
            page = yield from self._requests.send(request, partial(parse_search, request))
            settings += page.settings
            total = page.total
            if start + size >= total:
                break
        return SearchResult(tuple(settings), total)

    def rule(self, rule_id: int) -> Flow[RuleRecord | None]:
        request = Request("GET", API + _rule_path(rule_id))
        found = yield from self._requests.send(request, partial(parse_rule, request, rule_id))
        if found is None:
            yield from self._check_service()
        return found

    def find_rule(self, setting: SettingOrName, conditions: Mapping[str, str]) -> Flow[RuleRecord | None]:
        for rule in (yield from self.rules(setting, conditions)):
            if rule.conditions.keys() == conditions.keys():
                return (yield from self.rule(rule.rule_id))
        return None

    def _read_list(
        self, target: str, problem: str = "", limit: int | None = None, offset: int = 0
    ) -> Flow[RuleListing | None]:
        """Return a list of rules, of one moment if possible, with their oldest position.

        Args:
            target: The path and the query of the list.
            problem: The message of the error if the service does not have the list; if empty, None is returned then.
            limit: The maximum number of rules; None for all.
            offset: The number of rules before the first one.
        """
        end = page_end(limit, offset)
        rules: dict[int, tuple[str, RuleRecord]] = {}
        positions: list[Position | None] = []
        total = end
        for _ in range(MAX_LISTINGS):
            rules, positions, start, total = {}, [], offset, end
            while start < min(end, total):
                size = min(_RULES_PER_REQUEST, end - start)
                request = Request("GET", f"{API}{target}&limit={size}&offset={start}")
                page = yield from self._requests.send(request, partial(parse_rules, request, problem))
                if page is None:
                    return None
                rules |= {rule.rule_id: (setting, rule) for setting, rule in page.rules}
                positions.append(page.position)
                total, start = page.total, start + len(page.rules)
                if not page.rules:
                    break
            if len(set(positions)) == 1:  # A rule may be on no page if another one was removed in between.
                break
        return RuleListing(list(rules.values()), total, oldest_position(positions))

    def add_rule(
        self,
        setting: SettingOrName,
        value: Any,
        conditions: Mapping[str, str],
        metadata: Mapping[str, Any],
        period: Mapping[str, str | None] | None = None,
    ) -> Flow[int]:
        required = checked_conditions(conditions)
        if not required:
            raise ValueError("conditions must not be empty: a rule requires a value of at least one context feature")
        body = {"setting": setting_name(setting), "feature_values": required, "value": json_value(setting, value)}
        if (with_metadata := metadata_body(metadata))["metadata"]:
            body |= with_metadata
        if limits := {name: limit for name, limit in (period or {}).items() if limit is not None}:
            body |= limits
            # Others ignore the period, and would apply the rule at once.
            yield from self._has_rule_lists(_NO_TEMPORARY_RULES)
        request = json_request("POST", "rules", body)
        return (yield from self._requests.send_once(request, partial(parse_created, request, required)))

    def set_rule(self, rule_id: int, value: Any, etag: str | None, setting: SettingOrName | None = None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/value", {"value": json_value(setting, value)}, etag)

    def change_rule(
        self, rule_id: int, changes: Mapping[str, Any], etag: str | None, setting: SettingOrName | None = None
    ) -> Flow[None]:
        body, path = _rule_change(changes, setting), _rule_path(rule_id)
        can_be_separate = body.keys() <= {"value", "metadata"}
        is_single = can_be_separate and len(body) == 1
        # Others would change the value, and ignore the rest.
        if not is_single and (yield from self._has_rule_lists("" if can_be_separate else _NO_RULE_CHANGES)):
            yield from self._change("PATCH", path, body, etag)
            return
        for name, content in body.items():
            yield from self._change("PUT", f"{path}/{name}", {name: content}, etag)

    def _has_rule_lists(self, problem: str) -> Flow[bool]:
        """Return True if the service has lists of rules, and so all that belongs to this package.

        Args:
            problem: The message of the error if it does not; empty if there is none.
        """
        request = Request("GET", f"{API}{TEMPORARY_RULES}&limit=1")
        return (yield from self._requests.send(request, partial(parse_rules, request, problem))) is not None

    def set_rule_conditions(self, rule_id: int, conditions: Mapping[str, str], etag: str | None) -> Flow[None]:
        body = {"feature_values": checked_conditions(conditions)}
        return self._change("PUT", f"{_rule_path(rule_id)}/conditions", body, etag)

    def set_rule_period(self, rule_id: int, period: Mapping[str, str | None], etag: str | None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/period", dict(period), etag)

    def remove_rule(self, rule_id: int, etag: str | None, reason: Mapping[str, str] | None = None) -> Flow[None]:
        query = "&".join(
            f"{name}={quote(checked_type(text, str, name), safe='')}" for name, text in (reason or {}).items()
        )
        path = _rule_path(rule_id)
        return self._change("DELETE", f"{path}?{query}" if query else path, etag=etag)

    def add_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], etag: str | None) -> Flow[None]:
        return self._change("POST", f"{_rule_path(rule_id)}/metadata", metadata_body(metadata), etag)

    def replace_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], etag: str | None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/metadata", metadata_body(metadata), etag)

    def delete_rule_metadata(self, rule_id: int, key: str, etag: str | None) -> Flow[None]:
        return self._change("DELETE", f"{_rule_path(rule_id)}/metadata/{metadata_key(key)}", etag=etag)


def _rules_query(required: Mapping[str, str], criteria: Mapping[str, Any], sort: str) -> tuple[str, bool]:
    """Return the parameters of a list of rules, and whether any rule can have the required conditions."""
    if checked_type(sort, str, "sort").removeprefix("-") not in _SORTS:
        raise ValueError(f"{sort!r} is not a valid sort: use one of {', '.join(_SORTS)}, or - and one of them")
    parameters = "".join(
        f"&{name}={quote(checked_type(text, str, name), safe='')}" for name, text in criteria.items() if text
    )
    conditions = conditions_query(required)
    return f"sort={sort}{parameters}{conditions}", bool(conditions) or not required


def _weakness(order: Sequence[str], rule: RuleRecord) -> Any:
    """Return the key that sorts rules, the strongest first, as the service does.

    Args:
        order: The context features, the last one first.
        rule: The rule.
    """
    return [feature not in rule.conditions for feature in order], sorted(rule.conditions.items())


def by_setting(listing: RuleListing | None) -> dict[str, tuple[RuleRecord, ...]]:
    """Return the rules of a list by the names of their settings."""
    rules: dict[str, list[RuleRecord]] = {}
    for name, rule in listing.rules if listing else ():
        rules.setdefault(name, []).append(rule)
    return {name: tuple(of_setting) for name, of_setting in rules.items()}


def _rule_change(changes: Mapping[str, Any], setting: SettingOrName | None) -> dict[str, Any]:
    """Return the body of a request that changes attributes of a rule.

    Raises:
        TypeError: There are no changes, or an attribute is of another type.
    """
    if not changes:
        raise TypeError("change_rule() requires a new value, conditions, metadata or a period")
    body = dict(changes)
    if "value" in body:
        body["value"] = json_value(setting, body["value"])
    if "conditions" in body:
        body["feature_values"] = checked_conditions(body.pop("conditions"))
    return body | (metadata_body(body["metadata"]) if "metadata" in body else {})


def _rule_path(rule_id: int) -> str:
    return f"rules/{checked_type(rule_id, int, 'rule_id'):d}"
