"""JSON values on the command line: parsing and formatting."""

import json
import math
import re
import sys
from typing import Any, Final

from heksher_client._json_values import is_deeper_than
from heksher_client._logging import escaped, shortened, visible_json

MAX_DEPTH: Final = 200
"""Nested lists and objects. The service accepts fewer, and functions that walk through a value fail at several hundred.
"""
_MAX_LENGTH: Final = 40
"""Characters of a number in a message."""
_INTEGER: Final = re.compile("[-+]?[0-9]+")


class NumberError(ValueError):
    """A number is too large, or not one of JSON."""


def parse_json(text: str) -> Any:
    """Parse JSON, without what Python's parser accepts by default: `NaN`, infinite numbers and repeated keys.

    Raises:
        NumberError: The text contains `NaN`, `Infinity`, or a number that is too large.
        ValueError: The text is not valid JSON, or a key is repeated: parsers disagree which value counts.
        RecursionError: The value is nested too deeply.
    """

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, element in pairs:
            if key in value:
                raise ValueError(f"the key {key!r} is repeated")
            value[key] = element
        return value

    value = json.loads(
        text,
        parse_int=parse_number,
        parse_float=parse_number,
        parse_constant=parse_number,
        object_pairs_hook=to_object,
    )
    if is_deeper_than(MAX_DEPTH, value):
        raise RecursionError(f"more than {MAX_DEPTH} nested lists and objects")
    return value


def parse_number(text: str) -> int | float:
    """Parse a number.

    Raises:
        NumberError: It is not a number of JSON, or has more digits than Python reads, or would be infinite.
    """
    shown = shortened(text, _MAX_LENGTH)
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
    except ValueError:
        raise NumberError(f"{shown} has more than {sys.get_int_max_str_digits():,} digits") from None
    number = float(text)
    if math.isfinite(number):
        return number
    is_constant = text.lstrip("-") in ("NaN", "Infinity")
    raise NumberError(f"{shown} is not valid JSON" if is_constant else f"{shown} is too large a number")


def format_value(value: Any) -> str:
    """Format a JSON value for people, in one line: a string without quotes, any other value as JSON."""
    return escaped(value) if isinstance(value, str) else visible_json(value)
