"""Differences between two states of a service: renamed settings are recognized as such."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heksher_client._core.refresh.administration import Administration
from heksher_client._core.refresh.positions import Position
from heksher_client._core.refresh.protocol import SettingData
from heksher_client.admin import AdminClient, RuleRecord, ServiceState, SettingRecord
from heksher_client.cli.command_client import CommandClient
from heksher_client.cli.comparison import compare
from heksher_client.cli.watch import _Watcher
from heksher_client.exceptions import ServiceUnavailableError
from tests.support.clients import ThreadClient
from tests.support.commands import FEATURES, Run
from tests.support.service import WatchedService


def setting(
    name: str, *rules: int, aliases: tuple[str, ...] = (), value: int = 1, version: str = "1.0"
) -> SettingRecord:
    data = SettingData(name, ["user"], "int", 0, {}, list(aliases), version)
    return SettingRecord(data, tuple(RuleRecord(rule, {"user": f"u{rule}"}, value, {}) for rule in rules))


def state(*records: SettingRecord) -> ServiceState:
    return ServiceState(("user",), {record.data.name: record for record in records})


def shown(before: ServiceState, after: ServiceState, *, is_same_service: bool = True) -> list[str]:
    return [str(difference) for difference in compare(before, after, is_same_service=is_same_service)]


REPLACED = ["- a int", "- a rule user=u1: 1", "+ b int", "+ b rule user=u1: 1"]


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (Position("a", 1, 9), ["~ b name a -> b"]),
        (None, ["~ b name a -> b"]),
        (Position("b", 1, 9), REPLACED),
        (Position("a", 2, 9), REPLACED),
    ],
)
def test_l18_another_database_has_other_rules_with_the_same_ids(later: Position | None, expected: list[str]) -> None:
    """A database that takes the place of the former one, or is restored."""
    before = replace(state(setting("a", 1)), position=Position("a", 1, 5))
    after = replace(state(setting("b", 1)), position=later)
    assert shown(before, after) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([setting("a", 1)], [setting("b", 1, aliases=("a",))], ["~ b name a -> b"]),
        ([setting("a")], [setting("b", aliases=("a",))], ["~ b name a -> b"]),
        (
            [setting("a", 1)],
            [setting("b", 1, 2, aliases=("a",), value=5)],
            ["~ b name a -> b", "~ b rule user=u1: 1 -> 5", "+ b rule user=u2: 5"],
        ),
        ([setting("a", 1)], [setting("c", 1, aliases=("a", "b"))], ["~ c name a -> c", '~ c aliases [] -> ["b"]']),
        ([setting("b", 1, aliases=("a",))], [setting("a", 1, aliases=("b",))], ["~ a name b -> a"]),
        (
            [setting("a", 1), setting("b", 2, value=7)],
            [setting("b", 1), setting("a", 2, value=7)],
            ["~ a name b -> a", "~ b name a -> b"],
        ),
        (
            [setting("a", 1), setting("b", 2), setting("c", 3)],
            [setting("b", 1), setting("c", 2), setting("a", 3)],
            ["~ a name c -> a", "~ b name a -> b", "~ c name b -> c"],
        ),
        (
            [setting("a", 1), setting("b", 2)],
            [setting("b", 1, aliases=("a",))],
            ["- b int", "- b rule user=u2: 1", "~ b name a -> b"],
        ),
        (
            [setting("a", 1)],
            [setting("b", 1), setting("a", 2)],
            ["+ a int", "+ a rule user=u2: 1", "~ b name a -> b"],
        ),
        ([setting("a", 1)], [setting("a", 2)], ["- a rule user=u1: 1", "+ a rule user=u2: 1"]),
        ([setting("a", 1)], [setting("b", 2)], ["- a int", "- a rule user=u1: 1", "+ b int", "+ b rule user=u2: 1"]),
        ([setting("a")], [setting("a"), setting("b")], ["+ b int"]),
        (
            [setting("a"), setting("b")],
            [setting("c", aliases=("a", "b"))],
            ["- b int", "~ c name a -> c", '~ c aliases [] -> ["b"]'],
        ),
    ],
)
def test_l18_a_renamed_setting_is_not_removed_and_added(
    before: list[SettingRecord], after: list[SettingRecord], expected: list[str]
) -> None:
    """Rules, other names, and removed or added settings may have changed at the same time."""
    assert shown(state(*before), state(*after)) == expected


def test_periods_of_rules_are_compared() -> None:
    """Also whether a rule with the same period is in effect, which `watch` shows when it begins and ends."""
    plain = setting("a", 1)
    (rule,) = plain.rules
    periodic = replace(rule, starts_at="2030-01-01T00:00:00+00:00", in_effect=False)
    future, started = replace(plain, rules=(periodic,)), replace(plain, rules=(replace(periodic, in_effect=True),))
    assert shown(state(plain), state(future)) == [
        '~ a rule period user=u1: {} -> {"starts_at": "2030-01-01T00:00:00+00:00"}'
    ]
    assert shown(state(future), state(started)) == ["~ a rule in effect user=u1: false -> true"]
    assert shown(state(future), state(future)) == []


def test_l18_ids_of_rules_of_different_services_mean_nothing() -> None:
    """`diff` compares settings by their names and aliases."""
    before, after = state(setting("a", 1), setting("b", 2)), state(setting("a", 2), setting("b", 1))
    assert [difference.what for difference in compare(before, after)] == ["rule"] * 4
    renamed = shown(state(setting("a")), state(setting("b", aliases=("a",))), is_same_service=False)
    assert renamed == ["~ b name a -> b"]


@given(st.permutations("abcd"), st.dictionaries(st.sampled_from("abcd"), st.integers(2, 9)))
def test_l18_any_exchange_of_names_is_a_rename(names: list[str], values: Mapping[str, int]) -> None:
    """With changes of rules at the same time. Settings without rules cannot be told apart."""
    before = state(*(setting(name, number) for number, name in enumerate("abcd")))
    after = state(*(setting(new, number, value=values.get(old, 1))
                    for number, (old, new) in enumerate(zip("abcd", names, strict=True))))  # fmt: skip
    expected = sorted(
        [("name", new) for old, new in zip("abcd", names, strict=True) if old != new]
        + [("rule", new) for old, new in zip("abcd", names, strict=True) if old in values]
    )
    assert sorted((d.what, d.setting) for d in compare(before, after, is_same_service=True)) == expected


def test_l18_watch_waits_for_a_state_that_it_can_read(
    shop: WatchedService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a setting is renamed all the time, nothing is shown; afterwards, one rename to its last name."""
    client = CommandClient(ThreadClient(shop.url, 60, FEATURES))
    read, attempts = AdminClient.service_state, [0]

    def service_state(self: AdminClient, *arguments: Any) -> ServiceState:
        attempts[0] += 1
        if attempts[0] in (2, 3):
            version = f"1.{attempts[0]}"
            name = {2: "shop.color", 3: "color2"}[attempts[0]]
            shop.call("PUT", f"/api/v1/settings/{name}/name", {"name": f"color{attempts[0]}", "version": version})
            raise ServiceUnavailableError("settings were renamed")
        return read(self, *arguments)

    monkeypatch.setattr(AdminClient, "service_state", service_state)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    shop.offers_changes = False
    change = next(iter(_Watcher(client, 0.01)))
    assert str(change) == "~ color3 name shop.color -> color3"
    assert capsys.readouterr().err.count("Warning: settings were renamed") == 1
    client.close()


def test_l18_diff_of_a_service_whose_settings_are_renamed_all_the_time(
    run: Run, shop: WatchedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, which asks to try again, and not settings that seem to be missing."""
    monkeypatch.setattr(Administration, "_read_state", lambda *_: (yield from ()))
    outcome = run("diff", "shop", shop.url)
    assert (outcome.status, outcome.err.endswith("5 times in a row; try again later\n")) == (3, True), outcome.err
