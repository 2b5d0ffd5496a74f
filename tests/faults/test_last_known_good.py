"""Starting without the service, from the file with what was last received."""

import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heksher_client import HeksherError, Reason, Setting, State
from heksher_client._last_known_good import LastKnownGood
from tests.support.clients import FEATURES, Kind, Subject, running
from tests.support.service import DECLARE, Answer, WatchedService


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
    from heksher_client._core.readers import View
    from heksher_client._core.registry import registry
    from heksher_client._core.rules import RuleSet

    for known in registry.settings():
        known._reader.view = View(RuleSet(known.default_value, Reason.DECLARED_DEFAULT))


def records(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_start_without_the_service_serves_what_was_last_received(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither client raises; the status says where the values are from, and how old they are."""
    fill(kind, service, path)
    os.utime(path, (time.time() - 100, time.time() - 100))
    down(service)
    new = Setting("new", int, ["user"], 1)
    with running(kind, service.url, last_known_good=path, stale_after=1000) as client:
        assert (setting.get(user="jim"), setting.get(user="ann"), new.get(user="jim")) == (8, 7, 1)
        assert "1 settings have their last known good, of 100 seconds ago; 1 have none" in records(caplog)
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
    os.utime(path, (time.time() - 3600, time.time() - 3600))
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
        (lambda content: content[:-20], "damaged", True),
        (lambda content: content.replace(b'"value":8', b'"value":9'), "checksum", True),
        (lambda content: b"", "damaged", True),
        (lambda content: content[:60], "damaged", True),
        (lambda content: content[:70] + b"\xff" + content[71:], "damaged", True),
        (lambda content: content.replace(b'"version":1', b'"version":2'), "newer version", False),
        (lambda content: b"# my own notes\n", "is no file of last known good settings", False),
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
    os.utime(path, (time.time() - 7200, time.time() - 7200))
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
        assert "is of another service" in records(caplog)
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
    assert json.loads(body)["settings"]["s"] == {"rules": [], "default_value": 7}


def test_what_has_not_changed_is_not_written_again(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """It is confirmed by its time, and only now and then."""
    fill(kind, service, path)
    with running(kind, service.url, last_known_good=path) as client:
        inode = path.stat().st_ino
        os.utime(path, (time.time() - 100, time.time() - 100))
        client.reload()
        assert time.time() - path.stat().st_mtime < 50
        confirmed = path.stat().st_mtime
        client.reload()
        assert (path.stat().st_mtime, path.stat().st_ino) == (confirmed, inode)
        assert setting.get(user="jim") == 8


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
        assert records(caplog).count("cannot be kept: [Errno 28]") == 1
        assert list(path.parent.iterdir()) == [path]
        client.reload()
        client.reload()
    forget_all_rules()
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 8


def test_processes_share_one_file(service: WatchedService, path: Path) -> None:
    """Each adds its settings to those of the others, and no reader ever sees half of a file."""
    keepers = [LastKnownGood(path, 1000, service.url) for _ in range(4)]
    faults: list[BaseException] = []

    def save(keeper: LastKnownGood, number: int) -> None:
        try:
            for i in range(20):
                raw = msgspec.Raw(b'{"rules":[],"default_value":%d}' % i)
                keeper.save({f"s{number}": raw}, [f"s{number}"], ("user",))
                assert keeper.load().settings
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=save, args=[keeper, i]) for i, keeper in enumerate(keepers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    for number, keeper in enumerate(keepers):
        # Of two that wrote at once, one was the last; the other one notices, and has what is lacking asked for again.
        for name in keeper.save({}, [f"s{number}"], ("user",)):
            keeper.save({name: msgspec.Raw(b'{"rules":[],"default_value":19}')}, [name], ("user",))
    assert keepers[0].load().order == ("user",)
    assert keepers[0].load().settings.keys() == {"s0", "s1", "s2", "s3"}


def test_a_setting_in_the_file_that_cannot_be_used_costs_that_setting(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """A newer version of the program may have settings of other types."""
    keeper = LastKnownGood(path, 1000, service.url)
    good = Setting("good", int, ["user"], 1)
    raws = {"s": msgspec.Raw(b"5"), "good": msgspec.Raw(b'{"rules":[],"default_value":2}')}
    keeper.save(raws, raws, FEATURES)
    down(service)
    with running(kind, service.url, last_known_good=path):
        assert (setting.get(user="jim"), good.get(user="jim")) == (7, 2)


def test_the_order_that_was_kept_ranks_the_rules(kind: Kind, service: WatchedService, path: Path) -> None:
    """The client's own order may be outdated."""
    setting = Setting("s", int, ["user", "theme"], 7)
    keeper = LastKnownGood(path, 1000, service.url)
    rules = [
        {"value": 1, "rule_id": 1, "context_features": [["user", "jim"]]},
        {"value": 2, "rule_id": 2, "context_features": [["theme", "dark"]]},
    ]
    raw = msgspec.Raw(json.dumps({"rules": rules, "default_value": 0}).encode())
    keeper.save({"s": raw}, ["s"], ("theme", "user", "environment"))
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
    with running(kind, service.url, last_known_good=tmp_path / "none" / "file"):
        assert setting.get() == 7
    assert "cannot be kept" in records(caplog)


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
    LastKnownGood(path, 1000, service.url).save({}, [], FEATURES)
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
    os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    with running(kind, service.url, last_known_good=path):
        assert abs(path.stat().st_mtime - time.time()) < 60
        assert setting.get(user="jim") == 8


def test_what_others_could_have_written_is_not_taken_over(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """The file is written anew, for its owner alone."""
    raw = msgspec.Raw(b'{"rules":[],"default_value":666}')
    LastKnownGood(path, 1000, service.url).save({"evil": raw}, ["evil"], FEATURES)
    path.chmod(0o666)
    with running(kind, service.url, last_known_good=path):
        assert setting.get(user="jim") == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "666" not in path.read_text()


def test_a_keeper_that_fails_in_an_unforeseen_way_does_not_end_the_client(
    kind: Kind, service: WatchedService, tmp_path: Path, setting: Setting[int]
) -> None:
    """A name that no file can have."""
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=tmp_path / "a\0b")
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
