"""Credentials: sources of access tokens, their refresh, and redaction."""

import asyncio
import json
import logging
import math
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from heksher_client import (
    CredentialError,
    CredentialTimeoutError,
    ServiceUnavailableError,
    Setting,
    State,
    ThreadHeksherClient,
    UnexpectedResponseError,
)
from heksher_client._auth.oauth import TokenEndpoint, _reported_urls
from heksher_client._core.refresh.effects import Limits
from heksher_client.credentials import (
    ClientCredentials,
    Credential,
    RefreshableToken,
    StaticToken,
    Token,
    TokenFrom,
    Tokens,
)
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    AsyncClient,
    Gate,
    Kind,
    ThreadClient,
    eventually,
    running,
)
from tests.support.fake_service import FakeService
from tests.support.faults import FaultServer
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.in_memory import URL, in_memory, running_in_memory, transport_to
from tests.support.oauth import CLIENT, SECRET, OAuthServer, put_behind_gateway
from tests.support.service import CannedResponse
from tests.support.threads import refuse_threads


@pytest.fixture
def service(fake_service: FakeService) -> FakeService:
    """The service in memory, for all tests of this file."""
    return fake_service


@pytest.fixture(scope="module")
def _one_oauth() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def oauth(_one_oauth: OAuthServer, service: FakeService) -> OAuthServer:
    """A token server, and the service behind a gateway that requires its tokens."""
    _one_oauth.lifetime, _one_oauth.token_response = 3600, None
    _one_oauth.gate.set()
    _one_oauth.token_requests.clear()
    _one_oauth.expire_all()
    put_behind_gateway(service, _one_oauth)
    return _one_oauth


def client_credentials(oauth: OAuthServer) -> Credential:
    return ClientCredentials(oauth.token_url, CLIENT, SECRET, scope="read")


def refreshable(oauth: OAuthServer) -> Credential:
    return RefreshableToken(None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT)


def from_function(oauth: OAuthServer) -> Credential:
    return TokenFrom(oauth.issue)


RENEWABLE = [client_credentials, refreshable, from_function]
Make = Callable[[OAuthServer], Credential]


@pytest.mark.parametrize("make", [*RENEWABLE, lambda oauth: StaticToken(oauth.issue())])
@pytest.mark.parametrize("place", ["auth", "http_client_args"])
def test_each_credential_is_accepted_by_the_gateway(
    kind: Kind, service: FakeService, oauth: OAuthServer, make: Make, place: str
) -> None:
    """In either option."""
    setting = Setting("s", int, ["user"], 1)
    given: dict[str, Any] = {"auth": make(oauth)} if place == "auth" else {"http_client_args": {"auth": make(oauth)}}
    with running_in_memory(kind, service, **given) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        subject.ping()
        assert setting.get(user="jim") == 2
    assert len(oauth.token_requests) <= 1


@pytest.mark.parametrize("make", [str, SecretStr])
def test_a_token_is_an_option(kind: Kind, service: FakeService, make: Callable[[str], Any]) -> None:
    """Of a call and of a class, as text or as an object that does not show it."""
    shop: Any = type(
        "Shop",
        (AsyncClient if kind.raises_at_start else ThreadClient,),
        {},
        **in_memory(service, service_url=URL, token=make("of-the-class")),
    )
    other = {"http_client_args": {"transport": transport_to(service), "auth": ("jim", "x")}}
    clients = [
        kind.make(URL, 60, FEATURES, **in_memory(service, token=make("of-a-call"))),
        shop(),
        shop(token=make("of-a-call")),
        shop(**other),
        kind.make("http://jim:pass@service", 60, FEATURES, **in_memory(service, token=make("of-a-call"))),
    ]
    for client in clients:
        kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    sent = [request.headers["authorization"] for request in service.requests]
    basic = f"Basic {b64encode(b'jim:x').decode()}"
    assert sent == ["Bearer of-a-call", "Bearer of-the-class", "Bearer of-a-call", basic, "Bearer of-a-call"]
    assert isinstance(clients[0].credential, StaticToken)


def test_a_secret_string_can_be_a_header_a_cookie_or_a_parameter(kind: Kind, service: FakeService) -> None:
    """In the options, and in the arguments of the HTTP client."""
    tables: dict[str, Any] = {
        "headers": {"X-Key": SecretStr("hidden-key"), "X-Team": "shop"},
        "cookies": {"session": SecretStr("hidden-cookie")},
        "params": {"p": SecretStr("hidden-parameter"), "n": 5},
    }
    for options in (tables, {"http_client_args": tables}):
        client = kind.make(URL, 60, FEATURES, **in_memory(service, **options))
        kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    for request in service.requests:
        assert (request.headers["x-key"], request.headers["x-team"]) == ("hidden-key", "shop")
        assert (request.headers["cookie"], request.query) == (
            "session=hidden-cookie",
            {"p": "hidden-parameter", "n": "5"},
        )


@pytest.mark.parametrize("auth", ["abc", b"abc", SecretStr("abc")])
def test_a_text_as_credential_is_an_error_that_says_what_to_use(kind: Kind, auth: Any) -> None:
    """It is one for a new client, and for one that runs. The message does not have the text."""
    client = kind.make(URL, 60, FEATURES)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: kind.make(URL, 60, FEATURES, auth=auth), 'token="...", or auth=StaticToken("...")'),
        (lambda: client.use_credential(auth), 'StaticToken("...")'),
    ]
    for call, instead in calls:
        expected = re.escape(f": use {instead} of heksher_client.credentials")
        with pytest.raises(TypeError, match=rf"^auth must not be a \w+{expected}$") as raised:
            call()
        assert "abc" not in str(raised.value)


