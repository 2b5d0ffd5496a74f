"""The location of a file: its folder, opened without following what other users have put there.

The rule is that of `fs.protected_symlinks` in Linux, for folders and files as well as for links: what is in a folder
that others can write to, such as `/tmp`, must belong to this user, to root, or to the owner of the folder.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from heksher_client._core.refresh.last_known_good import NotStoredError


class Location(NamedTuple):
    """The location of a file, which need not exist, and is not a symbolic link."""

    name: str
    """Relative to the folder."""
    folder: int | None
    """The descriptor of the folder; None on systems without such descriptors, where the name is a whole path."""


@contextmanager
def locate(path: Path) -> Iterator[Location]:
    """Find a file, following symbolic links, and keep its folder open in the block.

    Args:
        path: An absolute path.

    Raises:
        NotStoredError: A part of the path belongs to another user.
        OSError: The folder does not exist, or cannot be used; or an error of the block. It has the path of the file,
            and says what to do.
    """
    try:
        if not _HAS_FOLDER_DESCRIPTORS:
            yield Location(str(path.resolve()), None)
            return
        walk = _Walk(path)
        try:
            yield Location(walk.run(), walk.folder)
        finally:
            os.close(walk.folder)
    except OSError as error:
        if error.errno is None:
            raise
        # Not the name in its folder, which may be that of a draft, and so another one each time.
        raise OSError(error.errno, _describe(error.errno, path), str(path)) from None


def _describe(code: int, path: Path) -> str:
    """Return the text of an error, with what to do about it if that is known."""
    remedy = _REMEDIES.get(code, "")
    if code in (errno.EACCES, errno.EPERM) and _belongs_to_another_user(path):
        remedy = "; the file belongs to another user: change its owner, or use another path"
    return os.strerror(code) + remedy


def _belongs_to_another_user(path: Path) -> bool:
    try:
        return hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()
    except OSError:  # There is no such file, or it cannot be found out.
        return False


class _Walk:
    """A walk from the root to a file. Each folder is opened from its parent, so it cannot be exchanged in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = list(reversed(path.parts[1:]))
        """The parts that have not been walked yet, the next one last."""
        self.folder = os.open(path.anchor, _FOLDER_FLAGS)
        self._links = 0

    def run(self) -> str:
        """Walk to the folder of the file, and return the name of the file in it."""
        while self._waiting:
            name = self._waiting.pop()
            try:
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
            except FileNotFoundError:
                if self._waiting:
                    raise
                return name
            self._check(name, status)
            if stat.S_ISLNK(status.st_mode):
                self._follow(name)
            elif self._waiting:
                self._enter(name)
            else:
                return name
        raise OSError(errno.EISDIR, "a folder")

    def _follow(self, link: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, "too many links")
        target = PurePath(os.readlink(link, dir_fd=self.folder))
        if target.anchor:
            self._replace_folder(os.open(target.anchor, _FOLDER_FLAGS))
        self._waiting += reversed(target.parts[1 if target.anchor else 0 :])

    def _enter(self, name: str) -> None:
        folder = os.open(name, _FOLDER_FLAGS, dir_fd=self.folder)
        try:
            self._check(name, os.fstat(folder))  # Another one may have this name by now.
        except NotStoredError:
            os.close(folder)
            raise
        self._replace_folder(folder)

    def _replace_folder(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder

    def _check(self, name: str, status: os.stat_result) -> None:
        """Raise if something in the folder may be of another user."""
        folder = os.fstat(self.folder)
        if not folder.st_mode & WRITABLE_BY_OTHERS:
            return
        if status.st_uid not in (os.geteuid(), _ROOT, folder.st_uid):
            raise NotStoredError(
                f"{self._path} is not used: {name!r} belongs to another user, in a folder that others can write to"
            )
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            raise NotStoredError(f"{self._path} is not used: it is a hard link, in a folder that others can write to")


WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_ROOT: Final = 0
_MAX_LINKS: Final = 40
"""As in Linux."""
_NO_PERMISSION: Final = "; this user must be able to write to the file and to its folder"
_REMEDIES: Final = {
    errno.EROFS: "; mount the file, or its folder, so that it can be written",
    errno.EISDIR: "; it must be a file: create one before it is mounted, as Docker creates a directory otherwise",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
}
_HAS_FOLDER_DESCRIPTORS: Final = {os.open, os.stat, os.readlink, os.rename, os.unlink} <= os.supports_dir_fd
_FOLDER_FLAGS: Final = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_PATH", os.O_RDONLY)
"""With O_PATH, a folder that may not be listed can be walked through."""
