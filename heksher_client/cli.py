"""The command `heksher-client`. Needs the extra `cli`; its demo needs `service` as well."""

import sys
from pathlib import Path

try:
    import click
    from rich.console import Console
except ImportError:  # pragma: no cover - an installation without the extra
    sys.exit("heksher-client needs more than the library does: pip install 'heksher_client[cli,service]'")

from heksher_client._version import __version__

_PLAIN_WIDTH = 120
"""Columns of what is written where there is no terminal to ask for its width."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="heksher-client")
def main() -> None:
    """Context-dependent settings, from the command line."""


@main.command()
@click.option("--url", metavar="URL", help="Use the Heksher service there, instead of starting one.")
def demo(url: str | None) -> None:
    """Show settings that follow their context, and change while programs run.

    Starts a service, puts some fifty rules on the settings of a shop, runs a worker on asyncio and one with threads,
    shows what they read and why, and changes rules while they run. A service that is there already has the shop's
    settings for as long as the demo runs, and keeps context features that it lacked.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    try:
        from heksher_client import demo as show
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    try:
        show.run(url, console)
    except show.DemoError as error:
        raise click.ClickException(str(error)) from error


@main.group()
def service() -> None:
    """Look after the database of a local service."""


@service.command()
@click.argument("database")
def upgrade(database: str) -> None:
    """Bring DATABASE up to this version of the service: a file, or a URL like postgresql://user@host/name.

    Stop all services that use it first, and keep a copy of it. It is done as a whole, or not at all.
    """
    try:
        from heksher_client.service import database_url
        from heksher_client.service.migrations import upgrade as run
        from heksher_client.service.schema import VERSION
    except ImportError as error:  # pragma: no cover - an installation without the extra
        raise click.ClickException(str(error)) from None
    if "://" not in database and not Path(database).exists():
        raise click.ClickException(f"there is no file {database}")
    try:
        former = run(database_url(database))
    except Exception as error:  # Whatever the database's driver may raise, it is said in one line.
        raise click.ClickException(str(error).splitlines()[0]) from None
    if former == VERSION:
        click.echo(f"Nothing to do: the database has the tables of version {VERSION}.")
    else:
        click.echo(f"The database has the tables of version {VERSION} now; before {former or 'it had none'}.")
