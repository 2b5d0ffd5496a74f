"""Responses of the service, of any endpoint: their errors, and the JSON in them."""

import re
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from html import unescape
from typing import Any, Final, TypeVar

import orjson

from heksher_client._core.refresh.effects import NoResponse, Outdated, Oversized, Reply, Request, Response
from heksher_client._core.settings.user_functions import DeferredResultError, InterruptedCodeError
from heksher_client._logging import shortened, text_of
from heksher_client.exceptions import (
    CredentialError,
    CredentialTimeoutError,
    DeclarationError,
    HeksherError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UntrustedServiceError,
)

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=HeksherError)

_MAX_CONTENT: Final = 1 << 16
"""Bytes of a body that an error holds."""
_MAX_TEXT: Final = 1024
"""Bytes of a body from which the excerpt in a message is made."""
_MAX_SECRET: Final = 1 << 16
"""Bytes: more than servers accept of a header, in any encoding."""
_MAX_EXCERPT: Final = 300
"""Characters of a body in a message."""
_COMMENT: Final = re.compile(r"<!--.*?-->|<\?xml[^>]*>|^\ufeff", re.DOTALL)
"""What may come before the first element of a page."""
_HTML: Final = re.compile(
    r"\s*<(!--|!doctype\s+html|(html|head|title|meta|link|base|script|style|body|center|div|h[1-6]|p|table)\b)",
    re.IGNORECASE,
)
"""The beginning of a page: an element of HTML, or a comment that is longer than the text."""
_TITLE: Final = re.compile(r"<title(?:\s[^>]*)?>([^<]+)<", re.IGNORECASE)
_HTML_TYPES: Final = ("text/html", "application/xhtml+xml")
_SECRET_HEADERS: Final = frozenset(["set-cookie", "authentication-info"])
"""Response headers with secrets of the client."""


def parse_response(request: Request, reply: Reply) -> Response:
    """Return the response to a request, of any status.

    Raises:
        HeksherError: There is none, its body is too large, or it is too old.
    """
    if isinstance(reply, NoResponse) and isinstance(reply.error, CredentialError):
        is_late = isinstance(reply.error, CredentialTimeoutError)
        no_token = CredentialTimeoutError if is_late else CredentialError
        raise with_request(no_token(f"{request}: {reply.error}"), request, reply)
    if isinstance(reply, NoResponse):
        # Errors of the network are harmless; the text of others may contain a header or a token.
        name = type(reply.error).__name__
        is_harmless = isinstance(reply.error, DeferredResultError | InterruptedCodeError)
        is_harmless |= reply.is_network_error or reply.is_invalid
        text = f"{name}: {reply.error}" if is_harmless and str(reply.error) else name
        text += f", {reply.limit}" if reply.limit else ""
        if reply.is_invalid:
            invalid = UnexpectedResponseError(f"{request}: the response cannot be decoded ({text})")
            raise with_request(invalid, request, reply) from reply.error
        text += f"; {reply.remedy}" if reply.remedy else ""
        raise with_request(_kind(reply)(f"{request}: no response ({text})"), request, reply) from reply.error
    if isinstance(reply, Oversized):
        raise unexpected_response(request, reply)
    if isinstance(reply, Outdated):
        raise with_request(UnexpectedResponseError(f"{request}: {reply.reason}"), request, reply)
    return reply


def _kind(reply: NoResponse) -> type[ServiceUnavailableError]:
    if reply.is_untrusted:
        return UntrustedServiceError
    return ServiceTimeoutError if reply.is_timeout else ServiceUnavailableError


def json_object(request: Request, response: Response, statuses: Collection[int] = (200,)) -> dict[str, Any]:
    """Return the JSON object in a response.

    Raises:
        UnexpectedResponseError: It has another status, or another body.
    """
    if response.status not in statuses:
        raise unexpected_response(request, response)
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise unexpected_response(request, response, not_json(response)) from None
    if not isinstance(body, dict):
        raise unexpected_response(request, response, "not with an object")
    return body


