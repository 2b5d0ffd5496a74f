"""Sign-in with a browser, a device code or a token, and sign-out."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from heksher_client import (
    ConfigError,
    CredentialError,
    CredentialTimeoutError,
    DeviceCode,
    Setting,
    connect,
    login,
    login_headless,
    login_with_token,
    logout,
)
from heksher_client.profiles._loopback_server import LoopbackServer
from heksher_client.profiles._token_store import StoredTokens, TokenStore
from tests.support.clients import TIMEOUT_SECONDS, Kind
from tests.support.http import http_request
from tests.support.in_memory import LoopbackService
from tests.support.oauth import CLIENT, SECRET, OAuthServer
from tests.support.profiles import Connected, FakeClock, MemoryKeyring, browse, load_tokens, token_file, write_config


def test_login_stores_tokens_that_clients_use_and_refresh(
    kind: Kind, service: LoopbackService, oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None
) -> None:
    """The browser flow uses an authorization code with PKCE and a loopback redirect."""
    urls: list[str] = []

    def show_browser(url: str) -> None:
        urls.append(url)
        browse(url)

    location = login(show_browser)
    assert location == ("the system keyring" if keyring_or_file is not None else str(token_file(login_config)))
    parameters = parse_qs(urlsplit(urls[0]).query)
    assert parameters["code_challenge_method"] == ["S256"]
    assert parameters["scope"] == ["settings"]
    assert urlsplit(parameters["redirect_uri"][0]).hostname == "127.0.0.1"
    setting = Setting("s", int, ["user"], 1)
    with Connected(kind) as client:
        oauth.expire_all()
        service.add_rule("s", 2, user="jim")
        kind.call(client.reload())
        assert setting.get(user="jim") == 2
    tokens = load_tokens(login_config)
    assert tokens is not None
    assert oauth.accepts(f"Bearer {tokens.access_token}")
    assert "access-" not in repr(tokens)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("configured", [None, "post", "basic"])
def test_a_client_secret_is_sent_as_the_server_requires_it(
    oauth: OAuthServer, login_config: Path, configured: str | None
) -> None:
    """In the header or in the body, as its metadata says, or else the profile, for all of its endpoints."""
    oauth.client_auth = configured or "post"
    key = "" if configured is None else f'client_auth = "{configured}"\n'
    write_config(login_config, f'{login_config.read_text()}client_secret = "{SECRET}"\n{key}')
    if configured is not None:
        oauth.metadata_methods = ["client_secret_basic", "client_secret_post", "none"]
    for sign_in in (partial(login, browse), partial(login_headless, lambda code: None)):
        sign_in()
        with connect() as client:
            oauth.expire_all()
            client.ping()
        assert logout()
    assert len(oauth.revoked) == 4
    assert len(oauth.token_requests) == 4


def test_login_headless_polls_at_the_interval_of_the_server(
    oauth: OAuthServer, login_config: Path, clock: FakeClock, keyring_or_file: MemoryKeyring | None
) -> None:
    """The interval grows when the server responds with `slow_down`."""
    oauth.pending_polls = 3
    codes: list[DeviceCode] = []
    login_headless(codes.append)
    assert (codes[0].code, codes[0].url, codes[0].expires_in) == ("WDJB-MJHT", f"{oauth.url}/enter", 60)
    assert codes[0].complete_url == f"{oauth.url}/enter?code=WDJB"
    assert clock.sleeps == [1, 6, 6, 11]
    with connect() as client:
        client.ping()


def test_login_with_token_stores_a_token_that_cannot_be_refreshed(
    oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None
) -> None:
    """After it is no longer accepted, the error says how to sign in, and a new token is used without a restart."""
    login_with_token(oauth.issue())
    with connect() as client:
        client.ping()
        oauth.expire_all()
        with pytest.raises(CredentialError, match="no longer accepted; sign in with: heksher-client login shop"):
            client.ping()
        login_with_token(oauth.issue())
        client.ping()
    with pytest.raises(ValueError, match="visible ASCII"):
        login_with_token("with a space")


@pytest.mark.parametrize("has_expired", [True, False])
def test_login_with_token_stores_a_refresh_token(
    kind: Kind, oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None, has_expired: bool
) -> None:
    """It is used once the access token expires, or is refused. The server is that of the profile."""
    token, refresh_token = oauth.issue(), oauth.issue_refresh_token()
    login_with_token(token, refresh_token=refresh_token, expires_at=1 if has_expired else None, profile="shop")
    if has_expired:
        oauth.expire_all()
    with Connected(kind) as client:
        oauth.expire_all()
        kind.call(client.ping())
    assert [request["refresh_token"] for request in oauth.token_requests][:1] == [refresh_token]
    tokens = load_tokens(login_config)
    assert tokens is not None
    assert tokens.refresh_token not in (None, refresh_token)
    assert logout()
    assert oauth.revoked == [tokens.refresh_token, tokens.access_token]


def test_login_with_token_accepts_secret_strings(oauth: OAuthServer, login_config: Path) -> None:
    """Also for the client secret of a new profile."""
    path = login_config.with_name("new.toml")
    token, refresh_token = oauth.issue(), oauth.issue_refresh_token()
    table = {"issuer": f"{oauth.url}/", "client_id": CLIENT, "client_secret": SecretStr(SECRET)}
    login_with_token(
        SecretStr(token),
        refresh_token=SecretStr(refresh_token),
        url="http://host",
        oauth=table,
        path=path,
    )
    tokens = TokenStore(path).load("host")
    assert tokens is not None
    assert (tokens.access_token, tokens.refresh_token) == (token, refresh_token)
    assert f'client_secret = "{SECRET}"' in path.read_text()


def test_a_token_is_not_used_after_the_expiry_that_is_stored_with_it(oauth: OAuthServer, login_config: Path) -> None:
    """Even without a refresh token."""
    login_with_token(oauth.issue(), expires_at=1)
    with (
        connect() as client,
        pytest.raises(CredentialError, match="no longer accepted; sign in with: heksher-client login shop"),
    ):
        client.ping()


def test_a_refresh_token_needs_an_authorization_server(oauth: OAuthServer, login_config: Path) -> None:
    """It is refused without one, as it would never be used. Nothing is stored."""
    text, refresh_token = login_config.read_text(), oauth.issue_refresh_token()
    login_config.write_text(text.partition("[profiles.shop.oauth]")[0])
    with pytest.raises(ConfigError, match=r'add \[profiles."shop".oauth\] .* issuer, or leave out the refresh token'):
        login_with_token("t", refresh_token=refresh_token)
    login_config.write_text(text.replace("issuer", "authorization_url"))
    with pytest.raises(ConfigError, match="oauth has no token_url, and no issuer"):
        login_with_token("t", refresh_token=refresh_token)
    login_config.write_text(text)
    with pytest.raises(ValueError, match="refresh_token must not be empty"):
        login_with_token("t", refresh_token="")
    with pytest.raises(ValueError, match="visible ASCII"):
        login_with_token("with a space", refresh_token=refresh_token)
    with pytest.raises(TypeError, match="expires_at must be a number"):
        login_with_token("t", expires_at="soon")  # type: ignore[arg-type]
    assert load_tokens(login_config) is None


def test_login_with_token_works_without_an_authorization_server(
    service: LoopbackService, oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None
) -> None:
    """Without a sign-in, clients of the profile have no credential."""
    login_config.write_text(login_config.read_text().partition("[profiles.shop.oauth]")[0])
    with pytest.raises(ConfigError, match=r'add \[profiles."shop".oauth\] with client_id and issuer'):
        login(browse)
    login_with_token(oauth.issue())
    with connect() as client:
        client.ping()
    logout()
    with connect() as client:
        assert client._endpoint.auth is None


def test_logout_removes_and_revokes_the_tokens(
    oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None
) -> None:
    """A second logout returns False, and requests fail with an error that says how to sign in."""
    login(browse)
    tokens = load_tokens(login_config)
    assert tokens is not None
    assert logout()
    assert oauth.revoked == [tokens.refresh_token, tokens.access_token]
    assert not oauth.accepts(f"Bearer {tokens.access_token}")
    assert keyring_or_file is None or not keyring_or_file.passwords
    assert "access" not in token_file(login_config).read_text()
    assert not logout()
    with (
        connect() as client,
        pytest.raises(CredentialError, match="no user is signed in; sign in with: heksher-client"),
    ):
        client.ping()


def test_logout_from_a_server_that_cannot_revoke_access_tokens_revokes_the_refresh_token(
    oauth: OAuthServer, login_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no warning, unless it is the only token."""
    oauth.revokes_access_tokens = False
    login(browse)
    assert logout()
    assert [token.partition("-")[0] for token in oauth.revoked] == ["refresh"]
    assert not caplog.records
    tokens = StoredTokens(
        origin="x",
        access_token=oauth.issue(),
        token_url=oauth.token_url,
        client_id=CLIENT,
        revocation_url=f"{oauth.url}/revoke",
    )
    TokenStore(login_config).save("shop", tokens)
    assert logout()
    assert "the server may still accept the tokens: shop at 127.0.0.1: refused (unsupported_token_type)" in caplog.text


