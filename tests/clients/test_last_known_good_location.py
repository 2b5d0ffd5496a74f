"""The location of the last known good file: relative paths, shared folders, mount points and read-only folders."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heksher_client import Setting, connect
from heksher_client._core.refresh.last_known_good import NotStoredError
from heksher_client._drivers import file_location
from heksher_client._drivers.last_known_good_file import Content, LastKnownGoodFile
from tests.support.clients import FEATURES, Kind, Subject, running
from tests.support.last_known_good import reset_settings
from tests.support.service import CannedResponse, WatchedService

URL = "http://service"
OTHER_USER = 65_534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder to which all users can write, as `/tmp`."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def content(*order: str) -> Content:
    return Content(order)


# -- relative paths ----------------------------------------------------------------------------------------------------


def test_f1_relative_path(
    kind: Kind, service: WatchedService, setting: Setting[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the working directory in which the client was created, and not of a later one."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(home)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good="settings.json")
    monkeypatch.chdir(elsewhere)
    subject.start()
    service.add_rule("s", 8, user="jim")
    subject.reload()
    subject.close()
    reset_settings()
    assert (list(elsewhere.iterdir()), list(home.iterdir())) == ([], [home / "settings.json"])
    service.intercept = lambda request: CannedResponse(502)
    with running(kind, service.url, last_known_good="../home/settings.json"):
        assert setting.get(user="jim") == 8


def test_f1_relative_path_of_a_profile(
    service: WatchedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of an environment variable."""
    _setting = Setting("s", int, ["user"], 7)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEKSHER_CONFIG", os.devnull)
    monkeypatch.setenv("HEKSHER_LAST_KNOWN_GOOD", "settings.json")
    with connect(url=service.url, context_features=FEATURES) as client:
        monkeypatch.chdir("/")
        client.reload()
        assert client.status().last_known_good_problem is None
    assert (tmp_path / "settings.json").exists()


def test_f1_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resolved at the same time."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LastKnownGoodFile("~/settings.json", URL).path == tmp_path / "settings.json"
    assert LastKnownGoodFile(Path("~/settings.json"), URL).path == tmp_path / "settings.json"


def test_f1_a_path_that_cannot_be_resolved_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=r"^last_known_good: '~nobody-of-that-name/x' cannot be made absolute: "):
        LastKnownGoodFile("~nobody-of-that-name/x", URL)
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    deleted.rmdir()
    with pytest.raises(ValueError, match=r"^last_known_good: 'settings.json' cannot be made absolute: "):
        LastKnownGoodFile("settings.json", URL)


class BytesPath(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"/tmp/x"


@pytest.mark.parametrize("path", [5, b"/tmp/x", BytesPath(), ["x"], True])
def test_f1_another_type_is_an_error(path: Any) -> None:
    """The error names the option."""
    with pytest.raises(TypeError, match=r"^last_known_good must be the path of a file, not "):
        LastKnownGoodFile(path, URL)


# -- shared folders ----------------------------------------------------------------------------------------------------


def give(path: Path) -> None:
    """Give a file, a link or a folder to another user."""
    os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)


def link_of_another_user(shared: Path, private: Path) -> Path:
    path = shared / "settings.json"
    path.symlink_to(private / "target.json")
    give(path)
    return path


def hard_link(shared: Path, private: Path) -> Path:
    LastKnownGoodFile(private / "target.json", URL).write(content())
    path = shared / "settings.json"
    path.hardlink_to(private / "target.json")
    return path


def pipe_of_another_user(shared: Path, private: Path) -> Path:
    path = shared / "settings.json"
    os.mkfifo(path)
    give(path)
    return path


def file_of_another_user(shared: Path, private: Path) -> Path:
    path = shared / "settings.json"
    LastKnownGoodFile(path, URL).write(content())
    give(path)
    return path


def folder_of_another_user(shared: Path, private: Path) -> Path:
    folder = shared / "folder"
    folder.mkdir()
    give(folder)
    return folder / "settings.json"


def linked_folder_of_another_user(shared: Path, private: Path) -> Path:
    folder = shared / "folder"
    folder.symlink_to(private)
    give(folder)
    return folder / "target.json"


def link_to_a_link_of_another_user(shared: Path, private: Path) -> Path:
    (private / "link").symlink_to(os.path.relpath(link_of_another_user(shared, private), private))
    return private / "link"


REFUSED = [
    link_of_another_user, hard_link, pipe_of_another_user, file_of_another_user, folder_of_another_user,
    linked_folder_of_another_user, link_to_a_link_of_another_user,
]  # fmt: skip


