"""Administration: the flows that read everything that a service stores, and change it.

Nothing is cached: each call sends requests. Where it can, it uses the requests and parsers of `protocol`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.admin_responses import (
    RuleListing,
    parse_changes,
    parse_created,
    parse_created_token,
    parse_export,
    parse_import,
    parse_is_created,
    parse_query,
    parse_query_or_missing,
    parse_rule,
    parse_rules,
    parse_search,
    parse_tokens,
)
from heksher_client._core.refresh.effects import Flow, Reply, Request
from heksher_client._core.refresh.positions import Position, oldest_position, position
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.records import (
    ChangeRecord,
    FoundSetting,
    ImportResult,
    RulePage,
    RuleRecord,
    SearchResult,
    ServiceState,
    SettingRecord,
    TokenRecord,
)
from heksher_client._core.refresh.responses import parse_response, unexpected_response
from heksher_client._core.refresh.service_requests import ServiceRequests
from heksher_client._core.settings.context import check_feature_names, check_known
from heksher_client._core.settings.context_values import FILTER_CHARACTERS, escape_value, normalized_value
from heksher_client._core.settings.names import CONTEXT_NAME, METADATA_KEY, SETTING_NAME, TOKEN_NAME, VERSION
from heksher_client._core.settings.setting import Setting
from heksher_client._core.settings.types import setting_type
from heksher_client.exceptions import ServiceUnavailableError

T = TypeVar("T")
SettingOrName: TypeAlias = Setting[Any] | str
"""A setting that the program declares, or the name of any setting of the service, which may be an alias."""

_NAMES_PER_QUERY: Final = 50
_MAX_LISTINGS: Final = 5
"""Attempts to list all settings and query their rules, without a change in between."""
_CHANGES_PER_REQUEST: Final = 1000
"""The most that the service allows."""
_RULES_PER_REQUEST: Final = 1000
"""The most that the service allows."""
_SETTINGS_PER_SEARCH: Final = 100
"""The most that the service allows."""


class Administration:
    """The operations of an admin client, as flows. They raise the errors of its requests."""

    def __init__(self, requests: ServiceRequests) -> None:
        """Create it for the requests of a client."""
        self._requests = requests

    # -- context features ----------------------------------------------------------------------------------------------

    def context_features(self) -> Flow[tuple[str, ...]]:
        return self._requests.send(protocol.CONTEXT_FEATURES, protocol.parse_context_features)

    def add_context_feature(self, name: str) -> Flow[None]:
        return self._change("POST", "context_features", {"context_feature": _feature(name)})

    def move_context_feature(self, name: str, before: str | None, after: str | None) -> Flow[None]:
        if (before is None) == (after is None):
            raise TypeError("either before or after must be given")
        place = {"to_after": _feature(after)} if before is None else {"to_before": _feature(before)}
        return self._change("PATCH", f"context_features/{_feature(name)}/index", place)

    def delete_context_feature(self, name: str) -> Flow[None]:
        return self._change("DELETE", f"context_features/{_feature(name)}")

    # -- settings ------------------------------------------------------------------------------------------------------

    def settings(self) -> Flow[dict[str, SettingData]]:
        return self._requests.get_settings()

    def setting(self, setting: SettingOrName) -> Flow[SettingData | None]:
        request = protocol.setting(_name(setting))
        found = yield from self._requests.send(request, partial(protocol.parse_setting, request))
        if found is None:
            yield from self._check_service()
        return found

    def rename_setting(self, setting: SettingOrName, new_name: str, version: str) -> Flow[None]:
        return self._change_setting(setting, "name", {"name": _name(new_name)}, version)

    def set_setting_type(self, setting: SettingOrName, new_type: Any, version: str) -> Flow[None]:
        text = new_type if isinstance(new_type, str) else setting_type(new_type).heksher_string()
        return self._change_setting(setting, "type", {"type": text}, version)

    def set_configurable_features(self, setting: SettingOrName, features: Iterable[str], version: str) -> Flow[None]:
        new = {"configurable_features": check_feature_names(features)}
        return self._change_setting(setting, "configurable_features", new, version)

    def delete_setting(self, setting: SettingOrName) -> Flow[None]:
        return self._change("DELETE", _setting_path(setting))

    def add_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], version: str) -> Flow[None]:
        return self._change_setting(setting, "metadata", _metadata(metadata), version, method="POST")

    def replace_setting_metadata(self, setting: SettingOrName, metadata: Mapping[str, Any], version: str) -> Flow[None]:
        return self._change_setting(setting, "metadata", _metadata(metadata), version)

    def delete_setting_metadata(self, setting: SettingOrName, key: str, version: str) -> Flow[None]:
        return self._change_setting(setting, f"metadata/{_key(key)}", {}, version, method="DELETE")

    def create_setting(
        self, name: str, type: Any, default_value: Any, features: Iterable[str], metadata: Mapping[str, Any]
    ) -> Flow[bool]:
        is_text = isinstance(type, str)
        body = {
            "name": _name(name),
            "type": type if is_text else setting_type(type).heksher_string(),
            "default_value": default_value if is_text else setting_type(type).convert_to_heksher(default_value),
            "configurable_features": check_feature_names(features),
            "version": "1.0",
            **_metadata(metadata),
        }
        request = _json_request("POST", "settings/declare", body)
        return self._requests.send_once(request, partial(parse_is_created, request))

    def add_alias(self, setting: SettingOrName, alias: str) -> Flow[None]:
        return self._change("PUT", _alias_path(setting, alias))

    def delete_alias(self, setting: SettingOrName, alias: str) -> Flow[None]:
        return self._change("DELETE", _alias_path(setting, alias))

    # -- rules ---------------------------------------------------------------------------------------------------------

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
        name, required = _name(setting), _conditions(conditions)
        query, is_possible = _rules_query(required, criteria, sort)
        problem = "" if sort.removeprefix("-") in _LOCAL_SORTS and not criteria else _NO_RULE_LISTS
        found = None
        if is_possible:
            found = yield from self._read_list(f"{_setting_path(name)}/rules?{query}", problem, limit, offset)
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
        return RulePage(tuple(matching[offset : _end(limit, offset)]), len(matching))

    def temporary_rules(self) -> Flow[dict[str, tuple[RuleRecord, ...]]]:
        found = yield from self._read_list(_TEMPORARY_RULES, _NO_TEMPORARY_RULES)
        return _by_setting(found)

    def search(self, text: str, limit: int, offset: int) -> Flow[SearchResult]:
        query = quote(_instance(text, str, "text"), safe="")
        total = end = _end(limit, offset)
        settings: list[FoundSetting] = []
        # A page may have fewer settings than requested.
        for start in range(offset, end, _SETTINGS_PER_SEARCH):
            size = min(_SETTINGS_PER_SEARCH, end - start)
            request = Request("GET", f"{_API}search?q={query}&limit={size}&offset={start}")
            page = yield from self._requests.send(request, partial(parse_search, request))
            settings += page.settings
            total = page.total
            if start + size >= total:
                break
        return SearchResult(tuple(settings), total)

    def rule(self, rule_id: int) -> Flow[RuleRecord | None]:
        request = Request("GET", _API + _rule_path(rule_id))
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
        end = _end(limit, offset)
        rules: dict[int, tuple[str, RuleRecord]] = {}
        positions: list[Position | None] = []
        total = end
        for _ in range(_MAX_LISTINGS):
            rules, positions, start, total = {}, [], offset, end
            while start < min(end, total):
                size = min(_RULES_PER_REQUEST, end - start)
                request = Request("GET", f"{_API}{target}&limit={size}&offset={start}")
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
        required = _conditions(conditions)
        if not required:
            raise ValueError("conditions must not be empty: a rule requires a value of at least one context feature")
        body = {"setting": _name(setting), "feature_values": required, "value": _json_value(setting, value)}
        if (with_metadata := _metadata(metadata))["metadata"]:
            body |= with_metadata
        if limits := {name: limit for name, limit in (period or {}).items() if limit is not None}:
            body |= limits
            # Others ignore the period, and would apply the rule at once.
            yield from self._has_rule_lists(_NO_TEMPORARY_RULES)
        request = _json_request("POST", "rules", body)
        return (yield from self._requests.send_once(request, partial(parse_created, request, required)))

    def set_rule(self, rule_id: int, value: Any, etag: str | None, setting: SettingOrName | None = None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/value", {"value": _json_value(setting, value)}, etag)

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
        request = Request("GET", f"{_API}{_TEMPORARY_RULES}&limit=1")
        return (yield from self._requests.send(request, partial(parse_rules, request, problem))) is not None

    def set_rule_conditions(self, rule_id: int, conditions: Mapping[str, str], etag: str | None) -> Flow[None]:
        body = {"feature_values": _conditions(conditions)}
        return self._change("PUT", f"{_rule_path(rule_id)}/conditions", body, etag)

    def set_rule_period(self, rule_id: int, period: Mapping[str, str | None], etag: str | None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/period", dict(period), etag)

    def remove_rule(self, rule_id: int, etag: str | None, reason: Mapping[str, str] | None = None) -> Flow[None]:
        query = "&".join(
            f"{name}={quote(_instance(text, str, name), safe='')}" for name, text in (reason or {}).items()
        )
        path = _rule_path(rule_id)
        return self._change("DELETE", f"{path}?{query}" if query else path, etag=etag)

    def add_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], etag: str | None) -> Flow[None]:
        return self._change("POST", f"{_rule_path(rule_id)}/metadata", _metadata(metadata), etag)

    def replace_rule_metadata(self, rule_id: int, metadata: Mapping[str, Any], etag: str | None) -> Flow[None]:
        return self._change("PUT", f"{_rule_path(rule_id)}/metadata", _metadata(metadata), etag)

    def delete_rule_metadata(self, rule_id: int, key: str, etag: str | None) -> Flow[None]:
        return self._change("DELETE", f"{_rule_path(rule_id)}/metadata/{_key(key)}", etag=etag)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def tokens(self) -> Flow[tuple[TokenRecord, ...]]:
        request = Request("GET", f"{_API}tokens")
        return self._requests.send(request, partial(parse_tokens, request))

    def create_token(self, name: str, role: str, lifetime: float | None) -> Flow[str]:
        body: dict[str, Any] = {"name": _token_name(name), "role": _instance(role, str, "role")}
        if lifetime is not None:
            if lifetime < 1:
                raise ValueError("lifetime must be at least a second")
            body["lifetime"] = int(lifetime)
        request = _json_request("POST", "tokens", body)
        return self._requests.send_once(request, partial(parse_created_token, request))

    def revoke_token(self, name: str) -> Flow[None]:
        return self._change("DELETE", f"tokens/{_token_name(name).replace('.', '%2E')}")

    # -- everything ----------------------------------------------------------------------------------------------------

    def changes(self, after: int, limit: int, criteria: Mapping[str, Any]) -> Flow[tuple[ChangeRecord, ...]]:
        return self._read_changes("after", _instance(after, int, "after"), limit, _changes_query(criteria))

    def latest_changes(
        self, before: int | None, limit: int, criteria: Mapping[str, Any]
    ) -> Flow[tuple[ChangeRecord, ...]]:
        before = None if before is None else _instance(before, int, "before")
        return self._read_changes("before", before, limit, f"{_changes_query(criteria)}&latest=true")

    def _read_changes(self, bound: str, revision: int | None, limit: int, query: str) -> Flow[tuple[ChangeRecord, ...]]:
        """Read changes page by page, `after` or `before` a revision, which is then that of the last one."""
        changes: list[ChangeRecord] = []
        while (missing := _instance(limit, int, "limit") - len(changes)) > 0:
            page_size = min(missing, _CHANGES_PER_REQUEST)
            target = f"{_API}change_log?limit={page_size}{query}"
            request = Request("GET", target if revision is None else f"{target}&{bound}={revision:d}")
            page = yield from self._requests.send(request, partial(parse_changes, request))
            changes += page
            if len(page) < page_size:
                break
            revision = page[-1].revision
        return tuple(changes)

    def export(self) -> Flow[dict[str, Any]]:
        document = yield from self._requests.send(_EXPORT, partial(parse_export, _EXPORT))
        # Services without this endpoint respond with 404, as other servers do, whose error is that of the next request.
        return (yield from self.service_state(None)).document() if document is None else document

    def import_document(
        self, document: Mapping[str, Any], *, exact: bool, dry_run: bool, revision: int | None
    ) -> Flow[ImportResult]:
        options = [name for name, is_set in (("exact=true", exact), ("dry_run=true", dry_run)) if is_set]
        options += [] if revision is None else [f"revision={_instance(revision, int, 'revision'):d}"]
        path = f"import?{'&'.join(options)}" if options else "import"
        request = _json_request("POST", path, _instance(document, Mapping, "document"))
        return self._requests.send_once(request, partial(parse_import, request))

    def service_state(self, on_progress: Callable[[int, int], object] | None) -> Flow[ServiceState]:
        state = None
        for _ in range(_MAX_LISTINGS):
            if (found := (yield from self._read_state(on_progress))) is not None:
                state, is_of_one_moment = found
                if is_of_one_moment:
                    return state
        if state is None:
            raise ServiceUnavailableError(
                f"settings were renamed while they were read, {_MAX_LISTINGS} times in a row; try again later"
            )
        return state

    def _read_state(self, on_progress: Callable[[int, int], object] | None) -> Flow[tuple[ServiceState, bool] | None]:
        """Return the state, and whether all is of one moment; None if a setting was renamed in between.

        Deleted settings are omitted.
        """
        features, received = yield from self._requests.send(
            protocol.CONTEXT_FEATURES, lambda reply: (protocol.parse_context_features(reply), position(reply))
        )
        settings = yield from self.settings()
        records: dict[str, SettingRecord] = {}
        positions = [received]
        remaining = iter(settings)
        while names := list(islice(remaining, _NAMES_PER_QUERY)):
            existing, rules, received = yield from self._query(names)
            if not rules.keys() >= set(existing):
                return None  # The response has the rules of a renamed setting under its new name.
            positions.append(received)
            records |= {name: SettingRecord(settings[name], rules[name]) for name in names if name in rules}
            if on_progress is not None:
                on_progress(len(records), len(settings))
        # The responses to queries do not contain the periods of rules, and no rules that are not in effect.
        if (temporary := (yield from self._read_list(_TEMPORARY_RULES))) is not None:
            records |= {
                name: records[name].with_rules(rules)
                for name, rules in _by_setting(temporary).items()
                if name in records
            }
            positions.append(temporary.position)
        is_of_one_moment = len(records) == len(settings) and len(set(positions)) == 1
        return ServiceState(features, records, oldest_position(positions)), is_of_one_moment

    def _query(
        self, names: Sequence[str]
    ) -> Flow[tuple[Sequence[str], dict[str, tuple[RuleRecord, ...]], Position | None]]:
        """Return which of the names exist, the rules of those settings, and the position that they are of."""
        while names:
            request = protocol.query(protocol.query_target(names, "*", with_metadata=True), None)
            result = yield from self._requests.send(request, partial(parse_query_or_missing, request, names))
            if isinstance(result, tuple):
                return names, *result
            names = [name for name in names if name not in result]
        return (), {}, None

    # -- requests ------------------------------------------------------------------------------------------------------

    def _check_service(self) -> Flow[None]:
        """Raise an error if the server is not a Heksher service: that would respond with 404 to any path."""
        yield from self.context_features()

    def _change_setting(
        self, setting: SettingOrName, path: str, change: Mapping[str, Any], version: str, *, method: str = "PUT"
    ) -> Flow[None]:
        body = {**change, "version": _checked(version, VERSION, "version", ": it must be like '1.0'")}
        return self._change(method, f"{_setting_path(setting)}/{path}", body)

    def _change(self, method: str, path: str, body: Any = None, etag: str | None = None) -> Flow[None]:
        headers = {} if etag is None else {"If-Match": _checked(etag, _ETAG, "etag")}
        request = Request(method, _API + path, headers) if body is None else _json_request(method, path, body, headers)

        def parse(reply: Reply) -> None:
            response = parse_response(request, reply)
            if not 200 <= response.status < 300:
                raise unexpected_response(request, response)

        return self._requests.send_once(request, parse)


_API: Final = "/api/v1/"
_TEMPORARY_RULES: Final = "rules?only_temporary=true"
_NO_TEMPORARY_RULES: Final = "this service does not have temporary rules"
_NO_RULE_LISTS: Final = "the setting does not exist, or this service cannot filter and sort rules"
_NO_RULE_CHANGES: Final = "this service cannot change the conditions and the period of a rule"
_SORTS: Final = ("rule", "priority", "value", "changed")
_LOCAL_SORTS: Final = _SORTS[:2]
"""The order of rules that the client knows as well, for services without lists of rules."""
_ETAG: Final = "[!-~]+"
_EXPORT: Final = Request("GET", f"{_API}export")


def _json_request(method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Request:
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        remedy = "pass the Setting for a value of its type"
        raise TypeError(f"values and metadata must be JSON values ({error}): {remedy}") from None
    return Request(method, _API + path, {"Content-Type": "application/json", **(headers or {})}, content)


def _instance(value: T, kind: type[Any], what: str) -> T:
    """Return an argument.

    Raises:
        TypeError: It is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{what} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def _checked(text: str, pattern: str, what: str, hint: str = "") -> str:
    """Return a text that goes into the path, the query or a header of a request.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not valid, so it might become another request.
    """
    if not re.fullmatch(pattern, _instance(text, str, what)):
        raise ValueError(f"{text!r} is not a valid {what}{hint}")
    return text


