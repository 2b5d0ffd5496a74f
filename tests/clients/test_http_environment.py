"""Environment variables for HTTP clients that httpx cannot use: proxies, certificates, and the file for TLS keys."""

import os
import re
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import ConfigError, CredentialError, Setting, connect
from heksher_client._auth.http_clients import check_environment, check_key_log, create_client
from heksher_client.credentials import ClientCredentials
from heksher_client.demo import DemoError
from heksher_client.demo import run as run_demo
from heksher_client.profiles import login
from heksher_client.profiles._connect import create_request_client
from tests.faults.test_network import start_failing
from tests.support.clients import FEATURES, Kind, Subject, running
from tests.support.commands import run_in_process
from tests.support.profiles import write_config
from tests.support.service import WatchedService

PROXY = "must be an http://, https:// or socks5:// URL"
UNUSABLE = [
    ("http", "ALL_PROXY", "socks://127.0.0.1:7891/", f"ALL_PROXY: socks://127.0.0.1:7891/ {PROXY}"),
    ("http", "HTTP_PROXY", "http://[::1", rf"HTTP_PROXY: http://\[::1 {PROXY}"),
    ("http", "http_proxy", "http://jim:secret@p:port", rf"http_proxy: http://\*\*\*@p:port {PROXY}"),
    ("http", "HTTP_PROXY", "jim:secr@t@p:x", rf"HTTP_PROXY: \*\*\*@p:x {PROXY}"),
    ("http", "HTTP_PROXY", "jim:secret@http://jim:secret@p:x", rf"HTTP_PROXY: \*\*\*@p:x {PROXY}"),
    ("https", "HTTPS_PROXY", "ftp://p", f"HTTPS_PROXY: ftp://p {PROXY}"),
    ("https", "ALL_PROXY", "socks5h://127.0.0.1:1080", "ALL_PROXY: socks5h://127.0.0.1:1080 needs an extra package"),
    (
        "https",
        "SSL_CERT_FILE",
        "/missing.pem",
        "SSL_CERT_FILE: the certificates in /missing.pem cannot be read: No such",
    ),
    ("https", "SSL_CERT_FILE", "/", "SSL_CERT_FILE: the certificates in / cannot be read: "),
    ("https", "SSL_CERT_FILE", __file__, "SSL_CERT_FILE: the certificates in .* cannot be read: "),
    ("https", "SSL_CERT_DIR", "/missing:/neither", "SSL_CERT_DIR: /missing:/neither is not a folder"),
    ("https", "SSLKEYLOGFILE", "/missing/keys", "SSLKEYLOGFILE: the file /missing/keys cannot be written: No such"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all variables for HTTP clients and configurations, the package for SOCKS, and the shared TLS context."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("SSL", "HEKSHER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEKSHER_CONFIG", os.devnull)
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setattr(vars(httpx)["_transports"].default, "create_ssl_context", httpx.create_ssl_context)


@pytest.mark.parametrize(("scheme", "name", "value", "words"), UNUSABLE)
def test_n12_variable_that_cannot_be_used(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, name: str, value: str, words: str
) -> None:
    """The error names it, without passwords, wherever an HTTP client is created."""
    monkeypatch.setenv(name, value)
    url = f"{scheme}://server.example"
    config = tmp_path / "config.toml"
    oauth = f'client_id = "a"\nissuer = "{url}"\n'
    write_config(config, f'[profiles.a]\nurl = "{url}"\ncontext_features = ["user"]\n[profiles.a.oauth]\n{oauth}')

    def sign_in() -> None:
        monkeypatch.setenv("HEKSHER_CONFIG", str(config))
        login()

    calls: list[Callable[[], Any]] = [
        lambda: kind.make(url, 60, FEATURES),
        lambda: connect(url=url, context_features=FEATURES),
        lambda: create_request_client(None, url=url),
        lambda: ClientCredentials(f"{url}/token", "a", "b"),
        sign_in,
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=f"^{words}") as raised:
            call()
        assert "secr" not in str(raised.value)
    outcome = run_in_process(["ping", "--url", url], dict(os.environ) | {"HEKSHER_CONFIG": os.devnull}, tmp_path)
    assert (outcome.status, len(outcome.err.splitlines())) == (2, 1)
    assert re.match(f"Error: {words}", outcome.err)


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks://127.0.0.1:1/", "NO_PROXY": "127.0.0.1"},
        {"HTTP_PROXY": "socks5h://127.0.0.1:1", "NO_PROXY": "localhost,127.0.0.1,::1,10.0.0.0/8,*.corp,[::1]"},
        {"NO_PROXY": "[::1]"},
        {"HTTPS_PROXY": "ftp://proxy"},
        {"SSL_CERT_FILE": "/missing.pem", "SSLKEYLOGFILE": "/missing/keys", "SSL_CERT_DIR": "/missing"},
    ],
)
def test_n12_variable_that_the_service_does_not_need(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """It is ignored: a proxy for other hosts, and certificates without TLS."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert setting.get(user="jim") == 8
        # For another HTTP client, as in the child of a fork.
        assert client.client._endpoint._client_arguments["trust_env"] is False


def proxy_of(client: httpx.Client, url: str) -> str | None:
    """Return the proxy that a client uses for a URL."""
    pool: Any = vars(client._transport_for_url(httpx.URL(url)))["_pool"]
    proxy = getattr(pool, "_proxy_url", None)
    return None if proxy is None else f"{proxy.scheme.decode()}://{proxy.host.decode()}:{proxy.port}"


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("http://host", "[::1]", "http://proxy:3128"),
        ("http://host", "[::1],host", None),
        ("http://host", "[::1],HOST ", None),
        ("http://host", "[::1],*", None),
        ("http://a.corp", "[::1],corp", None),
        ("http://a.corp", "[::1],.corp", None),
        ("http://a.corp", "[::1],*.corp", None),
        ("http://acorp", "[::1],corp", "http://proxy:3128"),
        ("http://host", "[::1],host:80", None),
        ("http://host:81", "[::1],host:80", "http://proxy:3128"),
        ("http://[::1]", "[::1]", None),
        ("http://[::1]:81", "[::1]:81", None),
        ("http://[2001:db8::1]:81", "[2001:db8::1]:82", "http://proxy:3128"),
        ("http://[::1]", "::1,[::2]", None),
        ("http://host", "[::1],http://host", None),
        ("http://host", "[::1],all://host", None),
        ("http://host", "[::1],https://host", "http://proxy:3128"),
        ("http://host", "[::1],.,", "http://proxy:3128"),
        ("https://host", "[::1]", "http://secure:3128"),
        ("https://host", "[::1],host:443", None),
    ],
)
def test_n12_the_other_variables_are_still_used(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, proxy: str | None
) -> None:
    """If httpx cannot use the list of hosts without a proxy, it is used nevertheless."""
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with create_client(httpx.Client, url, {}).client as client:
        assert proxy_of(client, url) == proxy


def test_n12_variables_that_can_be_used_are_left_to_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments are those of the program."""
    check_environment("http://host", {})
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    client, arguments = create_client(httpx.Client, "http://host", {"timeout": 3})
    assert (arguments, proxy_of(client, "http://host")) == ({"timeout": 3}, "http://proxy:3128")
    client.close()


def test_n12_the_proxy_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows and macOS, it is not in a variable."""
    monkeypatch.setattr("heksher_client._auth.http_clients.getproxies", lambda: {"all": "ftp://proxy"})
    monkeypatch.setenv("NO_PROXY", "[::1]")
    with pytest.raises(ConfigError, match=r"^the proxy of the system: ftp://proxy must be"):
        create_client(httpx.Client, "http://host", {})


UNUSABLE_VARIABLES = {
    "ALL_PROXY": "ftp://proxy", "SSL_CERT_FILE": "/missing.pem", "SSL_CERT_DIR": "/missing",
}  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        {"trust_env": False},
        {"transport": httpx.MockTransport(lambda request: httpx.Response(200))},
        {"proxy": "http://proxy:1", "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
        {"proxy": "http://proxy:1", "verify": False},
    ],
    ids=["trust_env", "transport", "verify", "no-verify"],
)
def test_n12_arguments_take_precedence(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    """Variables that they replace are not looked at."""
    for name, value in UNUSABLE_VARIABLES.items():
        monkeypatch.setenv(name, value)
    check_environment("https://host", arguments)
    create_client(httpx.Client, "https://host", arguments).client.close()


@pytest.mark.parametrize("variables", [{}, {"HTTP_PROXY": "ftp://proxy"}])
def test_n12_an_argument_that_cannot_be_used_is_its_own_error(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """With variables that can be used, and with others."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="Unknown scheme for proxy URL"):
        create_client(httpx.Client, "http://host", {"proxy": "gopher://proxy"})


def test_n12_certificates_of_the_package_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is to blame."""

    def fail(**arguments: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(vars(httpx)["_transports"].default, "create_ssl_context", fail)
    monkeypatch.setattr(httpx, "create_ssl_context", fail)
    with pytest.raises(FileNotFoundError):
        create_client(httpx.Client, "https://host", {})


def test_n12_a_proxy_with_tls_needs_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a service without TLS."""
    monkeypatch.setenv("HTTP_PROXY", "https://proxy")
    monkeypatch.setenv("SSL_CERT_FILE", "/missing.pem")
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: "):
        create_client(httpx.Client, "http://host", {})


def test_n12_variables_that_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is no error, and they have their usual effect."""
    certificate = Path(__file__).parents[1] / "data" / "tls" / "certificate.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SSL_CERT_DIR", f"/missing:{certificate.parent}")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("NO_PROXY", "[::1]")
    check_key_log()
    check_environment("https://host", {})
    _, arguments = create_client(httpx.Client, "https://host", {})
    assert [authority["subject"] for authority in arguments["verify"].get_ca_certs()]
    monkeypatch.delenv("SSL_CERT_FILE")
    create_client(httpx.Client, "https://host", {}).client.close()


def test_n12_a_file_for_keys_does_not_blame_the_certificates_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are read when the same object is created."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/missing/keys")
    certificate = Path(__file__).parents[1] / "data" / "tls" / "certificate.pem"
    with pytest.raises(ConfigError, match=r"^SSLKEYLOGFILE: "):
        connect(url="https://host", context_features=FEATURES, ca_file=str(certificate))


def test_n12_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an error of its own, which the command writes in one line."""
    monkeypatch.setenv("ALL_PROXY", "ftp://proxy")
    console: Any = None
    with pytest.raises(DemoError, match=r"the service cannot be used: ALL_PROXY: ftp://proxy must be"):
        run_demo("http://host", console)


def test_n12_a_variable_that_becomes_unusable_for_the_authorization_server(
    kind: Kind, service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a refresh names it as well."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    credential = ClientCredentials("http://login.example/token", "a", "b")
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy")
    subject = Subject(kind, service.url, 3600, FEATURES, auth=credential)
    error = start_failing(subject)
    assert isinstance(error, CredentialError)
    assert "HTTP_PROXY: ftp://proxy must be" in str(error)
    subject.close()
