"""Documents in files: JSON, or YAML where the file's name says so."""

import json
from pathlib import Path
from typing import Any, Final

import click
import yaml

from heksher_client.cli.connection import json_value

STANDARD: Final = "-"
"""Not a file, but standard input or output; in JSON."""
_YAML: Final = (".yaml", ".yml")
SUFFIXES: Final = (".json", *_YAML)


def write(file: str, document: Any) -> None:
    """Write a document.

    Raises:
        OSError: The file cannot be written.
    """
    if Path(file).suffix in _YAML:
        # In ASCII: of what is written as it is, YAML takes some characters for line breaks when it is read again.
        text = yaml.safe_dump(document, sort_keys=False, width=10_000)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    with click.open_file(file, "w", encoding="utf-8", atomic=file != STANDARD) as out:
        out.write(text)


def read(file: str) -> Any:
    """Read a document.

    Raises:
        OSError: The file cannot be read.
        click.ClickException: It is no JSON, or no YAML.
    """
    try:
        with click.open_file(file, encoding="utf-8") as source:
            text = source.read()
        is_yaml = Path(file).suffix.lower() in _YAML
        return yaml.safe_load(text) if is_yaml else json_value(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise click.ClickException(f"{file} cannot be read: {words}") from None
