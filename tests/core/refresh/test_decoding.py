"""Decoding of query responses into rule sets: whole columns at once if possible, otherwise value by value."""

import enum
import logging
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
import pytest

from heksher_client import Conversion, HeksherEnum, HeksherSequence, Reason, Rule, Setting
from heksher_client._core.refresh.decoding import DecodedRules, ResponseDecoder, decode_default, decode_rules
from heksher_client._core.refresh.effects import Flow, Pause
from heksher_client._core.refresh.protocol import parse_queried_setting
from heksher_client._core.refresh.work_budget import BYTES_PER_RULE, WorkBudget
from heksher_client._core.settings.context import Tracking
from heksher_client._core.settings.cooperative import run_to_end
from heksher_client._core.settings.entry import PublishedRules
from heksher_client._core.settings.rule_set import RuleSet
from heksher_client._core.settings.setting import entry_of
from tests.support.log_records import summaries

T = TypeVar("T")
SETTING_WORK = 20
"""Decoding a setting counts as so many rules."""
FEATURES = ("environment", "user", "theme")


class Color(enum.Enum):
    RED = "red"
    ONE = 1


def decode_all(
    setting: Setting[Any], rules: list[tuple[Any, list[list[str]]]], default: Any, tracking: Tracking | None = None
) -> DecodedRules:
    """Decode a response with rules of these values and conditions, whose ids are 1, 2..."""
    response = {
        "default_value": default,
        "rules": [{"rule_id": i, "value": v, "context_features": c} for i, (v, c) in enumerate(rules, 1)],
    }
    queried = parse_queried_setting(setting.name, msgspec.Raw(msgspec.json.encode(response)))
    return run_to_end(decode_rules(entry_of(setting), queried, tracking=tracking or Tracking(), order=FEATURES))


def decode(
    setting: Setting[Any], rules: list[tuple[Any, list[list[str]]]], default: Any, tracking: Tracking | None = None
) -> RuleSet[Any]:
    """Do the same, and return the rules that can be used."""
    return decode_all(setting, rules, default, tracking).rule_set


def run_without_pauses(flow: Flow[T]) -> T:
    """Return the result of a flow that has no effects."""
    with pytest.raises(StopIteration) as end:
        next(flow)
    result: T = end.value.value
    return result


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
    rules: list[tuple[Any, list[list[str]]]] = [
        (1, [["user", "a"], ["user", "b"]]),
        (2, [["user", "a"], ["theme", "b"]]),
        (3, [["theme", "a"], ["theme", "b"]]),
    ]
    assert [rule.value for rule in decode(setting, rules, 0).rules()] == [2]
    rejected = [(rule_id, "it has two conditions on one context feature") for rule_id in (1, 3)]
    assert summaries(caplog.records) == [
        (
            "WARNING",
            f"setting s: 2 rules were rejected, the first of them: {rejected[0]}",
            {"setting": "s", "rejected_rules": rejected},
        )
    ]


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


@pytest.mark.parametrize("size", [1, 200])
def test_a_long_column_is_decoded_in_batches(size: int) -> None:
    """A validator makes a large setting slow, but must not block the event loop; nor must rules that are not decoded
    at once, as they are many bytes."""
    setting = Setting("s", str, ["user"], "x")
    setting.add_validator(lambda value, *_: value)
    rules = [{"rule_id": i, "value": f"{i:0{size}}", "context_features": [["user", f"u{i}"]]} for i in range(3000)]
    queried = parse_queried_setting("s", msgspec.Raw(msgspec.json.encode({"default_value": "x", "rules": rules})))
    assert len(queried.undecoded) == (3000 if size > 1 else 0)

    steps = []
    work = decode_rules(entry_of(setting), queried, tracking=Tracking(), order=FEATURES)
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            decoded = end.value
            break
    grouped, as_columns, validated = [1000] * 3, [3000], [1000] * 3
    assert steps == grouped + as_columns + validated
    assert [(rule.rule_id, int(rule.value)) for rule in decoded.rule_set.rules()] == [(i, i) for i in range(3000)]


def test_malformed_rules_of_a_large_setting_are_all_rejected() -> None:
    """In whichever batch they are."""
    rules: list[tuple[Any, Any]] = [("x" * 200, None if i in (5, 1500) else [["user", f"u{i}"]]) for i in range(2500)]
    decoded = decode_all(Setting("s", str, ["user"], ""), rules, "")
    assert len(decoded.rule_set) == 2498
    assert [rejected.rule_id for rejected in decoded.first_rejected] == [6, 1501]


