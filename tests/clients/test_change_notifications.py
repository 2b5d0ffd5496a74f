"""Callbacks and iterators where they depend on threads, tasks and locks."""

import asyncio
import threading
from queue import SimpleQueue
from typing import Any

import pytest

from heksher_client import Change, HeksherError, Refresh, Setting, pinned
from tests.support.clients import (
    FEATURES,
    TIMEOUT_SECONDS,
    AsyncClient,
    Kind,
    Subject,
    ThreadClient,
    eventually,
    running,
)
from tests.support.service import WatchedService


def make(name: str = "s") -> Setting[int]:
    return Setting(name, int, ["user", "theme"], 1)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_without_the_lock_until_they_are_removed(kind: Kind, service: WatchedService) -> None:
    """For changes and for refreshes. Adding one returns it, as for a decorator."""
    setting = make()
    locked: list[bool] = []
    refreshes: list[Refresh] = []
    with running(kind, service.url) as subject:
        client = subject.client

        def record(change: Change[Any]) -> None:
            assert change.setting is setting
            locked.append(client.modification_lock.locked())

        note = refreshes.append
        assert client.on_change(record) is record
        assert client.on_refresh(note) is note
        service.add_rule("s", 2, user="jim")
        subject.reload()
        client.off_change(record)
        client.off_refresh(note)
        service.add_rule("s", 3, user="tom")
        subject.reload()
    assert locked == [False]
    assert [refresh.changed for refresh in refreshes] == [("s",)]


def test_callbacks_read_current_values_even_if_the_client_was_started_inside_pinned(
    kind: Kind, service: WatchedService
) -> None:
    """The snapshot of the code that starts the client does not apply to callbacks."""
    setting = make()
    seen: list[int] = []
    setting.on_change(lambda change: seen.append(setting.get(user="jim", theme="none")))
    subject = Subject(kind, service.url, 3600, FEATURES)
    with pinned():
        subject.start()
        service.add_rule("s", 2, user="jim")
        subject.reload()
    subject.close()
    assert seen == [2]


