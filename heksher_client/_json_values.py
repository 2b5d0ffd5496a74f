"""The equality of JSON values, for the service and the command line."""

from typing import Any


def is_equal(a: Any, b: Any) -> bool:
    """Compare JSON values, numbers by value: 1 and 1.0 are equal, 1 and true are not.

    Declarations are compared this way: programs may write the default of a `float` setting as 1 or as 1.0.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_equal, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
