"""Faults of the network, by the ids of the table in the documentation."""

import gc
import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from heksher_client import (
    ClientNotRunningError,
    CredentialTimeoutError,
    HeksherError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    Setting,
    State,
    UnexpectedResponseError,
    UntrustedServiceError,
)
from heksher_client._core.settings.registry import registry
from heksher_client.credentials import RefreshableToken
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    ClientClock,
    Kind,
    Subject,
    ThreadKind,
    call_without_waiting,
    eventually,
    in_thread,
    limited,
    running,
)
from tests.support.fake_service import FakeService
from tests.support.faults import (
    Fault,
    FaultServer,
    canned_response,
    disconnect,
    gzip_bomb,
    redirect_to,
    reset,
    stall,
    trickle,
    trickle_head,
    truncate,
)
from tests.support.oauth import CLIENT, OAuthServer
from tests.support.ports import reserved_port
from tests.support.service import QUERY, CannedResponse
from tests.support.threads import threads_of_clients


@pytest.fixture
def service() -> FakeService:
    """An empty service in memory. Only its HTTP server is real, and has the faults."""
    return FakeService()


@pytest.fixture
def url_without_service() -> Iterator[str]:
    """The URL of a port that refuses connections."""
    with reserved_port() as port:
        yield f"http://127.0.0.1:{port}"


def open_file_count() -> int:
    """Return the number of open file descriptors of the process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def start_failing(subject: Subject) -> HeksherError | None:
    """Start a client whose start fails, and return the error, which is raised or logged."""
    subject.client.set_defaults(**dict.fromkeys(FEATURES, "none"))
    if subject.kind.raises_at_start:
        with pytest.raises(HeksherError) as raised:
            subject.start()
        return raised.value
    subject.start()
    error = subject.next_outcome()
    assert isinstance(error, HeksherError)
    return error


def test_n1_service_down_at_the_start(
    kind: Kind, proxy: FaultServer, service: FakeService, url_without_service: str
) -> None:
    """The async start raises, the thread start logs; the next client has all settings."""
    setting = Setting("s", int, ["user"], 7)
    subject = Subject(kind, url_without_service, 3600, FEATURES)
    assert isinstance(start_failing(subject), ServiceUnavailableError)
    assert setting.get() == 7
    assert subject.client.closed == kind.raises_at_start
    assert (registry.main is None) == kind.raises_at_start
    subject.close()
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 8, user="jim")
    with running(kind, proxy.url):
        assert setting.get(user="jim") == 8


def test_n1_service_that_comes_up_after_the_start(proxy: FaultServer, service: FakeService) -> None:
    """The thread client retries by itself."""
    setting = Setting("s", int, ["user"], 7)
    service.declare("s", "int", 7, ["user"])
    service.add_rule("s", 8, user="jim")
    proxy.inject(disconnect)
    subject = Subject(ThreadKind(), proxy.url, 3600, FEATURES, max_backoff=0.01)
    assert isinstance(start_failing(subject), ServiceUnavailableError)
    proxy.inject(None)
    while subject.next_outcome() is not None:
        pass
    assert setting.get(user="jim") == 8
    subject.close()


def test_n2_service_goes_down_while_the_client_runs(kind: Kind, proxy: FaultServer) -> None:
    """Values stay, and the status is failing until the service is up again."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, proxy.url) as client:
        proxy.inject(disconnect)
        proxy.disconnect_all()
        for failures in (1, 2, 3):
            client.reload_expecting(ServiceUnavailableError)
            status = client.client.status()
            assert (status.state, status.failures) == (State.FAILING, failures)
            assert "no response" in (status.last_error or "")
        assert setting.get() == 7
        proxy.inject(None)
        client.reload()
        assert (client.client.status().state, client.client.status().failures) == (State.FRESH, 0)


