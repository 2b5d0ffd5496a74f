"""What all answers of the service share: which are none, what an error says of them, and the JSON in them."""

import re
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import orjson

from heksher_client._core.refresh.effects import NoResponse, Oversized, Reply, Request, Response
from heksher_client.exceptions import (
    CredentialError,
    HeksherError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UntrustedServiceError,
)

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=HeksherError)

_KEPT_OF_A_BODY: Final = 1024
_LONGEST_SECRET: Final = 1 << 16
"""Bytes: more than servers accept of a header, in whatever form."""


def unexpected(request: Request, response: Response | Oversized, what: str = "") -> UnexpectedResponseError:
    """An error for an answer outside the protocol."""
    if isinstance(response, Oversized):
        oversized = UnexpectedResponseError(
            f"{request}: the service answered {response.status} with more than {response.limit:,} bytes, the most that "
            "is accepted (max_response_bytes)",
            status=response.status,
        )
        return with_request(oversized, request)
    but = f", but {what}" if what else ""
    hint = " (the credentials are missing, wrong or not enough)" if response.status in (401, 403) else ""
    error = UnexpectedResponseError(
        f"{request}: the service answered {response.status}{but}: {said(response)}{hint}",
        status=response.status,
        content=beginning(response),
        retry_after=_retry_after(response),
    )
    return with_request(error, request, response)


def with_request(error: ErrorT, request: Request, response: Response | None = None) -> ErrorT:
    """The same error, which knows what it is about. Its URL is relative to the service's."""
    error.method, error.url = request.method, request.target
    if response is not None:
        error.headers = {name: _shown_header(response, name) for name in response.headers}
    return error


def _shown_header(response: Response, name: str) -> str:
    if name in _SECRET_HEADERS:
        return "***"
    if name == "location":  # A gateway may hand out a token there.
        place, *rest = re.split("[?#]", response.headers[name], maxsplit=1)
        return _shown(response, place) + ("?***" if rest else "")
    return _shown(response, response.headers[name])


def _shown(response: Response, text: str) -> str:
    return response.to_show(text.encode(errors="replace")).decode()


_SECRET_HEADERS: Final = frozenset(["set-cookie", "authentication-info"])
"""What a service gives a client to keep to itself."""


def beginning(response: Response) -> bytes:
    """The beginning of a body, as it may be shown."""
    # Cut after secrets are taken out, so that none is cut in two, which nothing would find any more.
    return response.to_show(response.content[: _KEPT_OF_A_BODY + _LONGEST_SECRET])[:_KEPT_OF_A_BODY]


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


def parse_response(request: Request, reply: Reply) -> Response:
    """The response to a request, of whatever status.

    Raises:
        HeksherError: There is none, or more of it than is accepted.
    """
    if isinstance(reply, NoResponse) and isinstance(reply.error, CredentialError):
        raise with_request(CredentialError(f"{request}: {reply.error}"), request)
    if isinstance(reply, NoResponse):
        # The words of the network's errors are harmless; those of others may hold a header or a token.
        name = type(reply.error).__name__
        words = f"{name}: {reply.error}" if reply.is_networks and str(reply.error) else name
        kind = UntrustedServiceError if reply.is_untrusted else ServiceUnavailableError
        raise with_request(kind(f"{request}: no answer ({words})"), request) from reply.error
    if isinstance(reply, Oversized):
        raise unexpected(request, reply)
    return reply


def json_object(request: Request, response: Response, statuses: Collection[int] = (200,)) -> dict[str, Any]:
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


def field_of(request: Request, response: Response, key: str, kind: type[T]) -> T:
    """A field of the JSON object of an answer; one without it is outside the protocol."""
    value = json_object(request, response).get(key)
    if not isinstance(value, kind):
        raise unexpected(request, response, f"without {key}")
    return value


def said(response: Response) -> str:
    """What the service says, for a message: short, and in one line. A fault has text, JSON or nothing for a body."""
    text = beginning(response).decode(errors="replace")
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        pass
    else:
        if isinstance(body, dict) and "detail" in body:
            text = _shown(response, str(body["detail"]))
    shown = repr(text)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."
