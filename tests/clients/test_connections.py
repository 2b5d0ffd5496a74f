"""Requests over HTTP: options, errors, the rate limit, connections, and shared HTTP clients."""

import asyncio
import contextlib
import copy
import gzip
import json
import logging
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client import (
    AsyncHeksherClient,
    ClientNotRunningError,
    ConfigError,
    CredentialError,
    DeclarationError,
    ServiceUnavailableError,
    Setting,
    ThreadHeksherClient,
    UnexpectedResponseError,
    UnknownContextError,
    UntrustedServiceError,
    connect,
    login,
)
from heksher_client._core.refresh.effects import Request
from heksher_client._core.refresh.protocol import HEALTH
from heksher_client._core.settings.setting import entry_of
from heksher_client._http.errors import as_http_error
from heksher_client._http.rate_limit import RateLimit
from heksher_client.admin import AdminClient, AsyncAdminClient
from heksher_client.credentials import ClientCredentials, StaticToken, TokenFrom
from heksher_client.service import create_app
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    Kind,
    RecordingAsyncClient,
    RecordingThreadClient,
    Subject,
    eventually,
    running,
)
from tests.support.fake_service import FakeService
from tests.support.faults import Connection, FaultServer
from tests.support.http import http_client
from tests.support.in_memory import URL, in_memory, running_in_memory
from tests.support.service import DECLARE, QUERY, CannedResponse, RecordedRequest, WatchedService

TLS = Path(__file__).parents[1] / "data" / "tls"


class BrokenError(UnexpectedResponseError):
    pass


class TeapotError(UnexpectedResponseError):
    def __init__(self, *, team: str) -> None:
        """Require an argument that the client does not have."""
        raise NotImplementedError(team)


@pytest.fixture
def counting(fake_service: FakeService) -> Iterator[FaultServer]:
    """A server that counts connections, and can close them."""
    with FaultServer(fake_service) as server:
        yield server


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_are_sent_with_each_request(kind: Kind, service: WatchedService) -> None:
    """Headers, cookies, parameters and the user agent, in declarations and queries as well."""
    setting = Setting("s", int, ["user"], 1)
    with running(
        kind,
        service.url,
        headers={"X-Team": "shop"},
        cookies={"session": "c1"},
        params={"key": "k&1"},
        user_agent="shop/1",
    ) as subject:
        subject.ping()
    for request in service.requests:
        assert request.headers["x-team"] == "shop"
        assert request.headers["cookie"] == "session=c1"
        assert request.headers["user-agent"] == "shop/1"
        assert request.query["key"] == "k&1"
    expected = {"settings": "s", "context_filters": "*", "include_metadata": "false", "key": "k&1"}
    assert service.requests_to(QUERY)[0].query == expected
    assert {DECLARE, QUERY} <= {str(request) for request in service.requests}
    assert setting.get(user="jim") == 1


def test_the_user_agent_can_be_set_in_three_places(fake_service: FakeService) -> None:
    """As an option, in the arguments of the HTTP client, or in the headers. It has a default."""
    of_http_client: dict[str, Any] = {"http_client_args": {"headers": {"User-Agent": "b"}}}
    as_pairs: dict[str, Any] = {"http_client_args": {"headers": [("User-Agent", "c")]}}
    for options in ({}, {"headers": {"user-agent": "a"}}, of_http_client, as_pairs):
        client = ThreadHeksherClient(URL, 60, FEATURES, **in_memory(fake_service, **options))
        client.ping()
        client.close()
    agents = [request.headers["user-agent"] for request in fake_service.requests]
    assert agents[0].startswith("heksher-client/")
    assert agents[1:] == ["a", "b", "c"]


def test_no_header_is_sent_twice_in_another_case(fake_service: FakeService) -> None:
    """The option `user_agent` has priority over the header, and the client's own Accept-Encoding over another one."""

    class Shop(ThreadHeksherClient, update_interval=60, context_features=FEATURES, user_agent="class"):
        pass

    for options in (
        {"headers": {"User-agent": "argument", "accept-encoding": "br"}},
        {"headers": {"USER-AGENT": "header"}, "user_agent": "name"},
    ):
        client = Shop(URL, **in_memory(fake_service, **options))
        request = client._endpoint.build_request(HEALTH, 1)
        names = [name.lower() for name, _ in request.headers.raw]
        assert len(names) == len(set(names))
        assert request.headers["accept-encoding"] == "gzip"
        client.ping()
        client.close()
    assert [request.headers["user-agent"] for request in fake_service.requests] == ["argument", "name"]


