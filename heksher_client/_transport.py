"""Between the core's values and httpx's: the only place that knows both."""

from collections.abc import Mapping
from typing import Any

import httpx

from heksher_client._core.protocol import NoResponse, Request, Response
from heksher_client._version import __version__
from heksher_client.exceptions import HeksherError, ServiceUnavailableError, UnexpectedResponseError


def client_arguments(service_url: str, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments for an httpx client: the program's own, with ours where it says nothing.

    Raises:
        ValueError: The URL is no HTTP URL that paths can be appended to.
    """
    try:
        url = httpx.URL(service_url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("service_url is no URL (a user name or password in it must be percent-encoded)") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("service_url must be an absolute http:// or https:// URL")
    if url.query or url.fragment:
        raise ValueError("service_url must have no query and no fragment: requests append their paths to it")
    arguments = dict(arguments or {})
    if url.userinfo:
        # httpx would do the same with each request, and write the URL with its password into its log.
        arguments.setdefault("auth", (url.username, url.password))
        url = url.copy_with(username=None, password=None)
    headers = httpx.Headers(arguments.pop("headers", None))
    headers.setdefault("User-Agent", f"heksher-client/{__version__}")
    return {"base_url": url, "headers": headers, **arguments}


def to_httpx(client: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """A request as httpx sends it, with the client's URL, headers, cookies and parameters."""
    built = client.build_request(request.method, request.target, headers=dict(request.headers), content=request.content)
    query = request.target.partition("?")[2]
    if query and client.params:
        # httpx would replace the query of a URL by the client's parameters.
        built.url = built.url.copy_with(query=f"{query}&{client.params}".encode())
    return built


def from_httpx(response: httpx.Response) -> Response:
    """A response, read to its end, as the core takes it."""
    return Response(response.status_code, response.content, {k.lower(): v for k, v in response.headers.items()})


def no_response(error: Exception) -> NoResponse:
    """A failure to get any response. Of httpx's errors, those of the network are told from those of bad requests."""
    return NoResponse(error, is_networks=isinstance(error, httpx.NetworkError | httpx.TimeoutException))


class UnavailableHTTPError(ServiceUnavailableError, httpx.HTTPError):
    """A `ServiceUnavailableError` where the interface promises an `httpx.HTTPError`."""


class UnexpectedHTTPError(UnexpectedResponseError, httpx.HTTPError):
    """An `UnexpectedResponseError` where the interface promises an `httpx.HTTPError`."""

    def __init__(self, error: UnexpectedResponseError) -> None:
        httpx.HTTPError.__init__(self, str(error))
        self.status, self.content = error.status, error.content


def as_http_error(error: HeksherError) -> HeksherError:
    """The same error, as an `httpx.HTTPError` as well if it is the service's or the network's doing."""
    if isinstance(error, UnexpectedResponseError):
        return UnexpectedHTTPError(error)
    return UnavailableHTTPError(str(error)) if isinstance(error, ServiceUnavailableError) else error
