"""Documents with exported settings: their model, and all checks that need no database.

`service import` and `diff` read documents with the same checks, so that each accepts what the other one does.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from heksher_client._core.settings.context_values import is_v1_value
from heksher_client._logging import shortened
from heksher_client.service import json_values
from heksher_client.service.routes.declarations import DeclaredSetting
from heksher_client.service.routing import Conditions, ContextName, EndTime, JSONValue, MetadataKey, SettingName, Time
from heksher_client.service.rule_period import Period
from heksher_client.service.schema import MAX_ID
from heksher_client.service.setting_types import Collection, Options, Primitive, SettingType, parse_setting_type

FORMAT: Final = 1
_MAX_DEPTH: Final = 200
"""Nested lists and objects. Values may have fewer, but the errors of those have a place."""
_MAX_REPEATED: Final = 100_000
"""Values in all repetitions of the objects that a document contains several times."""
_TEXT_OF_ONE_VALUE: Final = 100
"""Characters of a text that count as one value, if it is repeated. Shorter ones are hardly longer than an alias."""
_MAX_VALUE_LENGTH: Final = 60
"""Characters of a value in a message."""
_MAX_PLACE_LENGTH: Final = 100
"""Characters of a place in a message."""
_MAX_PROBLEM_LENGTH: Final = 300
"""Characters of a problem in a message: that of an invalid type contains the whole type."""
_SURROGATE: Final = "the text contains half of a surrogate pair, which is not a character"
Path = tuple[str | int, ...]
"""The place of a value in a document: keys of objects and indexes of lists."""


class DocumentError(ValueError):
    """The document is invalid, or conflicts with the content of the database."""

    def __init__(self, message: str, path: Path) -> None:
        """Create it.

        Args:
            message: The problem, with the name of the setting.
            path: The place in the document.
        """
        super().__init__(message)
        self.path = path


class DocumentRule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rule_id: Annotated[int, Field(ge=1, le=MAX_ID, strict=True)] | None = None
    feature_values: Conditions
    value: JSONValue
    metadata: dict[MetadataKey, JSONValue] = {}
    starts_at: Time | None = None
    ends_at: EndTime = None

    @property
    def period(self) -> Period:
        """The period in which the rule applies."""
        return Period(self.starts_at, self.ends_at)


class DocumentSetting(DeclaredSetting):
    model_config = ConfigDict(extra="forbid")
    alias: None = None
    """Declarations have it; documents have `aliases`."""
    aliases: Annotated[list[SettingName], Field(default_factory=list)]
    rules: Annotated[list[DocumentRule], Field(default_factory=list)]

    @model_validator(mode="after")
    def _is_consistent(self) -> "DocumentSetting":
        return self  # Not as in declarations: `parse` checks it, as its errors have the place and a hint.


def _check_format(number: Any) -> Any:
    if isinstance(number, bool) or number != FORMAT:
        raise ValueError(f"unsupported document format {shorten(number)}; this version of the service reads {FORMAT}")
    return number


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    heksher: Annotated[Literal[1], BeforeValidator(_check_format)]
    context_features: list[ContextName]
    settings: list[DocumentSetting]


def parse(content: Any, *, shares_objects: bool = True) -> Document:
    """Return a document, after a check that it is valid and does not contradict itself.

    Args:
        content: A document as `export` returns it, or as a parser of JSON or YAML does.
        shares_objects: Whether an object may occur in it several times, as one that has aliases in YAML does.

    Raises:
        DocumentError: It is not valid.
    """
    if not isinstance(content, dict) or "heksher" not in content:
        raise DocumentError("this is not a document of `service export`: it does not have the key heksher", ())
    if shares_objects:
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
            return ": ".join(filter(None, [f"setting {shortened(setting, _MAX_PLACE_LENGTH)}", _joined(rest)]))
    return _joined(path) or "the document"


def _joined(steps: Iterable[str | int]) -> str:
    return shortened(".".join(map(str, steps)), _MAX_PLACE_LENGTH)


def _error(content: Any, path: Path, problem: str) -> DocumentError:
    name = None
    match path, content:
        case ("settings", int(index), *_), {"settings": list(settings)} if isinstance(settings[index], dict):
            name = settings[index].get("name")
    return DocumentError(f"{place(path, name if isinstance(name, str) else None)}: {problem}", path)


def _problem_text(problem: Any) -> str:
    """Return the message for an error of pydantic, in terms of JSON."""
    value = problem["input"]
    match problem["type"]:
        case "string_type" if _is_scalar(value):
            return f"{shorten(value)} {_kind(value)}must be text: put it in quotes"
        case "string_unicode":
            return _SURROGATE
        case "value_error" if isinstance(problem["ctx"]["error"], UnicodeError):
            return _SURROGATE
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be an object"
        case "list_type":
            return "must be a list"
        case "none_required":
            return "must be null, or left out: the list aliases has the aliases of a setting"
    return shortened(str(problem["msg"]).removeprefix("Value error, "), _MAX_PROBLEM_LENGTH)


def _is_scalar(value: Any) -> bool:
    """True if a value is null, a boolean or a number."""
    return value is None or isinstance(value, int | float)


def _kind(value: Any) -> str:
    """Return the type of a scalar, to be followed by what is required."""
    return {type(None): "", bool: "is a boolean, and "}.get(type(value), "is a number, and ")


def _check_aliases(content: Any) -> None:
    """Check that a document does not contain one object many times, as a small text with YAML's aliases can.

    Raises:
        DocumentError: It does, or contains itself, or is nested too deeply.
    """
    sizes: dict[int, int | None] = {}
    """The number of values in each object, and the one that stands for each long text, by its id; None while it is
    counted."""
    repeated = 0

    def repeat(size: int | None, path: Path) -> int:
        nonlocal repeated
        repeated += size or 0
        if size is None or repeated > _MAX_REPEATED:
            raise _error(content, path, f"aliases repeat more than {_MAX_REPEATED:,} values")
        return size

    def count(value: Any, path: Path) -> int:
        is_long_text = isinstance(value, str) and len(value) > _TEXT_OF_ONE_VALUE
        if not is_long_text and not isinstance(value, dict | list):
            return 1
        if id(value) in sizes:
            return repeat(sizes[id(value)], path)
        if is_long_text:
            size = sizes[id(value)] = len(value) // _TEXT_OF_ONE_VALUE
            return size
        if len(path) >= _MAX_DEPTH:
            raise _error(content, path, f"more than {_MAX_DEPTH} nested lists and objects")
        sizes[id(value)] = None
        size = sizes[id(value)] = 1 + sum(count(element, (*path, step)) for step, element in _elements(value))
        return size

    count(content, ())


def _elements(value: dict[Any, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the keys of an object and its values, or the elements of a list, each with its step in a path."""
    if isinstance(value, list):
        yield from enumerate(value)
        return
    for key, element in value.items():
        yield key, key
        yield key, element


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
        for step, problem in _mismatches(type_, setting.default_value):
            yield (*path, "default_value", *step), problem
        for j, rule in enumerate(setting.rules):
            if unknown := rule.feature_values.keys() - set(setting.configurable_features):
                message = f"a condition on {min(unknown)}, which is not a configurable feature"
                yield (*path, "rules", j, "feature_values", min(unknown)), message
            for step, problem in _mismatches(type_, rule.value):
                where = f"the rule for {conditions_text(rule.feature_values)}"
                yield (*path, "rules", j, "value", *step), f"{problem} ({where})"


