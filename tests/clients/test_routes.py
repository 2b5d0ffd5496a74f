"""Requests to this machine in an environment whose variables name proxies."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from heksher_client import ServiceUnavailableError
from heksher_client._auth.http_clients import check_environment, create_client
from heksher_client.exceptions import ConfigError
from heksher_client.service import LocalService
from tests.support.clients import Kind, Subject, running
from tests.support.in_memory import LoopbackService
from tests.support.ports import reserved_port

VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a proxy that refuses connections, and that all variables name. No host is an exception."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with reserved_port() as port:
        for name in VARIABLES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104 - the client connects to it
def test_l16_service_on_this_machine_is_reached_directly(kind: Kind, proxy: str, host: str) -> None:
    """However its address is written."""
    with LoopbackService() as service, running(kind, service.url.replace("127.0.0.1", host)) as client:
        client.reload()
        client.ping()
        assert client.client.status().last_error is None


def test_l16_variables_that_httpx_cannot_use(kind: Kind, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not matter for a service on this machine."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "socks5h://127.0.0.1:9")
    with LoopbackService() as service, running(kind, service.url) as client:
        client.ping()


def test_l16_proxy_that_the_program_has_chosen_is_used(kind: Kind, proxy: str) -> None:
    """To look at requests, for example."""
    for arguments in ({"proxy": proxy}, {"trust_env": True}):
        with LoopbackService() as service:
            client = Subject(kind, service.url, 60, ["user"], http_client_args=arguments)
            with pytest.raises(ServiceUnavailableError):
                client.ping()
            client.close()


def test_l16_local_service_is_reached_directly(kind: Kind, proxy: str) -> None:
    """By its URL."""
    with LocalService(["environment", "user", "theme"]) as service, running(kind, service.url) as client:
        client.ping()


def test_l16_other_machines_are_reached_by_the_variables(proxy: str) -> None:
    """Including those whose names only begin like an address of this machine."""
    for url in (
        "http://example.org",
        "http://127.0.0.1.example.org",
        "https://10.0.0.1",
        "http://localhost.example.org",
    ):
        with create_client(httpx.Client, url, {}).client as http:
            assert http._transport_for_url(httpx.URL(url)) is not http._transport


TLS_URLS = ["https://localhost", "https://[::1]:8443", "https://127.8.0.1", "https://a.localhost"]


@pytest.mark.parametrize("url", TLS_URLS)
@pytest.mark.parametrize("proxies", ["http://proxy:1", "socks5h://proxy:1"])
def test_l16_tls_on_this_machine(monkeypatch: pytest.MonkeyPatch, proxy: str, url: str, proxies: str) -> None:
    """The variables with certificates apply, those with proxies do not, whether they can be used or not."""
    certificate = Path(__file__).parents[1] / "data" / "tls" / "certificate.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for name in VARIABLES:
        monkeypatch.setenv(name, proxies)
    check_environment(url, {})
    http, arguments = create_client(httpx.Client, url, {})
    with http:
        assert http._transport_for_url(httpx.URL(url)) is http._transport
    assert [authority["subject"] for authority in arguments["verify"].get_ca_certs()]


@pytest.mark.parametrize("url", ["http://localhost", *TLS_URLS])
def test_l16_file_for_keys_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, proxy: str, url: str) -> None:
    """It matters for TLS only, and changes nothing about proxies."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/missing/keys")
    if url.startswith("https"):
        with pytest.raises(ConfigError, match=r"^SSLKEYLOGFILE: "):
            create_client(httpx.Client, url, {})
    else:
        with create_client(httpx.Client, url, {}).client as http:
            assert http._transport_for_url(httpx.URL(url)) is http._transport