@pytest.mark.parametrize("fault", [stall, trickle, trickle_head])
def test_n3_n4_server_that_never_completes_a_response(kind: Kind, proxy: FaultServer, fault: Fault) -> None:
    """There is a deadline for the whole start, and one for each request from beginning to end."""
    setting = Setting("s", int, ["user"], 7)
    proxy.inject(fault)
    subject = Subject(kind, proxy.url, 3600, FEATURES, start_timeout=0.1)
    call_without_waiting(lambda: start_failing(subject))
    call_without_waiting(subject.close)
    proxy.inject(None)
    with running(kind, proxy.url) as client:
        proxy.inject(fault)
        with limited(client, 0.1):
            call_without_waiting(lambda: client.reload_expecting(ServiceUnavailableError))
        assert setting.get(user="jim") == 7
        proxy.inject(None)
        client.reload()


def http_client_of(kind: Kind, seconds: float) -> Any:
    """Return an HTTP client of a program, with a timeout of its own."""
    return (httpx.AsyncClient if kind.raises_at_start else httpx.Client)(timeout=seconds)


def close_http_client(kind: Kind, client: Any) -> None:
    kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_n13_a_busy_service_has_the_time_of_a_request(kind: Kind) -> None:
    """Only the connection must be fast. The timeouts of a program and of its HTTP client are shorter limits."""
    client = kind.make("http://host", 60, FEATURES)
    own = http_client_of(kind, 7)
    request = next(client._session.requests.ping()).requests[0]
    for arguments, expected in [
        ({}, {"connect": 5, "read": 30, "write": 30, "pool": 30}),
        ({"request_timeout": 3}, {"connect": 3, "read": 3, "write": 3, "pool": 3}),
        ({"request_timeout": 300}, {"connect": 5, "read": 300, "write": 300, "pool": 300}),
        ({"timeout": 10}, {"connect": 10, "read": 10, "write": 10, "pool": 10}),
        ({"http_client": own}, {"connect": 7, "read": 7, "write": 7, "pool": 7}),
        ({"http_client": own, "timeout": 10}, {"connect": 10, "read": 10, "write": 10, "pool": 10}),
    ]:
        client = kind.make("http://host", 60, FEATURES, **arguments)
        built = client._endpoint.build_request(request, client._session.requests.limits.seconds)
        assert built.extensions["timeout"] == expected
    close_http_client(kind, own)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"timeout": 0.1}, "limited to 0.1 seconds by the option timeout"),
        ({"request_timeout": 0.1, "timeout": 60}, "limited (to 0.1 seconds )?by the option request_timeout"),
        ({"request_timeout": 0.1}, "limited (to 0.1 seconds )?by the option request_timeout"),
        ({"start_timeout": 0.1}, r"limited (to [\d.]+ seconds )?by the option start_timeout"),
        ({"http_client": 0.1}, "limited to 0.1 seconds by http_client, or by the option timeout if that is given"),
        ({"http_client": 60, "timeout": 0.1}, "limited to 0.1 seconds by the option timeout"),
        ({"http_client": 60, "request_timeout": 0.1}, "limited (to 0.1 seconds )?by the option request_timeout"),
    ],
)
def test_n13_the_error_for_a_late_response_names_the_option(
    kind: Kind, proxy: FaultServer, options: dict[str, Any], limit: str
) -> None:
    """So that it can be raised where the service needs more time."""
    options = dict(options)
    own = http_client_of(kind, options["http_client"]) if "http_client" in options else None
    if own is not None:
        options["http_client"] = own
    proxy.inject(stall)
    subject = Subject(kind, proxy.url, 3600, FEATURES, **options)
    error = start_failing(subject)
    assert isinstance(error, ServiceTimeoutError)
    assert isinstance(error, TimeoutError)
    assert re.search(rf"no response \(\w+(: [^,]+)?, {limit}\)$", str(error))
    subject.close()
    if own is not None:
        close_http_client(kind, own)


@pytest.fixture
def token_server() -> Iterator[OAuthServer]:
    """A token server that accepts requests, and does not respond."""
    with OAuthServer() as server:
        server.gate.clear()
        yield server


