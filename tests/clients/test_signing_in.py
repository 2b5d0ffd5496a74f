"""Signing in: with a browser, with a code, with a token; where the tokens are, and who renews them."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import keyring
import keyring.backend
import pytest
from click.testing import CliRunner
from keyring.backends.fail import Keyring as NoKeyring

from heksher_client import (
    AsyncHeksherClient,
    ConfigError,
    CredentialError,
    Setting,
    connect,
    connect_async,
    login,
    login_headless,
    login_with_token,
    logout,
)
from heksher_client.cli import main
from heksher_client.profiles._config import load
from heksher_client.profiles._oauth_login import DeviceCode
from heksher_client.profiles._stored_credential import StoredCredential
from heksher_client.profiles._token_store import StoredTokens, TokenStore
from tests.support.clients import PATIENCE, Kind, eventually
from tests.support.forks import begun_in_child, ended_well
from tests.support.oauth import CLIENT, OAuthServer, put_behind_gateway
from tests.support.service import WatchedService


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring of a desktop, for as long as a test runs."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.passwords: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise RuntimeError("the keyring is locked")
        self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.passwords[service, username]


@pytest.fixture(autouse=True)
def _no_keyring_of_this_machine() -> Iterator[None]:
    former = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(former)


@pytest.fixture(params=["keyring", "file"])
def place(request: pytest.FixtureRequest) -> MemoryKeyring | None:
    """Where tokens are kept: in a keyring, or in a file where there is none."""
    ring = MemoryKeyring() if request.param == "keyring" else None
    keyring.set_keyring(ring or NoKeyring())  # type: ignore[no-untyped-call]
    return ring


class FakeClock:
    """A clock that `login_headless` waits on: `sleep` returns at once and advances it."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return sum(self.waits)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr("heksher_client.profiles._oauth_login.time", fake)
    return fake


@pytest.fixture
def oauth(service: WatchedService) -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        put_behind_gateway(service, server)
        yield server


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: WatchedService, oauth: OAuthServer) -> Path:
    """A configuration with one profile, whose server of tokens tells its own addresses."""
    for name in os.environ:
        if name.startswith("HEKSHER_"):
            monkeypatch.delenv(name)
    path = tmp_path / "config" / "heksher.toml"
    path.parent.mkdir()
    monkeypatch.setenv("HEKSHER_CONFIG", str(path))
    path.write_text(
        f'[profiles.shop]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]\n'
        f'[profiles.shop.oauth]\nclient_id = "{CLIENT}"\nissuer = "{oauth.url}/"\nscope = "settings"\n'
    )
    return path


def browse(url: str) -> None:
    """What a user does with a browser: go there, and be sent back."""
    threading.Thread(target=lambda: httpx.get(url, follow_redirects=True), daemon=True).start()


def tokens_of(config: Path) -> Path:
    return TokenStore(config).path


def kept(config: Path) -> StoredTokens | None:
    return TokenStore(config).load("shop")


# -- signing in --------------------------------------------------------------------------------------------------------


