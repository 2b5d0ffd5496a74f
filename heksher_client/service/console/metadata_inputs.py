"""Form inputs for metadata: a row for each key, and conversion between rows and metadata.

A value is entered as JSON or, if it is not JSON, as a text without quotation marks.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from pydantic import TypeAdapter, ValidationError

from heksher_client._logging import escaped, visible_json
from heksher_client.service.console.emoji import with_emoji
from heksher_client.service.console.inputs import Fields
from heksher_client.service.console.outcomes import FormError
from heksher_client.service.routing import JSONValue, MetadataKey

DESCRIPTION: Final = "description"
"""The key of the description, which has an input of its own."""
_KEY: Final[TypeAdapter[str]] = TypeAdapter(MetadataKey)
_VALUE: Final[TypeAdapter[Any]] = TypeAdapter(JSONValue)
_JSON_START: Final = ("{", "[", '"')
"""Texts that begin like this are meant as JSON, so an error in them is reported."""


def description_of(metadata: Mapping[str, Any]) -> str:
    """Return the description in metadata; empty if there is none, or if it is not a text."""
    description = metadata.get(DESCRIPTION, "")
    return description if isinstance(description, str) else ""


def metadata_rows(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the key and the content of the row for each key, except for the description."""
    shown = {key: value for key, value in metadata.items() if key != DESCRIPTION or not isinstance(value, str)}
    return [(key, format_metadata(value)) for key, value in shown.items()]


def format_metadata(value: Any) -> str:
    """Return the content of the input for a value. `parse_metadata` returns the value again."""
    if isinstance(value, str) and _is_plain(value):
        return value
    return with_emoji(visible_json(value))


def parse_metadata(content: str) -> Any:
    """Return the value that was entered into an input.

    Raises:
        FormError: The content looks like JSON, and is not.
    """
    content = content.replace("\r\n", "\n").strip()
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if content.startswith(_JSON_START):
            raise FormError(f"invalid JSON: {error}; put a text that begins like JSON in quotation marks") from None
        return content
    try:
        return _VALUE.validate_python(value)
    except ValidationError as error:
        raise FormError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def entered_rows(fields: Fields) -> list[tuple[str, str]]:
    """Return the rows of a submitted form, without those that are empty."""
    pairs = zip(fields.get("key", ()), fields.get("content", ()), strict=False)
    return [(key.strip(), content) for key, content in pairs if key.strip() or content.strip()]


def entered_metadata(fields: Fields) -> dict[str, Any]:
    """Return the metadata that were entered. A key without a content is left out.

    Raises:
        FormError: A row is invalid.
    """
    metadata: dict[str, Any] = {}
    if description := fields.get(DESCRIPTION, [""])[0].replace("\r\n", "\n").strip():
        metadata[DESCRIPTION] = description
    for key, content in entered_rows(fields):
        if not content.strip():
            continue
        if key in metadata:
            raise FormError(f"the key {key} occurs twice", at="metadata")
        metadata[_checked_key(key)] = _checked_value(key, content)
    return metadata


def _checked_key(key: str) -> str:
    try:
        return _KEY.validate_python(key)
    except ValidationError:
        shown = f"{key!r} is not a valid key" if key else "a value has no key"
        raise FormError(f"{shown}: use letters, digits, underscores and hyphens", at="metadata") from None


def _checked_value(key: str, content: str) -> Any:
    try:
        return parse_metadata(content)
    except FormError as error:
        raise FormError(f"{key}: {error}", at="metadata") from None


def _is_plain(text: str) -> bool:
    """Return True if a text is parsed as itself, and can be seen as it is."""
    visible = text.replace("\n", "")
    try:
        return text != "" and parse_metadata(text) == text and with_emoji(escaped(visible)) == visible
    except FormError:
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
