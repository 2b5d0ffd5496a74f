"""Output of commands: tables for people, JSON for scripts, and progress bars."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from heksher_client._logging import escaped, visible_json
from heksher_client.cli.arguments import Command

_PLAIN_WIDTH: Final = 120
"""Columns of output that does not go to a terminal."""


def json_option(command: Command) -> Command:
    """Add the option `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def console(width: int = _PLAIN_WIDTH) -> Console:
    """Return a console that prints to standard output, in color on a terminal unless NO_COLOR is set.

    Args:
        width: The number of columns, if the output does not go to a terminal.
    """
    out = Console(highlight=False, emoji=False)  # Values are printed as they are, including `:b:`.
    if not out.is_terminal:
        out.width = width
    return out


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    text = visible_json(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    click.echo(text)


def format_conditions(conditions: Mapping[str, str]) -> str:
    """Format the conditions of a rule as on the command line: `environment=prod 'user=Ann Lee'`."""
    return escaped(shlex.join(f"{feature}={value}" for feature, value in conditions.items()))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], if_empty: str) -> None:
    """Print a table, or a sentence if it has no rows. Outside a terminal, long cells are neither cut nor wrapped."""
    cells = [[escape(escaped(str(cell))) for cell in row] for row in rows]
    if not cells:
        click.echo(if_empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*row)
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    console(width=max(_PLAIN_WIDTH, sum(widths) + 2 * len(columns))).print(table)


def _ignore_progress(done: int, total: int) -> None:
    """Do nothing: there is no terminal for a progress bar."""


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal. Yields the function to call with the numbers of done and of all steps."""
    out = Console(stderr=True, highlight=False)
    if not (out.is_terminal and sys.stdin.isatty()):
        yield _ignore_progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with a noun, such as `1 rule` or `2,000 rules`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def check_unattended(*, as_json: bool, is_decided: bool) -> None:
    """Check that a command that prints JSON, for a program, asks nothing.

    Raises:
        click.UsageError: It would ask for confirmation.
    """
    if as_json and not is_decided:
        raise click.UsageError("--json requires --yes or --dry-run")


def local_time(text: str, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time of the service in the local time zone. One without an offset is in UTC."""
    at = datetime.fromisoformat(text)
    return f"{(at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone():{form}}"