def _mismatches(type_: SettingType, value: Any) -> Iterator[tuple[Path, str]]:
    """Yield the path and a message of the first value in a value that is not of its type, if there is one."""
    if type_.accepts(value):
        return
    match type_, value:
        case Collection(kind="Sequence", inner=inner), list():
            elements: Iterable[tuple[Any, Any]] = enumerate(value)
        case Collection(kind="Mapping", inner=inner), dict():
            elements = value.items()
        case Options(kind="Flags", options=options), list():
            inner, elements = Options("Enum", options), enumerate(value)
        case _:
            inner, elements = type_, ()
    for step, element in elements:
        for path, problem in _mismatches(inner, element):
            yield (step, *path), problem
            return
    hint = ": put it in quotes" if _is_scalar(value) and _is_text_type(type_) else ""
    yield (), f"{shorten(value)} {_kind(value) if hint else ''}is not of the type {_type_text(type_)}{hint}"


def _type_text(type_: SettingType) -> str:
    return shortened(str(type_), _MAX_VALUE_LENGTH)


def _is_text_type(type_: SettingType) -> bool:
    """True if a text can be a value of a type."""
    return type_ == Primitive("str") or (
        isinstance(type_, Options) and type_.kind == "Enum" and any(option.startswith('"') for option in type_.options)
    )


def conditions_key(conditions: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return a key by which conditions in any order can be compared."""
    return frozenset(conditions.items())


def conditions_text(conditions: Mapping[str, str]) -> str:
    """Return conditions for a message. Values that may contain a comma or a space are in quotes."""
    return ", ".join(
        f"{feature}={value if is_v1_value(value) else json.dumps(value, ensure_ascii=False)}"
        for feature, value in conditions.items()
    )


def shorten(value: Any) -> str:
    """Return a value for a message: as JSON of limited length."""
    try:
        return json_values.shorten(value, _MAX_VALUE_LENGTH)
    except ValueError:  # NaN and infinite numbers, which no reader of documents accepts.
        return shortened(repr(value), _MAX_VALUE_LENGTH)
