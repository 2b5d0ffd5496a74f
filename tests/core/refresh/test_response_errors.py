"""Errors of responses: their texts and attributes, what is redacted in them, and the classes that a program chose."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from heksher_client import (
    CredentialError,
    CredentialTimeoutError,
    DeclarationError,
    HeksherError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    UnexpectedResponseError,
    UntrustedServiceError,
)
from heksher_client._core.refresh import protocol
from heksher_client._core.refresh.backoff import Backoff
from heksher_client._core.refresh.effects import (
    Limits,
    NoResponse,
    Outdated,
    Oversized,
    Reply,
    Request,
    Response,
    SentRequest,
    timed_out,
)
from heksher_client._core.refresh.responses import (
    as_configured,
    identity,
    json_field,
    json_object,
    parse_response,
    with_prefix,
)

REQUEST = Request("GET", "/api/v1/query?settings=s")


def error_of(reply: Reply) -> HeksherError:
    """Return the error of a reply to `REQUEST`, whose body must be an object."""
    with pytest.raises(HeksherError) as raised:
        json_object(REQUEST, parse_response(REQUEST, reply))
    return raised.value


def redact(content: bytes) -> bytes:
    return content.replace(b"s3cr3t", b"***")


# -- no response -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (NoResponse(OSError("unplugged"), is_network_error=True), ServiceUnavailableError, "OSError: unplugged"),
        (NoResponse(OSError(), is_network_error=True), ServiceUnavailableError, "OSError"),
        (NoResponse(LookupError("a token")), ServiceUnavailableError, "LookupError"),
        (
            NoResponse(TimeoutError("late"), is_network_error=True, limit="limited to 5 seconds", is_timeout=True),
            ServiceTimeoutError,
            "TimeoutError: late, limited to 5 seconds",
        ),
        (
            NoResponse(OSError("bad certificate"), is_network_error=True, is_untrusted=True),
            UntrustedServiceError,
            "OSError: bad certificate",
        ),
        (NoResponse(OSError("a token"), is_untrusted=True), UntrustedServiceError, "OSError"),
    ],
)
def test_the_error_of_a_missing_response_names_its_cause(reply: NoResponse, kind: type[Exception], text: str) -> None:
    """Without the text, unless the network is the cause: the text may contain a token."""
    error = error_of(reply)
    assert (type(error), str(error)) == (kind, f"GET /api/v1/query: no response ({text})")
    assert error.__cause__ is reply.error
    assert (error.method, error.url, error.headers) == ("GET", "/api/v1/query?settings=s", None)


def test_an_error_of_the_credentials_has_its_text() -> None:
    """They were not sent. The text says what to do, and its cause may hold a secret."""
    error = error_of(NoResponse(CredentialError("log in first"), is_network_error=True))
    assert (type(error), str(error)) == (CredentialError, "GET /api/v1/query: log in first")
    assert error.__cause__ is None
    assert (error.method, error.url, error.headers) == ("GET", "/api/v1/query?settings=s", None)
    late = error_of(NoResponse(CredentialTimeoutError("no token"), is_network_error=True, is_timeout=True))
    assert (type(late), str(late)) == (CredentialTimeoutError, "GET /api/v1/query: no token")


def test_an_error_for_lack_of_time_is_a_timeout_error_as_well() -> None:
    """Of every limit, with its text and attributes, also from another process and with a prefix."""
    for limits in (Limits(5), Limits(5, total_seconds=2)):
        error = error_of(timed_out(limits))
        assert isinstance(error, ServiceTimeoutError)
        assert isinstance(error, TimeoutError)
        assert isinstance(error.__cause__, TimeoutError)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - it is our own
    text = (
        "GET /api/v1/query: no response (TimeoutError: no complete response within 2 seconds, "
        "limited by the option start_timeout)"
    )
    assert (type(copied), str(copied), vars(copied)) == (ServiceTimeoutError, text, vars(error))
    prefixed = with_prefix(error, "before")
    assert (type(prefixed), str(prefixed), vars(prefixed)) == (ServiceTimeoutError, f"before: {text}", vars(error))


# -- unexpected responses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (Response(500), "500"),
        (Response(401), "401 (the credentials are missing, wrong or insufficient)"),
        (Response(200), "200, but with an empty body"),
        (Response(200, problem="with the encoding x"), "200, but with the encoding x"),
        (Response(502, b"<html>"), "502: an HTML page"),
        (Response(502, b" <!DOCTYPE html>\n<title> Bad &amp; broken\n</title>"), "502: an HTML page, 'Bad & broken'"),
        (Response(401, b"no"), "401: 'no' (the credentials are missing, wrong or insufficient)"),
        (Response(403, b"no"), "403: 'no' (the credentials are missing, wrong or insufficient)"),
        (Response(404, b'{"detail": "no such"}'), "404: 'no such'"),
        (Response(422, b'{"detail": [1]}'), "422: '[1]'"),
        (Response(409, b'{"error": "x"}'), """409: '{"error": "x"}'"""),
        (Response(400, b'["detail"]'), """400: '["detail"]'"""),
        (Response(400, b"\xff"), "400: '\ufffd'"),
        (Response(200, b"<html>"), "200, but not in JSON: an HTML page"),
        (Response(200, b"[]"), "200, but not with an object: '[]'"),
        (Response(500, b"x" * 298), f"500: '{'x' * 298}'"),
        (Response(500, b"x" * 299), f"500: '{'x' * 298}…"),
        (Response(500, b"the s3cr3t", redact=redact), "500: 'the ***'"),
        (Response(500, b'{"detail": "the s3cr3t"}', redact=redact), "500: 'the ***'"),
    ],
)
def test_an_unexpected_response_is_quoted(response: Response, text: str) -> None:
    """Its detail if there is one, otherwise the beginning of the body; with the status, and what is wrong with it."""
    error = error_of(response)
    assert str(error) == f"GET /api/v1/query: the service responded with {text}"
    assert isinstance(error, UnexpectedResponseError)
    assert (error.status, error.content, error.retry_after) == (response.status, redact(response.content), None)
    assert (error.method, error.url, error.headers) == ("GET", "/api/v1/query?settings=s", {})
    assert error.__cause__ is None
    assert error.__suppress_context__ == (response.status == 200 and response.content != b"[]")


def test_a_response_with_too_many_bytes_is_an_error_with_the_limit() -> None:
    """And with the option that raises it."""
    error = error_of(Oversized(206, 8000))
    assert str(error) == (
        "GET /api/v1/query: the service responded with 206 and more than 8,000 bytes, the most that is accepted "
        "(max_response_bytes)"
    )
    assert isinstance(error, UnexpectedResponseError)
    assert (error.status, error.content, error.retry_after) == (206, b"", None)
    assert (error.method, error.url, error.headers) == ("GET", "/api/v1/query?settings=s", None)


def test_a_missing_field_is_named() -> None:
    """Also if it has another type."""
    for body in (b"{}", b'{"settings": {}}'):
        with pytest.raises(UnexpectedResponseError) as raised:
            json_field(REQUEST, Response(200, body), "settings", list)
        assert str(raised.value).startswith("GET /api/v1/query: the service responded with 200, but without settings: ")
    assert json_field(REQUEST, Response(200, b'{"settings": [1]}'), "settings", list) == [1]


def test_a_secret_at_the_end_of_an_excerpt_is_redacted() -> None:
    """It is found although only a part of it is in the first 64 KiB, however long the rest of it is."""
    secret = b"s" * (1 << 16)
    beginning = b"x" * ((1 << 16) - 4)
    error = error_of(Response(500, beginning + secret + b"rest", redact=lambda text: text.replace(secret, b"***")))
    assert isinstance(error, UnexpectedResponseError)
    assert error.content == beginning + b"***r"


def test_an_error_holds_64_kib_of_a_body_and_shows_a_line_of_it() -> None:
    """A secret that begins where the excerpt in the text ends is redacted there as well."""
    size = 1 << 16
    secret = b"s" * size
    body = b"x" * 1020 + secret
    error = error_of(Response(500, body, redact=lambda text: text.replace(secret, b"***")))
    assert isinstance(error, UnexpectedResponseError)
    assert error.content == b"x" * 1020 + b"***"
    assert str(error) == f"GET /api/v1/query: the service responded with 500: '{'x' * 298}…"
    long = error_of(Response(500, b"y" * (size + 1)))
    assert isinstance(long, UnexpectedResponseError)
    assert long.content == b"y" * size


def test_an_error_decodes_the_body() -> None:
    """Of an unexpected response, and of a refused declaration. A ValueError if it is not in JSON, or not complete."""
    content = orjson.dumps({"detail": [{"loc": ["body", "value"], "token": "s3cr3t"}]})
    error = error_of(Response(422, content, redact=redact))
    assert isinstance(error, UnexpectedResponseError)
    assert error.json() == {"detail": [{"loc": ["body", "value"], "token": "***"}]}
    with pytest.raises(DeclarationError) as refused:
        protocol.parse_declaration(Response(422, content, redact=redact), "cache_size")
    assert refused.value.json() == error.json()
    for invalid in (b"", b"<html>", b"[" * 2000, orjson.dumps("x" * (1 << 16))):
        error = error_of(Response(500, invalid))
        assert isinstance(error, UnexpectedResponseError)
        with pytest.raises(ValueError, match="line 1 column"):
            error.json()


def test_the_headers_of_a_response_are_redacted() -> None:
    """Headers with secrets of the client, the query and fragment of a redirect, and secrets of the request anywhere."""
    headers = {
        "set-cookie": "session=1",
        "authentication-info": "nonce=1",
        "server": "ä the s3cr3t \ud800",
        "location": "https://s3cr3t/login?token=1#2",
    }
    assert error_of(Response(302, headers=headers, redact=redact)).headers == {
        "set-cookie": "***",
        "authentication-info": "***",
        "server": "ä the *** ?",
        "location": "https://***/login?***",
    }
    for location, redacted in (("/login", "/login"), ("/login#token=1?x", "/login?***"), ("?", "?***")):
        assert error_of(Response(302, headers={"location": location})).headers == {"location": redacted}


DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "40"}, 40.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "999999999"}, 999999999.0),
        ({"retry-after": "1000000000"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "soon"}, None),
        ({"date": DATE}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:02:00 GMT", "date": DATE}, 120.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:02:00 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 2026 10:02:00 -0000", "date": DATE}, None),
        ({}, None),
    ],
)
def test_the_seconds_to_wait_are_those_of_retry_after(headers: Mapping[str, str], seconds: float | None) -> None:
    """A date is relative to that of the response."""
    error = error_of(Response(503, headers=headers))
    assert isinstance(error, UnexpectedResponseError)
    assert error.retry_after == seconds


def test_an_error_has_the_request_as_it_was_sent() -> None:
    """Or, if nobody knows how, as the protocol defines it."""
    sent = SentRequest("http://host/api?x=***", {"x-team": "shop"})
    request = Request("POST", "/api", {"Content-Type": "application/json"}, b"x" * ((1 << 16) + 1))
    for reply in (
        Response(500, sent=lambda: sent),
        NoResponse(OSError(), sent=lambda: sent),
        NoResponse(CredentialError("no"), sent=lambda: sent),
        NoResponse(OSError(), is_invalid=True, sent=lambda: sent),
        Oversized(200, 10, lambda: sent),
        Outdated(200, "too old", lambda: sent),
        timed_out(Limits(1)),
    ):
        with pytest.raises(HeksherError) as raised:
            json_object(request, parse_response(request, reply))
        expected = ("/api", {"content-type": "application/json"}) if reply.sent is None else (sent.url, sent.headers)
        assert (raised.value.url, raised.value.request_headers) == expected
        assert raised.value.request_content == b"x" * (1 << 16)
    assert error_of(Response(500)).request_content is None


# -- refused declarations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_declaration_has_the_request_and_the_response(status: int) -> None:
    """The body is redacted."""
    response = Response(status, b'{"detail": "no s3cr3t"}', {"server": "s3cr3t"}, redact)
    with pytest.raises(DeclarationError) as raised:
        protocol.parse_declaration(response, "cache_size", b'{"name": "cache_size"}')
    error = raised.value
    assert str(error) == "the service refused the declaration of setting cache_size: 'no ***'"
    assert (error.setting, error.status, error.content) == ("cache_size", status, b'{"detail": "no ***"}')
    assert (error.method, error.url) == ("POST", "/api/v1/settings/declare")
    assert error.headers == {"server": "***"}
    assert error.request_headers == {"content-type": "application/json"}
    assert error.request_content == b'{"name": "cache_size"}'


# -- errors as the program wants them ----------------------------------------------------------------------------------


class TeapotError(UnexpectedResponseError):
    """An error of a program, which cannot be created from a message."""

    def __init__(self) -> None:
        raise AssertionError


def unexpected(status: int) -> HeksherError:
    return error_of(Response(status, b"body", {"retry-after": "5"}))


def refused(status: int) -> DeclarationError:
    with pytest.raises(DeclarationError) as raised:
        protocol.parse_declaration(Response(status, b'{"detail": "no"}', {"retry-after": "5"}), "cache_size")
    return raised.value


def test_an_error_has_the_url_of_the_service() -> None:
    """Not twice, and not if there was no request."""
    error = unexpected(500)
    for _ in range(2):
        assert as_configured(error, "https://host/base", {}) is error
        assert error.url == "https://host/base/api/v1/query?settings=s"
    without_request = HeksherError("x")
    assert as_configured(without_request, "https://host", {}) is without_request
    assert without_request.url is None


def test_an_error_is_of_the_class_that_the_program_chose_for_its_status() -> None:
    """With the same message and the same attributes."""
    error = unexpected(418)
    configured = as_configured(error, "https://host", {418: TeapotError})
    assert type(configured) is TeapotError
    assert str(configured) == "GET /api/v1/query: the service responded with 418: 'body'"
    assert vars(configured) == vars(error)
    assert (configured.status, configured.retry_after) == (418, 5.0)
    assert configured.url == "https://host/api/v1/query?settings=s"
    assert as_configured(configured, "https://host", {418: UnexpectedResponseError}) is configured


@pytest.mark.parametrize("error", [unexpected(500), refused(404), HeksherError("x"), ZeroDivisionError()])
def test_an_error_of_another_status_or_kind_is_left_as_it_is(error: Any) -> None:
    """Only unexpected responses and refused declarations have a class for their status."""
    assert as_configured(error, "https://host", {418: TeapotError, 0: TeapotError}) is error


def test_a_refused_declaration_is_of_the_class_for_its_status_as_well() -> None:
    """With the same message and attributes, also from another process and with a prefix. It counts as a refusal."""
    error = refused(400)
    configured: Any = as_configured(error, "https://host", {400: TeapotError})
    copies = [configured, pickle.loads(pickle.dumps(configured)), copy.deepcopy(configured)]  # noqa: S301
    for one in [*copies, with_prefix(configured, "before")]:
        assert isinstance(one, TeapotError)
        assert isinstance(one, DeclarationError)
        assert type(one).__name__ == "TeapotError"
        assert vars(one) == vars(error)
        assert (one.setting, one.status, one.retry_after, one.json()) == ("cache_size", 400, 5.0, {"detail": "no"})
        assert str(one).endswith("the service refused the declaration of setting cache_size: 'no'")
        assert as_configured(one, "https://host", {400: TeapotError}) is one
    assert Backoff(0.0, 60.0).wait([configured], 1, 0.5) == Backoff(0.0, 60.0).wait([error], 1, 0.5)
    assert identity(configured).partition(" ")[2] == identity(error).partition(" ")[2]


class InvalidError(UnexpectedResponseError, DeclarationError):
    """A class of a program for both kinds of errors."""


def test_a_class_of_the_program_may_be_that_of_refused_declarations_itself() -> None:
    """Then no other class is made."""
    assert type(as_configured(refused(422), "https://host", {422: InvalidError})) is InvalidError
    broken = type("BrokenError", (InvalidError,), {"__str__": lambda self: [].pop()})
    kept = as_configured(refused(422), "https://host", {422: broken})
    assert type(kept) is DeclarationError
    assert str(kept).startswith("BrokenError of error_classes cannot be used (pop from empty list): the ")
