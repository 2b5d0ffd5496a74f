"""The wire protocol as values: what is asked, and what came back.

Each endpoint has one builder and one parser, and a parser raises `ServiceUnavailableError` or `UnexpectedResponseError`
for every answer that is not of the protocol.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import msgspec

from heksher_client._core.refresh.effects import Oversized, Reply, Request, Response
from heksher_client._core.refresh.responses import (
    beginning,
    field_of,
    json_object,
    parse_response,
    said,
    unexpected,
    with_request,
)
from heksher_client.exceptions import DeclarationError, UnexpectedResponseError

# -- health, context features ------------------------------------------------------------------------------------------

HEALTH: Final = Request("GET", "/api/health")
CONTEXT_FEATURES: Final = Request("GET", "/api/v1/context_features")


def parse_health(reply: Reply) -> None:
    """Accept what only the service says: what else may be at its URL, a page to sign in say, is not well."""
    json_object(HEALTH, parse_response(HEALTH, reply))


def parse_context_features(reply: Reply) -> tuple[str, ...]:
    """The context features, in the service's order."""
    response = parse_response(CONTEXT_FEATURES, reply)
    features = field_of(CONTEXT_FEATURES, response, "context_features", list)
    if not all(isinstance(feature, str) for feature in features):
        raise unexpected(CONTEXT_FEATURES, response, "a context feature is no string")
    return tuple(features)


# -- declarations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeclarationAnswer:
    """What the service did with a declaration."""

    outcome: str
    differences: tuple[Mapping[str, Any], ...] = ()
    latest_version: str | None = None
    detail: str = ""
    """The service's words where it gave no outcome."""

    def latest(self, attribute: str) -> Any:
        """The value that the service holds for an attribute that differs, or None."""
        values = [d.get("latest_value") for d in self.differences if d.get("attribute") == attribute]
        return values[0] if values else None


def declare(declaration: bytes) -> Request:
    """Declare a setting."""
    return Request("POST", "/api/v1/settings/declare", {"Content-Type": "application/json"}, declaration)


CREATED: Final = "created"
UPTODATE: Final = "uptodate"
UPGRADED: Final = "upgraded"
OUTDATED: Final = "outdated"
REJECTED: Final = "rejected"
MISMATCH: Final = "mismatch"
CONFLICT: Final = "conflict"
"""Not the service's word: a 409 that came without an outcome."""
_OUTCOMES: Final = {200: {CREATED, UPTODATE, UPGRADED, OUTDATED}, 409: {REJECTED, MISMATCH}}


def parse_declaration(request: Request, reply: Reply, setting: str) -> DeclarationAnswer:
    """What became of a declaration.

    Raises:
        DeclarationError: The service refused it as such (400, 404, 422).
    """
    response = parse_response(request, reply)
    if response.status in (400, 404, 422):
        refused = DeclarationError(
            f"the service refused the declaration of setting {setting}: {said(response)}", setting=setting
        )
        refused.status, refused.content = response.status, beginning(response)
        raise with_request(refused, request, response)
    answer = json_object(request, response, _OUTCOMES)
    if response.status == 409 and "outcome" not in answer:
        return DeclarationAnswer(CONFLICT, detail=said(response))
    outcome, version, differences = answer.get("outcome"), answer.get("latest_version"), answer.get("differences")
    if not isinstance(outcome, str) or outcome not in _OUTCOMES[response.status]:
        raise unexpected(request, response, "no known outcome")
    return DeclarationAnswer(
        outcome,
        tuple(d for d in differences if isinstance(d, dict)) if isinstance(differences, list) else (),
        version if isinstance(version, str) else None,
    )


