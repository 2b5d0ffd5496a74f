"""The text of a search: where other texts contain it, in any case."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from heksher_client._core.settings.context_values import normalize
from heksher_client._logging import visible_json
from heksher_client.service.text_criteria import split_condition

_SEPARATOR: Final = re.compile("([,:]) ?")


class Matcher:
    """The text of a search, and the places where it occurs.

    The methods split texts into parts: each second part is an occurrence, and the first part is not.
    """

    def __init__(self, text: str, context_features: Sequence[str]) -> None:
        """Create a matcher.

        Args:
            text: The text. If it begins with the name of a context feature and an equals sign, like `user=ji`, only
                conditions on this feature match, those whose value begins with the rest. With a space instead, like
                `user ji`, these conditions match as well.
            context_features: The context features of the service.
        """
        self.text = text.strip()
        feature, separator, value = split_condition(self.text)
        by_name = {name.lower(): name for name in context_features} if separator else {}
        self._conditional = by_name.get(feature.lower())
        """The context feature whose conditions match if their values begin with `_value`; None if there is none."""
        self._value = _pattern(value)
        self.feature = self._conditional if separator == "=" else None
        """The same if nothing else matches."""
        self._pattern = _pattern(self.text)

    def split(self, text: str) -> list[str]:
        """Split a name, or any other text except for conditions."""
        return self._pattern.split(text) if self.feature is None else [text]

    def split_condition(self, feature: str, value: str) -> list[str]:
        """Split the value of a condition."""
        match = self._value.match(value) if feature == self._conditional else None
        return self.split(value) if match is None else ["", match[0], value[match.end() :]]

    def split_value(self, value: Any, *, is_metadata: bool = False, max_length: int | None = None) -> list[str]:
        """Split a value.

        Args:
            value: The value of a setting or a rule, whose text is JSON, or a value of metadata.
            is_metadata: Whether strings have no quotation marks.
            max_length: The maximum length of the text, without ellipses. Of a longer one, only the part around the
                first occurrence is split.
        """
        text = value if is_metadata and isinstance(value, str) else visible_json(value, separators=(",", ":"))
        return self.split(text if max_length is None else self._excerpt(text, max_length))

    def _excerpt(self, text: str, length: int) -> str:
        if len(text) <= length:
            return text
        match = self._pattern.search(text)
        start = max(0, min((match.start() if match else 0) - length // 4, len(text) - length))
        return ("…" if start else "") + text[start : start + length] + ("…" if start + length < len(text) else "")

    def matches_conditions(self, conditions: Sequence[tuple[str, str]]) -> bool:
        """Return True if the text occurs in conditions."""
        return any(
            len(self.split(feature)) > 1 or len(self.split_condition(feature, value)) > 1
            for feature, value in conditions
        )

    def matches_value(self, value: Any) -> bool:
        """Return True if the text occurs in a value."""
        return len(self.split_value(value)) > 1

    def matches_metadata(self, metadata: Mapping[str, Any]) -> bool:
        """Return True if the text occurs in metadata: in a key or a value."""
        return any(
            len(self.split(key)) > 1 or len(self.split_value(value, is_metadata=True)) > 1
            for key, value in metadata.items()
        )


def _pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of a text as it is, and as a JSON string contains it. It matches as one group."""
    forms = dict.fromkeys([text, normalize(text), visible_json(text)[1:-1]])
    return re.compile(f"({'|'.join(map(_spaced, forms))})", re.IGNORECASE)


def _spaced(text: str) -> str:
    """Return a pattern in which commas and colons may have a space, as JSON is written with and without."""
    return "".join(part + " ?" if part in (",", ":") else re.escape(part) for part in _SEPARATOR.split(text))