def test_who_signs_in_with_a_browser_is_let_in(
    kind: Kind, service: WatchedService, oauth: OAuthServer, config: Path, place: MemoryKeyring | None
) -> None:
    """An authorization code with PKCE, which the server checks; the clients renew the tokens from then on."""
    shown: list[str] = []

    def show(url: str) -> None:
        shown.append(url)
        browse(url)

    where = login(show)
    assert where == ("the system keyring" if place is not None else str(tokens_of(config)))
    asked = parse_qs(urlsplit(shown[0]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["scope"] == ["settings"]
    assert urlsplit(asked["redirect_uri"][0]).hostname == "127.0.0.1"
    setting = Setting("s", int, ["user"], 1)
    with Running(kind) as client:
        oauth.expire_all()
        service.add_rule("s", 2, user="jim")
        kind.call(client.reload())
        assert setting.get(user="jim") == 2
    signed_in = kept(config)
    assert signed_in is not None
    assert oauth.accepts(f"Bearer {signed_in.access_token}")
    assert "access-" not in repr(signed_in)


def test_who_signs_in_with_a_code_is_let_in(
    oauth: OAuthServer, config: Path, clock: FakeClock, place: MemoryKeyring | None
) -> None:
    """The server is asked as often as it likes, and less often when it says so."""
    oauth.pending = 3
    shown: list[DeviceCode] = []
    login_headless(shown.append)
    assert (shown[0].code, shown[0].url, shown[0].expires_in) == ("WDJB-MJHT", f"{oauth.url}/enter", 60)
    assert shown[0].complete_url == f"{oauth.url}/enter?code=WDJB"
    assert clock.waits == [0, 5, 5, 10]
    with connect() as client:
        client.ping()


def test_a_token_from_elsewhere_lets_in_as_long_as_it_is_accepted(
    oauth: OAuthServer, config: Path, place: MemoryKeyring | None
) -> None:
    """Then it is said what to do; a new one is used at once."""
    login_with_token(oauth.issue())
    with connect() as client:
        client.ping()
        oauth.expire_all()
        with pytest.raises(
            CredentialError, match="the access token is no longer accepted; sign in with: heksher-client login shop"
        ):
            client.ping()
        login_with_token(oauth.issue())
        client.ping()
    with pytest.raises(ValueError, match="visible ASCII"):
        login_with_token("with a space")


def test_a_profile_without_a_server_of_tokens_can_have_a_token(
    service: WatchedService, oauth: OAuthServer, config: Path, place: MemoryKeyring | None
) -> None:
    """It is looked for only where somebody has signed in."""
    config.write_text(config.read_text().partition("[profiles.shop.oauth]")[0])
    with pytest.raises(ConfigError, match=r"add \[profiles.shop.oauth\] with client_id and issuer"):
        login(browse)
    login_with_token(oauth.issue())
    with connect() as client:
        client.ping()
    logout()
    with connect() as client:
        assert client._route.auth is None


def test_who_signs_out_is_not_let_in_any_more(oauth: OAuthServer, config: Path, place: MemoryKeyring | None) -> None:
    """Nothing of the tokens is left here, and the server has heard of it."""
    login(browse)
    signed_in = kept(config)
    assert signed_in is not None
    assert logout()
    assert oauth.revoked == [signed_in.refresh_token]
    assert place is None or not place.passwords
    assert "access" not in tokens_of(config).read_text()
    assert not logout()
    with (
        connect() as client,
        pytest.raises(CredentialError, match="no user is signed in; sign in with: heksher-client"),
    ):
        client.ping()


def test_who_signs_out_while_the_server_is_away_is_signed_out_here(
    oauth: OAuthServer, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And told that the tokens may still be good."""
    TokenStore(config).save(
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
    assert kept(config) is None


# -- what may go wrong -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clock")
def test_a_refused_sign_in_is_an_error(oauth: OAuthServer, config: Path) -> None:
    """With the words of the server."""
    oauth.denies = True
    with pytest.raises(CredentialError, match=r"refused \(access_denied: not today\)"):
        login(browse)
    with pytest.raises(CredentialError, match=r"refused \(access_denied\)"):
        login_headless(lambda code: None)
    assert kept(config) is None


def test_a_sign_in_that_nobody_ends_is_given_up(oauth: OAuthServer, config: Path, clock: FakeClock) -> None:
    """After the time that is allowed for it."""
    oauth.pending = 1000
    with pytest.raises(CredentialError, match=r"within 0\.01 seconds"):
        login(lambda url: None, timeout=0.01)
    with pytest.raises(CredentialError, match="the code was not entered within 60 seconds: start again"):
        login_headless(lambda code: None)
    assert clock.monotonic() == 60


def test_only_the_answer_to_this_sign_in_counts(oauth: OAuthServer, config: Path) -> None:
    """Other pages on this machine may call the same address."""
    answers: list[int] = []

    def attack(url: str) -> None:
        redirect = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        others = ("?code=evil&state=%C3%A9", "?code=evil&state=wrong", "?code=evil", "?state=wrong", "/../favicon.ico")
        answers.extend(httpx.get(redirect + path).status_code for path in others)
        answers.append(httpx.post(redirect).status_code)
        browse(url)

    login(attack)
    assert answers == [404, 404, 404, 404, 404, 501]
    assert kept(config) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text, url: text.replace(f"{url}/", f"{url}/nothing"),
            r"could not be fetched \(not found\): check the issuer, or set token_url",
        ),
        (lambda text, url: text.replace(url, "http://127.0.0.1:1"), r"could not be fetched \(ConnectError\)"),
        (lambda text, url: text.replace("issuer", "token_url"), "oauth has no authorization_url, and no issuer"),
    ],
)
def test_a_server_that_does_not_describe_itself_is_an_error(
    oauth: OAuthServer, config: Path, change: Callable[[str, str], str], words: str
) -> None:
    """Unless the profile gives its addresses."""
    text = config.read_text()
    config.write_text(change(text, oauth.url))
    with pytest.raises((CredentialError, ConfigError), match=words):
        login(browse)
    config.write_text(
        text.partition("issuer")[0] + f'token_url = "{oauth.token_url}"\nauthorization_url = "{oauth.url}/authorize"\n'
    )
    login(browse)


def test_a_server_is_asked_at_its_second_address_where_the_first_says_nothing(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of RFC 8414; and one that speaks for somebody else is not believed."""
    config.write_text(config.read_text().replace(f"{oauth.url}/", f"{oauth.url}/tenant"))
    oauth.metadata_path = "/.well-known/oauth-authorization-server/tenant"
    with pytest.raises(CredentialError, match="names another issuer"):
        login(browse)
    told = oauth.metadata() | {"issuer": f"{oauth.url}/tenant"}
    vars(oauth)["metadata"] = lambda: told
    login(browse)


def test_an_address_that_is_none_is_an_error(oauth: OAuthServer, config: Path) -> None:
    """Of the issuer, or of an endpoint."""
    text = config.read_text()
    config.write_text(text.replace(f"{oauth.url}/", "http://a:b"))
    with pytest.raises(CredentialError, match="InvalidURL"):
        login(browse)
    config.write_text(f'{text}token_url = "nowhere"\n')
    with pytest.raises(ConfigError, match="token_url must be an absolute"):
        login(browse)


def test_a_machine_without_a_browser_is_told_what_to_do(config: Path) -> None:
    """At once."""
    with pytest.raises(CredentialError, match="login_headless"):
        login(lambda url: False)


def test_a_server_that_is_away_for_a_moment_ends_no_sign_in(
    oauth: OAuthServer, config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is still good."""

    def come_back(seconds: float) -> None:
        oauth.answer_instead = (502, b"") if not oauth.token_requests else None

    monkeypatch.setattr(clock, "sleep", come_back)
    login_headless(lambda code: None)
    assert len(oauth.token_requests) == 2


def test_a_token_that_could_not_be_sent_is_not_kept(oauth: OAuthServer, config: Path) -> None:
    """The server has made a mistake."""
    vars(oauth)["issue"] = lambda: "with a space"
    with pytest.raises((CredentialError, ValueError), match="visible ASCII"):
        login(browse)
    assert kept(config) is None


def test_a_code_that_is_refused_is_an_error(oauth: OAuthServer, config: Path) -> None:
    """With the words of the server."""
    vars(oauth)["begin_device"] = lambda asked: {"error": "invalid_scope", "error_description": "no such thing"}
    with pytest.raises(CredentialError, match=r"refused \(invalid_scope: no such thing\)"):
        login_headless(lambda code: None)


def test_a_profile_without_a_place_for_tokens_cannot_be_signed_in_to(
    service: WatchedService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra knows the place."""
    monkeypatch.delenv("HEKSHER_CONFIG")
    monkeypatch.setenv("HEKSHER_URL", service.url)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="install the extra `login`"):
        login_with_token("t")


def test_an_answer_without_a_device_code_is_an_error(oauth: OAuthServer, config: Path) -> None:
    """Something else answers there."""
    config.write_text(config.read_text() + f'device_authorization_url = "{oauth.url}/revoke"\n')
    vars(oauth)["revoke"] = lambda asked: None
    with pytest.raises(CredentialError, match="does not contain a valid device code"):
        login_headless(lambda code: None)


@pytest.mark.parametrize(
    "told",
    [{"interval": -1}, {"interval": 1e999}, {"expires_in": float("nan")}, {"interval": "soon"}, {"expires_in": None}],
)
def test_times_that_are_none_are_no_device_code(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, object]
) -> None:
    """And nobody is shown it."""
    begin = oauth.begin_device
    monkeypatch.setattr(oauth, "begin_device", lambda asked: {**begin(asked), **told})
    with pytest.raises(CredentialError, match="does not contain a valid device code"):
        login_headless(lambda code: pytest.fail("shown"))


def test_a_code_is_not_asked_about_after_its_end(
    oauth: OAuthServer, config: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the interval is."""
    begin = oauth.begin_device
    monkeypatch.setattr(oauth, "begin_device", lambda asked: {**begin(asked), "interval": 8, "expires_in": 10})
    oauth.pending = 9
    with pytest.raises(CredentialError, match="the code was not entered within 10 seconds"):
        login_headless(lambda code: None)
    assert clock.waits == [8, 2]


@pytest.mark.usefixtures("clock")
def test_an_answer_that_holds_no_token_is_told_at_once(oauth: OAuthServer, config: Path) -> None:
    """The code is spent: to ask again would only hide the cause."""
    oauth.answer_instead = 200, b'{"token_type": "Bearer"}'
    with pytest.raises(CredentialError, match="holds no access token"):
        login_headless(lambda code: None)
    assert len(oauth.token_requests) == 1


@pytest.mark.parametrize("name", ["authorization_url", "token_url", "issuer", "revocation_url"])
@pytest.mark.parametrize("url", ["file:///etc/passwd", "nowhere", "https://jim:x@host"])
def test_an_address_is_one_of_a_server_and_holds_no_password(config: Path, name: str, url: str) -> None:
    """It would be opened in a browser, or be in a log."""
    oauth = f'client_id = "{CLIENT}"\n' + ("" if name == "issuer" else 'token_url = "https://host/t"\n')
    config.write_text(f'[profiles.shop]\nurl = "http://h"\n[profiles.shop.oauth]\n{oauth}{name} = "{url}"\n')
    config.chmod(0o600)
    if name == "token_url":
        config.write_text(config.read_text().replace('token_url = "https://host/t"\n', ""))
    with pytest.raises(ConfigError, match=f"profile shop in .*: {name} must") as refused:
        login(browse)
    assert url not in str(refused.value)


@pytest.mark.parametrize("with_token", [True, False])
def test_a_sign_in_that_nobody_would_use_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, with_token: bool
) -> None:
    """A token of the profile, or a secret of its own, is used instead of it."""
    if with_token:
        monkeypatch.setenv("HEKSHER_TOKEN", "t")
    else:
        config.write_text(config.read_text() + 'grant = "client_credentials"\n')
    words = "would be used instead of the sign-in" if with_token else "users do not sign in"
    with pytest.raises(ConfigError, match=words):
        login(browse)
    with pytest.raises(ConfigError, match=words):
        login_with_token("t")


def test_a_refusal_that_a_browser_brings_is_one_line(config: Path, oauth: OAuthServer) -> None:
    """Whatever characters are in it."""
    oauth.denies = True
    oauth.refusal = "x\x1b[2J\ny"
    with pytest.raises(CredentialError, match="the sign-in was refused") as refused:
        login(browse)
    assert str(refused.value).isprintable()


# -- where the tokens are ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such permissions")
def test_the_file_is_for_its_owner_alone(oauth: OAuthServer, config: Path) -> None:
    """And not used if it is not."""
    login(browse)
    path = tokens_of(config)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"other users can read the tokens in .*heksher\.tokens\.json: run chmod 600"):
        logout()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "is corrupt: delete it"), (b"\xff", "is corrupt: delete it"), (b'{"format": 2}', "upgrade it")],
)
def test_a_file_that_is_none_of_ours_is_refused(config: Path, content: bytes, words: str) -> None:
    """And left as it is."""
    path = tokens_of(config)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=words):
        login_with_token("t")
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_used_is_an_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That names it; nothing is left lying about."""
    path = tokens_of(config)
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        login_with_token("t")
    path.rmdir()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match=r"heksher\.tokens\.json cannot be written: No space left on device"):
        login_with_token("t")
    assert {path.suffix for path in config.parent.iterdir()} == {".toml", ".lock"}


def test_a_keyring_that_refuses_leaves_it_to_the_file(
    oauth: OAuthServer, config: Path, place: MemoryKeyring | None
) -> None:
    """As one that is locked, or has no room for a long token."""
    if place is not None:
        place.is_locked = True
    assert login_with_token(oauth.issue()) == str(tokens_of(config))
    with connect() as client:
        client.ping()


def test_without_the_library_for_keyrings_there_is_the_file(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that was signed in for needs it no more than the file."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert login_with_token(oauth.issue()) == str(tokens_of(config))
    with connect() as client:
        client.ping()


def test_tokens_are_for_the_server_that_they_were_got_for(
    service: WatchedService, oauth: OAuthServer, config: Path
) -> None:
    """A profile that is changed later needs another sign-in."""
    login(browse)
    config.write_text(config.read_text().replace("127.0.0.1", "localhost", 1))
    with (
        connect() as client,
        pytest.raises(CredentialError, match=r"the stored tokens are for http://127\.0\.0\.1:\d+; sign in"),
    ):
        client.ping()


# -- renewing ----------------------------------------------------------------------------------------------------------


def credential(config: Path) -> StoredCredential:
    return StoredCredential(load("shop", {}), TokenStore(config), {})


def test_processes_that_share_a_sign_in_renew_it_once(oauth: OAuthServer, config: Path) -> None:
    """A refresh token is used once, and what comes with it is everybody's."""
    login(browse)
    both = [credential(config), credential(config)]
    for one in both:
        one.force_refresh()
    oauth.token_requests.clear()
    oauth.expire_all()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one.force_refresh) for one in both]:
            done.result(PATIENCE)
    assert len(oauth.token_requests) == 1
    assert {one._at_hand().value for one in both} == {kept(config).access_token}  # type: ignore[union-attr]


def test_a_process_of_its_own_uses_what_another_has_renewed(oauth: OAuthServer, config: Path) -> None:
    """Out of the file."""
    login(browse)
    code = "from heksher_client import connect\nwith connect() as client: client.ping()"
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    oauth.expire_all()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, env=environment)
    requests = len(oauth.token_requests)
    with connect() as client:
        client.ping()
    assert len(oauth.token_requests) == requests


