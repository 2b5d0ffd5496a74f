"""The admin client: reads everything that a service stores, and changes its rules, through a thread client.

It never caches: each call sends requests. Responses are parsed by `protocol`, as in the clients that refresh settings.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Flow, Reply, Request
from heksher_client._core.refresh.positions import Position, oldest_position, position
from heksher_client._core.refresh.protocol import RawRule, SettingData
from heksher_client._core.refresh.responses import json_object, parse_response, unexpected_response
from heksher_client._core.settings.rule_index import group_by_features
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.rules import Reason, Rule
from heksher_client._drivers.thread_client import ThreadHeksherClient, internals
from heksher_client._resource import Resource
from heksher_client.exceptions import ServiceUnavailableError, UnexpectedResponseError

T = TypeVar("T")

_NAMES_PER_QUERY: Final = 50
_MAX_LISTINGS: Final = 5
"""Attempts to list all settings and query their rules, without a change in between."""


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """A rule as the service stores it."""

    rule_id: int | None
    conditions: Mapping[str, str]
    """In the order of the context features."""
    value: Any
    """A JSON value."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """A setting as the service stores it, with its rules."""

    data: SettingData
    rules: tuple[RuleRecord, ...]

    def rule_set(self, context_features: Sequence[str]) -> RuleSet[Any]:
        """Return the rules as a `RuleSet`, which resolves them as a client does."""
        rules = [Rule(rule.conditions, rule.value, rule.rule_id) for rule in self.rules]
        groups = group_by_features(rules)
        rule_set, _ = RuleSet.build(groups, context_features, self.data.default_value, Reason.SERVER_DEFAULT)
        return rule_set

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


class AdminClient(Resource):
    """Reads and changes the contents of a service. All methods raise the errors of `ThreadHeksherClient.ping`."""

    def __init__(self, client: ThreadHeksherClient) -> None:
        """Use the URL, the credentials and the connections of a thread client.

        Args:
            client: The client. It need not be set as main, and is closed with this one.
        """
        self._client = client
        self._internals = internals(client)

    @property
    def service_url(self) -> str:
        """The URL of the service, without user name and password."""
        return self._internals.session.service_url

    @property
    def defaults(self) -> Mapping[str, str]:
        """The default values of context features, except those from context variables and callables."""
        return {name: value for name, value in self._internals.session.defaults.items() if isinstance(value, str)}

    def ping(self) -> None:
        """Check that the service is healthy."""
        self._client.ping()

    def close(self) -> None:
        """End the change stream, and close the client."""
        self._internals.stream.end()
        self._client.close()

    def follow(self, flow: Callable[[], Flow[None]]) -> None:
        """Run a flow that follows the stream of changes, in a thread of its own, unless one is running."""
        self._internals.stream.start(lambda: self._internals.run(flow()))

    @property
    def is_closed(self) -> bool:
        """True if the client is closed."""
        return self._client.closed

    def context_features(self) -> tuple[str, ...]:
        """Return the context features, in the order of the service."""
        return self._send(protocol.CONTEXT_FEATURES, protocol.parse_context_features)

    def settings(self) -> dict[str, SettingData]:
        """Return all settings by name, without their rules."""
        return self._client.get_settings()

    def setting(self, name: str) -> SettingRecord | None:
        """Return a setting with its rules, by its name or an alias; None if it does not exist."""
        request = protocol.setting(name)
        data = self._send(request, lambda reply: protocol.parse_setting(request, reply))
        if data is None:
            return None
        _, rules, _ = self._query([data.name])
        return SettingRecord(data, rules.get(data.name, ()))

    def service_state(self, on_progress: Callable[[int, int], object] | None = None) -> ServiceState:
        """Return the context features, and all settings with their rules.

        Args:
            on_progress: Called with the number of settings whose rules have been fetched, and the number of all.

        Raises:
            ServiceUnavailableError: Settings are renamed all the time. A state without them would look as if they were
                removed.
        """
        state = None
        for _ in range(_MAX_LISTINGS):
            if (found := self._read_state(on_progress)) is not None:
                state, is_of_one_moment = found
                if is_of_one_moment:
                    return state
        if state is None:
            raise ServiceUnavailableError(
                f"settings were renamed while they were read, {_MAX_LISTINGS} times in a row; try again later"
            )
        return state

    def _read_state(self, on_progress: Callable[[int, int], object] | None) -> tuple[ServiceState, bool] | None:
        """Return the state, and whether all is of one moment; None if a setting was renamed in between.

        Deleted settings are omitted.
        """
        features, received = self._send(
            protocol.CONTEXT_FEATURES, lambda reply: (protocol.parse_context_features(reply), position(reply))
        )
        settings = self.settings()
        records: dict[str, SettingRecord] = {}
        positions = [received]
        remaining = iter(settings)
        while names := list(islice(remaining, _NAMES_PER_QUERY)):
            existing, rules, received = self._query(names)
            if not rules.keys() >= set(existing):
                return None  # The response has the rules of a renamed setting under its new name.
            positions.append(received)
            records |= {name: SettingRecord(settings[name], rules[name]) for name in names if name in rules}
            if on_progress is not None:
                on_progress(len(records), len(settings))
        is_of_one_moment = len(records) == len(settings) and len(set(positions)) == 1
        return ServiceState(features, records, oldest_position(positions)), is_of_one_moment

    def add_rule(self, setting: str, value: Any, conditions: Mapping[str, str]) -> int:
        """Add a rule, and return its id."""
        body = {"setting": setting, "feature_values": dict(conditions), "value": value}
        request = _json_request("POST", "/api/v1/rules", body)
        created = self._send(request, lambda reply: json_object(request, parse_response(request, reply), (200, 201)))
        rule_id = created.get("rule_id")
        if not isinstance(rule_id, int):
            raise UnexpectedResponseError(f"{request}: the response has no rule_id", status=201)
        return rule_id

    def rule_value(self, rule_id: int) -> tuple[Any, str | None]:
        """Return the value of a rule, and the rule's ETag if the service has one."""
        request = Request("GET", f"/api/v1/rules/{rule_id}")

        def parse(reply: Reply) -> tuple[Any, str | None]:
            response = parse_response(request, reply)
            json_object(request, response)
            # Not the result, which has integers beyond 64 bits as floats.
            return json.loads(response.content).get("value"), response.headers.get("etag")

        return self._send(request, parse)

    def set_rule(self, rule_id: int, value: Any, *, etag: str | None = None) -> None:
        """Change the value of a rule; with an ETag, only if the rule still has it."""
        self._change(_json_request("PUT", f"/api/v1/rules/{rule_id}/value", {"value": value}, _if_match(etag)))

    def remove_rule(self, rule_id: int, *, etag: str | None = None) -> None:
        """Remove a rule; with an ETag, only if the rule still has it."""
        self._change(Request("DELETE", f"/api/v1/rules/{rule_id}", _if_match(etag)))

    def _query(self, names: Sequence[str]) -> tuple[Sequence[str], dict[str, tuple[RuleRecord, ...]], Position | None]:
        """Return which of the names exist, the rules of those settings, and the position that they are of."""
        while names:
            request = protocol.query(protocol.query_target(names, "*", with_metadata=True), None)
            result = self._send(request, partial(_parse_query, request, names))
            if isinstance(result, tuple):
                return names, *result
            names = [name for name in names if name not in result]
        return (), {}, None

    def _change(self, request: Request) -> None:
        def parse(reply: Reply) -> None:
            response = parse_response(request, reply)
            if not 200 <= response.status < 300:
                raise unexpected_response(request, response)

        self._send(request, parse)

    def _send(self, request: Request, parse: Callable[[Reply], T]) -> T:
        return self._internals.run(self._internals.session.requests.send(request, parse))


