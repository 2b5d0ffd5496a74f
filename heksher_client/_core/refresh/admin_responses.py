"""Responses to administration: the rules, changes, documents and tokens in them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.effects import Reply, Request, Response
from heksher_client._core.refresh.positions import Position, position
from heksher_client._core.refresh.protocol import RawRule
from heksher_client._core.refresh.records import (
    ChangeRecord,
    ComparedValues,
    FoundRule,
    FoundSetting,
    ImportResult,
    ResolvedValue,
    RuleRecord,
    SearchResult,
    TokenRecord,
)
from heksher_client._core.refresh.responses import json_object, parse_response, unexpected_response, with_prefix
from heksher_client._core.settings.context_values import is_v1_value

T = TypeVar("T")
_MISSING_ENDPOINT: Final = (404, 405)
"""The statuses with which services respond that do not have an endpoint."""


class _RuleWithMetadata(RawRule):
    """A rule with metadata. Decoding this field in every refresh would take 2 % longer, so `RawRule` lacks it."""

    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class _SettingWithMetadata(msgspec.Struct):
    rules: list[_RuleWithMetadata]


class _SingleRule(msgspec.Struct):
    value: Any
    feature_values: tuple[tuple[str, str], ...]
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    starts_at: str | None = None
    ends_at: str | None = None
    in_effect: bool = True


class _ListedRule(_SingleRule, kw_only=True):
    rule_id: int
    setting: str = ""
    """In the list of the rules of all settings."""
    changed_at: str | None = None
    changed_by: str | None = None

    def record(self) -> RuleRecord:
        return RuleRecord(
            self.rule_id,
            dict(self.feature_values),
            self.value,
            self.metadata,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            in_effect=self.in_effect,
            changed_at=self.changed_at,
            changed_by=self.changed_by,
        )


class _Rules(msgspec.Struct):
    rules: list[_ListedRule]
    total: int


class RuleListing(NamedTuple):
    """A list of rules, or a page of it."""

    rules: Sequence[tuple[str, RuleRecord]]
    """Each with its setting, in the list of the rules of all settings."""
    total: int
    """The number of rules on all pages."""
    position: Position | None


class _FoundRule(msgspec.Struct):
    rule_id: int
    feature_values: tuple[tuple[str, str], ...]
    value: Any
    metadata: dict[str, Any]
    matches: tuple[str, ...]


class _FoundSetting(msgspec.Struct):
    name: str
    matches: tuple[str, ...]
    rules: list[_FoundRule]
    rule_count: int

    def record(self) -> FoundSetting:
        rules = (
            FoundRule(rule.rule_id, dict(rule.feature_values), rule.value, rule.metadata, rule.matches)
            for rule in self.rules
        )
        return FoundSetting(self.name, self.matches, tuple(rules), self.rule_count)


class _Found(msgspec.Struct):
    settings: list[_FoundSetting]
    total: int


class _DecidingRule(msgspec.Struct):
    rule_id: int
    feature_values: tuple[tuple[str, str], ...]


class _ResolvedValue(msgspec.Struct):
    value: Any
    rule: _DecidingRule | None = None

    def record(self) -> ResolvedValue:
        if self.rule is None:
            return ResolvedValue(self.value)
        return ResolvedValue(self.value, self.rule.rule_id, dict(self.rule.feature_values))


class _Pair(msgspec.Struct):
    setting: str
    feature_values: tuple[tuple[str, str], ...]
    first: _ResolvedValue
    second: _ResolvedValue
    is_different: bool

    def record(self) -> ComparedValues:
        conditions = dict(self.feature_values)
        return ComparedValues(self.setting, conditions, self.first.record(), self.second.record(), self.is_different)


class _Pairs(msgspec.Struct):
    pairs: list[_Pair]


class _Changes(msgspec.Struct):
    changes: list[ChangeRecord]


class _Tokens(msgspec.Struct):
    tokens: tuple[TokenRecord, ...]


class _NewToken(msgspec.Struct):
    token: str


_IMPORT: Final = msgspec.json.Decoder(ImportResult)
_SETTING: Final = msgspec.json.Decoder(_SettingWithMetadata)
_RULE: Final = msgspec.json.Decoder(_SingleRule)
_RULES: Final = msgspec.json.Decoder(_Rules)
_FOUND: Final = msgspec.json.Decoder(_Found)
_PAIRS: Final = msgspec.json.Decoder(_Pairs)
_CHANGES: Final = msgspec.json.Decoder(_Changes)
_TOKENS: Final = msgspec.json.Decoder(_Tokens)
_NEW_TOKEN: Final = msgspec.json.Decoder(_NewToken)


def _decode(
    decoder: msgspec.json.Decoder[T], request: Request, response: Response, what: str, part: msgspec.Raw | None = None
) -> T:
    """Decode a response, or a part of it."""
    try:
        return decoder.decode(response.content if part is None else part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unexpected_response(request, response, f"with invalid {what} ({error})") from None


def parse_query_or_missing(
    request: Request, names: Sequence[str], reply: Reply
) -> tuple[dict[str, tuple[RuleRecord, ...]], Position | None] | frozenset[str]:
    """Parse the response to a query: the rules by setting and the position, or the names of unknown settings."""
    return protocol.missing_names(reply, names) or parse_query(request, reply)


def parse_query(request: Request, reply: Reply) -> tuple[dict[str, tuple[RuleRecord, ...]], Position | None]:
    query, response = protocol.parse_query(request, reply), parse_response(request, reply)
    assert query is not None  # noqa: S101 - "not modified" is a response to requests with an ETag only
    rules: dict[str, tuple[RuleRecord, ...]] = {}
    for name, raw in query.settings.items():
        setting = _decode(_SETTING, request, response, f"rules of setting {name}", raw)
        rules[name] = tuple(
            RuleRecord(rule.rule_id, dict(rule.context_features), rule.value, rule.metadata) for rule in setting.rules
        )
    return rules, position(reply)


def parse_rule(request: Request, rule_id: int, reply: Reply) -> RuleRecord | None:
    response = parse_response(request, reply)
    if response.status == 404:
        return None
    if response.status != 200:
        raise unexpected_response(request, response)
    rule = _decode(_RULE, request, response, "contents of the rule")
    etag = response.headers.get("etag")
    period = rule.starts_at, rule.ends_at, rule.in_effect
    return RuleRecord(rule_id, dict(rule.feature_values), rule.value, rule.metadata, etag, *period)


def parse_rules(request: Request, problem: str, reply: Reply) -> RuleListing | None:
    """Parse a page of a list of rules; None if the service does not have the list, or the setting does not exist.

    Args:
        request: The request.
        problem: The message of the error in these cases, instead of None; empty if there is none.
        reply: The reply.
    """
    response = parse_response(request, reply)
    if response.status in _MISSING_ENDPOINT:
        if problem:
            raise with_prefix(unexpected_response(request, response), problem)
        return None
    if response.status != 200:
        raise unexpected_response(request, response)
    page = _decode(_RULES, request, response, "rules")
    return RuleListing([(rule.setting, rule.record()) for rule in page.rules], page.total, position(reply))


def parse_search(request: Request, reply: Reply) -> SearchResult:
    response = parse_response(request, reply)
    if response.status != 200:
        raise unexpected_response(request, response)
    page = _decode(_FOUND, request, response, "results of a search")
    return SearchResult(tuple(setting.record() for setting in page.settings), page.total)


def parse_comparison(request: Request, reply: Reply) -> tuple[ComparedValues, ...] | None:
    """Return the pairs of values; None if the service does not have the endpoint."""
    response = parse_response(request, reply)
    if response.status in _MISSING_ENDPOINT:
        return None
    if response.status != 200:
        raise unexpected_response(request, response)
    return tuple(pair.record() for pair in _decode(_PAIRS, request, response, "values").pairs)


def parse_created(request: Request, conditions: Mapping[str, str], reply: Reply) -> int:
    response = parse_response(request, reply)
    unsupported = [feature for feature, value in conditions.items() if not is_v1_value(value)]
    if response.status == 422 and unsupported and not protocol.accepts_any_value(reply):
        value = f"{unsupported[0]}, not {conditions[unsupported[0]]!r}"
        hint = f"this service accepts only letters, digits and underscores in the value of {value}"
        raise with_prefix(unexpected_response(request, response), hint)
    rule_id = json_object(request, response, (200, 201)).get("rule_id")
    if not isinstance(rule_id, int):
        raise unexpected_response(request, response, "without rule_id")
    return rule_id


def parse_export(request: Request, reply: Reply) -> dict[str, Any] | None:
    """Return the document; None if the service does not have the endpoint."""
    response = parse_response(request, reply)
    if response.status in _MISSING_ENDPOINT:
        return None
    document = json_object(request, response)
    if "heksher" not in document:
        raise unexpected_response(request, response, "without a document")
    return document


def parse_import(request: Request, reply: Reply) -> ImportResult:
    response = parse_response(request, reply)
    if response.status != 200:
        raise unexpected_response(request, response)
    return _decode(_IMPORT, request, response, "changes")


def parse_changes(request: Request, reply: Reply) -> list[ChangeRecord]:
    response = parse_response(request, reply)
    if response.status != 200:
        raise unexpected_response(request, response)
    return _decode(_CHANGES, request, response, "changes").changes


def parse_is_created(request: Request, reply: Reply) -> bool:
    """Return True if a declaration has created the setting."""
    return json_object(request, parse_response(request, reply)).get("outcome") == protocol.CREATED


def parse_tokens(request: Request, reply: Reply) -> tuple[TokenRecord, ...]:
    response = parse_response(request, reply)
    if response.status != 200:
        raise unexpected_response(request, response)
    return _decode(_TOKENS, request, response, "tokens").tokens


def parse_created_token(request: Request, reply: Reply) -> str:
    """Return the text of a new token. No error contains it."""
    response = parse_response(request, reply)
    if not 200 <= response.status < 300:
        raise unexpected_response(request, response)
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NEW_TOKEN.decode(response.content).token
    # Without the body: whatever is wrong with it, it may contain the text of the token.
    raise unexpected_response(request, replace(response, content=b""), "without a token")