def test_a_child_of_a_fork_renews_by_itself(oauth: OAuthServer, config: Path) -> None:
    """Also where the parent has renewed before, and so has had the lock."""
    login(browse)
    parent = credential(config)
    parent.force_refresh()
    parent.force_refresh()

    def renew() -> bool:
        parent.force_refresh()
        return parent._at_hand() is not None

    requests = len(oauth.token_requests)
    assert ended_well(begun_in_child(renew))
    assert len(oauth.token_requests) == requests + 1


def test_a_keyring_that_is_away_is_no_sign_out(oauth: OAuthServer, config: Path) -> None:
    """As that of a desktop is for a session from elsewhere: the tokens are there, and so is the note of them."""
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    login(browse)
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    with pytest.raises(CredentialError, match="in the system keyring, which is not available"):
        credential(config).force_refresh()
    with pytest.raises(ConfigError, match="sign out in a session where it is"):
        logout()
    keyring.set_keyring(ring)
    assert logout()
    assert not ring.passwords
    assert oauth.revoked


def test_a_keyring_that_cannot_be_loaded_leaves_it_to_the_file(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration may name one that is not there."""

    def fail() -> None:
        raise AttributeError

    with monkeypatch.context() as patch:
        patch.setattr(keyring, "get_keyring", fail)
        assert login(browse) == str(tokens_of(config))


def test_a_configuration_is_the_same_wherever_a_program_goes(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where it is named by a path that is relative to where the program began."""
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("HEKSHER_CONFIG", config.name)
    login(browse)
    with connect() as client:
        monkeypatch.chdir(tmp_path)
        oauth.expire_all()
        client.ping()
    monkeypatch.setenv("HEKSHER_CONFIG", str(config))
    assert logout()
    assert not ring.passwords


def test_the_secret_of_one_server_of_tokens_goes_to_no_other(oauth: OAuthServer, config: Path) -> None:
    """A profile that has moved needs another sign-in, and signs out of the former one without its secret."""
    login(browse)
    other = 'client_id = "other"\nclient_secret = "of-the-other"\ntoken_url = "https://other.example/token"\n'
    text = config.read_text()
    config.write_text(text[: text.index("client_id")] + other)
    config.chmod(0o600)
    requests = len(oauth.token_requests)
    with pytest.raises(CredentialError, match=r"for another server or client than its oauth; sign in"):
        credential(config).force_refresh()
    assert len(oauth.token_requests) == requests
    assert logout()
    assert oauth.revoked


def test_a_sign_in_that_has_ended_says_what_to_do(oauth: OAuthServer, config: Path) -> None:
    """The server does not renew it any more, or what is kept cannot be read."""
    login(browse)
    with connect() as client:
        oauth.expire_all()
        oauth._refresh.clear()
        with pytest.raises(CredentialError, match=r"invalid_grant.*sign in with: heksher-client login shop"):
            client.ping()
        tokens_of(config).write_bytes(b"{")
        with pytest.raises(CredentialError, match=r"profile shop.*is corrupt"):
            client.ping()


@pytest.mark.parametrize("ends_with", ["logout", "login"])
def test_a_renewal_that_is_under_way_undoes_no_sign_in_or_out(oauth: OAuthServer, config: Path, ends_with: str) -> None:
    """Whoever signs in or out waits for it, and has the last word."""
    login(browse)
    one = credential(config)
    one.force_refresh()
    oauth.gate.clear()
    oauth.token_requests.clear()
    renewal = one._renewal()
    assert eventually(lambda: oauth.token_requests)
    token = oauth.issue()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(logout if ends_with == "logout" else partial(login_with_token, token))
        assert not ending.done()
        oauth.gate.set()
        renewal.result(PATIENCE)
        ending.result(PATIENCE)
    left = kept(config)
    assert (None if left is None else left.access_token) == (None if ends_with == "logout" else token)


def test_tokens_that_cannot_be_kept_serve_as_long_as_the_process(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The refresh token that they came for is spent; that is logged, and mended by the next renewal."""
    login(browse)
    one = credential(config)
    one.force_refresh()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        one.force_refresh()
        assert "the refreshed tokens could not be saved, and are lost when this process ends" in caplog.text
    one.force_refresh()
    left = kept(config)
    assert left is not None
    assert oauth.accepts(f"Bearer {left.access_token}")


def test_a_new_sign_in_is_used_where_the_former_could_not_be_kept(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By programs that run."""
    login(browse)
    one = credential(config)
    one.force_refresh()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        one.force_refresh()
    oauth.expire_all()
    oauth._refresh.clear()
    with pytest.raises(CredentialError, match="invalid_grant"):
        one.force_refresh()
    login(browse)
    one.force_refresh()
    assert oauth.accepts(f"Bearer {one._at_hand().value}")  # type: ignore[union-attr]


def test_what_is_in_the_keyring_goes_when_it_is_replaced_or_signed_out(oauth: OAuthServer, config: Path) -> None:
    """Also where the new tokens have to be in the file, and where somebody has taken them out."""
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    login_with_token(oauth.issue())
    ring.is_locked = True
    login_with_token(oauth.issue())
    assert ring.passwords == {}
    ring.is_locked = False
    login_with_token(oauth.issue())
    ring.passwords = dict.fromkeys(ring.passwords, "{")
    with pytest.raises(ConfigError, match="the keyring entry for profile shop is invalid"):
        kept(config)
    ring.passwords.clear()
    assert not logout()
    assert not TokenStore(config).has("shop")


def test_a_process_that_does_not_end_is_not_waited_for_for_ever(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a folder that cannot be made a mystery."""
    monkeypatch.setattr("heksher_client.profiles._token_store._LOCK_TIMEOUT_SECONDS", 0.01)
    with TokenStore(config).lock(), pytest.raises(ConfigError, match="another process holds the lock"):
        login_with_token("t")
    with pytest.raises(ConfigError, match="cannot be written"), TokenStore(config / "below" / "x").lock():
        raise AssertionError


def test_a_sign_in_without_a_profile_is_for_its_server(
    service: WatchedService, oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other servers need none."""
    config.write_text("")
    monkeypatch.setenv("HEKSHER_CONTEXT_FEATURES", "environment,user,theme")
    monkeypatch.setenv("HEKSHER_URL", service.url)
    login_with_token(oauth.issue())
    with connect() as client:
        client.ping()
        oauth.expire_all()
        with pytest.raises(CredentialError, match=r"sign in with: heksher-client login$"):
            client.ping()
    monkeypatch.setenv("HEKSHER_URL", service.url.replace("127.0.0.1", "localhost"))
    with connect() as client:
        assert client._route.auth is None


def test_nobody_is_signed_in_to_another_server_with_a_profiles(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens are for its own."""
    monkeypatch.setenv("HEKSHER_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"profile shop in .*: oauth cannot be sent to"):
        login(browse)


def test_a_keyring_that_is_locked_is_no_sign_out(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says to unlock it, and keeps what there is."""
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    login(browse)

    def locked(*_: object) -> None:
        raise RuntimeError("locked")

    with monkeypatch.context() as patch, connect() as client:
        patch.setattr(ring, "get_password", locked)
        patch.setattr(ring, "delete_password", locked)
        oauth.expire_all()
        with pytest.raises(CredentialError, match=r"the system keyring refused access .*: unlock it"):
            client.ping()
        with pytest.raises(ConfigError, match="unlock it"):
            logout()
    assert kept(config) is not None


def test_without_the_extra_it_is_said_what_is_missing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name."""
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(ConfigError, match=r"heksher_client\[login\]"):
        login_with_token("t")


# -- commands ----------------------------------------------------------------------------------------------------------


def command(*arguments: str, text: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), input=text)
    return result.exit_code, result.output


@pytest.mark.usefixtures("clock")
def test_the_commands_do_the_same(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch, place: MemoryKeyring | None
) -> None:
    """Sign in, ask, list, sign out."""
    monkeypatch.setattr("click.launch", browse)
    where = "the system keyring" if place is not None else str(tokens_of(config))
    code, output = command("login", "shop")
    assert (code, f"The tokens are in {where}." in output) == (0, True)

    def open_elsewhere(url: str) -> int:
        browse(url)
        return 1

    monkeypatch.setattr("click.launch", open_elsewhere)
    code, output = command("login", "shop")
    assert (code, "No browser could be opened here" in output) == (0, True)
    assert command("ping") == (0, "The service is well.\n")
    assert command("profiles") == (0, f"In {config}:\n  shop\n")
    assert command("logout") == (0, "Signed out.\n")
    assert command("logout") == (0, "Nobody was signed in.\n")
    code, output = command("ping", "-p", "shop")
    assert code == 4
    assert output.startswith("Error: ")
    assert "sign in with: heksher-client login shop" in output
    code, output = command("login", "--headless")
    assert (code, f"Go to {oauth.url}/enter and enter WDJB-MJHT (60 seconds)." in output) == (0, True)
    assert command("login", "--token", text=f"{oauth.issue()}\n")[0] == 0
    assert command("ping", "-p", "shop") == (0, "The service is well.\n")
    assert command("login", "--token", "--headless")[0] == 2
    code, output = command("login", "--token", text="\n")
    assert (code, "reads the token from the standard input, and there is none" in output) == (2, True)


def test_a_token_is_asked_for_where_somebody_sits_at_a_terminal(
    oauth: OAuthServer, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not shown."""
    token = oauth.issue()
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("heksher_client.cli.login.sys", terminal)
    code, output = command("login", "--token", text=f"{token}\n")
    assert code == 0
    assert token not in output


def test_errors_of_the_commands_are_one_line(config: Path) -> None:
    """With what to do."""
    config.write_text("")
    assert command("profiles") == (0, f"In {config}:\n  (none)\n")
    for arguments in (["ping"], ["login"], ["logout"]):
        code, output = command(*arguments)
        assert code == 2
        assert output.count("\n") == 1
        assert "no service URL is configured" in output


# -- helpers -----------------------------------------------------------------------------------------------------------


class Running:
    """A client out of the profile, of either kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __enter__(self) -> Any:
        if not self._kind.raises_at_start:
            self._client: Any = connect()
            return self._client
        connecting = connect_async()

        async def begin() -> AsyncHeksherClient:
            return await connecting

        self._client = self._kind.call(begin())
        return self._client

    def __exit__(self, *_: object) -> None:
        self._kind.call(self._client.aclose() if self._kind.raises_at_start else self._client.close())


def test_what_is_kept_in_the_file_is_json(oauth: OAuthServer, config: Path) -> None:
    """For those who look."""
    token = oauth.issue()
    login_with_token(token)
    assert json.loads(tokens_of(config).read_text())["profiles"]["shop"]["access_token"] == token
