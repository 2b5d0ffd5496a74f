"""The last known good file: its format, and how it is read and replaced.

The first line identifies the format, and has the length and a checksum of the rest: a JSON object with the service's
responses by setting, each with its tracking and the time when it was last confirmed. A file is replaced as a whole, so
a reader never sees half of one. Where that is not possible (the file is a mount point, or its folder is read-only) it
is written in place, and the checksum shows whether that was completed.
"""

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias, cast

import msgspec
import orjson

from heksher_client._core.refresh.last_known_good import NotStoredError
from heksher_client._core.refresh.positions import Position
from heksher_client._core.settings.context import Tracking
from heksher_client._drivers.file_location import WRITABLE_BY_OTHERS, Location, locate

_FORMAT: Final = "heksher last known good"
_VERSION: Final = 1
_MAX_HEADER_BYTES: Final = 1000
_DRAFT_SUFFIX: Final = ".new"
_DRAFT_LIFETIME: Final = 3600.0
"""Seconds after which a draft must be of a process that was killed while it wrote."""

StatSignature: TypeAlias = tuple[int, ...]
"""Attributes of the file that change whenever it is replaced."""


class StoredRow(msgspec.Struct, array_like=True):
    """The response for one setting."""

    tracking: int
    """The index of its tracking."""
    confirmed: float
    """The time when the service last confirmed it, in seconds since 1970."""
    content: msgspec.Raw
    position: Position | None = None
    """Its position in the history of the service's database, if it says so."""


class Content(msgspec.Struct):
    """The content of the file."""

    order: tuple[str, ...] = ()
    """The context features in the order of the service; empty if that was unknown."""
    trackings: list[Tracking] = []
    settings: dict[str, dict[int, StoredRow]] = {}
    """The rows of each setting, by the index of their tracking."""


class ReplaceableError(NotStoredError):
    """The file cannot be used, but was written by this package, and can be replaced."""


class _Header(msgspec.Struct):
    format: str
    version: int
    service: str
    """A digest of the service's URL, which may contain secrets."""
    length: int
    """The bytes of the rest of the file."""
    sha256: str


class _Body(msgspec.Struct):
    context_features: tuple[str, ...]
    trackings: list[dict[str, frozenset[str]]]
    settings: dict[str, list[StoredRow]]


