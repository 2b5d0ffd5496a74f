"""Places in a text with nested values: the path of each value, also in a text that turns out to be invalid later."""

from typing import Final

from heksher_client.cli.json_values import MAX_DEPTH

_MAX_LENGTH: Final = MAX_DEPTH + 1
Path = tuple[str | int, ...]
"""The place of a value: keys of objects and indexes of lists."""


class TextError(ValueError):
    """The text is not valid, or ambiguous."""

    def __init__(self, message: str, path: Path, line: int) -> None:
        super().__init__(message)
        self.path, self.line = path, line


class PathTracker:
    """The path of the value that a parser has read last."""

    def __init__(self) -> None:
        self._steps: list[str | int | None] = []
        """The present key or index of each open object or list; None before the first key."""
        self._expects_key: list[bool] = []
        """For each open object or list, whether a key is next."""

    @property
    def path(self) -> Path:
        """The path; only its beginning, if it is longer than that of any valid value."""
        return tuple(step for step in self._steps[:_MAX_LENGTH] if step is not None)

    @property
    def depth(self) -> int:
        """The number of steps of the path."""
        return len(self._steps)

    def add(self, text: str | None) -> bool:
        """Add a value, or a key.

        Args:
            text: The text of a scalar.

        Returns:
            True if it is a key.
        """
        if not self._steps:
            return False
        step = self._steps[-1]
        if isinstance(step, int):
            self._steps[-1] = step + 1
            return False
        is_key = self._expects_key[-1]
        if is_key:
            self._steps[-1] = text
        self._expects_key[-1] = not is_key
        return is_key

    def enter(self, *, is_mapping: bool) -> None:
        """Enter the object or list that was added last."""
        self._steps.append(None if is_mapping else -1)
        self._expects_key.append(is_mapping)

    def leave(self) -> None:
        """Leave an object or a list. In an invalid text it may not have been entered."""
        del self._steps[-1:], self._expects_key[-1:]