def test_a_token_that_cannot_be_revoked_is_one_warning(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The user is signed out all the same. The warning does not contain the token."""
    monkeypatch.setattr(oauth, "revoke", lambda parameters, authorization: (429, {"error": parameters["token"]}))
    login(browse)
    assert logout()
    assert [record.getMessage().partition(" (")[2] for record in caplog.records] == ["***)"]
    assert load_tokens(login_config) is None


def test_logout_without_the_authorization_server_removes_the_tokens(
    oauth: OAuthServer, login_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says that they may still be valid."""
    TokenStore(login_config).save(
        "shop",
        StoredTokens(
            origin="x",
            access_token=oauth.issue(),
            token_url=oauth.token_url,
            client_id=CLIENT,
            revocation_url="http://127.0.0.1:1",
        ),
    )
    assert logout()
    assert "the server may still accept the tokens" in caplog.text
    assert load_tokens(login_config) is None


@pytest.mark.usefixtures("clock")
def test_a_denied_sign_in_is_an_error(oauth: OAuthServer, login_config: Path) -> None:
    """The message contains the error of the server, and no tokens are stored."""
    oauth.denies = True
    with pytest.raises(CredentialError, match=r"refused \(access_denied: not today\)"):
        login(browse)
    with pytest.raises(CredentialError, match=r"refused \(access_denied\)"):
        login_headless(lambda code: None)
    assert load_tokens(login_config) is None


def test_a_sign_in_that_is_not_completed_times_out(oauth: OAuthServer, login_config: Path, clock: FakeClock) -> None:
    """After `timeout` seconds with a browser, or when the device code expires."""
    oauth.pending_polls = 1000
    with pytest.raises(CredentialTimeoutError, match=r"within 0\.01 seconds"):
        login(lambda url: None, timeout=0.01)
    with pytest.raises(CredentialTimeoutError, match="the code was not entered within 60 seconds: start again"):
        login_headless(lambda code: None)
    assert clock.monotonic() == 60


def test_a_program_chooses_how_long_a_user_may_take(oauth: OAuthServer, login_config: Path, clock: FakeClock) -> None:
    """With a device code, at most until it expires. The error is a TimeoutError too."""
    oauth.pending_polls = 1000
    for timeout, seconds in ((10, 10), (61, 60)):
        clock.sleeps.clear()
        with pytest.raises(TimeoutError, match=f"the code was not entered within {seconds} seconds"):
            login_headless(lambda code: None, timeout=timeout)
        assert clock.monotonic() == seconds
    for call in (partial(login, timeout=-1), partial(login_headless, timeout=-1)):
        with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
            call(lambda _: pytest.fail("called"))


def test_the_time_of_a_callback_is_included_in_that_of_the_user(
    oauth: OAuthServer, login_config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser in a terminal blocks, and the redirect may have arrived in that time."""
    with pytest.raises(CredentialTimeoutError, match="the code was not entered within 10 seconds"):
        login_headless(lambda code: clock.sleep(10), timeout=10)
    with pytest.raises(CredentialTimeoutError, match="the sign-in was not completed within 300 seconds"):
        login(lambda url: clock.sleep(300))
    assert not oauth.token_requests

    def show_browser(url: str) -> None:
        browse(url)
        loopback.redirect.result(TIMEOUT_SECONDS)
        clock.sleep(301)

    loopback = LoopbackServer()
    monkeypatch.setattr("heksher_client.profiles._login_flows.LoopbackServer", lambda: loopback)
    login(show_browser)
    assert load_tokens(login_config) is not None


def test_the_loopback_server_accepts_only_the_redirect_of_its_own_sign_in(
    oauth: OAuthServer, login_config: Path
) -> None:
    """Other programs and pages on the machine can send requests to the same port."""
    statuses: list[int] = []

    def attack(url: str) -> None:
        redirect = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        others = ("?code=evil&state=%C3%A9", "?code=evil&state=wrong", "?code=evil", "?state=wrong", "/../favicon.ico")
        statuses.extend(http_request("GET", redirect + path).status_code for path in others)
        statuses.append(http_request("POST", redirect).status_code)
        browse(url)

    login(attack)
    assert statuses == [404, 404, 404, 404, 404, 501]
    assert load_tokens(login_config) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text, url: text.replace(f"{url}/", f"{url}/nothing"),
            r"could not be fetched \(not found\): check the issuer, or set token_url",
        ),
        (lambda text, url: text.replace(url, "http://127.0.0.1:1"), r"could not be fetched \(ConnectError\)"),
        (lambda text, url: text.replace("issuer", "token_url"), "oauth has no authorization_url, and no issuer"),
    ],
)
def test_without_metadata_the_endpoints_must_be_configured(
    oauth: OAuthServer, login_config: Path, change: Callable[[str, str], str], message: str
) -> None:
    """The error says what to configure."""
    text = login_config.read_text()
    login_config.write_text(change(text, oauth.url))
    with pytest.raises((CredentialError, ConfigError), match=message):
        login(browse)
    login_config.write_text(
        text.partition("issuer")[0] + f'token_url = "{oauth.token_url}"\nauthorization_url = "{oauth.url}/authorize"\n'
    )
    login(browse)


def test_metadata_is_fetched_from_the_rfc_8414_url_as_well(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that names another issuer is refused."""
    login_config.write_text(login_config.read_text().replace(f"{oauth.url}/", f"{oauth.url}/tenant"))
    oauth.metadata_path = "/.well-known/oauth-authorization-server/tenant"
    with pytest.raises(CredentialError, match="names another issuer"):
        login(browse)
    metadata = oauth.metadata() | {"issuer": f"{oauth.url}/tenant"}
    monkeypatch.setattr(oauth, "metadata", lambda: metadata)
    login(browse)


def test_an_invalid_issuer_or_endpoint_is_an_error(oauth: OAuthServer, login_config: Path) -> None:
    """The message names the key."""
    text = login_config.read_text()
    login_config.write_text(text.replace(f"{oauth.url}/", "http://a:b"))
    with pytest.raises(CredentialError, match="InvalidURL"):
        login(browse)
    login_config.write_text(f'{text}token_url = "nowhere"\n')
    with pytest.raises(ConfigError, match="token_url must be an absolute"):
        login(browse)


def test_login_without_a_browser_fails_immediately(login_config: Path) -> None:
    """The error refers to `login_headless`."""
    with pytest.raises(CredentialError, match="login_headless"):
        login(lambda url: False)


@pytest.fixture
def without_device_codes(oauth: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[DeviceCode], str]:
    """A server without device codes. Return a user, who signs in with a browser on another device."""
    metadata = oauth.metadata()
    del metadata["device_authorization_endpoint"]
    monkeypatch.setattr(oauth, "metadata", lambda: metadata)
    return lambda code: http_request("GET", code.url).headers["Location"]


def test_login_headless_without_device_codes_takes_a_code_that_the_user_pastes(
    kind: Kind, oauth: OAuthServer, login_config: Path, without_device_codes: Callable[[DeviceCode], str]
) -> None:
    """Or the address at which the browser ends, with its `state`. The code is protected by PKCE."""
    codes: list[DeviceCode] = []
    addresses: list[str] = []

    def paste_address(code: DeviceCode) -> str:
        codes.append(code)
        addresses.append(without_device_codes(code))
        return f" {addresses[-1]}#fragment\n"

    def paste_code(code: DeviceCode) -> str:
        return parse_qs(urlsplit(paste_address(code).strip()).query)["code"][0]

    for get_code in (paste_address, paste_code):
        login_headless(get_code)
        with Connected(kind) as client:
            kind.call(client.ping())
        logout()
    assert [(code.code, code.complete_url, code.expires_in) for code in codes] == [("", None, 300)] * 2
    assert all(address.startswith("http://127.0.0.1/callback?") for address in addresses)
    login_config.write_text(login_config.read_text() + 'redirect_url = "https://login.example.com/code"\n')
    login_headless(paste_address)
    assert addresses[-1].startswith("https://login.example.com/code?")


def test_a_code_that_is_not_pasted_or_is_that_of_another_sign_in_is_an_error(
    oauth: OAuthServer,
    login_config: Path,
    clock: FakeClock,
    without_device_codes: Callable[[DeviceCode], str],
) -> None:
    """Nothing is stored."""
    former: list[str] = []
    for pasted in (None, "", " \n", 5):
        with pytest.raises(CredentialError, match="no code was entered: the server has no device codes, so get_code"):
            login_headless(lambda code, pasted=pasted: pasted)  # type: ignore[misc]
    with pytest.raises(CredentialError, match=r"refused \(invalid_grant"):
        login_headless(lambda code: "unknown")
    with pytest.raises(CredentialError, match="the address that was entered is not that of this sign-in"):
        login_headless(lambda code: without_device_codes(code).partition("&state")[0])
    with pytest.raises(CredentialError, match=r"refused \(invalid_grant"):
        login_headless(lambda code: former.append(without_device_codes(code)) or "unknown")  # type: ignore[func-returns-value]
    with pytest.raises(CredentialError, match="the address that was entered is not that of this sign-in"):
        login_headless(lambda code: former[0])
    with pytest.raises(CredentialError, match=r"refused \(invalid_grant"):  # its verifier is that of another sign-in
        login_headless(lambda code: parse_qs(urlsplit(former[0]).query)["code"][0])
    oauth.denies = True
    with pytest.raises(CredentialError, match=r"the sign-in was refused \(access_denied: not today\)"):
        login_headless(without_device_codes)
    with pytest.raises(CredentialError, match=r"the sign-in was refused \(access_denied\)"):
        login_headless(lambda code: "http://127.0.0.1/callback?error=access_denied")
    for query in ("error=access_denied&state=another", "error=access_denied&code=x", ""):
        with pytest.raises(CredentialError, match="the address that was entered is not that of this sign-in"):
            login_headless(lambda code, query=query: f"http://127.0.0.1/callback?{query}")  # type: ignore[misc]
    for timeout, seconds in ((10, 10), (None, 300)):
        with pytest.raises(CredentialTimeoutError, match=f"the sign-in was not completed within {seconds} seconds"):
            login_headless(lambda code: clock.sleep(code.expires_in + 1), timeout=timeout)
    assert load_tokens(login_config) is None


def test_without_any_authorization_endpoint_the_error_names_that_for_device_codes(
    oauth: OAuthServer, login_config: Path
) -> None:
    """It is the one for a sign-in without a browser."""
    login_config.write_text(login_config.read_text().replace("issuer", "token_url"))
    with pytest.raises(ConfigError, match="oauth has no device_authorization_url, and no issuer"):
        login_headless(lambda code: None)


def test_login_headless_continues_after_a_server_error(
    oauth: OAuthServer, login_config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device code remains valid."""

    def recover(seconds: float) -> None:
        oauth.token_response = (502, b"") if not oauth.token_requests else None

    monkeypatch.setattr(clock, "sleep", recover)
    login_headless(lambda code: None)
    assert len(oauth.token_requests) == 2


def test_a_granted_token_with_invalid_characters_is_not_stored(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a token cannot be sent in a header."""
    monkeypatch.setattr(oauth, "issue", lambda: "with a space")
    with pytest.raises((CredentialError, ValueError), match="visible ASCII"):
        login(browse)
    assert load_tokens(login_config) is None


def test_a_refused_device_authorization_is_an_error(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message contains the error of the server."""
    error = {"error": "invalid_scope", "error_description": "no such thing"}
    monkeypatch.setattr(oauth, "authorize_device", lambda parameters: error)
    with pytest.raises(CredentialError, match=r"refused \(invalid_scope: no such thing\)"):
        login_headless(lambda code: None)


def test_login_needs_a_location_for_tokens(
    service: LoopbackService, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown without the extra and without `HEKSHER_CONFIG`."""
    monkeypatch.delenv("HEKSHER_CONFIG")
    monkeypatch.setenv("HEKSHER_URL", service.url)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="install the extra `login`"):
        login_with_token("t")


def test_a_response_without_a_device_code_is_an_error(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example if the configured URL is another endpoint."""
    login_config.write_text(login_config.read_text() + f'device_authorization_url = "{oauth.url}/revoke"\n')
    monkeypatch.setattr(oauth, "revoke", lambda parameters, authorization: (200, {}))
    with pytest.raises(CredentialError, match="does not contain a valid device code"):
        login_headless(lambda code: None)


@pytest.mark.parametrize(
    "fields",
    [
        {"interval": -1},
        {"interval": 1e999},
        {"expires_in": float("nan")},
        {"interval": "soon"},
        {"expires_in": None},
        {"interval": 10**400},
    ],
)
def test_a_device_code_with_invalid_durations_is_an_error(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    """The code is not shown to the user."""
    authorize_device = oauth.authorize_device
    monkeypatch.setattr(oauth, "authorize_device", lambda parameters: {**authorize_device(parameters), **fields})
    with pytest.raises(CredentialError, match="does not contain a valid device code"):
        login_headless(lambda code: pytest.fail("the code was shown"))


def test_login_headless_polls_at_intervals_whatever_the_server_says(
    oauth: OAuthServer, login_config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds if it says none, as RFC 8628 defines it, and at least one."""
    authorize_device = oauth.authorize_device
    for interval, seconds in ((None, 5), (0, 1), (0.001, 1), ("0", 1), (2, 2), ("2", 2)):
        monkeypatch.setattr(
            oauth,
            "authorize_device",
            lambda parameters, fields={"interval": interval}: {**authorize_device(parameters), **fields},
        )
        clock.sleeps.clear()
        login_headless(lambda code: None)
        assert clock.sleeps == [seconds], interval


def test_login_headless_does_not_wait_beyond_the_expiry_of_the_code(
    oauth: OAuthServer, login_config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the polling interval is longer."""
    authorize_device = oauth.authorize_device
    monkeypatch.setattr(
        oauth, "authorize_device", lambda parameters: {**authorize_device(parameters), "interval": 8, "expires_in": 10}
    )
    oauth.pending_polls = 9
    with pytest.raises(CredentialError, match="the code was not entered within 10 seconds"):
        login_headless(lambda code: None)
    assert clock.sleeps == [8, 2]


@pytest.mark.usefixtures("clock")
def test_a_token_response_without_a_token_is_not_retried(oauth: OAuthServer, login_config: Path) -> None:
    """The device code is used up, so a second request would hide the cause."""
    oauth.token_response = 200, b'{"token_type": "Bearer"}'
    with pytest.raises(CredentialError, match="has no access token"):
        login_headless(lambda code: None)
    assert len(oauth.token_requests) == 1


@pytest.mark.parametrize("name", ["authorization_url", "token_url", "issuer", "revocation_url"])
@pytest.mark.parametrize("url", ["file:///etc/passwd", "nowhere", "https://jim:x@host"])
def test_endpoints_must_be_http_urls_without_passwords(login_config: Path, name: str, url: str) -> None:
    """They are opened in a browser and may be logged, so the message does not contain the URL."""
    oauth = f'client_id = "{CLIENT}"\n' + ("" if name == "issuer" else 'token_url = "https://host/t"\n')
    login_config.write_text(f'[profiles.shop]\nurl = "http://h"\n[profiles.shop.oauth]\n{oauth}{name} = "{url}"\n')
    login_config.chmod(0o600)
    if name == "token_url":
        login_config.write_text(login_config.read_text().replace('token_url = "https://host/t"\n', ""))
    with pytest.raises(ConfigError, match=f"profile shop in .*: {name} must") as raised:
        login(browse)
    assert url not in str(raised.value)


@pytest.mark.parametrize("with_token", [True, False])
def test_login_is_refused_if_other_credentials_would_be_used(
    login_config: Path, monkeypatch: pytest.MonkeyPatch, with_token: bool
) -> None:
    """A token of the profile or its client credentials take precedence over a sign-in."""
    if with_token:
        monkeypatch.setenv("HEKSHER_TOKEN", "t")
    else:
        login_config.write_text(login_config.read_text() + 'grant = "client_credentials"\n')
    message = "would be used instead of the sign-in" if with_token else "users do not sign in"
    with pytest.raises(ConfigError, match=message):
        login(browse)
    with pytest.raises(ConfigError, match=message):
        login_with_token("t")


def test_the_error_description_of_a_redirect_is_escaped(login_config: Path, oauth: OAuthServer) -> None:
    """The message is a single line without control characters."""
    oauth.denies = True
    oauth.denial_description = "x\x1b[2J\ny"
    with pytest.raises(CredentialError, match="the sign-in was refused") as raised:
        login(browse)
    assert str(raised.value).isprintable()


def test_login_does_not_use_the_oauth_of_a_profile_for_another_server(
    login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `HEKSHER_URL` overrides the URL of the profile, its `oauth` is refused."""
    monkeypatch.setenv("HEKSHER_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"profile shop in .*: oauth cannot be sent to"):
        login(browse)


def test_login_without_the_extra_login_is_an_error(login_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ConfigError, match=r"heksher_client\[login\]"):
        login_with_token("t")
