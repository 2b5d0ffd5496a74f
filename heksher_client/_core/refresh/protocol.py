"""The wire protocol as values: the requests, and the responses.

Each endpoint has a function that builds the request, and one that parses the response. A parser raises
`ServiceUnavailableError` or `UnexpectedResponseError` for every response that is not of the protocol.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from heksher_client._core.refresh.effects import Oversized, Reply, Request, Response
from heksher_client._core.refresh.responses import (
    body_excerpt,
    json_field,
    json_object,
    not_json,
    parse_response,
    retry_after,
    truncate,
    unexpected_response,
    with_request,
)
from heksher_client._core.settings.context_values import FILTER_CHARACTERS
from heksher_client._core.settings.names import SETTING_NAME
from heksher_client._logging import shortened
from heksher_client.exceptions import DeclarationError, UnexpectedResponseError

# -- health, context features ------------------------------------------------------------------------------------------

HEALTH: Final = Request("GET", "/api/health")
CONTEXT_FEATURES: Final = Request("GET", "/api/v1/context_features", {"Cache-Control": "no-cache"})
"""Not from a cache: the position of the response decides if anything is queried."""


def parse_health(reply: Reply) -> None:
    """Accept only a response of the service: something else at its URL, such as a sign-in page, is an error."""
    json_field(HEALTH, parse_response(HEALTH, reply), "version", str)


def parse_context_features(reply: Reply) -> tuple[str, ...]:
    """Return the context features, in the service's order."""
    response = parse_response(CONTEXT_FEATURES, reply)
    features = json_field(CONTEXT_FEATURES, response, "context_features", list)
    if not all(isinstance(feature, str) for feature in features):
        raise unexpected_response(CONTEXT_FEATURES, response, "a context feature is not a string")
    return tuple(features)


def accepts_any_value(reply: Reply) -> bool:
    """True if the service announces that rules and filters may contain any value of a context feature."""
    return isinstance(reply, Response) and reply.headers.get("heksher-context-values") == "any"


# -- declarations ------------------------------------------------------------------------------------------------------


class DeclarationOutcome(msgspec.Struct, frozen=True):
    """The service's response to a declaration."""

    outcome: str
    differences: tuple[Mapping[str, Any], ...] = ()
    latest_version: str | None = None
    detail: str = ""
    """The text of a response without an outcome."""
    is_older: bool = False
    """True if the response is older than what was applied before, so that its values are not used."""

    def latest(self, attribute: str) -> Any:
        """Return the service's value of an attribute that differs, or None."""
        values = [d.get("latest_value") for d in self.differences if d.get("attribute") == attribute]
        return values[0] if values else None


_DECLARE: Final = Request("POST", "/api/v1/settings/declare", {"Content-Type": "application/json"})
"""Without the declaration."""


def declare(declaration: bytes) -> Request:
    """Declare a setting."""
    return replace(_DECLARE, content=declaration)


CREATED: Final = "created"
UPTODATE: Final = "uptodate"
UPGRADED: Final = "upgraded"
OUTDATED: Final = "outdated"
REJECTED: Final = "rejected"
MISMATCH: Final = "mismatch"
CONFLICT: Final = "conflict"
"""A 409 without an outcome. Not a word of the service."""
_OUTCOMES: Final = {200: {CREATED, UPTODATE, UPGRADED, OUTDATED}, 409: {REJECTED, MISMATCH}}


def parse_declaration(reply: Reply, setting: str, declaration: bytes = b"") -> DeclarationOutcome:
    """Return the outcome of a declaration.

    Args:
        reply: The reply to it.
        setting: The name of the setting.
        declaration: What was sent, for errors.

    Raises:
        DeclarationError: The service did not accept it as a declaration (400, 404, 422), or not with these credentials
            (403): they may be sufficient for the other settings, which are declared already.
    """
    request = declare(declaration)
    response = parse_response(request, reply)
    if response.status in (400, 403, 404, 422):
        refused = DeclarationError(
            f"the service refused the declaration of setting {setting}: {_reason(response)}", setting=setting
        )
        refused.status, refused.content = response.status, truncate(response)
        refused.retry_after = retry_after(response)
        raise with_request(refused, request, response)
    if response.status == 409 and not _has_outcome(response):
        return DeclarationOutcome(CONFLICT, detail=_reason(response))
    body = json_object(request, response, _OUTCOMES)
    outcome, version, differences = body.get("outcome"), body.get("latest_version"), body.get("differences")
    if not isinstance(outcome, str) or outcome not in _OUTCOMES[response.status]:
        raise unexpected_response(request, response, "without a known outcome")
    return DeclarationOutcome(
        outcome,
        tuple(d for d in differences if isinstance(d, dict)) if isinstance(differences, list) else (),
        version if isinstance(version, str) else None,
    )