def test_a_column_of_valid_values_is_converted_in_one_step() -> None:
    """It is work for all of its rules."""
    rules = [{"rule_id": i, "value": i, "context_features": [["user", f"u{i}"]]} for i in range(30)]
    queried = parse_queried_setting("s", msgspec.Raw(msgspec.json.encode({"default_value": 1, "rules": rules})))
    work = decode_rules(entry_of(Setting("s", int, ["user"], 1)), queried, tracking=Tracking(), order=FEATURES)
    grouped, as_columns, converted = 30, 30, 30
    assert list(work)[:3] == [grouped, as_columns, converted]


def test_rejected_rules_of_a_setting_are_logged_in_one_record(caplog: pytest.LogCaptureFixture) -> None:
    """It lists the first 20, like the status."""
    caplog.set_level(logging.INFO)
    setting = Setting("s", int, ["user"], 1)
    rules: list[tuple[Any, list[list[str]]]] = [("x", [["user", f"u{i}"]]) for i in range(30)]
    decoded = decode_all(setting, rules, 5)
    first = [(i, "'x' is not an int") for i in range(1, 21)]
    assert (len(decoded.rule_set), decoded.rejected, list(decoded.first_rejected)) == (0, 30, first)
    assert summaries(caplog.records) == [
        (
            "WARNING",
            f"setting s: 30 rules were rejected, the first of them: {first[0]}",
            {"setting": "s", "rejected_rules": first},
        )
    ]


def test_duplicates_of_rules_are_logged_in_one_record_and_counted_as_rejected(caplog: pytest.LogCaptureFixture) -> None:
    """The record and the status list the first 20."""
    decoded = decode_all(Setting("s", int, ["user"], 1), [(i, [["user", "jim"]]) for i in range(30)], 5)
    assert [rule.rule_id for rule in decoded.rule_set.rules()] == [30]
    assert decoded.rejected == 29
    assert list(decoded.first_rejected) == [(i, "another rule has the same conditions") for i in range(1, 21)]
    assert summaries(caplog.records) == [
        (
            "WARNING",
            "setting s: 29 rules have the same conditions as another rule; the one with the highest id is used",
            {"setting": "s", "unused_rules": list(range(1, 21))},
        )
    ]


def test_all_rules_that_cannot_be_used_are_rejected_together(caplog: pytest.LogCaptureFixture) -> None:
    """Malformed ones are listed first, and duplicates, which have a log record of their own, last."""
    rules: list[tuple[Any, Any]] = [("x", [["user", "a"]]), (2, None), (3, [["user", "b"]]), (4, [["user", "b"]])]
    decoded = decode_all(Setting("s", int, ["user"], 1), rules, 5)
    assert [rule.value for rule in decoded.rule_set.rules()] == [4]
    malformed, rejected, duplicate = decoded.first_rejected
    assert (malformed.rule_id, rejected) == (2, (1, "'x' is not an int"))
    assert duplicate == (3, "another rule has the same conditions")
    assert "context_features" in malformed.reason
    assert decoded.rejected == 3
    assert [extra for _, _, extra in summaries(caplog.records)] == [
        {"setting": "s", "rejected_rules": [malformed, rejected]},
        {"setting": "s", "unused_rules": [3]},
    ]


def test_a_default_that_cannot_be_used_leaves_the_one_that_there_is(caplog: pytest.LogCaptureFixture) -> None:
    """With the reason for it: the declared one, or an earlier one of the service."""
    setting = Setting("s", int, ["user"], 1)
    assert decode_default(entry_of(setting), "x") == (1, Reason.DECLARED_DEFAULT)
    entry_of(setting).publish(PublishedRules(RuleSet(5, Reason.SERVER_DEFAULT)))
    assert decode_default(entry_of(setting), "x") == (5, Reason.SERVER_DEFAULT)
    assert (
        summaries(caplog.records)
        == [
            (
                "WARNING",
                "setting s: the service's default value was rejected: 'x' is not an int",
                {"setting": "s", "default_value": "x"},
            )
        ]
        * 2
    )