def test_the_url_of_a_repeated_request_is_parsed_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the last requests; parameters of the program are added to each."""
    urls: Any = httpx._urls
    parse, parsed = urls.urlparse, []

    def record(url: str, **parts: Any) -> Any:
        parsed.append(url)
        return parse(url, **parts)

    monkeypatch.setattr(urls, "urlparse", record)
    client = kind.make("http://host/base", 60, FEATURES)
    first, again = (client._endpoint.build_request(Request("GET", "/q?a=1"), 1) for _ in range(2))
    assert str(first.url) == str(again.url) == "http://host/base/q?a=1"
    assert parsed.count("http://host/base/q?a=1") == 1
    for number in range(500):
        client._endpoint.build_request(Request("GET", f"/q?{number}"), 1)
    assert len(client._endpoint._urls) <= 200
    with_params = kind.make("http://host", 60, FEATURES, params={"key": "x"})
    targets = {str(with_params._endpoint.build_request(Request("GET", "/q?a=1"), 1).url) for _ in range(3)}
    assert targets == {"http://host/q?a=1&key=x"}


def test_options_of_a_call_override_those_of_the_class_in_any_place() -> None:
    """A credential in `http_client_args`, or an HTTP client instead of `http_client_args`."""

    class Shop(
        ThreadHeksherClient,
        service_url="http://host",
        update_interval=60,
        context_features=FEATURES,
        http_client_args={"auth": ("class", "x"), "verify": False},
    ):
        pass

    class Other(Shop, auth=("other", "x")):
        pass

    assert Shop()._endpoint.auth == ("class", "x")
    assert Other()._endpoint.auth == ("other", "x")
    assert Other(http_client_args={"auth": ("argument", "x")})._endpoint.auth == ("argument", "x")
    with http_client() as http:
        shared = Shop(http_client=http)
        assert (shared._endpoint.client, shared._endpoint.auth) == (http, ("class", "x"))
        sharing = types.new_class("Sharing", (Shop,), {"http_client": http})
        assert sharing(http_client_args={"verify": False})._endpoint.client is not http


def test_options_of_a_class_hold_for_all_its_clients_and_calls_override_them(
    kind: Kind, fake_service: FakeService
) -> None:
    """Dicts are merged key by key; the names of headers are case-insensitive."""
    base = AsyncHeksherClient if kind.raises_at_start else ThreadHeksherClient
    of_team = {"update_interval": 60, "headers": {"X-A": "team", "X-B": "team"}, "jitter": 0}
    of_shop = {
        "context_features": FEATURES,
        "headers": {"x-b": "shop"},
        "params": {"p": "shop"},
        **in_memory(fake_service),
    }
    team: Any = types.new_class("Team", (base,), {"service_url": "http://127.0.0.1:1", **of_team})
    shop: Any = types.new_class("Shop", (team,), {"service_url": URL, **of_shop})
    for client in (shop(), shop(headers={"X-A": "mine"}, params={"q": "mine"}, jitter=0.5)):
        kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    first, second = fake_service.requests
    assert (first.headers["x-a"], first.headers["x-b"], first.query) == ("team", "shop", {"p": "shop"})
    assert (second.headers["x-a"], second.headers["x-b"], second.query) == ("mine", "shop", {"p": "shop", "q": "mine"})
    assert shop()._session._options.jitter == 0
    assert shop(jitter=0.5)._session._options.jitter == 0.5
    both: Any = types.new_class("Both", (shop, types.new_class("Other", (base,), {"jitter": 1})))
    assert both(update_interval=1)._session._options.jitter == 0
    nothing: Any = types.new_class("Nothing", (base,), {"service_url": URL})
    with pytest.raises(TypeError, match="Nothing needs update_interval"):
        nothing()


def test_a_class_can_have_arguments_of_its_own(kind: Kind, fake_service: FakeService) -> None:
    """They are passed to `__post_init__` at the end of `__init__`; options of clients are not."""
    base: Any = RecordingAsyncClient if kind.raises_at_start else RecordingThreadClient

    class Shop(base, jitter=0):  # type: ignore[call-arg, misc]
        def __post_init__(self, *args: str, region: str = "eu", **others: Any) -> None:
            self.own = (args, region, others, self.options.jitter)
            self.set_defaults(user="none")

    shop: Any = Shop
    assert shop(URL, 60, FEATURES).own == ((), "eu", {}, 0.0)
    client = shop(URL, 60, FEATURES, "shop", region="us", jitter=0.5, team=5)
    assert client.own == (("shop",), "us", {"team": 5}, 0.5)
    with pytest.raises(TypeError, match="jitter must be a number"):
        shop(URL, 60, jitter="0.5")
    with pytest.raises(TypeError, match="RecordingThreadClient takes 3 positional arguments, but 5 were given"):
        RecordingThreadClient(URL, 60, FEATURES, "shop", 5)

    class Strict(base):  # type: ignore[misc]
        def __post_init__(self, *, team: str) -> None: ...

    strict: Any = Strict
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'team'"):
        strict(URL, 60)
    with pytest.raises(TypeError, match="unexpected keyword argument 'jiter'"):
        strict(URL, 60, team="shop", jiter=0.5)

    class Awaited(base):  # type: ignore[misc]
        async def __post_init__(self) -> None: ...

    awaited: Any = Awaited
    with pytest.raises(TypeError, match="__post_init__ must be a plain function"):
        awaited(URL, 60)


def test_context_features_are_those_of_the_service_unless_they_are_listed(
    kind: Kind, fake_service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A listed one that the service lacks is raised or logged at the start, and so is a default of an unknown one."""
    setting = Setting("s", int, ["user"], 1)
    fake_service.declare("s", "int", 1, ["user"])
    fake_service.add_rule("s", 2, user="jim")
    words = r"the service has no context feature planet; it has: environment, user, theme"
    listed = kind.make(URL, 60, ["user", "planet"], **in_memory(fake_service))
    unlisted = kind.make(URL, 60, **in_memory(fake_service))
    unlisted.set_defaults(user="jim", planet="mars")
    for client in (listed, unlisted):
        client.outcomes = SimpleQueue()
        if kind.raises_at_start:
            with pytest.raises(UnknownContextError, match=words):
                kind.call(client.set_as_main())
        else:
            client.set_as_main()
            assert words in caplog.text
            assert setting.get(user="jim") == 2
            assert str(client.outcomes.get(timeout=TIMEOUT_SECONDS)) == words
            client.close()
        caplog.clear()
    with running_in_memory(kind, fake_service, context_features=None) as subject:
        subject.client.set_defaults(user="jim")
        assert setting.get() == 2


