"""Emoji of several characters: those of them that are invisible are shown as they are, and not as escapes."""

import re
from typing import Final

_EMOJI: Final = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934\u2935\u2b05-\u2b55"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
"""The characters that are emoji, with or without a variation selector, among some other symbols."""
_ESCAPES: Final = re.compile(
    rf"(?<={_EMOJI})(?:\\ufe0f(?:\\u200d(?={_EMOJI}))?|\\u200d(?={_EMOJI}))|(?<=[0-9#*])\\ufe0f(?=\u20e3)"
)
"""The escapes of a variation selector after an emoji or in a keycap, and of a joiner between two emoji."""


def with_emoji(text: str) -> str:
    """Return a text in which `escaped` or `visible_json` has escaped characters, with its emoji as they were."""
    return _ESCAPES.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    return found[0].replace(r"\ufe0f", "\ufe0f").replace(r"\u200d", "\u200d")
