"""Starting without the service, from the file with what was last received."""

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
from tests.support.clients import FEATURES, PATIENCE, Kind, Subject, eventually, running, took
from tests.support.service import DECLARE, QUERY, Answer, WatchedService


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


@pytest.fixture
def setting() -> Setting[int]:
    return Setting("s", int, ["user"], 7)


def down(service: WatchedService) -> None:
    """The service answers nothing of use from now on."""
    service.intercept = lambda asked: Answer(502)


def fill(kind: Kind, service: WatchedService, path: Path) -> None:
    """Have a first client keep a rule: 8 for jim."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    forget_all_rules()


def forget_all_rules() -> None:
    """As in a new process: settings have their declared defaults."""
    from heksher_client._core.settings.entry import PublishedRules
    from heksher_client._core.settings.rule_set import RuleSet

    for entry in registry.entries():
        entry.publish(PublishedRules(RuleSet(entry.declaration.default_value, Reason.DECLARED_DEFAULT)))


def kept(text: str, tracking: Tracking | None = None) -> StoredResponse:
    """What a service said of a setting."""
    return StoredResponse(msgspec.Raw(text.encode()), tracking or Tracking())


def keep(keeper: LastKnownGoodFile, **settings: StoredResponse) -> set[str]:
    """Save what is new for settings, and nothing else; gives what is to be asked for again."""
    return set(keeper.save(settings, digests(settings), FEATURES))


def digests(settings: Mapping[str, StoredResponse]) -> dict[str, ResponseKey]:
    return {name: ResponseKey(sha256(one.content).digest(), one.tracking) for name, one in settings.items()}


def loaded(keeper: LastKnownGoodFile) -> dict[str, bytes]:
    """What is kept for settings that have one answer each."""
    return {name: bytes(one.content) for name, (one,) in keeper.load().settings.items()}


def body_of(path: Path) -> Any:
    return json.loads(path.read_bytes().split(b"\n", 1)[1])


def age(path: Path, seconds: float, *names: str) -> None:
    """Make what is in a file older, as if that time had passed without the service; all of it, or some settings."""
    head, body = json.loads(path.read_bytes().split(b"\n", 1)[0]), body_of(path)
    for name, answers in body["settings"].items():
        for answer in answers:
            answer[1] -= seconds if name in names or not names else 0
    text = json.dumps(body, separators=(",", ":")).encode()
    head |= {"length": len(text), "sha256": sha256(text).hexdigest()}
    path.write_bytes(json.dumps(head, separators=(",", ":")).encode() + b"\n" + text)


def records(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_start_without_the_service_serves_what_was_last_received(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither client raises; the status says where the values are from, and how old they are."""
    fill(kind, service, path)
    age(path, 100)
    down(service)
    new = Setting("new", int, ["user"], 1)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert (setting.get(user="jim"), setting.get(user="ann"), new.get(user="jim")) == (8, 7, 1)
        assert "restored the last known good of 1 settings, 100 seconds old; 1 settings have none" in records(caplog)
        status = client.client.status()
        assert (status.state, status.is_last_known_good, status.is_healthy) == (State.FAILING, True, True)
        assert 99 < (status.age or 0) < 110
        assert status.rules == 1

        service.intercept = lambda asked: None
        service.add_rule("s", 9, user="ann")
        client.reload()
        status = client.client.status()
        assert (setting.get(user="ann"), status.state, status.is_last_known_good) == (9, State.FRESH, False)


def test_what_was_kept_is_as_stale_as_it_is_old(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """An hour-old file is no fresh data."""
    fill(kind, service, path)
    age(path, 3600)
    down(service)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert client.client.status().state is State.STALE
        assert setting.get(user="jim") == 8


def refused(kind: Kind, service: WatchedService, path: Path, **options: Any) -> None:
    """Start without the service and without a file that may be used."""
    down(service)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, **options)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
    else:
        subject.start()
        assert subject.client.status().age is None
        subject.close()


