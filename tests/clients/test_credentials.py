"""Access tokens: where they come from, when they are renewed, and that nobody gets to see them."""

import asyncio
import json
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest

from heksher_client import (
    AsyncHeksherClient,
    CredentialError,
    ServiceUnavailableError,
    Setting,
    State,
    ThreadHeksherClient,
    UnexpectedResponseError,
)
from heksher_client.credentials import (
    ClientCredentials,
    Credential,
    RefreshableToken,
    StaticToken,
    Token,
    TokenFrom,
    Tokens,
)
from tests.support.clients import _TLS, FEATURES, PATIENCE, Kind, eventually, running
from tests.support.forks import begun_in_child, ended_well
from tests.support.oauth import CLIENT, SECRET, OAuthServer, put_behind_gateway
from tests.support.service import Answer, WatchedService


@pytest.fixture(scope="module")
def _one_oauth() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def oauth(_one_oauth: OAuthServer, service: WatchedService) -> OAuthServer:
    """A server of tokens, and the service behind a gateway that wants them."""
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
def test_each_credential_opens_the_gateway(
    kind: Kind, service: WatchedService, oauth: OAuthServer, make: Make, place: str
) -> None:
    """Wherever it is given."""
    setting = Setting("s", int, ["user"], 1)
    given: dict[str, Any] = {"auth": make(oauth)} if place == "auth" else {"http_client_args": {"auth": make(oauth)}}
    with running(kind, service.url, **given) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        subject.ping()
        assert setting.get(user="jim") == 2
    assert len(oauth.token_requests) <= 1


@pytest.mark.parametrize("make", RENEWABLE)
def test_a_refused_token_is_renewed_once_and_the_request_repeated(
    kind: Kind, service: WatchedService, oauth: OAuthServer, make: Make
) -> None:
    """Nobody notices."""
    with running(kind, service.url, auth=make(oauth)) as subject:
        oauth.expire_all()
        subject.ping()
        assert [asked.path for asked in service.asked[-2:]] == ["/api/health", "/api/health"]


def test_a_new_token_that_is_refused_too_is_an_error(kind: Kind, service: WatchedService, oauth: OAuthServer) -> None:
    """With the words of the service, and without the token that it repeats."""
    with running(kind, service.url, auth=client_credentials(oauth)) as subject:
        oauth.lifetime = -1
        oauth.expire_all()
        requests = len(oauth.token_requests)
        with pytest.raises(UnexpectedResponseError, match=r"401.*no such token: .*\*\*\*") as refused:
            subject.ping()
        assert len(oauth.token_requests) == requests + 1
        assert refused.value.status == 401
        oauth.lifetime = 3600


