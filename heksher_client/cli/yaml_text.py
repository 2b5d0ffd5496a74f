"""Reading and writing of YAML that means the same to its author and to every parser.

YAML 1.1, which PyYAML implements, reads `no` as false, `0123` as 83, `1:30` as 90 and `2026-01-31` as a date. YAML 1.2
and most authors do not. Of `y`, only some parsers make true. Of a key that occurs twice, one is lost. All these are
errors here, with their place.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import yaml
from yaml.events import CollectionEndEvent, CollectionStartEvent, MappingStartEvent, NodeEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from heksher_client._logging import shortened
from heksher_client.cli.json_values import MAX_DEPTH, NumberError, parse_number
from heksher_client.cli.text_places import Path, PathTracker, TextError

_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C takes half the time, if PyYAML was built with it."""
_RESOLVER: Final[Any] = Resolver()
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MAX_LENGTH: Final = 40
"""Characters of a value in a message."""
_UNAMBIGUOUS: Final = {
    "tag:yaml.org,2002:bool": re.compile("true|True|TRUE|false|False|FALSE"),
    "tag:yaml.org,2002:int": re.compile("[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?"),
    "tag:yaml.org,2002:null": re.compile("|~|null|Null|NULL"),
}
"""The values of each type that YAML 1.1 and 1.2 read in the same way, and that JSON has."""
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+")
"""The numbers of YAML 1.2. Some of them, such as 09 and 1e5, are text in YAML 1.1."""
_BOOLEAN: Final = re.compile("[yYnN]")
"""The booleans of YAML 1.1 that some of its parsers, PyYAML among them, read as text."""
_KINDS: Final = {
    "bool": "a boolean: put it in quotes, or write true or false",
    "int": "a number: put it in quotes, or write it in decimal",
    "float": "a number: put it in quotes, or write it in decimal",
    "timestamp": "a date: put it in quotes",
}
_INVALID: Final = re.compile("[^\\t\\n\\r -~\\xa0-\\u2027\\u202a-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""The characters that YAML does not allow, and those that are line breaks in YAML 1.1, and text in YAML 1.2."""
_LINE_BREAK: Final = re.compile("\\r\\n?|\\n")
_ANOTHER_DOCUMENT: Final = "but found another document"
"""PyYAML's problem with a text of several documents, which does not belong to a value of the first one."""
_TOO_DEEP: Final = f"more than {MAX_DEPTH} nested lists and objects"


class YAMLText:
    """A text in YAML."""

    shares_objects: Final = True
    """An object that has aliases occurs several times in the content."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: Node | None = None

    def content(self) -> Any:
        """Return the value of the text.

        Raises:
            TextError: It is not valid YAML, or ambiguous, or has a type that JSON lacks.
        """
        self._root = self._parsed()
        for path, node in self._walk():
            if problem := _TOO_DEEP if len(path) >= MAX_DEPTH and not isinstance(node, ScalarNode) else _problem(node):
                raise TextError(problem, path, _line(node))
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, MappingNode) else ():
                if problem := _key_problem(key, seen):
                    raise TextError(problem, path, _line(key))
                seen.add(key.value)
        loader = _Loader("")
        try:
            return None if self._root is None else loader.construct_document(self._root)
        finally:
            loader.dispose()

    def line(self, path: Path) -> int:
        """Return the number of the line of a place, or of the nearest one that contains it."""
        node, line = self._root, 1
        for step in path:
            found = {key: (first, child) for key, first, child in _children(node)}.get(step)
            if node is None or found is None or not _contains(node, found[0]):
                break
            line, node = _line(found[0]), found[1]
        return line

    def text_at(self, path: Path) -> str | None:
        """Return the text at a place; None if there is none."""
        if self._root is None:  # The text is not valid YAML.
            valid = _values(_INVALID.split(self._text, maxsplit=1)[0])
            return next((text for place, _, text in valid if place == path and text is not None), None)
        node: Node | None = self._root
        for step in path:
            node = {key: child for key, _, child in _children(node)}.get(step)
        return node.value if isinstance(node, ScalarNode) and node.tag == _STR else None

    def _parsed(self) -> Node | None:
        if invalid := _INVALID.search(self._text):
            before = self._text[: invalid.start()]
            lines = _LINE_BREAK.split(before)
            message = f"the character U+{ord(invalid[0]):04X} is not allowed: write it as an escape, in double quotes"
            raise TextError(message, _last_path(before, (len(lines) - 1, len(lines[-1]))), len(lines))
        loader = _Loader(self._text)
        try:
            root: Node | None = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            position = _position(error.problem_mark)
            message = ", ".join(filter(None, [error.context, error.problem]))
            path = () if error.problem == _ANOTHER_DOCUMENT else _last_path(self._text, position)
            raise TextError(message, path, position[0] + 1) from None
        except RecursionError:  # The parser in C has a limit of its own, whose error has a place.
            raise TextError(_TOO_DEEP, (), loader.line + 1) from None
        finally:
            loader.dispose()
        return root

    def _walk(self) -> Iterator[tuple[Path, Node]]:
        """Yield each node once, also if it has aliases."""
        seen: set[int] = set()
        remaining: list[tuple[Path, Node]] = [] if self._root is None else [((), self._root)]
        while remaining:
            path, node = remaining.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield path, node
                remaining += [((*path, step), child) for step, _, child in reversed(list(_children(node)))]


def _values(text: str) -> Iterator[tuple[Path, Any, str | None]]:
    """Yield the path, the place in the text, and the text if there is one, of each value, as far as there is no error.

    The end of a list or object comes with its path as well.
    """
    tracker = PathTracker()
    with suppress(yaml.YAMLError, RecursionError):
        for event in yaml.parse(text, Loader=_Loader):
            value = event.value if isinstance(event, ScalarEvent) else None
            is_key = False
            if isinstance(event, CollectionEndEvent):
                tracker.leave()
            elif isinstance(event, NodeEvent):
                is_key = tracker.add(value)
            if isinstance(event, NodeEvent | CollectionEndEvent):
                yield tracker.path, _position(event.start_mark), None if is_key else value
            if isinstance(event, CollectionStartEvent):
                tracker.enter(is_mapping=isinstance(event, MappingStartEvent))


def _position(mark: Any) -> tuple[int, int]:
    """Return the line and the column of a mark of PyYAML, from 0."""
    return mark.line, mark.column


def _last_path(text: str, limit: tuple[int, int]) -> Path:
    """Return the path of the last value that begins or ends before a place, or before an error."""
    last: Path = ()
    for path, position, _ in _values(text):
        if position >= limit:
            break
        last = path
    return last


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _contains(node: Node, inner: Node) -> bool:
    """True if an element is written in a list or object. One that is an alias has the place of its anchor."""
    return bool(node.start_mark.line <= inner.start_mark.line <= node.end_mark.line)


def _children(node: Node | None) -> Iterator[tuple[Any, Node, Node]]:
    """Yield the key or index of each element, the node at which it begins, and that of its value."""
    if isinstance(node, SequenceNode):
        yield from ((index, child, child) for index, child in enumerate(node.value))
    elif isinstance(node, MappingNode):
        yield from ((key.value, key, child) for key, child in node.value if isinstance(key, ScalarNode))


def _problem(node: Node) -> str:
    """Return a message if a value is ambiguous, or has a type that JSON lacks; otherwise an empty text."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, ScalarNode):
        return "" if node.tag in _COLLECTIONS else f"the type {kind} is not supported"
    value = f"`{shortened(node.value, _MAX_LENGTH)}`"
    if node.tag == _STR:
        return _text_problem(node, value)
    if node.tag not in _UNAMBIGUOUS or not _UNAMBIGUOUS[node.tag].fullmatch(node.value):
        return f"{value} is not valid JSON, and YAML 1.1 reads it as {_KINDS.get(kind, f'{kind}: put it in quotes')}"
    try:
        if node.tag in _NUMBERS:
            parse_number(node.value)
    except NumberError as error:
        return str(error)
    return ""


def _text_problem(node: ScalarNode, shown: str) -> str:
    """Return a message if some parsers do not read a value as text."""
    if node.style or not _is_text(node.value):  # in quotes, or after the tag `!!str`
        return ""
    if _NUMBER.fullmatch(node.value):
        return f"{shown} is a number in YAML 1.2, and text in YAML 1.1: put it in quotes"
    if _BOOLEAN.fullmatch(node.value):
        return f"{shown} is a boolean or text, depending on the parser: put it in quotes"
    return ""


def _is_text(value: str) -> bool:
    """True if YAML 1.1 reads a value without quotes as text."""
    return bool(_RESOLVER.resolve(ScalarNode, value, (True, False)) == _STR)


def _key_problem(key: Node, seen: set[str]) -> str:
    if not isinstance(key, ScalarNode):
        return "a key must be text"
    if key.tag == _MERGE:
        return "merge keys (<<) are not supported: repeat the keys"
    name = f"`{shortened(key.value, _MAX_LENGTH)}`"
    if key.tag != _STR:
        return f"the key {name} is not text: put it in quotes"
    if problem := _text_problem(key, name):
        return f"the key {problem}"
    return f"the key {name} is repeated" if key.value in seen else ""


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and puts everything in quotes that YAML 1.2 would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    is_ambiguous = _NUMBER.fullmatch(text) or _BOOLEAN.fullmatch(text)
    return dumper.represent_scalar(_STR, text, style="'" if is_ambiguous else None)


_Dumper.add_representer(str, _represent_text)


def format_yaml(content: Any) -> str:
    """Return JSON values as YAML. It is ASCII, as YAML reads some other characters as line breaks."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000)