def test_a_value_that_is_rejected_without_a_text_is_logged_with_the_class_of_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a rule or a default."""
    setting = Setting("s", int, ["user"], 1)

    @setting.add_validator
    def reject(value: int, rule: Rule[int] | None, setting: Setting[int]) -> int:
        raise LookupError

    assert decode_all(setting, [(2, [["user", "jim"]])], 3).first_rejected == ((1, "LookupError"),)
    assert [message for _, message, _ in summaries(caplog.records)] == [
        "setting s: the service's default value was rejected: LookupError",
        "setting s: 1 rules were rejected, the first of them: (1, 'LookupError')",
    ]


def test_all_parts_of_a_default_that_are_dropped_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """In one record."""
    setting = Setting("s", HeksherSequence(int), ["user"], ())
    assert decode_default(entry_of(setting), ["x", 1, None]) == ((1,), Reason.SERVER_DEFAULT)
    dropped = ["element 0 dropped: 'x' is not an int", "element 2 dropped: None is not an int"]
    assert summaries(caplog.records) == [
        (
            "WARNING",
            f"setting s: the service's default value was coerced: {dropped[0]}; {dropped[1]}",
            {"setting": "s", "default_value": ["x", 1, None], "coercions": dropped},
        )
    ]


@pytest.mark.parametrize(("options", "keeps_content"), [({}, False), ({"keeps_content": True}, True)])
def test_an_update_has_the_conditions_under_which_it_was_decoded(options: dict[str, bool], keeps_content: bool) -> None:
    """So the client notices if decoding the same response again would have another result."""
    setting = Setting("s", int, ["user"], 1)
    setting.add_validator(lambda value, *_: value)
    tracking = Tracking().with_values({"user": "jim"})
    decoder = ResponseDecoder(tracking, FEATURES, WorkBudget(), **options)
    rules = [{"rule_id": i, "value": i, "context_features": [["user", user]]} for i, user in enumerate(("ann", "jim"))]
    content = msgspec.Raw(msgspec.json.encode({"default_value": 5, "rules": rules}))
    (update,) = run_without_pauses(decoder.decode("s", content, b"digest", [entry_of(setting)]))
    applied = update.applied
    assert (update.entry, update.content) == (entry_of(setting), content if keeps_content else None)
    assert applied.validators is entry_of(setting).validators
    assert (applied.tracking, applied.order, applied.digest) == (tracking, FEATURES, b"digest")
    assert applied.decoded.rule_set.rules() == [Rule({"user": "jim"}, 1, 1)]
    assert (applied.decoded.rejected, applied.decoded.first_rejected) == (0, ())


def test_the_digest_of_a_response_is_that_of_its_content() -> None:
    """The same digest means the same rules."""
    decoder = ResponseDecoder(Tracking(), FEATURES, WorkBudget())
    assert run_without_pauses(decoder.digest(msgspec.Raw(b"{}"))) == sha256(b"{}").digest()


@pytest.mark.parametrize(
    ("size", "pauses"),
    [(1000, (0, 0)), (5000 * BYTES_PER_RULE - 1, (0, 1)), (5000 * BYTES_PER_RULE, (1, 1)), (10_000_000, (1, 1))],
)
def test_others_run_before_the_hashing_and_before_the_parsing_of_a_large_response(
    size: int, pauses: tuple[int, int]
) -> None:
    """Neither can be interrupted."""
    decoder = ResponseDecoder(Tracking(), FEATURES, WorkBudget())
    beginning = b'{"default_value":0,"rules":[]'
    content = msgspec.Raw(beginning + b" " * (size - len(beginning) - 1) + b"}")
    entry = entry_of(Setting("s", int, FEATURES, 0))
    hashing, parsing = list(decoder.digest(content)), list(decoder.decode("s", content, b"", [entry]))
    assert (hashing, parsing) == ([Pause()] * pauses[0], [Pause()] * pauses[1])


def test_others_run_between_many_settings_without_rules() -> None:
    """Each of them is some work."""
    content = msgspec.Raw(b'{"default_value":0,"rules":[]}')
    entry = entry_of(Setting("s", int, FEATURES, 0))
    decoder = ResponseDecoder(Tracking(), FEATURES, WorkBudget())
    count = 5000 // SETTING_WORK
    pauses = [list(decoder.decode("s", content, b"", [entry])) for _ in range(2 * count)]
    assert [number for number, pause in enumerate(pauses, 1) if pause] == [count, 2 * count]


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
    parsing = SETTING_WORK + len(content) // BYTES_PER_RULE + len(rules)
    assert (spent(1) - for_each, spent(3) - spent(2)) == (parsing, for_each)
