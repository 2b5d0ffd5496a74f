"""HTTP clients for the requests that tests send themselves.

None of them has httpx's default timeout: a busy machine may well take more than 5 seconds for a response.
"""

from typing import Any

import httpx

from tests.support.clients import TIMEOUT_SECONDS


def http_client(url: str = "", **options: Any) -> httpx.Client:
    """Make a client with a base URL. It loads no certificates, which takes long, unless `verify` says otherwise."""
    return httpx.Client(base_url=url, **{"verify": False, "timeout": TIMEOUT_SECONDS, **options})


def http_request(method: str, url: str, **options: Any) -> httpx.Response:
    """Send one request over a connection of its own."""
    with http_client() as http:
        return http.request(method, url, **options)
