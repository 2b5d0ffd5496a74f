"""Administration: the flows that read everything that a service stores, and change it.

Nothing is cached: each call sends requests. Where it can, it uses the requests and parsers of `protocol`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.admin_requests import (
    API,
    checked_conditions,
    checked_text,
    checked_type,
    conditions_query,
    feature_name,
    json_request,
    setting_name,
)
from heksher_client._core.refresh.admin_responses import (
    parse_changes,
    parse_comparison,
    parse_created_token,
    parse_export,
    parse_import,
    parse_query_or_missing,
    parse_tokens,
)
from heksher_client._core.refresh.comparison import compare_state
from heksher_client._core.refresh.effects import Flow, Request
from heksher_client._core.refresh.positions import Position, oldest_position, position
from heksher_client._core.refresh.records import (
    ChangeRecord,
    ComparedValues,
    ImportResult,
    RuleRecord,
    ServiceState,
    SettingRecord,
    TokenRecord,
)
from heksher_client._core.refresh.rule_administration import (
    MAX_LISTINGS,
    TEMPORARY_RULES,
    RuleAdministration,
    by_setting,
)
from heksher_client._core.settings.names import TOKEN_NAME
from heksher_client.exceptions import ServiceUnavailableError

_NAMES_PER_QUERY: Final = 50
_CHANGES_PER_REQUEST: Final = 1000
"""The most that the service allows."""
_EXPORT: Final = Request("GET", f"{API}export")


class Administration(RuleAdministration):
    """All operations of an admin client, as flows. They raise the errors of its requests."""

    # -- tokens --------------------------------------------------------------------------------------------------------

    def tokens(self) -> Flow[tuple[TokenRecord, ...]]:
        request = Request("GET", f"{API}tokens")
        return self._requests.send(request, partial(parse_tokens, request))

    def create_token(self, name: str, role: str, lifetime: float | None) -> Flow[str]:
        body: dict[str, Any] = {"name": _token_name(name), "role": checked_type(role, str, "role")}
        if lifetime is not None:
            if lifetime < 1:
                raise ValueError("lifetime must be at least a second")
            body["lifetime"] = int(lifetime)
        request = json_request("POST", "tokens", body)
        return self._requests.send_once(request, partial(parse_created_token, request))

    def revoke_token(self, name: str) -> Flow[None]:
        return self._change("DELETE", f"tokens/{_token_name(name).replace('.', '%2E')}")

    # -- everything ----------------------------------------------------------------------------------------------------

    def changes(self, after: int, limit: int, criteria: Mapping[str, Any]) -> Flow[tuple[ChangeRecord, ...]]:
        return self._read_changes("after", checked_type(after, int, "after"), limit, _changes_query(criteria))

    def latest_changes(
        self, before: int | None, limit: int, criteria: Mapping[str, Any]
    ) -> Flow[tuple[ChangeRecord, ...]]:
        before = None if before is None else checked_type(before, int, "before")
        return self._read_changes("before", before, limit, f"{_changes_query(criteria)}&latest=true")

    def _read_changes(self, bound: str, revision: int | None, limit: int, query: str) -> Flow[tuple[ChangeRecord, ...]]:
        """Read changes page by page, `after` or `before` a revision, which is then that of the last one."""
        changes: list[ChangeRecord] = []
        while (missing := checked_type(limit, int, "limit") - len(changes)) > 0:
            page_size = min(missing, _CHANGES_PER_REQUEST)
            target = f"{API}change_log?limit={page_size}{query}"
            request = Request("GET", target if revision is None else f"{target}&{bound}={revision:d}")
            page = yield from self._requests.send(request, partial(parse_changes, request))
            changes += page
            if len(page) < page_size:
                break
            revision = page[-1].revision
        return tuple(changes)

    def compare(
        self,
        first: Mapping[str, str],
        second: Mapping[str, str],
        include_equal: bool,
        on_progress: Callable[[int, int], object] | None,
    ) -> Flow[tuple[ComparedValues, ...]]:
        contexts = [_context(first, "first"), _context(second, "second")]
        parameters = "".join(map(conditions_query, contexts, ("first", "second")))
        request = Request("GET", f"{API}compare?include_equal={str(include_equal).lower()}{parameters}")
        found = yield from self._requests.send(request, partial(parse_comparison, request))
        if found is None:
            state = yield from self.service_state(on_progress)
            found = compare_state(state, *contexts, include_equal=include_equal)
        return found

    def export(self) -> Flow[dict[str, Any]]:
        document = yield from self._requests.send(_EXPORT, partial(parse_export, _EXPORT))
        # Services without this endpoint respond with 404, as other servers do, whose error is that of the next request.
        return (yield from self.service_state(None)).document() if document is None else document

    def import_document(
        self, document: Mapping[str, Any], *, exact: bool, dry_run: bool, revision: int | None
    ) -> Flow[ImportResult]:
        options = [name for name, is_set in (("exact=true", exact), ("dry_run=true", dry_run)) if is_set]
        options += [] if revision is None else [f"revision={checked_type(revision, int, 'revision'):d}"]
        path = f"import?{'&'.join(options)}" if options else "import"
        request = json_request("POST", path, checked_type(document, Mapping, "document"))
        return self._requests.send_once(request, partial(parse_import, request))

    def service_state(self, on_progress: Callable[[int, int], object] | None) -> Flow[ServiceState]:
        state = None
        for _ in range(MAX_LISTINGS):
            if (found := (yield from self._read_state(on_progress))) is not None:
                state, is_of_one_moment = found
                if is_of_one_moment:
                    return state
        if state is None:
            raise ServiceUnavailableError(
                f"settings were renamed while they were read, {MAX_LISTINGS} times in a row; try again later"
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
        if (temporary := (yield from self._read_list(TEMPORARY_RULES))) is not None:
            records |= {
                name: records[name].with_rules(rules)
                for name, rules in by_setting(temporary).items()
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


def _context(context: Mapping[str, str], what: str) -> dict[str, str]:
    checked = checked_conditions(checked_type(context, Mapping, what))
    return {feature_name(feature): value for feature, value in checked.items()}


def _token_name(name: str) -> str:
    return checked_text(name, TOKEN_NAME, "token name", ": use letters, digits and _.@-")


def _changes_query(criteria: Mapping[str, Any]) -> str:
    """Return the parameters that select changes, for a query that has others. A criterion of None is left out."""
    given = {name: value for name, value in criteria.items() if value is not None}
    conditions = checked_conditions(given.pop("conditions", {}))
    if "group" in given:
        given["group"] = str(checked_type(given["group"], int, "group"))
    if "setting" in given:
        given["setting"] = setting_name(given["setting"])
    if "feature" in given:
        given["feature"] = feature_name(given["feature"])
    query = "".join(f"&{name}={quote(checked_type(text, str, name), safe='')}" for name, text in given.items())
    return query + conditions_query({feature_name(feature): value for feature, value in conditions.items()})
