"""Reading of JSON whose errors have a place, which Python's parser does not report for each."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from heksher_client.cli.json_values import MAX_DEPTH, NumberError, parse_json, parse_number
from heksher_client.cli.text_places import Path, PathTracker, TextError

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s\[\]{}:,"]+', re.DOTALL)
"""Strings, brackets, and numbers or constants."""


class JSONText:
    """A text in JSON."""

    shares_objects: Final = False
    """JSON has no aliases: each object of the content occurs once."""

    def __init__(self, text: str) -> None:
        self._text = text

    def content(self) -> Any:
        """Return the value of the text.

        Raises:
            TextError: It is not valid JSON, or has a repeated key, or a number that is too large.
        """
        try:
            return parse_json(self._text)
        except json.JSONDecodeError as error:
            path: Path = ()
            for place, position, _ in self._values():
                if position >= error.pos:
                    break
                path = place
            raise TextError(f"{error.msg} (column {error.colno})", path, error.lineno) from None
        except (ValueError, RecursionError):
            raise self._first_error() from None

    def line(self, path: Path) -> int:
        """Return the number of the line of a place, or of the nearest one that contains it."""
        nearest, length = 0, 0
        for place, position, _ in self._values(len(path)):
            if len(place) > length and place == path[: len(place)]:
                nearest, length = position, len(place)
        return self._line_at(nearest)

    def text_at(self, path: Path) -> str | None:
        """Return the text at a place; None if there is none."""
        found = (token for place, _, token in self._values(len(path)) if place == path and token.startswith('"'))
        return next(map(_decoded, found), None)

    def _line_at(self, position: int) -> int:
        return self._text.count("\n", 0, position) + 1

    def _first_error(self) -> TextError:
        """Return the first error that Python's parser does not have, or reports without a place."""
        seen: set[Path] = set()
        for path, position, token in self._values():
            if not token and path in seen:
                return TextError(f"the key `{path[-1]}` is repeated", path[:-1], self._line_at(position))
            seen.add(path)
            if problem := _problem(path, token):
                return TextError(problem, path, self._line_at(position))
        raise AssertionError("the parser has found an error")  # pragma: no cover - it reads the same tokens

    def _values(self, max_depth: int = MAX_DEPTH + 1) -> Iterator[tuple[Path, int, str]]:
        """Yield the path, the position and the token of each value, unless it is deeper than a number of steps.

        A key comes with the path of its value, and an empty token; the end of a list or object with its path.
        """
        tracker = PathTracker()
        for match in _TOKEN.finditer(self._text):
            text, is_key = match[0], False
            if text in ("]", "}"):
                tracker.leave()
            else:
                is_key = tracker.add(_decoded(text))
            if tracker.depth <= max_depth:
                yield tracker.path, match.start(), "" if is_key else text
            if text in ("[", "{"):
                tracker.enter(is_mapping=text == "{")


def _decoded(token: str) -> str:
    """Return the text of a string, or of any other token."""
    try:
        return str(json.loads(token)) if token.startswith('"') else token
    except ValueError:  # It is not valid, which is reported already.
        return token


def _problem(path: Path, token: str) -> str:
    """Return a message if a value is not accepted; otherwise an empty text."""
    if len(path) > MAX_DEPTH or (token in ("[", "{") and len(path) == MAX_DEPTH):
        return f"more than {MAX_DEPTH} nested lists and objects"
    try:
        if token and token[0] not in '[]{}"tfn':
            parse_number(token)
    except NumberError as error:
        return str(error)
    return ""
