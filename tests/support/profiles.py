"""Configuration files, clients of profiles, and what a sign-in needs: a browser, a keyring and a clock."""

import threading
from pathlib import Path
from typing import Any

import keyring.backend

from heksher_client import connect, connect_async
from heksher_client.profiles._token_store import StoredTokens, TokenStore
from tests.support.clients import Gate, Kind
from tests.support.http import http_request

TWO_PROFILES = """
default_profile = "dev"

[profiles.dev]
url = "{url}"
update_interval = 5
context_features = ["environment", "user", "theme"]
defaults = {{ environment = "dev", theme = "dark" }}
headers = {{ X-Team = "shop" }}
jitter = 0

[profiles.prod]
url = "{url}/"
context_features = ["environment", "user", "theme"]
token = "prod-token"
"""
MINIMAL_PROFILE = "[profiles.a]\nurl = 'http://h'\ncontext_features = ['user']\n"


def write_config(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


class Connected:
    """A context manager for a client of either kind that is created from a profile."""

    def __init__(self, kind: Kind, *args: Any, **kwargs: Any) -> None:
        self.kind = kind
        if kind.raises_at_start:
            connecting = connect_async(*args, **kwargs)

            async def start() -> Any:
                return await connecting

            self.client: Any = kind.call(start())
        else:
            self.client = connect(*args, **kwargs)

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.kind.call(self.client.aclose() if self.kind.raises_at_start else self.client.close())


def browse(url: str) -> None:
    """Open a URL and follow its redirects, as the browser of a user does."""
    threading.Thread(target=lambda: http_request("GET", url, follow_redirects=True), daemon=True).start()


def token_file(config: Path) -> Path:
    """Return the path of the token file of a configuration."""
    return TokenStore(config).path


def load_tokens(config: Path) -> StoredTokens | None:
    """Return the stored tokens of the profile `shop`."""
    return TokenStore(config).load("shop")


def raise_disk_full(*_: object) -> None:
    """Replace a function that writes a file."""
    raise OSError(28, "No space left on device")


class FakeClock:
    """A replacement for the module `time`: `sleep` returns immediately and advances the clock."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return sum(self.sleeps)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

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


class WaitingKeyring(MemoryKeyring):
    """A keyring that waits to be unlocked, until a test opens its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.calls: list[str] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.wait("get_password")
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.wait("set_password")
        super().set_password(service, username, password)

    def delete_password(self, service: str, username: str) -> None:
        self.wait("delete_password")
        super().delete_password(service, username)

    def wait(self, call: str) -> None:
        self.calls.append(call)
        self.gate.hold()
