"""URLs that are not those of a Heksher service: the error names the source of the URL, or the server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import heksher_client
from heksher_client._http.endpoint import parse_service_url
from heksher_client.cli import main
from heksher_client.cli.command_client import CommandClient
from heksher_client.exceptions import ConfigError, ServiceUnavailableError, UnexpectedResponseError
from heksher_client.service import LocalService
from tests.support.clients import Kind, ThreadKind
from tests.support.commands import Run
from tests.support.service import CannedResponse, RecordedRequest, WatchedService

PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body><script>alert(1)</script>"
OTHER_SERVERS = {
    "a page": CannedResponse(200, PAGE, {"Content-Type": "text/html"}),
    "a page with status 404": CannedResponse(404, PAGE, {"Content-Type": "text/html"}),
    "nothing": CannedResponse(404),
    "JSON": CannedResponse.of({"hello": "world"}),
    "a list": CannedResponse.of([1]),
    "JSON with status 404": CannedResponse(404, b'{"detail": "Not Found"}'),
    "another method": CannedResponse(405, b'{"detail": "Method Not Allowed"}'),
    "a redirect": CannedResponse(301, b"", {"Location": "https://login.example.com/start?token=s3cr3t"}),
}
COMMANDS = (
    ("ping",), ("status",), ("settings",), ("get", "s"), ("get", "s", "user=jim", "--why"), ("rules", "s"),
    ("rules", "add", "s", "1", "user=jim"), ("rules", "set", "s", "1", "user=jim"),
    ("rules", "remove", "s", "user=jim"), ("watch", "--count", "1"), ("demo",), ("changes",), ("export",),
    ("features",), ("features", "add", "x"), ("settings", "show", "s"),
)  # fmt: skip


def always(response: CannedResponse) -> Callable[[RecordedRequest], CannedResponse]:
    return lambda _: response


@pytest.mark.parametrize("arguments", COMMANDS)
def test_l21_another_server_is_not_a_heksher_service(
    run: Run, shop: WatchedService, arguments: tuple[str, ...]
) -> None:
    """For each command. The error has the URL and the status, and nothing of the response."""
    for response in OTHER_SERVERS.values():
        shop.intercept = always(response)
        outcome = run(*arguments, "--url", shop.url)
        target = "; it redirects to https://login.example.com/start" if response.status == 301 else ""
        expected = f"Error: {shop.url} is not a Heksher service ({response.status})"
        assert outcome.status == 1
        assert outcome.err in (f"{expected}\n", f"{expected}{target}\n")


def test_l21_diff_with_another_server(run: Run, shop: WatchedService) -> None:
    """As an argument, and as a profile."""
    shop.intercept = lambda _: OTHER_SERVERS["a page"]
    for arguments in (("diff", shop.url, "shop"), ("diff", "shop", shop.url)):
        outcome = run(*arguments)
        assert (outcome.status, outcome.err) == (1, f"Error: {shop.url} is not a Heksher service (200)\n")


def test_l21_a_heksher_service_that_responds_in_another_way(run: Run, shop: WatchedService) -> None:
    """It is known by its health. If the health is not available, the error is that of the request."""
    health: list[CannedResponse | None] = [None]

    def respond(request: RecordedRequest) -> CannedResponse | None:
        if request.path.startswith("/api/health"):
            return health[0]
        is_list = request.path == "/api/v1/settings"
        return CannedResponse.of({"settings": [1]}) if is_list else None

    shop.intercept = respond
    assert "but a setting is incomplete" in run("settings").err
    for status in (401, 403, 429, 500, 503):
        health[0] = CannedResponse(status, PAGE)
        assert "but a setting is incomplete" in run("settings").err
    outcome = run("ping")
    assert (outcome.status, "503: an HTML page, 'Sign in'" in outcome.err) == (3, True)
    health[0] = CannedResponse(404)
    assert "setting nothing does not exist" in run("get", "nothing").err


def test_l21_a_server_that_stops_is_not_called_another_one(
    run: Run, shop: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of its health has no response, so the error is that of the request."""

    def fail(_: object) -> None:
        raise ServiceUnavailableError("gone")

    monkeypatch.setattr(CommandClient, "ping", fail)
    shop.intercept = lambda _: CannedResponse.of({"hello": "world"})
    assert "200, but without settings" in run("settings").err


