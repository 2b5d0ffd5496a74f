"""Starting without the service, from the last known good file."""

import json
import os
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heksher_client import HeksherError, Reason, Setting, State
from heksher_client._core.refresh.last_known_good import ResponseKey, StoredResponse
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.registry import registry
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from heksher_client._drivers.last_known_good_store import FileStore
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, Subject, duration_of, eventually, running
from tests.support.service import DECLARE, QUERY, CannedResponse, WatchedService


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user"], 7)


def make_unavailable(service: WatchedService) -> None:
    """Respond to all requests with an error from now on."""
    service.intercept = lambda request: CannedResponse(502)


def write_file(kind: Kind, service: WatchedService, path: Path) -> None:
    """Run a client that writes a file with a rule, 8 for jim, and reset all settings."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    reset_settings()


def reset_settings() -> None:
    """Reset all settings to their declared defaults, as in a new process."""
    from heksher_client._core.settings.entry import PublishedRules
    from heksher_client._core.settings.rule_set import RuleSet

    for entry in registry.entries():
        entry.publish(PublishedRules(RuleSet(entry.declaration.default_value, Reason.DECLARED_DEFAULT)))


def stored_response(text: str, tracking: Tracking | None = None) -> StoredResponse:
    """Return a stored response for a setting."""
    return StoredResponse(msgspec.Raw(text.encode()), tracking or Tracking())


def save(store: FileStore, **settings: StoredResponse) -> set[str]:
    """Save new responses, and return the names of the settings that must be queried again."""
    return set(store.save(settings, response_keys(settings), FEATURES))


def response_keys(settings: Mapping[str, StoredResponse]) -> dict[str, ResponseKey]:
    return {
        name: ResponseKey(sha256(response.content).digest(), response.tracking) for name, response in settings.items()
    }


def load_contents(store: FileStore) -> dict[str, bytes]:
    """Load a store with one response for each setting, and return their contents."""
    return {name: bytes(response.content) for name, (response,) in store.load().settings.items()}


def read_body(path: Path) -> Any:
    return json.loads(path.read_bytes().split(b"\n", 1)[1])


def make_older(path: Path, seconds: float, *names: str) -> None:
    """Make the responses for some or all settings in a file older."""
    head, body = json.loads(path.read_bytes().split(b"\n", 1)[0]), read_body(path)
    for name, responses in body["settings"].items():
        for response in responses:
            response[1] -= seconds if name in names or not names else 0
    text = json.dumps(body, separators=(",", ":")).encode()
    head |= {"length": len(text), "sha256": sha256(text).hexdigest()}
    path.write_bytes(json.dumps(head, separators=(",", ":")).encode() + b"\n" + text)


def log_text(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_start_without_the_service_uses_the_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither client raises; the status reports the source of the values and their age."""
    write_file(kind, service, path)
    make_older(path, 100)
    make_unavailable(service)
    new = Setting("new", int, ["user"], 1)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert (setting.get(user="jim"), setting.get(user="ann"), new.get(user="jim")) == (8, 7, 1)
        assert "restored the last known good of 1 settings, 100 seconds old; 1 settings have none" in log_text(caplog)
        status = client.client.status()
        assert (status.state, status.is_last_known_good, status.is_healthy) == (State.FAILING, True, True)
        assert 99 < (status.age or 0) < 110
        assert status.rules == 1

        service.intercept = lambda request: None
        service.add_rule("s", 9, user="ann")
        client.reload()
        status = client.client.status()
        assert (setting.get(user="ann"), status.state, status.is_last_known_good) == (9, State.FRESH, False)