def _reason(response: Response) -> str:
    """Return why the service refused a declaration, in its own words if it has said it."""
    return body_excerpt(response) or f"no reason is given ({response.status})"


def _has_outcome(response: Response) -> bool:
    try:
        return "outcome" in json_object(_DECLARE, response, _OUTCOMES)
    except UnexpectedResponseError:
        return False


def is_unknown_version(reply: Reply) -> bool:
    """True if a declaration was refused because the service does not have the setting, and the version is not 1.0."""
    return isinstance(reply, Response) and reply.status == 400 and b"version 1.0" in reply.content


def is_unknown_alias(reply: Reply, alias: str) -> bool:
    """True if a declaration was refused because the service has no setting with the name given as the alias."""
    text = f"alias {alias} does not exist".encode()
    return isinstance(reply, Response) and reply.status == 404 and text in reply.content


# -- queries -----------------------------------------------------------------------------------------------------------
#
# Their responses are the large ones. So they are split into the bytes of each setting, which can be compared with the
# former ones, and decoded one setting at a time: objects for all of them at once would take a multiple of the memory,
# and of the time, as the garbage collector traverses them again and again.


class QueryBody(msgspec.Struct, frozen=True):
    """The response to a query."""

    settings: dict[str, msgspec.Raw]
    """By canonical name, not decoded yet."""
    etag: str | None


def changes(after: int | None, label: str | None = None) -> Request:
    """Open the stream of changes after a revision of the database with this identity and epoch."""
    headers = {"Accept": _EVENT_STREAM} | ({} if after is None else {"Last-Event-ID": str(after)})
    headers |= {} if after is None or label is None else {"Heksher-Database": label}
    return Request("GET", "/api/v1/changes", headers)


def stream_mismatch(status: int, headers: Mapping[str, str]) -> str | None:
    """Return how a response differs from a stream of events; None if it is one, an empty text if the status says it."""
    content_type = headers.get("content-type", "").partition(";")[0].strip()
    if status != _OK:
        return ""
    if content_type.lower() != _EVENT_STREAM:
        what = f"content type {shortened(content_type, _MAX_HEADER)!r}" if content_type else "no content type"
        return f"with {what} instead of {_EVENT_STREAM!r}"
    return encoding_problem(headers.get("content-encoding", "")) or None


def content_encodings(header: str) -> tuple[str, ...]:
    """Return the encodings of a body in the order in which they were applied (RFC 9110, section 8.4).

    A name that is not registered is left out: servers send `none`, `utf-8` or `aws-chunked` with a body that is not
    encoded, and HTTP clients accept that.
    """
    names = (name.strip().lower() for name in header.split(","))
    return tuple("gzip" if name == "x-gzip" else name for name in names if name in _ENCODINGS)


def encoding_problem(header: str) -> str:
    """Return why a body with these encodings cannot be decoded; an empty text if it can."""
    encodings = content_encodings(header)
    unsupported = [name for name in encodings if name not in _DECODED_ENCODINGS]
    if len(encodings) > _MAX_ENCODINGS:
        unsupported = [header]
    return f"with the unsupported encoding {shortened(', '.join(unsupported), _MAX_HEADER)!r}" if unsupported else ""


_DECODED_ENCODINGS: Final = frozenset(["gzip", "deflate"])
"""The encodings that are decoded, also if they were not requested. Others cannot be limited in size."""
_ENCODINGS: Final = _DECODED_ENCODINGS | {
    "x-gzip", "aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"
}  # fmt: skip
"""The encodings that are registered (https://www.iana.org/assignments/http-parameters), except `identity`."""
_MAX_ENCODINGS: Final = 3


_OK: Final = 200
_EVENT_STREAM: Final = "text/event-stream"
_MAX_HEADER: Final = 100
"""Characters of a header in a message."""


class RawRule(msgspec.Struct, gc=False):
    """A rule in the right form. Its value and conditions have not been checked."""

    rule_id: int
    context_features: tuple[tuple[str, str], ...]
    """The conditions, as pairs of feature and value."""
    value: Any


class QueriedSetting(msgspec.Struct, frozen=True):
    """The service's default value and rules of a setting."""

    default_value: Any
    rules: Sequence[RawRule] = ()
    undecoded: Sequence[msgspec.Raw] = ()
    """Used instead of `rules` if not all are in the right form, or if they are too many to be decoded in one step."""


def query_target(names: Sequence[str], context_filters: str, *, with_metadata: bool = False) -> str:
    """Return the path and query for the rules of settings."""
    filters, metadata = quote(context_filters, safe=FILTER_CHARACTERS), str(with_metadata).lower()
    return f"/api/v1/query?settings={','.join(names)}&context_filters={filters}&include_metadata={metadata}"


