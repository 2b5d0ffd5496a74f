"""Decoding of query responses into rule sets: whole columns at once if possible, otherwise value by value."""

import enum
import logging
from typing import Any

import msgspec
import pytest

from heksher_client import Conversion, HeksherEnum, Rule, Setting
from heksher_client._core.refresh.decoding import ResponseDecoder, decode_rules
from heksher_client._core.refresh.effects import Pause
from heksher_client._core.refresh.protocol import parse_queried_setting
from heksher_client._core.refresh.work_budget import WorkBudget
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.setting import entry_of

FEATURES = ("environment", "user", "theme")


class Color(enum.Enum):
    RED = "red"
    ONE = 1


def decode(
    setting: Setting[Any], rules: list[tuple[Any, list[list[str]]]], default: Any, tracking: Tracking | None = None
) -> RuleSet[Any]:
    """Decode a response with rules of these values and conditions, whose ids are 1, 2..."""
    response = {
        "default_value": default,
        "rules": [{"rule_id": i, "value": v, "context_features": c} for i, (v, c) in enumerate(rules, 1)],
    }
    queried = parse_queried_setting(setting.name, msgspec.Raw(msgspec.json.encode(response)))
    return run_to_end(
        decode_rules(entry_of(setting), queried, tracking=tracking or Tracking(), order=FEATURES)
    ).rule_set


def decode_values(setting: Setting[Any], *values: Any) -> list[Any]:
    """Decode rules with these JSON values, and return the values of the accepted rules."""
    rules = [(value, [["user", f"u{i}"]]) for i, value in enumerate(values)]
    return [rule.value for rule in decode(setting, rules, None).rules()]


@pytest.mark.parametrize(
    ("setting_type", "default", "values", "expected"),
    [
        (int, 1, [1, -(2**63), 2**63 - 1], [1, -(2**63), 2**63 - 1]),
        (int, 1, [1, 2**64 - 1, 2**64, 2.0, 2.5, True, "1", None], [1, 2**64 - 1, 2]),
        (float, 1.0, [1.5, 2.5], [1.5, 2.5]),
        (float, 1.0, [1.5, 2], [1.5, 2.0]),
        (float, 1.0, [1.5, 10**400, 2], [1.5, 2.0]),
        (float, 1.0, [1.5, 2, True, "1"], [1.5, 2.0]),
        (str, "", ["a", "b"], ["a", "b"]),
        (str, "", ["a", 1], ["a"]),
        (bool, False, [True, False], [True, False]),
        (bool, False, [True, 1, "x"], [True]),
        (Color, Color.RED, ["red", 1], [Color.RED, Color.ONE]),
        (Color, Color.RED, ["red", "blue", True, []], [Color.RED]),
    ],
)
def test_a_column_is_used_unchanged_if_no_value_needs_a_conversion(
    setting_type: Any, default: Any, values: list[Any], expected: list[Any]
) -> None:
    """Otherwise each value is converted, and rules with invalid values are rejected."""
    setting: Setting[Any] = Setting("s", setting_type, ["user"], default)
    result = decode_values(setting, *values)
    assert result == expected
    assert [type(value) for value in result] == [type(value) for value in expected]


def test_an_overridden_conversion_is_called_for_each_value() -> None:
    """Even if the base class converts whole columns."""

    class Lenient(HeksherEnum[Color]):
        def convert_from_heksher(self, x: Any, /) -> Conversion[Color]:
            return Conversion(Color.ONE) if x == "red" else super().convert_from_heksher(x)

    assert decode_values(Setting("s", Lenient(Color), ["user"], Color.RED), "red", 1) == [Color.ONE, Color.ONE]


def test_a_rule_with_two_conditions_on_one_feature_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    """Its meaning is not defined. The other rules are used."""
    setting = Setting("s", int, ["user", "theme"], 1)
    rule_set = decode(setting, [(1, [["user", "a"], ["user", "b"]]), (2, [["user", "a"], ["theme", "b"]])], 0)
    assert [rule.value for rule in rule_set.rules()] == [2]
    assert caplog.records[0].__dict__["rejected_rules"] == [(1, "it has two conditions on one context feature")]