def test_while_all_tokens_are_refused_not_each_request_costs_one(
    kind: Kind, service: WatchedService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that lets nobody in is no reason to storm the server of tokens; after a while it is tried again."""
    credential = client_credentials(oauth)
    with running(kind, service.url, auth=credential) as subject:
        requests, gateway = len(oauth.token_requests), service.intercept
        service.answering("GET /api/health", Answer(401))
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


def test_an_http_client_of_a_programs_own_spares_the_server_of_tokens_too(
    service: WatchedService, oauth: OAuthServer
) -> None:
    """A credential is what any client of httpx takes."""
    service.answering("GET /api/health", Answer(401))
    with httpx.Client(auth=client_credentials(oauth), verify=_TLS) as http:
        for _ in range(3):
            assert http.get(f"{service.url}/api/health").status_code == 401
    assert len(oauth.token_requests) == 2


def test_without_a_token_nothing_is_sent(kind: Kind, service: WatchedService) -> None:
    """Where there is none to be had, or not in time."""
    is_over = threading.Event()

    def refuse() -> str:
        raise OSError

    def wait() -> str:
        is_over.wait(PATIENCE)
        return "t"

    for get_token, error in ((refuse, CredentialError), (wait, ServiceUnavailableError)):
        client = kind.make(
            service.url, 60, FEATURES, auth=TokenFrom(get_token), request_timeout=0.1, http_client_args={"verify": _TLS}
        )
        with pytest.raises(error):
            kind.call(client.ping())
        kind.call(client.aclose() if kind.raises_at_start else client.close())
    is_over.set()
    assert not service.asked


def test_what_cannot_be_sent_takes_no_place_of_others(kind: Kind) -> None:
    """A request without a token does not count."""

    def fail() -> str:
        raise CredentialError("none")

    auth = TokenFrom(fail)
    client = kind.make("http://host", 60, FEATURES, auth=auth, rate_limit=1, http_client_args={"verify": _TLS})
    for _ in range(3):
        with pytest.raises(CredentialError):
            kind.call(client.ping())
    assert client._rate_limit._places == []
    kind.call(client.aclose() if kind.raises_at_start else client.close())


def test_a_rate_limit_holds_for_requests_that_waited_for_a_token(
    kind: Kind, service: WatchedService, oauth: OAuthServer
) -> None:
    """However many of them waited for the same one, they are sent one after another."""
    oauth.gate.clear()
    client = kind.make(
        service.url,
        60,
        FEATURES,
        auth=client_credentials(oauth),
        rate_limit=1,
        rate_limit_interval=0.2,
        http_client_args={"verify": _TLS},
    )
    arrived: list[float] = []
    service.intercept = lambda asked: arrived.append(time.monotonic())
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lambda: kind.call(client.ping())) for _ in range(4)]
        wait_until(lambda: oauth.token_requests)
        oauth.gate.set()
        for call in calls:
            call.result(PATIENCE)
    kind.call(client.aclose() if kind.raises_at_start else client.close())
    assert arrived[-1] - arrived[0] >= 0.5


def test_who_looked_before_a_renewal_ended_asks_for_no_other(
    oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for a token and asking for one, another thread may have got it."""
    credential = client_credentials(oauth)
    sent(credential)
    monkeypatch.setattr(credential, "_valid_token", lambda: None)
    sent(credential)
    sent(credential)
    assert len(oauth.token_requests) == 1
    credential.force_refresh()
    assert len(oauth.token_requests) == 2


def test_a_program_that_takes_its_time_with_new_tokens_keeps_nobody_waiting(oauth: OAuthServer) -> None:
    """They serve before it has kept them."""
    begun, goes_on = threading.Event(), threading.Event()

    def keep(tokens: Tokens) -> None:
        begun.set()
        goes_on.wait(PATIENCE)

    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=keep
    )
    assert sent(credential)
    assert begun.wait(PATIENCE)
    goes_on.set()


@pytest.mark.parametrize("description", ['say "yes"', "l\u00f6schen", "a\r\nb", 5])
def test_a_refusal_in_any_characters_is_one(oauth: OAuthServer, description: object) -> None:
    """Servers do not keep to those that the protocol allows. The words are in one line."""
    oauth.token_response = 400, json.dumps({"error": "invalid_grant", "error_description": description}).encode()
    with pytest.raises(CredentialError, match=r"refused \(invalid_grant: ") as refused:
        refreshable(oauth).force_refresh()
    assert str(refused.value).isprintable()


def test_a_server_of_tokens_that_repeats_the_secret_does_not_show_it(oauth: OAuthServer) -> None:
    """Nor as the header has it; what is no secret is left, as it may be the cause."""
    header = b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    said = {"error": "invalid_client", "error_description": f"Basic {header}, {SECRET}, scope read"}
    oauth.token_response = 401, json.dumps(said).encode()
    with pytest.raises(CredentialError, match=r"invalid_client: Basic \*\*\*, \*\*\*, scope read"):
        client_credentials(oauth).force_refresh()


def test_the_address_of_tokens_holds_no_password() -> None:
    """It would be in the log of the HTTP library."""
    for url in ("http://jim:x@host/token", "ftp://host", "host", "http://[", "http://"):
        with pytest.raises(ValueError, match="token_url must"):
            ClientCredentials(url, CLIENT, SECRET)


