"""The last known good file: its format, and how it is read and replaced.

The first line identifies the format, and has the length and a checksum of the rest: a JSON object with the service's
responses by setting, each with its tracking and the time when it was last confirmed. A file is only ever replaced as a
whole, so a reader never sees half of one.
"""

import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import orjson

from heksher_client._core.refresh.last_known_good import NotStoredError
from heksher_client._core.settings.context import Tracking

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


@dataclass
class Content:
    """The content of the file."""

    order: tuple[str, ...] = ()
    """The context features in the order of the service; empty if that was unknown."""
    trackings: list[Tracking] = field(default_factory=list)
    settings: dict[str, dict[int, StoredRow]] = field(default_factory=dict)
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
            path: The path of the file. Its directory must exist and be writable.
            service_url: The URL of the service, without user name and password.

        Raises:
            ValueError: The path is not valid.
        """
        if not os.fspath(path) or "\0" in os.fspath(path):
            raise ValueError(f"last_known_good must be the path of a file, not {os.fspath(path)!r}")
        self.path = Path(path)
        self._service = sha256(service_url.rstrip("/").encode()).hexdigest()

    def signature(self) -> StatSignature | None:
        """Return the signature of the file, or None if it does not exist."""
        try:
            return _signature_of(self.path.stat())
        except FileNotFoundError:
            return None

    def read(self) -> tuple[Content, StatSignature]:
        """Return the content and the signature of the file.

        Raises:
            ReplaceableError: The content cannot be used.
            NotStoredError: The file is not for this client, and must not be replaced either.
            OSError: The file does not exist or cannot be read.
        """
        with os.fdopen(os.open(self.path, _OPEN_FLAGS), "rb") as file:
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
        path = self.path.resolve()  # A symbolic link is kept.
        _remove_old_drafts(path)
        digest, length = sha256(), 0
        for part in _encode(content):
            digest.update(part)
            length += len(part)
        header = _Header(_FORMAT, _VERSION, self._service, length, digest.hexdigest())
        # mkstemp creates the file with access for its owner only.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=_DRAFT_SUFFIX)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(header) + b"\n")
                file.writelines(_encode(content))
                file.flush()
                os.fsync(descriptor)
                signature = _signature_of(os.fstat(descriptor))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return signature


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
        renumbered = [StoredRow(positions[index], row.confirmed, row.content) for index, row in rows.items()]
        yield b"%b%b:%b" % (b",\n" if number else b"\n", orjson.dumps(name), msgspec.json.encode(renumbered))
    yield b"}}\n"


def _remove_old_drafts(path: Path) -> None:
    for draft in path.parent.glob(f"{glob.escape(path.name)}.*{_DRAFT_SUFFIX}"):
        with suppress(OSError):  # another process has removed it
            if time.time() - draft.stat().st_mtime > _DRAFT_LIFETIME:
                draft.unlink()


def _may_be_ours(first_line: bytes) -> bool:
    """Return True for a first line that this package has written, or that a crash may have left of one."""
    return first_line.startswith(_BEGINNING) or _BEGINNING.startswith(first_line) or not first_line.strip(b"\0")


def _signature_of(status: os.stat_result) -> StatSignature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid


def _is_private(status: os.stat_result) -> bool:
    """Return True if no other user could have written a file, or if the system has no owners of files."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS)


_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Opening a named pipe would block without O_NONBLOCK."""
_BEGINNING: Final = b'{"format":"%b"' % _FORMAT.encode()
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
