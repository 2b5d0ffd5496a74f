"""Stored tokens as a credential: refreshed once for all processes, and bound to their servers."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from heksher_client import CredentialError, connect, login, login_with_token, logout
from heksher_client.profiles._config import load
from heksher_client.profiles._stored_credential import StoredCredential
from heksher_client.profiles._token_store import TokenStore
from tests.support.clients import TIMEOUT_SECONDS, eventually
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.in_memory import LoopbackService
from tests.support.oauth import OAuthServer
from tests.support.profiles import browse, load_tokens, raise_disk_full, token_file


def stored_credential(config: Path) -> StoredCredential:
    return StoredCredential(load("shop", {}), TokenStore(config), {})


def test_stored_tokens_are_bound_to_the_server_of_the_sign_in(
    service: LoopbackService, oauth: OAuthServer, login_config: Path
) -> None:
    """If the URL of the profile changes, a new sign-in is needed."""
    login(browse)
    login_config.write_text(login_config.read_text().replace("127.0.0.1", "localhost", 1))
    with (
        connect() as client,
        pytest.raises(CredentialError, match=r"the stored tokens are for http://127\.0\.0\.1:\d+; sign in"),
    ):
        client.ping()


def test_concurrent_refreshes_of_stored_tokens_send_one_request(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh token can be used once, and all credentials use the new tokens.

    The second one has read the old tokens before the first one saves the new ones.
    """
    login(browse)
    credentials = [stored_credential(login_config), stored_credential(login_config)]
    for credential in credentials:
        credential.force_refresh()
    oauth.token_requests.clear()
    oauth.gate.clear()
    first, second = credentials
    is_waiting = threading.Event()
    lock = second._store.lock

    def lock_noticeably() -> AbstractContextManager[None]:
        is_waiting.set()
        return lock()

    monkeypatch.setattr(second._store, "lock", lock_noticeably)
    refreshes = [first._start_refresh()]
    assert eventually(lambda: oauth.token_requests)
    refreshes.append(second._start_refresh())
    assert is_waiting.wait(TIMEOUT_SECONDS)
    oauth.gate.set()
    for refresh in refreshes:
        refresh.result(TIMEOUT_SECONDS)
    assert len(oauth.token_requests) == 1
    assert {credential._valid_token().value for credential in credentials} == {load_tokens(login_config).access_token}  # type: ignore[union-attr]


def test_a_process_uses_tokens_that_another_process_refreshed(oauth: OAuthServer, login_config: Path) -> None:
    """It reads them from the store and sends no request."""
    login(browse)
    code = "from heksher_client import connect\nwith connect() as client: client.ping()"
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    oauth.expire_all()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_SECONDS, env=environment)
    requests = len(oauth.token_requests)
    with connect() as client:
        client.ping()
    assert len(oauth.token_requests) == requests


def test_the_child_of_a_fork_can_refresh_stored_tokens(oauth: OAuthServer, login_config: Path) -> None:
    """Even if the parent has held the lock of the store."""
    login(browse)
    parent = stored_credential(login_config)
    parent.force_refresh()
    parent.force_refresh()

    def refresh() -> bool:
        parent.force_refresh()
        return parent._valid_token() is not None

    requests = len(oauth.token_requests)
    assert exited_successfully(fork_and_check(refresh))
    assert len(oauth.token_requests) == requests + 1


def test_the_client_secret_is_not_sent_to_the_server_of_an_earlier_sign_in(
    oauth: OAuthServer, login_config: Path
) -> None:
    """If the `oauth` of a profile changes, a new sign-in is needed. Logout revokes the old tokens without a secret."""
    login(browse)
    other = 'client_id = "other"\nclient_secret = "of-the-other"\ntoken_url = "https://other.example/token"\n'
    text = login_config.read_text()
    login_config.write_text(text[: text.index("client_id")] + other)
    login_config.chmod(0o600)
    requests = len(oauth.token_requests)
    with pytest.raises(CredentialError, match=r"for another server or client than its oauth; sign in"):
        stored_credential(login_config).force_refresh()
    assert len(oauth.token_requests) == requests
    assert logout()
    assert oauth.revoked


def test_an_error_says_how_to_sign_in_again(oauth: OAuthServer, login_config: Path) -> None:
    """If the server refuses the refresh token, or the token file is corrupt."""
    login(browse)
    with connect() as client:
        oauth.expire_all()
        oauth.revoke_refresh_tokens()
        with pytest.raises(CredentialError, match=r"invalid_grant.*sign in with: heksher-client login shop"):
            client.ping()
        token_file(login_config).write_bytes(b"{")
        with pytest.raises(CredentialError, match=r"profile shop.*is corrupt"):
            client.ping()


@pytest.mark.parametrize("call", ["logout", "login"])
def test_a_refresh_in_progress_does_not_undo_a_login_or_logout(
    oauth: OAuthServer, login_config: Path, call: str
) -> None:
    """The login or logout waits for the refresh, and takes effect after it."""
    login(browse)
    credential = stored_credential(login_config)
    credential.force_refresh()
    oauth.gate.clear()
    oauth.token_requests.clear()
    refresh = credential._start_refresh()
    assert eventually(lambda: oauth.token_requests)
    token = oauth.issue()
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(logout if call == "logout" else partial(login_with_token, token))
        assert not change.done()
        oauth.gate.set()
        refresh.result(TIMEOUT_SECONDS)
        change.result(TIMEOUT_SECONDS)
    tokens = load_tokens(login_config)
    assert (None if tokens is None else tokens.access_token) == (None if call == "logout" else token)


def test_refreshed_tokens_that_cannot_be_saved_are_used_until_the_process_ends(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged, and the next refresh saves its tokens."""
    login(browse)
    credential = stored_credential(login_config)
    credential.force_refresh()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", raise_disk_full)
        credential.force_refresh()
        assert "the refreshed tokens could not be saved, and are lost when this process ends" in caplog.text
    credential.force_refresh()
    tokens = load_tokens(login_config)
    assert tokens is not None
    assert oauth.accepts(f"Bearer {tokens.access_token}")


def test_a_new_login_replaces_tokens_that_could_not_be_saved(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running clients use it without a restart."""
    login(browse)
    credential = stored_credential(login_config)
    credential.force_refresh()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", raise_disk_full)
        credential.force_refresh()
    oauth.expire_all()
    oauth.revoke_refresh_tokens()
    with pytest.raises(CredentialError, match="invalid_grant"):
        credential.force_refresh()
    login(browse)
    credential.force_refresh()
    assert oauth.accepts(f"Bearer {credential._valid_token().value}")  # type: ignore[union-attr]


def test_a_sign_in_without_a_profile_applies_to_its_server_only(
    service: LoopbackService, oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of other servers have no credential."""
    login_config.write_text("")
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
        assert client._endpoint.auth is None
