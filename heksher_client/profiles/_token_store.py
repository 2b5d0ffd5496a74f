"""Token store: the tokens of users who have signed in, in the system keyring or in a private file.

The file lists the profiles that have tokens. It contains the tokens themselves only if there is no usable keyring.
The keyring is accessed only for profiles that are listed, so programs without a sign-in never prompt to unlock it.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from heksher_client._logging import logger
from heksher_client.exceptions import ConfigError
from heksher_client.profiles._keyring import KeyringTimeoutError, call_keyring

if TYPE_CHECKING:
    from filelock import FileLock

_FORMAT: Final = 1
_LOCK_TIMEOUT_SECONDS: Final = 30


class StoredTokens(msgspec.Struct, kw_only=True):
    """The tokens of a user who has signed in, and what it takes to refresh and revoke them."""

    origin: str
    """The scheme, host and port of the service that accepts the access token."""
    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    """The expiry of the access token, in seconds since the epoch."""
    token_url: str | None = None
    """None if the user provided the access token."""
    client_id: str | None = None
    issuer: str | None = None
    revocation_url: str | None = None
    client_auth: Literal["basic", "post"] = "basic"
    """How the authorization server receives the client secret."""

    def __repr__(self) -> str:
        return f"<StoredTokens for {self.origin}>"


class UnreadableFileError(ConfigError):
    """The token file cannot be read."""


class _FormatOnly(msgspec.Struct):
    format: int = _FORMAT


class _File(msgspec.Struct):
    format: int = _FORMAT
    profiles: dict[str, StoredTokens | None] = {}
    """Tokens by the name of the profile; None if they are in the keyring."""
    outdated_in_keyring: set[str] = set()
    """Profiles of which the keyring may have other tokens, as it could not be accessed when they were replaced."""


class TokenStore:
    """The tokens of all profiles of a configuration file."""

    def __init__(self, config_path: Path) -> None:
        """Use the token file that belongs to a configuration file; neither file is accessed yet."""
        self.path = config_path.with_name(f"{config_path.stem}.tokens.json")
        self._locks: dict[int, FileLock] = {}
        """Locks by process ID. The child of a fork needs its own. The parent's must not be garbage-collected in the
        child, as that would unlock the file for the parent."""

    def has(self, profile: str, *, is_required: bool = True) -> bool:
        """Return whether there are tokens for a profile, without accessing the keyring.

        Args:
            profile: The name of the profile.
            is_required: Whether a file that cannot be read is an error. If not, it is the file of another user.

        Raises:
            ConfigError: The file cannot be read, or other users can read it.
        """
        try:
            return profile in self._read().profiles
        except UnreadableFileError:
            if is_required:
                raise
            return False

    def load(self, profile: str) -> StoredTokens | None:
        """Return the tokens for a profile, or None if no user is signed in.

        Raises:
            ConfigError: The tokens cannot be read, or other users can read them.
        """
        file = self._read()
        if profile not in file.profiles:
            return None
        tokens = file.profiles[profile]
        if tokens is not None:
            return tokens
        text = self._call_keyring("get_password", profile)
        try:
            return None if text is None else msgspec.json.decode(text, type=StoredTokens)
        except msgspec.DecodeError:
            raise ConfigError(f"the keyring entry for profile {profile} is invalid: sign in again") from None

    def save(self, profile: str, tokens: StoredTokens) -> str:
        """Save the tokens for a profile: in the keyring if possible, otherwise in the file.

        Returns:
            A description of the location.

        Raises:
            ConfigError: The tokens cannot be saved.
        """
        text = msgspec.json.encode(tokens).decode()
        with self.lock():
            file = self._read()
            if file.profiles.get(profile, tokens) is None:
                file.outdated_in_keyring.add(profile)
            try:
                self._call_keyring("set_password", profile, text)
                is_in_keyring = True
                file.outdated_in_keyring.discard(profile)
            except KeyringTimeoutError:
                logger.warning("the system keyring does not respond, so the tokens are saved in %s", self.path)
                is_in_keyring = False
                file.outdated_in_keyring.add(profile)  # The call may succeed later.
            except ConfigError:  # There is no keyring, it is locked, or the tokens are too long for it.
                is_in_keyring = False
            with suppress(ConfigError):
                self._remove_outdated(file, profile)
            file.profiles[profile] = None if is_in_keyring else tokens
            self._write(file)
        return "the system keyring" if is_in_keyring else str(self.path)

    def remove(self, profile: str) -> None:
        """Remove the tokens for a profile, if there are any.

        Raises:
            ConfigError: The tokens cannot be removed.
        """
        with self.lock():
            file = self._read()
            if profile not in file.profiles and profile not in file.outdated_in_keyring:
                return
            if profile in file.profiles and file.profiles.pop(profile) is None:
                self._remove_from_keyring(profile)
            try:
                self._remove_outdated(file, profile)
            except ConfigError:
                logger.warning(
                    "signed out, but the system keyring, which cannot be accessed, may have older tokens of profile "
                    "%s: unlock it, and sign out again",
                    profile,
                )
            self._write(file)

    def _remove_outdated(self, file: _File, profile: str) -> None:
        if profile in file.outdated_in_keyring:
            self._remove_from_keyring(profile)
            file.outdated_in_keyring.remove(profile)

    def _remove_from_keyring(self, profile: str) -> None:
        if self._call_keyring("get_password", profile) is not None:
            self._call_keyring("delete_password", profile)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store for other processes while tokens are refreshed or changed. The lock is reentrant.

        Without it, two processes could use the same refresh token, which most servers accept only once.

        Raises:
            ConfigError: The extra `login` is not installed, another process holds the lock for too long, or the
                directory is not writable.
        """
        try:
            from filelock import FileLock
        except ImportError:
            raise ConfigError("sign-in needs the extra `login`: pip install 'heksher_client[login]'") from None
        new_lock = FileLock(f"{self.path}.lock", timeout=_LOCK_TIMEOUT_SECONDS, mode=0o600)
        lock = self._locks.setdefault(os.getpid(), new_lock)
        try:
            self._create_directory()
            lock.acquire()
        except TimeoutError:
            raise ConfigError(
                f"another process holds the lock {self.path}.lock for more than {_LOCK_TIMEOUT_SECONDS} seconds: end it"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _call_keyring(self, method: str, profile: str, *arguments: str) -> Any:
        # The path is part of the entry's name, as other configuration files may have a profile of the same name.
        return call_keyring(method, f"{profile} in {self.path}", *arguments)

    def _read(self) -> _File:
        try:
            with self.path.open("rb") as stream:
                mode, content = os.fstat(stream.fileno()).st_mode, stream.read()
        except FileNotFoundError:
            return _File()
        except OSError as error:
            raise UnreadableFileError(f"{self.path} cannot be read: {error.strerror}") from None
        if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"other users can read the tokens in {self.path}: run chmod 600 on it, and sign in again")
        try:
            file_format = msgspec.json.decode(content, type=_FormatOnly).format
            if file_format > _FORMAT:
                raise ConfigError(
                    f"{self.path} has format {file_format}, and this version of heksher_client reads format {_FORMAT}: "
                    "upgrade it"
                )
            return msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigError(f"{self.path} is corrupt: delete it, and sign in again") from None

    def _write(self, file: _File) -> None:
        try:
            self._create_directory()
            # mkstemp creates a file that only its owner can read, and the replacement is atomic.
            descriptor, draft = tempfile.mkstemp(dir=self.path.parent, prefix=".tokens")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(msgspec.json.encode(file))
                Path(draft).replace(self.path)
            except BaseException:
                with suppress(OSError):
                    Path(draft).unlink()
                raise
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None

    def _create_directory(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