def test_an_unknown_option_is_an_error() -> None:
    """In a class, and in a call."""
    with pytest.raises(TypeError, match="Wrong got an unexpected keyword argument 'haeders'"):

        class Wrong(ThreadHeksherClient, haeders={}):  # type: ignore[call-arg]
            pass

    with pytest.raises(TypeError, match="ThreadHeksherClient got an unexpected keyword argument 'service'"):
        ThreadHeksherClient("http://host", 60, FEATURES, service="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs service_url and update_interval: as"):
        ThreadHeksherClient()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"headers": "X-A: b"}, "headers must be a dict"),
        ({"headers": {"X-A": 5}}, "headers must map strings to strings"),
        ({"headers": {5: "b"}}, "headers must map strings to strings"),
        ({"headers": {"X A": "b"}}, "'X A' is not a valid name of a header"),
        ({"headers": {"X-A": "secr\u00e9t"}}, "the header X-A must consist of visible ASCII"),
        ({"user_agent": "shop\n"}, "user_agent must consist of visible ASCII"),
        ({"user_agent": 5}, "user_agent must be a str, not 5"),
        ({"rate_limit": 0}, "rate_limit must be positive"),
        ({"timeout": -1}, "timeout must be a positive number of seconds"),
        ({"rate_limit": "1"}, "rate_limit must be a number of requests"),
        ({"rate_limit_interval": 0}, "rate_limit_interval must be a positive number"),
        ({"error_classes": {404: ValueError}}, "not a subclass of UnexpectedResponseError"),
        ({"error_classes": {4: BrokenError}}, "4 is not an HTTP status"),
        ({"auth": 5}, "auth must be a credential"),
        ({"http_client": object()}, "does not have build_request, send, headers, params"),
        (
            {"http_client": httpx.AsyncClient(timeout=TIMEOUT_SECONDS)},
            "must behave like an httpx.Client, not like AsyncClient",
        ),
        ({"http_client": http_client(), "http_client_args": {"verify": False}}, "exclude each other"),
        ({"http_client": http_client(), "http_client_args": {"http2": False}}, "exclude each other"),
        ({"http_client": http_client(), "verify": False}, "give http_client or verify, not both"),
        ({"http_client": http_client(), "ca_file": "ca.pem"}, "give http_client or ca_file, not both"),
        ({"verify": True, "ca_file": "ca.pem"}, "give verify or ca_file, not both"),
        (
            {"ca_file": "ca.pem", "http_client_args": {"verify": False}},
            "give ca_file or verify in http_client_args, not both",
        ),
        ({"verify": "ca.pem"}, "verify must be True, False or an ssl.SSLContext, not str: .* is ca_file"),
        ({"http_client_args": {"verify": "ca.pem"}}, "verify must be True, False or an ssl.SSLContext, not str"),
        ({"ca_file": "/nowhere/ca.pem"}, "^ca_file: the certificates in /nowhere/ca.pem cannot be read: .* No such"),
        ({"ca_file": "~nobody-there/ca.pem"}, "^ca_file: the certificates in ~nobody-there/ca.pem cannot be read"),
        ({"ca_file": __file__}, "^ca_file: the certificates in .*test_connections.py cannot be read"),
        ({"ca_file": 5}, "^ca_file must be the path of a file, not 5"),
    ],
)
def test_an_invalid_option_is_an_error_when_a_client_is_created(options: dict[str, Any], words: str) -> None:
    """The message says what is expected."""
    with pytest.raises((TypeError, ValueError), match=words):
        ThreadHeksherClient("http://host", 60, FEATURES, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": "abc"}, "auth must not be a str: use token="),
        ({"auth": 5}, "auth must be a credential"),
        ({"verify": "ca.pem"}, "verify must be True, False or an ssl.SSLContext, not str"),
        ({"rate_limit": -5}, "rate_limit must be positive"),
        ({"update_interval": 0}, "update_interval must be a positive number"),
        ({"headers": {"a b": "c"}}, "'a b' is not a valid name of a header"),
        ({"user_agent": 5}, "user_agent must be a str"),
        ({"cookies": {"a": 5}}, "cookies must map strings to strings"),
        ({"params": {"a": object()}}, "params must map strings"),
        ({"timeout": -1}, "timeout must be a positive number"),
        ({"http_client": object()}, "does not have build_request"),
        ({"http_client_args": {"event_hooks": 5}}, "event_hooks must be a dict"),
    ],
)
def test_an_invalid_option_of_a_class_is_an_error_of_the_class(kind: Kind, options: dict[str, Any], words: str) -> None:
    """Its clients may be created much later. Files are read when a client is created."""
    base = RecordingAsyncClient if kind.raises_at_start else RecordingThreadClient
    with pytest.raises((TypeError, ValueError), match=words):
        type("Invalid", (base,), {}, **options)
    type("Valid", (base,), {}, ca_file="/nowhere/ca.pem", token="t")  # noqa: S106 - not a secret


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"update_interval": 1.1e9},
            "update_interval must be a positive number of seconds, at most 1,000,000,000, not 1",
        ),
        ({"update_interval": 10**5000}, "update_interval must be a positive number .* not an integer of 16610 bits"),
        ({"stale_after": float("nan")}, "stale_after must be a positive number of seconds, .* not nan"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, at most 1,000,000,000, not 0"),
        ({"timeout": float("inf")}, "timeout must be a positive number of seconds, .* not inf"),
        ({"timeout": 10**400}, "timeout must be a positive number of seconds, .* not an integer"),
        ({"timeout": True}, "timeout must be a number of seconds, not True"),
        ({"timeout": "5"}, "timeout must be a number of seconds, not '5'"),
        ({"timeout": (5,)}, "timeout must be a number of seconds, or an httpx.Timeout, not "),
        ({"timeout": httpx.Timeout(5, read=-1)}, "timeout must be a positive number of seconds, .* not -1"),
        ({"http_client_args": {"timeout": -1}}, "timeout must be a positive number of seconds, .* not -1"),
        ({"last_known_good": 5}, "last_known_good must be the path of a file, not 5"),
        ({"follow_changes": "no"}, "follow_changes must be True or False, not 'no'"),
    ],
)
def test_o1_an_option_out_of_range_is_named(kind: Kind, options: dict[str, Any], words: str) -> None:
    """With its bounds. It is the option that the program has given."""
    interval, others = options.get("update_interval", 60), {k: v for k, v in options.items() if k != "update_interval"}
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        kind.make("http://host", interval, FEATURES, **others)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://jim:p/ss@host", "percent-encoded"),
        ("host:8300", "service_url: 'host:8300' must start with http:// or https://"),
        ("http://host/?key=1", "must not have a query or a fragment"),
    ],
)
def test_an_invalid_url_of_the_service_is_an_error_when_a_client_is_created(kind: Kind, url: str, words: str) -> None:
    """The message does not contain it, as it may have a password."""
    with pytest.raises(ValueError, match=words) as raised:
        kind.make(url, 60, FEATURES)
    assert "ss@host" not in str(raised.value)


@pytest.mark.parametrize("url", [5, 0, b"http://jim:secret@host", ["http://host"]])
def test_l21_a_url_of_another_type_is_an_error(kind: Kind, url: Any) -> None:
    """As an argument of a client or an admin client, and as a class keyword. The message does not contain the URL."""
    expected = f"service_url must be a str, not {type(url).__name__}"
    admin_class: Any = AsyncAdminClient if kind.raises_at_start else AdminClient
    own_class: Any = type("Own", (type(kind.make("http://host", 60, FEATURES)),), {}, service_url=url)
    creations: list[Callable[[], Any]] = [
        lambda: kind.make(url, 60, FEATURES),
        lambda: admin_class(url),
        lambda: own_class(update_interval=60),
    ]
    for create in creations:
        with pytest.raises(TypeError) as raised:
            create()
        assert str(raised.value) == expected


@pytest.mark.parametrize("url", [5, 0, b"http://jim:secret@host", httpx.URL("http://jim:secret@host")])
def test_l21_a_url_of_another_type_is_a_config_error_of_connect(url: Any) -> None:
    """It names the argument, or the class. The message does not contain the URL."""
    kind = type(url).__name__
    own_class: Any = type("Own", (ThreadHeksherClient,), {}, service_url=url)
    for arguments, name in (
        ({"url": url}, "url"),
        ({"service_url": url}, "service_url"),
        ({"client_class": own_class}, "service_url of the client class"),
    ):
        with pytest.raises(ConfigError) as raised:
            connect(**arguments, context_features=FEATURES)
        assert str(raised.value) == f"{name} must be a str, not {kind}"


def test_the_timeout_of_steps_is_an_option(kind: Kind) -> None:
    """A number, or an `httpx.Timeout`."""
    for timeout in (3, httpx.Timeout(3)):
        client = kind.make("http://host", 60, FEATURES, timeout=timeout)
        request = client._endpoint.build_request(next(client._session.requests.ping()).requests[0], 30)
        assert request.extensions["timeout"] == dict.fromkeys(("connect", "read", "write", "pool"), 3)


