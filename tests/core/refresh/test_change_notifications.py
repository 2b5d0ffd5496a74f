"""Notifications of changes: callbacks, iterators over changes, and watches of a value."""

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest

from heksher_client import Change, Changed, ClientNotRunningError, Rule, Setting, pinned
from heksher_client.testing import SyncStubHeksherClient
from tests.support.driven import driven
from tests.support.fake_service import FakeService
from tests.support.log_records import summaries
from tests.support.service import QUERY, CannedResponse


def make(name: str = "s") -> Setting[int]:
    return Setting(name, int, ["user", "theme"], 1)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_receive_the_difference_that_an_update_makes(service: FakeService) -> None:
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

    with driven(service) as client:
        client.on_change(of_client.append)
        assert [rule.rule_id for rule in seen[0].added] == [first]

        service.change_rule(first, 3)
        service.add_rule("s", 4, theme="dark")
        service.add_rule("other", 5, user="jim")
        client.reload()
        assert (len(seen), len(of_client)) == (2, 2)
        client.reload()
        assert len(seen) == 2
        assert [(was.value, now.value) for was, now in seen[1].changed] == [(2, 3)]
        assert [rule.value for rule in seen[1].added] == [4]
        assert [change.setting for change in of_client] == [other, setting]

        service.delete_rule(first)
        setting.off_change(record)
        client.reload()
        assert len(seen) == 2
        assert [rule.rule_id for rule in of_client[2].removed] == [first]

        service.delete("other")
        client.off_change(of_client.append)
        client.reload()
        assert len(of_client) == 3


def test_a_callback_that_another_one_removed_is_not_called(service: FakeService) -> None:
    """Its pending changes are dropped."""
    _setting = make()
    called: list[str] = []
    with driven(service) as client:

        def first(change: Change[Any]) -> None:
            called.append("first")
            client.off_change(second)

        def second(change: Change[Any]) -> None:
            called.append("second")

        client.on_change(first)
        client.on_change(second)
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert called == ["first"]


def test_closing_the_client_removes_all_its_callbacks(service: FakeService) -> None:
    """Even if one of them closes it. The rules of that refresh are applied."""
    setting = make()
    called: list[str] = []
    with driven(service) as client:

        def close(change: Change[Any]) -> None:
            called.append("close")
            client.close()

        client.on_change(close)
        client.on_change(lambda change: called.append("last"))
        service.add_rule("s", 2, user="tom")
        with pytest.raises(ClientNotRunningError):
            client.reload()
    assert called == ["close"]
    assert setting.get(user="tom", theme="none") == 2


def test_callbacks_receive_a_new_default(service: FakeService) -> None:
    """The service has a newer declaration with another default."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    service.declare("s", "int", 1, ["user", "theme"])
    service.declare("s", "int", 9, ["user", "theme"], version="1.1")
    with driven(service):
        assert [change.default for change in seen] == [Changed(1, 9)]


def test_callbacks_are_isolated(service: FakeService) -> None:
    """One may remove itself, and the others are called even if one raises."""
    setting = make()
    calls: list[str] = []
    with driven(service) as client:

        @setting.on_change
        def once(change: Change[int]) -> None:
            calls.append("once")
            setting.off_change(once)

        def fail(change: Change[int]) -> None:
            calls.append("failed")
            raise KeyError("mine")

        def cancel(change: Change[int]) -> None:
            raise asyncio.CancelledError

        for callback in (fail, cancel, lambda change: calls.append("last")):
            client.on_change(callback)
        service.add_rule("s", 2, user="jim")
        client.reload()
        service.add_rule("s", 3, user="tom")
        client.reload()
    assert calls == ["once", "failed", "last", "failed", "last"]


def test_the_error_of_a_callback_is_logged(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """The record has the name of the callback, like records of failed hooks. The refresh has succeeded."""
    setting = make()

    def raises(change: Change[int]) -> None:
        raise KeyError("mine")

    setting.on_change(raises)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert client.outcomes == [None]
    assert summaries(caplog.records) == [("ERROR", "raises raised", {"hook": "raises"})]
    assert caplog.records[0].exc_info


def test_callbacks_of_a_client_end_with_it_but_those_of_a_setting_stay(service: FakeService) -> None:
    """The next client calls the callbacks of the setting."""
    setting = make()
    of_setting: list[Change[int]] = []
    of_client: list[Change[int]] = []
    setting.on_change(of_setting.append)
    with driven(service) as client:
        client.on_change(of_client.append)
    service.add_rule("s", 2, user="jim")
    with driven(service):
        assert (len(of_setting), len(of_client)) == (1, 0)


def test_a_callback_of_the_setting_and_the_client_is_called_twice(service: FakeService) -> None:
    """The second call is not a missed change."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    with driven(service) as client:
        client.on_change(seen.append)
        service.add_rule("s", 2, user="jim")
        client.reload()
    assert [change.missed for change in seen] == [0, 0]


