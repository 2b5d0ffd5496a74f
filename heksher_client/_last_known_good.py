"""The file with what was last received, from which a program starts while the service is down.

The first line says what it is, and holds the length and a checksum of the rest: a JSON object with the service's
answers, setting by setting, each with what was tracked and when it was last confirmed. The file is replaced as a whole,
so several processes may share it: whoever writes last has written all of it.
"""

import glob
import os
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import orjson

from heksher_client._core.contexts import Tracking
from heksher_client._core.keeping import Kept, KeptSetting, NotKeptError

_FORMAT: Final = "heksher last known good"
_VERSION: Final = 1
_LONGEST_HEAD: Final = 1000
"""Bytes."""
_CONFIRMED_EVERY: Final = 600.0
"""Seconds after which it is noted again that something still holds."""
_DRAFT_LIFE: Final = 3600.0
"""Seconds after which a draft was left behind by a process that has ended."""


class _Head(msgspec.Struct):
    format: str
    version: int
    service: str
    """A digest of the service's URL, which may have secrets in it."""
    length: int
    """Of the rest, in bytes."""
    sha256: str


class _Entry(msgspec.Struct):
    """What is kept for a setting."""

    confirmed: float
    """Seconds since 1970."""
    tracked: dict[str, list[str]]
    answer: msgspec.Raw


class _Body(msgspec.Struct):
    context_features: tuple[str, ...]
    settings: dict[str, _Entry]


_Look = tuple[int, ...] | None
"""What the file looks like from outside; whoever replaces it makes another one. None if it is not there."""