TOO_LATE = "no access token within"
LATE_TOKEN_SERVER = (
    f"{CLIENT} at 127.0.0.1: the request failed "
    '(ReadTimeout, limited to 0.05 seconds by http_client_args={"timeout": ...})'
)


@pytest.mark.parametrize(
    ("is_refused", "options", "timeout", "reason"),
    [
        (False, {}, 0.05, re.escape(LATE_TOKEN_SERVER)),
        (True, {}, 0.05, re.escape(LATE_TOKEN_SERVER)),
        (
            False,
            {"request_timeout": 0.1},
            60,
            f"{TOO_LATE} 0.1 seconds, limited by the option request_timeout",
        ),
        (True, {"request_timeout": 1.0}, 60, f"{TOO_LATE} 1 second, limited by the option request_timeout"),
        (
            False,
            {"start_timeout": 0.1},
            60,
            rf"{TOO_LATE} 0\.\d+ seconds, limited by the option start_timeout",
        ),
    ],
    ids=["timeout", "refused-timeout", "request_timeout", "refused-request_timeout", "start_timeout"],
)
def test_n13_the_error_for_a_late_access_token_names_the_option(
    kind: Kind,
    proxy: FaultServer,
    token_server: OAuthServer,
    is_refused: bool,
    options: dict[str, Any],
    timeout: float,
    reason: str,
) -> None:
    """The service is not blamed, also if it has refused a former token."""
    proxy.inject(canned_response(b"", 401))
    auth = RefreshableToken(
        "former" if is_refused else None,
        token_server.issue_refresh_token(),
        token_url=token_server.token_url,
        client_id=CLIENT,
        http_client_args={"timeout": timeout},
    )
    subject = Subject(kind, proxy.url, 3600, FEATURES, auth=auth, **options)
    error = start_failing(subject)
    assert isinstance(error, CredentialTimeoutError)
    assert isinstance(error, TimeoutError)
    assert re.fullmatch(rf"GET /api/v1/\w+: {reason}", str(error))
    assert bool(proxy.requests) is is_refused
    subject.close()


def test_n13_a_service_is_late_also_while_a_token_is_refreshed_in_the_background(
    kind: Kind, proxy: FaultServer, token_server: OAuthServer
) -> None:
    """Requests do not wait for that."""
    proxy.inject(stall)
    auth = RefreshableToken(
        "valid",
        token_server.issue_refresh_token(),
        expires_at=time.time() + 3600,
        token_url=token_server.token_url,
        client_id=CLIENT,
    )
    auth._cached = auth._cached._replace(refresh_at=0)  # type: ignore[union-attr]
    subject = Subject(kind, proxy.url, 3600, FEATURES, auth=auth, request_timeout=0.1)
    error = start_failing(subject)
    assert isinstance(error, ServiceTimeoutError)
    assert "no response" in str(error)
    assert auth._pending_refresh is not None
    subject.close()


def test_n4_connections_of_hanging_threads_are_closed(proxy: FaultServer) -> None:
    """A server that sends single bytes would otherwise block the threads for hours."""
    setting = Setting("s", int, ["user"], 7)
    with running(ThreadKind(), proxy.url) as client:
        workers = client.client._workers
        workers.max_threads = 3  # that many hanging threads are a reason to close their connections
        proxy.inject(trickle_head)
        previous = client.client._endpoint.client
        hanging: set[threading.Thread] = set()

        def is_renewed() -> bool:
            hanging.update(workers.hanging_threads())
            with pytest.raises(ServiceUnavailableError):
                client.ping()
            return client.client._endpoint.client is not previous

        with limited(client, 0.2):
            assert eventually(is_renewed)
        assert len(hanging) >= 3
        for thread in hanging:
            thread.join(TIMEOUT_SECONDS)
        assert not any(thread.is_alive() for thread in hanging)
        proxy.inject(None)
        client.reload()
        assert client.client.status().state is State.FRESH
    assert setting.get(user="jim") == 7


