"""JSON values on the command line: parsing, comparison and formatting."""

import json
from typing import Any

from heksher_client._logging import escaped


def parse_json(text: str) -> Any:
    """Parse JSON, without the constants `NaN` and `Infinity` that Python's parser accepts by default.

    Raises:
        ValueError: The text is not valid JSON.
        RecursionError: The value is nested too deeply.
    """

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=reject)


def json_equal(first: Any, second: Any) -> bool:
    """Compare two JSON values: `true` differs from `1`, which Python considers equal; `1` and `1.0` are one number."""
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(json_equal(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(json_equal, first, second))
    return bool(first == second)


def format_value(value: Any) -> str:
    """Format a JSON value for people, in one line: a string without quotes, any other value as JSON."""
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
