"""JSON values on the command line: parsing and formatting."""

import json
from typing import Any, Final

from heksher_client._json_values import is_deeper_than
from heksher_client._logging import escaped

_MAX_DEPTH: Final = 200
"""Nested lists and objects. The service accepts fewer, and functions that walk through a value fail at several hundred.
"""


def parse_json(text: str) -> Any:
    """Parse JSON, without the constants `NaN` and `Infinity` that Python's parser accepts by default.

    Raises:
        ValueError: The text is not valid JSON.
        RecursionError: The value is nested too deeply.
    """

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not valid JSON")

    return check_depth(json.loads(text, parse_constant=reject))


def check_depth(value: Any) -> Any:
    """Return a value that is not nested too deeply.

    Raises:
        RecursionError: It is, although the parser succeeded.
    """
    if is_deeper_than(_MAX_DEPTH, value):
        raise RecursionError(f"more than {_MAX_DEPTH} nested lists and objects")
    return value


def format_value(value: Any) -> str:
    """Format a JSON value for people, in one line: a string without quotes, any other value as JSON."""
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