def not_json(response: Response) -> str:
    """Return why a response is not in JSON, for `unexpected_response`."""
    return response.problem or ("not in JSON" if response.content else "with an empty body")


def json_field(request: Request, response: Response, key: str, kind: type[T]) -> T:
    """Return a field of the JSON object in a response.

    Raises:
        UnexpectedResponseError: There is none of this type.
    """
    value = json_object(request, response).get(key)
    if not isinstance(value, kind):
        raise unexpected_response(request, response, f"without {key}")
    return value


# -- errors ------------------------------------------------------------------------------------------------------------


def unexpected_response(request: Request, response: Response | Oversized, what: str = "") -> UnexpectedResponseError:
    """Return the error for a response outside the protocol."""
    if isinstance(response, Oversized):
        oversized = UnexpectedResponseError(
            f"{request}: the service responded with {response.status} and more than {response.limit:,} bytes, the most "
            "that is accepted (max_response_bytes)",
            status=response.status,
        )
        return with_request(oversized, request, response)
    but = f", but {what}" if (what := what or response.problem) else ""
    hint = " (the credentials are missing, wrong or insufficient)" if response.status in (401, 403) else ""
    excerpt = body_excerpt(response)
    error = UnexpectedResponseError(
        f"{request}: the service responded with {response.status}{but}{f': {excerpt}' if excerpt else ''}{hint}",
        status=response.status,
        content=truncate(response),
        retry_after=retry_after(response),
    )
    return with_request(error, request, response)


def with_request(error: ErrorT, request: Request, reply: Reply) -> ErrorT:
    """Add the request and the headers of its response to an error.

    The URL is relative to the service's if the reply does not have the request as it was sent.
    """
    error.method = request.method
    if reply.sent is None:
        error.url, error.request_headers = request.target, {name.lower(): one for name, one in request.headers.items()}
    else:
        sent = reply.sent()
        error.url, error.request_headers = sent.url, sent.headers
    error.request_content = None if request.content is None else request.content[:_MAX_CONTENT]
    if isinstance(reply, Response):
        error.headers = {name: _redacted_header(reply, name) for name in reply.headers}
    return error


def with_prefix(error: ErrorT, prefix: str) -> ErrorT:
    """Return the same error with a text before its own."""
    prefixed = error.__class__.__new__(error.__class__, f"{prefix}: {error}")
    vars(prefixed).update(vars(error))
    prefixed.__cause__ = error.__cause__
    return prefixed


def as_configured(
    error: Exception, service_url: str, error_classes: Mapping[int, type[UnexpectedResponseError]]
) -> Exception:
    """Return an error with the whole URL, and of the class that the program has chosen for its status.

    The error of a declaration stays a `DeclarationError` as well. If the program's class cannot be used, as its text
    depends on its `__init__`, say, the error keeps its own and says so.
    """
    if isinstance(error, HeksherError) and error.url is not None and error.url.startswith("/"):
        error.url = service_url + error.url
    if not isinstance(error, UnexpectedResponseError | DeclarationError):
        return error
    kind: Any = error_classes.get(error.status)
    if kind is None or isinstance(error, kind):
        return error
    try:
        configured = _of_class(_refusal_class(kind) if isinstance(error, DeclarationError) else kind, error)
        str(configured)
    except Exception as problem:
        return with_prefix(error, f"{kind.__name__} of error_classes cannot be used ({text_of(problem)})")
    return configured


def _of_class(kind: Any, error: HeksherError) -> HeksherError:
    """Return the same error of another class, without its `__init__`, which may have any parameters."""
    other: HeksherError = kind.__new__(kind, *error.args)
    vars(other).update(vars(error))
    return other


def _as_refusal(kind: Any, args: tuple[Any, ...], attributes: dict[str, Any]) -> HeksherError:
    """Return a refused declaration of a class of the program again, from what pickle has stored."""
    plain = DeclarationError(*args)
    vars(plain).update(attributes)
    return _of_class(_refusal_class(kind), plain)


