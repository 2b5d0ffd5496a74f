"""What operators do: look at all that a service holds, and change its rules. Over the connection of a client."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.change_stream import ChangeStream
from heksher_client._core.refresh.effects import Reply, Request
from heksher_client._core.refresh.protocol import SettingData
from heksher_client._core.refresh.responses import json_object, parse_response, unexpected
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._drivers.thread_client import ThreadHeksherClient
from heksher_client.exceptions import UnexpectedResponseError

T = TypeVar("T")

_NAMES_IN_A_QUERY: Final = 50


class _AnsweredRule(msgspec.Struct):
    rule_id: int
    context_features: list[tuple[str, str]]
    value: Any
    metadata: dict[str, Any] = {}


class _AnsweredSetting(msgspec.Struct):
    rules: list[_AnsweredRule]


class _Answered(msgspec.Struct):
    settings: dict[str, _AnsweredSetting]


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """A rule as the service holds it."""

    rule_id: int | None
    conditions: Mapping[str, str]
    """In the order of the context features."""
    value: Any
    """In JSON values."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """A setting as the service holds it, with its rules."""

    data: SettingData
    rules: tuple[RuleRecord, ...]

    def rule_set(self, context_features: Sequence[str]) -> RuleSet[Any]:
        """What says which of the rules wins."""
        rules = [Rule(rule.conditions, rule.value, rule.rule_id) for rule in self.rules]
        rule_set, _ = RuleSet.build(
            group_by_features(rules), context_features, self.data.default_value, Reason.SERVER_DEFAULT
        )
        return rule_set

    def rule_with(self, conditions: Mapping[str, str]) -> RuleRecord | None:
        """The rule that has just these conditions."""
        return next((rule for rule in self.rules if dict(rule.conditions) == dict(conditions)), None)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """All that a service holds. It takes several questions, and so some moments, to tell."""

    context_features: tuple[str, ...]
    """In their order."""
    settings: Mapping[str, SettingRecord]
    """By name."""
    revision: int | None = None
    """Of its database, where it tells: changes after it can be followed."""


class AdminClient:
    """Asks a service in an operator's name. All methods raise what `ThreadHeksherClient.ping` raises."""

    def __init__(self, client: ThreadHeksherClient) -> None:
        """Make one.

        Args:
            client: Says where the service is, and what shows that one may ask. It need not be set as main.
        """
        self._client = client

    @property
    def service_url(self) -> str:
        """Where the service is, without user name and password."""
        return self._client._session.service_url

    @property
    def defaults(self) -> Mapping[str, str]:
        """What stands for the context features that are not given."""
        return {name: value for name, value in self._client._session.defaults.items() if isinstance(value, str)}

    def ping(self) -> None:
        """Ask whether the service is well."""
        self._client.ping()

    def close(self) -> None:
        """Give the connections back."""
        self._client._listening.end()
        self._client.close()

    def follow(self, following: ChangeStream) -> None:
        """Hear of changes as they are made, in a thread, until the end."""
        self._client._listening.begin(lambda: self._client._run(following.follow()))

    @property
    def is_closed(self) -> bool:
        """Whether the connections were given back."""
        return self._client.closed

    def context_features(self) -> tuple[str, ...]:
        """The context features, in their order."""
        return self._ask(protocol.CONTEXT_FEATURES, protocol.parse_context_features)

    def settings(self) -> dict[str, SettingData]:
        """All settings by name, without their rules."""
        return self._client.get_settings()

    def setting(self, name: str) -> SettingRecord | None:
        """One setting with its rules, by its name or an alias; None if there is none."""
        request = protocol.setting(name)
        data = self._ask(request, lambda reply: protocol.parse_setting(request, reply))
        if data is None:
            return None
        settings, _ = self._query([data.name])
        return SettingRecord(data, settings.get(data.name, ()))

    def snapshot(self, on_progress: Callable[[int, int], object] | None = None) -> ServiceState:
        """All settings with their rules.

        Args:
            on_progress: Called with the number of settings that there are rules for, and with that of all.
        """
        features, revision = self._ask(
            protocol.CONTEXT_FEATURES, lambda reply: (protocol.parse_context_features(reply), protocol.revision(reply))
        )
        all_data = self.settings()
        found: dict[str, SettingRecord] = {}
        revisions = [revision]
        names = iter(all_data)
        while some := list(islice(names, _NAMES_IN_A_QUERY)):
            rules, revision = self._query(some)
            revisions.append(revision)
            # One that is not among the answers was renamed or deleted a moment ago.
            found |= {name: SettingRecord(all_data[name], rules[name]) for name in some if name in rules}
            if on_progress is not None:
                on_progress(len(found), len(all_data))
        known = [revision for revision in revisions if revision is not None]
        return ServiceState(features, found, min(known) if len(known) == len(revisions) else None)

    def add_rule(self, setting: str, value: Any, conditions: Mapping[str, str]) -> int:
        """Add a rule; gives its id."""
        body = {"setting": setting, "feature_values": dict(conditions), "value": value}
        request = _with_body("POST", "/api/v1/rules", body)
        answer = self._ask(request, lambda reply: json_object(request, parse_response(request, reply), (200, 201)))
        rule_id = answer.get("rule_id")
        if not isinstance(rule_id, int):
            raise UnexpectedResponseError(f"{request}: the service did not say which rule it made", status=201)
        return rule_id

    def set_rule(self, rule_id: int, value: Any) -> None:
        """Give a rule another value."""
        self._do(_with_body("PUT", f"/api/v1/rules/{rule_id}/value", {"value": value}))

    def remove_rule(self, rule_id: int) -> None:
        """Remove a rule."""
        self._do(Request("DELETE", f"/api/v1/rules/{rule_id}"))

    def _query(self, names: Sequence[str]) -> tuple[dict[str, tuple[RuleRecord, ...]], int | None]:
        """The rules of those settings that there are; and the revision that they are of."""
        while names:
            request = protocol.query(protocol.query_target(names, "*", with_metadata=True), None)
            answer = self._ask(request, partial(_parse, request, names))
            if isinstance(answer, tuple):
                return answer
            names = [name for name in names if name not in answer]
        return {}, None

    def _do(self, request: Request) -> None:
        def parse(reply: Reply) -> None:
            response = parse_response(request, reply)
            if not 200 <= response.status < 300:
                raise unexpected(request, response)

        self._ask(request, parse)

    def _ask(self, request: Request, parse: Callable[[Reply], T]) -> T:
        return self._client._run(self._client._session.ask(request, parse))


def _parse(
    request: Request, names: Sequence[str], reply: Reply
) -> tuple[dict[str, tuple[RuleRecord, ...]], int | None] | frozenset[str]:
    """The answer to a query, or the names that the service does not have."""
    if missing := protocol.missing_names(reply, names):
        return missing
    response = parse_response(request, reply)
    if response.status != 200:
        raise unexpected(request, response)
    try:
        answer = msgspec.json.decode(response.content, type=_Answered)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unexpected(request, response, f"not with rules ({error})") from None
    return {name: tuple(map(_held, held.rules)) for name, held in answer.settings.items()}, protocol.revision(reply)


def _held(rule: _AnsweredRule) -> RuleRecord:
    return RuleRecord(rule.rule_id, dict(rule.context_features), rule.value, rule.metadata)


def _with_body(method: str, target: str, body: Any) -> Request:
    return Request(method, target, {"Content-Type": "application/json"}, json.dumps(body).encode())
