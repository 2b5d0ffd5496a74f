"""Where the tokens of those who have signed in are: the system's keyring, or a file for its owner alone.

The file says for each profile where its tokens are. So nobody's keyring is opened who has not signed in.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from heksher_client.exceptions import ConfigError

if TYPE_CHECKING:
    from filelock import FileLock

_FORMAT: Final = 1
_PATIENCE: Final = 30
"""Seconds that another process may take that renews tokens."""
_AWAY: Final = "which is not to be had in this session: sign in again, or sign out where it is"
_SERVICE: Final = "heksher-client"
"""What the keyring calls us."""


class SignIn(msgspec.Struct, kw_only=True):
    """The tokens of one who has signed in, and how they are renewed."""

    origin: str
    """The server that they are for."""
    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    """Seconds since 1970."""
    token_url: str | None = None
    client_id: str | None = None
    issuer: str | None = None
    revocation_url: str | None = None

    def __repr__(self) -> str:
        return f"<SignIn to {self.origin}>"


class _Format(msgspec.Struct):
    format: int = _FORMAT


class _File(msgspec.Struct):
    format: int = _FORMAT
    profiles: dict[str, SignIn | None] = {}
    """Tokens by profile; None where the keyring has them."""


class TokenStore:
    """The tokens of all profiles of a configuration."""

    def __init__(self, config: Path) -> None:
        """Find them beside a configuration file, by its name."""
        self.path = config.with_name(f"{config.stem}.tokens.json")
        self._locks: dict[int, FileLock] = {}
        """One for each process: that of a parent is not the child's, and stays, as its end would unlock the file."""

    def has(self, profile: str) -> bool:
        """Whether there are tokens for a profile; opens no keyring.

        Raises:
            ConfigError: That cannot be read, or others can.
        """
        return profile in self._read().profiles

    def load(self, profile: str) -> SignIn | None:
        """The tokens for a profile; None if nobody has signed in.

        Raises:
            ConfigError: They cannot be read, or others can.
        """
        file = self._read()
        if profile not in file.profiles:
            return None
        kept = file.profiles[profile]
        if kept is not None:
            return kept
        text = self._in_keyring("get_password", profile)
        try:
            return None if text is None else msgspec.json.decode(text, type=SignIn)
        except msgspec.DecodeError:
            raise ConfigError(f"the keyring's entry for {profile} cannot be understood: sign in again") from None

    def save(self, profile: str, sign_in: SignIn) -> str:
        """Keep tokens for a profile.

        Returns:
            Where.

        Raises:
            ConfigError: They cannot be kept.
        """
        text = msgspec.json.encode(sign_in).decode()
        with self.lock():
            file = self._read()
            try:
                self._in_keyring("set_password", profile, text)
                is_in_keyring = True
            except ConfigError:  # There is none, or it is locked, or has no room for so much: then the file.
                is_in_keyring = False
            if not is_in_keyring and profile in file.profiles and file.profiles[profile] is None:
                with suppress(ConfigError):
                    self._in_keyring("delete_password", profile)
            file.profiles[profile] = None if is_in_keyring else sign_in
            self._write(file)
        return "the system keyring" if is_in_keyring else str(self.path)

    def remove(self, profile: str) -> None:
        """Forget the tokens for a profile.

        Raises:
            ConfigError: They cannot be forgotten.
        """
        with self.lock():
            file = self._read()
            if profile in file.profiles:
                is_in_keyring = file.profiles.pop(profile) is None
                if is_in_keyring and self._in_keyring("get_password", profile) is not None:
                    self._in_keyring("delete_password", profile)
                self._write(file)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing tokens, or renewing them: a refresh token is used once.

        Whoever has it may take it again.

        Raises:
            ConfigError: The library for it is missing, or another process does not end.
        """
        try:
            from filelock import FileLock
        except ImportError:
            raise ConfigError("signing in needs an extra: pip install 'heksher_client[login]'") from None
        made = FileLock(f"{self.path}.lock", timeout=_PATIENCE, mode=0o600)
        lock = self._locks.setdefault(os.getpid(), made)
        try:
            self._make_folder()
            lock.acquire()
        except TimeoutError:
            raise ConfigError(f"another process holds {self.path}.lock, and does not end") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _in_keyring(self, call: str, profile: str, *text: str) -> Any:
        """Ask the system's keyring.

        Raises:
            ConfigError: There is none here, or it refuses.
        """
        try:
            import keyring
            from keyring.backends import fail, null
        except ImportError:
            raise ConfigError(
                f"the tokens are in the system's keyring, {_AWAY} (the extra `login` is missing)"
            ) from None
        try:
            is_there = not isinstance(keyring.get_keyring(), fail.Keyring | null.Keyring)
            # Another configuration may have a profile of the same name.
            answer = getattr(keyring, call)(_SERVICE, f"{profile} in {self.path}", *text) if is_there else None
        except Exception as error:  # Each backend has errors of its own.
            raise ConfigError(f"the system's keyring refuses ({type(error).__name__}): unlock it") from None
        if not is_there:
            raise ConfigError(f"the tokens are in the system's keyring, {_AWAY}")
        return answer

    def _read(self) -> _File:
        try:
            with self.path.open("rb") as opened:
                mode, content = os.fstat(opened.fileno()).st_mode, opened.read()
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from None
        if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"others may read {self.path}, which is for tokens: chmod 600, and sign in again")
        try:
            known = msgspec.json.decode(content, type=_Format).format
            if known > _FORMAT:
                raise ConfigError(f"{self.path} is of format {known}, newer than this package: upgrade it")
            return msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigError(f"{self.path} cannot be understood: delete it, and sign in again") from None

    def _write(self, file: _File) -> None:
        try:
            self._make_folder()
            descriptor, draft = tempfile.mkstemp(dir=self.path.parent, prefix=".tokens")  # for its owner alone
            try:
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(msgspec.json.encode(file))
                Path(draft).replace(self.path)
            except BaseException:
                with suppress(OSError):
                    Path(draft).unlink()
                raise
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None

    def _make_folder(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