def _name(setting: SettingOrName) -> str:
    name = setting.name if isinstance(setting, Setting) else setting
    return _checked(name, SETTING_NAME, "setting name", ": use letters, digits, underscores and dots")


def _json_value(setting: SettingOrName | None, value: Any) -> Any:
    """Return the value of a rule as a JSON value: that of a `Setting` is of its type, any other is one already."""
    if setting is not None:
        _name(setting)
    return setting.type.convert_to_heksher(value) if isinstance(setting, Setting) else value


def _feature(name: str | None) -> str:
    (checked,) = check_feature_names([name or ""])
    return checked


def _key(key: str) -> str:
    return _checked(key, METADATA_KEY, "metadata key", ": use letters, digits, underscores and hyphens")


def _setting_path(setting: SettingOrName) -> str:
    return protocol.setting(_name(setting)).target.removeprefix(_API)


def _alias_path(setting: SettingOrName, alias: str) -> str:
    return f"{_setting_path(setting)}/aliases/{_name(alias).replace('.', '%2E')}"


def _token_name(name: str) -> str:
    return _checked(name, TOKEN_NAME, "token name", ": use letters, digits and _.@-")


def _conditions(conditions: Mapping[str, str]) -> dict[str, str]:
    items = _instance(conditions, Mapping, "conditions").items()
    return {feature: normalized_value(feature, value) for feature, value in items}