def test_while_a_callback_does_not_return_others_miss_changes(service: FakeService) -> None:
    """Then they receive these merged into one. Iterators miss none."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    with driven(service) as client:
        changes = client.changes()
        client.is_calling_hooks = False
        for value in (2, 3):
            service.add_rule("s", value, user=f"u{value}")
            client.reload()
        assert seen == []
        assert next(changes).missed == 1

        client.is_calling_hooks = True
        client.reload()
        (change,) = seen
        assert (change.missed, sorted(rule.value for rule in change.added)) == (1, [2, 3])


def test_the_difference_of_thousands_of_rules_is_complete(service: FakeService) -> None:
    """It is computed in steps, so that other tasks and threads run in between."""
    setting = make()
    seen: list[Change[int]] = []
    setting.on_change(seen.append)
    rules = [{"context_features": [["user", f"u{n}"]], "value": n, "rule_id": n} for n in range(5000)]
    service.respond_with(QUERY, CannedResponse.of({"settings": {"s": {"rules": rules, "default_value": 1}}}))
    with driven(service):
        assert len(seen[0].added) == 5000


class Incomparable(int):
    """A value that raises an error when it is compared."""

    refusal: BaseException

    def __eq__(self, other: object) -> bool:
        raise self.refusal

    __hash__ = int.__hash__


@pytest.mark.parametrize("refusal", [TypeError("no"), asyncio.CancelledError()])
def test_values_that_cannot_be_compared_are_applied_without_a_notification(
    service: FakeService, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, refusal: BaseException
) -> None:
    """Reads return the new values, and an error is logged."""
    monkeypatch.setattr(Incomparable, "refusal", refusal, raising=False)
    setting, other = make(), make("t")
    seen: list[Change[int]] = []
    seen_of_other: list[Change[int]] = []
    setting.add_validator(lambda value, rule, setting: Incomparable(value))
    setting.on_change(seen.append)
    other.on_change(seen_of_other.append)
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        service.add_rule("t", 2, user="jim")
        client.reload()
        assert int.__add__(setting.get(user="jim", theme="x"), 0) == 2
    assert (len(seen), len(seen_of_other)) == (0, 1)
    record = ("ERROR", "the changes of setting s cannot be compared", {"error": refusal})
    assert summaries(caplog.records) == [record] * 2  # of the default at the start, and of the rule
    assert caplog.records[0].exc_info


def test_c11_what_ends_the_program_is_raised_by_a_comparison(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C during a slow one."""
    monkeypatch.setattr(Incomparable, "refusal", KeyboardInterrupt(), raising=False)
    setting = make()
    seen: list[Change[int]] = []
    with driven(service) as client:
        setting.add_validator(lambda value, rule, setting: Incomparable(value))
        setting.on_change(seen.append)
        service.add_rule("s", 2, user="jim")
        with pytest.raises(KeyboardInterrupt):
            client.refresh()


def test_rules_that_were_converted_again_to_the_same_values_are_not_a_change(service: FakeService) -> None:
    """Callbacks receive the changes of the other settings."""
    setting, other = make(), make("t")
    seen: list[Change[Any]] = []
    with driven(service) as client:
        service.add_rule("s", 2, user="jim")
        client.reload()
        client.on_change(seen.append)
        setting.add_validator(lambda value, rule, setting: value)
        service.add_rule("t", 2, user="jim")
        client.reload()
    assert [change.setting for change in seen] == [other]


def test_the_pending_changes_of_a_removed_callback_are_freed(service: FakeService) -> None:
    """With the values in them."""

    class Value:
        """A value that can be referenced weakly."""

        def __init__(self, number: int) -> None:
            self.number = number

    setting: Setting[Any] = make()
    setting.add_validator(lambda value, *_: Value(value))
    seen: list[Change[Any]] = []
    with driven(service) as client:
        client.on_change(seen.append)
        client.is_calling_hooks = False
        rule = service.add_rule("s", 2, user="jim")
        client.reload()
        former = ref(setting.get(user="jim", theme="x"))
        client.off_change(seen.append)
        client.is_calling_hooks = True
        service.change_rule(rule, 3)
        client.reload()
        assert setting.get(user="jim", theme="x").number == 3
        assert (former(), seen) == (None, [])


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_an_abandoned_iterator_is_freed(service: FakeService) -> None:
    """A program need not close it."""
    with driven(service) as client:
        changes = client.changes()
        reference = ref(changes)
        assert client.session.listeners
        del changes
        gc.collect()
        assert reference() is None
        assert not client.session.listeners