def test_n4_no_more_threads_are_started_while_many_hang(proxy: FaultServer) -> None:
    """They would hang as well. The client recovers when the hanging threads have ended."""
    setting = Setting("s", int, ["user"], 7)
    with running(ThreadKind(), proxy.url) as client:
        client.client._workers.max_hanging = 1
        proxy.inject(trickle_head)  # no step of it exceeds a timeout

        def is_refused() -> bool:
            error = client.reload_expecting(ServiceUnavailableError)
            return "too many previous requests still hang" in str(error)

        with limited(client, 0.2):
            assert eventually(is_refused)
        proxy.inject(None)
        proxy.disconnect_all()
        for thread in client.client._workers.hanging_threads():
            thread.join(TIMEOUT_SECONDS)
        client.reload()
        assert client.client.status().state is State.FRESH
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize("fault", [truncate, reset])
def test_n5_truncated_response(kind: Kind, proxy: FaultServer, service: FakeService, fault: Fault) -> None:
    """It is an error, and its ETag is not stored: the next response is complete."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, proxy.url) as client:
        service.add_rule("s", 8, user="jim")
        proxy.inject(fault, "/query")
        client.reload_expecting(ServiceUnavailableError)
        assert setting.get(user="jim") == 7
        proxy.inject(None)
        client.reload()
        assert setting.get(user="jim") == 8


def test_n5_truncated_compressed_data(kind: Kind, proxy: FaultServer) -> None:
    """The response itself is complete."""
    setting = Setting("s", int, ["user"], 7)
    truncated = gzip.compress(b'{"settings": {"s": {"default_value": 8, "rules": []}}}' * 50)[:-12]
    with running(kind, proxy.url) as client:
        proxy.inject(canned_response(truncated, headers="Content-Encoding: gzip\r\n"), "/query")
        error = client.reload_expecting(UnexpectedResponseError)
        assert "with compressed data that ends too early" in str(error)
        assert setting.get(user="jim") == 7


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lookup of a host name hangs until the end of the test."""
    ended = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("nowhere.invalid", b"nowhere.invalid"):
            ended.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", hang)
    yield
    ended.set()


@pytest.mark.usefixtures("hanging_names")
def test_n6_host_name_lookup_that_hangs(kind: Kind) -> None:
    """Neither the start nor closing waits for it."""
    subject = Subject(kind, "http://nowhere.invalid", 3600, FEATURES, start_timeout=0.1)
    call_without_waiting(lambda: start_failing(subject))
    call_without_waiting(subject.close)


