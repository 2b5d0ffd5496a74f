"""Requests as browsers, proxies, monitors and other HTTP clients send them: their headers, methods and sizes."""

import json
import socket
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from heksher_client.service import LocalService, access
from heksher_client.service.console import forms
from heksher_client.service.tokens import Role, add_token
from tests.support.clients import TIMEOUT_SECONDS
from tests.support.openapi import OPERATIONS
from tests.support.service import WatchedService

STREAM = "/api/v1/changes"
FEATURE = json.dumps({"context_feature": "region"}).encode()


@pytest.fixture
def service(_session_service: WatchedService) -> WatchedService:
    """A service without access control, which does not depend on its database."""
    _session_service.reset(access_control=False)
    _session_service.declare("cache_size", "int", 10, ["environment", "user"])
    return _session_service


@pytest.fixture
def secret(service: WatchedService) -> str:
    """The token of an administrator of the same service, which now requires one."""
    service.reset(access_control=True)
    assert service.database is not None
    with service.database.begin() as connection:
        return add_token(connection, "ops", Role.ADMIN)


# -- bodies without a type ---------------------------------------------------------------------------------------------


def untyped(http: httpx.Client, method: str, path: str, body: bytes, **headers: str) -> httpx.Response:
    request = http.build_request(method, path, content=body, headers=headers)
    assert "content-type" not in request.headers or "Content-Type" in headers
    return http.send(request)


@pytest.mark.parametrize("operation", sorted(name for name in OPERATIONS if OPERATIONS[name].body is not None))
def test_l2_a_json_body_needs_no_content_type(http: httpx.Client, operation: str) -> None:
    """The reference accepts it as well. The response to each operation is the same as with a type."""
    example = OPERATIONS[operation]
    body = json.dumps(example.body).encode()
    expected = http.request(example.method, example.path, json=example.body)
    http.get("/api/v1/settings")
    response = untyped(http, example.method, example.path, body)
    assert response.status_code != 422 or expected.status_code == 422
    assert untyped(http, example.method, example.path, b"{").status_code == 422


OWN = {"Host": "settings.example", "Origin": "http://settings.example"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        OWN,
        {"Host": "settings.example:80", "Origin": "http://settings.example"},
        {"Host": "Settings.Example:443", "Origin": "https://settings.example"},
        {"Host": "inner", "X-Forwarded-Host": "settings.example, inner", "Origin": "https://settings.example"},
    ],
)
def test_l2_a_body_without_a_type_is_accepted_from_the_same_origin(http: httpx.Client, headers: dict[str, str]) -> None:
    """And from programs, which send no such headers."""
    assert untyped(http, "POST", "/api/v1/context_features", FEATURE, **headers).status_code == 204


@pytest.mark.parametrize("empty_type", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://"},
        {"Origin": "http://:80"},
        {"Host": "settings.example", "Origin": "http://settings.example:8080"},
        {"Host": "settings.example:8080", "Origin": "http://settings.example"},
        {"Host": "settings.example:80", "Origin": "https://settings.example"},
        {"Host": "settings.example", "Origin": "http://settings.example.evil.example"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {"Host": "a", "X-Forwarded-Host": "b, evil.example", "Origin": "http://evil.example"},
    ],
)
def test_l2_a_body_without_a_type_is_refused_across_sites(
    http: httpx.Client, headers: dict[str, str], empty_type: bool
) -> None:
    """A page of another site can make the browser of an operator send it."""
    more = {"Content-Type": ""} if empty_type else {}
    response = untyped(http, "POST", "/api/v1/context_features", FEATURE, **headers, **more)
    assert (response.status_code, "another site" in response.text) == (403, True)
    assert "region" not in http.get("/api/v1/context_features").json()["context_features"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_l2_other_content_types_are_refused(http: httpx.Client, content_type: str) -> None:
    """Pages of other sites may send some of them."""
    response = untyped(http, "POST", "/api/v1/context_features", FEATURE, **{"Content-Type": content_type})
    assert response.status_code == 422


def test_l2_a_typed_body_is_accepted_from_other_sites(http: httpx.Client) -> None:
    """Browsers ask the service first whether they may send it, and it does not allow it. A proxy may."""
    json_type = {"Content-Type": "application/json", "Origin": "http://ui.example", "Sec-Fetch-Site": "cross-site"}
    assert untyped(http, "POST", "/api/v1/context_features", FEATURE, **json_type).status_code == 204
    assert http.options("/api/v1/context_features", headers={"Origin": "http://ui.example"}).status_code == 405


# -- HEAD --------------------------------------------------------------------------------------------------------------

PAGES = [
    "/", "/docs", "/openapi.json", "/console", "/console/settings/cache_size", "/console/changes", "/console/login",
    "/console/assets/console.css", "/console/settings/nosuch", "/nosuch",
]  # fmt: skip


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted({o.path for o in OPERATIONS.values() if o.method == "GET" and o.path != STREAM})]
)
def test_l5_the_response_to_head_is_that_to_get_without_the_body(http: httpx.Client, path: str) -> None:
    """For each page and each operation."""
    of_get, of_head = http.get(path), http.head(path)
    assert (of_head.status_code, of_head.content) == (of_get.status_code, b"")
    if path not in ("/metrics", "/api/ready"):  # They count the requests.
        assert of_head.headers.get("content-length") == of_get.headers.get("content-length")
    assert of_head.headers.get("content-type") == of_get.headers.get("content-type")