@pytest.fixture
def tls_url(fake_service: FakeService) -> Iterator[str]:
    """The URL of a service with a certificate of an unknown authority."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    with FaultServer(fake_service, tls=tls) as server:
        yield server.url.replace("http://", "https://")


def test_certificates_are_verified_as_options_say(
    kind: Kind, tls_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against a file of CA certificates, by a TLS context of the program, or not at all."""
    certificate = TLS / "certificate.pem"
    (tmp_path / "ca.pem").write_bytes(certificate.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    base = RecordingAsyncClient if kind.raises_at_start else RecordingThreadClient
    of_class: Any = type("WithFile", (base,), {}, ca_file=certificate)
    accepted: list[tuple[Any, dict[str, Any]]] = [
        (kind.make, {"ca_file": str(certificate)}),
        (kind.make, {"ca_file": "~/ca.pem"}),
        (kind.make, {"verify": False}),
        (kind.make, {"verify": ssl.create_default_context(cafile=certificate)}),
        (kind.make, {"verify": False, "http_client_args": {"verify": True}}),
        (of_class, {}),
    ]
    refused: list[tuple[Any, dict[str, Any]]] = [
        (kind.make, {}),
        (kind.make, {"verify": True}),
        (of_class, {"verify": True}),
        (of_class, {"http_client_args": {"verify": True}}),
    ]
    for make, options in [*accepted, *refused]:
        client = make(tls_url, 60, FEATURES, **options)
        if (make, options) in accepted:
            kind.call(client.ping())
        else:
            with pytest.raises(
                UntrustedServiceError, match=r"; set ca_file to trust the authority of this certificate\)$"
            ):
                kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_the_error_of_a_sign_in_says_how_to_trust_a_certificate(tls_url: str, tmp_path: Path) -> None:
    """And that of a credential, which has no `ca_file`."""
    credential = ClientCredentials(f"{tls_url}/token", "shop", "s")
    with pytest.raises(
        CredentialError, match=r"\(ConnectError\): its certificate is of an unknown authority \(ca_file of"
    ):
        credential.force_refresh()
    with pytest.raises(CredentialError, match="its certificate is of an unknown authority: set ca_file in the profile"):
        login(print, path=tmp_path, url=tls_url, oauth={"issuer": tls_url, "client_id": "shop"})


def test_a_renewed_http_client_reads_the_certificates_again() -> None:
    """A TLS context from before gevent has patched the program would block all greenlets."""
    client = ThreadHeksherClient("https://host", 60, FEATURES, ca_file=TLS / "certificate.pem")
    former = client._endpoint._client_arguments["verify"]
    client._endpoint.renew_client()
    assert client._endpoint._client_arguments["verify"] is not former
    client.close()


def test_an_http_client_replaces_the_certificates_of_a_class(kind: Kind) -> None:
    """As it does the `http_client_args` of a class, and the other way around."""
    shared: Any = httpx.AsyncClient(timeout=TIMEOUT_SECONDS) if kind.raises_at_start else http_client()
    base = RecordingAsyncClient if kind.raises_at_start else RecordingThreadClient
    for options in ({"verify": False}, {"ca_file": TLS / "certificate.pem"}):
        with_option: Any = type("WithOption", (base,), {}, **options)
        assert with_option(URL, 60, http_client=shared)._endpoint.client is shared
        with_client: Any = type("WithClient", (base,), {}, http_client=shared)
        assert with_client(URL, 60, **options)._endpoint.client is not shared


def test_a_closed_client_sends_no_requests(kind: Kind, fake_service: FakeService) -> None:
    """The property `closed` is true, and calls raise."""
    with running_in_memory(kind, fake_service) as subject:
        assert not subject.client.closed
    assert subject.client.closed
    with pytest.raises(ClientNotRunningError):
        subject.ping()


def test_options_in_http_client_args_are_merged_with_options(kind: Kind, fake_service: FakeService) -> None:
    """They override those of the class, in either place."""
    kept: dict[str, Any] = {"headers": {"X-A": "class", "X-B": "class"}, "timeout": 3}
    shop: Any = type("Shop", (RecordingAsyncClient if kind.raises_at_start else RecordingThreadClient,), {}, **kept)
    given = {"headers": {"x-a": "given"}, "cookies": {"c": "given"}, "params": {"p": "given"}, "timeout": 10}
    client = shop(URL, 60, FEATURES, **in_memory(fake_service, http_client_args=given))
    kind.call(client.ping())
    request = fake_service.requests[-1]
    assert (request.headers["x-a"], request.headers["x-b"], request.headers["cookie"]) == ("given", "class", "c=given")
    assert request.query["p"] == "given"
    assert client._endpoint.build_request(HEALTH, 60).extensions["timeout"]["read"] == 10
    kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_cookies_are_sent_with_a_redirected_request(kind: Kind, fake_service: FakeService) -> None:
    """Together with those that the response sets."""
    headers = {"Location": "/api/health?again", "Set-Cookie": "sticky=1"}
    fake_service.respond_with("GET /api/health", CannedResponse(307, b"", headers), times=1)
    with running_in_memory(kind, fake_service, cookies={"session": "s", "sticky": "0"}) as subject:
        subject.ping()
    assert fake_service.requests[-1].headers["cookie"] == "session=s; sticky=1"


@pytest.mark.parametrize(
    "options",
    [
        {"cookies": {"a": 5}},
        {"cookies": {"a": "\u00e9"}},
        {"cookies": {"a": "x; y"}},
        {"cookies": {"a b": "x"}},
        {"params": {"a": object()}},
        {"params": {"a": ["b", object()]}},
        {"auth": (1, 2)},
        {"http_client": httpx.Client},
        {"headers": {"X": None}},
    ],
)
def test_what_cannot_be_sent_is_an_error_when_a_client_is_created(kind: Kind, options: dict[str, Any]) -> None:
    """It does not fail each request instead."""
    with pytest.raises((TypeError, ValueError)):
        kind.make("http://host", 60, FEATURES, **options)


def test_a_client_has_its_credential_as_a_property(kind: Kind, fake_service: FakeService) -> None:
    """A program can refresh its token, even if a profile has created it."""
    credential = TokenFrom(lambda: "t")
    with running_in_memory(kind, fake_service, auth=credential) as subject:
        assert subject.client.credential is credential
        subject.client.use_credential(("jim", "x"))
        assert subject.client.credential is None


def test_the_url_of_the_service_can_have_a_path_and_a_user(
    kind: Kind, fake_service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """The password is not logged, and other credentials have priority."""
    caplog.set_level(logging.DEBUG)
    fake_service.intercept = lambda request: CannedResponse.of({"version": "1"})
    for options in ({}, {"http_client_args": {"auth": ("somebody", "secret")}}):
        client = kind.make("http://jim:p%40ss@service/settings/", 60, FEATURES, **in_memory(fake_service, **options))
        kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    assert [request.path for request in fake_service.requests] == ["/settings/api/health"] * 2
    assert [request.headers["authorization"] for request in fake_service.requests] == [
        "Basic amltOnBAc3M=",
        "Basic c29tZWJvZHk6c2VjcmV0",
    ]
    assert "p%40ss" not in caplog.text


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_has_the_request_and_the_response(kind: Kind, fake_service: FakeService) -> None:
    """Method, URL, status, headers and the beginning of the body, without secrets."""
    url = URL.replace("//", "//jim:pass-word@")
    headers = {"X-Team": "shop", "X-Key": "secret-header"}
    options: dict[str, Any] = {"params": {"key": "secret-parameter", "v": "1"}, "headers": headers}
    with running_in_memory(kind, fake_service, url=url, **options) as subject:
        said = CannedResponse(
            418,
            b"jim:secret-parameter " + b"x" * 70000,
            {"X-Request-Id": "r1 secret-parameter", "Set-Cookie": "session=s1"},
        )
        fake_service.respond_with("GET /api/health", said)
        with pytest.raises(UnexpectedResponseError) as raised:
            subject.ping()
    error = raised.value
    assert (error.method, error.url, error.status) == ("GET", f"{URL}/api/health?key=***&v=1", 418)
    sent = error.request_headers or {}
    assert (sent["x-team"], sent["x-key"], sent["authorization"], sent["host"]) == ("shop", "***", "***", "service")
    assert error.request_content is None
    assert error.headers is not None
    assert (error.headers["x-request-id"], error.headers["set-cookie"]) == ("r1 ***", "***")
    assert error.content == b"jim:*** " + b"x" * ((1 << 16) - 8)
    for shown in (error, copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - it is our own
        assert vars(shown)["request_headers"] == sent
        assert "secret" not in str(shown) + repr(shown) + str(vars(shown))


SECRETS = {
    "as it is": (b"%s", 'tok en/1-"se\\cret"'),
    "in JSON": (b'{"detail": %s}', 'a"b\\c/d-long'),
    "in JSON of another kind": (rb'"a\"b\\c\/d-long"', 'a"b\\c/d-long'),
    "in HTML": (b"<p>tok&amp;en&lt;long&gt;</p>", "tok&en<long>"),
    "in a URL": (b"?key=tok%%2fen%%2bse%%3dcret", "tok/en+se=cret"),
    "at the end of the excerpt": (b"x" * ((1 << 16) - 14) + b"%s", "secret-parameter-value"),
}


@pytest.mark.parametrize("how", SECRETS)
def test_a_secret_that_a_response_repeats_is_redacted(kind: Kind, fake_service: FakeService, how: str) -> None:
    """In every encoding, and even where the body is truncated."""
    body, secret = SECRETS[how]
    as_json = json.dumps(secret).encode()
    content = body % (as_json if body.startswith(b"{") else secret.encode()) if b"%s" in body else body % ()
    with running_in_memory(kind, fake_service, params={"key": secret}) as subject:
        fake_service.respond_with("GET /api/health", CannedResponse(418, content))
        with pytest.raises(UnexpectedResponseError) as raised:
            subject.ping()
    shown = raised.value.content
    assert b"***" in shown or len(content) > 1 << 16
    assert not {b"long", b"cret", b"secret"} & {part for part in (b"long", b"cret", b"secret") if part in shown}
    assert secret not in str(raised.value)


def test_the_password_of_basic_authentication_is_redacted(kind: Kind, fake_service: FakeService) -> None:
    """A gateway may repeat it in plain text. The query of a Location header is redacted as well."""
    said = CannedResponse(
        401, b"jim, your password hunter2 is wrong: jim:hunter2", {"Location": "/login?token=new#token=new"}
    )
    with running_in_memory(kind, fake_service, url=URL.replace("//", "//jim:hunter2@")) as subject:
        fake_service.respond_with("GET /api/health", said)
        with pytest.raises(UnexpectedResponseError) as raised:
            subject.ping()
    assert raised.value.content == b"jim, your password *** is wrong: ***"
    assert (raised.value.headers or {})["location"] == "/login?***"


def test_an_error_without_a_response_has_the_request(kind: Kind, fake_service: FakeService) -> None:
    """An error of a refresh as well."""
    setting = Setting("s", int, ["user"], 1)
    with running_in_memory(kind, fake_service) as subject:
        fake_service.respond_with(QUERY, CannedResponse(500, b"oops"))
        error = subject.reload_expecting(UnexpectedResponseError)
        assert (error.method, error.status) == ("GET", 500)  # type: ignore[attr-defined]
        fake_service.respond_with("GET /api/v1/context_features", CannedResponse(503, b"later", {"X-Request-Id": "r2"}))
        subject.clear_outcomes()
        subject.reload()
        problem: Any = subject.next_outcome()
        assert (problem.method, problem.url) == ("GET", f"{URL}/api/v1/context_features")
        assert (problem.status, problem.content, problem.headers["x-request-id"]) == (503, b"later", "r2")
        assert error.url.startswith(f"{URL}/api/v1/query?settings=s&")  # type: ignore[attr-defined]
        assert setting.get(user="jim") == 1
    client = kind.make("http://127.0.0.1:1/prefix/", 60, FEATURES)
    with pytest.raises(ServiceUnavailableError) as away:
        kind.call(client.get_settings())
    assert away.value.url == "http://127.0.0.1:1/prefix/api/v1/settings?include_additional_data=true"
    assert away.value.headers is None
    with pytest.raises(ServiceUnavailableError) as pinged:
        kind.call(client.ping())
    again: Any = pickle.loads(pickle.dumps(pinged.value))  # noqa: S301 - it is our own
    assert isinstance(again, httpx.HTTPError)
    assert (str(again), vars(again)["url"]) == (str(pinged.value), pinged.value.url)


def test_the_error_of_a_declaration_has_the_response(kind: Kind, fake_service: FakeService) -> None:
    """With its request."""
    with running_in_memory(kind, fake_service) as subject:
        refused = Setting("s", int, ["nobody_knows"], 1)
        error = subject.reload_expecting(DeclarationError)
    assert isinstance(error, DeclarationError)
    assert (error.method, error.url, error.status) == ("POST", f"{URL}/api/v1/settings/declare", 404)
    assert refused.name in str(error)
    assert b"nobody_knows" in error.content
    assert error.request_content == entry_of(refused).declaration.body
    assert (error.request_headers or {})["content-type"] == "application/json"


def test_errors_of_ping_are_httpx_errors_as_well(kind: Kind, fake_service: FakeService) -> None:
    """An unhealthy or unavailable service causes an error that is both a `HeksherError` and an `httpx.HTTPError`."""
    subject = Subject(kind, URL, 3600, FEATURES, **in_memory(fake_service))
    subject.ping()
    fake_service.respond_with("GET /api/health", CannedResponse(500, b"unhealthy"))
    with pytest.raises(httpx.HTTPError) as unhealthy:
        subject.ping()
    assert isinstance(unhealthy.value, UnexpectedResponseError)
    assert (unhealthy.value.status, unhealthy.value.content) == (500, b"unhealthy")
    assert str(unhealthy.value.request.url) == f"{URL}/api/health"
    assert vars(unhealthy.value)["response"].status_code == 500
    fake_service.is_running = False
    with pytest.raises(httpx.HTTPError) as unavailable:
        subject.ping()
    assert isinstance(unavailable.value, ServiceUnavailableError)
    assert isinstance(unavailable.value.__cause__, httpx.HTTPError)
    assert unavailable.value.request.method == "GET"
    assert not hasattr(unavailable.value, "response")
    subject.close()
    with pytest.raises(ClientNotRunningError):
        subject.ping()
    with pytest.raises(ClientNotRunningError):
        subject.get_settings()


def test_errors_of_ping_have_the_request_and_the_response_of_httpx(kind: Kind, fake_service: FakeService) -> None:
    """Without secrets, and decoded. Copies have them as well."""
    headers = {"Content-Encoding": "gzip", "X-Error": "secret-token", "Content-Type": "application/json"}
    fake_service.respond_with(
        "GET /api/health", CannedResponse(503, gzip.compress(b'{"detail": "secret-token is wrong"}'), headers)
    )
    options: dict[str, Any] = {"auth": StaticToken("secret-token"), "params": {"key": "secret-param"}}
    subject = Subject(kind, URL, 3600, FEATURES, **in_memory(fake_service, **options))
    with pytest.raises(httpx.HTTPError) as raised:
        subject.ping()
    subject.close()
    errors: list[Any] = [raised.value, copy.deepcopy(raised.value), pickle.loads(pickle.dumps(raised.value))]  # noqa: S301
    for error in errors:
        request, response = error.request, error.response
        assert (request.method, str(request.url)) == ("GET", f"{URL}/api/health?key=***")
        assert request.headers["Authorization"] == "***"
        assert (response.status_code, response.is_server_error, response.request) == (503, True, request)
        assert response.json() == {"detail": "*** is wrong"}
        assert response.headers["x-error"] == "***"
        assert str(error) == "GET /api/health: the service responded with 503: '*** is wrong'"


def test_an_httpx_error_has_what_is_known_of_the_request_and_the_response() -> None:
    """Headers may have any characters. An error without a request has none, as in httpx."""
    error = UnexpectedResponseError("no", status=500, content=b"x")
    without: Any = as_http_error(error)
    with pytest.raises(RuntimeError):
        _ = without.request
    assert not hasattr(without, "response")
    error.method, error.url, error.headers = "GET", "http://host/", {"x-error": "caf\u00e9 \ud800"}
    complete: Any = as_http_error(error)
    assert complete.response.headers["x-error"] == "caf\u00e9 ?"
    error.status = 0
    too_old: Any = as_http_error(error)
    assert (too_old.request.method, hasattr(too_old, "response")) == ("GET", False)


def test_an_error_in_user_code_of_a_request_is_a_service_unavailable_error(
    kind: Kind, fake_service: FakeService
) -> None:
    """An `httpx.Auth` that raises does not stop the refreshes."""
    setting = Setting("s", int, ["user"], 1)

    class Tokens(httpx.Auth):
        is_broken = False

        def auth_flow(self, request: httpx.Request) -> Any:
            if self.is_broken:
                raise KeyError("token")
            yield request

    auth = Tokens()
    with running_in_memory(kind, fake_service, http_client_args={"auth": auth}) as client:
        auth.is_broken = True
        error = client.reload_expecting(ServiceUnavailableError)
        assert isinstance(error.__cause__, KeyError)
        auth.is_broken = False
        fake_service.add_rule("s", 2, user="jim")
        client.reload()
        assert setting.get(user="jim") == 2


def test_no_header_or_token_is_in_an_error_or_a_log_record(
    kind: Kind, counting: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid header value is redacted as well, though the error of httpx quotes it."""
    caplog.set_level(logging.DEBUG, "heksher_client")
    headers = httpx.Headers({"Authorization": "Bearer s3cret\n"})
    subject = Subject(kind, counting.url, 3600, FEATURES, http_client_args={"headers": headers})
    with pytest.raises(ServiceUnavailableError) as raised:
        subject.ping()
    with contextlib.suppress(ServiceUnavailableError):
        subject.start()
    subject.close()
    assert "s3cret" not in str(raised.value) + caplog.text


def test_a_program_can_have_its_own_error_classes_for_statuses(kind: Kind, fake_service: FakeService) -> None:
    """For refreshes, for `get_settings`, and for `ping`, where they are httpx errors as well."""
    setting = Setting("s", int, ["user"], 1)
    with running_in_memory(kind, fake_service, error_classes={500: BrokenError, 418: TeapotError}) as subject:
        fake_service.respond_with(QUERY, CannedResponse(500, b"oops"))
        assert isinstance(subject.reload_expecting(BrokenError), BrokenError)
        fake_service.intercept = lambda request: CannedResponse(418, b"short and stout", {"Retry-After": "7"})
        with pytest.raises(TeapotError, match="short and stout") as pot:
            subject.get_settings()
        assert (pot.value.status, pot.value.content, pot.value.retry_after) == (418, b"short and stout", 7)
        assert pot.value.url == f"{URL}/api/v1/settings?include_additional_data=true"
        with pytest.raises(TeapotError) as both:
            subject.ping()
        assert isinstance(both.value, httpx.HTTPError)
        assert type(both.value).__name__ == "TeapotError"
        fake_service.intercept = lambda request: CannedResponse(404)
        with pytest.raises(UnexpectedResponseError) as other:
            subject.ping()
        assert not isinstance(other.value, BrokenError | TeapotError)
        assert setting.get(user="jim") == 1


def test_a_refused_declaration_is_of_the_class_of_the_program_as_well(kind: Kind, fake_service: FakeService) -> None:
    """So a program catches one class for a status. Refreshes go on as usual."""
    good = Setting("good", int, ["user"], 1)
    with running_in_memory(kind, fake_service, error_classes={404: TeapotError}) as subject:
        _refused = Setting("refused", int, ["nobody_knows"], 1)
        error: Any = subject.reload_expecting(TeapotError)
        assert isinstance(error, DeclarationError)
        assert (error.setting, error.status) == ("refused", 404)
        fake_service.add_rule("good", 2, user="jim")
        subject.reload_expecting(TeapotError)
        assert good.get(user="jim") == 2


# -- the rate limit ----------------------------------------------------------------------------------------------------


def test_no_interval_has_more_requests_than_the_rate_limit() -> None:
    """Wherever the interval begins. Requests are sent in the order in which they asked."""
    now = 0.0
    limit = RateLimit(3, 10.0, lambda: now)
    sent = [limit.take() for _ in range(7)]
    assert sent == [0, 0, 0, 10, 10, 10, 20]
    assert [limit.wait(place) for place in sent] == sent
    now = 27.0
    sent += [limit.take() for _ in range(4)]
    assert sent[7:] == [27, 27, 30, 37]
    assert all(sum(1 for at in sent if begin <= at < begin + 10) <= 3 for begin in sent)
    assert len(limit._places) <= 6


@pytest.mark.parametrize(
    ("rate", "taken"),
    [(0.5, [0, 20, 40, 60]), (2.5, [0, 0, 8, 8, 16]), (1.0, [0, 10, 20]), (3, [0, 0, 0, 10]), (0.001, [0, 10_000])],
)
def test_a_rate_limit_may_be_a_fraction(rate: float, taken: list[float]) -> None:
    """Less than one request in an interval are one in several."""
    limit = RateLimit(rate, 10.0, lambda: 0.0)
    assert [limit.take() for _ in taken] == pytest.approx(taken)


def test_a_client_may_send_one_request_in_several_intervals(kind: Kind, fake_service: FakeService) -> None:
    """As the option says."""
    for options in ({"rate_limit": 0.5}, {"rate_limit": 0.25, "rate_limit_interval": 0.5}):
        client = kind.make(URL, 60, FEATURES, **in_memory(fake_service, **options))
        assert (client._rate_limit._limit, client._rate_limit._interval) == (1, 2.0)


def test_a_place_that_is_given_back_is_taken_by_another_request() -> None:
    """Callers that give up do not delay others."""
    limit = RateLimit(1, 1.0, lambda: 0.0)
    places = [limit.take() for _ in range(100)]
    for place in places[1:]:
        limit.give_back(place)
    assert [limit.take() for _ in range(3)] == [1, 2, 3]


@given(st.lists(st.tuples(st.sampled_from(["take", "give back"]), st.integers(0, 9)), max_size=60), st.integers(1, 3))
def test_places_that_are_given_back_do_not_exceed_the_rate_limit(steps: list[tuple[str, int]], most: int) -> None:
    """In any order, at any time."""
    now = 0.0
    limit = RateLimit(most, 10.0, lambda: now)
    taken: list[float] = []
    for what, number in steps:
        now += number / 4
        waiting = [place for place in taken if place >= now]
        if what == "take":
            taken.append(limit.take())
            assert taken[-1] >= now
        elif waiting:
            place = waiting[number % len(waiting)]
            taken.remove(place)
            limit.give_back(place)
    assert all(sum(1 for at in taken if begin <= at < begin + 10) <= most for begin in taken)


class RecordingRateLimit(RateLimit):
    """A rate limit that records the places that are taken."""

    def __init__(self, limit: int, interval: float) -> None:
        super().__init__(limit, interval, time.monotonic)
        self.taken: list[float] = []

    def take(self) -> float:
        self.taken.append(super().take())
        return self.taken[-1]


def test_each_request_that_is_sent_counts_for_the_rate_limit(kind: Kind, fake_service: FakeService) -> None:
    """Requests of refreshes, redirected ones, and ones repeated with another token or on a new connection."""
    limit = RecordingRateLimit(1, 0.001)
    setting = Setting("s", int, ["user"], 1)
    with FaultServer(fake_service) as server:
        subject = Subject(kind, server.url, 60, FEATURES, auth=TokenFrom(lambda: "t"), rate_limit=1)
        subject.client._rate_limit = limit
        subject.start()
        assert len(limit.taken) == len(fake_service.requests) == 3
        answers = iter(
            [
                CannedResponse(307, b"", {"location": "/api/health?again"}),
                CannedResponse(401),
                CannedResponse.of({"version": "1"}),
            ]
        )
        fake_service.intercept = lambda request: next(answers)
        subject.ping()
        assert len(limit.taken) == len(fake_service.requests) == 6
        fake_service.intercept = lambda request: None

        def end_once(connection: Connection) -> None:
            server.inject(None)
            connection.raw.shutdown(socket.SHUT_RDWR)

        server.inject(end_once)
        subject.ping()
        assert len(limit.taken) == len(fake_service.requests) + 1 == 8
        subject.close()
    assert setting.get(user="jim") == 1


def test_requests_of_many_threads_stay_within_the_rate_limit(kind: Kind, fake_service: FakeService) -> None:
    """The service receives no request before its turn."""
    limit = RecordingRateLimit(5, 0.02)
    early: list[RecordedRequest] = []
    lock = threading.Lock()
    received = 0

    def check(request: RecordedRequest) -> None:
        nonlocal received
        with lock:
            received += 1
            now = time.monotonic()
            if sum(place <= now for place in limit.taken.copy()) < received:
                early.append(request)

    fake_service.intercept = check
    client = kind.make(URL, 60, FEATURES, **in_memory(fake_service, rate_limit=1))
    client._rate_limit = limit
    with ThreadPoolExecutor(10) as pool:
        for call in [pool.submit(lambda: kind.call(client.ping())) for _ in range(50)]:
            call.result(TIMEOUT_SECONDS)
    kind.call(client.aclose() if kind.raises_at_start else client.close())
    assert (early, received) == ([], 50)


def test_a_request_that_waits_for_the_rate_limit_ends_when_the_client_is_closed(
    kind: Kind, fake_service: FakeService
) -> None:
    """At once, and it gives its place back."""
    client = kind.make(URL, 60, FEATURES, **in_memory(fake_service, rate_limit=1, rate_limit_interval=1000))
    kind.call(client.ping())
    failed: list[Exception] = []

    def ping() -> None:
        try:
            kind.call(client.ping())
        except Exception as error:
            failed.append(error)

    waiting = threading.Thread(target=ping)
    waiting.start()
    assert eventually(lambda: len(client._rate_limit._places) == 2)
    kind.call(client.aclose() if kind.raises_at_start else client.close())
    waiting.join(TIMEOUT_SECONDS)
    assert isinstance(failed[0], ClientNotRunningError)
    assert eventually(lambda: len(client._rate_limit._free) == 1)


@pytest.mark.anyio
async def test_a_cancelled_task_gives_its_place_in_the_rate_limit_back(fake_service: FakeService) -> None:
    """Later requests do not wait for it."""
    client = AsyncHeksherClient(URL, 60, FEATURES, **in_memory(fake_service, rate_limit=1, rate_limit_interval=1000))
    await client.ping()
    tasks = [asyncio.create_task(client.ping()) for _ in range(10)]
    for _ in range(10):
        await asyncio.sleep(0)
    limit = client._rate_limit
    assert limit is not None
    assert len(limit._places) == 11
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(limit._free) == 10
    await client.aclose()


# -- connections -------------------------------------------------------------------------------------------------------


@contextmanager
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Advance the clock of connections, without waiting."""
    passed = 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + passed

    def advance(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    with monkeypatch.context() as patch:
        for module in ("_sync.http11", "_async.http11"):
            patch.setattr(f"httpcore.{module}.time", Clock)
        yield advance


@pytest.mark.parametrize("interval", [60, 180])
def test_all_polls_use_one_connection(
    kind: Kind, counting: FaultServer, interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look up the host name once."""
    looked_up = []
    look_up = socket.getaddrinfo

    def noted(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    setting = Setting("s", int, ["user"], 1)
    url = counting.url.replace("127.0.0.1", "localhost")
    with running(kind, url, interval) as subject, fast_clock(monkeypatch) as advance:
        for _ in range(5):
            advance(interval * 1.1)  # with the jitter
            subject.reload()
    assert counting.connections == 1
    assert sum(host in ("localhost", b"localhost") for host in looked_up) == 1
    assert len(counting.requests) == 3 + 5 * 2
    assert setting.get(user="jim") == 1


def test_a_connection_expires_before_firewalls_drop_it(
    kind: Kind, counting: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection costs less than waiting for one that was dropped silently."""
    with running(kind, counting.url) as subject, fast_clock(monkeypatch) as advance:
        advance(271)
        subject.ping()
    assert counting.connections == 2


def test_a_connection_that_was_closed_while_idle_is_replaced(kind: Kind, counting: FaultServer) -> None:
    """The caller does not notice."""
    with running(kind, counting.url) as subject:
        counting.disconnect_all()
        subject.ping()
        assert counting.connections == 2


def test_a_request_is_sent_again_once(kind: Kind, counting: FaultServer, fake_service: FakeService) -> None:
    """However many idle connections the service has closed."""
    ended: list[str] = []
    at_once = threading.Barrier(3)

    def end(connection: Connection) -> None:
        ended.append(connection.path)
        connection.raw.shutdown(socket.SHUT_RDWR)

    def wait_for_others(request: RecordedRequest) -> None:
        if str(request) == DECLARE:
            at_once.wait(TIMEOUT_SECONDS)

    fake_service.intercept = wait_for_others
    settings = [Setting(f"s{index}", int, ["user"], 1) for index in range(3)]
    with running(kind, counting.url) as subject:
        assert counting.connections == 3
        counting.inject(end, only="/api/health")
        with pytest.raises(ServiceUnavailableError):
            subject.ping()
    assert len(ended) == 2
    assert len(settings) == 3


def test_a_connection_that_is_closed_while_a_request_is_sent_is_replaced(kind: Kind, counting: FaultServer) -> None:
    """The service closed it because it was idle, before the request arrived."""
    ended = []

    def end_once(connection: Connection) -> None:
        ended.append(connection.path)
        counting.inject(None)
        connection.raw.shutdown(socket.SHUT_RDWR)

    setting = Setting("s", int, ["user"], 1)
    with running(kind, counting.url) as subject:
        for call in (subject.ping, subject.get_settings, subject.reload):
            counting.inject(end_once)
            call()
    assert ended == ["/api/health", "/api/v1/settings?include_additional_data=true", "/api/v1/context_features"]
    assert setting.get(user="jim") == 1


def test_a_new_connection_that_is_closed_is_an_error(kind: Kind, counting: FaultServer) -> None:
    """The service has a fault then, and another request at once would not help."""
    counting.inject(lambda connection: connection.raw.shutdown(socket.SHUT_RDWR))
    subject = Subject(kind, counting.url, 60, FEATURES)
    with pytest.raises(ServiceUnavailableError):
        subject.ping()
    subject.close()
    assert counting.connections == 1


# -- shared HTTP clients -----------------------------------------------------------------------------------------------


@pytest.fixture
def shared(kind: Kind) -> Iterator[Any]:
    """A shared HTTP client, asynchronous or not, like the client under test."""
    http: Any = (httpx.AsyncClient if kind.raises_at_start else httpx.Client)(
        headers={"X-Program": "shop"},
        params={"p": "1"},
        timeout=TIMEOUT_SECONDS,
        base_url="http://127.0.0.1:1/elsewhere",
    )
    yield http
    kind.call(http.aclose() if kind.raises_at_start else http.close())


def test_a_client_uses_a_shared_http_client(kind: Kind, service: WatchedService, shared: Any) -> None:
    """It keeps its headers and parameters, ignores its base URL, and does not close it."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, http_client=shared, headers={"X-Own": "1"}) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert setting.get(user="jim") == 2
    assert not shared.is_closed
    assert kind.call(shared.get(service.url + "/api/health")).status_code == 200
    request = service.requests_to(QUERY)[0]
    assert (request.headers["x-program"], request.headers["x-own"], request.query["p"]) == ("shop", "1", "1")
    assert request.headers["user-agent"].startswith("heksher-client/")
    assert "x-own" not in service.requests[-1].headers


def test_a_shared_http_client_with_one_connection_has_no_stream(kind: Kind, service: WatchedService) -> None:
    """A stream of changes would occupy its only connection."""
    service.reset(offers_changes=True)
    limits = httpx.Limits(max_connections=1)
    http: Any = (httpx.AsyncClient if kind.raises_at_start else httpx.Client)(limits=limits, timeout=TIMEOUT_SECONDS)
    with running(kind, service.url, http_client=http) as subject:
        subject.ping()
        assert not subject.client._session.wants_to_follow
    kind.call(http.aclose() if kind.raises_at_start else http.close())


def test_a_shared_http_client_can_be_wrapped(service: WatchedService) -> None:
    """In an object with a plain `send` that returns an awaitable, and with the attributes that are needed only."""

    class Wrapper:
        def __init__(self, wrapped: httpx.AsyncClient) -> None:
            self.wrapped = wrapped

        def __getattr__(self, name: str) -> Any:
            if name == "event_hooks":
                raise AttributeError(name)
            return getattr(self.wrapped, name)

        def send(self, *args: Any, **kwargs: Any) -> Any:
            return self.wrapped.send(*args, **kwargs)

    async def ping() -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
            client = AsyncHeksherClient(service.url, 60, FEATURES, http_client=Wrapper(http))
            await client.ping()
            await client.aclose()

    asyncio.run(ping())
    with pytest.raises(TypeError, match="does not have aclose"):
        AsyncHeksherClient(service.url, 60, FEATURES, http_client=http_client())


def test_two_clients_can_share_an_http_client(kind: Kind, service: WatchedService, shared: Any) -> None:
    """Closing one of them does not affect the other."""
    first = kind.make(service.url, 60, FEATURES, http_client=shared)
    second = kind.make(service.url, 60, FEATURES, http_client=shared)
    kind.call(first.ping())
    kind.call(first.aclose() if kind.raises_at_start else first.close())
    kind.call(second.ping())


@pytest.mark.anyio
async def test_the_async_client_can_use_an_application_in_the_same_process() -> None:
    """By `httpx.ASGITransport`, without a socket."""
    app = create_app("sqlite://", ["user"], access_control=False)
    setting = Setting("s", int, ["user"], 1)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    transport = {"transport": httpx.ASGITransport(app)}
    async with AsyncHeksherClient("http://127.0.0.1", 3600, ["user"], http_client_args=transport) as client:
        client.set_defaults(user="jim")
        rule = {"setting": "s", "feature_values": {"user": "jim"}, "value": 2}
        assert (await http.post("http://127.0.0.1/api/v1/rules", json=rule)).status_code == 201
        await client.reload()
        assert setting.get() == 2
        assert not client._session.wants_to_follow
    async with AsyncHeksherClient("http://127.0.0.1", 3600, ["user"], http_client=http) as client:
        assert not client._session.wants_to_follow
    await http.aclose()
    app.state.event_stream.close()
    app.state.database.close()


@pytest.mark.slow
def test_the_example_of_an_application_in_the_same_process_runs() -> None:
    """As printed in the documentation."""
    example = Path(__file__).parents[2] / "docs" / "examples" / "in_process.py"
    done = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    )
    assert done.stdout == "Hi Hello\n"
