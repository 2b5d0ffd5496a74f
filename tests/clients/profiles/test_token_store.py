"""Stored tokens: in the system keyring, or in a file that only its owner can read."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring

from heksher_client import ConfigError, CredentialError, connect, login, login_with_token, logout
from heksher_client.profiles import _keyring
from heksher_client.profiles._config import load
from heksher_client.profiles._stored_credential import StoredCredential
from heksher_client.profiles._token_store import TokenStore
from tests.support.clients import TIMEOUT_SECONDS, Kind, eventually
from tests.support.forks import exited_successfully, fork_and_check
from tests.support.oauth import OAuthServer
from tests.support.profiles import (
    MINIMAL_PROFILE,
    Connected,
    MemoryKeyring,
    WaitingKeyring,
    browse,
    load_tokens,
    raise_disk_full,
    token_file,
    write_config,
)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX file modes")
def test_the_token_file_is_readable_by_its_owner_only(oauth: OAuthServer, login_config: Path) -> None:
    """It is not used if its mode was changed."""
    login(browse)
    path = token_file(login_config)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"other users can read the tokens in .*heksher\.tokens\.json: run chmod 600"):
        logout()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is corrupt: delete it"), (b"\xff", "is corrupt: delete it"), (b'{"format": 2}', "upgrade it")],
)
def test_a_corrupt_or_newer_token_file_is_refused(login_config: Path, content: bytes, message: str) -> None:
    """The file is not overwritten."""
    path = token_file(login_config)
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=message):
        login_with_token("t")
    assert path.read_bytes() == content


def test_a_token_file_that_cannot_be_read_or_written_is_an_error(
    login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, and no temporary file remains."""
    path = token_file(login_config)
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        login_with_token("t")
    path.rmdir()

    monkeypatch.setattr(Path, "replace", raise_disk_full)
    with pytest.raises(ConfigError, match=r"heksher\.tokens\.json cannot be written: No space left on device"):
        login_with_token("t")
    assert {path.suffix for path in login_config.parent.iterdir()} == {".toml", ".lock"}


def test_without_access_to_the_keyring_tokens_are_saved_in_the_file(
    oauth: OAuthServer, login_config: Path, keyring_or_file: MemoryKeyring | None
) -> None:
    """A keyring may be locked, or limit the length of a password."""
    if keyring_or_file is not None:
        keyring_or_file.is_locked = True
    assert login_with_token(oauth.issue()) == str(token_file(login_config))
    with connect() as client:
        client.ping()


