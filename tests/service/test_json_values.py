"""The comparison and the length of JSON values."""

from typing import Any

import pytest

from heksher_client._json_values import is_equal
from heksher_client.service.json_values import is_identical, shorten


@pytest.mark.parametrize(
    ("a", "b", "equal", "identical"),
    [
        (1, 1, True, True),
        (1, 1.0, True, False),
        (0.0, -0.0, True, False),
        (1, True, False, False),
        (0, False, False, False),
        (None, False, False, False),
        ("1", 1, False, False),
        ([1, [2]], [1.0, [2]], True, False),
        ([1, [2]], [1, [2, 3]], False, False),
        ([1], [True], False, False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True, True),
        ({"a": 1}, {"a": True}, False, False),
        ({"a": 1}, {"b": 1}, False, False),
        ({}, [], False, False),
    ],
)
def test_values_are_equal_by_number_and_identical_by_text(a: Any, b: Any, equal: bool, identical: bool) -> None:
    """Booleans are not numbers, and the order of keys does not matter."""
    assert (is_equal(a, b), is_equal(b, a)) == (equal, equal)
    assert (is_identical(a, b), is_identical(b, a)) == (identical, identical)


def test_a_long_value_is_cut_to_the_maximum_length() -> None:
    assert shorten({"a": "é"}, 9) == '{"a":"é"}'
    assert shorten({"a": "é"}, 8) == '{"a":"é…'
