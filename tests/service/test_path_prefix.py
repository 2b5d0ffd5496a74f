"""The service below a path prefix: behind a proxy, as part of another application, or known to its server."""

import asyncio
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from heksher_client import Setting
from heksher_client.service import LocalService, create_app
from heksher_client.service.addresses import check_root_path
from heksher_client.service.tokens import Role, add_token
from tests.support.clients import TIMEOUT_SECONDS, ThreadClient, eventually
from tests.support.http import http_client

PREFIX = "/heksher"
App = Any


class StrippingProxy:
    """A proxy that removes the prefix, and responds to all other paths itself."""

    def __init__(self, app: App, headers: dict[str, str]) -> None:
        self._app, self.state = app, app.state
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if not scope["path"].startswith(f"{PREFIX}/"):
                await send({"type": "http.response.start", "status": 418, "headers": []})
                await send({"type": "http.response.body", "body": b"not part of the service"})
                return
            path = scope["path"].removeprefix(PREFIX)
            headers = [*scope["headers"], *self._headers]
            scope = {**scope, "path": path, "raw_path": path.encode(), "headers": headers}
        await self._app(scope, receive, send)


def mounted(app: App) -> App:
    outer = Starlette(routes=[Mount(PREFIX, app)], lifespan=app.router.lifespan_context)
    outer.state.event_stream = app.state.event_stream
    return outer


class WithServerPrefix:
    """A server that knows the prefix, behind a proxy that removes it. Some servers add it to the path."""

    def __init__(self, app: App, *, adds: bool) -> None:
        self._app, self._adds, self.state = app, adds, app.state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"] if self._adds else scope["path"].removeprefix(PREFIX)
            scope = {**scope, "root_path": f"{PREFIX}/", "path": path}
        await self._app(scope, receive, send)


PLACEMENTS: dict[str, tuple[str, Callable[[App], App]]] = {
    "a proxy that removes the prefix and reports it": (
        "", lambda app: StrippingProxy(app, {"X-Forwarded-Prefix": f"{PREFIX}/"})
    ),
    "a proxy that removes the prefix, which the service knows": (PREFIX, lambda app: StrippingProxy(app, {})),
    "a proxy that removes and reports a known prefix": (
        f"{PREFIX}/", lambda app: StrippingProxy(app, {"X-Forwarded-Prefix": PREFIX})
    ),
    "a proxy that keeps the prefix": (PREFIX, lambda app: app),
    "part of another application": ("", mounted),
    "a server that adds the prefix": ("", lambda app: WithServerPrefix(app, adds=True)),
    "a server that does not add the prefix": ("", lambda app: WithServerPrefix(app, adds=False)),
}  # fmt: skip


class Placed(LocalService):
    """A service with access control, and a token of each role."""

    def __init__(self, root_path: str, place: Callable[[App], App], *, access_control: bool = True) -> None:
        super().__init__(["user"])
        self._root_path, self._place, self._is_controlled = root_path, place, access_control
        self.tokens: dict[str, str] = {}

    def _make_app(self, database_url: Any) -> Any:
        app = create_app(
            database_url, self._context_features, access_control=self._is_controlled, root_path=self._root_path
        )
        with app.state.database.begin() as connection:
            self.tokens = {role.value: add_token(connection, role.value, role) for role in Role}
        return self._place(app)


@pytest.fixture(params=PLACEMENTS.values(), ids=list(PLACEMENTS))
def placed(request: pytest.FixtureRequest) -> Iterator[Placed]:
    with Placed(*request.param) as service:
        yield service


@pytest.fixture
def http(placed: Placed) -> Iterator[httpx.Client]:
    """A client for paths below the prefix, with the setting `s`."""
    headers = {"Authorization": f"Bearer {placed.tokens['admin']}"}
    with http_client(placed.url + PREFIX, headers=headers) as client:
        body = {"name": "s", "type": "int", "default_value": 7, "configurable_features": ["user"]}
        client.post("/api/v1/settings/declare", json=body).raise_for_status()
        yield client


@pytest.fixture
def browser(placed: Placed, http: httpx.Client) -> Iterator[httpx.Client]:
    with http_client(placed.url, follow_redirects=True) as client:
        yield client


