"""Reading and writing of YAML that means the same to its author and to every parser.

YAML 1.1, which PyYAML implements, reads `no` as false, `0123` as 83, `1:30` as 90 and `2026-01-31` as a date. YAML 1.2
and most authors do not. Of a key that occurs twice, one is lost. All these are errors here, with their place.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from heksher_client._logging import shortened

Path = tuple[str | int, ...]
"""The place of a value: keys of mappings and indexes of sequences."""

_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C takes half the time, if PyYAML was built with it."""
_RESOLVER: Final[Any] = Resolver()
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"
_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MAX_LENGTH: Final = 40
"""Characters of a value in a message."""
_UNAMBIGUOUS: Final = {
    "tag:yaml.org,2002:bool": re.compile("true|True|TRUE|false|False|FALSE"),
    "tag:yaml.org,2002:int": re.compile("[-+]?(0|[1-9][0-9]{0,999})"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?"),
    "tag:yaml.org,2002:null": re.compile("|~|null|Null|NULL"),
}
"""The values of each type that YAML 1.1 and 1.2 read in the same way, and that JSON has."""
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+")
"""The numbers of YAML 1.2. Some of them, such as 09 and 1e5, are text in YAML 1.1."""
_KINDS: Final = {
    "bool": "a boolean: put it in quotes, or write true or false",
    "int": "a number: put it in quotes, or write it in decimal",
    "float": "a number: put it in quotes, or write it in decimal",
    "timestamp": "a date: put it in quotes",
}


class YAMLTextError(ValueError):
    """The text is not valid YAML, or ambiguous."""

    def __init__(self, message: str, path: Path, line: int) -> None:
        super().__init__(message)
        self.path, self.line = path, line


class YAMLText:
    """A parsed text."""

    def __init__(self, text: str) -> None:
        """Parse a text. It may be JSON, to find places in it.

        Raises:
            YAMLTextError: It is not valid YAML.
            ValueError: It contains characters that YAML does not allow.
            RecursionError: It is nested too deeply.
        """
        loader = _Loader(text)
        try:
            self._root: Node | None = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark
            raise YAMLTextError(str(error.problem), (), mark.line + 1) from None
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
        finally:
            loader.dispose()

    def content(self) -> Any:
        """Return the value of the text.

        Raises:
            YAMLTextError: It is ambiguous, or has a type that JSON lacks.
        """
        for path, node in self._walk():
            if problem := _problem(node):
                raise YAMLTextError(problem, path, _line(node))
        self.check_keys()
        loader = _Loader("")
        try:
            return None if self._root is None else loader.construct_document(self._root)
        finally:
            loader.dispose()

    def check_keys(self) -> None:
        """Check that no key occurs twice, and that all keys are text.

        Raises:
            YAMLTextError: A key is not valid.
        """
        for path, node in self._walk():
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, MappingNode) else ():
                if problem := _key_problem(key, seen):
                    raise YAMLTextError(problem, path, _line(key))
                seen.add(key.value)

    def line(self, path: Path) -> int:
        """Return the number of the line of a place, or of the nearest one that contains it."""
        node, line = self._root, 1
        for step in (*path, None):
            if node is None:
                break
            line = _line(node)
            node = dict(_children(node)).get(step)
        return line

    def text_at(self, path: Path) -> str | None:
        """Return the text at a place; None if there is none."""
        node = self._root
        for step in path:
            node = None if node is None else dict(_children(node)).get(step)
        return node.value if isinstance(node, ScalarNode) and node.tag == _STR else None

    def _walk(self) -> Iterator[tuple[Path, Node]]:
        """Yield each node once, also if it has aliases."""
        seen: set[int] = set()
        remaining: list[tuple[Path, Node]] = [] if self._root is None else [((), self._root)]
        while remaining:
            path, node = remaining.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield path, node
                remaining += [((*path, step), child) for step, child in reversed(list(_children(node)))]


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _children(node: Node) -> Iterator[tuple[Any, Node]]:
    if isinstance(node, SequenceNode):
        yield from enumerate(node.value)
    elif isinstance(node, MappingNode):
        yield from ((key.value, value) for key, value in node.value if isinstance(key, ScalarNode))


def _problem(node: Node) -> str:
    """Return a message if a value is ambiguous, or has a type that JSON lacks; otherwise an empty text."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, ScalarNode):
        return "" if node.tag in _COLLECTIONS else f"the type {kind} is not supported"
    value = f"`{shortened(node.value, _MAX_LENGTH)}`"
    if node.tag == _STR:
        is_number = not node.style and _NUMBER.fullmatch(node.value) and _is_text(node.value)
        return f"{value} is a number in YAML 1.2, and text in YAML 1.1: put it in quotes" if is_number else ""
    if node.tag in _UNAMBIGUOUS and _UNAMBIGUOUS[node.tag].fullmatch(node.value):
        return ""
    return f"{value} is not valid JSON, and YAML 1.1 reads it as {_KINDS.get(kind, f'{kind}: put it in quotes')}"


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
    return f"the key {name} is repeated" if key.value in seen else ""


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and puts everything in quotes that YAML 1.2 would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    return dumper.represent_scalar(_STR, text, style="'" if _NUMBER.fullmatch(text) else None)


_Dumper.add_representer(str, _represent_text)


def format_yaml(content: Any) -> str:
    """Return JSON values as YAML. It is ASCII, as YAML reads some other characters as line breaks."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000)
