"""Notifications of changes, for both clients: callbacks, iterators over changes, and watches of a value."""

import asyncio
import gc
import logging
import threading
from contextlib import suppress
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any
from weakref import ref

import pytest

from heksher_client import (
    AsyncHeksherClient,
    Change,
    Changed,
    ClientNotRunningError,
    MissingContextError,
    Setting,
    ThreadHeksherClient,
    pinned,
)
from heksher_client.testing import Rule, SyncStubHeksherClient
from tests.support.clients import FEATURES, TIMEOUT_SECONDS, Kind, Subject, eventually, running
from tests.support.service import QUERY, CannedResponse, WatchedService


def make(name: str = "s") -> Setting[int]:
    return Setting(name, int, ["user", "theme"], 1)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_receive_the_difference_that_an_update_makes(kind: Kind, service: WatchedService) -> None:
    """Callbacks of the setting and of the client are called before the reload returns, and only if rules changed."""
    setting, other = make(), make("other")
    service.declare("s", "int", 1, ["user", "theme"])
    first = service.add_rule("s", 2, user="jim")
    seen: list[Change[int]] = []
    of_client: list[Change[Any]] = []

    @setting.on_change
    def record(change: Change[int]) -> None:
        assert setting.get(user="jim", theme="none") == (3 if seen else 2)
        seen.append(change)

    with running(kind, service.url) as subject:
        assert subject.client.on_change(of_client.append) is not None
        assert [rule.rule_id for rule in seen[0].added] == [first]
        service.call("PATCH", f"/api/v1/rules/{first}", {"value": 3})
        service.add_rule("s", 4, theme="dark")
        service.add_rule("other", 5, user="jim")
        subject.reload()
        subject.reload()
        assert len(seen) == 2
        assert [(was.value, now.value) for was, now in seen[1].changed] == [(2, 3)]
        assert [rule.value for rule in seen[1].added] == [4]
        assert [change.setting for change in of_client] == [other, setting]
        service.call("DELETE", f"/api/v1/rules/{first}")
        setting.off_change(record)
        subject.reload()
        assert len(seen) == 2
        assert [rule.rule_id for rule in of_client[2].removed] == [first]
        service.call("DELETE", "/api/v1/settings/other")
        subject.client.off_change(of_client.append)
        subject.reload()
    assert len(of_client) == 3


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


def test_a_removed_callback_is_not_called_again(kind: Kind, service: WatchedService) -> None:
    """Its pending changes are dropped. Closing the client removes all its callbacks."""
    setting = make()
    called: list[str] = []
    with running(kind, service.url) as subject:
        client = subject.client

        def first(change: Change[Any]) -> None:
            called.append("first")
            client.off_change(second)

        def second(change: Change[Any]) -> None:
            called.append("second")

        def close(change: Change[Any]) -> None:
            called.append("close")
            client._session.close()

        client.on_change(first)
        client.on_change(second)
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert called == ["first"]
        client.off_change(first)
        client.on_change(close)
        client.on_change(second)
        service.add_rule("s", 2, user="tom")
        with suppress(ClientNotRunningError):
            subject.reload()
        assert eventually(lambda: called == ["first", "close"])
    assert setting.get(user="tom", theme="none") == 2


def test_a_stub_does_not_call_a_callback_that_another_callback_removed() -> None:
    """A stub drops pending changes of a removed callback, as a client does."""
    setting = make()
    called: list[Any] = []
    with SyncStubHeksherClient() as stub:
        stub.on_change(lambda change: stub.off_change(called.append))
        stub.on_change(called.append)
        stub[setting].rules = 5
    assert called == []