def test_rules_on_untracked_values_are_dropped_silently(caplog: pytest.LogCaptureFixture) -> None:
    """They cannot match a tracked context."""
    tracking = Tracking().with_values({"user": "jim"})
    setting = Setting("s", int, ["user", "theme"], 1)
    rules: list[tuple[Any, list[list[str]]]] = [
        (1, [["user", "jim"]]), (2, [["user", "ann"]]), (3, [["theme", "x"]]), (4, []),
    ]  # fmt: skip
    rule_set = decode(setting, rules, 0, tracking)
    assert sorted(rule.value for rule in rule_set.rules()) == [1, 4]
    assert not caplog.records


def test_a_validator_receives_each_rule_as_the_service_sent_it() -> None:
    """With its conditions in the order of the service, its id, and its value before the conversion."""
    seen = []
    setting = Setting("s", int, ["user", "theme"], 1)

    def record(value: int, rule: Rule[int] | None, _: Setting[int]) -> int:
        seen.append((value, rule))
        return value * 10

    setting.add_validator(record)
    rule_set = decode(setting, [(2.0, [["user", "a"], ["theme", "b"]])], 5)
    assert seen == [(5, None), (2, Rule({"user": "a", "theme": "b"}, 2.0, 1))]
    assert (rule_set.default, rule_set.rules()[0].value) == (50, 20)


def test_a_long_column_is_converted_in_batches() -> None:
    """A validator makes a large setting slow, but must not block the event loop."""
    setting = Setting("s", int, ["user"], 1)
    setting.add_validator(lambda value, *_: value)
    response = {
        "default_value": 1,
        "rules": [{"rule_id": i, "value": i, "context_features": [["user", f"u{i}"]]} for i in range(2500)],
    }
    queried = parse_queried_setting("s", msgspec.Raw(msgspec.json.encode(response)))
    work = decode_rules(entry_of(setting), queried, tracking=Tracking(), order=FEATURES)
    assert list(work).count(1000) >= 4  # two full batches are grouped, and two are validated


def test_rejected_rules_of_a_setting_are_logged_in_one_record(caplog: pytest.LogCaptureFixture) -> None:
    """It lists the first 20."""
    caplog.set_level(logging.INFO)
    setting = Setting("s", int, ["user"], 1)
    assert decode_values(setting, *["x"] * 30) == []
    (_, rejected) = caplog.records
    assert len(rejected.__dict__["rejected_rules"]) == 20
    assert "30 rules were rejected" in rejected.message


@pytest.mark.parametrize(("size", "pauses"), [(1000, 0), (10_000_000, 2)])
def test_others_run_between_the_hashing_and_the_parsing_of_a_large_response(size: int, pauses: int) -> None:
    """Neither can be interrupted."""
    decoder = ResponseDecoder(Tracking(), FEATURES, WorkBudget())
    assert list(decoder.digest(msgspec.Raw(bytes(size)))) == [Pause()] * pauses


def test_the_parsing_of_a_response_counts_once_for_all_settings_of_a_name() -> None:
    """The conversion and the index are work for each of them."""
    entry = entry_of(Setting("s", int, FEATURES, 0))
    rules = [{"rule_id": i, "value": i, "context_features": [["user", f"u{i}"]]} for i in range(10)]
    content = msgspec.Raw(msgspec.json.encode({"default_value": 0, "rules": rules}))

    def spent(settings: int) -> int:
        budget = WorkBudget()
        decoder = ResponseDecoder(Tracking(), FEATURES, budget)
        assert list(decoder.decode("s", content, b"", [entry] * settings)) == []
        return budget._spent

    for_each = spent(2) - spent(1)
    assert (spent(1) - for_each, spent(3) - spent(2)) == (len(rules), for_each)
