"""Texts that a program wraps in an object that does not show them, such as `pydantic.SecretStr`."""

from typing import Any, Protocol


class SecretString(Protocol):
    """An object that returns its text only on request."""

    def get_secret_value(self) -> str:
        """Return the text."""


def is_secret_string(value: object) -> bool:
    """Return True if a value is such an object."""
    return not isinstance(value, type) and callable(getattr(value, "get_secret_value", None))


def plain_text(value: Any) -> Any:
    """Return the text of a `SecretString`, and any other value as it is."""
    return value.get_secret_value() if is_secret_string(value) else value
