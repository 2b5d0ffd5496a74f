"""Documents with exported settings: their model, and all checks that need no database.

`service import` and `diff` read documents with the same checks, so that each accepts what the other one does.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from heksher_client._logging import shortened
from heksher_client.service import json_values
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.routing import Conditions, ContextName, JSONValue, MetadataKey, SettingName
from heksher_client.service.schema import MAX_ID
from heksher_client.service.setting_types import parse_setting_type

FORMAT: Final = 1
_MAX_DEPTH: Final = 200
"""Nested lists and objects. Values may have fewer, but the errors of those have a place."""
_MAX_REPEATED: Final = 100_000
"""Values in all repetitions of the objects that a document contains several times."""
_TEXT_OF_ONE_VALUE: Final = 100
"""Characters of a text that count as one value, if it is repeated. Shorter ones are hardly longer than an alias."""
_MAX_VALUE_LENGTH: Final = 60
"""Characters of a value in a message."""
Path = tuple[str | int, ...]
"""The place of a value in a document: keys of objects and indexes of lists."""


class DocumentError(ValueError):
    """The document is invalid, or conflicts with the content of the database."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        """Create it.

        Args:
            message: The problem, with the name of the setting.
            path: The place in the document; None if the error does not belong to a place.
        """
        super().__init__(message)
        self.path = path


class DocumentRule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rule_id: Annotated[int, Field(ge=1, le=MAX_ID, strict=True)] | None = None
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}


class DocumentSetting(DeclaredSetting):
    model_config = ConfigDict(extra="forbid")
    alias: None = None
    """Declarations have it; documents have `aliases`."""
    aliases: Annotated[list[SettingName], Field(default_factory=list)]
    rules: Annotated[list[DocumentRule], Field(default_factory=list)]


def _check_format(number: Any) -> Any:
    if isinstance(number, bool) or number != FORMAT:
        raise ValueError(f"unsupported document format {number!r}; this version of the service supports {FORMAT}")
    return number


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    heksher: Annotated[Literal[1], BeforeValidator(_check_format)]
    context_features: list[ContextName]
    settings: list[DocumentSetting]


def parse(content: Any) -> Document:
    """Return a document, after a check that it is valid and does not contradict itself.

    Args:
        content: A document as `export` returns it, or as a parser of JSON or YAML does.

    Raises:
        DocumentError: It is not valid.
    """
    if not isinstance(content, dict) or "heksher" not in content:
        raise DocumentError("this is not a document of `service export`: it does not have the key heksher", ())
    _check_aliases(content)
    try:
        document = Document.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise _error(
            content, tuple(part for part in problem["loc"] if part != "[key]"), _problem_text(problem)
        ) from None
    for path, message in (*_repetitions(document), *_inconsistencies(document)):
        raise _error(content, path, message)
    return document


def place(path: Path, setting: str | None) -> str:
    """Return a place for a message, with the name of the setting if it is in one with a name."""
    match path:
        case ("settings", int(), *rest) if setting is not None:
            return ": ".join(filter(None, [f"setting {setting}", ".".join(map(str, rest))]))
    return ".".join(map(str, path)) or "the document"


def _error(content: Any, path: Path, problem: str) -> DocumentError:
    name = None
    match path, content:
        case ("settings", int(index), *_), {"settings": list(settings)} if isinstance(settings[index], dict):
            name = settings[index].get("name")
    return DocumentError(f"{place(path, name if isinstance(name, str) else None)}: {problem}", path)


def _problem_text(problem: Any) -> str:
    value = problem["input"]
    match problem["type"]:
        case "string_type" if value is None or isinstance(value, int | float):
            kind = {type(None): "null", bool: "a boolean"}.get(type(value), "a number")
            return f"{shortened(json.dumps(value), _MAX_VALUE_LENGTH)} is {kind}, and must be text: put it in quotes"
        case "model_type":
            return "must be an object"
    return str(problem["msg"]).removeprefix("Value error, ")


def _check_aliases(content: Any) -> None:
    """Check that a document does not contain one object many times, as a small text with YAML's aliases can.

    Raises:
        DocumentError: It does, or contains itself, or is nested too deeply.
    """
    sizes: dict[int, int | None] = {}
    """The number of values in each object, and the one that stands for each long text, by its id; None while it is
    counted."""
    repeated = 0

    def repeat(size: int | None) -> int:
        nonlocal repeated
        repeated += size or 0
        if size is None or repeated > _MAX_REPEATED:
            raise DocumentError(f"aliases repeat more than {_MAX_REPEATED:,} values")
        return size

    def count(value: Any, depth: int) -> int:
        is_long_text = isinstance(value, str) and len(value) > _TEXT_OF_ONE_VALUE
        if not is_long_text and not isinstance(value, dict | list):
            return 1
        if depth > _MAX_DEPTH:
            raise DocumentError("the document is nested too deeply")
        if id(value) in sizes:
            return repeat(sizes[id(value)])
        if is_long_text:
            size = sizes[id(value)] = len(value) // _TEXT_OF_ONE_VALUE
            return size
        sizes[id(value)] = None
        inner = value.values() if isinstance(value, dict) else value
        size = sizes[id(value)] = 1 + sum(count(element, depth + 1) for element in inner)
        return size

    count(content, 1)


def _repetitions(document: Document) -> Iterator[tuple[Path, str]]:
    """Yield the places and messages of names, ids and conditions that occur twice."""
    settings = document.settings
    names: Iterable[tuple[Path, str]] = (
        (("settings", i, *place), name)
        for i, setting in enumerate(settings)
        for place, name in (
            (("name",), setting.name),
            *((("aliases", j), alias) for j, alias in enumerate(setting.aliases)),
        )
    )
    rules = [
        (("settings", i, "rules", j), rule)
        for i, setting in enumerate(settings)
        for j, rule in enumerate(setting.rules)
    ]
    ids: Iterable[tuple[Path, int]] = (((*path, "rule_id"), rule.rule_id) for path, rule in rules if rule.rule_id)
    features: Iterable[tuple[Path, str]] = (
        (("context_features", i), name) for i, name in enumerate(document.context_features)
    )
    yield from _repeated("context feature", features)
    yield from _repeated("name of a setting", names)
    yield from _repeated("rule_id", ids)
    seen = set()
    for path, rule in rules:
        key = path[1], conditions_key(rule.feature_values)
        if key in seen:
            yield path, f"two rules have the conditions {conditions_text(rule.feature_values)}"
        seen.add(key)


def _repeated(what: str, values: Iterable[tuple[Path, Any]]) -> Iterator[tuple[Path, str]]:
    seen: set[Any] = set()
    for path, value in values:
        if value in seen:
            yield path, f"the {what} {value} is repeated"
        seen.add(value)


def _inconsistencies(document: Document) -> Iterator[tuple[Path, str]]:
    """Yield the places and messages of features and values that do not fit the declarations."""
    for i, setting in enumerate(document.settings):
        path: Path = ("settings", i)
        if unknown := set(setting.configurable_features) - set(document.context_features):
            yield (*path, "configurable_features"), f"{min(unknown)} is not in context_features"
        type_ = parse_setting_type(setting.type)
        for j, rule in enumerate(setting.rules):
            if unknown := rule.feature_values.keys() - set(setting.configurable_features):
                message = f"a condition on {min(unknown)}, which is not a configurable feature"
                yield (*path, "rules", j, "feature_values", min(unknown)), message
            if not type_.accepts(rule.value):
                text = conditions_text(rule.feature_values)
                message = f"the value of the rule for {text} is not of the type {type_}: {shorten(rule.value)}"
                yield (*path, "rules", j, "value"), message


def conditions_key(conditions: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return a key by which conditions in any order can be compared."""
    return frozenset(conditions.items())


def conditions_text(conditions: Mapping[str, str]) -> str:
    """Return conditions for a message."""
    return ", ".join(f"{feature}={value}" for feature, value in conditions.items())


def shorten(value: Any) -> str:
    """Return a value for a message: as JSON of limited length."""
    return json_values.shorten(value, _MAX_VALUE_LENGTH)
