"""JSON values: encoding, comparison, and the limits that values of settings and rules must keep."""

import json
from typing import Any, Final

from heksher_client._json_values import is_deeper_than
from heksher_client._logging import shortened, visible_json

MAX_DEPTH: Final = 100
"""Nested lists and objects in a value. JSON libraries fail at a few hundred."""


def encode(value: Any) -> bytes:
    """Encode a value as compact JSON.

    Raises:
        ValueError: The value contains NaN, an infinity or a lone surrogate, which are not JSON.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def shorten(value: Any, max_length: int) -> str:
    """Return a value for people, as JSON text of limited length, with an ellipsis where it was cut."""
    return shortened(visible_json(value, allow_nan=False, separators=(",", ":")), max_length)


def is_identical(a: Any, b: Any) -> bool:
    """Compare JSON values as texts: 1, 1.0 and true are different, and the order of keys does not matter."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def check(value: Any) -> Any:
    """Return a value that other JSON libraries can read.

    Raises:
        ValueError: The value is nested too deeply, or is not JSON.
    """
    if is_deeper_than(MAX_DEPTH, value):
        raise ValueError(f"more than {MAX_DEPTH} nested lists and objects")
    encode(value)  # Python's parser accepts NaN and lone surrogates, which other parsers reject.
    return value
