"""The wire protocol as values: what is asked, what came back, and how a flow asks for it.

A flow is a generator. It yields a step, is sent what came of it, and returns its result. Whoever runs it sends, waits
and locks; everything else is decided here and in `session`. Each endpoint has one builder and one parser, and a parser
raises `ServiceUnavailableError` or `UnexpectedResponseError` for every answer that is not of the protocol.
"""

import math
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar
from urllib.parse import quote

import msgspec
import orjson

from heksher_client.exceptions import (
    DeclarationError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UntrustedServiceError,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, relative to the service's URL."""

    method: str
    target: str
    """Path and query, encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response, of whatever status."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    to_show: Callable[[bytes], bytes] = bytes
    """Takes out of some of the content what is not to be shown: something may have repeated the request in it."""


@dataclass(frozen=True, slots=True)
class NoResponse:
    """There was no response; a value, so that a flow decides what that means for it."""

    error: Exception
    is_networks: bool = False
    """Whether the error is the network's, and not one of the program's authentication, transport or headers."""
    is_untrusted: bool = False
    """Whether there was no secure connection to the right service."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """There was a response, and more of it than is accepted."""

    status: int
    limit: int
    """Bytes."""


Reply: TypeAlias = Response | NoResponse | Oversized


AT_ONCE: Final = 10
"""How many requests of one client the service may get at the same moment."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an exchange may take."""

    seconds: float = math.inf
    """For each request, from looking the service up to the last byte of the body. Once one has taken longer, those that
    were not sent yet are not sent any more."""
    total_seconds: float = math.inf
    """For all requests of an exchange together."""
    max_bytes: int = 1 << 62
    """Of the body of a response, inflated."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send these requests, `AT_ONCE` at the same moment; the flow is sent their replies in the same order."""

    requests: tuple[Request, ...]
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Pause:
    """Let others run, or wait."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Install:
    """Call this while holding the modification lock."""

    apply: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Aside:
    """Call this where waiting for a disk keeps nobody from running; the flow is sent its result, or None if that takes
    too long, or if a former call has not come back yet."""

    call: Callable[[], Any]
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Notify:
    """Call this, which is the program's own, where it may take its time. It is not called if a former one has not come
    back yet."""

    call: Callable[[], Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Send a request, and hand on the body of a success as it comes; the flow is sent how it ended.

    The content of the reply to it is that of a refusal, or nothing.
    """

    request: Request
    take: Callable[[bytes], bool]
    """Tells whether it wants more."""
    seconds: float
    """The longest without a byte."""


Step: TypeAlias = Exchange | Pause | Install | Aside | Notify | Listen
Flow: TypeAlias = Generator[Step, Any, T]


def limited(flow: Flow[T], limits: Callable[[], Limits]) -> Flow[T]:
    """The same flow, with limits for its exchanges and for waiting for a disk, as they are at the time of each.

    An exchange for which there is no time is not begun.
    """
    with closing(flow):
        try:
            step = next(flow)
            while True:
                now = limits()
                if isinstance(step, Aside):
                    step = replace(step, seconds=now.seconds)
                if not isinstance(step, Exchange):
                    step = flow.send((yield step))
                elif now.total_seconds > 0:
                    step = flow.send((yield replace(step, limits=now)))
                else:
                    step = flow.send((too_late(now),) * len(step.requests))
        except StopIteration as end:
            result: T = end.value
            return result


def too_late(limits: Limits) -> NoResponse:
    """The reply to a request for which there was not enough time."""
    allowed = limits.seconds if limits.seconds < limits.total_seconds else max(limits.total_seconds, 0.0)
    return NoResponse(TimeoutError(f"not all of an answer within {allowed:.3g} seconds"), is_networks=True)


def exchange(*requests: Request) -> Flow[tuple[Reply, ...]]:
    """Send requests, several at once, and get their replies in the same order."""
    replies: tuple[Reply, ...] = (yield Exchange(requests)) if requests else ()
    return replies


def aside(call: Callable[[], T]) -> Flow[T]:
    """Call something that may wait for a disk.

    Raises:
        TimeoutError: It took too long, or a former call still does.
        Exception: What it raised.
    """

    def attempt() -> tuple[list[T], Exception | None]:
        try:
            return [call()], None
        except Exception as error:  # The flow decides what that means.
            return [], error

    outcome = yield Aside(attempt)
    if outcome is None:
        raise TimeoutError("the disk takes too long")
    results, error = outcome
    if error is not None:
        raise error
    result: T = results[0]
    return result


# -- health, context features ------------------------------------------------------------------------------------------

HEALTH: Final = Request("GET", "/api/health")
CONTEXT_FEATURES: Final = Request("GET", "/api/v1/context_features")


def parse_health(reply: Reply) -> None:
    """Accept any success: the body is for people."""
    response = _answered(HEALTH, reply)
    if not 200 <= response.status < 300:
        raise unexpected(HEALTH, response)


def parse_context_features(reply: Reply) -> tuple[str, ...]:
    """The context features, in the service's order."""
    response = _answered(CONTEXT_FEATURES, reply)
    features = _field(CONTEXT_FEATURES, response, "context_features", list)
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
    return Request("POST", "/api/v1/settings/declare", _JSON_CONTENT, declaration)


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
    response = _answered(request, reply)
    if response.status in (400, 404, 422):
        raise DeclarationError(
            f"the service refused the declaration of setting {setting}: {_words(response)}", setting=setting
        )
    answer = _json_object(request, response, _OUTCOMES)
    if response.status == 409 and "outcome" not in answer:
        return DeclarationAnswer(CONFLICT, detail=_words(response))
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


def query_target(names: Sequence[str], context_filters: str) -> str:
    """The path and query that ask for the rules of settings."""
    return (
        f"/api/v1/query?settings={','.join(names)}"
        f"&context_filters={quote(context_filters, safe=',:()*')}&include_metadata=false"
    )


def query(target: str, etag: str | None) -> Request:
    """Ask for rules, or for whether they have changed since the answer with this ETag."""
    return Request("GET", target, {} if etag is None else {"If-None-Match": etag})


def parse_query(request: Request, reply: Reply) -> QueryAnswer | None:
    """The answer to a query; None if nothing has changed."""
    response = _answered(request, reply)
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
    response = _answered(SETTINGS, reply)
    parsed = [_setting_data(SETTINGS, response, raw) for raw in _field(SETTINGS, response, "settings", list)]
    return {setting.name: setting for setting in parsed}


def setting(name: str) -> Request:
    """Ask for one setting, by its name or an alias."""
    return Request("GET", f"/api/v1/settings/{name.replace('.', '%2E')}")


def parse_setting(request: Request, reply: Reply) -> SettingData | None:
    """One setting; None if the service has none of that name."""
    response = _answered(request, reply)
    return None if response.status == 404 else _setting_data(request, response, _json_object(request, response))


_SETTING_FIELDS: Final = {"name": str, "configurable_features": list, "type": str, "metadata": dict, "version": str}


def _setting_data(request: Request, response: Response, raw: Any) -> SettingData:
    if not isinstance(raw, dict) or "default_value" not in raw or not isinstance(raw.get("aliases"), list):
        raise unexpected(request, response, "a setting is incomplete")
    for key, kind in _SETTING_FIELDS.items():
        if not isinstance(raw.get(key), kind):
            raise unexpected(request, response, f"a setting has no {key}")
    return SettingData(**{key: raw[key] for key in (*_SETTING_FIELDS, "default_value", "aliases")})


# -- what all of them share --------------------------------------------------------------------------------------------

_JSON_CONTENT: Final = {"Content-Type": "application/json"}
_KEPT_OF_A_BODY: Final = 1024


def unexpected(request: Request, response: Response | Oversized, what: str = "") -> UnexpectedResponseError:
    """An error for an answer outside the protocol."""
    if isinstance(response, Oversized):
        return UnexpectedResponseError(
            f"{request}: the service answered {response.status} with more than {response.limit:,} bytes, the most that "
            "is accepted (max_response_bytes)",
            status=response.status,
        )
    if response.status in (401, 403):
        what = what or "which is for people to mend: the credentials are missing, wrong or not enough"
    return UnexpectedResponseError(
        f"{request}: the service answered {response.status}{f', but {what}' if what else ''}: {_words(response)}",
        status=response.status,
        content=response.to_show(response.content[:_KEPT_OF_A_BODY]),
        retry_after=_retry_after(response),
    )


def _retry_after(response: Response) -> float | None:
    """The seconds that the service asks to wait. A date is counted from the answer's own, by the service's clock."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        until, now = parsedate_to_datetime(value), parsedate_to_datetime(response.headers.get("date", ""))
        return (until - now).total_seconds()
    except (TypeError, ValueError, OverflowError):  # it is no date, or one without a time zone
        return None


def _answered(request: Request, reply: Reply) -> Response:
    if isinstance(reply, NoResponse):
        # The words of the network's errors are harmless; those of others may hold a header or a token.
        name = type(reply.error).__name__
        words = f"{name}: {reply.error}" if reply.is_networks and str(reply.error) else name
        kind = UntrustedServiceError if reply.is_untrusted else ServiceUnavailableError
        raise kind(f"{request}: no answer ({words})") from reply.error
    if isinstance(reply, Oversized):
        raise unexpected(request, reply)
    return reply


def _json_object(request: Request, response: Response, statuses: Collection[int] = (200,)) -> dict[str, Any]:
    """The JSON object of an answer; all other statuses, and all other bodies, are outside the protocol."""
    if response.status not in statuses:
        raise unexpected(request, response)
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise unexpected(request, response, "not in JSON") from None
    if not isinstance(body, dict):
        raise unexpected(request, response, "not with an object")
    return body


def _field(request: Request, response: Response, key: str, kind: type[T]) -> T:
    value = _json_object(request, response).get(key)
    if not isinstance(value, kind):
        raise unexpected(request, response, f"without {key}")
    return value


def _words(response: Response) -> str:
    """What the service says, for a message: short, and in one line. A fault has text, JSON or nothing for a body."""
    text = response.to_show(response.content[:_KEPT_OF_A_BODY]).decode(errors="replace")
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        pass
    else:
        if isinstance(body, dict) and "detail" in body:
            text = response.to_show(str(body["detail"]).encode(errors="replace")).decode()
    shown = repr(text)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."