class LastKnownGood:
    """A file of one service. It is used by one thread at a time."""

    def __init__(self, path: str | os.PathLike[str], max_age: float, service_url: str) -> None:
        """Take a path; nothing is read or written yet.

        Args:
            path: Of the file. Its folder must exist, and be writable.
            max_age: Seconds after which what is in it is no longer used.
            service_url: Without user name and password.
        """
        self._path = Path(path)
        self._max_age = max_age
        self._confirmed_every = min(_CONFIRMED_EVERY, max_age / 10)
        self._service = sha256(service_url.rstrip("/").encode()).hexdigest()
        self._held: Mapping[str, bytes] = {}
        """What was held when the file was last brought up to date."""
        self._order: tuple[str, ...] = ()
        self._look: _Look = None
        """Of the file then."""
        self._confirmed = 0.0
        """When that was, in seconds since 1970."""

    def load(self) -> Kept:
        """As `Keeper.load`."""
        body, _ = self._read()
        now = time.time()
        ages = {name: max(0.0, now - entry.confirmed) for name, entry in body.settings.items()}
        if ages and min(ages.values()) > self._max_age:
            raise NotKeptError(
                f"{self._path} is too old: {min(ages.values()):.0f} seconds, and {self._max_age:.0f} are allowed"
            )
        kept = {
            name: KeptSetting(entry.answer, _tracking(entry.tracked), ages[name])
            for name, entry in body.settings.items()
            if ages[name] <= self._max_age
        }
        return Kept(kept, body.context_features)

    def save(
        self, new: Mapping[str, KeptSetting], held: Mapping[str, bytes], order: tuple[str, ...]
    ) -> Collection[str]:
        """As `Keeper.save`."""
        now = time.time()
        is_same = not new and order == self._order and held.items() <= self._held.items()
        is_confirmed = abs(now - self._confirmed) < self._confirmed_every
        if is_same and is_confirmed and self._look == _look(self._path) is not None:
            return ()
        former, look = self._former()
        entries = {name: entry for name, entry in former.settings.items() if now - entry.confirmed <= self._max_age}
        entries |= {name: _Entry(now, _options(kept.tracking), kept.answer) for name, kept in new.items()}
        lacking = set()
        for name in held.keys() - new.keys():
            entry = entries.get(name)
            if entry is None:
                lacking.add(name)
            elif self._confirmed < entry.confirmed <= now:
                pass  # Another process has seen to it since this one did.
            elif sha256(entry.answer).digest() == held[name]:
                entries[name] = _Entry(now, entry.tracked, entry.answer)
            else:
                lacking.add(name)
        if order != former.context_features or self._are_others(entries, former.settings):
            look = self._write(entries, order)
        self._held = {name: digest for name, digest in held.items() if name not in lacking}
        self._order, self._look, self._confirmed = order, look, now
        return lacking

    def _are_others(self, entries: Mapping[str, _Entry], former: Mapping[str, _Entry]) -> bool:
        """Whether these are worth writing: something is new, or was last confirmed a while ago."""
        return entries.keys() != former.keys() or any(
            entry is not former[name]
            and (
                entry.answer != former[name].answer
                or entry.tracked != former[name].tracked
                or abs(entry.confirmed - former[name].confirmed) >= self._confirmed_every
            )
            for name, entry in entries.items()
        )

    def _former(self) -> tuple[_Body, _Look]:
        """What there is to be added to."""
        try:
            return self._read()
        except (FileNotFoundError, _ReplaceableError):
            return _Body((), {}), None

    def _read(self) -> tuple[_Body, _Look]:
        """What the file holds.

        Raises:
            _ReplaceableError: It was one of ours, and nothing in it is of use.
            NotKeptError: It is not for this client to use, and not to overwrite either.
            OSError: It is not there, or cannot be read.
        """
        with os.fdopen(os.open(self._path, _FOR_READING), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotKeptError(f"{self._path} is no file")
            first = file.readline(_LONGEST_HEAD)
            if first and not first.startswith(_BEGINNING):
                raise NotKeptError(f"{self._path} is no file of last known good settings; it stays as it is")
            try:
                head = msgspec.json.decode(first, type=_Head)
                if head.version > _VERSION:
                    raise NotKeptError(f"{self._path} is of a newer version of this package; it stays as it is")
                if head.service != self._service:
                    raise NotKeptError(f"{self._path} is of another service; it stays as it is")
                if not _is_ours_alone(status):
                    raise _ReplaceableError(
                        f"{self._path} could have been written by others: it must be its owner's alone"
                    )
                if head.length != status.st_size - len(first):
                    raise _ReplaceableError(f"{self._path} is damaged: its length is another")
                rest = file.read()
                if head.sha256 != sha256(rest).hexdigest():
                    raise _ReplaceableError(f"{self._path} is damaged: its checksum is another")
                return msgspec.json.decode(rest, type=_Body), _look_of(status)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise _ReplaceableError(f"{self._path} is damaged") from None

    def _write(self, entries: Mapping[str, _Entry], order: tuple[str, ...]) -> _Look:
        """Replace the file as a whole, so that a reader sees the former one or this one."""
        path = self._path.resolve()  # A link stays one.
        if self._look is None:
            _remove_old_drafts(path)
        digest, length = sha256(), 0
        for part in _parts(entries, order):
            digest.update(part)
            length += len(part)
        head = _Head(_FORMAT, _VERSION, self._service, length, digest.hexdigest())
        # For its owner alone from the beginning.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=_DRAFT)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(head) + b"\n")
                file.writelines(_parts(entries, order))
                file.flush()
                os.fsync(descriptor)
                look = _look_of(os.fstat(descriptor))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return look


def _parts(entries: Mapping[str, _Entry], order: tuple[str, ...]) -> Iterator[bytes | msgspec.Raw]:
    yield b'{"context_features":%b,"settings":{' % orjson.dumps(order)
    for number, (name, entry) in enumerate(entries.items()):
        yield b"%b%b:%b" % (b",\n" if number else b"\n", orjson.dumps(name), msgspec.json.encode(entry))
    yield b"}}\n"


def _tracking(tracked: Mapping[str, Collection[str]]) -> Tracking:
    return Tracking({feature: frozenset(values) for feature, values in tracked.items()})


def _options(tracking: Tracking) -> dict[str, list[str]]:
    return {feature: sorted(values) for feature, values in tracking.options.items()}


def _remove_old_drafts(path: Path) -> None:
    """What processes have left behind that were killed while they wrote."""
    for draft in path.parent.glob(f"{glob.escape(path.name)}.*{_DRAFT}"):
        with suppress(OSError):  # another process was faster
            if time.time() - draft.stat().st_mtime > _DRAFT_LIFE:
                draft.unlink()


def _look(path: Path) -> _Look:
    try:
        return _look_of(path.stat())
    except FileNotFoundError:
        return None


def _look_of(status: os.stat_result) -> _Look:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid


def _is_ours_alone(status: os.stat_result) -> bool:
    """Whether nobody else could have written a file. Where there are no owners, it is."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS)


class _ReplaceableError(NotKeptError):
    """The file was one of ours, and a new one may take its place."""


_FOR_READING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""What is no file, a pipe for example, could keep its reader waiting."""
_BEGINNING: Final = b'{"format":"%b"' % _FORMAT.encode()
_DRAFT: Final = ".new"
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