@lru_cache(maxsize=64)
def _refusal_class(kind: Any) -> Any:
    """Return the subclass of a class of the program that is a `DeclarationError` as well."""
    if issubclass(kind, DeclarationError):
        return kind

    def reduce(self: Any) -> Any:  # pickle finds classes by name, and this one has the name of the program's
        return _as_refusal, (kind, self.args, vars(self))

    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    return type(kind.__name__, (kind, DeclarationError), namespace)


def truncate(response: Response, size: int = _MAX_CONTENT) -> bytes:
    """Return the beginning of a body, redacted."""
    # Truncated after it was redacted, so that no secret is cut in two, and then not found.
    return response.redact(response.content[: size + _MAX_SECRET])[:size]


def body_excerpt(response: Response) -> str:
    """Return the body for a message: short, and in one line. The body of an error may be text or JSON, or empty.

    Of an HTML page, which is another server's, there is only the title.
    """
    if not response.content:
        return ""
    text = truncate(response, _MAX_TEXT).decode(errors="replace")
    beginning = _COMMENT.sub("", text).lstrip()
    is_html = response.headers.get("content-type", "").lower().startswith(_HTML_TYPES) and beginning.startswith("<")
    if is_html or _HTML.match(beginning):
        title = _TITLE.search(_redacted(response, response.content[:_MAX_SECRET].decode(errors="replace")))
        words = " ".join(unescape(title[1]).split()) if title else ""
        return "an HTML page" + (f", {shortened(repr(words), _MAX_EXCERPT)}" if words else "")
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        pass
    else:
        if isinstance(body, dict) and "detail" in body:
            text = _redacted(response, str(body["detail"]))
    return shortened(repr(text), _MAX_EXCERPT)


def _redacted_header(response: Response, name: str) -> str:
    if name in _SECRET_HEADERS:
        return "***"
    if name == "location":  # A gateway may put a token there.
        place, *rest = re.split("[?#]", response.headers[name], maxsplit=1)
        return _redacted(response, place) + ("?***" if rest else "")
    return _redacted(response, response.headers[name])


def _redacted(response: Response, text: str) -> str:
    return response.redact(text.encode(errors="replace")).decode()


def retry_after(response: Response) -> float | None:
    """Return the seconds to wait. A date is relative to the date of the response, by the service's clock."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        until, now = parsedate_to_datetime(value), parsedate_to_datetime(response.headers.get("date", ""))
        return (until - now).total_seconds()
    except (TypeError, ValueError, OverflowError):  # not a date, or one without a time zone
        return None


def identity(failure: Exception) -> str:
    """Return what two failures of the same kind have in common: their text without numbers, which may be ports, times
    and ids.

    Texts of a server may have ids in any form, so of these only plain words are compared.
    """
    text, status = text_of(failure), getattr(failure, "status", None)
    is_unexpected = isinstance(failure, UnexpectedResponseError) and not isinstance(failure, DeclarationError)
    if is_unexpected and (status or 0) >= 400:
        text = text.partition(": ")[0]  # The response may contain the id of the request.
    own, *quoted = _QUOTATION.split(text, maxsplit=1)
    words = "".join(_OPAQUE.sub("#", part) for part in quoted)
    return f"{type(failure).__name__} {status}: {_NUMBER.sub('#', own)}{words}"


_NUMBER: Final = re.compile(r"\b(?:[0-9]+(?:T[0-9]+)?(?:Z|[mun]?s)?|0x[0-9a-fA-F]+|[0-9a-fA-F]{8}[0-9a-fA-F-]*)\b")
"""Also a part of a time, an address, or a hexadecimal id; but not the digits in a name."""
_QUOTATION: Final = re.compile(r"""(?<=[:,] )(?=['"])|(?<=refused )(?=\()""")
"""The place in a message from where on it is the text of a server."""
_PART: Final = r"""[^\s'"(){}\[\],;<>\\]"""
_OPAQUE: Final = re.compile(rf"{_PART}*(?:[0-9]|[a-z][A-Z]|[A-Za-z]{{20}}){_PART}*")
"""A word with a digit, an uppercase letter after a lowercase one, or 20 letters: a number, a time or an id."""
