"""Values of settings on the command line: their text, and errors that say which values are allowed."""

import json
from typing import TYPE_CHECKING, Any, Final

from heksher_client._json_values import is_equal
from heksher_client._logging import escaped, shortened
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import NumberError, format_value, parse_json

if TYPE_CHECKING:
    from heksher_client._core.refresh.protocol import SettingData

_MAX_LENGTH: Final = 100
"""Characters of a value in an error message."""
_MAX_OPTIONS: Final = 20
"""Members of an Enum in an error message."""
_HINTS: Final = {
    "bool": "use true or false",
    "int": "use a whole number",
    "float": "use a number",
    "Sequence": 'use a JSON list, such as \'["a", "b"]\'',
    "Mapping": "use a JSON object, such as '{\"a\": 1}'",
}


def parse_value(setting: "SettingData", text: str, *, is_expected: bool = False) -> Any:
    """Parse a value as JSON. For a setting of type str, or an Enum, anything else is plain text.

    Args:
        setting: The setting.
        text: The value.
        is_expected: Whether the value is only compared, so that it may be one that the type does not have.

    Raises:
        CommandError: The value is not valid JSON, and the setting is not of such a type; or it is not one of the few
            that the type has.
    """
    is_str, options = setting.type == "str", _options(setting.type, "Enum")
    try:
        value = parse_json(text)
    except RecursionError:
        raise CommandError("the value is nested too deeply") from None
    except ValueError as error:
        if is_str or text in options:
            return text
        problem = error if isinstance(error, NumberError) else f"{shortened(repr(text), _MAX_LENGTH)} is not valid JSON"
        raise CommandError(f"{problem}, and setting {setting.name} has type {_describe(setting.type)}") from None
    if (is_str and not isinstance(value, str)) or text in options:
        return text
    if not is_expected and not _is_option(setting.type, options, value):
        shown = shortened(format_value(value), _MAX_LENGTH)
        raise CommandError(f"setting {setting.name} cannot have the value {shown}: {_hint(setting.type)}")
    return value


def _is_option(type_: str, options: list[Any], value: Any) -> bool:
    """True unless a value is not one of those that a type has: other types than Enum and the
    primitive ones are left to the service.
    """
    if options:
        return any(is_equal(option, value) for option in options)
    kind = type(value)
    if type_ == "int":  # JSON does not distinguish 1.0 from 1.
        return kind is int or (kind is float and value.is_integer())
    return kind is bool if type_ == "bool" else type_ != "float" or kind in (int, float)


def _describe(type_: str) -> str:
    hint = _hint(type_)
    shown = escaped(shortened(type_, _MAX_LENGTH))
    return f"{shown}: {hint}" if hint else shown


def _hint(type_: str) -> str:
    """Return which values a type has; an empty text if there is nothing to say."""
    if options := _options(type_, "Enum"):
        return f"use one of {_list(options)}"
    if options := _options(type_, "Flags"):
        return f"use a JSON list with any of {_list(options)}"
    return _HINTS.get(type_.partition("<")[0], "")


def _list(options: list[Any]) -> str:
    more = "" if len(options) <= _MAX_OPTIONS else f" and {len(options) - _MAX_OPTIONS} more"
    return ", ".join(format_value(option) for option in options[:_MAX_OPTIONS]) + more


def _options(type_: str, kind: str) -> list[Any]:
    """Return the options of a type such as `Enum["a","b"]`; an empty list if it is of another kind."""
    if not type_.startswith(f"{kind}["):
        return []
    try:
        options: list[Any] = json.loads(type_.removeprefix(kind))
    except ValueError:  # It is of another service, and written in another way.
        return []
    return options
