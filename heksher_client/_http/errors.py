"""Errors of HTTP clients: which are the network's, and how `ping` raises them as errors of httpx as well.

httpx's errors are recognized by the names of their classes, as libraries that behave like httpx have their own classes.
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Final

import httpx

from heksher_client._auth.http_clients import find_cause, is_unknown_authority
from heksher_client._core.refresh.effects import NoResponse
from heksher_client._http.body import sent_request
from heksher_client.exceptions import HeksherError, ServiceUnavailableError, UnexpectedResponseError

_NETWORK_ERRORS: Final = ("NetworkError", "RemoteProtocolError")
_TIMEOUTS: Final = {"ConnectTimeout": "connect", "ReadTimeout": "read", "WriteTimeout": "write", "PoolTimeout": "pool"}
"""The steps of a request, by the error for one that takes too long."""
_CONNECTION_ERRORS: Final = ("RemoteProtocolError", "ReadError", "WriteError")


def no_response(error: Exception, limits: Mapping[str, str], request: httpx.Request | None) -> NoResponse:
    """Classify an error that occurred instead of a response.

    Args:
        error: The error.
        limits: For messages: what limits the time of each step of the request.
        request: The request, if it was built.
    """
    if _is_httpx_error(error, "LocalProtocolError"):
        # Its message quotes the invalid header, which may be a token with a line break, and tracebacks show causes.
        error = httpx.LocalProtocolError("a header of the request is not valid")
    is_untrusted = _is_httpx_error(error, "ConnectError") and find_cause(error, ssl.SSLError) is not None
    remedy = "set ca_file to trust the authority of this certificate" if is_unknown_authority(error) else ""
    is_timeout = isinstance(error, TimeoutError) or _is_httpx_error(error, "TimeoutException")
    is_network_error = is_timeout or _is_httpx_error(error, *_NETWORK_ERRORS)
    limit = next((limits.get(step, "") for name, step in _TIMEOUTS.items() if _is_httpx_error(error, name)), "")
    # Of a response that a transport or an event hook of the program reads.
    is_invalid = _is_httpx_error(error, "DecodingError")
    sent = None if request is None else partial(sent_request, request)
    return NoResponse(error, is_network_error, is_untrusted, limit, is_invalid, is_timeout, sent, remedy)


def is_connection_error(error: Exception) -> bool:
    """Return True if an open connection failed."""
    return _is_httpx_error(error, *_CONNECTION_ERRORS)


def is_read_timeout(error: Exception) -> bool:
    """Return True if no byte of a response arrived in time."""
    return _is_httpx_error(error, "ReadTimeout")


def _is_httpx_error(error: Exception, *names: str) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("httpx") for kind in type(error).__mro__)


def as_http_error(error: HeksherError) -> HeksherError:
    """Return an error of the service or the network as an error that is an `httpx.HTTPError` as well.

    It has the attributes of those of httpx: `request`, and `response` if there was one. They are without secrets.
    """
    if not isinstance(error, ServiceUnavailableError | UnexpectedResponseError):
        return error
    original_class: Any = type(error)
    http_error_class: type[HeksherError] = _http_error_class(original_class)
    http_error = http_error_class.__new__(http_error_class, *error.args)
    request = None
    if error.method is not None and error.url is not None:
        content = error.request_content
        request = httpx.Request(error.method, error.url, headers=_encoded(error.request_headers), content=content)
    vars(http_error).update(vars(error), _request=request, _original=error)
    if isinstance(error, UnexpectedResponseError) and error.status and request is not None:
        headers = _encoded(error.headers)
        response = httpx.Response(error.status, headers=headers, content=error.content, request=request)
        vars(http_error).update(response=response)
    return http_error


def _encoded(headers: Mapping[str, str] | None) -> list[tuple[bytes, bytes]]:
    """Return headers for httpx, except those about a body that was decoded, and may have been truncated."""
    return [
        (name.encode(), value.encode(errors="replace"))
        for name, value in (headers or {}).items()
        if name not in ("content-encoding", "content-length", "transfer-encoding")
    ]


@lru_cache(maxsize=64)
def _http_error_class(original_class: Any) -> Any:
    """Create the subclass of an error class that is an `httpx.HTTPError` as well.

    It is created at run time because programs have error classes of their own (the option `error_classes`).
    """

    def reduce(self: Any) -> Any:  # pickle finds classes by name, and this one has the name of the original class
        return as_http_error, (self._original,)

    namespace = {"__doc__": original_class.__doc__, "__module__": original_class.__module__, "__reduce__": reduce}
    return type(original_class.__name__, (original_class, httpx.HTTPError), namespace)