def test_refusals_cost_no_connection_however_many_there_are(
    kind: Kind, service: WatchedService, oauth: OAuthServer
) -> None:
    """While no other token can be had, or not in time: as soon as there is one, all is well again."""
    is_given, comes = threading.Event(), threading.Event()
    is_given.set()
    comes.set()

    def get_token() -> str:
        comes.wait(PATIENCE)
        if not is_given.is_set():
            raise OSError
        return oauth.issue()

    arguments = {"limits": httpx.Limits(max_connections=1), "verify": _TLS}
    with running(
        kind, service.url, auth=TokenFrom(get_token), http_client_args=arguments, request_timeout=0.5
    ) as subject:
        oauth.expire_all()
        is_given.clear()
        for _ in range(3):
            with pytest.raises(CredentialError, match="OSError"):
                subject.ping()
        comes.clear()
        for _ in range(3):
            with pytest.raises(ServiceUnavailableError, match=r"within 0\.5 seconds"):
                subject.ping()
        is_given.set()
        comes.set()
        assert eventually(lambda: subject.state_after_reload() is State.FRESH)


def test_a_static_token_that_is_refused_is_an_error_at_once(
    kind: Kind, service: WatchedService, oauth: OAuthServer
) -> None:
    """There is no other."""
    with running(kind, service.url, auth=StaticToken(oauth.issue())) as subject:
        oauth.expire_all()
        asked = len(service.asked)
        with pytest.raises(UnexpectedResponseError, match="401"):
            subject.ping()
        assert len(service.asked) == asked + 1


@pytest.mark.anyio
async def test_a_credential_serves_the_programs_own_requests_as_well(
    service: WatchedService, oauth: OAuthServer
) -> None:
    """It is an `httpx.Auth`."""
    credential, url = client_credentials(oauth), f"{service.url}/api/health"
    async with httpx.AsyncClient(auth=credential) as http:
        for _ in range(2):
            assert (await http.get(url)).status_code == 200
            assert (await asyncio.to_thread(httpx.get, url, auth=credential)).status_code == 200
            oauth.expire_all()
    assert len(oauth.token_requests) == 2


def test_a_credential_can_be_replaced_while_the_client_runs(
    kind: Kind, service: WatchedService, oauth: OAuthServer
) -> None:
    """The settings are brought up to date with the new one at once."""
    setting = Setting("s", int, ["user"], 1)
    with running(kind, service.url, auth=StaticToken(oauth.issue())) as subject:
        oauth.expire_all()
        service.add_rule("s", 2, user="jim")
        subject.forget_outcomes()
        subject.client.use_credential(StaticToken(oauth.issue()))
        assert subject.next_outcome() is None
        assert setting.get(user="jim") == 2
        with pytest.raises(TypeError, match="auth must be a credential"):
            subject.client.use_credential("a token")


def test_a_client_may_leave_it_to_its_http_client_again(service: WatchedService, oauth: OAuthServer) -> None:
    """None is no credential."""
    token = oauth.issue()
    http = httpx.Client(headers={"Authorization": f"Bearer {token}"})
    with http, ThreadHeksherClient(service.url, 3600, FEATURES, http_client=http, auth=StaticToken("x")) as client:
        client.use_credential(None)
        client.ping()


# -- one renewal for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [client_credentials, refreshable])
def test_fifty_threads_at_an_expiry_make_one_token_request(
    service: WatchedService, oauth: OAuthServer, make: Make
) -> None:
    """All of them wait for it, and all of them go on."""
    credential = make(oauth)
    with ThreadHeksherClient(service.url, 3600, FEATURES, auth=credential) as client:
        expire(credential)
        oauth.token_requests.clear()
        oauth.gate.clear()
        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(client.ping) for _ in range(50)]
            wait_until(lambda: oauth.token_requests)
            oauth.gate.set()
            for call in calls:
                call.result(PATIENCE)
    assert len(oauth.token_requests) == 1


@pytest.mark.parametrize("make", [client_credentials, refreshable])
@pytest.mark.anyio
async def test_fifty_tasks_at_a_refusal_make_one_token_request(
    service: WatchedService, oauth: OAuthServer, make: Make
) -> None:
    """Also when it is the service that says so; and a task that gives up meanwhile does no harm."""
    async with AsyncHeksherClient(service.url, 3600, FEATURES, auth=make(oauth)) as client:
        oauth.expire_all()
        oauth.token_requests.clear()
        oauth.gate.clear()
        calls = [asyncio.create_task(client.ping()) for _ in range(51)]
        await asyncio.to_thread(wait_until, lambda: oauth.token_requests)
        calls.pop().cancel()
        oauth.gate.set()
        await asyncio.gather(*calls)
    assert len(oauth.token_requests) == 1