def test_callbacks_receive_a_new_default(kind: Kind, service: WatchedService) -> None:
    """The service has a newer declaration with another default."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    service.declare("s", "int", 1, ["user", "theme"])
    service.declare("s", "int", 9, ["user", "theme"], version="1.1")
    with running(kind, service.url):
        assert [change.default for change in seen] == [Changed(1, 9)]


def test_callbacks_are_called_without_the_lock_and_are_isolated(kind: Kind, service: WatchedService) -> None:
    """A callback may remove itself, and the others are called even if one raises."""
    setting = make()
    calls: list[str] = []
    with running(kind, service.url) as subject:

        @setting.on_change
        def once(change: Change[int]) -> None:
            calls.append("locked" if subject.client.modification_lock.locked() else "free")
            setting.off_change(once)

        def fail(change: Change[int]) -> None:
            calls.append("failed")
            raise KeyError("mine")

        subject.client.on_change(fail)

        def cancel(change: Change[int]) -> None:
            raise asyncio.CancelledError

        subject.client.on_change(cancel)
        subject.client.on_change(lambda change: calls.append("last"))
        service.add_rule("s", 2, user="jim")
        subject.reload()
        service.add_rule("s", 3, user="tom")
        subject.reload()
    assert calls == ["free", "failed", "last", "failed", "last"]


def test_the_error_of_a_callback_is_logged(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """The record has the name of the callback, like records of failed hooks."""
    setting = make()

    def raises(change: Change[int]) -> None:
        raise KeyError("mine")

    setting.on_change(raises)
    with running(kind, service.url) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert subject.next_outcome() is None
    assert [record.message for record in caplog.records if record.exc_info] == ["raises raised"]


def test_callbacks_of_a_client_end_with_it_but_those_of_a_setting_stay(kind: Kind, service: WatchedService) -> None:
    """The next client calls the callbacks of the setting."""
    setting = make()
    of_setting: list[Change[int]] = []
    of_client: list[Change[int]] = []
    setting.on_change(of_setting.append)
    with running(kind, service.url) as subject:
        subject.client.on_change(of_client.append)
    service.add_rule("s", 2, user="jim")
    with running(kind, service.url):
        assert (len(of_setting), len(of_client)) == (1, 0)


def test_a_callback_of_the_setting_and_the_client_is_called_twice(kind: Kind, service: WatchedService) -> None:
    """The second call is not a missed change."""
    setting = make()
    seen: list[Change[int]] = []

    def record(change: Change[int]) -> None:
        seen.append(change)

    setting.on_change(record)
    with running(kind, service.url) as subject:
        subject.client.on_change(record)
        service.add_rule("s", 2, user="jim")
        subject.reload()
    assert [change.missed for change in seen] == [0, 0]


def test_a_callback_that_blocks_does_not_block_refreshes_of_the_thread_client(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other callbacks receive the missed changes merged into one. (In the async client it blocks the event loop.)"""
    monkeypatch.setattr("heksher_client._core.refresh.hooks._HOOK_TIMEOUT", 0.05)
    setting = make()
    release = threading.Event()
    seen: list[Change[int]] = []
    setting.on_change(lambda change: release.wait(TIMEOUT_SECONDS))
    setting.on_change(seen.append)
    with ThreadHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        changes = client.changes()
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


def test_the_difference_of_thousands_of_rules_is_complete(kind: Kind, service: WatchedService) -> None:
    """It is computed in steps, so that other tasks and threads run in between."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    rules = [{"context_features": [["user", f"u{n}"]], "value": n, "rule_id": n} for n in range(5000)]
    response = CannedResponse.of({"settings": {"s": {"rules": rules, "default_value": 1}}})
    with running(kind, service.url) as subject:
        service.respond_with(QUERY, response)
        subject.reload()
    assert len(seen[0].added) == 5000


def test_values_that_cannot_be_compared_are_applied_without_a_notification(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads return the new values, and an error is logged."""

    class Incomparable(int):
        def __eq__(self, other: object) -> bool:
            raise TypeError("no")

        __hash__ = int.__hash__

    setting = make()
    setting.add_validator(lambda value, rule, setting: Incomparable(value))
    setting.on_change(print)
    with running(kind, service.url) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert int.__add__(setting.get(user="jim", theme="x"), 0) == 2
        assert caplog.records[0].message == "the changes of setting s cannot be compared"
        assert caplog.records[0].levelno == logging.ERROR


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_threads_iterate_over_changes_until_the_client_closes(service: WatchedService) -> None:
    """An iterator blocks until the next change."""
    setting = make()
    seen: SimpleQueue[Change[Any] | None] = SimpleQueue()
    with ThreadHeksherClient(service.url, 3600, FEATURES) as client:
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
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
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


