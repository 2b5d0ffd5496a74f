"""Changes as they come: callbacks, iterators, and the value of one context; with both clients."""

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
from tests.support.clients import FEATURES, PATIENCE, Kind, Subject, eventually, running
from tests.support.service import QUERY, Answer, WatchedService


def make(name: str = "s") -> Setting[int]:
    return Setting(name, int, ["user", "theme"], 1)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_a_callback_is_told_what_an_update_changed(kind: Kind, service: WatchedService) -> None:
    """That of the setting and that of the client; before the reload returns, and not when nothing has changed."""
    setting, other = make(), make("other")
    service.declare("s", "int", 1, ["user", "theme"])
    first = service.add_rule("s", 2, user="jim")
    seen: list[Change[int]] = []
    everything: list[Change[Any]] = []

    @setting.on_change
    def note(change: Change[int]) -> None:
        assert setting.get(user="jim", theme="none") == (3 if seen else 2)
        seen.append(change)

    with running(kind, service.url) as subject:
        assert subject.client.on_change(everything.append) is not None
        assert [rule.rule_id for rule in seen[0].added] == [first]
        service.call("PATCH", f"/api/v1/rules/{first}", {"value": 3})
        service.add_rule("s", 4, theme="dark")
        service.add_rule("other", 5, user="jim")
        subject.reload()
        subject.reload()
        assert len(seen) == 2
        assert [(was.value, now.value) for was, now in seen[1].changed] == [(2, 3)]
        assert [rule.value for rule in seen[1].added] == [4]
        assert [change.setting for change in everything] == [other, setting]
        service.call("DELETE", f"/api/v1/rules/{first}")
        setting.off_change(note)
        subject.reload()
        assert len(seen) == 2
        assert [rule.rule_id for rule in everything[2].removed] == [first]
        service.call("DELETE", "/api/v1/settings/other")
        subject.client.off_change(everything.append)
        subject.reload()
    assert len(everything) == 3


def test_callbacks_see_what_is_newest_though_the_client_was_started_inside_a_pin(
    kind: Kind, service: WatchedService
) -> None:
    """What was pinned there is no view of theirs."""
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


def test_who_is_taken_out_is_not_called_any_more(kind: Kind, service: WatchedService) -> None:
    """Not even with what was on its way to him: by another callback, say, or as the client closes."""
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


def test_a_stub_does_not_call_who_is_taken_out_either() -> None:
    """By a callback before him."""
    setting = make()
    called: list[Any] = []
    with SyncStubHeksherClient() as stub:
        stub.on_change(lambda change: stub.off_change(called.append))
        stub.on_change(called.append)
        stub[setting].rules = 5
    assert called == []


def test_a_change_of_the_default_is_told(kind: Kind, service: WatchedService) -> None:
    """Of the service's, which a newer declaration has."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    service.declare("s", "int", 1, ["user", "theme"])
    service.declare("s", "int", 9, ["user", "theme"], version="1.1")
    with running(kind, service.url):
        assert [change.default for change in seen] == [Changed(1, 9)]


def test_a_callback_is_called_outside_the_lock_and_may_do_as_it_likes(kind: Kind, service: WatchedService) -> None:
    """One that raises costs nobody else anything, and is logged; one may remove itself."""
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
    """With its name, as those of hooks."""
    setting = make()

    def raises(change: Change[int]) -> None:
        raise KeyError("mine")

    setting.on_change(raises)
    with running(kind, service.url) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert subject.next_outcome() is None
    assert [record.message for record in caplog.records if record.exc_info] == ["raises raised"]


def test_callbacks_of_a_client_end_with_it_and_those_of_a_setting_do_not(kind: Kind, service: WatchedService) -> None:
    """The next client tells the setting's."""
    setting = make()
    of_setting: list[Change[int]] = []
    of_client: list[Change[int]] = []
    setting.on_change(of_setting.append)
    with running(kind, service.url) as subject:
        subject.client.on_change(of_client.append)
    service.add_rule("s", 2, user="jim")
    with running(kind, service.url):
        assert (len(of_setting), len(of_client)) == (1, 0)


def test_one_that_is_added_twice_is_told_twice(kind: Kind, service: WatchedService) -> None:
    """By the setting and by the client, say; and nothing was missed."""
    setting = make()
    told: list[Change[int]] = []

    def hear(change: Change[int]) -> None:
        told.append(change)

    setting.on_change(hear)
    with running(kind, service.url) as subject:
        subject.client.on_change(hear)
        service.add_rule("s", 2, user="jim")
        subject.reload()
    assert [change.missed for change in told] == [0, 0]