def test_a_callback_that_blocks_does_not_block_refreshes_of_the_thread_client(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other callbacks receive the missed changes merged into one. (In the async client it blocks the event loop.)"""
    setting = make()
    release = threading.Event()
    seen: list[Change[int]] = []
    setting.on_change(lambda change: release.wait(TIMEOUT_SECONDS))
    setting.on_change(seen.append)
    with ThreadClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        changes = client.changes()
        monkeypatch.setattr("heksher_client._core.refresh.hooks._HOOK_TIMEOUT", 0.05)
        for value in (2, 3):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
        assert next(changes).missed == 1
        assert seen == []
        release.set()

        def is_called() -> bool:
            client.reload()
            return bool(seen)

        assert eventually(is_called)
        assert (seen[0].missed, sorted(rule.value for rule in seen[0].added)) == (1, [2, 3])


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_threads_iterate_over_changes_until_the_client_closes(service: WatchedService) -> None:
    """An iterator blocks until the next change."""
    setting = make()
    seen: SimpleQueue[Change[Any] | None] = SimpleQueue()
    with ThreadClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        changes = client.changes()

        def iterate() -> None:
            for change in changes:
                seen.put(change)
            seen.put(None)

        thread = threading.Thread(target=iterate)
        thread.start()
        for value in (2, 3):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            change = seen.get(timeout=TIMEOUT_SECONDS)
            assert change is not None
            assert (change.setting, [rule.value for rule in change.added]) == (setting, [value])
    assert seen.get(timeout=TIMEOUT_SECONDS) is None
    thread.join()
    assert list(client.changes()) == []


@pytest.mark.anyio
async def test_tasks_iterate_over_changes_until_the_client_closes(service: WatchedService) -> None:
    """A task may leave the loop or be canceled at any time."""
    setting = make()
    async with AsyncClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))

        async def collect(changes: Any) -> list[Any]:
            return [change.added[0].value async for change in changes]

        completed, canceled = (asyncio.create_task(collect(client.changes())) for _ in range(2))
        abandoned = client.changes()
        for value in (2, 3):
            await asyncio.to_thread(service.add_rule, "s", value, user=f"u{value}")
            await client.reload()
            await asyncio.sleep(0)
        canceled.cancel()
        async for change in abandoned:
            assert (change.setting, change.missed) == (setting, 1)
            break
    assert await completed == [2, 3]
    assert [change async for change in client.changes()] == []


def test_a_watch_yields_the_value_for_one_context(kind: Kind, service: WatchedService) -> None:
    """It yields the current value, and each different one until the client closes; other contexts have no effect."""
    setting = make()
    values: SimpleQueue[int | None] = SimpleQueue()

    def iterate() -> None:
        for value in setting.watch(user="jim"):
            values.put(value)
        values.put(None)

    with running(kind, service.url) as subject:
        thread = threading.Thread(target=iterate)
        thread.start()
        assert values.get(timeout=TIMEOUT_SECONDS) == 1
        service.add_rule("s", 9, user="tom")
        subject.reload()
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert values.get(timeout=TIMEOUT_SECONDS) == 2
        service.add_rule("s", 3, theme="dark")
        subject.reload()
        subject.client.set_defaults(theme="dark")
        assert values.get(timeout=TIMEOUT_SECONDS) == 3
    assert values.get(timeout=TIMEOUT_SECONDS) is None
    thread.join()
    assert values.empty()


@pytest.mark.anyio
async def test_a_snapshot_stays_consistent_while_a_client_updates(service: WatchedService) -> None:
    """It covers all settings, and spans awaits. It does not delay updates."""
    settings = [make("a"), make("b")]
    async with AsyncClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        with pinned():
            for setting in settings:
                await asyncio.to_thread(service.add_rule, setting.name, 2, user="none")
            await client.reload()
            assert [setting.get() for setting in settings] == [1, 1]
        assert [setting.get() for setting in settings] == [2, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_w1_watch_that_begins_while_no_client_is_the_main_one(
    kind: Kind, service: WatchedService, is_async: bool
) -> None:
    """It follows the next main client, whatever that is, and ends with it. So does one that begins after that."""
    setting = make()
    values: SimpleQueue[int | None] = SimpleQueue()
    loop = asyncio.new_event_loop()

    async def iterate_async() -> None:
        async for value in setting.watch(user="jim"):
            values.put(value)
        values.put(None)

    def iterate() -> None:
        if is_async:
            loop.run_until_complete(iterate_async())
            return
        for value in setting.watch(user="jim"):
            values.put(value)
        values.put(None)

    expected = 1
    for new, conditions in ((2, {"user": "jim"}), (3, {"user": "jim", "theme": "none"})):
        thread = threading.Thread(target=iterate)
        thread.start()
        assert values.get(timeout=TIMEOUT_SECONDS) == expected
        with running(kind, service.url) as subject:
            service.add_rule("s", new, **conditions)
            subject.reload()
            assert values.get(timeout=TIMEOUT_SECONDS) == new
        assert values.get(timeout=TIMEOUT_SECONDS) is None
        thread.join()
        expected = new
    loop.close()


def test_w1_watch_goes_on_if_a_start_fails(service: WatchedService) -> None:
    """The settings are available to the next client then, and so are the watches of them."""
    setting = make()
    watch = setting.watch(user="jim")
    assert next(watch) == 1

    async def fail_to_start() -> None:
        with pytest.raises(HeksherError):
            await AsyncClient("http://127.0.0.1:9").set_as_main()

    asyncio.run(fail_to_start())
    with ThreadClient(service.url) as client:
        client.set_defaults(theme="dark")
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert next(watch) == 2
    assert list(watch) == []


def test_w1_changes_of_a_client_that_is_not_the_main_one_yet(kind: Kind, service: WatchedService) -> None:
    """Iterators and callbacks that are added before the start receive the changes."""
    setting = make()
    subject = Subject(kind, service.url, 3600, FEATURES)
    received: SimpleQueue[Change[Any]] = SimpleQueue()
    setting.on_change(received.put)
    subject.client.on_change(received.put)
    changes = subject.client.changes()
    subject.start()
    try:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        found = [next(changes), *(received.get(timeout=TIMEOUT_SECONDS) for _ in range(2))]
        assert [len(change.added) for change in found] == [1, 1, 1]
    finally:
        subject.close()
    assert list(changes) == []
