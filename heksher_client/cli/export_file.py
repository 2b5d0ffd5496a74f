"""Files with exported settings, which `service export` writes, and `service import` and `diff` read.

A file contains JSON, or YAML if its suffix says so.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from heksher_client._logging import visible_json
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import RepeatedKeyError, parse_json
from heksher_client.cli.yaml_text import Path, YAMLText, YAMLTextError, format_yaml

if TYPE_CHECKING:
    from heksher_client._drivers.admin import ServiceState, SettingRecord
    from heksher_client.service.document import Document, DocumentSetting

T = TypeVar("T")

STDIO: Final = "-"
"""Standard input or output instead of a file, in JSON."""
_YAML_SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 512 << 20
"""Bytes of a file, which is read into memory. One with a million rules has half of that."""


def is_export_file(source: str) -> bool:
    """True for the name of a file, as opposed to the name of a profile."""
    path = FilePath(source)
    return source == STDIO or "/" in source or path.suffix.lower() in (".json", *_YAML_SUFFIXES) or path.is_file()


def _is_yaml(file: str) -> bool:
    return FilePath(file).suffix.lower() in _YAML_SUFFIXES


def write_document(file: str, document: Any) -> None:
    """Write a document.

    Raises:
        OSError: The file cannot be written.
    """
    text = format_yaml(document) if _is_yaml(file) else visible_json(document, indent=2) + "\n"
    with click.open_file(file, "w", encoding="utf-8", atomic=file != STDIO) as out:
        out.write(text)


def read_document(file: str) -> "Document":
    """Read a document, in UTF-8, or in UTF-16 as Windows PowerShell writes it.

    Raises:
        ImportError: The extra `service` is not installed.
        CommandError: The file cannot be read, or is not a valid document. The message has the line and the setting.
    """
    from heksher_client.service.document import DocumentError, parse

    text = ""
    try:
        text = _read_text(file)
        return parse(_parse_text(file, text))
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    except RecursionError:  # The message depends on the parser.
        raise CommandError(f"cannot read {file}: it is nested too deeply") from None
    except DocumentError as error:
        raise CommandError(f"{file}{_line_of(text, error.path)}: {error}") from None
    except YAMLTextError as error:
        raise CommandError(f"{file}, line {error.line}: {error}") from None
    except ValueError as error:
        raise CommandError(f"cannot read {file}: {error}") from None


def _read_text(file: str) -> str:
    with click.open_file(file, "rb") as source:
        content: bytes = source.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MB")
    return content.decode(json.detect_encoding(content))


def _parse_text(file: str, text: str) -> Any:
    if _is_yaml(file):
        parsed = YAMLText(text)
        return _with_place(parsed, parsed.content)
    try:
        return parse_json(text)
    except RepeatedKeyError as error:
        try:
            parsed = YAMLText(text)  # JSON's parser does not tell the line.
        except (ValueError, RecursionError):
            raise error from None
        _with_place(parsed, parsed.check_keys)
        raise  # pragma: no cover - a key that is repeated in JSON is repeated in YAML


def _with_place(parsed: YAMLText, read: Callable[[], T]) -> T:
    """Call a method of a parsed text. Its errors get the name of the setting, and the place in it."""
    from heksher_client.service.document import place

    try:
        return read()
    except YAMLTextError as error:
        name = parsed.text_at((*error.path[:2], "name"))
        raise YAMLTextError(f"{place(error.path, name)}: {error}", error.path, error.line) from None


def _line_of(text: str, path: Path | None) -> str:
    """Return the line of a place for a message; an empty text if it is not known."""
    with suppress(ValueError, RecursionError):  # Not all JSON is YAML.
        return "" if path is None else f", line {YAMLText(text).line(path)}"
    return ""


def read_state(file: str) -> "ServiceState":
    """Read the state of a service from a file.

    Raises:
        ImportError, CommandError: As by `read_document`.
    """
    from heksher_client._drivers.admin import ServiceState

    document = read_document(file)
    return ServiceState(
        tuple(document.context_features), {setting.name: _to_record(setting) for setting in document.settings}
    )


def _to_record(setting: "DocumentSetting") -> "SettingRecord":
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client._drivers.admin import RuleRecord, SettingRecord

    s = setting.declaration()
    features, metadata = list(s.configurable_features), dict(s.metadata)
    data = SettingData(s.name, features, str(s.type), s.default_value, metadata, setting.aliases, s.version)
    rules = (RuleRecord(r.rule_id, r.feature_values, r.value, r.metadata) for r in setting.rules)
    return SettingRecord(data, tuple(rules))