def test_the_age_of_the_file_counts_for_staleness(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Values from an old file are stale immediately."""
    write_file(kind, service, path)
    make_older(path, 3600)
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert client.client.status().state is State.STALE
        assert setting.get(user="jim") == 8


def start_without_values(kind: Kind, service: WatchedService, path: Path, **options: Any) -> None:
    """Start without the service and without a usable file, and check that the client has no values."""
    make_unavailable(service)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, **options)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
    else:
        subject.start()
        assert subject.client.status().age is None
        subject.close()


def test_a_start_without_the_service_and_the_file_fails(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The missing file is logged."""
    start_without_values(kind, service, path)
    assert "there is no last known good to start from" in log_text(caplog)
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize(
    ("damage", "message", "is_replaced"),
    [
        (lambda content: content[:-20], "corrupt", True),
        (lambda content: content.replace(b'"value":8', b'"value":9'), "checksum", True),
        (lambda content: content + b" ", "length", True),
        (lambda content: b"", "corrupt", True),
        (lambda content: content[:7], "corrupt", True),
        (lambda content: bytes(len(content)), "corrupt", True),
        (lambda content: content[:60], "corrupt", True),
        (lambda content: content[:70] + b"\xff" + content[71:], "corrupt", True),
        (lambda content: content.replace(b'"version":1', b'"version":2'), "newer version", False),
        (lambda content: b"# my own notes\n", "is not a last known good file", False),
    ],
)
def test_an_unusable_file_is_logged_and_ignored(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    damage: Any,
    message: str,
    is_replaced: bool,
) -> None:
    """A corrupt file is replaced after the next response; a file of another program or version is not overwritten."""
    write_file(kind, service, path)
    path.write_bytes(damaged := damage(path.read_bytes()))
    start_without_values(kind, service, path)
    assert message in log_text(caplog)
    assert setting.get(user="jim") == 7

    service.intercept = lambda request: None
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8
    assert (path.read_bytes() != damaged) == is_replaced
    if is_replaced:
        reset_settings()
        make_unavailable(service)
        with running(kind, service.url, last_known_good=path):
            assert setting.get(user="jim") == 8


def test_a_file_older_than_max_age_is_ignored(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged."""
    write_file(kind, service, path)
    make_older(path, 7200)
    start_without_values(kind, service, path, max_age=3600)
    assert "too old" in log_text(caplog)
    assert setting.get(user="jim") == 7


def test_a_file_of_another_service_is_ignored_and_not_overwritten(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Two environments that share a path by mistake do not receive each other's values."""
    write_file(kind, service, path)
    content = path.read_bytes()
    with WatchedService() as other:
        with running(kind, other.url, last_known_good=path):
            assert setting.get(user="jim") == 7
        assert "was written for a service with another URL" in log_text(caplog)
        assert path.read_bytes() == content
        reset_settings()
        start_without_values(kind, other, path)


@pytest.mark.parametrize("mode", [0o622, 0o660, 0o777])
def test_a_file_that_others_can_write_is_ignored(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    mode: int,
) -> None:
    """Another user could otherwise control the values of all settings."""
    write_file(kind, service, path)
    path.chmod(mode)
    start_without_values(kind, service, path)
    assert "could have been written by others" in log_text(caplog)
    assert setting.get(user="jim") == 7


def test_the_file_is_private_and_contains_no_secrets(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Only its owner can read it; it does not contain the URL, headers or credentials."""
    url = service.url.replace("http://", "http://jim:pass-word@") + "/"
    arguments = {"headers": {"X-Token": "to-ken"}, "params": {"key": "pa-ram"}}
    with running(kind, url, last_known_good=path, http_client_args=arguments):
        assert setting.get() == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert not any(secret in text for secret in ("pass-word", "to-ken", "pa-ram", "127.0.0.1"))
    assert list(path.parent.iterdir()) == [path]
    head, body = text.split("\n", 1)
    assert json.loads(head)["version"] == 1
    assert json.loads(body)["settings"]["s"][0][2] == {"rules": [], "default_value": 7}


def test_the_file_is_not_written_if_nothing_has_changed(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Only the time of the last confirmation is updated, every few minutes."""
    write_file(kind, service, path)
    with running(kind, service.url, last_known_good=path) as client:
        inode = path.stat().st_ino
        client.reload()
        assert path.stat().st_ino == inode
        make_older(path, 700)
        client.client._session._refresher.last_known_good._store._confirmed -= 700
        client.reload()
        assert time.time() - read_body(path)["settings"]["s"][0][1] < 50
        assert len(service.requests_to(QUERY)) == 5
        assert "if-none-match" in service.requests[-1].headers
        assert setting.get(user="jim") == 8
        make_unavailable(service)
        client.reload_expecting(HeksherError)  # the file is not read
        assert "last known good" not in log_text(caplog)


def test_a_deleted_file_is_written_again(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """All settings are queried again without an ETag."""
    write_file(kind, service, path)
    with running(kind, service.url, last_known_good=path) as client:
        path.unlink()
        client.reload()
        client.reload()
        assert "8" in path.read_text()
    reset_settings()
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_a_full_disk_affects_only_the_file(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, and the responses are stored when there is space again."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            for _ in range(3):
                client.reload()
            assert setting.get(user="jim") == 8
            assert client.client.status().state is State.FRESH
        assert log_text(caplog).count("cannot be stored: [Errno 28]") == 1
        assert list(path.parent.iterdir()) == [path]
        client.reload()
        client.reload()
    reset_settings()
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_writing_to_a_hanging_disk_does_not_block_the_client(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, and the responses are stored when the disk is available again."""
    entered, released = threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        entered.set()
        released.wait(TIMEOUT_SECONDS)

    with running(kind, service.url, last_known_good=path, request_timeout=1) as client:
        monkeypatch.setattr(os, "fsync", hang)
        for value in (8, 9):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert setting.get(user=f"u{value}") == value
            assert entered.is_set()
        assert log_text(caplog).count("cannot be stored: the disk takes too long") == 1
        released.set()
        assert eventually(lambda: "u9" not in path.read_text() and "u8" in path.read_text())
        client.reload()
        assert "u9" in path.read_text()
        released.clear()
        entered.clear()
        service.add_rule("s", 10, user="u10")
        client.client._session.refresh_soon()
        assert entered.wait(TIMEOUT_SECONDS)
        assert duration_of(client.close) < 0.8
        released.set()


@pytest.mark.usefixtures("setting")
def test_a_slow_disk_does_not_delay_the_status(
    kind: Kind, service: WatchedService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are fresh as soon as their rules are applied."""
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    states: list[State] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: states.append(subject.client.status().state))
    subject.start()
    assert states == [State.FRESH]
    subject.close()


def test_an_unexpected_error_while_storing_does_not_end_the_refreshing(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the error of that refresh, whose rules are applied."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        with monkeypatch.context() as patched:
            patched.setattr("heksher_client._core.refresh.last_known_good.partial", lambda *_: 1 // 0)
            client.reload_expecting(ZeroDivisionError)
        assert setting.get(user="jim") == 8
        client.reload()
        assert "8" in path.read_text()


def test_a_named_pipe_instead_of_the_file_is_ignored(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Reading it would block until another process writes. It is not replaced."""
    os.mkfifo(path)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    start_without_values(kind, service, path)
    assert "is not a regular file" in log_text(caplog)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_symbolic_link_instead_of_the_file_is_followed(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Its target is replaced, not the link."""
    target = path.parent / "elsewhere" / "target.json"
    target.parent.mkdir()
    path.symlink_to(target)
    write_file(kind, service, path)
    assert path.is_symlink()
    assert read_body(target)["settings"].keys() == {"s"}
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_temporary_files_of_killed_processes_are_removed(service: WatchedService, path: Path) -> None:
    """After an hour: another process may still be writing a newer one."""
    old, young, foreign = (path.with_name(name) for name in (f"{path.name}.x.new", f"{path.name}.y.new", "other.new"))
    for file in (old, young, foreign):
        file.touch()
    for file in (old, foreign):
        os.utime(file, (time.time() - 4000, time.time() - 4000))
    save(FileStore(LastKnownGoodFile(path, service.url), 1000, time.time), s=stored_response("1"))
    assert set(path.parent.iterdir()) == {path, young, foreign}


def test_processes_share_one_file(service: WatchedService, path: Path) -> None:
    """Each adds its settings to those of the others. A reader never sees a partially written file."""
    stores = [FileStore(LastKnownGoodFile(path, service.url), 1000, time.time) for _ in range(4)]
    errors: list[BaseException] = []

    def save_repeatedly(store: FileStore, number: int) -> None:
        try:
            for i in range(20):
                save(store, **{f"s{number}": stored_response(f'{{"rules":[],"default_value":{i}}}')})
                assert store.load().settings
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save_repeatedly, args=[store, i]) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    last = stored_response('{"rules":[],"default_value":19}')
    for number, store in enumerate(stores):
        # If two processes write at the same time, the last one wins. The other one detects it, and queries again.
        for name in store.save({}, response_keys({f"s{number}": last}), FEATURES):
            save(store, **{name: last})
    assert stores[0].load().order == FEATURES
    assert load_contents(stores[0]) == {f"s{number}": b'{"rules":[],"default_value":19}' for number in range(4)}


def test_a_response_that_is_no_longer_confirmed_expires(service: WatchedService, path: Path) -> None:
    """Even if other processes keep updating other settings in the file."""
    store = FileStore(LastKnownGoodFile(path, service.url), 1000, time.time)
    save(store, used=stored_response("1"), unused=stored_response("2"))
    make_older(path, 800, "unused")
    assert save(store, used=stored_response("3")) == set()
    assert {name: round(response.age) for name, (response,) in store.load().settings.items()} == {
        "used": 0,
        "unused": 800,
    }
    make_older(path, 300, "unused")
    assert store.load().settings["unused"] == []
    save(store, used=stored_response("4"))
    assert read_body(path)["settings"].keys() == {"used", "unused"}  # another process may have a longer max_age
    make_older(path, 31 * 24 * 3600.0, "unused")
    save(store, used=stored_response("5"))
    assert read_body(path)["settings"].keys() == {"used"}


def test_processes_that_track_different_contexts_store_their_own_responses(service: WatchedService, path: Path) -> None:
    """Even if the responses are equal. A response with more tracked contexts replaces those with fewer."""
    jim, ann, both = Tracking().with_values({"user": "jim"}), Tracking().with_values({"user": "ann"}), Tracking()
    stores = [FileStore(LastKnownGoodFile(path, service.url), 1000, time.time) for _ in range(3)]
    save(stores[0], s=stored_response("1", jim))
    save(stores[1], s=stored_response("1", ann))
    inode = path.stat().st_ino
    assert not stores[0].save({}, response_keys({"s": stored_response("1", jim)}), FEATURES)
    assert path.stat().st_ino == inode
    assert {tuple(response.tracking.options["user"]) for response in stores[0].load().settings["s"]} == {
        ("jim",),
        ("ann",),
    }
    save(stores[2], s=stored_response("2", both))
    assert load_contents(stores[0]) == {"s": b"2"}
    assert stores[0].save({}, response_keys({"s": stored_response("1", jim)}), FEATURES) == {"s"}


def test_the_number_of_responses_for_one_setting_is_limited(service: WatchedService, path: Path) -> None:
    """If many processes track different contexts, the file has the last eight responses."""
    for i in range(12):
        save(
            FileStore(LastKnownGoodFile(path, service.url), 1000, time.time),
            s=stored_response("1", Tracking().with_values({"user": f"u{i}"})),
        )
        make_older(path, 1)
    late = FileStore(LastKnownGoodFile(path, service.url), 1000, time.time)
    stored = late.load().settings["s"]
    assert {name for response in stored for name in response.tracking.options["user"]} == {
        f"u{i}" for i in range(4, 12)
    }
    # A process whose response was removed does not query again: it would only displace that of another process.
    inode = path.stat().st_ino
    assert not late.save(
        {}, response_keys({"s": stored_response("1", Tracking().with_values({"user": "u0"}))}), FEATURES
    )
    assert path.stat().st_ino == inode


def test_processes_with_different_responses_do_not_overwrite_each_other_repeatedly(
    service: WatchedService, path: Path
) -> None:
    """For example if one of them is late: a stored response stays as long as the process that wrote it confirms it."""
    first, second = (FileStore(LastKnownGoodFile(path, service.url), 1000, time.time) for _ in range(2))
    save(first, s=stored_response("1"))
    save(second, s=stored_response("2"))
    inode = path.stat().st_ino
    for _ in range(3):
        assert not first.save({}, response_keys({"s": stored_response("1")}), FEATURES)
        assert not second.save({}, response_keys({"s": stored_response("2")}), FEATURES)
    assert path.stat().st_ino == inode
    # The other process ends, so that its response is no longer confirmed.
    make_older(path, 500)
    first._confirmed -= 200
    assert first.save({}, response_keys({"s": stored_response("1")}), FEATURES) == {"s"}
    save(first, s=stored_response("1"))
    assert load_contents(first) == {"s": b"1"}


@pytest.mark.parametrize(
    ("before", "now", "value"),
    [
        ({}, {}, 8),
        ({}, {"user": "jim"}, 8),
        ({"user": ["jim", "ann"]}, {"user": "jim"}, 8),
        ({"user": "*"}, {"user": "jim"}, 8),
        ({"user": "jim"}, {"user": ["jim", "ann"]}, 7),
        ({"user": "jim"}, {"user": "*"}, 7),
        ({"user": "jim"}, {}, 7),
        ({"user": "jim", "theme": "dark"}, {"user": "jim", "theme": "light"}, 8),
    ],
)
def test_a_response_with_fewer_tracked_contexts_is_ignored(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    before: Any,
    now: Any,
    value: int,
) -> None:
    """It may lack rules of higher priority. Only the configurable features of the setting count."""
    service.declare("s", "int", 7, ["user"], version="1.0")
    service.add_rule("s", 8, user="jim")
    for tracked in (before, now):
        subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
        subject.client.set_defaults(user="eve")
        subject.client.track_contexts(**tracked)
        with suppress(HeksherError):
            subject.start()
        assert tracked is now or setting.get(user="jim") == 8
        if tracked is now:
            assert setting.get(user="jim") == value
            assert ("fewer contexts were tracked" in log_text(caplog)) == (value == 7)
        subject.close()
        reset_settings()
        make_unavailable(service)


def test_a_response_older_than_max_age_is_stored_if_the_service_confirms_it(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """For example after a long outage, or after the machine was suspended."""
    write_file(kind, service, path)
    with running(kind, service.url, last_known_good=path, max_age=1000) as client:
        make_older(path, 5000)
        client.client._session._refresher.last_known_good._store._confirmed -= 5000
        client.reload()
        assert read_body(path)["settings"].keys() == {"s"}
        assert len(service.requests_to(QUERY)) == 4
    reset_settings()
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path, max_age=1000):
        assert setting.get(user="jim") == 8


def test_reading_from_a_hanging_disk_does_not_block_the_client(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client starts without a file, and continues to refresh."""
    write_file(kind, service, path)
    make_unavailable(service)
    released = threading.Event()
    begin = os.open

    def hang(name: Any, *args: Any) -> int:
        if name == path:
            released.wait(TIMEOUT_SECONDS)
        return begin(name, *args)

    monkeypatch.setattr(os, "open", hang)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, request_timeout=1)
    subject.client.set_defaults(user="jim")

    def start() -> None:
        with suppress(HeksherError):
            subject.start()

    assert duration_of(start) < 2.7
    assert "the disk takes too long" in (subject.client.status().last_known_good_problem or "")
    if not kind.raises_at_start:
        service.intercept = lambda request: None
        subject.reload()
        assert setting.get() == 8
    released.set()
    subject.close()


def test_a_second_client_in_one_process_uses_the_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The settings already have their values; the file has their age."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    make_older(path, 100)
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert setting.get(user="jim") == 8
        assert client.client.status().state is State.FAILING
        assert 99 < (client.client.status().age or 0) < 110


def test_the_default_in_a_declaration_response_replaces_the_stored_default(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """An older release of the program declares the setting, and then queries fail. The stored rules are used."""
    setting = Setting("s", int, ["user"], 7)
    write_file(kind, service, path)
    service.declare("s", "int", 5, ["user"], version="1.1")
    service.respond_with(QUERY, CannedResponse(502))
    with running(kind, service.url, last_known_good=path) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert client.client.status().is_last_known_good


def test_a_default_received_after_the_restore_replaces_the_stored_default(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """The stored rules are still used."""
    setting = Setting("s", int, ["user"], 7)
    write_file(kind, service, path)
    service.declare("s", "int", 5, ["user"], version="1.1")
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
        service.respond_with(QUERY, CannedResponse(502))
        client.reload_expecting(HeksherError)
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert client.client.status().is_last_known_good


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_newly_declared_default_replaces_the_stored_default(
    kind: Kind, service: WatchedService, path: Path, version: str
) -> None:
    """Declarations succeed and queries fail, after an upgrade of the program or a restored default in the service."""
    previous = Setting("s", int, ["user"], 5)
    write_file(kind, service, path)
    assert previous.get() == 5
    registry._entries.clear()
    setting = Setting("s", int, ["user"], 10 if version == "1.1" else 5, version=version)
    service.respond_with(QUERY, CannedResponse(502))
    with running(kind, service.url, last_known_good=path):
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, setting.default_value)
        assert setting.explain(user="ann").reason is Reason.SERVER_DEFAULT


def test_a_stored_response_for_a_newly_created_setting_is_ignored(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The outcome `created` shows that the database was emptied. Then queries fail."""
    write_file(kind, service, path)
    service.reset()
    service.respond_with(QUERY, CannedResponse(502))
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7


def test_a_start_from_a_file_without_usable_responses_fails(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The client is not healthy."""
    save(
        FileStore(LastKnownGoodFile(path, service.url), 1000, time.time),
        s=stored_response("1", Tracking().with_values({"user": "ann"})),
    )
    start_without_values(kind, service, path)
    assert setting.get(user="jim") == 7


def test_the_newest_response_under_any_name_of_a_setting_is_used(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """For example if a release that renamed it was rolled back for some time."""
    store = FileStore(LastKnownGoodFile(path, service.url), 1000, time.time)
    save(store, new=stored_response('{"rules":[],"default_value":1}'))
    make_older(path, 500)
    save(store, s=stored_response('{"rules":[],"default_value":2}'))
    new = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert new.get(user="jim") == 2


def test_a_file_that_appears_after_the_start_is_used(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The status no longer reports a problem with it."""
    if kind.raises_at_start:
        pytest.skip("the async client does not start without a file")
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert "No such file" in client.client.status().last_known_good_problem
        save(
            FileStore(LastKnownGoodFile(path, service.url), 1000, time.time),
            s=stored_response('{"rules":[],"default_value":2}'),
        )
        client.reload()
        status = client.client.status()
        assert (setting.get(user="jim"), status.is_last_known_good, status.last_known_good_problem) == (2, True, None)


def test_responses_without_usable_data_do_not_reset_the_age(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Neither the age of values from the file nor that of received values."""
    write_file(kind, service, path)
    make_older(path, 500)
    good = Setting("good", int, ["user"], 1)
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {}, "good": {"rules": [], "default_value": 2}}}))
    with running(kind, service.url, last_known_good=path, stale_after=100) as client:
        assert (setting.get(user="jim"), good.get(user="jim")) == (8, 2)
        assert (client.client.status().state, client.client.status().is_last_known_good) == (State.STALE, True)
        service.intercept = lambda request: None
        client.reload()
        assert client.client.status().state is State.FRESH
        service.respond_with(QUERY, CannedResponse.of({"settings": {}}))
        client.client._session._health._received_at -= 200
        client.reload_expecting(HeksherError)
        assert client.client.status().state is State.STALE


def test_an_unconfirmed_order_of_context_features_is_not_stored(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Another process may have stored a newer order."""
    with running(kind, service.url, last_known_good=path) as client:
        new = ("user", "environment", "theme")
        FileStore(LastKnownGoodFile(path, service.url), 1000, time.time).save({}, {}, new)
        service.respond_with("GET /api/v1/context_features", CannedResponse(500))
        client.reload()
        assert tuple(read_body(path)["context_features"]) == new
        assert setting.get(user="jim") == 7


def test_a_renamed_setting_uses_the_response_for_its_alias(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """A previous release of the program has stored it."""
    write_file(kind, service, path)
    new = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert new.get(user="jim") == 8
        assert setting.get(user="jim") == 8


def test_contexts_tracked_after_the_start_are_restored_as_well(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The file may contain rules for them."""
    service.declare("s", "int", 7, ["user"], version="1.0")
    service.add_rule("s", 9, user="ann")
    write_file(kind, service, path)
    make_unavailable(service)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    subject.client.track_contexts(user="jim")
    subject.start()
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
    subject.client.track_contexts(user="ann")
    subject.reload_expecting(HeksherError)
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 9)
    subject.close()


def test_an_unknown_order_of_context_features_is_restored_from_the_file(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """Only that endpoint fails. Rules would otherwise be ranked by the client's own list, which may be outdated."""
    setting = Setting("s", int, ["environment", "user"], 0)
    order = ["user", "theme", "environment"]
    features = "GET /api/v1/context_features"
    service.respond_with(features, CannedResponse.of({"context_features": order}))
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, environment="prod")
        client.reload()
        assert setting.get(user="jim", environment="prod") == 2
    reset_settings()
    service.respond_with(features, CannedResponse(500))
    with running(kind, service.url, last_known_good=path) as client:
        assert setting.get(user="jim", environment="prod") == 2
        assert client.client.status().state is State.FAILING
        assert "order of the context features" in (client.client.status().last_error or "")
    assert read_body(path)["context_features"] == order


@pytest.mark.parametrize("invalid", ["", "a\0b"])
def test_an_invalid_path_raises_when_the_client_is_created(kind: Kind, invalid: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match="last_known_good"):
        kind.make("http://127.0.0.1:9", 60, FEATURES, last_known_good=invalid)


def test_an_invalid_setting_in_the_file_does_not_affect_others(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Another version of the program may use another type."""
    store = FileStore(LastKnownGoodFile(path, service.url), 1000, time.time)
    good = Setting("good", int, ["user"], 1)
    save(store, s=stored_response("5"), good=stored_response('{"rules":[],"default_value":2}'))
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert (setting.get(user="jim"), good.get(user="jim")) == (7, 2)


@pytest.mark.parametrize(("order", "value"), [(("theme", "user", "environment"), 1), (None, 2)])
def test_the_stored_order_of_context_features_ranks_the_rules(
    kind: Kind, service: WatchedService, path: Path, order: tuple[str, ...] | None, value: int
) -> None:
    """The order in the options of the client may be outdated. It is used if no order is stored."""
    setting = Setting("s", int, ["theme", "user"], 7)
    store = FileStore(LastKnownGoodFile(path, service.url), 1000, time.time)
    rules = [
        {"value": 1, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": 2, "rule_id": 2, "context_features": [["theme", "dark"]]},
    ]
    responses = {"s": stored_response(json.dumps({"rules": rules, "default_value": 0}))}
    store.save(responses, response_keys(responses), order)
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim", theme="dark") == value


def test_no_file_is_written_by_default(kind: Kind, service: WatchedService, tmp_path: Path) -> None:
    """The option `last_known_good` enables it."""
    setting = Setting("s", int, ["user"], 7)
    with running(kind, service.url):
        assert setting.get() == 7
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_logged(
    kind: Kind, service: WatchedService, tmp_path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The status reports it as well, and settings are refreshed."""
    with running(kind, service.url, last_known_good=tmp_path / "none" / "file") as client:
        assert setting.get() == 7
        assert "No such file" in (client.client.status().last_known_good_problem or "")
    assert "cannot be stored" in log_text(caplog)


def test_a_setting_created_after_the_start_is_restored_as_well(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """For example in a module that is imported while the service is still down."""
    with running(kind, service.url, last_known_good=path):
        late = Setting("late", int, ["user"], 1)
        service.declare("late", "int", 5, ["user"], version="1.0")
        assert setting.get() == 7
    del late
    with running(kind, service.url, last_known_good=path) as client:
        again = Setting("late", int, ["user"], 1)
        client.reload()
        assert again.get() == 5
    reset_settings()
    del again
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path) as client:
        client.clear_outcomes()
        later = Setting("late", int, ["user"], 1)
        client.next_outcome()
        assert later.get() == 5


def test_a_start_from_a_file_without_settings_of_the_program_fails(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The async client raises as it does without a file, and the thread client is not healthy."""
    save(FileStore(LastKnownGoodFile(path, service.url), 1000, time.time))
    start_without_values(kind, service, path)
    assert setting.get(user="jim") == 7


def test_a_refused_declaration_raises_even_if_there_is_a_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """It is an error in the program, not an outage."""
    write_file(kind, service, path)
    service.respond_with(DECLARE, CannedResponse(422))
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
    else:
        subject.start()
        assert isinstance(subject.next_outcome(), HeksherError)
        subject.close()
    assert setting.get() == 8


def test_on_update_error_is_called_even_if_there_is_a_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The first refresh has failed."""
    write_file(kind, service, path)
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert isinstance(client.next_outcome(), HeksherError)
        assert setting.get(user="jim") == 8


def test_times_in_the_future_are_corrected(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """If the system time was wrong, responses would otherwise never expire."""
    write_file(kind, service, path)
    make_older(path, -1e8)
    with running(kind, service.url, last_known_good=path):
        assert abs(read_body(path)["settings"]["s"][0][1] - time.time()) < 60
        assert setting.get(user="jim") == 8


def test_responses_in_a_file_that_others_can_write_are_removed(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The file is replaced by a private one."""
    save(
        FileStore(LastKnownGoodFile(path, service.url), 1000, time.time),
        evil=stored_response('{"rules":[],"default_value":666}'),
    )
    path.chmod(0o666)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_body(path)["settings"].keys() == {"s"}


@pytest.mark.parametrize(
    "target", ["_drivers.last_known_good_store.FileStore.load", "_core.refresh.last_known_good._newest"]
)
def test_an_unexpected_error_while_restoring_does_not_stop_the_client(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The client works as without a file."""

    def fail(*_: object) -> None:
        raise ValueError("unexpected")

    write_file(kind, service, path)
    monkeypatch.setattr(f"heksher_client.{target}", fail)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    make_unavailable(service)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
        return
    subject.start()
    assert subject.client.status().state is State.STALE
    assert setting.get() == 7
    subject.close()