@as_root
@pytest.mark.parametrize("prepare", REFUSED)
def test_f2_path_through_something_of_another_user(
    kind: Kind, service: WatchedService, shared: Path, setting: Setting[int], prepare: Callable[[Path, Path], Path]
) -> None:
    """In a shared folder, it is neither read nor written, and neither is what it refers to."""
    private = shared.parent / "private"
    private.mkdir()
    path = prepare(shared, private)
    before = {file: file.lstat() for folder in (shared, private) for file in folder.rglob("*")}
    with running(kind, service.url, last_known_good=path) as client:
        problem = client.client.status().last_known_good_problem
        assert problem.startswith(f"{path} is not used: ")
        assert setting.get() == 7
    after = {file: file.lstat() for folder in (shared, private) for file in folder.rglob("*")}
    assert [(file, status.st_ino, status.st_mtime_ns, status.st_size) for file, status in after.items()] == [
        (file, status.st_ino, status.st_mtime_ns, status.st_size) for file, status in before.items()
    ]
    for access in (LastKnownGoodFile(path, URL).read, lambda: LastKnownGoodFile(path, URL).write(content())):
        with pytest.raises(NotStoredError, match="is not used: "):
            access()


def test_f2_own_files_links_and_folders_in_a_shared_folder(shared: Path) -> None:
    """They are used as elsewhere."""
    (shared / "folder").mkdir()
    (shared / "link").symlink_to("folder/../folder")
    (shared / "file").symlink_to(shared / "link" / "settings.json")
    for path in (shared / "file", shared / "link" / "settings.json", shared / "other.json"):
        file = LastKnownGoodFile(path, URL)
        file.write(content("a"))
        file.write(content("b"))
        assert file.read()[0].order == ("b",)
    assert (shared / "file").is_symlink()


@as_root
def test_f2_what_the_owner_of_a_shared_folder_has_put_there_is_used(shared: Path) -> None:
    """The folder is that user's. In a folder to which only its owner can write, there is nothing of other users."""
    give(shared)
    (shared / "link").symlink_to("settings.json")
    give(shared / "link")
    LastKnownGoodFile(shared / "link", URL).write(content("a"))
    assert LastKnownGoodFile(shared / "settings.json", URL).read()[0].order == ("a",)


def make_folder_of_another_user(path: Path) -> None:
    path.mkdir()
    give(path)


@as_root
@pytest.mark.parametrize(
    ("exchange", "expected"),
    [(make_folder_of_another_user, NotStoredError), (lambda path: path.symlink_to("../private"), OSError)],
)
def test_f2_a_folder_that_is_exchanged_meanwhile_is_not_used(
    shared: Path, monkeypatch: pytest.MonkeyPatch, exchange: Callable[[Path], None], expected: type[Exception]
) -> None:
    """Each folder is opened, then checked, and the next one is opened from there."""
    private = shared.parent / "private"
    private.mkdir()
    (shared / "folder").mkdir()
    begin = os.open

    def open_file(name: Any, *arguments: Any, **folder: Any) -> int:
        if name == "folder":
            (shared / "folder").rmdir()
            exchange(shared / "folder")
        return begin(name, *arguments, **folder)

    monkeypatch.setattr(os, "open", open_file)
    with pytest.raises(expected):
        LastKnownGoodFile(shared / "folder" / "settings.json", URL).write(content())
    monkeypatch.undo()
    assert list(private.iterdir()) == list((shared / "folder").iterdir()) == []


@pytest.mark.parametrize(("target", "code"), [("settings.json", errno.ELOOP), ("/", errno.EISDIR), (".", errno.EISDIR)])
def test_f2_a_link_that_leads_to_no_file_is_an_error(tmp_path: Path, target: str, code: int) -> None:
    """It has the path that was given."""
    path = tmp_path / "settings.json"
    path.symlink_to(target)
    with pytest.raises(OSError, match=f"'{path}'") as raised:
        LastKnownGoodFile(path, URL).write(content())
    assert raised.value.errno == code


def test_f2_the_error_for_a_missing_folder_has_the_path(tmp_path: Path) -> None:
    """And is the same each time, so that it is logged once."""
    path = tmp_path / "missing" / "settings.json"
    for _ in range(2):
        with pytest.raises(FileNotFoundError) as raised:
            LastKnownGoodFile(path, URL).write(content())
        assert str(raised.value) == f"[Errno 2] No such file or directory: '{path}'"


