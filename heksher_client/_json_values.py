"""The equality and the depth of JSON values, for the service and the command line."""

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


def is_deeper_than(limit: int, value: Any) -> bool:
    """Return True if more than so many lists and objects are nested in a value, which may be nested to any depth.

    How deep a JSON parser goes depends on the version of Python and on the size of the stack.
    """
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(is_deeper_than(limit - 1, element) for element in inner)