def test_a_token_that_cannot_be_used_is_an_error_when_a_client_is_created(kind: Kind) -> None:
    """So are a token and a credential in the same call. No message has the token."""
    ascii_only = "consist of visible ASCII characters, without spaces"
    invalid: list[tuple[Any, str]] = [
        ("secr\u00e9t", ascii_only),
        ("a secret", ascii_only),
        ("", "not be empty"),
        (SecretStr(""), "not be empty"),
        ("Bearer secret", "not begin with `Bearer`, which requests add to it"),
        ("bearer secret", "not begin with `Bearer`, which requests add to it"),
        (5, "be a string, not int"),
        (b"secret", "be a string, not bytes"),
        (SecretStr, f"be a string, not {type(SecretStr).__name__}"),
        (StaticToken("secret"), "be a string, not StaticToken: pass a credential as auth"),
    ]
    for token, words in invalid:
        with pytest.raises(ValueError, match=f"an access token must {words}$") as raised:
            kind.make(URL, 60, FEATURES, token=token)
        assert "secr" not in str(raised.value)
    both: list[dict[str, Any]] = [{"auth": ("jim", "x")}, {"http_client_args": {"auth": ("jim", "x")}}]
    for others in both:
        with pytest.raises(TypeError, match=r"^give auth or token, not both$"):
            kind.make(URL, 60, FEATURES, token="t", **others)  # noqa: S106


def test_a_static_token_accepts_a_secret_string() -> None:
    """It shows neither."""
    credential = StaticToken(SecretStr("hidden"))
    request = next(credential.sync_auth_flow(httpx.Request("GET", URL)))
    assert request.headers["authorization"] == "Bearer hidden"
    assert "hidden" not in repr(credential)


def test_each_secret_of_a_credential_may_be_a_secret_string(oauth: OAuthServer) -> None:
    """The client secret, tokens, and what a function returns. The text is sent, rather than its mask."""
    hidden = SecretStr(SECRET)
    refresh_token = SecretStr(oauth.issue_refresh_token())
    arguments: dict[str, Any] = {"token_url": oauth.token_url, "client_id": CLIENT}
    credentials: list[Credential] = [
        ClientCredentials(oauth.token_url, CLIENT, hidden),
        ClientCredentials(oauth.token_url, CLIENT, hidden, client_auth="post"),
        RefreshableToken(None, refresh_token, **arguments, client_secret=hidden),
        RefreshableToken(SecretStr(oauth.issue()), "r", **arguments),
        TokenFrom(lambda: SecretStr(oauth.issue())),
    ]
    for credential in credentials:
        assert oauth.accepts(f"Bearer {credential.token()}")


@pytest.mark.parametrize("make", RENEWABLE)
def test_a_refused_token_is_refreshed_and_the_request_sent_again(
    kind: Kind, service: FakeService, oauth: OAuthServer, make: Make
) -> None:
    """The caller does not notice."""
    with running_in_memory(kind, service, auth=make(oauth)) as subject:
        oauth.expire_all()
        subject.ping()
        assert [request.path for request in service.requests[-2:]] == ["/api/health", "/api/health"]


def test_a_new_token_that_is_refused_as_well_is_an_error(kind: Kind, service: FakeService, oauth: OAuthServer) -> None:
    """It has the message of the service, without the token."""
    with running_in_memory(kind, service, auth=client_credentials(oauth)) as subject:
        oauth.lifetime = -1
        oauth.expire_all()
        requests = len(oauth.token_requests)
        with pytest.raises(UnexpectedResponseError, match=r"401.*no such token: .*\*\*\*") as refused:
            subject.ping()
        assert len(oauth.token_requests) == requests + 1
        assert refused.value.status == 401
        oauth.lifetime = 3600


def test_if_all_tokens_are_refused_not_each_request_refreshes_one(
    kind: Kind, service: FakeService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some seconds, a refused token is refreshed again."""
    credential = client_credentials(oauth)
    with running_in_memory(kind, service, auth=credential) as subject:
        requests, gateway = len(oauth.token_requests), service.intercept
        service.respond_with("GET /api/health", CannedResponse(401))
        for _ in range(10):
            with pytest.raises(UnexpectedResponseError):
                subject.ping()
        assert len(oauth.token_requests) == requests + 1
        service.intercept = gateway
        oauth.expire_all()
        monkeypatch.setattr("heksher_client._auth.token_refresh._RETRY_INTERVAL", 0.0)
        subject.ping()
        subject.ping()
        assert len(oauth.token_requests) == requests + 2


def test_the_same_holds_for_other_http_clients_with_a_credential(service: FakeService, oauth: OAuthServer) -> None:
    """A credential is an `httpx.Auth`."""
    service.respond_with("GET /api/health", CannedResponse(401))
    with httpx.Client(auth=client_credentials(oauth), transport=transport_to(service), base_url=URL) as http:
        for _ in range(3):
            assert http.get("/api/health").status_code == 401
    assert len(oauth.token_requests) == 2


def test_without_a_token_no_request_is_sent(kind: Kind, service: FakeService, gate: Gate) -> None:
    """If the refresh fails, or does not end in time. Such a request does not count for the rate limit."""

    def refuse() -> str:
        raise OSError

    def wait() -> str:
        gate.hold()
        return "t"

    for get_token, seconds, error in (
        (refuse, TIMEOUT_SECONDS, CredentialError),
        (wait, 0.05, ServiceUnavailableError),
    ):
        client = kind.make(
            URL, 60, FEATURES, **in_memory(service, auth=TokenFrom(get_token), request_timeout=seconds, rate_limit=1)
        )
        for _ in range(3):
            with pytest.raises(error):
                kind.call(client.ping())
        assert client._rate_limit._places == []
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    assert not service.requests


def test_a_refresh_that_has_just_ended_is_not_repeated(oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may end it between the check of the token and the start of a refresh."""
    credential = client_credentials(oauth)
    sent(credential)
    monkeypatch.setattr(credential, "_valid_token", lambda: None)
    sent(credential)
    sent(credential)
    assert len(oauth.token_requests) == 1
    credential.force_refresh()
    assert len(oauth.token_requests) == 2


def test_a_slow_on_new_tokens_does_not_delay_requests(oauth: OAuthServer) -> None:
    """The new token is used before the callback returns."""
    begun, goes_on = threading.Event(), threading.Event()

    def keep(tokens: Tokens) -> None:
        begun.set()
        goes_on.wait(TIMEOUT_SECONDS)

    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=keep
    )
    assert sent(credential)
    assert begun.wait(TIMEOUT_SECONDS)
    goes_on.set()


