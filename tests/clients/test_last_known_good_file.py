"""The store of last known good responses on a real file: format, privacy, damage, expiry, and sharing by processes."""

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heksher_client._core.refresh.last_known_good import NotStoredError, ResponseKey, StoredResponse
from heksher_client._core.settings.context import Tracking
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from heksher_client._drivers.last_known_good_store import FileStore
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, call_without_waiting

URL = "http://service"


class Store(FileStore):
    """The store of one process, with a clock that a test moves."""

    def __init__(self, path: Path, *, url: str = URL, max_age: float = 1000, now: float = 1_000_000) -> None:
        super().__init__(LastKnownGoodFile(path, url), max_age, lambda: self.now)
        self.now = now

    def put(self, **contents: str | StoredResponse) -> set[str]:
        """Save new responses, and return the names of the settings that must be queried again."""
        new = {name: response_of(content) for name, content in contents.items()}
        return set(self.save(new, keys_of(new), FEATURES))

    def confirm(self, **contents: str | StoredResponse) -> set[str]:
        """Save that responses are still current, and return the names of those that are not stored."""
        return set(self.save({}, keys_of({name: response_of(one) for name, one in contents.items()}), FEATURES))

    def contents(self) -> dict[str, str]:
        """Load a store with one response for each setting, and return their contents."""
        return {name: bytes(response.content).decode() for name, (response,) in self.load().settings.items()}

    def ages(self) -> dict[str, float]:
        """Load a store with one response for each setting, and return their ages."""
        return {name: response.age for name, (response,) in self.load().settings.items()}


def response_of(content: str | StoredResponse, **tracked: str) -> StoredResponse:
    """Return a response for a setting, which was received while some contexts were tracked."""
    if isinstance(content, StoredResponse):
        return content
    return StoredResponse(msgspec.Raw(content.encode()), Tracking().with_values(tracked))


def keys_of(responses: Mapping[str, StoredResponse]) -> dict[str, ResponseKey]:
    return {name: ResponseKey(sha256(one.content).digest(), one.tracking) for name, one in responses.items()}


