"""The inputs of the console for values, and its explanations of values."""

import re
from typing import Any

import pytest

from heksher_client._logging import escaped, visible_json
from heksher_client.service.console.emoji import with_emoji
from heksher_client.service.console.inputs import InputError, format_input, input_for, parse_input
from heksher_client.service.console.metadata_inputs import format_metadata, parse_metadata
from heksher_client.service.console.why import explain
from heksher_client.service.setting_types import parse_setting_type
from heksher_client.service.store import StoredRule


@pytest.mark.parametrize(
    ("type_", "value", "kind"),
    [
        ("int", 5, "number"),
        ("int", -(10**30), "number"),
        ("float", 0.5, "number"),
        ("float", 2, "number"),
        ("bool", False, "choice"),
        ("str", "two\nlines ", "text"),
        ('Enum["a",1,true]', True, "choice"),
        ('Enum["a",1,true]', 1, "choice"),
        ('Enum["1",1]', "1", "choice"),
        ('Flags["a","b"]', ["b"], "choices"),
        ('Flags["a","b"]', [], "choices"),
        ("Sequence<int>", [1, 2], "json"),
        ("Mapping<Sequence<str>>", {"k": ["é"]}, "json"),
    ],
)
def test_formatting_and_parsing_an_input_returns_the_same_value(type_: str, value: Any, kind: str) -> None:
    """For each type."""
    parsed = parse_setting_type(type_)
    assert input_for(parsed).kind == kind
    back = parse_input(parsed, format_input(parsed, value))
    assert (back, type(back)) == (value, type(value))


def test_a_whole_number_may_be_stored_as_a_float() -> None:
    """JSON does not distinguish 5 from 5.0, and the displayed value can be saved."""
    for value in (5.0, 1e22):
        assert parse_input(parse_setting_type("int"), format_input(parse_setting_type("int"), value)) == value
    assert format_input(parse_setting_type("Enum[1,2]"), 2.0) == ["2"]
    assert [label for _, label in input_for(parse_setting_type('Enum["1",1,"a"]')).options] == ['"1"', "a", "1"]


def test_a_number_keeps_its_digits() -> None:
    """A whole number does not become a float that is near it."""
    for type_, text, value in (
        ("int", "12345678901234567890.0", 12345678901234567890),
        ("int", "-" + "9" * 4000 + ".", 1 - 10**4000),
        ("float", "12345678901234567890", 12345678901234567890),
        ("float", "0." + "1" * 5000, 1 / 9),
        ("float", "1" + "0" * 308, 10**308),
        ("float", "0" * 5000 + "5e0", 5.0),
    ):
        parsed = parse_input(parse_setting_type(type_), [text])
        assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("type_", "given", "message"),
    [
        ("int", ["1.5"], "not a whole number"),
        ("int", ["-" + "9" * 5000], "the number is too long"),
        ("int", ["9" * 5000 + ".0"], "the number is too long"),
        ("float", ["9" * 5000], "the number is too long"),
        ("float", ["-" + "9" * 5000], "the number is too long"),
        ("float", ["9" * 5000 + ".0"], "Out of range"),
        ("float", ["9" * 400], "not a value of the type float"),
        ("Enum[1]", ["9" * 5000], "a number is too long"),
        ("Flags[1]", ["9" * 5000], "a number is too long"),
        ("int", [], "a value is required"),
        ("float", ["nan"], "not a number"),
        ("float", ["1e999"], "Out of range"),
        ("bool", ["maybe"], "invalid JSON"),
        ('Enum["a"]', ['"b"'], "not a value of the type"),
        ('Flags["a"]', ['"a"', '"a"'], "not a value of the type"),
        ("Sequence<int>", ["[1,"], "(line 1, column 4)"),
        ("Sequence<int>", ["[" + "9" * 5000 + "]"], "a number is too long"),
        ("Sequence<int>", ["[" * 200 + "]" * 200], "more than 100 nested lists and objects"),
        ("Sequence<int>", ["[" * 100_000 + "]" * 100_000], "more than 100 nested lists and objects"),
        ("Sequence<int>", ['["a"]'], "not a value of the type Sequence<int>"),
    ],
)
def test_an_invalid_input_is_an_error_with_a_message(type_: str, given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_input(parse_setting_type(type_), given)


def test_the_explanation_names_the_last_feature_in_which_two_rules_differ() -> None:
    """The last feature has the highest priority."""
    order = ["a", "b", "c"]
    rules = [
        StoredRule(1, 1, (("a", "x"), ("b", "x")), 1, {}),
        StoredRule(2, 1, (("c", "x"),), 2, {}),
        StoredRule(3, 1, (("a", "y"),), 3, {}),
    ]
    explanation = explain(rules, order, 0, {"a": "x", "b": "x", "c": "x"}, omitted=1)
    assert (explanation.value, explanation.winner, explanation.omitted) == (2, 2, 1)
    assert [(line.rule.id, line.outcome) for line in explanation.lines] == [(2, "wins"), (1, "loses")]
    assert [cell.is_decisive for cell in explanation.lines[1].cells] == [False, False, True]


EMOJI = (
    "\u26a0\ufe0f",  # a warning sign
    "\U0001f469\u200d\U0001f4bb",  # a technologist
    "\U0001f468\U0001f3fd\u200d\U0001f469\u200d\U0001f467",  # a family
    "\U0001f3f3\ufe0f\u200d\U0001f308",  # a rainbow flag
    "1\ufe0f\u20e3",  # a keycap
)


@pytest.mark.parametrize("emoji", EMOJI)
def test_emoji_of_several_characters_are_shown(emoji: str) -> None:
    """As texts, and in JSON. Inputs for JSON and metadata contain them, and are read as the same value."""
    text = f"Beware {emoji}!"
    assert with_emoji(escaped(text)) == text
    assert with_emoji(visible_json([text])) == f'["{text}"]'
    type_ = parse_setting_type("Sequence<str>")
    assert emoji in format_input(type_, [text])[0]
    assert parse_input(type_, format_input(type_, [text])) == [text]
    assert format_metadata(text) == text
    assert emoji in format_metadata([text])
    assert parse_metadata(format_metadata([text])) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "a\ufe0fb", "a\u200db", "\u26a0\u200d", "\u200d\u26a0", "1\ufe0f", "\u26a0\u202e", "\u26a0\u2066", "\ufe0f",
    ],
)  # fmt: skip
def test_invisible_characters_that_belong_to_no_emoji_are_escaped(text: str) -> None:
    """Among them those that change the direction of text."""
    assert with_emoji(escaped(text)) == escaped(text) != text
    assert with_emoji(visible_json(text)) == visible_json(text)


def test_a_backslash_in_json_stays_what_it_is() -> None:
    assert with_emoji(visible_json("\u26a0\\ufe0f")) == '"\u26a0\\\\ufe0f"'