def test_an_error_without_a_number_is_kept(tmp_path: Path) -> None:
    """It is not one of the system."""
    error = OSError("odd")

    def fail() -> None:
        with file_location.locate(tmp_path / "settings.json"):
            raise error

    with pytest.raises(OSError, match=r"^odd$"):
        fail()


def test_systems_without_descriptors_of_folders_use_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows, which has no owners of files in this sense either."""
    monkeypatch.setattr(file_location, "_HAS_FOLDER_DESCRIPTORS", False)
    file = LastKnownGoodFile(tmp_path / "settings.json", URL)
    draft = tmp_path / "settings.json.x.new"
    draft.touch()
    os.utime(draft, (0, 0))
    assert file.signature() is None
    signature = file.write(content("a"))
    assert (file.signature(), file.read()) == (signature, (content("a"), signature))
    assert list(tmp_path.iterdir()) == [file.path]
    monkeypatch.setattr(os, "replace", failing(os.replace, errno.EACCES))
    with pytest.raises(PermissionError):
        file.write(content("b"))


# -- files that cannot be replaced -------------------------------------------------------------------------------------


def failing(call: Any, code: int, *, only_new: bool = False) -> Any:
    """Return a system call that fails, or only for new files."""

    def fail(*arguments: Any, **more: Any) -> Any:
        if only_new and not arguments[1] & os.O_CREAT:
            return call(*arguments, **more)
        raise OSError(code, os.strerror(code), arguments[0])

    return fail


def prevent_replacing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Simulate a file that is a mount point, or a read-only folder."""
    if code in (errno.EBUSY, errno.EXDEV):
        monkeypatch.setattr(os, "replace", failing(os.replace, code))
    else:
        monkeypatch.setattr(os, "open", failing(os.open, code, only_new=True))


NOT_REPLACEABLE = [errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS]