INVALID = {
    "localhost:8300": "'localhost:8300' must start with http:// or https://",
    "http//x": "'http//x' must start with http:// or https://",
    "ftp://x": "'ftp://x' must start with http:// or https://",
    "//x": "'//x' must start with http:// or https://",
    "http://": "'http://' has no host name",
    "http://x:99999": "'http://x:99999' has an invalid port: use one from 1 to 65535",
    "http://x?token=s3cr3t": "'http://x' must not have a query or a fragment",
    "http://x#s3cr3t": "'http://x' must not have a query or a fragment",
    "jim:s3cr3t@x": "the URL must start with http:// or https://",
    "http://jim:s3cr3t?@x": "the URL ",
    "http://[::1": "'http://[::1' is not a valid URL",
    " http://x": "' http://x' must not contain a space",
    "http://x ": "'http://x ' must not contain a space",
    "http://a b": "'http://a b' must not contain a space",
    "http://x:80 ": "'http://x:80 ' must not contain a space",
    "http://x/a\tb": "'http://x/a\\tb' must not contain a tab",
    "http://x\n": "'http://x\\n' must not contain a line break",
    "\u200bhttp://x": "'\\u200bhttp://x' must not contain '\\u200b'",
    "http://x\\y": "'http://x\\\\y' must not contain '\\\\'",
    "http://<x>": "'http://<x>' must not contain '<'",
    "http://jim:s3cr3t@a b": "the URL must not contain a space",
    "http://*": "'http://*' has an invalid host name",
    "http://a..b": "'http://a..b' has an invalid host name",
    f"http://{'a' * 64}": f"'http://{'a' * 64}' has an invalid host name",
    "http://xn--a": "'http://xn--a' has an invalid host name",
    "http://x:a": "'http://x:a' is not a valid URL",
    "http://a\u2100b": "'http://a\u2100b' is not a valid URL",
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_l21_an_invalid_url_names_the_option(run: Run, arguments: tuple[str, ...]) -> None:
    for url, message in INVALID.items():
        outcome = run(*arguments, "--url", url)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith(f"Error: --url: {message}"), outcome.err
        assert "s3cr3t" not in outcome.err


@pytest.mark.parametrize("url", INVALID)
def test_l21_an_invalid_url_names_its_source(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Variables, profiles, arguments of `connect`, options of a class, and arguments of a client."""
    file = tmp_path / "heksher.toml"
    monkeypatch.setenv("HEKSHER_CONFIG", str(file))
    file.write_text(f'[profiles.shop]\nurl = {json.dumps(url)}\n[profiles.ok]\nurl = "http://x"\n')
    file.chmod(0o600)
    is_thread = isinstance(kind, ThreadKind)
    connect: Any = heksher_client.connect if is_thread else heksher_client.connect_async
    base = heksher_client.ThreadHeksherClient if is_thread else heksher_client.AsyncHeksherClient
    own_class = type("Own", (base,), {}, service_url=url)
    message = INVALID[url]

    def error_of(*arguments: str, **options: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            connect(*arguments, **options)
        return str(raised.value)

    assert error_of("ok", url=url).startswith(f"url: {message}")
    assert error_of("ok", service_url=url).startswith(f"service_url: {message}")
    assert error_of("shop").startswith(f"profile shop in {file}: url: {message}")
    file.write_text("")
    assert error_of(client_class=own_class).startswith(f"service_url of the client class: {message}")
    monkeypatch.setenv("HEKSHER_URL", url)
    assert error_of().startswith(f"HEKSHER_URL: {message}")
    result = CliRunner().invoke(main, ["ping"])
    assert (result.exit_code, result.output.startswith(f"Error: HEKSHER_URL: {message}")) == (2, True)
    with pytest.raises(ValueError, match="service_url: ") as raised:
        kind.make(url, 60, ["user"])
    assert str(raised.value).startswith(f"service_url: {message}")


@pytest.mark.parametrize(
    "url", ["localhost:8300", "http//x", "http:/x", "ftp://x", "https:x", " http://x", "http://x\n", "http://a b"]
)
def test_l21_an_invalid_url_names_the_argument_of_diff(run: Run, url: str) -> None:
    """It is not taken for the name of a profile or a file."""
    for arguments, name in (((url, "shop"), "BEFORE"), (("shop", url), "AFTER")):
        outcome = run("diff", *arguments)
        assert (outcome.status, outcome.err.startswith(f"Error: {name}: {url!r} ")) == (2, True), outcome.err


def test_l21_the_errors_of_clients_have_no_html(kind: Kind, shop: WatchedService) -> None:
    shop.intercept = lambda _: OTHER_SERVERS["a page"]
    client = kind.make(shop.url, 60, ["user"])
    with pytest.raises(UnexpectedResponseError, match="but not in JSON: an HTML page, 'Sign in'") as raised:
        kind.call(client.ping())
    assert b"<html>" in raised.value.content
    kind.call(client.close() if isinstance(kind, ThreadKind) else client.aclose())


@pytest.mark.parametrize(
    "url", ["http://x_y.z-1", "http://hóst:80/a/b", "http://[::1]:80", "http://x.", "http://a:b%20c@x"]
)
def test_l21_a_valid_url_is_accepted(url: str) -> None:
    parse_service_url(url)


PAGES = [
    "<title>Sign\nin</title>",
    "<head><title lang='en'> Sign in </title>",
    "<!-- made by x --><html><title>Sign in</title>",
    "\ufeff\n\n<!-- a -->\n<!-- b --> <!DOCTYPE  html>\n<title>Sign in</title>",
    "\r\n\t<H1>x</H1><TITLE>Sign in</TITLE>",
    "<?xml version='1.0'?>\n<!DOCTYPE html><title>Sign in</title>",
    f"<!--{'x' * 5_000}--><title>Sign in</title>",
]


def test_l21_a_page_is_known_by_its_beginning(run: Run, shop: WatchedService) -> None:
    """A byte order mark, spaces and comments may come before its first element. Other texts are shown."""

    def error_for(body: str, headers: dict[str, str]) -> str:
        shop.intercept = lambda _: CannedResponse(500, body.encode(), headers)
        return run("ping").err.partition(" responded with ")[2]

    for page in PAGES:
        assert error_for(page, {}) == "500: an HTML page, 'Sign in'\n"
    html = {"Content-Type": "text/html; charset=utf-8"}
    assert error_for("<x-app></x-app>", html) == "500: an HTML page\n"
    assert error_for("gone", html) == "500: 'gone'\n"
    for text in ("<?xml version='1.0'?><Error>", "<!-- x -->gone", "<paragraph>", "1 < 2"):
        assert error_for(text, {}) == f"500: {text!r}\n"


def test_l21_a_local_service_is_a_heksher_service(run: Run) -> None:
    with LocalService(["user"]) as service:
        assert run("ping", "--url", service.url).status == 0
        assert "setting s does not exist" in run("get", "s", "--url", service.url).err