def test_the_status_has_the_iterators_with_names(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """With the number of settings whose changes were not taken. It is logged once if one of them falls behind."""
    caplog.set_level("INFO", "heksher_client")
    setting, other = make(), make("other")

    def behind() -> list[Any]:
        return [summary for summary in summaries(caplog.records) if "behind" in summary[1]]

    with driven(service) as client:
        named, _same_name, _unnamed = client.changes("billing"), client.changes("billing"), client.changes()
        watch = setting.watch(name="prices", user="jim", theme="none")
        assert client.status().iterators == {"billing": 0, "prices": 1}
        assert next(watch) == 1
        assert client.status().iterators == {"billing": 0, "prices": 0}
        caplog.clear()
        for value in (2, 3, 4):
            service.add_rule("s", value, user=f"jim{value}")
            client.reload()
        service.add_rule("other", 5, user="jim")
        client.reload()
        assert client.status().iterators == {"billing": 4, "prices": 1}
        is_behind = ("INFO", "the iterator billing is behind: changes are merged", {"iterator": "billing"})
        assert behind() == [is_behind] * 2, "once for each of the two"
        assert [next(named).setting for _ in range(2)] == [setting, other]
        assert client.status().iterators["billing"] == 2
        caplog.clear()
        for value in (6, 7):
            service.add_rule("s", value, user=f"jim{value}")
            client.reload()
        assert behind() == [is_behind], "of the one that had taken all"
        named.close()
        watch.close()
        assert client.status().iterators == {"billing": 2}


def test_a_watch_of_a_setting_with_a_feature_called_name() -> None:
    """The argument is its value."""
    setting = Setting("s", int, ["name"], 1)
    with SyncStubHeksherClient() as stub:
        stub[setting].rules = [Rule({"name": "jim"}, 2)]
        assert next(setting.watch(name="jim")) == 2


def test_the_name_of_an_iterator_is_a_string(service: FakeService) -> None:
    """Others are errors at once."""
    name: Any = 5
    with driven(service) as client, pytest.raises(TypeError, match="the name of an iterator must be a str, not 5"):
        client.changes(name)
    with pytest.raises(TypeError, match="the name of an iterator must be a str, not 5"):
        make().watch(name=name, user="jim")


def test_an_iterator_of_a_closed_client_is_at_its_end(service: FakeService) -> None:
    """It yields the changes that it had before."""
    _setting = make()
    with driven(service) as client:
        changes = client.changes()
        service.add_rule("s", 2, user="jim")
        client.reload()
    assert [[rule.value for rule in change.added] for change in changes] == [[2]]
    assert list(client.changes()) == []


def test_without_listeners_replaced_rules_are_freed(service: FakeService) -> None:
    """Before the refresh ends: they are kept only if a callback or an iterator receives the difference."""

    class Value:
        """A value that can be referenced weakly."""

        def __init__(self, number: int) -> None:
            self.number = number

    setting: Setting[Any] = make()
    setting.add_validator(lambda value, *_: Value(value))
    with driven(service) as client:
        rule = service.add_rule("s", 2, user="jim")
        client.reload()
        former = ref(setting.get(user="jim"))
        are_freed: list[bool] = []
        client.on_refresh(lambda refresh: are_freed.append(former() is None))
        service.change_rule(rule, 3)
        client.reload()
        assert setting.get(user="jim").number == 3
        assert are_freed == [True]


# -- watches -----------------------------------------------------------------------------------------------------------


def test_a_watch_yields_each_different_value_for_its_context(service: FakeService) -> None:
    """Other contexts have no effect, but new defaults do. It ends with the client."""
    setting = make()
    with driven(service) as client:
        client.set_defaults(theme="light")
        watch = setting.watch(user="jim")
        assert next(watch) == 1

        service.add_rule("s", 9, user="tom")
        client.reload()
        service.add_rule("s", 2, user="jim")
        client.reload()
        assert next(watch) == 2

        service.add_rule("s", 3, theme="dark")
        client.reload()
        client.set_defaults(theme="dark")
        assert next(watch) == 3
    assert list(watch) == []


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_stays_consistent_while_a_client_updates(service: FakeService) -> None:
    """It covers all settings, and does not delay updates."""
    settings = [make("a"), make("b")]
    with driven(service) as client:
        with pinned():
            for setting in settings:
                service.add_rule(setting.name, 2, user="none")
            client.reload()
            assert [setting.get() for setting in settings] == [1, 1]
        assert [setting.get() for setting in settings] == [2, 2]