def test_l5_head_of_the_event_stream_is_refused(http: httpx.Client) -> None:
    """The response would not end."""
    assert http.head(STREAM).status_code == 405


def test_l5_head_is_counted_by_its_route(http: httpx.Client) -> None:
    http.head("/api/health")
    assert 'heksher_requests_total{method="HEAD",route="/api/health",status="200"} 1.0' in http.get("/metrics").text


def test_l5_head_needs_the_same_token_as_get(http: httpx.Client, secret: str) -> None:
    """And the health is public."""
    for path, status in (("/api/health", 200), ("/api/ready", 200), ("/api/v1/settings", 401), ("/console", 303)):
        assert http.head(path).status_code == status
    assert http.head("/api/v1/settings", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_l5_head_reports_that_the_service_is_stopping(http: httpx.Client, service: WatchedService) -> None:
    assert service._current_app is not None
    service._current_app.state.event_stream.close()
    assert http.head("/api/ready").status_code == 503


# -- proxies that change the host --------------------------------------------------------------------------------------


def log_in(http: httpx.Client, secret: str, **headers: str) -> int:
    """Log in from a page of `https://settings.example`, and return the status."""
    form = {"token": secret, "next": "/console"}
    sent = {"Origin": "https://settings.example", **headers}
    return http.post("/console/login", data=form, headers=sent).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "X-Forwarded-Host": "other.example"},
        {"Host": "settings.example"},
        {"Host": "settings.example:443"},
        {"Host": "SETTINGS.example:443"},
        {"X-Forwarded-Host": "settings.example"},
        {"X-Forwarded-Host": "settings.example:443, 10.0.0.1"},
        {"Host": "settings.example:80", "Origin": "http://settings.example"},
        {"Host": "[::1]:80", "Origin": "http://[::1]"},
        {"Host": "settings.example", "X-Forwarded-Port": "443"},
        {"Host": "settings.example", "X-Forwarded-Port": "80"},
        {"Host": "settings.example", "X-Forwarded-Port": "8443", "Origin": "https://settings.example:8443"},
        {"Host": "settings.example", "X-Forwarded-Port": "8443, 80", "Origin": "https://settings.example:8443"},
        {"Host": "settings.example:8443", "X-Forwarded-Port": "443", "Origin": "https://settings.example:8443"},
        {"Host": "settings.example", "X-Forwarded-Port": "8080", "Origin": "http://settings.example:8080"},
        {"X-Forwarded-Host": "settings.example", "X-Forwarded-Port": "8443", "Origin": "https://settings.example:8443"},
        {
            "X-Forwarded-Host": "settings.example:8443",
            "X-Forwarded-Port": "9",
            "Origin": "https://settings.example:8443",
        },
        {"X-Forwarded-Host": "[::1]", "X-Forwarded-Port": "8443", "Origin": "https://[::1]:8443"},
        {"Host": "settings.example", "X-Forwarded-Port": "nonsense"},
    ],
)
def test_l7_operators_log_in_through_a_proxy_that_changes_the_host(
    http: httpx.Client, secret: str, headers: dict[str, str]
) -> None:
    """If the browser reports the site of the page, or the proxy the host."""
    assert log_in(http, secret, **headers) == 303


ATTACKS: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "X-Forwarded-Host": "settings.example"},
    {"Origin": "null", "X-Forwarded-Host": "settings.example"},
    {"Origin": "null"},
    {"X-Forwarded-Host": "evil.example, settings.example"},
    {"Host": "settings.example:8443"},
    {"Host": "settings.example:80"},
    {"Host": "", "Origin": "https://"},
    {"Host": "settings.example", "Origin": "settings.example"},
    {"Host": "settings.example", "X-Forwarded-Port": "8443"},
    {"Host": "settings.example:8443", "X-Forwarded-Port": "443"},
    {"Host": "settings.example", "X-Forwarded-Port": "8443", "Origin": "https://settings.example:9443"},
    {"Host": "settings.example", "Origin": "https://settings.example:8443"},
    {
        "X-Forwarded-Host": "settings.example",
        "X-Forwarded-Port": "443, 8443",
        "Origin": "https://settings.example:8443",
    },
    {"X-Forwarded-Port": "443"},
]
"""Headers of requests from pages of other sites, or that cannot be told from them."""


@pytest.mark.parametrize("headers", ATTACKS)
def test_l7_a_login_from_another_site_is_refused(http: httpx.Client, secret: str, headers: dict[str, str]) -> None:
    """The message names what a proxy must send."""
    assert log_in(http, secret, **headers) == 403
    sent = {"Origin": "https://settings.example", **headers}
    response = http.post("/console/login", data={"token": secret}, headers=sent)
    assert "X-Forwarded-Host" in response.text


