"""The format of the file with what was last received, and how it is read and replaced.

The first line says what it is, and holds the length and a checksum of the rest: a JSON object with the service's
answers, setting by setting, each with what was tracked and when it was last confirmed.
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
from typing import Final

import msgspec
import orjson

from heksher_client._core.refresh.last_known_good import NotStoredError
from heksher_client._core.settings.context import Tracking

_FORMAT: Final = "heksher last known good"
_VERSION: Final = 1
_LONGEST_HEAD: Final = 1000
"""Bytes."""
_DRAFT: Final = ".new"
_DRAFT_LIFE: Final = 3600.0
"""Seconds after which a draft was left behind by a process that has ended."""

Look = tuple[int, ...] | None
"""What the file looks like from outside; whoever replaces it makes another one. None if it is not there."""


class Answer(msgspec.Struct, array_like=True):
    """What a service said of a setting."""

    tracking: int
    """The index of what was tracked then."""
    confirmed: float
    """When it was last confirmed, in seconds since 1970."""
    content: msgspec.Raw


@dataclass
class Content:
    """What the file holds."""

    order: tuple[str, ...] = ()
    """The context features in the service's order; nothing if that was not known."""
    trackings: list[Tracking] = field(default_factory=list)
    settings: dict[str, dict[int, Answer]] = field(default_factory=dict)
    """Of each setting the answers by the index of what was tracked."""


class ReplaceableError(NotStoredError):
    """The file was one of ours, and a new one may take its place."""


class _Head(msgspec.Struct):
    format: str
    version: int
    service: str
    """A digest of the service's URL, which may have secrets in it."""
    length: int
    """Of the rest, in bytes."""
    sha256: str


class _Body(msgspec.Struct):
    context_features: tuple[str, ...]
    trackings: list[dict[str, frozenset[str]]]
    settings: dict[str, list[Answer]]


class LastKnownGoodFormat:
    """A file of one service."""

    def __init__(self, path: str | os.PathLike[str], service_url: str) -> None:
        """Take a path; nothing is read or written yet.

        Args:
            path: Of the file. Its folder must exist, and be writable.
            service_url: Without user name and password.

        Raises:
            ValueError: No file can have that path.
        """
        if not os.fspath(path) or "\0" in os.fspath(path):
            raise ValueError(f"last_known_good must be the path of a file, not {os.fspath(path)!r}")
        self.path = Path(path)
        self._service = sha256(service_url.rstrip("/").encode()).hexdigest()

    def look(self) -> Look:
        """What it looks like now."""
        try:
            return _look_of(self.path.stat())
        except FileNotFoundError:
            return None

    def read(self) -> tuple[Content, Look]:
        """What is in it, and what it looks like.

        Raises:
            ReplaceableError: Nothing in it is of use.
            NotKeptError: It is not for this client to use, and not to overwrite either.
            OSError: It is not there, or cannot be read.
        """
        with os.fdopen(os.open(self.path, _FOR_READING), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotStoredError(f"{self.path} is no file")
            first = file.readline(_LONGEST_HEAD)
            if not _may_be_ours(first):
                raise NotStoredError(f"{self.path} is no file of last known good settings; it stays as it is")
            try:
                head = msgspec.json.decode(first, type=_Head)
                self._check(head, status, len(first))
                rest = file.read()
                if head.sha256 != sha256(rest).hexdigest():
                    raise ReplaceableError(f"{self.path} is damaged: its checksum is another")
                body = msgspec.json.decode(rest, type=_Body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise ReplaceableError(f"{self.path} is damaged") from None
        settings = {name: {one.tracking: one for one in answers} for name, answers in body.settings.items()}
        return Content(body.context_features, list(map(Tracking, body.trackings)), settings), _look_of(status)

    def _check(self, head: _Head, status: os.stat_result, head_length: int) -> None:
        if head.version > _VERSION:
            raise NotStoredError(f"{self.path} is of a newer version of this package; it stays as it is")
        if head.service != self._service:
            raise NotStoredError(f"{self.path} is of a service with another URL; it stays as it is until it is deleted")
        if not _is_ours_alone(status):
            raise ReplaceableError(f"{self.path} could have been written by others: it must be its owner's alone")
        if head.length != status.st_size - head_length:
            raise ReplaceableError(f"{self.path} is damaged: its length is another")

    def write(self, content: Content) -> Look:
        """Replace it as a whole, so that a reader sees the former one or this one; gives what it looks like.

        Raises:
            OSError: It cannot be written.
        """
        path = self.path.resolve()  # A link stays one.
        _remove_old_drafts(path)
        digest, length = sha256(), 0
        for part in _parts(content):
            digest.update(part)
            length += len(part)
        head = _Head(_FORMAT, _VERSION, self._service, length, digest.hexdigest())
        # For its owner alone from the beginning.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=_DRAFT)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(head) + b"\n")
                file.writelines(_parts(content))
                file.flush()
                os.fsync(descriptor)
                look = _look_of(os.fstat(descriptor))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return look


def _parts(content: Content) -> Iterator[bytes]:
    """The body, in pieces; only of what is tracked by any answer."""
    used = sorted({index for answers in content.settings.values() for index in answers})
    places = {index: place for place, index in enumerate(used)}
    trackings = [{f: sorted(values) for f, values in content.trackings[index].options.items()} for index in used]
    yield b'{"context_features":%b,\n"trackings":%b,\n"settings":{' % (
        orjson.dumps(content.order),
        orjson.dumps(trackings),
    )
    for number, (name, answers) in enumerate(content.settings.items()):
        placed = [Answer(places[index], one.confirmed, one.content) for index, one in answers.items()]
        yield b"%b%b:%b" % (b",\n" if number else b"\n", orjson.dumps(name), msgspec.json.encode(placed))
    yield b"}}\n"


def _remove_old_drafts(path: Path) -> None:
    """What processes have left behind that were killed while they wrote."""
    for draft in path.parent.glob(f"{glob.escape(path.name)}.*{_DRAFT}"):
        with suppress(OSError):  # another process was faster
            if time.time() - draft.stat().st_mtime > _DRAFT_LIFE:
                draft.unlink()


def _may_be_ours(first: bytes) -> bool:
    """Whether a file with this first line was one of ours: by its beginning, or by what a crash leaves of one."""
    return first.startswith(_BEGINNING) or _BEGINNING.startswith(first) or not first.strip(b"\0")


def _look_of(status: os.stat_result) -> Look:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid


def _is_ours_alone(status: os.stat_result) -> bool:
    """Whether nobody else could have written a file. Where there are no owners, it is."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS)


_FOR_READING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""What is no file, a pipe for example, could keep its reader waiting."""
_BEGINNING: Final = b'{"format":"%b"' % _FORMAT.encode()
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