@pytest.mark.parametrize("description", ['say "yes"', "l\u00f6schen", "a\r\nb", 5])
def test_a_refusal_may_contain_any_characters(oauth: OAuthServer, description: object) -> None:
    """Servers use characters that the protocol does not allow. The message is one line."""
    oauth.token_response = 400, json.dumps({"error": "invalid_grant", "error_description": description}).encode()
    with pytest.raises(CredentialError, match=r"refused \(invalid_grant: ") as refused:
        refreshable(oauth).force_refresh()
    assert str(refused.value).isprintable()


def test_a_secret_that_the_token_server_repeats_is_redacted(oauth: OAuthServer) -> None:
    """Even in the encoding of the header. The rest of the message is kept, as it may be the reason."""
    header = b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    said = {"error": "invalid_client", "error_description": f"Basic {header}, {SECRET}, scope read"}
    oauth.token_response = 401, json.dumps(said).encode()
    with pytest.raises(CredentialError, match=r"invalid_client: Basic \*\*\*, \*\*\*, scope read"):
        client_credentials(oauth).force_refresh()


def test_the_error_for_a_client_without_a_secret_says_that_one_may_be_required(oauth: OAuthServer) -> None:
    """The server only says that it refuses the client."""
    oauth.token_response = 401, b'{"error": "invalid_client"}'
    with pytest.raises(CredentialError, match=r"check client_id; the server may require a client_secret$"):
        refreshable(oauth).force_refresh()


