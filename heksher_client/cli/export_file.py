"""Files with exported settings, which `service export` writes, and `service import` and `diff` read.

A file contains JSON, or YAML if its suffix says so.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import yaml

from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_values import check_depth, parse_json

if TYPE_CHECKING:
    from heksher_client._drivers.admin import ServiceState, SettingRecord

STDIO: Final = "-"
"""Standard input or output instead of a file, in JSON."""
_YAML_SUFFIXES: Final = (".yaml", ".yml")
_FORMAT: Final = 1


def is_export_file(source: str) -> bool:
    """True for the name of a file, as opposed to the name of a profile."""
    path = Path(source)
    return source == STDIO or "/" in source or path.suffix.lower() in (".json", *_YAML_SUFFIXES) or path.is_file()


def write_document(file: str, document: Any) -> None:
    """Write a document.

    Raises:
        OSError: The file cannot be written.
    """
    if Path(file).suffix.lower() in _YAML_SUFFIXES:
        # In ASCII, with escapes: YAML reads some of the characters beyond as line breaks.
        text = yaml.safe_dump(document, sort_keys=False, width=10_000)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    with click.open_file(file, "w", encoding="utf-8", atomic=file != STDIO) as out:
        out.write(text)


def read_document(file: str) -> Any:
    """Read a document.

    Raises:
        OSError: The file cannot be read.
        click.ClickException: The file does not contain valid JSON or YAML.
    """
    try:
        with click.open_file(file, encoding="utf-8") as source:
            text = source.read()
        is_yaml = Path(file).suffix.lower() in _YAML_SUFFIXES
        return check_depth(yaml.safe_load(text)) if is_yaml else parse_json(text)
    except RecursionError:  # The message depends on the parser.
        raise click.ClickException(f"cannot read {file}: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise click.ClickException(f"cannot read {file}: {' '.join(str(error).split())}") from None


class _Rule(msgspec.Struct):
    feature_values: dict[str, str]
    value: Any
    rule_id: int | None = None
    metadata: dict[str, Any] = {}


class _Setting(msgspec.Struct):
    name: str
    configurable_features: list[str]
    type: str
    default_value: Any
    version: str
    metadata: dict[str, Any] = {}
    aliases: list[str] = []
    rules: list[_Rule] = []


class _Document(msgspec.Struct):
    heksher: int
    context_features: list[str]
    settings: list[_Setting]


def read_state(file: str) -> "ServiceState":
    """Read the state of a service from a file.

    Raises:
        click.ClickException: The file cannot be read, is not an exported file, or contradicts itself.
    """
    from heksher_client._drivers.admin import ServiceState

    try:
        document = msgspec.convert(read_document(file), _Document)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise CommandError(f"{file} is not a file written by `service export`: {error}") from None
    if document.heksher != _FORMAT:
        raise CommandError(
            f"{file} has format {document.heksher}, and this version of heksher_client reads format {_FORMAT}"
        )
    settings: dict[str, SettingRecord] = {}
    for setting in document.settings:
        if setting.name in settings:
            raise CommandError(f"{file} contains setting {setting.name} twice")
        if len({frozenset(rule.feature_values.items()) for rule in setting.rules}) < len(setting.rules):
            raise CommandError(f"{file} contains two rules of setting {setting.name} with the same conditions")
        settings[setting.name] = _to_record(setting)
    return ServiceState(tuple(document.context_features), settings)


def _to_record(s: _Setting) -> "SettingRecord":
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client._drivers.admin import RuleRecord, SettingRecord

    data = SettingData(s.name, s.configurable_features, s.type, s.default_value, s.metadata, s.aliases, s.version)
    return SettingRecord(data, tuple(RuleRecord(r.rule_id, r.feature_values, r.value, r.metadata) for r in s.rules))
