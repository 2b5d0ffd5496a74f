"""The values of context features that rules may require, and how the filters of queries contain them.

Rules require a value exactly, and the same text may be written in several ways: `é` is one character, or an `e` and an
accent. So the values of rules have Unicode's normal form C, in the service, the client and the command line.
"""

import re
from enum import Enum
from typing import Final

from heksher_client._core.settings.names import CONTEXT_NAME
from heksher_client._logging import shortened

_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f"
CONTEXT_VALUE: Final = f"[^{_CONTROLS}]+"
"""The value of a context feature in a rule."""
MAX_CONTEXT_VALUE: Final = 255
"""Characters of a value in its normal form."""
FILTER_VALUE: Final = f"(?:[^{_CONTROLS},()~]|~(?:2[89Cc]|7[Ee]))+"
"""A value in the filter of a query, with escapes."""
FILTER_CHARACTERS: Final = ",:()*"
"""Characters of filters that URLs contain as they are."""
_VALUE: Final = re.compile(rf"[^{_CONTROLS}\ud800-\udfff]{{1,{MAX_CONTEXT_VALUE}}}")
_V1_VALUE: Final = re.compile(CONTEXT_NAME)
_MAX_SHOWN: Final = 60
"""Characters of an invalid value in a message."""
_ESCAPES: Final = str.maketrans({",": "~2C", "(": "~28", ")": "~29", "~": "~7E"})
_ESCAPE: Final = re.compile("~(..)")


def normalize(text: str) -> str:
    """Return a text in Unicode's normal form C."""
    if text.isascii():
        return text
    import unicodedata  # Most programs need it for no value.

    return unicodedata.normalize("NFC", text)


def check_value(text: str, *, what: str = "the value of a context feature") -> str:
    """Return a value for a rule in its normal form.

    Raises:
        ValueError: Rules may not require it.
    """
    value = normalize(text)
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"{what} must have 1 to {MAX_CONTEXT_VALUE} characters, without control characters, "
            f"not {shortened(text, _MAX_SHOWN)!r}"
        )
    return value


def normalized_value(feature: str, value: object) -> str:
    """Return the value of a context feature in its normal form.

    Raises:
        TypeError: It is not a string.
        ValueError: Rules may not require it.
    """
    what = f"the value of context feature {feature}"
    if not isinstance(value, str):
        raise type_error(what, value)
    return check_value(str.__str__(value), what=what)


def is_v1_value(value: str) -> bool:
    """True if every service accepts the value: the reference implementation accepts no others."""
    return _V1_VALUE.fullmatch(value) is not None


def escape_value(value: str) -> str:
    """Return a value as the filter of a query contains it, with escapes of the characters that separate values.

    URLs contain the filter percent-encoded, as any text. Percent signs here would be encoded twice, which some proxies
    refuse.
    """
    return value.translate(_ESCAPES)


def unescape_value(text: str) -> str:
    """Return the value that the filter of a query contains, in its normal form."""
    return normalize(_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text))


def type_error(what: str, value: object, expected: str = "a str") -> TypeError:
    """Return the error for a context value of another type.

    It contains the type alone: the value may be an object with personal data, or have no text.

    Args:
        what: The name of the value.
        value: The value.
        expected: The expected type.
    """
    match value:
        case None:
            remedy = ""
        case Enum():  # Rules probably do not contain the text of a member, such as `Region.EU`.
            remedy = ": use value.value" if isinstance(value.value, str) else ": use str(value.value)"
        case list() | tuple() | set() | frozenset() | dict():
            remedy = ": pass a single str"
        case bytes():
            remedy = ": use value.decode()"
        case _:
            remedy = ": use str(value)"
    return TypeError(f"{what} must be {expected}, not {type(value).__qualname__}{remedy}")