def names_in(path: Path) -> set[str]:
    """Return the names of all settings in a file, including those that have expired for this program."""
    return set(json.loads(path.read_bytes().split(b"\n", 1)[1])["settings"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


# -- the file ----------------------------------------------------------------------------------------------------------


def test_responses_are_loaded_by_another_process(path: Path) -> None:
    """With their content, their age, and the order of the context features."""
    Store(path).put(s='{"rules":[],"default_value":7}', t="2")
    later = Store(path, now=1_000_100)
    assert later.contents() == {"s": '{"rules":[],"default_value":7}', "t": "2"}
    assert later.ages() == {"s": 100, "t": 100}
    assert later.load().order == FEATURES


def test_the_file_is_private_and_has_two_lines(path: Path) -> None:
    """A header and JSON. Only its owner can read it, and it does not contain the URL. No draft is left."""
    Store(path, url="http://secret-host/path").put(s='{"rules":[],"default_value":7}')
    head, body = path.read_text().split("\n", 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (json.loads(head)["format"], json.loads(head)["version"]) == ("heksher last known good", 1)
    assert json.loads(body) == {
        "context_features": list(FEATURES),
        "trackings": [{}],
        "settings": {"s": [[0, 1_000_000.0, {"rules": [], "default_value": 7}, None]]},
    }
    assert "secret" not in head + body
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("invalid", ["", "a\0b"])
def test_an_invalid_path_is_an_error(invalid: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match="last_known_good must be the path of a file"):
        LastKnownGoodFile(invalid, URL)


def test_a_missing_file_cannot_be_loaded(path: Path) -> None:
    """It is created by the first response."""
    store = Store(path)
    with pytest.raises(FileNotFoundError):
        store.load()
    assert store.put(s="1") == set()
    assert store.contents() == {"s": "1"}


def test_a_missing_folder_is_not_created(path: Path) -> None:
    """A mistake in the path becomes visible."""
    with pytest.raises(FileNotFoundError):
        Store(path / "file").put(s="1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-20], "is corrupt: the length is wrong"),
        (lambda content: content + b" ", "is corrupt: the length is wrong"),
        (lambda content: content.replace(b'"value":8', b'"value":9'), "is corrupt: the checksum is wrong"),
        (lambda content: b"", "is corrupt"),
        (lambda content: content[:7], "is corrupt"),
        (lambda content: content[:60], "is corrupt"),
        (lambda content: bytes(len(content)), "is corrupt"),
        (lambda content: content[:70] + b"\xff" + content[71:], "is corrupt"),
    ],
)
def test_c12_a_corrupt_file_is_replaced(path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    """For example after a crash of the machine. It is not loaded."""
    store = Store(path)
    store.put(s='{"value":8}')
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(NotStoredError, match=f"{path} {message}"):
        store.load()
    assert store.confirm(s='{"value":8}') == {"s"}
    store.put(s='{"value":8}')
    assert store.contents() == {"s": '{"value":8}'}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.replace(b'"version":1', b'"version":2'), "was written by a newer version"),
        (lambda content: b"# my own notes\n", "is not a last known good file"),
    ],
)
def test_a_file_of_another_program_is_neither_loaded_nor_replaced(
    path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    """Nor is one of a newer version of this package."""
    store = Store(path)
    store.put(s="1")
    path.write_bytes(foreign := change(path.read_bytes()))
    for access in (store.load, lambda: store.put(s="2")):
        with pytest.raises(NotStoredError, match=message):
            access()
    assert path.read_bytes() == foreign


def test_a_file_of_another_service_is_neither_loaded_nor_replaced(path: Path) -> None:
    """Two environments that share a path by mistake do not receive each other's values."""
    Store(path).put(s="1")
    content = path.read_bytes()
    other = Store(path, url="http://other")
    for access in (other.load, lambda: other.put(s="2")):
        with pytest.raises(NotStoredError, match="was written for a service with another URL"):
            access()
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o622, 0o660, 0o666, 0o777])
def test_a_file_that_others_can_write_is_replaced_by_a_private_one(path: Path, mode: int) -> None:
    """Another user could otherwise control the values of all settings. Nothing of it is kept."""
    store = Store(path)
    store.put(evil='{"rules":[],"default_value":666}')
    path.chmod(mode)
    with pytest.raises(NotStoredError, match="could have been written by others"):
        store.load()
    Store(path).put(s="1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.contents() == {"s": "1"}


def test_a_named_pipe_is_neither_loaded_nor_replaced(path: Path) -> None:
    """Reading it would block until another process writes."""
    os.mkfifo(path)
    store = Store(path)
    for access in (store.load, lambda: store.put(s="1")):
        with pytest.raises(NotStoredError, match="is not a regular file"):
            call_without_waiting(access)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_symbolic_link_is_followed(path: Path) -> None:
    """Its target is replaced, not the link."""
    target = path.parent / "elsewhere" / "target.json"
    target.parent.mkdir()
    path.symlink_to(target)
    for content in ("1", "2"):
        Store(path).put(s=content)
    assert path.is_symlink()
    assert Store(target).contents() == {"s": "2"}


def test_drafts_of_killed_processes_are_removed(path: Path) -> None:
    """After an hour: another process may still be writing a newer one."""
    old, young, foreign = (path.with_name(name) for name in (f"{path.name}.x.new", f"{path.name}.y.new", "other.new"))
    for file in (old, young, foreign):
        file.touch()
    for file in (old, foreign):
        os.utime(file, (file.stat().st_mtime - 4000,) * 2)
    Store(path).put(s="1")
    assert set(path.parent.iterdir()) == {path, young, foreign}


def test_c12_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no draft, as that would need space as well."""
    store = Store(path)
    store.put(s="1")
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            store.put(s="2")
    assert store.contents() == {"s": "1"}
    assert list(path.parent.iterdir()) == [path]


# -- ages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_age", "interval"), [(100_000, 600), (1000, 100)])
def test_the_file_is_not_written_if_nothing_has_changed(path: Path, max_age: float, interval: float) -> None:
    """Only the time of the last confirmation is updated, every ten minutes, or ten times within the maximum age."""
    store = Store(path, max_age=max_age)
    store.put(s="1")
    inode = path.stat().st_ino
    store.now += interval - 1
    assert store.confirm(s="1") == set()
    assert (path.stat().st_ino, store.ages()) == (inode, {"s": interval - 1})
    store.now += 1
    assert store.confirm(s="1") == set()
    assert store.ages() == {"s": 0}


def test_a_deleted_file_is_written_again(path: Path) -> None:
    """The store does not have the content of responses that are confirmed, so they are queried again."""
    store = Store(path)
    store.put(s="1")
    path.unlink()
    assert store.confirm(s="1") == {"s"}
    store.put(s="1")
    assert store.contents() == {"s": "1"}


def test_a_file_older_than_the_maximum_age_is_not_loaded(path: Path) -> None:
    """The error has both ages."""
    Store(path).put(s="1")
    assert Store(path, now=1_001_000).contents() == {"s": "1"}
    with pytest.raises(NotStoredError, match="is too old: 1001 seconds, the maximum is 1000"):
        Store(path, now=1_001_001).load()


def test_a_response_that_is_no_longer_confirmed_expires(path: Path) -> None:
    """Even if other processes update other settings. It is removed after a month: others may use it for longer."""
    store = Store(path)
    store.put(used="1", unused="2")
    store.now += 800
    assert store.put(used="3") == set()
    assert store.ages() == {"used": 0, "unused": 800}
    store.now += 300
    store.put(used="4")
    assert store.load().settings["unused"] == []
    store.now = 1_000_000 + 30 * 24 * 3600.0
    store.put(used="5")
    assert names_in(path) == {"used", "unused"}
    store.now += 1
    store.put(used="6")
    assert names_in(path) == {"used"}


def test_a_response_older_than_the_maximum_age_is_stored_if_it_is_confirmed(path: Path) -> None:
    """For example after a long outage, or after the machine was suspended."""
    store = Store(path)
    store.put(s="1")
    store.now += 5000
    assert store.confirm(s="1") == set()
    assert store.ages() == {"s": 0}


def test_times_in_the_future_are_corrected(path: Path) -> None:
    """If the system time was wrong, responses would otherwise never expire."""
    Store(path, now=2_000_000).put(s="1")
    store = Store(path)
    assert store.ages() == {"s": 0}
    store.put(s="1")
    assert Store(path, now=1_000_010).ages() == {"s": 10}


# -- several processes -------------------------------------------------------------------------------------------------


def test_processes_share_one_file(path: Path) -> None:
    """Each adds its settings to those of the others. A reader never sees a partially written file."""
    stores = [Store(path) for _ in range(4)]
    errors: list[BaseException] = []

    def put_repeatedly(store: Store, number: int) -> None:
        try:
            for i in range(20):
                store.put(**{f"s{number}": str(i)})
                assert store.load().settings
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put_repeatedly, args=[store, i]) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert not errors
    for number, store in enumerate(stores):
        # If two processes write at the same time, the last one wins. The other one detects it, and queries again.
        for name in store.confirm(**{f"s{number}": "19"}):
            store.put(**{name: "19"})
    assert stores[0].contents() == {f"s{number}": "19" for number in range(4)}


def test_processes_that_track_different_contexts_store_their_own_responses(path: Path) -> None:
    """Even if the responses are equal. A response with more tracked contexts replaces those with fewer."""
    jim, ann, both = response_of("1", user="jim"), response_of("1", user="ann"), response_of("2")
    stores = [Store(path) for _ in range(3)]
    stores[0].put(s=jim)
    stores[1].put(s=ann)
    inode = path.stat().st_ino
    assert stores[0].confirm(s=jim) == set()
    assert path.stat().st_ino == inode
    tracked = [response.tracking.options["user"] for response in stores[0].load().settings["s"]]
    assert set(tracked) == {frozenset(["jim"]), frozenset(["ann"])}
    stores[2].put(s=both)
    assert stores[0].contents() == {"s": "2"}
    assert stores[0].confirm(s=jim) == {"s"}


def test_the_number_of_responses_for_one_setting_is_limited(path: Path) -> None:
    """If many processes track different contexts, the file has the last eight responses."""
    for i in range(12):
        Store(path, now=1_000_000 + i).put(s=response_of("1", user=f"u{i}"))
    late = Store(path, now=1_000_012)
    stored = late.load().settings["s"]
    assert {*(name for one in stored for name in one.tracking.options["user"])} == {f"u{i}" for i in range(4, 12)}
    # A process whose response was removed does not query again: it would only displace that of another process.
    inode = path.stat().st_ino
    assert late.confirm(s=response_of("1", user="u0")) == set()
    assert path.stat().st_ino == inode


def test_processes_with_different_responses_do_not_overwrite_each_other_repeatedly(path: Path) -> None:
    """For example if one of them is late: a stored response stays as long as the process that wrote it confirms it."""
    first, second = Store(path), Store(path, now=1_000_001)
    first.put(s="1")
    second.put(s="2")
    first.now = second.now
    inode = path.stat().st_ino
    for _ in range(3):
        assert first.confirm(s="1") == set()
        assert second.confirm(s="2") == set()
    assert path.stat().st_ino == inode
    for _ in range(3):
        for store, content in ((second, "2"), (first, "1")):
            store.now += 200
            assert store.confirm(s=content) == set()
    # The other process ends, so that its response is no longer confirmed.
    first.now += 200
    assert first.confirm(s="1") == {"s"}
    first.put(s="1")
    assert first.contents() == {"s": "1"}


def test_an_unknown_order_of_context_features_does_not_replace_the_stored_order(path: Path) -> None:
    """Another process may have stored a newer one."""
    store = Store(path)
    store.put(s="1")
    Store(path).save({}, {}, ("user", "environment", "theme"))
    store.save({}, {}, None)
    assert store.load().order == ("user", "environment", "theme")


def test_each_setting_shares_the_tracking_of_others(path: Path) -> None:
    """It is written once, as it may be large. One that no response refers to any more is not written."""
    jim, ann = response_of("1", user="jim"), response_of("1", user="ann")
    store = Store(path)
    store.put(a=jim, b=jim, c=ann)
    store.put(c=response_of("1"))

    def trackings() -> Any:
        return json.loads(path.read_bytes().split(b"\n", 1)[1])["trackings"]

    assert trackings() == [{"user": ["jim"]}, {}]