class LastKnownGoodFile:
    """A last known good file of one service."""

    def __init__(self, path: str | os.PathLike[str], service_url: str) -> None:
        """Prepare to use a file, which is neither read nor written yet.

        Args:
            path: The path of the file. Its directory must exist. A relative path is that of the present working
                directory, and `~` at the beginning is the home directory.
            service_url: The URL of the service, without user name and password.

        Raises:
            TypeError, ValueError: The path is not valid.
        """
        text = path if isinstance(path, str | os.PathLike) else None
        text = None if text is None else os.fspath(text)
        if not isinstance(text, str):
            raise TypeError(f"last_known_good must be the path of a file, not {path!r}")
        if not text or "\0" in text:
            raise ValueError(f"last_known_good must be the path of a file, not {text!r}")
        try:
            self.path = Path(text).expanduser().absolute()
        except (OSError, RuntimeError) as error:  # no working directory, an unknown user
            raise ValueError(f"last_known_good: {text!r} cannot be made absolute: {error}") from None
        self._service = sha256(service_url.rstrip("/").encode()).hexdigest()

    def signature(self) -> StatSignature | None:
        """Return the signature of the file, or None if it does not exist."""
        try:
            with locate(self.path) as (name, folder):
                return _signature_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def read(self) -> tuple[Content, StatSignature]:
        """Return the content and the signature of the file.

        Raises:
            ReplaceableError: The content cannot be used.
            NotStoredError: The file is not for this client, and must not be replaced either.
            OSError: The file does not exist or cannot be read.
        """
        with locate(self.path) as (name, folder), _open(name, os.O_RDONLY, folder, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotStoredError(f"{self.path} is not a regular file")
            first_line = file.readline(_MAX_HEADER_BYTES)
            if not _may_be_ours(first_line):
                raise NotStoredError(f"{self.path} is not a last known good file, and is not replaced")
            try:
                header = msgspec.json.decode(first_line, type=_Header)
                self._check(header, status, len(first_line))
                rest = file.read()
                if header.sha256 != sha256(rest).hexdigest():
                    raise ReplaceableError(f"{self.path} is corrupt: the checksum is wrong")
                body = msgspec.json.decode(rest, type=_Body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise ReplaceableError(f"{self.path} is corrupt") from None
        settings = {name: {row.tracking: row for row in rows} for name, rows in body.settings.items()}
        return Content(body.context_features, list(map(Tracking, body.trackings)), settings), _signature_of(status)

    def _check(self, header: _Header, status: os.stat_result, header_bytes: int) -> None:
        if header.version > _VERSION:
            raise NotStoredError(f"{self.path} was written by a newer version of this package, and is not replaced")
        if header.service != self._service:
            raise NotStoredError(
                f"{self.path} was written for a service with another URL, and is not replaced: delete it to use it"
            )
        if not _is_private(status):
            raise ReplaceableError(f"{self.path} could have been written by others: only its owner may have access")
        if header.length != status.st_size - header_bytes:
            raise ReplaceableError(f"{self.path} is corrupt: the length is wrong")

    def write(self, content: Content) -> StatSignature:
        """Replace the file, and return its signature.

        Raises:
            OSError: It cannot be written.
        """
        digest, length = sha256(), 0
        for part in _encode(content):
            digest.update(part)
            length += len(part)
        header = _Header(_FORMAT, _VERSION, self._service, length, digest.hexdigest())
        first_line = msgspec.json.encode(header) + b"\n"
        with locate(self.path) as location:
            _remove_old_drafts(location)
            try:
                return _replace(location, first_line, content)
            except OSError as error:
                if error.errno not in _NOT_REPLACEABLE or location.folder is None:
                    raise
                try:
                    file = _open(location.name, os.O_WRONLY, location.folder, "wb")
                except FileNotFoundError:
                    raise error from None
            with file:
                self._check_owned(os.fstat(file.fileno()))
                _reserve(file, len(first_line) + length)
                os.fchmod(file.fileno(), stat.S_IRUSR | stat.S_IWUSR)
                return _write(file, first_line, content)

    def _check_owned(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not _is_private(status):
            raise NotStoredError(
                f"{self.path} cannot be replaced, as it is a mount point or its folder is read-only, and is not "
                "written in place, as it must be a regular file with one name, to which only its owner can write"
            )


def _replace(location: Location, first_line: bytes, content: Content) -> StatSignature:
    """Write a draft, and rename it."""
    name, folder = location
    draft = f"{name}.{secrets.token_hex(8)}{_DRAFT_SUFFIX}"
    try:
        with _open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder, "wb") as file:
            signature = _write(file, first_line, content)
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):  # There may be no draft.
            os.unlink(draft, dir_fd=folder)
        raise
    return signature


def _write(file: BinaryIO, first_line: bytes, content: Content) -> StatSignature:
    file.write(first_line)
    file.writelines(_encode(content))
    file.flush()
    file.truncate()
    os.fsync(file.fileno())
    return _signature_of(os.fstat(file.fileno()))


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve the space for a file that is written in place: a full disk must not destroy what is in it."""
    former_size = os.fstat(file.fileno()).st_size
    try:
        if hasattr(os, "posix_fallocate"):  # pragma: no branch - not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # Others mean that it is not supported.
            os.ftruncate(file.fileno(), former_size)
            raise


def _open(name: str, flags: int, folder: int | None, mode: str) -> BinaryIO:
    """Open a file that is not a symbolic link. A new one can be accessed by its owner only."""
    descriptor = os.open(name, flags | _OPEN_FLAGS, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder)
    try:
        return cast("BinaryIO", os.fdopen(descriptor, mode))
    except OSError:  # It is a directory.
        os.close(descriptor)
        raise


def _encode(content: Content) -> Iterator[bytes]:
    """Encode the body in parts, without trackings that no row refers to."""
    used = sorted({index for rows in content.settings.values() for index in rows})
    positions = {index: position for position, index in enumerate(used)}
    trackings = [{f: sorted(values) for f, values in content.trackings[index].options.items()} for index in used]
    yield b'{"context_features":%b,\n"trackings":%b,\n"settings":{' % (
        orjson.dumps(content.order),
        orjson.dumps(trackings),
    )
    for number, (name, rows) in enumerate(content.settings.items()):
        renumbered = [
            StoredRow(positions[index], row.confirmed, row.content, row.position) for index, row in rows.items()
        ]
        yield b"%b%b:%b" % (b",\n" if number else b"\n", orjson.dumps(name), msgspec.json.encode(renumbered))
    yield b"}}\n"


def _remove_old_drafts(location: Location) -> None:
    """Remove the drafts of processes that were killed."""
    name, folder = location
    with suppress(OSError):  # The folder cannot be listed.
        for draft in _names(location):
            if draft.startswith(f"{name}.") and draft.endswith(_DRAFT_SUFFIX):
                with suppress(OSError):  # Another process has removed it.
                    if time.time() - os.stat(draft, dir_fd=folder, follow_symlinks=False).st_mtime > _DRAFT_LIFETIME:
                        os.unlink(draft, dir_fd=folder)


def _names(location: Location) -> list[str]:
    """Return the names of the files in a folder, in the same form as that of the location."""
    if location.folder is None:
        return list(map(str, Path(location.name).parent.iterdir()))
    listed = os.open(".", os.O_RDONLY, dir_fd=location.folder)
    try:
        return os.listdir(listed)  # noqa: PTH208 - a descriptor
    finally:
        os.close(listed)


def _may_be_ours(first_line: bytes) -> bool:
    """Return True for a first line that this package has written, or that a crash may have left of one."""
    return first_line.startswith(_BEGINNING) or _BEGINNING.startswith(first_line) or not first_line.strip(b"\0")


def _signature_of(status: os.stat_result) -> StatSignature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid


def _is_private(status: os.stat_result) -> bool:
    """Return True if no other user could have written a file, or if the system has no owners of files."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & WRITABLE_BY_OTHERS)


_OPEN_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Opening a named pipe would block without O_NONBLOCK."""
_NOT_REPLACEABLE: Final = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""The file is a mount point, or its folder cannot be written to; the file itself may be writable."""
_BEGINNING: Final = b'{"format":"%b"' % _FORMAT.encode()
