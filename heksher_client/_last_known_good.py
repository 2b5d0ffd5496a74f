"""The file with what was last received, from which a program starts while the service is down.

The first line says what it is, and holds a checksum of the rest: a JSON object with the service's answers, setting by
setting. It is replaced as a whole, so several processes may share it: whoever writes last has written all of it. The
time of its last modification is when it was last confirmed.
"""

import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
import orjson

from heksher_client._core.refresh import Kept, NotKeptError

_FORMAT: Final = "heksher last known good"
_VERSION: Final = 1
_CONFIRMED_EVERY: Final = 30.0
"""Seconds between two notes that nothing has changed."""


class _Head(msgspec.Struct):
    format: str
    version: int
    sha256: str


class _Body(msgspec.Struct):
    service: str
    """A digest of the service's URL, which may have secrets in it."""
    context_features: tuple[str, ...]
    settings: dict[str, msgspec.Raw]


class LastKnownGood:
    """A file of one service. It is used by one thread at a time."""

    def __init__(self, path: str | os.PathLike[str], max_age: float, service_url: str) -> None:
        """Take a path; nothing is read or written yet.

        Args:
            path: Of the file. Its folder must exist, and be writable.
            max_age: Seconds after which it is no longer used.
            service_url: Without user name and password.
        """
        self._path = Path(path)
        self._number = next(_numbers)
        self._max_age = max_age
        self._service = sha256(service_url.rstrip("/").encode()).hexdigest()
        self._seen: tuple[int, ...] | None = None
        """What the file looked like from outside when `_names` was read or written."""
        self._names: frozenset[str] = frozenset()
        self._order: tuple[str, ...] = ()

    def load(self) -> Kept:
        """As `Keeper.load`."""
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            age = max(0.0, time.time() - status.st_mtime)
            if age > self._max_age:
                raise NotKeptError(f"{self._path} is too old: {age:.0f} seconds, and {self._max_age:.0f} are allowed")
            if not _is_ours_alone(status):
                raise NotKeptError(f"{self._path} could have been written by others: it must be its owner's alone")
            body = self._parsed(file.read())
        return Kept(body.settings, body.context_features, age)

    def save(
        self, changed: Mapping[str, msgspec.Raw], names: Collection[str], order: tuple[str, ...]
    ) -> Collection[str]:
        """As `Keeper.save`."""
        is_known = self._look() == self._seen is not None
        if not (is_known and not changed and order == self._order):
            former = self._former()
            settings = {**former.settings, **changed}
            if order != former.context_features or any(
                former.settings.get(name, b"") != raw for name, raw in changed.items()
            ):
                self._write(settings, order)
            self._names, self._order = frozenset(settings), order
        self._confirm()
        return frozenset(names) - self._names

    def _former(self) -> _Body:
        """What there is to be added to."""
        try:
            body = self._parsed(self._path.read_bytes())
        except (FileNotFoundError, _DamagedError):
            return _Body(self._service, (), {})
        # Nothing is taken over from what others could have written.
        return body if _is_ours_alone(self._path.stat()) else _Body(self._service, (), {})

    def _parsed(self, content: bytes) -> _Body:
        """The body of a file.

        Raises:
            _DamagedError: It is none any more.
            NotKeptError: It is not for this client to use, and not to overwrite either.
        """
        first, _, rest = content.partition(b"\n")
        if content and not content.startswith(_BEGINNING):
            raise NotKeptError(f"{self._path} is no file of last known good settings; it stays as it is")
        try:
            head = msgspec.json.decode(first, type=_Head)
            if head.version > _VERSION:
                raise NotKeptError(f"{self._path} is of a newer version of this package; it stays as it is")
            if head.sha256 != sha256(rest).hexdigest():
                raise _DamagedError(f"{self._path} is damaged: its checksum is another")
            body = msgspec.json.decode(rest, type=_Body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _DamagedError(f"{self._path} is damaged") from None
        if body.service != self._service:
            raise NotKeptError(f"{self._path} is of another service; it stays as it is")
        return body

    def _write(self, settings: Mapping[str, msgspec.Raw], order: tuple[str, ...]) -> None:
        """Replace the file as a whole, so that a reader sees the former one or this one."""
        digest = sha256()
        for part in self._parts(settings, order):
            digest.update(part)
        head = orjson.dumps({"format": _FORMAT, "version": _VERSION, "sha256": digest.hexdigest()})
        # The same names again and again, so that what a killed process has left is overwritten some day.
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}-{self._number}.new")
        draft.unlink(missing_ok=True)
        try:
            draft.touch(_OWNER_ONLY, exist_ok=False)
            with draft.open("wb") as file:
                file.write(head + b"\n")
                file.writelines(self._parts(settings, order))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def _parts(self, settings: Mapping[str, msgspec.Raw], order: tuple[str, ...]) -> Iterator[bytes | msgspec.Raw]:
        service, features = orjson.dumps(self._service), orjson.dumps(order)
        yield b'{"service":%b,"context_features":%b,"settings":{' % (service, features)
        for number, (name, raw) in enumerate(settings.items()):
            yield b"%b%b:" % (b",\n" if number else b"\n", orjson.dumps(name))
            yield raw
        yield b"}}\n"

    def _confirm(self) -> None:
        """Note that what is kept holds now."""
        if abs(time.time() - self._path.stat().st_mtime) > _CONFIRMED_EVERY:
            os.utime(self._path)
        self._seen = self._look()

    def _look(self) -> tuple[int, ...] | None:
        """What the file looks like from outside; whoever replaces it makes another one. None if it is not there."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mode, status.st_uid


def _is_ours_alone(status: os.stat_result) -> bool:
    """Whether nobody else could have written a file. Where there are no owners, it is."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS)


_numbers: Final = count(1)


class _DamagedError(NotKeptError):
    """The file was one of ours, and can be replaced by a new one."""


_BEGINNING: Final = b'{"format":"%b"' % _FORMAT.encode()
_OWNER_ONLY: Final = stat.S_IRUSR | stat.S_IWUSR
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