@pytest.mark.parametrize("headers", [*ATTACKS, {"Origin": "https://settings.example", "Sec-Fetch-Site": "same-origin"}])
def test_l7_a_form_without_its_token_is_refused_with_any_headers(
    http: httpx.Client, secret: str, headers: dict[str, str]
) -> None:
    """With the cookie of a session, and whatever the headers say; also without headers, as of old browsers."""
    assert log_in(http, secret, **{"Sec-Fetch-Site": "same-origin"}) == 303
    assert "heksher_session" in http.cookies
    for csrf in ("", "0" * 64):
        for sent in (headers, {}):
            response = http.post("/console/changes/1/undo", data={"csrf": csrf}, headers=sent)
            assert response.status_code == 403


# -- sizes -------------------------------------------------------------------------------------------------------------


class Parsers:
    """Counts what is parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fields = 0
        original: Any = vars(forms)["parse_qs"]

        def parse_qs(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            self.fields += sum(map(len, found.values()))
            return found

        monkeypatch.setattr(forms, "parse_qs", parse_qs)


@pytest.mark.parametrize(
    "body", [b"&".join([b"a"] * 500_000), b"&".join(b"%x=1" % i for i in range(20_000)), b"a=" + b"%41" * 300_000]
)
def test_l12_a_large_login_form_is_not_parsed(
    http: httpx.Client, secret: str, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Anyone may send it. Neither is one whose length is not announced."""
    assert secret
    parsers = Parsers(monkeypatch)
    for content in (body, iter([body[:1000], body[1000:]])):
        response = http.post(
            "/console/login", content=content, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert response.status_code == 413
    assert parsers.fields == 0


def test_l12_a_login_form_may_contain_a_long_address(http: httpx.Client, secret: str) -> None:
    """Its page leads there after the login."""
    address = f"/console?q={'x' * 20_000}"
    response = http.post("/console/login", data={"token": secret, "next": address})
    assert (response.status_code, response.headers["location"]) == (303, f"../{address[1:]}")


def test_l12_a_form_has_a_maximum_number_of_fields(
    http: httpx.Client, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a type has room for. All others are refused before they are parsed."""
    options = ",".join(str(number) for number in range(12_000))
    service.declare("many", f"Flags[{options}]", [], ["user"])
    page = http.get("/console/settings/many")
    csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    form = {"csrf": csrf, "if.user": "jim", "value": options.split(",")}
    assert http.post("/console/settings/many/rules", data=form).status_code == 303
    parsers = Parsers(monkeypatch)
    response = http.post(
        "/console/settings/many/rules",
        content=urlencode({"csrf": csrf, "value": ["1"] * 25_000}, doseq=True),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (response.status_code, "more than 25,000 fields" in response.text) == (413, True)
    assert parsers.fields == 0


@pytest.mark.parametrize("path", ["/api/health", "/console/login", "/docs", "/api/v1/query", "/console", "/nosuch"])
def test_l12_a_query_string_has_a_maximum_number_of_fields(http: httpx.Client, path: str) -> None:
    """With and without a token. A request for a page may have as many as a setting has features."""
    assert http.get(f"{path}?{'&'.join(['a=1'] * 1000)}").status_code in (200, 404)
    response = http.get(f"{path}?{'&'.join(['a'] * 1001)}")
    assert (response.status_code, "more than 1,000 fields" in response.text) == (400, True)


def test_l12_a_long_token_is_neither_looked_up_nor_kept(http: httpx.Client, secret: str) -> None:
    """The tokens of requests are cached."""
    assert secret
    assert len(secret) < access._MAX_TOKEN_LENGTH
    for header in ({"Authorization": f"Bearer {secret}{'x' * 200}"}, {"Cookie": f"heksher_session={'x' * 60_000}"}):
        for path in ("/api/v1/settings", "/console"):
            assert http.get(path, headers=header).status_code in (303, 401)


@pytest.mark.parametrize("path", ["/api/health", "/api/v1/settings", "/console", "/console/login"])
def test_l12_only_the_cookie_of_the_session_is_parsed(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """In Python before 3.12.6, the time for quotation marks in a cookie grows with the square of their number."""
    parsed: list[str] = []

    def parse(text: str) -> dict[str, str]:
        parsed.append(text)
        return {}

    monkeypatch.setattr("starlette.requests.cookie_parser", parse)
    quotes = '"\\"' * 1000
    for cookie in (
        f"a={quotes}; heksher_session=abc; b=c",
        f"heksher_session={quotes}",
        f"x-heksher_session=1;{quotes}",
    ):
        assert http.get(path, headers={"Cookie": cookie}).status_code == 200
    assert set(parsed) == {"heksher_session=abc"}


def test_l12_the_head_of_a_request_has_a_maximum_size() -> None:
    """Whichever parser of HTTP is installed."""
    with LocalService(["user"]) as service:
        assert vars(service)["_server"].config.http == "h11"
        host, _, port = service.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(b"GET /api/health HTTP/1.1\r\nX-Long: " + b"x" * 70_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