@pytest.mark.parametrize("code", NOT_REPLACEABLE, ids=errno.errorcode.get)
def test_f3_file_that_cannot_be_replaced(
    kind: Kind,
    service: WatchedService,
    setting: Setting[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """It is written in place. No draft is left, and only its owner can read it."""
    path = tmp_path / "settings.json"
    path.touch(0o644)
    prevent_replacing(monkeypatch, code)
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
        assert client.client.status().last_known_good_problem is None
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    reset_settings()
    service.intercept = lambda request: CannedResponse(502)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


MOUNTED = """
    import subprocess, sys
    from pathlib import Path
    from heksher_client._drivers.last_known_good_file import Content, LastKnownGoodFile

    folder = Path(sys.argv[1])
    mounts = [["--bind", folder / "host.json", folder / "inside.json"]]
    if "read-only" in sys.argv:
        mounts.append(["-o", "remount,bind,ro", folder / "inside.json"])
    for mount in mounts:
        subprocess.run(["mount", *mount], check=True)
    for order in (("environment", "user"), ("user",)):
        try:
            LastKnownGoodFile(folder / "inside.json", "http://service").write(Content(order))
        except OSError as error:
            print(error)
"""


def write_mounted(folder: Path, *options: str) -> list[str]:
    """Write `inside.json` twice, where `host.json` is mounted, and return the errors."""
    for name in ("host.json", "inside.json"):
        (folder / name).touch(0o600)
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted")
    command = ["unshare", "-m", sys.executable, "-c", textwrap.dedent(MOUNTED), str(folder), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def test_f3_mount_point(tmp_path: Path) -> None:
    """As `docker run -v file:file` makes. The second content is shorter."""
    host, inside = tmp_path / "host.json", tmp_path / "inside.json"
    assert write_mounted(tmp_path) == []
    assert LastKnownGoodFile(host, URL).read()[0].order == ("user",)
    assert set(tmp_path.iterdir()) == {host, inside}


def test_f3_read_only_mount_point(tmp_path: Path) -> None:
    """As `docker run -v file:file:ro` makes. The error says what to do."""
    host, inside = tmp_path / "host.json", tmp_path / "inside.json"
    expected = f"Read-only file system; mount the file, or its folder, so that it can be written: '{inside}'"
    assert write_mounted(tmp_path, "read-only") == [f"[Errno {errno.EROFS}] {expected}"] * 2
    assert set(tmp_path.iterdir()) == {host, inside}


def test_f3_directory_in_place_of_the_file(
    kind: Kind, service: WatchedService, setting: Setting[int], tmp_path: Path
) -> None:
    """As Docker makes if the file to mount does not exist. The status says so, and it is left as it is."""
    path = tmp_path / "settings.json"
    path.mkdir()
    expected = (
        "Is a directory; it must be a file: create one before it is mounted, as Docker creates a directory otherwise"
    )
    with running(kind, service.url, last_known_good=path) as client:
        client.reload()
        assert client.client.status().last_known_good_problem == f"[Errno {errno.EISDIR}] {expected}: '{path}'"
    assert list(tmp_path.rglob("*")) == [path]


def test_f3_a_directory_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is tried again at each refresh."""
    descriptors: list[int] = []
    begin = os.open

    def open_file(name: Any, *arguments: Any, **folder: Any) -> int:
        descriptors.append(begin(name, *arguments, **folder))
        return descriptors[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_file)
        path = tmp_path / "settings.json"
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            LastKnownGoodFile(path, URL).read()
    assert descriptors
    for descriptor in descriptors:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)


@as_root
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM], ids=errno.errorcode.get)
def test_f3_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """If it can be neither read, replaced nor written, the error says whose it is."""
    file = LastKnownGoodFile(tmp_path / "settings.json", URL)
    file.path.touch(0o600)
    begin = os.open

    def open_file(name: Any, flags: int, *arguments: Any, **folder: Any) -> int:
        if str(name).startswith("settings.json"):
            raise OSError(code, os.strerror(code), name)
        return begin(name, flags, *arguments, **folder)

    monkeypatch.setattr(os, "open", open_file)
    no_permission = "this user must be able to write to the file and to its folder"
    other_user = "the file belongs to another user: change its owner, or use another path"
    for expected in (no_permission, other_user):
        for access in (file.read, lambda: file.write(content())):
            with pytest.raises(PermissionError) as raised:
                access()
            assert str(raised.value) == f"[Errno {code}] {os.strerror(code)}; {expected}: '{file.path}'"
        give(file.path)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LastKnownGoodFile:
    """A file with a content, which cannot be replaced any more."""
    file = LastKnownGoodFile(tmp_path / "settings.json", URL)
    file.write(content("a"))
    prevent_replacing(monkeypatch, errno.EBUSY)
    return file


def test_f3_the_checksum_shows_that_a_file_was_not_written_completely(
    mounted: LastKnownGoodFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was killed, say. It is written again by the next one."""
    with monkeypatch.context() as killed:
        killed.setattr(os, "fsync", failing(os.fsync, errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            mounted.write(content("longer", "than", "before"))
    whole = mounted.path.read_bytes()
    mounted.path.write_bytes(whole[:-5] + b"xxxxx")
    with pytest.raises(NotStoredError, match="is corrupt: the checksum is wrong"):
        mounted.read()
    mounted.write(content("b"))
    assert mounted.read()[0].order == ("b",)


@pytest.mark.parametrize(("code", "is_kept"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EOPNOTSUPP, False)])
def test_f3_a_full_disk_leaves_the_content(
    mounted: LastKnownGoodFile, monkeypatch: pytest.MonkeyPatch, code: int, is_kept: bool
) -> None:
    """The space is reserved first. Some file systems cannot reserve any, and then the content is written at once."""

    def reserve(descriptor: int, offset: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    if is_kept:
        with pytest.raises(OSError, match=os.strerror(code)):
            mounted.write(content("b" * 100))
    else:
        mounted.write(content("b"))
    assert mounted.read()[0].order == ("a" if is_kept else "b",)


def link_twice(path: Path) -> None:
    path.with_name("other.json").hardlink_to(path)


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o666), link_twice])
def test_f3_a_file_that_is_not_private_is_not_written_in_place(
    mounted: LastKnownGoodFile, change: Callable[[Path], None]
) -> None:
    """Others could read or change it, or it is another file at the same time. The message tells what it must be."""
    change(mounted.path)
    before = mounted.path.read_bytes()
    with pytest.raises(NotStoredError, match="is not written in place, as it must be a regular file with one name"):
        mounted.write(content("b"))
    assert mounted.path.read_bytes() == before


@pytest.mark.parametrize("code", NOT_REPLACEABLE, ids=errno.errorcode.get)
def test_f3_a_file_that_can_be_neither_replaced_nor_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """There is no file to write in place, so the first error is the reason. It is the same each time."""
    file = LastKnownGoodFile(tmp_path / "settings.json", URL)
    prevent_replacing(monkeypatch, code)
    for _ in range(2):
        with pytest.raises(OSError, match=rf"{os.strerror(code)}(; .* writ.*)?: '{file.path}'") as raised:
            file.write(content())
        assert raised.value.errno == code
    assert list(tmp_path.iterdir()) == []