def test_n6_unknown_host_name(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is unavailable. No server for names is asked here: it might take its time."""

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    subject = Subject(kind, "http://nowhere.invalid", 3600, FEATURES)
    assert isinstance(start_failing(subject), ServiceUnavailableError)
    subject.close()


def test_n6_host_name_that_is_unknown_for_a_time(
    kind: Kind, proxy: FaultServer, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values stay, and the client recovers."""
    setting = Setting("s", int, ["user"], 7)
    look_up, is_known = socket.getaddrinfo, True

    def look_up_if_known(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("service.invalid", b"service.invalid"):
            return look_up(host, port, *args, **kwargs)
        if not is_known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up("127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", look_up_if_known)
    monkeypatch.setattr("heksher_client._http.resolved_hosts._LIFETIME", 0.0)
    with running(kind, f"http://service.invalid:{proxy.port}") as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        is_known = False
        proxy.disconnect_all()
        client.reload_expecting(ServiceUnavailableError)
        assert setting.get(user="jim") == 8
        is_known = True
        service.add_rule("s", 9, user="ann")
        client.reload()
        assert setting.get(user="ann") == 9


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("tests/data/tls/certificate.pem", "tests/data/tls/key.pem")
    return context


@pytest.fixture
def self_signed() -> Iterator[str]:
    """The URL of a TLS server with a self-signed certificate."""
    context = server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                    with context.wrap_socket(raw, server_side=True) as connection:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_n7_untrusted_certificate(kind: Kind, self_signed: str) -> None:
    """It has its own error class, and no request is sent without TLS."""
    subject = Subject(kind, self_signed, 3600, FEATURES)
    assert isinstance(start_failing(subject), UntrustedServiceError)
    with pytest.raises(UntrustedServiceError):
        subject.ping() if not kind.raises_at_start else kind.call(Subject(kind, self_signed, 1, FEATURES).client.ping())
    subject.close()


def test_n7_server_without_tls(kind: Kind, proxy: FaultServer) -> None:
    """No request is sent without TLS."""
    subject = Subject(kind, proxy.url.replace("http:", "https:"), 3600, FEATURES)
    assert isinstance(start_failing(subject), UntrustedServiceError)
    subject.close()
    assert proxy.requests == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_n8_redirect_to_the_same_server_is_followed(kind: Kind, proxy: FaultServer, status: int) -> None:
    """If its status preserves the method. A 301 would lose the body of a declaration."""
    setting = Setting("s", int, ["user"], 7)

    def redirect(connection: Any) -> None:
        if connection.path.startswith("/again"):
            connection.request = connection.request.replace(b" /again", b" ", 1)
            connection.path = connection.path.removeprefix("/again")
            connection.write(connection.forward())
        else:
            redirect_to("/again{path}", status)(connection)

    proxy.inject(redirect)
    if status in (307, 308):
        with running(kind, proxy.url) as client:
            assert client.client.status().settings["s"].declaration == "created"
        return
    subject = Subject(kind, proxy.url, 3600, FEATURES)
    error = start_failing(subject)
    assert isinstance(error, UnexpectedResponseError)
    assert error.status == status
    subject.close()
    assert setting.get() == 7


def test_n8_redirect_to_another_server_is_an_error(kind: Kind, proxy: FaultServer, service: FakeService) -> None:
    """The other server gets no request, and so no credentials."""
    setting = Setting("s", int, ["user"], 7)
    with FaultServer(service) as other:
        proxy.inject(redirect_to(f"{other.url}{{path}}"))
        arguments = {"auth": ("jim", "secret"), "follow_redirects": True}
        subject = Subject(kind, proxy.url, 3600, FEATURES, http_client_args=arguments)
        error = start_failing(subject)
        assert isinstance(error, UnexpectedResponseError)
        assert error.status == 307
        subject.close()
        assert other.requests == []
    assert setting.get() == 7


def test_n8_endless_redirects_are_an_error(kind: Kind, proxy: FaultServer) -> None:
    """At most three are followed."""
    setting = Setting("s", int, ["user"], 7)
    proxy.inject(redirect_to("/again{path}"))
    subject = Subject(kind, proxy.url, 3600, FEATURES)
    start_failing(subject)
    subject.close()
    assert len([request for request in proxy.requests if request.endswith("/context_features")]) == 4
    assert setting.get() == 7


def test_n9_page_of_a_proxy(kind: Kind, proxy: FaultServer) -> None:
    """HTML with status 200 changes nothing."""
    setting = Setting("s", int, ["user"], 7)
    page = canned_response(b"<html>Please sign in</html>", headers="Content-Type: text/html\r\nETag: x\r\n")
    with running(kind, proxy.url) as client:
        proxy.inject(page)
        client.reload_expecting(UnexpectedResponseError)
        assert setting.get(user="jim") == 7
        proxy.inject(None)
        client.reload()
    proxy.inject(page)
    subject = Subject(kind, proxy.url, 3600, FEATURES)
    assert isinstance(start_failing(subject), UnexpectedResponseError)
    subject.close()


def test_n10_processes_of_a_fleet_refresh_at_different_times(
    kind: Kind, proxy: FaultServer, client_clock: ClientClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their random numbers decide when, after a success and after failures."""
    setting = Setting("s", int, ["user"], 7)
    after_success, after_failures = [], []
    for number in (0.25, 0.75):
        monkeypatch.setattr("random.random", lambda number=number: number)
        with running(kind, proxy.url, 1e6, max_backoff=1e6, jitter=1) as client:
            after_success.append(client.client.status().next_attempt)
            proxy.inject(disconnect)
            for _ in range(15):
                client.reload_expecting(ServiceUnavailableError)
            after_failures.append(client.client.status().next_attempt)
            proxy.inject(None)
    assert after_success == [250_000, 750_000]
    assert after_failures == [0.875 * 2**14, 0.625 * 2**14]
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize("status", [413, 414, 431])
def test_n11_query_that_is_too_long_for_a_proxy(
    kind: Kind, proxy: FaultServer, service: FakeService, status: int
) -> None:
    """It is split, and so is the query of the next refresh."""
    settings = [Setting(f"s{i}", int, ["user"], i) for i in range(8)]
    service.respond_with(
        QUERY, lambda request: CannedResponse(status) if request.query["settings"].count(",") > 1 else None
    )
    with running(kind, proxy.url) as client:
        assert [setting.explain(user="x").reason.name for setting in settings] == ["SERVER_DEFAULT"] * 8
        service.requests.clear()
        client.reload()
        assert max(request.query["settings"].count(",") for request in service.requests_to(QUERY)) == 1


def test_an_idle_connection_that_was_closed_is_replaced_without_an_error(kind: Kind, proxy: FaultServer) -> None:
    """Servers and load balancers close idle connections."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, proxy.url) as client:
        for _ in range(3):
            proxy.disconnect_all()
            client.reload()
        assert client.client.status().failures == 0
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize("fault", [stall, trickle_head, trickle])
@pytest.mark.parametrize("has_tls", [False, True])
def test_c6_the_threads_of_requests_end_with_the_client(
    service: FakeService, fault: Fault, *, has_tls: bool, is_started: bool
) -> None:
    """Whether their connections are new or were used before, and whatever the service sends, or never sends."""
    setting = Setting("s", int, ["user"], 7)
    options: dict[str, Any] = {"request_timeout": 1e6, "timeout": None, "http_client_args": {"verify": False}}
    others = threads_of_clients()
    with FaultServer(service, server_context() if has_tls else None) as proxy:
        subject = Subject(ThreadKind(), proxy.url, 1e6, FEATURES, **options)
        if is_started:
            subject.start()
        sent = len(proxy.requests)
        proxy.inject(fault)
        call = in_thread(subject.reload if is_started else subject.start)
        assert eventually(lambda: len(proxy.requests) > sent)
        subject.close()
        with pytest.raises(ClientNotRunningError):
            call.result(TIMEOUT_SECONDS)
        assert eventually(lambda: threads_of_clients() <= others)
    assert setting.get(user="jim") == 7


def test_c6_closing_the_http_client_ends_the_threads_of_requests(proxy: FaultServer) -> None:
    """The thread of the client may close it before `close` shuts its connections down."""
    proxy.inject(stall)
    client = ThreadKind().make(proxy.url, 1e6, FEATURES, request_timeout=1e6, timeout=None)
    call = in_thread(client.ping)
    assert eventually(lambda: proxy.requests)
    client._endpoint.close()
    with pytest.raises(ServiceUnavailableError):
        call.result(TIMEOUT_SECONDS)


def test_closing_a_client_during_a_request_leaves_no_resources(kind: Kind, proxy: FaultServer) -> None:
    """No thread, task or socket, with each kind of network fault."""
    setting = Setting("s", int, ["user"], 7)
    gc.collect()
    before = open_file_count()
    for fault in (stall, trickle, trickle_head, gzip_bomb(1)):
        proxy.inject(fault)
        subject = Subject(kind, proxy.url, 3600, FEATURES, start_timeout=0.1)
        start_failing(subject)
        subject.close()
    proxy.inject(None)
    proxy.disconnect_all()
    gc.collect()
    assert eventually(lambda: open_file_count() <= before)
    assert setting.get(user="jim") == 7
