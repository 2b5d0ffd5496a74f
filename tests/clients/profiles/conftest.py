"""Fixtures for tests of profiles and sign-in. No test reads the configuration or the keyring of this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring

from tests.support.clients import TIMEOUT_SECONDS
from tests.support.in_memory import LoopbackService
from tests.support.oauth import CLIENT, OAuthServer, put_behind_gateway
from tests.support.profiles import FakeClock, MemoryKeyring


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("HEKSHER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    for name in ("TIMEOUT", "REQUEST_TIMEOUT"):  # limits that a busy machine does not exceed
        monkeypatch.setenv(f"HEKSHER_{name}", str(TIMEOUT_SECONDS))


@pytest.fixture(autouse=True)
def _no_keyring() -> Iterator[None]:
    previous = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(previous)


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path in `HEKSHER_CONFIG`. The file does not exist yet."""
    path = tmp_path / "heksher.toml"
    monkeypatch.setenv("HEKSHER_CONFIG", str(path))
    return path


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    """An empty service in memory, which has a URL."""
    with LoopbackService() as service:
        yield service


@pytest.fixture
def oauth(service: LoopbackService) -> Iterator[OAuthServer]:
    """An authorization server whose access tokens the service requires."""
    with OAuthServer() as server:
        put_behind_gateway(service, server)
        yield server


@pytest.fixture
def login_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: LoopbackService, oauth: OAuthServer) -> Path:
    """A configuration file with the profile `shop`, whose issuer publishes its metadata."""
    path = tmp_path / "config" / "heksher.toml"
    path.parent.mkdir()
    monkeypatch.setenv("HEKSHER_CONFIG", str(path))
    path.write_text(
        f'[profiles.shop]\nurl = "{service.url}"\ncontext_features = ["environment", "user", "theme"]\n'
        f'[profiles.shop.oauth]\nclient_id = "{CLIENT}"\nissuer = "{oauth.url}/"\nscope = "settings"\n'
    )
    return path


@pytest.fixture(params=["keyring", "file"])
def keyring_or_file(request: pytest.FixtureRequest) -> MemoryKeyring | None:
    """The keyring that stores the tokens, or None if there is no keyring and a file stores them."""
    backend = MemoryKeyring() if request.param == "keyring" else None
    keyring.set_keyring(backend or NoKeyring())  # type: ignore[no-untyped-call]
    return backend


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock that `login_headless` uses."""
    fake = FakeClock()
    monkeypatch.setattr("heksher_client.profiles._oauth_login.time", fake)
    monkeypatch.setattr("heksher_client.profiles._login_flows.monotonic", fake.monotonic)
    return fake
