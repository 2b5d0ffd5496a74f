"""JSON values on the command line: parsing and formatting."""

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


def format_value(value: Any) -> str:
    """Format a JSON value for people, in one line: a string without quotes, any other value as JSON."""
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