# -- queries -----------------------------------------------------------------------------------------------------------
#
# Their answers are the large ones. So they are taken apart into the bytes of each setting, which can be compared with
# what they were, and decoded one setting at a time: objects for all of them at once would take a multiple of the
# memory, and of the time, as the garbage collector goes through them again and again.


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The settings that a query answered with, by their canonical names, as yet unread."""

    settings: dict[str, msgspec.Raw]
    etag: str | None


def revision(reply: Reply) -> int | None:
    """The revision of the database that an answer is of, where the service tells. Changes after it can be followed."""
    text = reply.headers.get("heksher-revision", "") if isinstance(reply, Response) else ""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def changes(after: int | None) -> Request:
    """Follow the changes after a revision."""
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
    return Request("GET", "/api/v1/changes", headers)


class RawRule(msgspec.Struct, gc=False):
    """A rule whose form has been checked, and whose value and conditions have not."""

    rule_id: int
    context_features: tuple[tuple[str, str], ...]
    """The conditions: feature and value."""
    value: Any


@dataclass(frozen=True, slots=True)
class QueriedSetting:
    """What the service holds for a setting."""

    default_value: Any
    rules: Sequence[RawRule] = ()
    undecoded: Sequence[msgspec.Raw] = ()
    """Instead of them, if not all have the form of rules, or if they are too many to be decoded in one go."""

    def batches(self) -> Iterator[tuple[Sequence[RawRule], list[tuple[Any, str]]]]:
        """The rules, some at a time; beside them those that have not the form of rules: their id, and what is wrong."""
        for start in range(0, len(self.rules), _BATCH):
            yield self.rules[start : start + _BATCH], []
        for start in range(0, len(self.undecoded), _BATCH):
            yield _decode_rules(self.undecoded[start : start + _BATCH])


def query_target(names: Sequence[str], context_filters: str, *, with_metadata: bool = False) -> str:
    """The path and query that ask for the rules of settings."""
    return (
        f"/api/v1/query?settings={','.join(names)}"
        f"&context_filters={quote(context_filters, safe=',:()*')}&include_metadata={str(with_metadata).lower()}"
    )


def query(target: str, etag: str | None) -> Request:
    """Ask for rules, or for whether they have changed since the answer with this ETag."""
    return Request("GET", target, {} if etag is None else {"If-None-Match": etag})


def parse_query(request: Request, reply: Reply) -> QueryAnswer | None:
    """The answer to a query; None if nothing has changed."""
    response = parse_response(request, reply)
    if response.status == 304 and "If-None-Match" in request.headers:
        return None
    if response.status != 200:
        raise unexpected(request, response)
    try:
        body = _QUERY_BODY.decode(response.content)
    except msgspec.ValidationError:
        raise unexpected(request, response, "without settings") from None
    except _UNDECODABLE:
        raise unexpected(request, response, "not in JSON") from None
    return QueryAnswer(body.settings, response.headers.get("etag") or None)


def missing_names(reply: Reply, asked: Sequence[str]) -> frozenset[str]:
    """The settings that the service says it does not have, if that is what it says."""
    if not isinstance(reply, Response) or reply.status != 404:
        return frozenset()
    # The names stand quoted in a sentence. Where none of ours does, any of them may be meant.
    named = frozenset(re.findall(r"'([a-zA-Z_0-9.]+)'", reply.content.decode(errors="replace"))) & frozenset(asked)
    return named or frozenset(asked)


def is_too_much(reply: Reply) -> TypeGuard[Response | Oversized]:
    """Whether asking for less might help: too long a request, or (500) too many rules for one answer."""
    return isinstance(reply, Oversized) or (isinstance(reply, Response) and reply.status in (413, 414, 431, 500))


def parse_queried_setting(name: str, raw: msgspec.Raw) -> QueriedSetting:
    """The default value and the rules of one setting in the answer to a query.

    Raises:
        UnexpectedResponseError: They are not there.
    """
    try:
        if len(raw) <= _DECODED_AT_ONCE:
            try:
                whole = _WHOLE_SETTING.decode(raw)
                return QueriedSetting(whole.default_value, whole.rules)
            except _UNDECODABLE:
                pass  # One rule's fault is not the others': they will be decoded one by one.
        parts = _SETTING_IN_PARTS.decode(raw)
    except _UNDECODABLE:
        raise UnexpectedResponseError(
            f"the answer for setting {name} has no default value or no list of rules", status=200
        ) from None
    return QueriedSetting(parts.default_value, undecoded=parts.rules)


class _QueryBody(msgspec.Struct):
    settings: dict[str, msgspec.Raw]


class _WholeSetting(msgspec.Struct):
    default_value: Any
    rules: list[RawRule]


class _SettingInParts(msgspec.Struct):
    default_value: Any
    rules: list[msgspec.Raw]


class _Numbered(msgspec.Struct):
    rule_id: Any = None


_QUERY_BODY: Final = msgspec.json.Decoder(_QueryBody)
_WHOLE_SETTING: Final = msgspec.json.Decoder(_WholeSetting)
_SETTING_IN_PARTS: Final = msgspec.json.Decoder(_SettingInParts)
_RULE: Final = msgspec.json.Decoder(RawRule)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODED_AT_ONCE: Final = 1 << 18
"""Bytes of one setting, some 3,000 rules, which take a few milliseconds: nothing else gets its turn meanwhile."""
_BATCH: Final = 1000
"""Rules between two opportunities for others."""


def _decode_rules(raws: Sequence[msgspec.Raw]) -> tuple[list[RawRule], list[tuple[Any, str]]]:
    rules: list[RawRule] = []
    faults: list[tuple[Any, str]] = []
    for raw in raws:
        try:
            rules.append(_RULE.decode(raw))
        except _UNDECODABLE as error:
            faults.append((_rule_id(raw), str(error)))
    return rules, faults


def _rule_id(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=_Numbered).rule_id
    except _UNDECODABLE:
        return None


# -- settings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SettingData:
    """A setting as the service knows it, whoever declared it."""

    name: str
    configurable_features: list[str]
    """In the service's order."""
    type: str
    """As the service writes it, for example `Sequence<int>`."""
    default_value: Any
    metadata: dict[str, Any]
    aliases: list[str]
    version: str
    """The version of the latest declaration."""


SETTINGS: Final = Request("GET", "/api/v1/settings?include_additional_data=true")


def parse_settings(reply: Reply) -> dict[str, SettingData]:
    """All settings of the service, by name."""
    response = parse_response(SETTINGS, reply)
    parsed = [_setting_data(SETTINGS, response, raw) for raw in field_of(SETTINGS, response, "settings", list)]
    return {setting.name: setting for setting in parsed}


def setting(name: str) -> Request:
    """Ask for one setting, by its name or an alias."""
    return Request("GET", f"/api/v1/settings/{name.replace('.', '%2E')}")


def parse_setting(request: Request, reply: Reply) -> SettingData | None:
    """One setting; None if the service has none of that name."""
    response = parse_response(request, reply)
    return None if response.status == 404 else _setting_data(request, response, json_object(request, response))


_SETTING_FIELDS: Final = {"name": str, "configurable_features": list, "type": str, "metadata": dict, "version": str}


def _setting_data(request: Request, response: Response, raw: Any) -> SettingData:
    if not isinstance(raw, dict) or "default_value" not in raw or not isinstance(raw.get("aliases"), list):
        raise unexpected(request, response, "a setting is incomplete")
    for key, kind in _SETTING_FIELDS.items():
        if not isinstance(raw.get(key), kind):
            raise unexpected(request, response, f"a setting has no {key}")
    return SettingData(**{key: raw[key] for key in (*_SETTING_FIELDS, "default_value", "aliases")})