def addresses(page: httpx.Response) -> set[str]:
    """Return the paths of all that a page refers to, as a browser resolves them."""
    found = re.findall(r'\b(?:href|src|action|hx-get)="([^"#]+)"', page.text)
    return {page.url.join(unescape(each)).path for each in found}


def hidden(page: httpx.Response, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    return found[1] if found else ""


def submit(browser: httpx.Client, page: httpx.Response, action: str, **fields: str) -> httpx.Response:
    """Submit a form of a page, as a browser does."""
    (address,) = {each for each in addresses(page) if each.endswith(action)}
    form = {"csrf": hidden(page, "csrf"), "next": unescape(hidden(page, "next")), **fields}
    headers = {"Origin": f"http://{page.url.netloc.decode()}", "Sec-Fetch-Site": "same-origin"}
    return browser.post(address, data=form, headers=headers)


def test_l6_operators_use_the_console_below_a_path_prefix(placed: Placed, browser: httpx.Client) -> None:
    """From the login to the logout. No page refers to anything beyond the prefix."""
    page = browser.get(f"{PREFIX}/console/settings/s?on.user=jim")
    assert page.url.path == f"{PREFIX}/console/login"
    page = submit(browser, page, "/console/login", token=placed.tokens["admin"])
    cookie = page.history[0].headers["set-cookie"]
    assert f"Path={PREFIX}/console;" in cookie
    assert (page.url.path, page.url.query) == (f"{PREFIX}/console/settings/s", b"on.user=jim")
    page = submit(browser, page, "/settings/s/rules", **{"if.user": "jim", "value": "x"})
    assert page.status_code == 422
    page = submit(browser, page, "/settings/s/rules", **{"if.user": "jim", "value": "8"})
    assert "Rule added" in page.text
    page = submit(browser, page, "/rules/1/value", value="9")
    assert "Rule changed" in page.text
    page = submit(browser, page, f"/changes/{re.findall(r'changes/([0-9]+)/undo', page.text)[0]}/undo")
    assert page.url.path == f"{PREFIX}/console/settings/s"
    pages = ["", "console", "console/", "console/settings/s", "console/changes", "console/settings/nosuch", "docs"]
    pages += ["console/changes/1/undo", "console/rules/1/value", "console/settings/s/edit/aliases/delete"]
    for path in pages:
        page = browser.get(f"{PREFIX}/{path}")
        assert page.status_code == (404 if path.endswith("nosuch") else 200), path
        for address in addresses(page):
            assert address.startswith(f"{PREFIX}/"), (path, address)
            if "/assets/" in address:
                assert browser.get(address).status_code == 200
    page = submit(browser, browser.get(f"{PREFIX}/console"), "/console/logout")
    assert page.url.path == f"{PREFIX}/console/login"
    assert browser.get(f"{PREFIX}/console").url.path == f"{PREFIX}/console/login"


def test_l6_programs_use_the_service_below_a_path_prefix(placed: Placed, http: httpx.Client) -> None:
    """With the event stream. A new rule has an address, also below the prefix."""
    setting = Setting("s", type=int, configurable_features=["user"], default_value=7)
    token = {"headers": {"Authorization": f"Bearer {placed.tokens['read']}"}}
    with ThreadClient(placed.url + PREFIX, 3600, ["user"], http_client_args=token):
        added = http.post("/api/v1/rules", json={"setting": "s", "feature_values": {"user": "jim"}, "value": 8})
        assert eventually(lambda: setting.get(user="jim") == 8)
    assert added.url.join(added.headers["location"]).path == f"{PREFIX}/api/v1/rules/1"
    moved = http.get("/api/v1/settings/s/?x=1")
    assert moved.status_code == 307
    assert str(moved.url.join(moved.headers["location"])) == f"{placed.url}{PREFIX}/api/v1/settings/s?x=1"


def test_l6_the_same_requests_need_no_token_below_a_path_prefix(placed: Placed, http: httpx.Client) -> None:
    """And the same metrics are counted."""
    with http_client(placed.url + PREFIX) as stranger:
        for path in ("/api/health", "/api/ready", "/docs", "/openapi.json", "/console/login"):
            assert stranger.get(path).status_code == 200
        for path in ("/metrics", "/api/v1/settings", "/api/v1/query", "/x/api/health"):
            assert stranger.get(path).status_code == 401
    assert 'route="/api/v1/settings/declare",status="200"} 1.0' in http.get("/metrics").text


@pytest.mark.parametrize("placement", [each for each in PLACEMENTS if PLACEMENTS[each][0]])
def test_l6_the_openapi_document_names_the_server_below_a_known_prefix(placement: str) -> None:
    with Placed(*PLACEMENTS[placement]) as service, http_client(service.url + PREFIX) as http:
        assert http.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_l6_the_prefix_without_a_slash_leads_to_the_console() -> None:
    with Placed(PREFIX, lambda app: app) as service, http_client(service.url, follow_redirects=True) as http:
        assert http.get(f"{PREFIX}?x=1").url.path == f"{PREFIX}/console/login"


@pytest.mark.parametrize("reported", ["//evil.example", "/a b", "/..", "/a/../b", "x", "/a;b", "/é"])
def test_l6_an_invalid_reported_prefix_is_ignored(reported: str) -> None:
    """It would be in the header of the cookie."""
    with Placed("", lambda app: app, access_control=False) as service, http_client(service.url) as http:
        page = http.get("/console", headers={b"X-Forwarded-Prefix": reported.encode()})
        assert "Path=/console;" in page.headers["set-cookie"]


@pytest.mark.parametrize("prefix", ["/api/v1", "/heksher", "/api/v1/rules/x"])
def test_l6_a_reported_prefix_does_not_affect_what_is_requested(prefix: str) -> None:
    """Rules of the proxy about paths, and of the service about tokens, could be circumvented."""
    with Placed("", lambda app: app) as service, http_client(service.url) as http:
        headers = {"X-Forwarded-Prefix": prefix}
        assert http.get(f"{prefix}/api/health", headers=headers).status_code == 401
        token = {"Authorization": f"Bearer {service.tokens['admin']}"}
        assert http.get(f"{prefix}/api/v1/settings", headers=headers | token).status_code == 404


def test_l6_prefixes_of_a_proxy_and_of_an_application_are_added() -> None:
    """The path of the cookie is that of the browser."""
    with Placed("", mounted, access_control=False) as service, http_client(service.url) as http:
        page = http.get(f"{PREFIX}/console", headers={"X-Forwarded-Prefix": "/eu, /other"})
        assert "Path=/eu/heksher/console;" in page.headers["set-cookie"]


@pytest.mark.parametrize(("given", "expected"), [("", ""), ("/", ""), ("/a/", "/a"), ("/a/b-1.~_", "/a/b-1.~_")])
def test_l6_a_root_path_ends_without_a_slash(given: str, expected: str) -> None:
    assert check_root_path(given) == expected


@pytest.mark.parametrize(
    "given", ["a", "/a b", "//a", "/a//b", "/..", "/a/.", "/api", "/console/x", "/docs", "/metrics/"]
)
def test_l6_an_invalid_root_path_is_refused(given: str) -> None:
    """Also one that begins like a path of the service, as a proxy may or may not have removed it."""
    with pytest.raises(ValueError, match="is not a valid root path"):
        create_app(root_path=given)


def test_l6_unknown_paths_with_a_slash_at_the_end_lead_to_no_other_host() -> None:
    """Nor to an endless redirect."""
    with (
        Placed("", lambda app: app, access_control=False) as service,
        http_client(service.url, follow_redirects=True) as http,
    ):
        for path in ("//evil.example/", "/nosuch//", "/javascript:x/", "/%2F/evil.example/", "/console/assets/"):
            response = http.get(f"{service.url}{path}")
            assert (response.status_code, response.url.host) == (404, "127.0.0.1")
        assert http.post(f"{service.url}/nosuch/").status_code == 404


def mount(app: App, outer: App, *paths: str) -> App:
    """Mount an application at a path, or at several, each within the next one."""
    for path in reversed(paths[1:]):
        app = Starlette(routes=[Mount(path, app)])
    outer.mount(paths[0], app)
    return outer


def with_root_path() -> FastAPI:
    app = FastAPI()
    app.root_path = "/outer"  # As an argument, it is deprecated.
    return app


OUTER: dict[str, tuple[str, Callable[[], App], list[str], str, str, str]] = {
    # The root path of the service; the outer application, and where it has the service; the root path of the server;
    # the path of the service in requests, and that of cookies.
    "FastAPI": ("", FastAPI, [PREFIX], "", PREFIX, "/heksher/console"),
    "Starlette in Starlette": ("", Starlette, ["/a", "/b"], "", "/a/b", "/a/b/console"),
    "a parameter": ("", FastAPI, ["/{tenant}"], "", "/acme", "/acme/console"),
    "characters that URLs encode": ("", FastAPI, ["/é ü;a"], "", "/é ü;a", "/%C3%A9%20%C3%BC%3Ba/console"),
    "characters that URLs do not encode": ("", FastAPI, ["/{tenant}"], "", "/a,b=c", "/a,b=c/console"),
    "a path of the service": ("", FastAPI, ["/api"], "", "/api", "/api/console"),
    "the root": ("", FastAPI, ["/"], "", "", "/console"),
    "a proxy removes the outer root path": ("", with_root_path, [PREFIX], "", PREFIX, "/outer/heksher/console"),
    "a proxy keeps the outer root path": ("", with_root_path, [PREFIX], "", "/outer/heksher", "/outer/heksher/console"),
    "a server has a root path in the path": (
        "",
        FastAPI,
        [PREFIX],
        "/outer",
        "/outer/heksher",
        "/outer/heksher/console",
    ),
    "a server has a root path only": ("", FastAPI, [PREFIX], "/outer", PREFIX, "/outer/heksher/console"),
    "the same root path": (PREFIX, FastAPI, [PREFIX], "", PREFIX, "/heksher/console"),
    "another root path": ("/y", FastAPI, ["/x"], "", "/x", "/"),
    "another root path, in Starlette": ("/y", Starlette, ["/x"], "", "/x", "/"),
    "another root path in the path": ("/y", FastAPI, ["/x"], "", "/x/y", "/x/y/console"),
    "a longer root path": ("/a/x", FastAPI, ["/x"], "", "/x", "/a/x/console"),
    "a shorter root path": ("/heksher", with_root_path, [PREFIX], "", PREFIX, "/outer/heksher/console"),
    "three root paths": ("/y", FastAPI, ["/x"], "/outer", "/outer/x", "/"),
}


@pytest.mark.parametrize(("own", "outer", "paths", "server", "base", "cookie_path"), OUTER.values(), ids=list(OUTER))
def test_l6_an_outer_application_may_have_a_path_prefix_as_well(
    own: str, outer: Callable[[], App], paths: list[str], server: str, base: str, cookie_path: str
) -> None:
    """All pages are found, refer to each other, and keep the session."""
    app = create_app(context_features=["user"], root_path=own, access_control=True)
    with app.state.database.begin() as connection:
        token = add_token(connection, "ann", Role.ADMIN)
    transport = httpx.ASGITransport(mount(app, outer(), *paths), root_path=server)

    async def use() -> None:
        options: dict[str, Any] = {"base_url": "http://127.0.0.1", "follow_redirects": True, "timeout": TIMEOUT_SECONDS}
        async with httpx.AsyncClient(transport=transport, **options) as client:
            assert (await client.get(f"{base}/api/health")).status_code == 200
            assert (await client.get(f"{base}/api/v1/settings")).status_code == 401
            headers = {"Authorization": f"Bearer {token}"}
            assert (await client.get(f"{base}/api/v1/settings", headers=headers)).status_code == 200
            page = await client.get(f"{base}/console")
            assert page.url.path == f"{base}/console/login"
            for address in addresses(page):
                assert address.startswith(f"{base}/console")
                assert (await client.get(address)).status_code == 200
            form = {"token": token, "next": "/console"}
            entry = await client.post(f"{base}/console/login", data=form, follow_redirects=False)
            assert page.url.join(entry.headers["location"]).path == f"{base}/console"
            assert re.findall("(?i)path=([^;]*)", entry.headers["set-cookie"]) == [cookie_path]
            client.cookies.clear()
            session = entry.headers["set-cookie"].partition(";")[0]
            page = await client.get(f"{base}/console", headers={"Cookie": session})
            assert page.url.path == f"{base}/console"

    asyncio.run(use())
    app.state.database.close()