def test_without_the_keyring_package_tokens_are_saved_in_the_file(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that use tokens in the file do not need the package."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert login_with_token(oauth.issue()) == str(token_file(login_config))
    with connect() as client:
        client.ping()


def test_a_keyring_that_is_unavailable_does_not_sign_out(oauth: OAuthServer, login_config: Path) -> None:
    """The keyring of a desktop is unavailable in an SSH session, for example; the tokens remain in it."""
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    login(browse)
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    with connect() as client, pytest.raises(CredentialError, match="in the system keyring, which is not available"):
        client.ping()
    with pytest.raises(ConfigError, match="sign out in a session where it is"):
        logout()
    keyring.set_keyring(backend)
    assert logout()
    assert not backend.passwords
    assert oauth.revoked


def test_if_the_keyring_backend_cannot_be_loaded_tokens_are_saved_in_the_file(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration of keyring may name a missing backend."""

    def raise_error() -> None:
        raise AttributeError

    with monkeypatch.context() as patch:
        patch.setattr(keyring, "get_keyring", raise_error)
        assert login(browse) == str(token_file(login_config))


def test_a_relative_config_path_is_resolved_once(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stored tokens are found after the working directory has changed."""
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    monkeypatch.chdir(login_config.parent)
    monkeypatch.setenv("HEKSHER_CONFIG", login_config.name)
    login(browse)
    with connect() as client:
        monkeypatch.chdir(tmp_path)
        oauth.expire_all()
        client.ping()
    monkeypatch.setenv("HEKSHER_CONFIG", str(login_config))
    assert logout()
    assert not backend.passwords


def test_keyring_entries_are_removed_when_they_are_replaced_or_the_user_signs_out(
    oauth: OAuthServer, login_config: Path
) -> None:
    """New tokens may be in the file, and the user may have deleted the entry or made it invalid."""
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    login_with_token(oauth.issue())
    backend.is_locked = True
    login_with_token(oauth.issue())
    assert backend.passwords == {}
    backend.is_locked = False
    login_with_token(oauth.issue())
    backend.passwords = dict.fromkeys(backend.passwords, "{")
    with pytest.raises(ConfigError, match="the keyring entry for profile shop is invalid"):
        load_tokens(login_config)
    backend.passwords.clear()
    assert not logout()
    assert not TokenStore(login_config).has("shop")


def test_the_lock_times_out_if_another_process_holds_it(login_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be created is an error as well."""
    monkeypatch.setattr("heksher_client.profiles._token_store._LOCK_TIMEOUT_SECONDS", 0.01)
    with TokenStore(login_config).lock(), pytest.raises(ConfigError, match="another process holds the lock"):
        login_with_token("t")
    with pytest.raises(ConfigError, match="cannot be written"), TokenStore(login_config / "below" / "x").lock():
        raise AssertionError


def test_a_locked_keyring_does_not_sign_out(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says to unlock it, and the tokens remain in it."""
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    login(browse)

    def raise_locked(*_: object) -> None:
        raise RuntimeError("locked")

    with monkeypatch.context() as patch, connect() as client:
        patch.setattr(backend, "get_password", raise_locked)
        patch.setattr(backend, "delete_password", raise_locked)
        oauth.expire_all()
        with pytest.raises(CredentialError, match=r"the system keyring refused access .*: unlock it"):
            client.ping()
        with pytest.raises(ConfigError, match="unlock it"):
            logout()
    assert load_tokens(login_config) is not None


def test_the_token_file_is_json(oauth: OAuthServer, login_config: Path) -> None:
    """Its structure is `profiles.<name>.access_token`."""
    token = oauth.issue()
    login_with_token(token)
    assert json.loads(token_file(login_config).read_text())["profiles"]["shop"]["access_token"] == token


# -- a keyring that does not respond -----------------------------------------------------------------------------------


@pytest.fixture
def waiting_keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[WaitingKeyring]:
    """A keyring that waits, and that is given up at once."""
    monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", 0.01)
    backend = WaitingKeyring()
    keyring.set_keyring(backend)
    lock, detached = _keyring._thread_of_process(os.getpid())
    yield backend
    backend.gate.open()
    assert eventually(lambda: detached.call(lambda: True, TIMEOUT_SECONDS))
    assert not lock.locked()


NO_RESPONSE = "the system keyring does not respond within 0.01 seconds: it may wait until a user unlocks it; unlock it"


def test_k1_tokens_are_saved_in_the_file_if_the_keyring_does_not_respond(
    oauth: OAuthServer, login_config: Path, waiting_keyring: WaitingKeyring, caplog: pytest.LogCaptureFixture
) -> None:
    """One call waits; those after it fail at once, also those of a later sign-in."""
    for _ in range(2):
        assert login_with_token(oauth.issue()) == str(token_file(login_config))
    assert waiting_keyring.calls == ["set_password"]
    assert (
        caplog.messages
        == [f"the system keyring does not respond, so the tokens are saved in {token_file(login_config)}"] * 2
    )
    with connect() as client:
        client.ping()
    assert logout()
    assert waiting_keyring.calls == ["set_password"]


def unlock(waiting_keyring: WaitingKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a waiting keyring respond, and wait for the call that it has not responded to."""
    monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    waiting_keyring.gate.open()
    _, detached = _keyring._thread_of_process(os.getpid())
    assert eventually(lambda: detached.call(lambda: True, TIMEOUT_SECONDS))


OUTDATED = (
    "signed out, but the system keyring, which cannot be accessed, may have older tokens of profile shop: unlock it, "
    "and sign out again"
)


@pytest.mark.parametrize("is_listed", [True, False])
def test_k1_sign_out_removes_older_tokens_from_the_keyring(
    oauth: OAuthServer,
    login_config: Path,
    waiting_keyring: WaitingKeyring,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_listed: bool,
) -> None:
    """Those of the sign-in before the keyring began to wait, and those that a call saved which was given up."""
    if is_listed:
        with monkeypatch.context() as patch:
            patch.setattr(waiting_keyring, "wait", lambda call: None)
            patch.setattr(_keyring, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
            assert login_with_token(oauth.issue()) == "the system keyring"
    assert login_with_token(oauth.issue()) == str(token_file(login_config))
    unlock(waiting_keyring, monkeypatch)
    assert waiting_keyring.passwords
    caplog.clear()
    assert logout()
    assert (waiting_keyring.passwords, caplog.messages) == ({}, [])


def test_k1_sign_out_can_be_repeated_when_the_keyring_responds(
    oauth: OAuthServer,
    login_config: Path,
    waiting_keyring: WaitingKeyring,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The tokens in the file are removed in any case. Those in the keyring are not used."""
    login_with_token(oauth.issue())
    caplog.clear()
    assert logout()
    assert not logout()
    assert caplog.messages == [OUTDATED] * 2
    unlock(waiting_keyring, monkeypatch)
    assert waiting_keyring.passwords
    assert not TokenStore(login_config).has("shop")
    caplog.clear()
    assert not logout()
    assert (waiting_keyring.passwords, caplog.messages) == ({}, [])
    calls = len(waiting_keyring.calls)
    assert not logout()
    assert len(waiting_keyring.calls) == calls


def test_sign_out_removes_older_tokens_from_a_keyring_that_was_not_available(
    oauth: OAuthServer, login_config: Path
) -> None:
    """It may be unavailable in the session of the second sign-in. A third one replaces the tokens in it."""
    backend = MemoryKeyring()
    for signs_in_again in (False, True):
        keyring.set_keyring(backend)
        assert login_with_token(oauth.issue()) == "the system keyring"
        keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
        assert login_with_token(oauth.issue()) == str(token_file(login_config))
        keyring.set_keyring(backend)
        if signs_in_again:
            assert login_with_token(oauth.issue()) == "the system keyring"
        assert len(backend.passwords) == 1
        assert logout()
        assert backend.passwords == {}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_k1_a_keyring_that_ends_its_thread_has_failed(
    oauth: OAuthServer, login_config: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """It has responded. A sign-in saves the tokens in the file."""
    backend = MemoryKeyring()
    keyring.set_keyring(backend)

    def fail(*_: object) -> None:
        raise error

    for name in ("get_password", "set_password"):
        monkeypatch.setattr(backend, name, fail)
    list_in_keyring(login_config)
    expected = rf"^the system keyring failed \({type(error).__name__}\): choose another backend, or sign in again$"
    accesses: list[Callable[[], object]] = [lambda: load_tokens(login_config), logout]
    for access in accesses:
        with pytest.raises(ConfigError, match=expected):
            access()
    assert login_with_token(oauth.issue()) == str(token_file(login_config))


def test_k1_a_keyring_that_cannot_be_imported_has_failed(login_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a backend runs the code of other packages."""
    list_in_keyring(login_config)

    def fail() -> None:
        raise SystemExit

    monkeypatch.setattr(keyring, "get_keyring", fail)
    with pytest.raises(ConfigError, match=r"the system keyring failed \(SystemExit\)"):
        load_tokens(login_config)


def list_in_keyring(config: Path) -> None:
    """Write a token file that says that the tokens of the profile `shop` are in the keyring."""
    token_file(config).write_text('{"format": 1, "profiles": {"shop": null}}')
    token_file(config).chmod(0o600)


def test_k1_a_client_reports_a_keyring_that_does_not_respond(
    kind: Kind, oauth: OAuthServer, login_config: Path, waiting_keyring: WaitingKeyring
) -> None:
    """And not a service that does. The async client raises the error, the thread client has it in its status."""
    list_in_keyring(login_config)
    if kind.raises_at_start:
        with pytest.raises(CredentialError, match=NO_RESPONSE), Connected(kind):
            pass
    else:
        with Connected(kind) as client:
            assert NO_RESPONSE in client.status().last_error
    assert waiting_keyring.calls == ["get_password"]
    assert oauth.token_requests == []


def test_k1_a_keyring_that_responds_later_is_used(
    oauth: OAuthServer, login_config: Path, waiting_keyring: WaitingKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user unlocks it after the client has given up."""
    unlocked = MemoryKeyring()
    keyring.set_keyring(unlocked)
    monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    assert login_with_token(oauth.issue()) == "the system keyring"
    waiting_keyring.passwords.update(unlocked.passwords)
    keyring.set_keyring(waiting_keyring)
    monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", 0.01)
    with connect() as client:
        assert NO_RESPONSE in str(client.status().last_error)
        unlock(waiting_keyring, monkeypatch)
        client.ping()


def test_k1_a_user_is_not_signed_out_while_the_keyring_does_not_respond(
    login_config: Path, waiting_keyring: WaitingKeyring
) -> None:
    """The tokens would remain in it."""
    list_in_keyring(login_config)
    with pytest.raises(ConfigError, match=f"^{NO_RESPONSE}, and sign out again$"):
        logout()
    assert TokenStore(login_config).has("shop")
    assert waiting_keyring.calls == ["get_password"]


def test_k1_no_tokens_are_lost_if_the_store_fails_during_a_refresh(
    oauth: OAuthServer, login_config: Path, waiting_keyring: WaitingKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has used up the former refresh token. The new one is kept, or saved where that is possible."""
    keyring.set_keyring(MemoryKeyring())
    monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    login(browse)
    credential, file = StoredCredential(load("shop", {}), TokenStore(login_config), {}), token_file(login_config)
    credential.force_refresh()

    def lock_keyring() -> None:
        keyring.set_keyring(waiting_keyring)
        monkeypatch.setattr(_keyring, "TIMEOUT_SECONDS", 0.01)

    for fail in (partial(file.chmod, 0o644), lock_keyring):
        oauth.gate.clear()
        oauth.token_requests.clear()
        refresh = credential._start_refresh()
        assert eventually(lambda: oauth.token_requests)
        fail()
        oauth.gate.set()
        assert oauth.accepts(f"Bearer {refresh.result(TIMEOUT_SECONDS).value}")
        file.chmod(0o600)
        credential.force_refresh()
    assert waiting_keyring.calls == ["set_password"]
    tokens = load_tokens(login_config)
    assert tokens is not None
    assert oauth.accepts(f"Bearer {tokens.access_token}")


HANGING_KEYRING = """
import time
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 9

    def set_password(self, service, username, password):
        time.sleep(3600)
"""


def test_k1_a_program_ends_while_the_keyring_does_not_respond(tmp_path: Path) -> None:
    """The thread of the call does not delay the end of the process."""
    (tmp_path / "hanging_keyring.py").write_text(HANGING_KEYRING)
    config = tmp_path / "heksher.toml"
    write_config(config, MINIMAL_PROFILE)
    program = (
        "from heksher_client.profiles import _keyring; _keyring.TIMEOUT_SECONDS = 0.01\n"
        "from heksher_client import login_with_token; print(login_with_token('t'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "HEKSHER_CONFIG": str(config),
            "PYTHON_KEYRING_BACKEND": "hanging_keyring.Keyring",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert result.stdout == f"{token_file(config)}\n"


def test_k1_the_child_of_a_fork_has_its_own_thread_for_the_keyring(
    login_config: Path, waiting_keyring: WaitingKeyring
) -> None:
    """A call that hangs in the parent does not exist in the child."""
    list_in_keyring(login_config)
    store = TokenStore(login_config)
    with pytest.raises(ConfigError, match=NO_RESPONSE):
        store.load("shop")

    def check() -> bool:
        keyring.set_keyring(MemoryKeyring())
        vars(_keyring)["TIMEOUT_SECONDS"] = TIMEOUT_SECONDS
        return store.load("shop") is None

    assert exited_successfully(fork_and_check(check))
    assert waiting_keyring.calls == ["get_password"]