def _conditions_query(conditions: Mapping[str, str]) -> str:
    """Return the parameter for rules with these conditions; empty if there are none, or no rule can have them."""
    if not conditions or not all(re.fullmatch(CONTEXT_NAME, feature) for feature in conditions):
        return ""
    text = ",".join(f"{feature}:{escape_value(value)}" for feature, value in conditions.items())
    return f"&conditions={quote(text, safe=FILTER_CHARACTERS)}"


def _changes_query(criteria: Mapping[str, Any]) -> str:
    """Return the parameters that select changes, for a query that has others. A criterion of None is left out."""
    given = {name: value for name, value in criteria.items() if value is not None}
    conditions = _conditions(given.pop("conditions", {}))
    if "setting" in given:
        given["setting"] = _name(given["setting"])
    if "feature" in given:
        given["feature"] = _feature(given["feature"])
    query = "".join(f"&{name}={quote(_instance(text, str, name), safe='')}" for name, text in given.items())
    return query + _conditions_query({_feature(feature): value for feature, value in conditions.items()})


def _rules_query(required: Mapping[str, str], criteria: Mapping[str, Any], sort: str) -> tuple[str, bool]:
    """Return the parameters of a list of rules, and whether any rule can have the required conditions."""
    if _instance(sort, str, "sort").removeprefix("-") not in _SORTS:
        raise ValueError(f"{sort!r} is not a valid sort: use one of {', '.join(_SORTS)}, or - and one of them")
    parameters = "".join(
        f"&{name}={quote(_instance(text, str, name), safe='')}" for name, text in criteria.items() if text
    )
    conditions = _conditions_query(required)
    return f"sort={sort}{parameters}{conditions}", bool(conditions) or not required


def _weakness(order: Sequence[str], rule: RuleRecord) -> Any:
    """Return the key that sorts rules, the strongest first, as the service does.

    Args:
        order: The context features, the last one first.
        rule: The rule.
    """
    return [feature not in rule.conditions for feature in order], sorted(rule.conditions.items())


def _by_setting(listing: RuleListing | None) -> dict[str, tuple[RuleRecord, ...]]:
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
        body["value"] = _json_value(setting, body["value"])
    if "conditions" in body:
        body["feature_values"] = _conditions(body.pop("conditions"))
    return body | (_metadata(body["metadata"]) if "metadata" in body else {})


def _end(limit: int | None, offset: int) -> int:
    """Return the index after the last one of a page.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: An argument is too low.
    """
    if _instance(offset, int, "offset") < 0:
        raise ValueError("offset must not be negative")
    if limit is None:
        return sys.maxsize
    if _instance(limit, int, "limit") < 1:
        raise ValueError("limit must be at least 1")
    return offset + limit


def _rule_path(rule_id: int) -> str:
    return f"rules/{_instance(rule_id, int, 'rule_id'):d}"


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": dict(_instance(metadata, Mapping, "metadata"))}
