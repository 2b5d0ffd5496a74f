"""What the commands print: tables for people, JSON for scripts, and how far long work has come."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from heksher_client._logging import escaped

PLAIN_WIDTH: Final = 120
"""Columns of what is written where there is no terminal to ask for its width."""
Command = Callable[..., Any]


def as_json_option(command: Command) -> Command:
    """Give a command the option to print for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def console(width: int = PLAIN_WIDTH) -> Console:
    """Where to print: in colour on terminals, unless NO_COLOR is set.

    Args:
        width: In columns, where there is no terminal to ask for its own.
    """
    made = Console(highlight=False, emoji=False)  # `:b:` in a value is just that
    if not made.is_terminal:
        made.width = width
    return made


def print_json(value: Any) -> None:
    """Print a value in one line of JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # dates, in files of YAML
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON has escapes for whatever cannot be written otherwise.
        text = json.dumps(value, default=str)
    click.echo(text)


def shown(value: Any) -> str:
    """A JSON value for people: text as it is, in one line."""
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def conditions_in_words(conditions: Mapping[str, str]) -> str:
    """The conditions of a rule, as they are given on the command line."""
    return escaped(" ".join(f"{feature}={value}" for feature, value in conditions.items())) or "every context"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], otherwise: str) -> None:
    """Print rows under their columns; something else if there are none. Cells may be longer than the screen is wide."""
    cells = [[escape(escaped(str(cell))) for cell in row] for row in rows]
    if not cells:
        click.echo(otherwise)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console(width=max(PLAIN_WIDTH, _width(columns, cells))).print(table)  # nothing is cut or wrapped in a pipe


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widest = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    return sum(widest) + 2 * len(columns)


def _ignore(done: int, of: int) -> None:
    """What there is no terminal to be told of."""


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something long has come, on a terminal; gives what is told of it."""
    out = Console(stderr=True, highlight=False)
    if not (out.is_terminal and sys.stdin.isatty()):
        yield _ignore
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