def test_without_a_file_a_start_is_as_ever(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """It is said that there is none."""
    refused(kind, service, path)
    assert "there is no last known good to start from" in records(caplog)
    assert setting.get(user="jim") == 7


@pytest.mark.parametrize(
    ("damage", "words", "is_replaced"),
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
def test_a_file_that_cannot_be_used_is_said_to_be_so_and_ignored(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    damage: Any,
    words: str,
    is_replaced: bool,
) -> None:
    """One that was ours is replaced when the service is there; what may be somebody else's stays as it is."""
    fill(kind, service, path)
    path.write_bytes(damaged := damage(path.read_bytes()))
    refused(kind, service, path)
    assert words in records(caplog)
    assert setting.get(user="jim") == 7

    service.intercept = lambda asked: None
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8
    assert (path.read_bytes() != damaged) == is_replaced
    if is_replaced:
        forget_all_rules()
        down(service)
        with running(kind, service.url, last_known_good=path):
            assert setting.get(user="jim") == 8


def test_a_file_that_is_too_old_is_not_used(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Two hours, where one is allowed."""
    fill(kind, service, path)
    age(path, 7200)
    refused(kind, service, path, max_age=3600)
    assert "too old" in records(caplog)
    assert setting.get(user="jim") == 7


def test_a_file_of_another_service_is_not_used_and_not_overwritten(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Two environments that share a path by mistake do not get each other's values."""
    fill(kind, service, path)
    content = path.read_bytes()
    with WatchedService() as other:
        with running(kind, other.url, last_known_good=path):
            assert setting.get(user="jim") == 7
        assert "was written for a service with another URL" in records(caplog)
        assert path.read_bytes() == content
        forget_all_rules()
        refused(kind, other, path)


@pytest.mark.parametrize("mode", [0o622, 0o660, 0o777])
def test_a_file_that_others_may_write_is_not_used(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    mode: int,
) -> None:
    """Who could write it could set every setting."""
    fill(kind, service, path)
    path.chmod(mode)
    refused(kind, service, path)
    assert "could have been written by others" in records(caplog)
    assert setting.get(user="jim") == 7


def test_the_file_is_its_owners_alone_and_holds_no_secret(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Nobody else can read it; nothing of the URL, the headers or the authentication is in it."""
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


def test_what_has_not_changed_is_not_written_again(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """It is confirmed, and only now and then."""
    fill(kind, service, path)
    with running(kind, service.url, last_known_good=path) as client:
        inode = path.stat().st_ino
        client.reload()
        assert path.stat().st_ino == inode
        age(path, 700)
        client.client._session._refresher.last_known_good._store._confirmed -= 700
        client.reload()
        assert time.time() - body_of(path)["settings"]["s"][0][1] < 50
        assert len(service.questions(QUERY)) == 5
        assert "if-none-match" in service.asked[-1].headers
        assert setting.get(user="jim") == 8
        down(service)
        client.reload_expecting(HeksherError)  # for which the file is not needed
        assert "last known good" not in records(caplog)


def test_a_file_that_is_lost_is_written_again(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The service is asked for all of it once more."""
    fill(kind, service, path)
    with running(kind, service.url, last_known_good=path) as client:
        path.unlink()
        client.reload()
        client.reload()
        assert "8" in path.read_text()
    forget_all_rules()
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_a_disk_without_room_costs_the_file_and_nothing_else(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Said once; what could not be kept is kept when there is room again."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            for _ in range(3):
                client.reload()
            assert setting.get(user="jim") == 8
            assert client.client.status().state is State.FRESH
        assert records(caplog).count("cannot be stored: [Errno 28]") == 1
        assert list(path.parent.iterdir()) == [path]
        client.reload()
        client.reload()
    forget_all_rules()
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_a_disk_that_hangs_keeps_nobody_waiting(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither refreshes nor closing; it is said once, and what could not be kept is kept when the disk is back."""
    entered, released = threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        entered.set()
        released.wait(PATIENCE)

    with running(kind, service.url, last_known_good=path, request_timeout=1) as client:
        monkeypatch.setattr(os, "fsync", hang)
        for value in (8, 9):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            assert setting.get(user=f"u{value}") == value
            assert entered.is_set()
        assert records(caplog).count("cannot be stored: the disk takes too long") == 1
        released.set()
        assert eventually(lambda: "u9" not in path.read_text() and "u8" in path.read_text())
        client.reload()
        assert "u9" in path.read_text()
        released.clear()
        entered.clear()
        service.add_rule("s", 10, user="u10")
        client.client._session.refresh_soon()
        assert entered.wait(PATIENCE)
        assert took(client.close) < 0.8
        released.set()


def test_a_pipe_in_the_place_of_the_file_keeps_nobody_waiting(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Reading it would last until somebody writes; it is no file, and stays what it is."""
    os.mkfifo(path)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    refused(kind, service, path)
    assert "is not a regular file" in records(caplog)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_link_in_the_place_of_the_file_stays_one(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """What it links to is replaced."""
    target = path.parent / "elsewhere" / "kept.json"
    target.parent.mkdir()
    path.symlink_to(target)
    fill(kind, service, path)
    assert path.is_symlink()
    assert body_of(target)["settings"].keys() == {"s"}
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_drafts_of_processes_that_were_killed_are_removed(service: WatchedService, path: Path) -> None:
    """Once they are an hour old; what is younger may be another process's that is writing right now."""
    old, young, foreign = (path.with_name(name) for name in (f"{path.name}.x.new", f"{path.name}.y.new", "other.new"))
    for draft in (old, young, foreign):
        draft.touch()
    for draft in (old, foreign):
        os.utime(draft, (time.time() - 4000, time.time() - 4000))
    keep(LastKnownGoodFile(path, 1000, service.url), s=kept("1"))
    assert set(path.parent.iterdir()) == {path, young, foreign}


def test_processes_share_one_file(service: WatchedService, path: Path) -> None:
    """Each adds its settings to those of the others, and no reader ever sees half of a file."""
    keepers = [LastKnownGoodFile(path, 1000, service.url) for _ in range(4)]
    faults: list[BaseException] = []

    def save(keeper: LastKnownGoodFile, number: int) -> None:
        try:
            for i in range(20):
                keep(keeper, **{f"s{number}": kept(f'{{"rules":[],"default_value":{i}}}')})
                assert keeper.load().settings
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=save, args=[keeper, i]) for i, keeper in enumerate(keepers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    last = kept('{"rules":[],"default_value":19}')
    for number, keeper in enumerate(keepers):
        # Of two that wrote at once, one was the last; the other one notices, and has what is lacking asked for again.
        for name in keeper.save({}, digests({f"s{number}": last}), FEATURES):
            keep(keeper, **{name: last})
    assert keepers[0].load().order == FEATURES
    assert loaded(keepers[0]) == {f"s{number}": b'{"rules":[],"default_value":19}' for number in range(4)}


def test_what_nobody_confirms_any_more_grows_too_old(service: WatchedService, path: Path) -> None:
    """Though the file is written all the time, by those who still use other settings in it."""
    keeper = LastKnownGoodFile(path, 1000, service.url)
    keep(keeper, used=kept("1"), unused=kept("2"))
    age(path, 800, "unused")
    assert keep(keeper, used=kept("3")) == set()
    assert {name: round(one.age) for name, (one,) in keeper.load().settings.items()} == {"used": 0, "unused": 800}
    age(path, 300, "unused")
    assert keeper.load().settings["unused"] == []
    keep(keeper, used=kept("4"))
    assert body_of(path)["settings"].keys() == {"used", "unused"}  # Others may use it for longer.
    age(path, 31 * 24 * 3600.0, "unused")
    keep(keeper, used=kept("5"))
    assert body_of(path)["settings"].keys() == {"used"}


def test_processes_that_track_different_contexts_have_each_their_own(service: WatchedService, path: Path) -> None:
    """Also where the service sends the same for both. What another one received while it tracked less is dropped."""
    jim, ann, both = Tracking().with_values({"user": "jim"}), Tracking().with_values({"user": "ann"}), Tracking()
    keepers = [LastKnownGoodFile(path, 1000, service.url) for _ in range(3)]
    keep(keepers[0], s=kept("1", jim))
    keep(keepers[1], s=kept("1", ann))
    inode = path.stat().st_ino
    assert not keepers[0].save({}, digests({"s": kept("1", jim)}), FEATURES)
    assert path.stat().st_ino == inode
    assert {tuple(one.tracking.options["user"]) for one in keepers[0].load().settings["s"]} == {("jim",), ("ann",)}
    keep(keepers[2], s=kept("2", both))
    assert loaded(keepers[0]) == {"s": b"2"}
    assert keepers[0].save({}, digests({"s": kept("1", jim)}), FEATURES) == {"s"}


def test_of_many_that_track_different_contexts_the_last_are_kept(service: WatchedService, path: Path) -> None:
    """The file has its bounds."""
    for i in range(12):
        keep(LastKnownGoodFile(path, 1000, service.url), s=kept("1", Tracking().with_values({"user": f"u{i}"})))
        age(path, 1)
    late = LastKnownGoodFile(path, 1000, service.url)
    left = late.load().settings["s"]
    assert {name for one in left for name in one.tracking.options["user"]} == {f"u{i}" for i in range(4, 12)}
    # One that has no room in it does not ask the service for all of it again, only to make another one do so.
    inode = path.stat().st_ino
    assert not late.save({}, digests({"s": kept("1", Tracking().with_values({"user": "u0"}))}), FEATURES)
    assert path.stat().st_ino == inode


def test_processes_that_hold_different_answers_do_not_fight(service: WatchedService, path: Path) -> None:
    """One of them is late, say: who wrote last is left alone, as long as it goes on confirming that."""
    one, other = (LastKnownGoodFile(path, 1000, service.url) for _ in range(2))
    keep(one, s=kept("1"))
    keep(other, s=kept("2"))
    inode = path.stat().st_ino
    for _ in range(3):
        assert not one.save({}, digests({"s": kept("1")}), FEATURES)
        assert not other.save({}, digests({"s": kept("2")}), FEATURES)
    assert path.stat().st_ino == inode
    # The other one ends, so what it has written is not confirmed any more.
    age(path, 500)
    one._confirmed -= 200
    assert one.save({}, digests({"s": kept("1")}), FEATURES) == {"s"}
    keep(one, s=kept("1"))
    assert loaded(one) == {"s": b"1"}


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
def test_what_was_received_while_less_was_tracked_is_not_used(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    caplog: pytest.LogCaptureFixture,
    before: Any,
    now: Any,
    value: int,
) -> None:
    """Rules may be missing in it, so that others would win. What a setting has no conditions on does not matter."""
    service.declare("s", "int", 7, ["user"], version="1.0")
    service.add_rule("s", 8, user="jim")
    for tracked in (before, now):
        subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
        subject.client.set_defaults(user="nobody")
        subject.client.track_contexts(**tracked)
        with suppress(HeksherError):
            subject.start()
        assert tracked is now or setting.get(user="jim") == 8
        if tracked is now:
            assert setting.get(user="jim") == value
            assert ("fewer contexts were tracked" in records(caplog)) == (value == 7)
        subject.close()
        forget_all_rules()
        down(service)


def test_what_the_service_confirms_is_kept_however_old_it_is(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """After an outage, or a sleep, of longer than it may be used without the service."""
    fill(kind, service, path)
    with running(kind, service.url, last_known_good=path, max_age=1000) as client:
        age(path, 5000)
        client.client._session._refresher.last_known_good._store._confirmed -= 5000
        client.reload()
        assert body_of(path)["settings"].keys() == {"s"}
        assert len(service.questions(QUERY)) == 4
    forget_all_rules()
    down(service)
    with running(kind, service.url, last_known_good=path, max_age=1000):
        assert setting.get(user="jim") == 8


def test_a_disk_that_hangs_when_it_is_read_keeps_nobody_waiting(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is as without a file, and the next refresh comes."""
    fill(kind, service, path)
    down(service)
    released = threading.Event()
    begin = os.open

    def hang(name: Any, *args: Any) -> int:
        if name == path:
            released.wait(PATIENCE)
        return begin(name, *args)

    monkeypatch.setattr(os, "open", hang)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, request_timeout=1)
    subject.client.set_defaults(user="jim")

    def start() -> None:
        with suppress(HeksherError):
            subject.start()

    assert took(start) < 2.7
    assert "the disk takes too long" in (subject.client.status().last_known_good_problem or "")
    if not kind.raises_at_start:
        service.intercept = lambda asked: None
        subject.reload()
        assert setting.get() == 8
    released.set()
    subject.close()


def test_a_second_client_starts_with_what_the_first_one_left(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """In the same process the settings have their values already; the file says how old they are."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    age(path, 100)
    down(service)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert setting.get(user="jim") == 8
        assert client.client.status().state is State.FAILING
        assert 99 < (client.client.status().age or 0) < 110


def test_a_default_from_the_declaration_is_newer_than_what_was_kept(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """An older release of a program: declarations are answered, queries fail. The kept rules are used all the same."""
    setting = Setting("s", int, ["user"], 7)
    fill(kind, service, path)
    service.declare("s", "int", 5, ["user"], version="1.1")
    service.answering(QUERY, Answer(502))
    with running(kind, service.url, last_known_good=path) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert client.client.status().is_last_known_good


def test_a_default_that_comes_after_the_recall_replaces_the_kept_one(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """The rules are still those that were kept."""
    setting = Setting("s", int, ["user"], 7)
    fill(kind, service, path)
    service.declare("s", "int", 5, ["user"], version="1.1")
    down(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
        service.answering(QUERY, Answer(502))
        client.reload_expecting(HeksherError)
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 5)
        assert client.client.status().is_last_known_good


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_default_that_was_just_declared_is_newer_than_what_was_kept(
    kind: Kind, service: WatchedService, path: Path, version: str
) -> None:
    """A newer release of a program, or an operator who has put the former default back: only queries fail."""
    kept_at = Setting("s", int, ["user"], 5)
    fill(kind, service, path)
    assert kept_at.get() == 5
    registry._entries.clear()
    setting = Setting("s", int, ["user"], 10 if version == "1.1" else 5, version=version)
    service.answering(QUERY, Answer(502))
    with running(kind, service.url, last_known_good=path):
        assert (setting.get(user="jim"), setting.get(user="ann")) == (8, setting.default_value)
        assert setting.explain(user="ann").reason is Reason.SERVER_DEFAULT


def test_what_was_kept_of_a_setting_that_the_service_has_not_is_not_used(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Its database was emptied meanwhile; the declaration says `created`, and then queries fail."""
    fill(kind, service, path)
    service.renew()
    service.answering(QUERY, Answer(502))
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7


def test_a_file_in_which_nothing_is_of_use_is_no_start(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Neither is it a sign of health."""
    keep(LastKnownGoodFile(path, 1000, service.url), s=kept("1", Tracking().with_values({"user": "ann"})))
    refused(kind, service, path)
    assert setting.get(user="jim") == 7


def test_of_two_names_of_a_setting_the_newest_answer_is_used(kind: Kind, service: WatchedService, path: Path) -> None:
    """A release that renamed it was rolled back for a while."""
    keeper = LastKnownGoodFile(path, 1000, service.url)
    keep(keeper, new=kept('{"rules":[],"default_value":1}'))
    age(path, 500)
    keep(keeper, s=kept('{"rules":[],"default_value":2}'))
    new = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert new.get(user="jim") == 2


def test_a_file_that_appears_later_is_used_and_is_no_problem_any_more(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Another process wrote it, or the disk is back."""
    if kind.raises_at_start:
        pytest.skip("it does not start without")
    down(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert "No such file" in client.client.status().last_known_good_problem
        keep(LastKnownGoodFile(path, 1000, service.url), s=kept('{"rules":[],"default_value":2}'))
        client.reload()
        status = client.client.status()
        assert (setting.get(user="jim"), status.is_last_known_good, status.last_known_good_problem) == (2, True, None)


def test_answers_that_bring_nothing_make_nothing_younger(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Neither what was received before, nor what was kept."""
    fill(kind, service, path)
    age(path, 500)
    good = Setting("good", int, ["user"], 1)
    service.answering(QUERY, Answer.of({"settings": {"s": {}, "good": {"rules": [], "default_value": 2}}}))
    with running(kind, service.url, last_known_good=path, stale_after=100) as client:
        assert (setting.get(user="jim"), good.get(user="jim")) == (8, 2)
        assert (client.client.status().state, client.client.status().is_last_known_good) == (State.STALE, True)
        service.intercept = lambda asked: None
        client.reload()
        assert client.client.status().state is State.FRESH
        service.answering(QUERY, Answer.of({"settings": {}}))
        client.client._session._health._received_at -= 200
        client.reload_expecting(HeksherError)
        assert client.client.status().state is State.STALE


def test_an_order_that_is_not_known_any_more_is_not_kept_as_if_it_were(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Another process may have been told the new one."""
    with running(kind, service.url, last_known_good=path) as client:
        new = ("user", "environment", "theme")
        LastKnownGoodFile(path, 1000, service.url).save({}, {}, new)
        service.answering("GET /api/v1/context_features", Answer(500))
        client.reload()
        assert tuple(body_of(path)["context_features"]) == new
        assert setting.get(user="jim") == 7


def test_a_renamed_setting_has_what_was_kept_under_its_former_name(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """By the release of the program before this one."""
    fill(kind, service, path)
    new = Setting("new", int, ["user"], 7, alias="s", version="1.1")
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert new.get(user="jim") == 8
        assert setting.get(user="jim") == 8


def test_more_that_is_tracked_later_is_looked_up_too(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The file may have rules on it."""
    service.declare("s", "int", 7, ["user"], version="1.0")
    service.add_rule("s", 9, user="ann")
    fill(kind, service, path)
    down(service)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    subject.client.track_contexts(user="jim")
    subject.start()
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 7)
    subject.client.track_contexts(user="ann")
    subject.reload_expecting(HeksherError)
    assert (setting.get(user="jim"), setting.get(user="ann")) == (8, 9)
    subject.close()


def test_an_order_that_is_not_known_is_taken_from_the_file_and_does_not_replace_it(
    kind: Kind, service: WatchedService, path: Path
) -> None:
    """Where only that endpoint fails, rules would be ranked by the client's own list, which may be wrong."""
    setting = Setting("s", int, ["environment", "user"], 0)
    order = ["user", "theme", "environment"]
    features = "GET /api/v1/context_features"
    service.answering(features, Answer.of({"context_features": order}))
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 1, user="jim")
        service.add_rule("s", 2, environment="prod")
        client.reload()
        assert setting.get(user="jim", environment="prod") == 2
    forget_all_rules()
    service.answering(features, Answer(500))
    with running(kind, service.url, last_known_good=path) as client:
        assert setting.get(user="jim", environment="prod") == 2
        assert client.client.status().state is State.FAILING
        assert "order of the context features" in (client.client.status().last_error or "")
    assert body_of(path)["context_features"] == order


@pytest.mark.parametrize("nonsense", ["", "a\0b"])
def test_a_path_that_no_file_can_have_is_an_error_at_once(kind: Kind, nonsense: str) -> None:
    """And not at each refresh."""
    with pytest.raises(ValueError, match="last_known_good"):
        kind.make("http://127.0.0.1:9", 60, FEATURES, last_known_good=nonsense)


def test_a_setting_in_the_file_that_cannot_be_used_costs_that_setting(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """A newer version of the program may have settings of other types."""
    keeper = LastKnownGoodFile(path, 1000, service.url)
    good = Setting("good", int, ["user"], 1)
    keep(keeper, s=kept("5"), good=kept('{"rules":[],"default_value":2}'))
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert (setting.get(user="jim"), good.get(user="jim")) == (7, 2)


def test_the_order_that_was_kept_ranks_the_rules(kind: Kind, service: WatchedService, path: Path) -> None:
    """The client's own order may be outdated."""
    setting = Setting("s", int, ["user", "theme"], 7)
    keeper = LastKnownGoodFile(path, 1000, service.url)
    rules = [
        {"value": 1, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": 2, "rule_id": 2, "context_features": [["theme", "dark"]]},
    ]
    held = {"s": kept(json.dumps({"rules": rules, "default_value": 0}))}
    keeper.save(held, digests(held), ("theme", "user", "environment"))
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim", theme="dark") == 1


def test_nothing_is_kept_unless_it_is_asked_for(kind: Kind, service: WatchedService, tmp_path: Path) -> None:
    """No file appears anywhere by itself."""
    keep = Setting("s", int, ["user"], 7)
    with running(kind, service.url):
        assert keep.get() == 7
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(
    kind: Kind, service: WatchedService, tmp_path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The settings are served all the same."""
    with running(kind, service.url, last_known_good=tmp_path / "none" / "file") as client:
        assert setting.get() == 7
        assert "No such file" in (client.client.status().last_known_good_problem or "")
    assert "cannot be stored" in records(caplog)


def test_a_late_setting_gets_its_last_known_good_too(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """It is declared in a module that is imported while the service is still down."""
    with running(kind, service.url, last_known_good=path):
        late = Setting("late", int, ["user"], 1)
        service.declare("late", "int", 5, ["user"], version="1.0")
        assert setting.get() == 7
    del late
    with running(kind, service.url, last_known_good=path) as client:
        again = Setting("late", int, ["user"], 1)
        client.reload()
        assert again.get() == 5
    forget_all_rules()
    del again
    down(service)
    with running(kind, service.url, last_known_good=path) as client:
        client.forget_outcomes()
        later = Setting("late", int, ["user"], 1)
        client.next_outcome()
        assert later.get() == 5


def test_a_file_without_anything_for_the_program_is_no_start(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The async client raises as it does without a file, and nothing looks healthy."""
    keep(LastKnownGoodFile(path, 1000, service.url))
    refused(kind, service, path)
    assert setting.get(user="jim") == 7


def test_a_declaration_that_is_refused_is_raised_also_where_there_is_a_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """It is the program's mistake, and no outage."""
    fill(kind, service, path)
    service.answering(DECLARE, Answer(422))
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


def test_the_hook_hears_of_a_failure_also_when_the_file_serves(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """As of every refresh that failed."""
    fill(kind, service, path)
    down(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert isinstance(client.next_outcome(), HeksherError)
        assert setting.get(user="jim") == 8


def test_a_file_from_the_future_is_put_right(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """A clock was wrong; it would never be too old."""
    fill(kind, service, path)
    age(path, -1e8)
    with running(kind, service.url, last_known_good=path):
        assert abs(body_of(path)["settings"]["s"][0][1] - time.time()) < 60
        assert setting.get(user="jim") == 8


def test_what_others_could_have_written_is_not_taken_over(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The file is written anew, for its owner alone."""
    keep(LastKnownGoodFile(path, 1000, service.url), evil=kept('{"rules":[],"default_value":666}'))
    path.chmod(0o666)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert body_of(path)["settings"].keys() == {"s"}


@pytest.mark.parametrize(
    "what", ["_drivers.last_known_good_file.LastKnownGoodFile.load", "_core.refresh.last_known_good._newest"]
)
def test_a_recall_that_fails_in_an_unforeseen_way_does_not_end_the_client(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is a defect of ours."""

    def fail(*_: object) -> None:
        raise ValueError("unforeseen")

    fill(kind, service, path)
    monkeypatch.setattr(f"heksher_client.{what}", fail)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path)
    down(service)
    subject.client.set_defaults(user="jim")
    if kind.raises_at_start:
        with pytest.raises(HeksherError):
            subject.start()
        return
    subject.start()
    assert subject.client.status().state is State.STALE
    assert setting.get() == 7
    subject.close()
