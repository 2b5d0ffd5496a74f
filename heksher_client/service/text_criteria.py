"""Criteria that find a text, in any case, in names, conditions and JSON, as the database stores them."""

import json
from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Text, cast, func, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from heksher_client._core.settings.context_values import normalize
from heksher_client.service.schema import RULES

MAX_TEXT: Final = 1_000
"""Characters of a text to find."""
_JSON_SYNTAX: Final = frozenset('[]{}":, ')
_ASCII_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


def contains(column: ColumnElement[Any], text: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Return the criterion that a column contains a text, in the same case."""
    # Not with LIKE, which ignores case in SQLite, and whose patterns SQLite limits.
    return func.replace(column, text, "") != column


def is_searchable(text: str) -> bool:
    """Return True if a text has a character that is not part of the syntax of JSON, which all rules contain."""
    return not _JSON_SYNTAX.issuperset(text)


def name_contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the criterion that a name or an alias contains a text."""
    return _contains_any(column, [_in_json(text)])  # PostgreSQL would raise an error for NUL.


def conditions_contain(text: str, *, whole: bool = False) -> ColumnElement[bool]:
    """Return the criterion that the conditions of a rule contain a text.

    Args:
        text: A part of a value or of the name of a context feature; or `user=ji` or `user ji`, which finds the rules
            for users whose value begins with `ji`.
        whole: Whether a text with an equals sign is only a condition, and not a part of a value as well.
    """
    found = []
    for spelling in _spellings(normalize(text)):
        feature, separator, value = split_condition(spelling)
        if separator:
            found.append(f'"{feature}", "{_in_conditions(value)}')
        if not (separator == "=" and whole):
            found.append(_in_conditions(spelling))
    return _contains_any(RULES.c.conditions, found)


def split_condition(text: str) -> tuple[str, str, str]:
    """Split a text like `user=jim` or `user jim` into the feature, the equals sign or the space, and the value.

    The last two are empty if the text has neither.
    """
    separator = "=" if "=" in text else " "
    feature, found, value = text.strip().partition(separator)
    return feature.strip(), found, value.strip()


def json_contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the criterion that JSON contains a text: within a string, or as JSON text such as `"eu":["a"`.

    It also finds letters in escapes, such as the `n` of a line break.
    """
    if not {",", ":"}.isdisjoint(text):
        column = func.replace(func.replace(column, ", ", ","), ": ", ":")
        text = text.replace(", ", ",").replace(": ", ":")
    in_strings = [_in_json(spelling) for spelling in _spellings(text)]
    as_json = [escaped.replace('\\"', '"').replace("\\\\", "\\") for escaped in in_strings]
    return _contains_any(column, in_strings + as_json)


class Position(FunctionElement[int]):
    """The position of the first occurrence of a text in a column, in the same case: 1 at its beginning, 0 if none."""

    type = Integer()
    inherit_cache = True


@compiles(Position)
def _compile_position(element: Position, compiler: SQLCompiler, **options: Any) -> str:
    column, text = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr({column}, {text})"


@compiles(Position, "postgresql")
def _compile_position_postgresql(element: Position, compiler: SQLCompiler, **options: Any) -> str:
    column, text = (compiler.process(clause, **options) for clause in element.clauses)
    return f"strpos({column}, {text})"


_ASCII_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""A text whose letters A to Z only have another case. In PostgreSQL, that depends on the locale otherwise, and takes
longer."""


def _contains_any(column: ColumnElement[Any], texts: Iterable[str]) -> ColumnElement[bool]:
    lower = func.lower(cast(column, _ASCII_TEXT))
    distinct = dict.fromkeys(text.translate(_ASCII_LOWER) for text in texts)
    return or_(*(Position(lower, text) > 0 for text in distinct))


def _spellings(text: str) -> list[str]:
    """Return the usual spellings of a text in upper and lower case."""
    # Databases change the case of A to Z only.
    return [text] if text.isascii() else [text.lower(), text, text.upper(), text.title(), text.capitalize()]


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_conditions(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