@pytest.mark.anyio
async def test_all_tasks_that_share_an_iterator_end_with_the_client() -> None:
    """Each waiting task gets the end of the iteration."""
    stub = SyncStubHeksherClient()
    with stub:
        changes = stub.changes()
        tasks = [asyncio.create_task(anext(changes, None)) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_SECONDS) == [None] * 3
    assert list(stub.changes()) == []


def test_an_abandoned_iterator_is_freed(kind: Kind, service: WatchedService) -> None:
    """A program need not close it."""
    with running(kind, service.url) as subject:
        changes = subject.client.changes()
        reference = ref(changes)
        assert subject.client._session.listeners
        del changes
        gc.collect()
        assert reference() is None
        assert not subject.client._session.listeners


def test_without_listeners_replaced_rules_are_freed(kind: Kind, service: WatchedService) -> None:
    """A client keeps them for the comparison only if a callback or an iterator receives the difference."""

    class Value:
        """A value that can be referenced weakly."""

        def __init__(self, number: int) -> None:
            self.number = number

    setting: Setting[Any] = make()
    setting.add_validator(lambda value, *_: Value(value))
    with running(kind, service.url) as subject:
        rule = service.add_rule("s", 2, user="jim")
        subject.reload()
        former = ref(setting.get(user="jim"))
        service.call("PUT", f"/api/v1/rules/{rule}/value", {"value": 3})
        subject.reload()
        assert setting.get(user="jim").number == 3
        assert former() is None


# -- watches -----------------------------------------------------------------------------------------------------------


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
async def test_a_watch_can_be_awaited_and_uses_the_context_of_its_task() -> None:
    """It may be created before a client, and ends with the client or when it is closed."""
    theme: ContextVar[str] = ContextVar("theme")
    theme.set("dark")
    setting = make()
    watch = setting.watch(user="jim")
    assert await anext(watch) == 1
    with SyncStubHeksherClient() as stub:
        stub.set_defaults(theme=theme)
        stub[setting].rules = [Rule({"theme": "dark"}, 2), Rule({"theme": "light"}, 3)]
        assert await anext(watch) == 2
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        stub[setting].rules = 5
        assert await waiting == 5
        watch.close()
        assert [value async for value in watch] == []
        other = setting.watch(user="jim")
        assert next(other) == 5
    assert list(other) == [1]  # the declared default, and then the end


def test_a_watch_raises_for_a_missing_context_value(service: WatchedService) -> None:
    """It raises when it is iterated, with the error that `get` raises."""
    setting = make()
    with SyncStubHeksherClient(), pytest.raises(MissingContextError):
        next(setting.watch(user="jim"))


def test_an_abandoned_watch_is_freed() -> None:
    """The setting does not refer to it."""
    setting = make()
    reference = ref(setting.watch(user="jim"))
    gc.collect()
    assert reference() is None


# -- stubs and snapshots -----------------------------------------------------------------------------------------------


def test_a_stub_notifies_callbacks_and_iterators(caplog: pytest.LogCaptureFixture) -> None:
    """A test that sets rules of a stub triggers the notifications that a client sends."""
    setting = make()
    seen: list[Change[Any]] = []
    with SyncStubHeksherClient() as stub:
        changes = stub.changes()
        stub.on_change(seen.append)
        stub.on_change(_raise)
        setting.on_change(seen.append)
        stub[setting].rules = 5
        stub[setting].rules = 5
        stub.off_change(seen.append)
        stub[setting].rules = 6
    assert [[rule.value for rule in change.added] for change in seen] == [[5], [5], []]
    assert [change.missed for change in changes] == [1]
    assert "_raise" in caplog.text


def _raise(change: Change[Any]) -> None:
    raise KeyError("mine")


@pytest.mark.anyio
async def test_a_snapshot_stays_consistent_while_a_client_updates(service: WatchedService) -> None:
    """It covers all settings, and spans awaits. It does not delay updates."""
    settings = [make("a"), make("b")]
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        with pinned():
            for setting in settings:
                await asyncio.to_thread(service.add_rule, setting.name, 2, user="none")
            await client.reload()
            assert [setting.get() for setting in settings] == [1, 1]
        assert [setting.get() for setting in settings] == [2, 2]
