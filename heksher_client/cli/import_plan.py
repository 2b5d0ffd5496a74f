"""The parameters of `import` and `service import`, and the changes of an import as they show them."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

import click

from heksher_client._logging import escaped
from heksher_client.cli.arguments import Command, dry_run_option, require_text, yes_option

_MAX_LINES: Final = 20
"""Changes that are listed unless all of them are wanted."""


def import_parameters(command: Command) -> Command:
    """Add the argument FILE and the options `--exact`, `--dry-run` and `--yes` to a command that imports a file."""
    exact = click.option("--exact", is_flag=True, help="Delete everything that is not in FILE.")
    file = click.argument("file", type=click.Path(dir_okay=False), callback=require_text)
    return file(exact(dry_run_option(yes_option(command))))


class Change(Protocol):
    """One change of an import."""

    @property
    def action(self) -> str:
        """The kind of change."""

    @property
    def text(self) -> str:
        """A description of the change."""


def print_changes(changes: Sequence[Change], *, is_complete: bool, rest: str = "--dry-run") -> None:
    """Print the changes of an import, one per line, and the number of each kind.

    Args:
        changes: The changes.
        is_complete: Whether to print all of them, and not only the first.
        rest: The option or command that shows the others.
    """
    shown = changes if is_complete else changes[:_MAX_LINES]
    for change in shown:
        click.echo(escaped(change.text))
    if len(shown) < len(changes):
        click.echo(f"... and {len(changes) - len(shown):,} more, which {rest} shows")
    if changes:
        counts = Counter(change.action for change in changes).most_common()
        click.echo(f"Summary: {', '.join(f'{action} ({number:,})' for action, number in counts)}.")


def confirm_changes(number: int) -> None:
    """Ask whether to make a number of changes.

    Raises:
        click.Abort: They are not wanted.
    """
    click.confirm(f"Make {'this change' if number == 1 else f'these {number:,} changes'}?", abort=True, err=True)