def test_a_callback_that_hangs_keeps_no_refresh_from_ending(
    service: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the thread client; asyncio's loop is the callback's to block. What others missed they are told as one."""
    monkeypatch.setattr("heksher_client._core.refresh.hooks._HOOK_TIMEOUT", 0.05)
    setting = make()
    release = threading.Event()
    told: list[Change[int]] = []
    setting.on_change(lambda change: release.wait(PATIENCE))
    setting.on_change(told.append)
    with ThreadHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        changes = client.changes()
        for value in (2, 3):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
        assert next(changes).missed == 1
        assert told == []
        release.set()

        def is_told() -> bool:
            client.reload()
            return bool(told)

        assert eventually(is_told)
        assert (told[0].missed, sorted(rule.value for rule in told[0].added)) == (1, [2, 3])


def test_large_changes_are_found_bit_by_bit(kind: Kind, service: WatchedService) -> None:
    """Others run in between."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    rules = [{"context_features": [["user", f"u{n}"]], "value": n, "rule_id": n} for n in range(5000)]
    answer = Answer.of({"settings": {"s": {"rules": rules, "default_value": 1}}})
    with running(kind, service.url) as subject:
        service.answering(QUERY, answer)
        subject.reload()
    assert len(seen[0].added) == 5000


def test_values_that_cannot_be_compared_cost_only_the_news(
    kind: Kind, service: WatchedService, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads go on, and the reason is logged."""

    class Stubborn(int):
        def __eq__(self, other: object) -> bool:
            raise TypeError("no")

        __hash__ = int.__hash__

    setting = make()
    setting.add_validator(lambda value, rule, setting: Stubborn(value))
    setting.on_change(print)
    with running(kind, service.url) as subject:
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert int.__add__(setting.get(user="jim", theme="x"), 0) == 2
        assert caplog.records[0].message == "the changes of setting s cannot be compared"
        assert caplog.records[0].levelno == logging.ERROR


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_threads_iterate_over_changes_until_the_client_closes(service: WatchedService) -> None:
    """Waiting for the next one, for as long as it takes."""
    setting = make()
    seen: SimpleQueue[Change[Any] | None] = SimpleQueue()
    with ThreadHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        changes = client.changes()

        def follow() -> None:
            for change in changes:
                seen.put(change)
            seen.put(None)

        thread = threading.Thread(target=follow)
        thread.start()
        for value in (2, 3):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
            change = seen.get(timeout=PATIENCE)
            assert change is not None
            assert (change.setting, [rule.value for rule in change.added]) == (setting, [value])
    assert seen.get(timeout=PATIENCE) is None
    thread.join()
    assert list(client.changes()) == []


@pytest.mark.anyio
async def test_tasks_iterate_over_changes_until_the_client_closes(service: WatchedService) -> None:
    """And may leave, or be cancelled, at any time."""
    setting = make()
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))

        async def follow(changes: Any) -> list[Any]:
            return [change.added[0].value async for change in changes]

        following, cancelled = (asyncio.create_task(follow(client.changes())) for _ in range(2))
        left = client.changes()
        for value in (2, 3):
            await asyncio.to_thread(service.add_rule, "s", value, user=f"u{value}")
            await client.reload()
            await asyncio.sleep(0)
        cancelled.cancel()
        async for change in left:
            assert (change.setting, change.missed) == (setting, 1)
            break
    assert await following == [2, 3]
    assert [change async for change in client.changes()] == []


@pytest.mark.anyio
async def test_all_who_iterate_over_the_same_end_with_it() -> None:
    """Two tasks, say."""
    stub = SyncStubHeksherClient()
    with stub:
        changes = stub.changes()
        tasks = [asyncio.create_task(anext(changes, None)) for _ in range(3)]
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE) == [None] * 3
    assert list(stub.changes()) == []


def test_an_iterator_that_was_left_is_gone(kind: Kind, service: WatchedService) -> None:
    """Nobody has to close it."""
    with running(kind, service.url) as subject:
        changes = subject.client.changes()
        gone = ref(changes)
        assert subject.client._session.listeners
        del changes
        gc.collect()
        assert gone() is None
        assert not subject.client._session.listeners


def test_without_listeners_replaced_rules_are_freed(kind: Kind, service: WatchedService) -> None:
    """They are kept to be compared with new ones only if something receives the difference."""

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


# -- one context -------------------------------------------------------------------------------------------------------


def test_a_watch_follows_the_value_of_one_context(kind: Kind, service: WatchedService) -> None:
    """As it is, and then whenever it is another one; changes for others go unnoticed. It ends with the client."""
    setting = make()
    values: SimpleQueue[int | None] = SimpleQueue()

    def follow() -> None:
        for value in setting.watch(user="jim"):
            values.put(value)
        values.put(None)

    with running(kind, service.url) as subject:
        thread = threading.Thread(target=follow)
        thread.start()
        assert values.get(timeout=PATIENCE) == 1
        service.add_rule("s", 9, user="tom")
        subject.reload()
        service.add_rule("s", 2, user="jim")
        subject.reload()
        assert values.get(timeout=PATIENCE) == 2
        service.add_rule("s", 3, theme="dark")
        subject.reload()
        subject.client.set_defaults(theme="dark")
        assert values.get(timeout=PATIENCE) == 3
    assert values.get(timeout=PATIENCE) is None
    thread.join()
    assert values.empty()


@pytest.mark.anyio
async def test_a_watch_can_be_awaited_and_has_the_context_of_its_task() -> None:
    """Also before there is a client; a stub will do."""
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
    assert list(other) == [1]  # what it has again, and then the end


def test_a_context_that_is_not_whole_is_an_error_of_the_iteration(service: WatchedService) -> None:
    """As it is one of `get`."""
    setting = make()
    with SyncStubHeksherClient(), pytest.raises(MissingContextError):
        next(setting.watch(user="jim"))


def test_a_watch_that_was_left_is_gone() -> None:
    """The setting does not keep it."""
    setting = make()
    gone = ref(setting.watch(user="jim"))
    gc.collect()
    assert gone() is None


# -- stubs, pins -------------------------------------------------------------------------------------------------------


def test_a_stub_tells_what_the_test_changes(caplog: pytest.LogCaptureFixture) -> None:
    """To callbacks and iterators, as a client would."""
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
async def test_a_request_keeps_its_view_while_clients_update(service: WatchedService) -> None:
    """Across awaits and settings; updates are not held up."""
    settings = [make("a"), make("b")]
    async with AsyncHeksherClient(service.url, 3600, FEATURES) as client:
        client.set_defaults(**dict.fromkeys(FEATURES, "none"))
        with pinned():
            for setting in settings:
                await asyncio.to_thread(service.add_rule, setting.name, 2, user="none")
            await client.reload()
            assert [setting.get() for setting in settings] == [1, 1]
        assert [setting.get() for setting in settings] == [2, 2]