def test_a_client_secret_can_be_sent_in_the_body(oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers accept it there only. A secret that the server repeats is redacted, also as the body has it."""
    secret, arguments = "of the client&", {"client_id": CLIENT, "client_auth": "post"}
    monkeypatch.setattr("tests.support.oauth.SECRET", secret)
    monkeypatch.setattr(oauth, "client_auth", "post")
    assert ClientCredentials(oauth.token_url, client_secret=secret, **arguments).token()  # type: ignore[arg-type]
    renewed = RefreshableToken(
        None,
        oauth.issue_refresh_token(),
        token_url=oauth.token_url,
        client_secret=secret,
        **arguments,  # type: ignore[arg-type]
    )
    assert renewed.token()
    assert [request["client_secret"] for request in oauth.token_requests] == [secret, secret]
    oauth.token_response = 401, json.dumps({"error": "client_secret=of+the+client%26"}).encode()
    with pytest.raises(CredentialError, match=r"refused \(client_secret=\*\*\*\)"):
        renewed.force_refresh()
    with pytest.raises(ValueError, match='client_auth must be "basic" or "post", not \'jwt\''):
        ClientCredentials(oauth.token_url, CLIENT, SECRET, client_auth="jwt")  # type: ignore[arg-type]


def test_a_public_client_has_no_secret_to_send(oauth: OAuthServer) -> None:
    """Whichever way is chosen."""
    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, client_auth="post"
    )
    assert credential.token()
    assert "client_secret" not in oauth.token_requests[0]


def test_the_token_url_must_not_have_a_password() -> None:
    """It would be in the log of httpx."""
    for url in ("http://jim:x@host/token", "ftp://host", "host", "http://[", "http://"):
        with pytest.raises(ValueError, match="token_url must"):
            ClientCredentials(url, CLIENT, SECRET)


def test_refused_requests_do_not_keep_connections(
    kind: Kind, service: FakeService, oauth: OAuthServer, gate: Gate
) -> None:
    """While no new token arrives; after that, the client recovers."""

    def fail() -> str:
        raise OSError

    def hang() -> str:
        gate.hold()
        return oauth.issue()

    get_token = oauth.issue
    arguments = {"limits": httpx.Limits(max_connections=1)}
    with (
        FaultServer(service) as server,
        running(kind, server.url, auth=TokenFrom(lambda: get_token()), http_client_args=arguments) as subject,
    ):
        requests = subject.client._session.requests
        limits = requests.limits
        oauth.expire_all()
        get_token = fail
        for _ in range(3):
            with pytest.raises(CredentialError, match="OSError"):
                subject.ping()
        get_token, requests.limits = hang, Limits(0.05)
        for _ in range(3):
            with pytest.raises(ServiceUnavailableError, match=r"within 0\.05 seconds"):
                subject.ping()
        requests.limits = limits
        gate.open()
        assert eventually(lambda: subject.state_after_reload() is State.FRESH)


def test_a_static_token_that_is_refused_is_an_error_at_once(
    kind: Kind, service: FakeService, oauth: OAuthServer
) -> None:
    """It cannot be refreshed."""
    with running_in_memory(kind, service, auth=StaticToken(oauth.issue())) as subject:
        oauth.expire_all()
        before = len(service.requests)
        with pytest.raises(UnexpectedResponseError, match="401"):
            subject.ping()
        assert len(service.requests) == before + 1


@pytest.mark.anyio
async def test_a_credential_can_be_used_for_other_requests(service: FakeService, oauth: OAuthServer) -> None:
    """It is an `httpx.Auth`, for synchronous and asynchronous HTTP clients."""
    credential, transport, url = client_credentials(oauth), transport_to(service), f"{URL}/api/health"
    with httpx.Client(auth=credential, transport=transport) as blocking:
        async with httpx.AsyncClient(auth=credential, transport=transport) as http:
            for _ in range(2):
                assert (await http.get(url)).status_code == 200
                assert (await asyncio.to_thread(blocking.get, url)).status_code == 200
                oauth.expire_all()
    assert len(oauth.token_requests) == 2


def test_a_credential_can_be_replaced_while_the_client_runs(
    kind: Kind, service: FakeService, oauth: OAuthServer
) -> None:
    """The settings are refreshed with the new one at once."""
    setting = Setting("s", int, ["user"], 1)
    with running_in_memory(kind, service, auth=StaticToken(oauth.issue())) as subject:
        oauth.expire_all()
        service.add_rule("s", 2, user="jim")
        subject.clear_outcomes()
        subject.client.use_credential(StaticToken(oauth.issue()))
        assert subject.next_outcome() is None
        assert setting.get(user="jim") == 2
        with pytest.raises(TypeError, match="auth must not be a str"):
            subject.client.use_credential("a token")


def test_none_leaves_authentication_to_the_http_client(service: FakeService, oauth: OAuthServer) -> None:
    """`use_credential(None)` removes a credential."""
    token = oauth.issue()
    http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, transport=transport_to(service))
    with http, ThreadClient(URL, http_client=http, auth=StaticToken("x")) as client:
        client.use_credential(None)
        client.ping()


# -- one refresh for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [client_credentials, refreshable])
def test_fifty_threads_at_an_expiry_make_one_token_request(
    service: FakeService, oauth: OAuthServer, make: Make
) -> None:
    """All of them wait for it, and all of them continue."""
    credential = make(oauth)
    with ThreadClient(URL, **in_memory(service, auth=credential)) as client:
        expire(credential)
        oauth.token_requests.clear()
        oauth.gate.clear()
        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(client.ping) for _ in range(50)]
            wait_until(lambda: oauth.token_requests)
            oauth.gate.set()
            for call in calls:
                call.result(TIMEOUT_SECONDS)
    assert len(oauth.token_requests) == 1


@pytest.mark.parametrize("make", [client_credentials, refreshable])
@pytest.mark.anyio
async def test_fifty_tasks_at_a_refusal_make_one_token_request(
    service: FakeService, oauth: OAuthServer, make: Make
) -> None:
    """A task that is cancelled does not cancel the refresh."""
    async with AsyncClient(URL, **in_memory(service, auth=make(oauth))) as client:
        oauth.expire_all()
        oauth.token_requests.clear()
        oauth.gate.clear()
        calls = [asyncio.create_task(client.ping()) for _ in range(51)]
        await asyncio.to_thread(wait_until, lambda: oauth.token_requests)
        calls.pop().cancel()
        oauth.gate.set()
        await asyncio.gather(*calls)
    assert len(oauth.token_requests) == 1


def test_clients_and_threads_share_a_refresh(service: FakeService, oauth: OAuthServer) -> None:
    """It belongs to the credential, not to the client."""
    credential = client_credentials(oauth)

    async def ping() -> None:
        client = AsyncClient(URL, **in_memory(service, auth=credential))
        await client.ping()
        await client.aclose()

    threaded = ThreadClient(URL, **in_memory(service, auth=credential))
    threads = [threading.Thread(target=threaded.ping), threading.Thread(target=lambda: asyncio.run(ping()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threaded.close()
    assert len(oauth.token_requests) == 1


def test_a_token_is_refreshed_in_the_background_before_it_expires(
    service: FakeService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for it."""
    oauth.lifetime = 100
    credential = client_credentials(oauth)
    with ThreadClient(URL, **in_memory(service, auth=credential)) as client:
        monkeypatch.setattr("heksher_client._auth.token_refresh.time", At(expiry(credential) - 15))
        oauth.gate.clear()
        client.ping()
        wait_until(lambda: len(oauth.token_requests) == 2)
        client.ping()
        oauth.gate.set()
        wait_until(lambda: credential._pending_refresh is None)
        client.ping()
        assert len(oauth.token_requests) == 2


def test_a_failed_refresh_in_the_background_is_retried_later(
    service: FakeService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the old token is valid, there is no error."""
    oauth.lifetime = 100
    credential = client_credentials(oauth)
    with ThreadClient(URL, **in_memory(service, auth=credential)) as client:
        oauth.token_response = 503, b""
        clock = At(expiry(credential) - 15)
        monkeypatch.setattr("heksher_client._auth.token_refresh.time", clock)
        monkeypatch.setattr("heksher_client._auth.token_refresh.monotonic", clock.monotonic)
        for _ in range(3):
            client.ping()
            wait_until(lambda: credential._pending_refresh is None)
        assert len(oauth.token_requests) == 2
        clock.now += 6
        oauth.token_response = None
        client.ping()
        wait_until(lambda: credential._pending_refresh is None)
        assert len(oauth.token_requests) == 3


@pytest.mark.parametrize("make", RENEWABLE)
def test_a_refresh_can_be_forced(oauth: OAuthServer, make: Make) -> None:
    """In a thread, and in a task."""
    credential = make(oauth)
    seen = []
    for _ in range(2):
        credential.force_refresh()
        seen.append(credential._valid_token())
    asyncio.run(credential.aforce_refresh())
    seen.append(credential._valid_token())
    assert len({token.value for token in seen if token is not None}) == 3


@pytest.mark.parametrize("make", [*RENEWABLE, lambda oauth: StaticToken(oauth.issue())])
def test_a_program_can_send_the_token_elsewhere(oauth: OAuthServer, make: Make) -> None:
    """It requests one if there is none, and shares it with the clients."""
    credential = make(oauth)
    token = credential.token()
    assert oauth.accepts(f"Bearer {token}")
    assert token == asyncio.run(credential.atoken(timeout=5)) == credential.token(timeout=5)
    assert sent(credential) == f"Bearer {token}"
    assert len(oauth.token_requests) <= 1


def test_the_expiry_of_the_token_can_be_read(oauth: OAuthServer) -> None:
    """Before the first token, and for a token without an expiry, it is `None`. Reading it requests no token."""
    credential = client_credentials(oauth)
    assert credential.expires_at is None
    assert not oauth.token_requests
    before = time.time()
    credential.token()
    assert credential.expires_at is not None
    assert before + 3600 <= credential.expires_at <= time.time() + 3600
    assert StaticToken("t").expires_at is None


def test_a_program_chooses_how_long_it_waits_for_a_token(gate: Gate) -> None:
    """The error is a TimeoutError too. The refresh goes on, and serves later calls."""

    def hang() -> str:
        calls.append(1)
        gate.hold()
        return "late"

    calls: list[int] = []
    credential = TokenFrom(hang)
    wait: Callable[[], object]
    for wait in (
        lambda: credential.force_refresh(timeout=0.01),
        lambda: credential.token(timeout=0.01),
        lambda: asyncio.run(credential.aforce_refresh(timeout=0.01)),
        lambda: asyncio.run(credential.atoken(timeout=0.01)),
    ):
        with pytest.raises(TimeoutError, match=r"^no access token within 0\.01 seconds$") as raised:
            wait()
        assert type(raised.value) is CredentialTimeoutError
    gate.open()
    assert credential.token() == "late"
    assert calls == [1]


def test_a_time_out_in_a_function_stays_one() -> None:
    """For example that of another credential whose token the function returns."""

    def get_token() -> str:
        raise CredentialTimeoutError("no access token within 2 seconds")

    with pytest.raises(CredentialTimeoutError, match="within 2 seconds"):
        TokenFrom(get_token).token()


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "5"])
def test_a_time_to_wait_must_be_a_number_of_seconds(timeout: Any) -> None:
    """It is checked before a token is requested."""
    credential = TokenFrom(lambda: pytest.fail("requested"))
    for wait in (credential.token, credential.force_refresh):
        with pytest.raises((TypeError, ValueError), match="timeout must be"):
            wait(timeout=timeout)
    for wait_async in (credential.atoken, credential.aforce_refresh):
        with pytest.raises((TypeError, ValueError), match="timeout must be"):
            asyncio.run(wait_async(timeout=timeout))


def test_a_static_token_cannot_be_refreshed() -> None:
    """The message says what to do instead."""
    credential = StaticToken("secret-token")
    assert repr(credential) == "<StaticToken>"
    with pytest.raises(CredentialError, match="use_credential"):
        credential.force_refresh()
    with pytest.raises(CredentialError, match="use_credential"):
        asyncio.run(credential.aforce_refresh())


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_new_refresh_token_replaces_the_former_one(oauth: OAuthServer) -> None:
    """The program gets it by `on_new_tokens`, for its next start."""
    kept: list[Tokens] = []
    first = oauth.issue_refresh_token()
    credential = RefreshableToken(
        oauth.issue(), first, token_url=oauth.token_url, client_id=CLIENT, scope="read", on_new_tokens=kept.append
    )
    credential.force_refresh()
    wait_until(lambda: len(kept) == 1)  # The program is called after requests go on.
    credential.force_refresh()
    wait_until(lambda: len(kept) == 2)
    assert [request["refresh_token"] for request in oauth.token_requests] == [first, kept[0].refresh_token]
    assert oauth.accepts(f"Bearer {kept[1].access_token}")
    assert kept[1].expires_at is not None
    assert kept[1].expires_at > time.time()
    assert kept[1].access_token not in repr(kept[1])


def test_an_error_in_on_new_tokens_does_not_affect_requests(
    oauth: OAuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged without its message, which may contain tokens."""

    def fail(tokens: Tokens) -> None:
        raise OSError(tokens.access_token)

    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=fail
    )
    credential.force_refresh()
    assert eventually(lambda: "on_new_tokens raised OSError" in caplog.text)  # after requests go on
    assert "access-" not in caplog.text


@pytest.mark.anyio
async def test_on_new_tokens_may_be_a_coroutine_function(
    service: FakeService, oauth: OAuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is awaited in the event loop of the client. Its errors are logged without their message."""
    kept: list[Tokens] = []
    is_kept = asyncio.Event()

    async def keep(tokens: Tokens) -> None:
        await asyncio.sleep(0)
        is_kept.set()
        loops.append(asyncio.get_running_loop())
        kept.append(tokens)
        if len(kept) > 1:
            raise OSError(tokens.access_token)

    loops: list[asyncio.AbstractEventLoop] = []
    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=keep
    )
    async with AsyncClient(URL, **in_memory(service, auth=credential)):
        await is_kept.wait()
        await credential.aforce_refresh()
        await asyncio.to_thread(wait_until, lambda: "on_new_tokens raised OSError" in caplog.text)
    assert loops == [asyncio.get_running_loop()] * 2
    assert oauth.accepts(f"Bearer {kept[0].access_token}")
    assert "access-" not in caplog.text


def test_on_new_tokens_that_is_a_coroutine_function_cannot_be_used_in_threads(oauth: OAuthServer) -> None:
    """A thread cannot await it."""

    async def keep(tokens: Tokens) -> None: ...

    credential = RefreshableToken(
        "a", oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=keep
    )
    with pytest.raises(TypeError, match="on_new_tokens is a coroutine function, which only the async client can await"):
        credential.force_refresh()
    with pytest.raises(TypeError, match="on_new_tokens is a coroutine function"):
        ThreadHeksherClient("http://host", 60, FEATURES, auth=credential)
    with pytest.raises(RuntimeError, match="needs asyncio, and no event loop"):
        credential._start_refresh()
    assert not oauth.token_requests


@pytest.mark.parametrize("closes", [True, False])
def test_an_event_loop_that_ends_before_new_tokens_are_stored_is_logged(
    oauth: OAuthServer, caplog: pytest.LogCaptureFixture, closes: bool
) -> None:
    """It may be closed when they arrive, or cancel the function that stores them."""

    async def keep(tokens: Tokens) -> None:
        is_called.set()
        await asyncio.Event().wait()

    async def begin() -> None:
        oauth.gate.clear()
        refresh = credential._start_refresh()
        if not closes:
            oauth.gate.set()
            await asyncio.to_thread(is_called.wait, TIMEOUT_SECONDS)
            assert refresh.done()

    is_called = threading.Event()
    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=keep
    )
    asyncio.run(begin())
    oauth.gate.set()
    error = "RuntimeError" if closes else "CancelledError"
    wait_until(lambda: f"on_new_tokens raised {error}: the new tokens may not be stored" in caplog.text)


def _raise(error: BaseException) -> str:
    raise error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, b'{"error": "invalid_grant", "error_description": "the-clients-secret"}'), "invalid_grant: \\*\\*\\*"),
        (
            (400, b'{"error": "invalid_client"}'),
            'refused \\(invalid_client\\): check client_id, client_secret, and client_auth, which is "basic"$',
        ),
        ((503, b"away"), "responded with status 503"),
        ((200, b"<html>"), "ValueError"),
        ((200, b"[]"), "ValueError"),
        ((200, b"{}"), "has no access token"),
        ((200, b'{"access_token": "with a space"}'), "visible ASCII"),
        ((200, b'{"access_token": null}'), "not a string"),
        ((200, b'{"access_token": "a", "refresh_token": 7}'), "not a string"),
    ],
)
def test_a_failed_token_request_is_an_error(oauth: OAuthServer, answer: tuple[int, bytes], words: str) -> None:
    """It has the reason, and not the secret."""
    oauth.token_response = answer
    with pytest.raises(CredentialError, match=words) as raised:
        client_credentials(oauth).force_refresh()
    assert SECRET not in str(raised.value)


def test_a_failed_token_request_is_an_error_of_the_refresh(
    kind: Kind, service: FakeService, oauth: OAuthServer
) -> None:
    """The client retries it like other errors; settings keep their values."""
    with running_in_memory(kind, service, auth=client_credentials(oauth)) as subject:
        oauth.expire_all()
        oauth.token_response = 503, b"away"
        error = subject.reload_expecting(CredentialError)
        assert str(error).startswith("GET /api/v1/context_features: ")
        with pytest.raises(CredentialError, match="responded with status 503") as raised:
            subject.ping()
        assert isinstance(raised.value, httpx.HTTPError)
        oauth.token_response = None
        subject.reload()


def test_a_function_that_returns_an_invalid_token_is_an_error() -> None:
    """The line end of a file, for example, cannot be sent in a header."""
    for given, words in (("token\n", "consist of visible ASCII"), (None, "be a string, not NoneType")):
        with pytest.raises(CredentialError, match=f"an access token must {words}"):
            TokenFrom(lambda given=given: given).force_refresh()


@pytest.mark.parametrize("error", [KeyError("access-secret"), SystemExit(1)])
def test_a_function_that_raises_is_an_error_without_its_message(error: BaseException) -> None:
    """It may contain the token."""
    with pytest.raises(CredentialError, match=type(error).__name__) as raised:
        TokenFrom(partial(_raise, error)).force_refresh()
    assert "secret" not in str(raised.value)


def test_a_token_server_that_cannot_be_reached_is_an_error() -> None:
    """The message names the client and the server."""
    credential = ClientCredentials("http://127.0.0.1:1/token", CLIENT, SECRET)
    with pytest.raises(CredentialError, match=r"shop at 127\.0\.0\.1: .* \(ConnectError\)"):
        credential.force_refresh()


def test_waiting_for_a_refresh_has_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, the next caller starts another refresh."""
    monkeypatch.setattr("heksher_client._auth.token_refresh._REFRESH_TIMEOUT", 0.05)
    release = threading.Event()
    began = []

    def hang() -> str:
        began.append(1)
        release.wait(TIMEOUT_SECONDS)
        return "late"

    credential = TokenFrom(hang)
    with pytest.raises(CredentialError, match=r"within 0\.05 seconds"):
        credential.force_refresh()
    with pytest.raises(CredentialError, match=r"within 0\.05 seconds"):
        asyncio.run(credential.aforce_refresh())
    assert eventually(lambda: len(began) == 2)
    release.set()
    wait_until(lambda: credential._pending_refresh is None)


def test_without_a_thread_a_token_is_fetched_in_the_calling_thread(
    oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It blocks then, but does not fail."""
    refuse_threads(monkeypatch, "heksher-client-token")
    done = client_credentials(oauth)._start_refresh()
    assert oauth.accepts(f"Bearer {done.result(0).value}")


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_is_called_again_after_the_lifetime_of_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or after the expiry of the token that it returned."""
    clock = At(1000.0)
    monkeypatch.setattr("heksher_client.credentials.time", clock)
    monkeypatch.setattr("heksher_client._auth.token_refresh.time", clock)
    given: Iterator[str | Token] = iter(["one", Token("two", 1500.0), "three"])
    credential = TokenFrom(lambda: next(given), lifetime=100)
    assert sent(credential) == "Bearer one"
    clock.now += 101
    assert sent(credential) == "Bearer two"
    clock.now = 1501
    assert sent(credential) == "Bearer three"


@pytest.mark.anyio
async def test_a_coroutine_function_is_awaited_in_the_event_loop_of_the_client(
    service: FakeService, oauth: OAuthServer
) -> None:
    """The sessions that it uses belong to that loop."""
    loops = []

    async def get_token() -> str:
        loops.append(asyncio.get_running_loop())
        return oauth.issue()

    async with AsyncClient(URL, **in_memory(service, auth=TokenFrom(get_token))):
        assert loops == [asyncio.get_running_loop()]

    async def fail() -> str:
        raise KeyError("secret")

    with pytest.raises(CredentialError, match="KeyError"):
        await TokenFrom(fail).aforce_refresh()

    async def want(argument: str) -> str:
        return argument

    wanting = TokenFrom(want)  # type: ignore[arg-type]
    for _ in range(2):  # the second call does not wait for the refresh that never started
        with pytest.raises(CredentialError, match="TypeError"):
            await wanting.aforce_refresh()

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    hanging = TokenFrom(hang)
    waiting = asyncio.create_task(hanging.aforce_refresh())
    await asyncio.sleep(0)
    assert hanging._task is not None
    hanging._task.cancel()
    with pytest.raises(CredentialError, match="CancelledError"):
        await waiting


def test_a_coroutine_function_cannot_be_used_in_threads() -> None:
    """A thread cannot await it, nor can a blocking call in a task."""

    class Getter:
        async def __call__(self) -> str:
            return "token"

    async def block() -> None:
        with pytest.raises(TypeError, match="coroutine function"):
            credential.force_refresh()
        await credential.aforce_refresh()

    credential = TokenFrom(Getter())
    for wait in (credential.force_refresh, credential.token):
        with pytest.raises(TypeError, match="coroutine function"):
            wait()
    assert asyncio.run(credential.atoken()) == "token"
    with pytest.raises(TypeError, match="coroutine function"):
        ThreadHeksherClient("http://host", 60, FEATURES, auth=credential)
    with pytest.raises(TypeError, match="coroutine function"):
        sent(credential)
    asyncio.run(block())


def test_a_function_must_not_return_an_awaitable() -> None:
    """The event loop that it belongs to would be unknown."""

    async def get_token() -> str:
        return ""

    with pytest.raises(CredentialError, match="is not a coroutine function itself"):
        TokenFrom(lambda: get_token()).force_refresh()
    future: Any = asyncio.Future(loop=(loop := asyncio.new_event_loop()))
    with pytest.raises(CredentialError, match="is not a coroutine function itself"):
        TokenFrom(lambda: future).force_refresh()
    loop.close()


def test_a_refresh_whose_event_loop_is_closed_is_started_again() -> None:
    """By the next loop, at once."""
    is_first = True

    async def get_token() -> str:
        if is_first:
            await asyncio.Event().wait()
        return "token"

    credential = TokenFrom(get_token)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        credential._start_refresh()

    loop.run_until_complete(begin())
    task = credential._task
    loop.close()
    is_first = False
    asyncio.run(credential.aforce_refresh())
    assert task is not None
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "make",
    [
        lambda: StaticToken(""),
        lambda: StaticToken("with\nbreak"),
        lambda: StaticToken(5),  # type: ignore[arg-type]
        lambda: TokenFrom("token"),  # type: ignore[arg-type]
        lambda: TokenFrom(str, lifetime=0),
        lambda: TokenFrom(str, lifetime=math.nan),
        lambda: ClientCredentials("login.example.com", "a", "b"),
    ],
)
def test_an_invalid_credential_is_an_error_when_it_is_created(make: Callable[[], object]) -> None:
    """The message does not contain it."""
    with pytest.raises((ValueError, TypeError)) as refused:
        make()
    assert "break" not in str(refused.value)


def test_a_lifetime_that_is_not_a_number_is_an_error_that_names_it() -> None:
    """It may come from an environment variable."""
    for lifetime in ("60", True, [60]):
        with pytest.raises(TypeError, match="lifetime must be a number of seconds"):
            TokenFrom(str, lifetime=lifetime)  # type: ignore[arg-type]


# -- secrets, forks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", RENEWABLE)
def test_no_secret_is_in_a_log_an_error_a_repr_or_a_status(
    kind: Kind, service: FakeService, oauth: OAuthServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Tokens and client secrets, at the most detailed log level of all libraries."""
    caplog.set_level(logging.DEBUG)
    credential = make(oauth)
    setting = Setting("s", int, ["user"], 1)
    shown = [repr(setting)]
    with FaultServer(service) as server, running(kind, server.url, auth=credential) as subject:
        oauth.expire_all()
        subject.reload()
        oauth.lifetime = -1
        oauth.expire_all()
        shown += [repr(error) + str(vars(error)) for error in [subject.reload_expecting(UnexpectedResponseError)]]
        oauth.lifetime, oauth.token_response = 3600, (400, b'{"error": "invalid_grant"}')
        oauth.expire_all()
        credential._refused_at = -math.inf  # otherwise there would be no refresh so soon after a new token was refused
        with suppress(CredentialError):  # The function still returns a token.
            subject.ping()
        shown += [repr(subject.client.status()), repr(credential), repr(subject.client), str(vars(subject.client))]
        shown += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    for secret in ("access-", "refresh-", SECRET):
        assert not [text for text in shown if secret in text]


def test_a_refresh_in_progress_is_started_again_in_the_child_of_a_fork(oauth: OAuthServer) -> None:
    """Its thread exists in the parent only."""
    credential = client_credentials(oauth)
    oauth.gate.clear()
    pending = credential._start_refresh()
    wait_until(lambda: oauth.token_requests)

    def renew() -> bool:
        # The token server is a thread of the parent.
        vars(credential)["_fetch"] = lambda: Token("two")
        credential.force_refresh()
        return sent(credential) == "Bearer two"

    assert exited_successfully(fork_and_check(renew))
    oauth.gate.set()
    pending.result(TIMEOUT_SECONDS)


# -- helpers -----------------------------------------------------------------------------------------------------------


class At:
    """A clock that replaces the module `time`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def expiry(credential: Credential) -> float:
    assert credential._cached is not None
    assert credential._cached.token.expires_at is not None
    return credential._cached.token.expires_at


def expire(credential: Credential) -> None:
    assert credential._cached is not None
    credential._cache(Token(credential._cached.token.value, time.time() - 1))


def sent(credential: Credential) -> str:
    flow = credential.sync_auth_flow(httpx.Request("GET", "http://host"))
    return next(flow).headers["Authorization"]


def wait_until(holds: Callable[[], object]) -> None:
    assert eventually(lambda: bool(holds()))


# -- lifetimes ---------------------------------------------------------------------------------------------------------

NOW = 1_000_000_000.0
LIFETIMES: dict[str, float] = {
    '"expires_in": 3600': NOW + 3600,
    '"expires_in": "3600"': NOW + 3600,
    '"expires_in": 3600.5': NOW + 3600.5,
    '"expires_in": " 3600.0 "': NOW + 3600,
    '"expires_in": 3600, "expires_at": "2030-01-01T00:00:00Z"': NOW + 3600,
    '"expires_in": "3599", "expires_on": "1900000000", "ext_expires_in": "3599", "not_before": "1"': NOW + 3599,
    '"expires_in": null, "expires_at": 1900000000': 1_900_000_000,
    '"expires_in": "soon", "expires_at": 1900000000': 1_900_000_000,
    '"expires_in": 0, "expires_on": "1900000000"': 1_900_000_000,
    '"expires_at": "1900000000.5"': 1_900_000_000.5,
    '"expires_at": "2030-01-01T00:00:00Z"': 1_893_456_000,
    '"expires_at": "2030-01-01T00:00:00.1234567Z"': 1_893_456_000.123456,
    '"expires_at": "2030-01-01 02:00:00+02:00"': 1_893_456_000,
    '"expires_at": "2030-01-01"': 1_893_456_000,
    '"expires_at": "Tue, 01 Jan 2030 00:00:00 GMT"': 1_893_456_000,
}
"""Fields of a token response, and the expiry that they mean."""

UNKNOWN_LIFETIMES = ["", '"expires_in": null', '"expires_in": null, "expires_at": null']
INVALID_LIFETIMES = [
    '"expires_in": "soon"',
    '"expires_in": ""',
    '"expires_in": 0',
    '"expires_in": -1',
    '"expires_in": "-3600"',
    '"expires_in": NaN',
    '"expires_in": "nan"',
    '"expires_in": Infinity',
    '"expires_in": 1e999',
    f'"expires_in": {10**400}',
    '"expires_in": true',
    '"expires_in": [3600]',
    '"expires_in": {"seconds": 3600}',
    '"expires_at": "tomorrow"',
    '"expires_at": 1',
    '"expires_at": "1999-01-01T00:00:00Z"',
    '"expires_at": ["2030-01-01"]',
]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock that lifetimes are added to."""
    monkeypatch.setattr("heksher_client._auth.oauth.time", SimpleNamespace(time=lambda: NOW))


def granted_with(oauth: OAuthServer, fields: str) -> Any:
    body = ", ".join(filter(None, ['"access_token": "a", "refresh_token": "r"', fields]))
    oauth.token_response = 200, f"{{{body}}}".encode()
    return TokenEndpoint(oauth.token_url, CLIENT, SECRET, None)


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("fields", LIFETIMES)
def test_k3_a_lifetime_of_any_form_is_used(oauth: OAuthServer, fields: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is a number, a string or a date, and the first valid one of several."""
    granted = granted_with(oauth, fields).grant("client_credentials")
    assert (granted.access_token, granted.expires_at) == ("a", pytest.approx(LIFETIMES[fields], abs=1e-5))
    assert caplog.records == []


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("fields", [*UNKNOWN_LIFETIMES, *INVALID_LIFETIMES])
def test_k3_an_invalid_lifetime_is_ignored_and_logged_once(
    oauth: OAuthServer, fields: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens are used in any case, also after a refresh. A token without a lifetime is not worth a record."""
    _reported_urls.clear()
    endpoint = granted_with(oauth, fields)
    for granted in (endpoint.grant("client_credentials"), endpoint.refresh("r", None)):
        assert (granted.access_token, granted.refresh_token, granted.expires_at) == ("a", "r", None)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (fields in INVALID_LIFETIMES)
    assert all("the lifetime of the access token (expires_" in message for message in messages)


@pytest.mark.parametrize("lifetime", ['"3600.0"', "-1", '"soon"'])
def test_k3_a_client_uses_a_token_with_an_odd_lifetime(
    kind: Kind, service: FakeService, oauth: OAuthServer, lifetime: str
) -> None:
    """It requests one token for all of its requests."""
    oauth.token_response = 200, f'{{"access_token": "{oauth.issue()}", "expires_in": {lifetime}}}'.encode()
    with running_in_memory(kind, service, auth=client_credentials(oauth)) as subject:
        subject.reload()
        subject.ping()
    assert len(oauth.token_requests) == 1


@pytest.mark.parametrize("expires_at", ["3600", float("nan"), b"1", []])
def test_k3_the_expiry_of_a_token_is_a_number(expires_at: Any) -> None:
    """Other objects could not be compared with the clock, in requests."""
    with pytest.raises(TypeError, match="expires_at must be a number of seconds since 1970, or None"):
        Token("a", expires_at)
