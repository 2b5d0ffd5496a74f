"""The console in a browser without scripts."""

import re
from html import unescape
from typing import Any

import httpx

from tests.support.http import http_client
from tests.support.service import WatchedService


class Browser:
    """An HTTP client that reads pages and submits their forms."""

    def __init__(self, url: str) -> None:
        self.http = http_client(url, follow_redirects=True)
        self.page = ""

    def go(self, path: str) -> httpx.Response:
        return self._show(self.http.get(path))

    def submit(self, action: str, **fields: Any) -> httpx.Response:
        """Submit a form of the current page with its hidden inputs."""
        assert f'action="{action}"' in self.page, action
        fields.setdefault("csrf", self.csrf)
        return self._show(self.http.post(action, data=fields))

    def _show(self, response: httpx.Response) -> httpx.Response:
        self.page = unescape(absolute(response))
        return response

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]*)"', self.page)
        return found[1] if found else ""

    @property
    def text(self) -> str:
        """The text of the page, without its markup."""
        return " ".join(re.sub(r"<[^>]*>", " ", self.page.partition("<main")[2]).split())


def absolute(response: httpx.Response) -> str:
    """Return a page with absolute paths, as the browser resolves them."""

    def resolve(found: re.Match[str]) -> str:
        return f'{found[1]}="{response.url.join(unescape(found[2])).raw_path.decode()}"'

    return re.sub(r'\b(href|src|action|hx-get)="([^"#:]+)"', resolve, response.text)


def rule_values(service: WatchedService) -> set[Any]:
    """Return the values of the rules of the setting `s`."""
    return {rule["value"] for rule in service.call("GET", "/api/v1/query").json()["settings"]["s"]["rules"]}
