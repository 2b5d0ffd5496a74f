"""Files with exported settings, which `export` writes, and `import` and `diff` read.

A file contains JSON, or YAML if its suffix says so.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import click

from heksher_client._logging import visible_json
from heksher_client.cli.arguments import require_text
from heksher_client.cli.errors import CommandError
from heksher_client.cli.json_text import JSONText
from heksher_client.cli.output import count
from heksher_client.cli.text_places import TextError
from heksher_client.cli.yaml_text import YAMLText, format_yaml

if TYPE_CHECKING:
    from heksher_client.admin import ServiceState, SettingRecord
    from heksher_client.service.document import Document, DocumentSetting

STDIO: Final = "-"
"""Standard input or output instead of a file, in JSON."""
_STDOUT_FILES: Final = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_NOT_REPLACEABLE: Final = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""The file is a mount point, or its folder cannot be written to; the file itself may be writable."""
_YAML_SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 512 << 20
"""Bytes of a file, which is read into memory. One with a million rules has half of that."""


def is_export_file(source: str) -> bool:
    """True for the name of a file, as opposed to the name of a profile."""
    path = Path(source)
    return source == STDIO or "/" in source or path.suffix.lower() in (".json", *_YAML_SUFFIXES) or path.is_file()


def _is_yaml(file: str) -> bool:
    return Path(file).suffix.lower() in _YAML_SUFFIXES


def parse_destination(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return the name of a file to write, or `STDIO` for the files that are standard output. A callback."""
    file = require_text(context, parameter, value)
    return STDIO if file in _STDOUT_FILES else file


def write_document(file: str, document: Any) -> None:
    """Write a document.

    Raises:
        CommandError: The file cannot be written.
    """
    text = format_yaml(document) if _is_yaml(file) else visible_json(document, indent=2) + "\n"
    if file == STDIO:
        with click.open_file(file, "w", encoding="utf-8") as out:
            out.write(text)
        return
    try:
        _write_file(Path(file), text)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from None


def _write_file(path: Path, text: str) -> None:
    """Replace a regular file as a whole, if possible. Write into pipes and devices, which must not be replaced."""
    # `click.open_file(atomic=True)` replaces those as well, and a file by half a document if writing fails.
    if not path.exists() or path.is_file():
        try:
            _replace(path.resolve(), text)
        except OSError as error:
            if error.errno not in _NOT_REPLACEABLE:
                raise
        else:
            return
    with path.open("w", encoding="utf-8") as out:
        out.write(text)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".heksher-{token_hex(8)}.new")
    try:
        with draft.open("x", encoding="utf-8") as out:
            with suppress(FileNotFoundError):  # The file is new.
                shutil.copymode(path, draft)
            out.write(text)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):  # There may be no draft.
            draft.unlink()
        raise


def report_export(file: str, document: Any) -> None:
    """Print what a file contains now, unless it is standard output."""
    if file != STDIO:
        rules = sum(len(setting["rules"]) for setting in document["settings"])
        contents = (
            count(len(document["context_features"]), "context feature"),
            count(len(document["settings"]), "setting"),
            count(rules, "rule"),
        )
        click.echo(f"Exported {contents[0]}, {contents[1]} and {contents[2]} to {file}.")


class ExportFile:
    """A file with exported settings: its document, and the places in it."""

    def __init__(self, name: str) -> None:
        """Read a file, in UTF-8, or in UTF-16 as Windows PowerShell writes it.

        Raises:
            CommandError: It cannot be read.
        """
        self._name = name
        try:
            self._text = _read_text(name)
        except OSError as error:
            raise CommandError(f"cannot read {name}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].decode(error.encoding, "replace").count("\n") + 1
            raise CommandError(f"{name}, line {line}: the text is not valid {error.encoding.upper()}") from None
        except ValueError as error:
            raise CommandError(f"cannot read {name}: {error}") from None

    def document(self) -> "Document":
        """Return the document in the file.

        Raises:
            ImportError: The extra `service` is not installed.
            CommandError: It is not valid. The message has the line, and the setting if there is one.
        """
        from heksher_client.service.document import DocumentError, parse, place

        text = self._parser()
        try:
            return parse(text.content(), shares_objects=text.shares_objects)
        except TextError as error:
            where = place(error.path, text.text_at((*error.path[:2], "name")))
            raise self._error(error.line, f"{where}: {error}") from None
        except DocumentError as error:
            raise self._error(text.line(error.path), error) from None

    def content(self) -> Any:
        """Return the document in the file in JSON values, which the service checks.

        Raises:
            CommandError: It is not valid JSON or YAML, or its values contain themselves.
        """
        try:
            content = self._parser().content()
            json.dumps(content)
        except TextError as error:
            raise self._error(error.line, error) from None
        except (ValueError, RecursionError):
            raise CommandError(f"{self._name}: an alias is used within its own value, or nested too deeply") from None
        if not isinstance(content, dict):
            raise self._error(1, "this is not an exported document: it does not have the key heksher")
        return content

    def error_at(self, path: tuple[str | int, ...], problem: object) -> CommandError:
        """Return an error with the line of a place in the document."""
        text = self._parser()
        text.content()
        return self._error(text.line(path), problem)

    @contextmanager
    def report_errors(self) -> Iterator[None]:
        """Convert errors of the document to `CommandError`, with the line, if it conflicts with a database."""
        from heksher_client.service.document import DocumentError

        try:
            yield
        except DocumentError as error:
            raise self.error_at(error.path, error) from None

    def _error(self, line: int, problem: object) -> CommandError:
        return CommandError(f"{self._name}, line {line}: {problem}")

    def _parser(self) -> YAMLText | JSONText:
        return YAMLText(self._text) if _is_yaml(self._name) else JSONText(self._text)


def _read_text(file: str) -> str:
    with click.open_file(file, "rb") as source:
        content: bytes = source.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MB")
    return content.decode(json.detect_encoding(content))


def read_state(file: str) -> "ServiceState":
    """Read the state of a service from a file.

    Raises:
        ImportError, CommandError: As by `ExportFile`.
    """
    from heksher_client.admin import ServiceState

    document = ExportFile(file).document()
    return ServiceState(
        tuple(document.context_features), {setting.name: _to_record(setting) for setting in document.settings}
    )


def _to_record(setting: "DocumentSetting") -> "SettingRecord":
    from heksher_client._core.refresh.protocol import SettingData
    from heksher_client.admin import RuleRecord, SettingRecord
    from heksher_client.service import clock

    s = setting.declaration()
    features, metadata = list(s.configurable_features), dict(s.metadata)
    data = SettingData(s.name, features, str(s.type), s.default_value, metadata, setting.aliases, s.version)
    now = clock.now()
    rules = (
        RuleRecord(
            r.rule_id or 0,
            r.feature_values,
            r.value,
            r.metadata,
            in_effect=r.period.contains(now),
            **r.period.as_json(),
        )
        for r in setting.rules
    )
    return SettingRecord(data, tuple(rules))