def query(target: str, etag: str | None) -> Request:
    """Query rules, if they have changed since the response with this ETag."""
    return Request("GET", target, {} if etag is None else {"If-None-Match": etag})


def parse_query(request: Request, reply: Reply) -> QueryBody | None:
    """Return the response to a query; None if nothing has changed."""
    response = parse_response(request, reply)
    if response.status == 304 and "If-None-Match" in request.headers:
        return None
    if response.status != 200:
        raise unexpected_response(request, response)
    try:
        body = _QUERY_BODY.decode(response.content)
    except msgspec.ValidationError:
        raise unexpected_response(request, response, "without settings") from None
    except _UNDECODABLE:
        raise unexpected_response(request, response, not_json(response)) from None
    return QueryBody(body.settings, response.headers.get("etag") or None)


def missing_names(reply: Reply, asked: Sequence[str]) -> frozenset[str]:
    """Return the settings that the service does not have, according to a 404."""
    if not isinstance(reply, Response) or reply.status != 404:
        return frozenset()
    # The names are quoted in a sentence. If our names do not occur in it, it may mean any of them.
    named = frozenset(re.findall(f"'({SETTING_NAME})'", reply.content.decode(errors="replace"))) & frozenset(asked)
    return named or frozenset(asked)


def is_too_large(reply: Reply) -> TypeGuard[Response | Oversized]:
    """True if a smaller query may succeed: the request was too long, or (500) there were too many rules."""
    return isinstance(reply, Oversized) or (isinstance(reply, Response) and reply.status in (413, 414, 431, 500))


def parse_queried_setting(name: str, raw: msgspec.Raw) -> QueriedSetting:
    """Return the default value and the rules of one setting in the response to a query.

    Raises:
        UnexpectedResponseError: It has no default value or no list of rules.
    """
    try:
        if len(raw) <= _MAX_DECODED_AT_ONCE:
            try:
                whole = _WHOLE_SETTING.decode(raw)
                return QueriedSetting(whole.default_value, whole.rules)
            except _UNDECODABLE:
                pass  # A faulty rule does not affect the others: they are decoded one by one.
        parts = _SETTING_IN_PARTS.decode(raw)
    except _UNDECODABLE:
        raise UnexpectedResponseError(
            f"the response for setting {name} has no default value or no list of rules", status=200
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
_MAX_DECODED_AT_ONCE: Final = 1 << 18
"""Bytes of one setting, some 3,000 rules, which take a few milliseconds, while other work waits."""


def decode_rules(raws: Iterable[msgspec.Raw]) -> tuple[list[RawRule], list[tuple[Any, str]]]:
    """Decode rules one by one. Return those in the right form, and the ids and errors of the others."""
    rules: list[RawRule] = []
    invalid: list[tuple[Any, str]] = []
    for raw in raws:
        try:
            rules.append(_RULE.decode(raw))
        except _UNDECODABLE as error:
            invalid.append((_rule_id(raw), str(error)))
    return rules, invalid


def _rule_id(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=_Numbered).rule_id
    except _UNDECODABLE:
        return None


# -- settings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SettingData:
    """A setting in the service, declared by any program."""

    name: str
    configurable_features: list[str]
    """In the service's order."""
    type: str
    """In the service's notation, for example `Sequence<int>`."""
    default_value: Any
    metadata: dict[str, Any]
    aliases: list[str]
    version: str
    """The version of the latest declaration."""


SETTINGS: Final = Request("GET", "/api/v1/settings?include_additional_data=true")


def parse_settings(reply: Reply) -> dict[str, SettingData]:
    """Return all settings of the service, by name."""
    response = parse_response(SETTINGS, reply)
    parsed = [_setting_data(SETTINGS, response, raw) for raw in json_field(SETTINGS, response, "settings", list)]
    return {setting.name: setting for setting in parsed}


def setting(name: str) -> Request:
    """Request one setting, by its name or an alias."""
    return Request("GET", f"/api/v1/settings/{name.replace('.', '%2E')}")


def parse_setting(request: Request, reply: Reply) -> SettingData | None:
    """Return one setting; None if the service has none of that name."""
    response = parse_response(request, reply)
    return None if response.status == 404 else _setting_data(request, response, json_object(request, response))


_SETTING_FIELDS: Final = {"name": str, "configurable_features": list, "type": str, "metadata": dict, "version": str}


def _setting_data(request: Request, response: Response, raw: Any) -> SettingData:
    if not isinstance(raw, dict) or "default_value" not in raw or not isinstance(raw.get("aliases"), list):
        raise unexpected_response(request, response, "a setting is incomplete")
    for key, kind in _SETTING_FIELDS.items():
        if not isinstance(raw.get(key), kind):
            raise unexpected_response(request, response, f"a setting has no {key}")
    return SettingData(**{key: raw[key] for key in (*_SETTING_FIELDS, "default_value", "aliases")})