def test_clients_and_threads_share_a_renewal(service: WatchedService, oauth: OAuthServer) -> None:
    """It is the credential's, and not the client's."""
    credential = client_credentials(oauth)

    async def ping() -> None:
        client = AsyncHeksherClient(service.url, 60, FEATURES, auth=credential)
        await client.ping()
        await client.aclose()

    threaded = ThreadHeksherClient(service.url, 60, FEATURES, auth=credential)
    threads = [threading.Thread(target=threaded.ping), threading.Thread(target=lambda: asyncio.run(ping()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threaded.close()
    assert len(oauth.token_requests) == 1


def test_a_token_is_renewed_ahead_of_its_end_while_the_old_one_serves(
    service: WatchedService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for it."""
    oauth.lifetime = 100
    credential = client_credentials(oauth)
    with ThreadHeksherClient(service.url, 3600, FEATURES, auth=credential) as client:
        monkeypatch.setattr("heksher_client._auth.token_refresh.time", At(time.time() + 85))
        oauth.gate.clear()
        client.ping()
        wait_until(lambda: len(oauth.token_requests) == 2)
        client.ping()
        oauth.gate.set()
        wait_until(lambda: credential._pending_refresh is None)
        client.ping()
        assert len(oauth.token_requests) == 2


def test_a_renewal_ahead_of_the_end_that_fails_is_tried_again_later(
    service: WatchedService, oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the old token serves, nothing is wrong."""
    oauth.lifetime = 100
    credential = client_credentials(oauth)
    with ThreadHeksherClient(service.url, 3600, FEATURES, auth=credential) as client:
        oauth.token_response = 503, b""
        clock = At(time.time() + 85)
        monkeypatch.setattr("heksher_client._auth.token_refresh.time", clock)
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
def test_a_token_can_be_renewed_at_will(oauth: OAuthServer, make: Make) -> None:
    """In a thread, and in a task."""
    credential = make(oauth)
    seen = []
    for _ in range(2):
        credential.force_refresh()
        seen.append(credential._valid_token())
    asyncio.run(credential.aforce_refresh())
    seen.append(credential._valid_token())
    assert len({token.value for token in seen if token is not None}) == 3


def test_what_cannot_be_renewed_says_so() -> None:
    """And what to do instead."""
    credential = StaticToken("secret-token")
    assert repr(credential) == "<StaticToken>"
    with pytest.raises(CredentialError, match="use_credential"):
        credential.force_refresh()
    with pytest.raises(CredentialError, match="use_credential"):
        asyncio.run(credential.aforce_refresh())


# -- what may go wrong -------------------------------------------------------------------------------------------------


def test_a_refresh_token_is_replaced_by_the_one_that_comes_with_the_new_token(oauth: OAuthServer) -> None:
    """The program hears of it, as it needs the newest one when it starts again."""
    kept: list[Tokens] = []
    first = oauth.issue_refresh_token()
    credential = RefreshableToken(
        oauth.issue(), first, token_url=oauth.token_url, client_id=CLIENT, scope="read", on_new_tokens=kept.append
    )
    credential.force_refresh()
    credential.force_refresh()
    assert [asked["refresh_token"] for asked in oauth.token_requests] == [first, kept[0].refresh_token]
    assert oauth.accepts(f"Bearer {kept[1].access_token}")
    assert kept[1].expires_at is not None
    assert kept[1].expires_at > time.time()
    assert kept[1].access_token not in repr(kept[1])


def test_a_program_that_cannot_keep_new_tokens_goes_on_with_them(
    oauth: OAuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    """That is logged without its words, which may hold them."""

    def fail(tokens: Tokens) -> None:
        raise OSError(tokens.access_token)

    credential = RefreshableToken(
        None, oauth.issue_refresh_token(), token_url=oauth.token_url, client_id=CLIENT, on_new_tokens=fail
    )
    credential.force_refresh()
    assert "on_new_tokens raised OSError" in caplog.text
    assert "access-" not in caplog.text


def _raise(error: BaseException) -> str:
    raise error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, b'{"error": "invalid_grant", "error_description": "the-clients-secret"}'), "invalid_grant: \\*\\*\\*"),
        ((400, b'{"error": "invalid_client"}'), "refused \\(invalid_client\\)"),
        ((503, b"away"), "responded with status 503"),
        ((200, b"<html>"), "ValueError"),
        ((200, b"[]"), "ValueError"),
        ((200, b"{}"), "has no access token"),
        ((200, b'{"access_token": "a", "expires_in": "soon"}'), "request failed"),
        ((200, b'{"access_token": "with a space"}'), "visible ASCII"),
        ((200, b'{"access_token": null}'), "not a string"),
        ((200, b'{"access_token": "a", "refresh_token": 7}'), "not a string"),
        ((200, b'{"access_token": "a", "expires_in": 1e999}'), "request failed"),
    ],
)
def test_a_token_that_is_not_given_is_an_error_of_the_refresh(
    kind: Kind, service: WatchedService, oauth: OAuthServer, answer: tuple[int, bytes], words: str
) -> None:
    """Which the client tries again, as all others; settings keep their values."""
    with running(kind, service.url, auth=client_credentials(oauth)) as subject:
        oauth.expire_all()
        oauth.token_response = answer
        error = subject.reload_expecting(CredentialError)
        assert str(error).startswith("GET /api/v1/context_features: ")
        with pytest.raises(CredentialError, match=words) as raised:
            subject.ping()
        assert SECRET not in str(raised.value)
        assert isinstance(raised.value, httpx.HTTPError)
        oauth.token_response = None
        subject.reload()


def test_a_function_that_gives_no_token_at_all_is_told_what_is_wrong() -> None:
    """As with a file that was read with the end of its line."""
    for given in ("token\n", None):
        with pytest.raises(CredentialError, match="visible ASCII"):
            TokenFrom(lambda given=given: given).force_refresh()


@pytest.mark.parametrize("error", [KeyError("access-secret"), SystemExit(1)])
def test_a_function_that_gives_no_token_is_an_error_without_its_words(error: BaseException) -> None:
    """They may hold the token."""
    with pytest.raises(CredentialError, match=type(error).__name__) as raised:
        TokenFrom(partial(_raise, error)).force_refresh()
    assert "secret" not in str(raised.value)


def test_a_server_of_tokens_that_is_away_is_an_error() -> None:
    """As the service that is away."""
    credential = ClientCredentials("http://127.0.0.1:1/token", CLIENT, SECRET)
    with pytest.raises(CredentialError, match=r"shop at 127\.0\.0\.1: .* \(ConnectError\)"):
        credential.force_refresh()


def test_a_renewal_that_does_not_end_is_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then another one is begun."""
    monkeypatch.setattr("heksher_client._auth.token_refresh._REFRESH_TIMEOUT", 0.05)
    release = threading.Event()
    began = []

    def hang() -> str:
        began.append(1)
        release.wait(PATIENCE)
        return "late"

    credential = TokenFrom(hang)
    with pytest.raises(CredentialError, match=r"within 0\.05 seconds"):
        credential.force_refresh()
    with pytest.raises(CredentialError, match=r"within 0\.05 seconds"):
        asyncio.run(credential.aforce_refresh())
    assert len(began) == 2
    release.set()
    wait_until(lambda: credential._pending_refresh is None)


def test_without_a_thread_to_be_had_a_token_is_fetched_in_place(
    oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late is better than never."""
    start = threading.Thread.start

    def no_thread(self: threading.Thread) -> None:
        if self.name == "heksher-client-token":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    done = client_credentials(oauth)._start_refresh()
    assert oauth.accepts(f"Bearer {done.result(0).value}")


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_is_asked_again_after_its_tokens_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or after the end that it tells."""
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
async def test_a_coroutine_function_is_awaited_in_the_programs_own_loop(
    service: WatchedService, oauth: OAuthServer
) -> None:
    """Where its sessions live."""
    loops = []

    async def get_token() -> str:
        loops.append(asyncio.get_running_loop())
        return oauth.issue()

    async with AsyncHeksherClient(service.url, 3600, FEATURES, auth=TokenFrom(get_token)):
        assert loops == [asyncio.get_running_loop()]

    async def fail() -> str:
        raise KeyError("secret")

    with pytest.raises(CredentialError, match="KeyError"):
        await TokenFrom(fail).aforce_refresh()

    async def want(argument: str) -> str:
        return argument

    wanting = TokenFrom(want)  # type: ignore[arg-type]
    for _ in range(2):  # and nobody waits for what was never begun
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


def test_a_coroutine_function_is_none_for_threads() -> None:
    """Nobody there could await it; nor could a task that blocks its own loop."""

    class Getter:
        async def __call__(self) -> str:
            return "token"

    async def block() -> None:
        with pytest.raises(TypeError, match="coroutine function"):
            credential.force_refresh()
        await credential.aforce_refresh()

    credential = TokenFrom(Getter())
    with pytest.raises(TypeError, match="coroutine function"):
        credential.force_refresh()
    with pytest.raises(TypeError, match="coroutine function"):
        ThreadHeksherClient("http://host", 60, FEATURES, auth=credential)
    with pytest.raises(TypeError, match="coroutine function"):
        sent(credential)
    asyncio.run(block())


def test_a_function_must_not_give_something_to_await() -> None:
    """It is not known in which loop, and nobody would."""

    async def get_token() -> str:
        return ""

    with pytest.raises(CredentialError, match="is not a coroutine function itself"):
        TokenFrom(lambda: get_token()).force_refresh()
    future: Any = asyncio.Future(loop=(loop := asyncio.new_event_loop()))
    with pytest.raises(CredentialError, match="is not a coroutine function itself"):
        TokenFrom(lambda: future).force_refresh()
    loop.close()


def test_a_renewal_whose_loop_has_closed_is_begun_anew() -> None:
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
        lambda: ClientCredentials("login.example.com", "a", "b"),
    ],
)
def test_an_impossible_credential_is_refused_when_it_is_made(make: Callable[[], object]) -> None:
    """Without repeating it."""
    with pytest.raises((ValueError, TypeError)) as refused:
        make()
    assert "break" not in str(refused.value)


# -- secrets, forks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", RENEWABLE)
def test_no_token_is_ever_in_a_log_an_error_a_repr_or_a_status(
    kind: Kind, service: WatchedService, oauth: OAuthServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor the refresh token, nor the client's secret, whatever libraries log at their finest level."""
    caplog.set_level(logging.DEBUG)
    credential = make(oauth)
    setting = Setting("s", int, ["user"], 1)
    shown = [repr(setting)]
    with running(kind, service.url, auth=credential) as subject:
        oauth.expire_all()
        subject.reload()
        oauth.lifetime = -1
        oauth.expire_all()
        shown += [repr(error) + str(vars(error)) for error in [subject.reload_expecting(UnexpectedResponseError)]]
        oauth.lifetime, oauth.token_response = 3600, (400, b'{"error": "invalid_grant"}')
        oauth.expire_all()
        credential._refused_at = 0  # else it would not be asked so soon after a new token was refused
        with suppress(CredentialError):  # A function gives another token nevertheless.
            subject.ping()
        shown += [repr(subject.client.status()), repr(credential), repr(subject.client), str(vars(subject.client))]
        shown += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    for secret in ("access-", "refresh-", SECRET):
        assert not [text for text in shown if secret in text]


def test_a_renewal_that_was_under_way_at_a_fork_is_begun_anew_in_the_child(oauth: OAuthServer) -> None:
    """The thread that was at it is the parent's."""
    credential = client_credentials(oauth)
    oauth.gate.clear()
    pending = credential._start_refresh()
    wait_until(lambda: oauth.token_requests)

    def renew() -> bool:
        # The server of tokens is the parent's.
        vars(credential)["_fetch"] = lambda: Token("anew")
        credential.force_refresh()
        return sent(credential) == "Bearer anew"

    assert ended_well(begun_in_child(renew))
    oauth.gate.set()
    pending.result(PATIENCE)


# -- helpers -----------------------------------------------------------------------------------------------------------


class At:
    """A clock in place of the module `time`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def expire(credential: Credential) -> None:
    assert credential._cached is not None
    credential._cache(Token(credential._cached.token.value, time.time() - 1))


def sent(credential: Credential) -> str:
    flow = credential.sync_auth_flow(httpx.Request("GET", "http://host"))
    return next(flow).headers["Authorization"]


def wait_until(holds: Callable[[], object]) -> None:
    assert eventually(lambda: bool(holds()))
