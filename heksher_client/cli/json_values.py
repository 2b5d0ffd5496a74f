"""JSON values on the command line: parsing and formatting."""

import json
from typing import Any, Final

from heksher_client._json_values import is_deeper_than
from heksher_client._logging import escaped, visible_json

_MAX_DEPTH: Final = 200
"""Nested lists and objects. The service accepts fewer, and functions that walk through a value fail at several hundred.
"""


class RepeatedKeyError(ValueError):
    """An object in JSON has a key twice. Parsers disagree which value counts."""


def parse_json(text: str) -> Any:
    """Parse JSON, without what Python's parser accepts by default: `NaN`, `Infinity` and repeated keys.

    Raises:
        RepeatedKeyError: A key is repeated.
        ValueError: The text is not valid JSON.
        RecursionError: The value is nested too deeply.
    """

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, element in pairs:
            if key in value:
                raise RepeatedKeyError(f"the key {key!r} is repeated")
            value[key] = element
        return value

    value = json.loads(text, parse_constant=reject, object_pairs_hook=to_object)
    if is_deeper_than(_MAX_DEPTH, value):
        raise RecursionError(f"more than {_MAX_DEPTH} nested lists and objects")
    return value


def format_value(value: Any) -> str:
    """Format a JSON value for people, in one line: a string without quotes, any other value as JSON."""
    return escaped(value) if isinstance(value, str) else visible_json(value)
