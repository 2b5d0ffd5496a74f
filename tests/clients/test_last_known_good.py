"""The last known good file of real clients: the path, the URL of the service, and disks that hang."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from heksher_client import HeksherError, Setting, State
from heksher_client._drivers.last_known_good_file import LastKnownGoodFile
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, Subject, eventually, limited, running
from tests.support.last_known_good import reset_settings
from tests.support.service import CannedResponse, WatchedService


class HangingDisk:
    """A call that does not return before it is released."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.entered, self.released, self.left = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        self.released.wait(TIMEOUT_SECONDS)
        self.left.set()
        return self._call(*args, **kwargs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def make_unavailable(service: WatchedService) -> None:
    """Respond to all requests with an error from now on."""
    service.intercept = lambda request: CannedResponse(502)


def reload_until(client: Subject, condition: Callable[[], Any]) -> bool:
    """Reload until a condition is true. One reload may not be enough for a client of which a request, or a disk, took
    longer than its short `request_timeout` allows."""

    def is_true_after_reload() -> bool:
        with suppress(HeksherError):
            client.reload()
        return bool(condition())

    return eventually(is_true_after_reload)


def reads(setting: Setting[int], user: str, value: int) -> bool:
    return setting.get(user=user) == value


def write_file(kind: Kind, service: WatchedService, path: Path) -> None:
    """Run a client that writes a file with a rule, 8 for jim, and reset all settings."""
    with running(kind, service.url, last_known_good=path) as client:
        service.add_rule("s", 8, user="jim")
        client.reload()
    reset_settings()


def test_n1_a_start_without_the_service_uses_the_file(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int]
) -> None:
    """Neither client raises."""
    write_file(kind, service, path)
    make_unavailable(service)
    with running(kind, service.url, last_known_good=path) as client:
        assert setting.get(user="jim") == 8
        assert isinstance(client.next_outcome(), HeksherError)
        assert (client.client.status().state, client.client.status().is_last_known_good) == (State.FAILING, True)


@pytest.mark.parametrize(("age", "value"), [(100, 8), (101, 7)])
def test_the_file_expires_by_the_wall_clock(
    kind: Kind,
    service: WatchedService,
    path: Path,
    setting: Setting[int],
    monkeypatch: pytest.MonkeyPatch,
    age: int,
    value: int,
) -> None:
    """Other clocks start at zero when the machine does, so that a file would never expire after that."""
    written_at = 5_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: written_at)
    write_file(kind, service, path)
    content, _ = LastKnownGoodFile(path, service.url).read()
    assert [row.confirmed for row in content.settings["s"].values()] == [written_at]

    make_unavailable(service)
    monkeypatch.setattr(time, "time", lambda: written_at + age)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, max_age=100)
    with suppress(HeksherError):
        subject.start()
    problem = subject.client.status().last_known_good_problem
    subject.close()
    assert setting.get(user="jim") == value
    assert (problem is None) == (value == 8)
    assert problem is None or "is too old: 101 seconds, the maximum is 100" in problem


def test_the_status_has_the_wall_clock(
    kind: Kind, service: WatchedService, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the last success is in seconds since 1970."""
    monkeypatch.setattr(time, "time", lambda: 5_000_000_000.0)
    with running(kind, service.url) as client:
        assert client.client.status().last_success == 5_000_000_000.0
        assert setting.get() == 7


def test_the_file_contains_no_secrets(kind: Kind, service: WatchedService, path: Path, setting: Setting[int]) -> None:
    """It belongs to the URL without them, so that they may change."""
    url = service.url.replace("http://", "http://jim:pass-word@") + "/"
    arguments = {"headers": {"X-Token": "to-ken"}, "params": {"key": "pa-ram"}}
    with running(kind, url, last_known_good=path, http_client_args=arguments):
        assert setting.get(user="jim") == 7
    text = path.read_text()
    assert not any(secret in text for secret in ("pass-word", "to-ken", "pa-ram", "127.0.0.1"))
    content, _ = LastKnownGoodFile(path, service.url).read()
    assert content.settings.keys() == {setting.name}


def test_no_file_is_written_by_default(
    kind: Kind, service: WatchedService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Setting[int]
) -> None:
    """The option `last_known_good` enables it."""
    monkeypatch.chdir(tmp_path)
    with running(kind, service.url):
        assert setting.get() == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("invalid", ["", "a\0b"])
def test_an_invalid_path_raises_when_the_client_is_created(kind: Kind, invalid: str) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match="last_known_good"):
        kind.make("http://127.0.0.1:9", 60, FEATURES, last_known_good=invalid)


@pytest.mark.slow
def test_c12_writing_to_a_hanging_disk_does_not_block_the_client(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its refreshes nor its end. The responses are stored when the disk is available again."""
    with running(kind, service.url, last_known_good=path) as client:
        disk = HangingDisk(os.fsync)
        monkeypatch.setattr(os, "fsync", disk)
        with limited(client, 1):
            for value in (8, 9):
                service.add_rule("s", value, user=f"u{value}")
                assert reload_until(client, partial(reads, setting, f"u{value}", value))
                assert disk.entered.is_set()
                assert client.client.status().last_known_good_problem == "the disk takes too long"
        assert not disk.left.is_set()
        disk.released.set()
        assert eventually(lambda: "u8" in path.read_text())
        assert reload_until(client, lambda: "u9" in path.read_text())

        disk = HangingDisk(os.fsync)
        monkeypatch.setattr(os, "fsync", disk)
        service.add_rule("s", 10, user="u10")
        with limited(client, 1):
            client.client.track_contexts()  # refreshes soon
            assert disk.entered.wait(TIMEOUT_SECONDS)
            client.close()
            assert not disk.left.is_set()
        disk.released.set()


def test_c12_reading_from_a_hanging_disk_does_not_block_the_client(
    kind: Kind, service: WatchedService, path: Path, setting: Setting[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client starts without a file, and continues to refresh."""
    write_file(kind, service, path)
    make_unavailable(service)
    begin = os.open
    disk = HangingDisk(begin)

    def open_file(name: Any, *arguments: Any, **folder: Any) -> Any:
        return (disk if name == path.name else begin)(name, *arguments, **folder)

    monkeypatch.setattr(os, "open", open_file)
    subject = Subject(kind, service.url, 3600, FEATURES, last_known_good=path, request_timeout=1)
    subject.client.set_defaults(user="jim")
    with suppress(HeksherError):
        subject.start()
    assert subject.client.status().last_known_good_problem == "the disk takes too long"
    if not kind.raises_at_start:
        service.intercept = lambda request: None
        assert reload_until(subject, lambda: setting.get() == 8)
    subject.close()
    assert not disk.left.is_set()
    disk.released.set()
