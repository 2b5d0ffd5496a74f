"""Form inputs for the values of settings: the kind of input for a type, and conversion between inputs and values."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from heksher_client._logging import shortened, visible_json
from heksher_client.service import json_values
from heksher_client.service.console.emoji import with_emoji
from heksher_client.service.routing import JSONValue
from heksher_client.service.setting_types import Options, Primitive, SettingType, option_text, parse_setting_type

Fields = Mapping[str, Sequence[str]]
"""The fields of a submitted form, by the name of the input."""
_INT: Final = re.compile(r"-?[0-9]+(\.0*)?")
_LINE_BREAK: Final = re.compile("\r\n?")
TYPES: Final = ("int", "float", "str", "bool", 'Enum["a","b"]', 'Flags["a","b"]', "Sequence<str>", "Mapping<int>")
"""An example of each type."""
_MAX_ALLOWED_LENGTH: Final = 300
"""Characters of the allowed values in a message."""
_FLOAT: Final = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_JSON: Final[TypeAdapter[Any]] = TypeAdapter(JSONValue)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a form."""

    kind: str
    """`number`, `text`, `choice` (one of several options), `choices` (any number of them) or `json`."""
    options: Sequence[tuple[str, str]] = ()
    """The submitted value and the label of each option."""


class InputError(ValueError):
    """The input is not a value of the type."""


def input_for(type_: SettingType) -> Input:
    """Return the input for values of a type."""
    match type_:
        case Primitive("bool"):
            return Input("choice", [("true", "true"), ("false", "false")])
        case Primitive("int" | "float"):
            return Input("number")
        case Primitive("str"):
            return Input("text")
        case Options(type_kind, options):
            kind = "choice" if type_kind == "Enum" else "choices"
            labels = Counter(map(_label, options))
            shown = {option: _label(option) if labels[_label(option)] == 1 else option for option in options}
            return Input(kind, sorted(shown.items()))
    return Input("json")


def format_input(type_: SettingType, value: Any) -> list[str]:
    """Return the content of the input for a type that corresponds to a value."""
    match input_for(type_).kind:
        case "text":
            return [value]
        case "choices":
            return [option_text(element) for element in value]
        case "choice":
            return [option_text(value)]
        case "json":
            return [with_emoji(visible_json(value, indent=2))]
    if type_ == Primitive("int"):
        value = int(value)  # It may be stored as 1e+22.
    return [json_values.encode(value).decode()]


def parse_input(type_: SettingType, content: Sequence[str]) -> Any:
    """Return the value that was entered into the input for a type.

    Raises:
        InputError: The content is not a value of the type.
    """
    return _checked(type_, _parse(type_, content))


def parse_text(type_: SettingType, text: str) -> Any:
    """Return the value of a type that was entered as a text, as the form was shown before the type was known.

    Raises:
        InputError: The text is not a value of the type.
    """
    if input_for(type_).kind in ("number", "text"):
        return parse_input(type_, [text])
    try:
        return _checked(type_, _from_json(text.strip()))
    except InputError:
        value = text.strip()
        if type_.accepts(value):  # an option without quotation marks
            return value
        if allowed := _allowed_values(type_):
            raise InputError(allowed) from None
        raise


def _allowed_values(type_: SettingType) -> str:
    """Return a message about the values of a type; empty if they cannot be listed."""
    match type_:
        case Primitive("bool"):
            return "enter true or false"
        case Options(kind, options):
            allowed = shortened(", ".join(sorted(options)), _MAX_ALLOWED_LENGTH)
            return f"enter one of {allowed}" if kind == "Enum" else f"enter a JSON list of some of {allowed}"
    return ""


def parse_type(text: str) -> SettingType:
    """Return the type that was entered.

    Raises:
        InputError: It is not a type. The message has an example of each.
    """
    try:
        return parse_setting_type(text)
    except ValueError as error:
        raise InputError(f"{error}. The types are {', '.join(TYPES[:-1])} and {TYPES[-1]}") from None


def keep_line_breaks(value: Any, former: Any) -> Any:
    """Return a value that was entered, or the former one if they only differ in line breaks: browsers change these."""
    is_text = isinstance(value, str) and isinstance(former, str)
    return former if is_text and _LINE_BREAK.sub("\n", former) == value else value


def _checked(type_: SettingType, value: Any) -> Any:
    """Return a value after a check of its type.

    Raises:
        InputError: It is not of the type, or not a value that other JSON libraries can read.
    """
    try:
        _JSON.validate_python(value)
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if not type_.accepts(value):
        raise InputError(f"not a value of the type {type_}")
    return value


def _parse(type_: SettingType, content: Sequence[str]) -> Any:
    kind = input_for(type_).kind
    if kind == "choices":
        return [_from_json(option) for option in content]
    if not content:
        raise InputError("a value is required")
    text = content[0]
    if kind == "text":
        return text.replace("\r\n", "\n")  # Forms send line breaks as CRLF.
    text = text.strip()
    if not text:
        raise InputError("a value is required")
    if kind == "number":
        return _parse_number(text, is_int=type_ == Primitive("int"))
    return _from_json(text)


def _parse_number(text: str, *, is_int: bool) -> float:
    if not (_INT if is_int else _FLOAT).fullmatch(text):
        raise InputError("not a whole number" if is_int else "not a number")
    if is_int:
        text = text.partition(".")[0]  # A float may be another number.
    try:
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:
        raise InputError("the number is too long") from None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"invalid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError:
        raise InputError("invalid JSON: a number is too long") from None
    except RecursionError:  # With a larger stack, the parser succeeds, and the check of the value fails.
        raise InputError(f"more than {json_values.MAX_DEPTH} nested lists and objects") from None


def _label(option: str) -> str:
    value = json.loads(option)
    return value if isinstance(value, str) else option