class _RuleWithMetadata(RawRule):
    """A rule with metadata. Decoding this field in every refresh would take 2 % longer, so `RawRule` lacks it."""

    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class _SettingWithMetadata(msgspec.Struct):
    rules: list[_RuleWithMetadata]


_DECODER: Final = msgspec.json.Decoder(_SettingWithMetadata)


def _parse_query(
    request: Request, names: Sequence[str], reply: Reply
) -> tuple[dict[str, tuple[RuleRecord, ...]], Position | None] | frozenset[str]:
    """Parse the response to a query: the rules by setting and the position, or the names of unknown settings."""
    if missing := protocol.missing_names(reply, names):
        return missing
    query = protocol.parse_query(request, reply)
    assert query is not None  # noqa: S101 - "not modified" is a response to requests with an ETag only
    rules: dict[str, tuple[RuleRecord, ...]] = {}
    for name, raw in query.settings.items():
        try:
            setting = _DECODER.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnexpectedResponseError(f"{request}: invalid rules of setting {name}: {error}", status=200) from None
        rules[name] = tuple(
            RuleRecord(rule.rule_id, dict(rule.context_features), rule.value, rule.metadata) for rule in setting.rules
        )
    return rules, position(reply)


def _json_request(method: str, target: str, body: Any, headers: Mapping[str, str] | None = None) -> Request:
    return Request(method, target, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode())


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": etag}
