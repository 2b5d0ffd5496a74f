"""Inputs that fit the type of a setting: which one a value has, and what is made of what was put in."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from heksher_client.service import json_values
from heksher_client.service.routing import JSONValue
from heksher_client.service.setting_types import Options, Primitive, SettingType, option_text

Fields = Mapping[str, Sequence[str]]
"""What a form has sent, by the name of the input."""
_INT: Final = re.compile(r"-?[0-9]{1,4000}(\.0*)?")
_FLOAT: Final = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_JSON: Final[TypeAdapter[Any]] = TypeAdapter(JSONValue)


@dataclass(frozen=True, slots=True)
class Input:
    """An input, as the template draws it."""

    kind: str
    """`number`, `text`, `choice` (one of some), `choices` (several of some) or `json`."""
    options: Sequence[tuple[str, str]] = ()
    """For choices: what is sent, and what is shown."""


class InputError(ValueError):
    """What was put in is no value of the type."""


def input_for(type_: SettingType) -> Input:
    """The input for values of a type."""
    match type_:
        case Primitive("bool"):
            return Input("choice", [("true", "true"), ("false", "false")])
        case Primitive("int" | "float"):
            return Input("number")
        case Primitive("str"):
            return Input("text")
        case Options(word, options):
            kind = "choice" if word == "Enum" else "choices"
            labels = Counter(map(_label, options))
            shown = {option: _label(option) if labels[_label(option)] == 1 else option for option in options}
            return Input(kind, sorted(shown.items()))
    return Input("json")


def put_in(type_: SettingType, value: Any) -> list[str]:
    """What the input for a type holds when it shows a value."""
    match input_for(type_).kind:
        case "text":
            return [value]
        case "choices":
            return [option_text(element) for element in value]
        case "choice":
            return [option_text(value)]
        case "json":
            return [json.dumps(value, indent=2, ensure_ascii=False)]
    return [json_values.encode(value).decode()]


def parse(type_: SettingType, given: Sequence[str]) -> Any:
    """The value that was put in.

    Raises:
        InputError: It is none, with what is wrong in words.
    """
    value = _parse(type_, given)
    try:
        _JSON.validate_python(value)
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if not type_.accepts(value):
        raise InputError(f"this is no value of the type {type_}")
    return value


def _parse(type_: SettingType, given: Sequence[str]) -> Any:
    kind = input_for(type_).kind
    if kind == "choices":
        return [_from_json(option) for option in given]
    if not given:
        raise InputError("a value is needed")
    text = given[0]
    if kind == "text":
        return text.replace("\r\n", "\n")  # as forms send line breaks
    text = text.strip()
    if not text:
        raise InputError("a value is needed")
    if type_ == Primitive("int") and not _INT.fullmatch(text):
        raise InputError("this is no whole number")
    if type_ == Primitive("float") and not _FLOAT.fullmatch(text):
        raise InputError("this is no number")
    if kind == "number":
        return float(text) if set(text) & set(".eE") else int(text)
    return _from_json(text)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"this is no JSON: {error.msg}, in line {error.lineno} at column {error.colno}") from None
    except (ValueError, RecursionError):
        raise InputError("this is no JSON that can be read") from None


def _label(option: str) -> str:
    value = json.loads(option)
    return value if isinstance(value, str) else option
